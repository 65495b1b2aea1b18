"""The Python below an environment: its release, pinned or not, another one in its place, and what it lacks."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import Sandbox
from tests.support.base import copy_python, find_python


def release_of(python: str | Path) -> str:
    question = "import platform; print(platform.python_version())"
    return subprocess.run([python, "-c", question], capture_output=True, text=True, check=True).stdout.strip()


def pin(desk: Sandbox, version: str) -> None:
    path = desk.profile("small")
    path.write_text(path.read_text().replace('version = "3.11"', f'version = "{version}"'))


def another(release: str) -> Path:
    """A Python 3.11 of this machine that is another release."""
    found = [Path("/usr/bin/python3.11"), *Path.home().glob(".pyenv/versions/3.11.*/bin/python3.11")]
    others = [path for path in found if path.exists() and release_of(path) != release]
    if not others:
        pytest.skip("there is only one Python 3.11 on this machine")
    return others[0]


def manifest(env: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((Path(env) / ".drydock/manifest.json").read_text())
    return found


@pytest.mark.slow
def test_a_profile_of_one_release(sandbox: Sandbox) -> None:
    python = sandbox.environment["DRYDOCK_PYTHON"]
    release = release_of(python)
    sandbox.profile("small")
    sandbox.drydock("lock", "small").succeeded()
    loose = sandbox.drydock("build", "small").succeeded().stdout.strip()
    pin(sandbox, release)
    sandbox.drydock("build", "small").failed(1, "drydock lock small")
    sandbox.drydock("lock", "small").succeeded()
    env = sandbox.drydock("build", "small").succeeded().stdout.strip()
    assert env != loose
    plan = manifest(env)["plan"]
    assert isinstance(plan, dict)
    assert (plan["python"], plan["interpreter"]) == ("3.11", release)
    sandbox.drydock("verify", "small").succeeded()
    assert sandbox.drydock("run", "small").succeeded().stdout == "trained with 1.0\n"
    # uv finds it by its release too.
    sandbox.remove(Path(env).name)
    sandbox.drydock("build", "small", env={"DRYDOCK_PYTHON": ""}).succeeded()


@pytest.mark.slow
def test_a_release_that_is_not_there(sandbox: Sandbox) -> None:
    pin(sandbox, "3.11.98")
    sandbox.drydock("lock", "small").failed(
        1, "there is no Python 3.11.98 here, and uv knows none", 'the newest that it can fetch: version = "3.11.'
    )
    assert not (sandbox.work / "profiles/small.lock.toml").exists()
    other = "3.11.13" if release_of(sandbox.environment["DRYDOCK_PYTHON"]) != "3.11.13" else "3.11.14"
    pin(sandbox, other)
    sandbox.drydock("lock", "small").succeeded()
    words = (f"and the profile wants {other}; nothing was left in the store", f"hint: uv python install {other}")
    sandbox.drydock("build", "small").failed(1, *words)
    script = sandbox.script("small")
    sandbox.run(["sh", str(script)], env={"DRYDOCK_PYTHON": ""}).failed(1, f"no virtual environment of Python {other}")
    venv = sandbox.root / "venv"
    sandbox.run([sandbox.environment["DRYDOCK_PYTHON"], "-m", "venv", "--without-pip", str(venv)]).succeeded()
    sandbox.run(["sh", str(script), "--into", str(venv), "--yes"]).failed(1, f"and the profile wants {other}")
    assert sandbox.environments() == []
    found = json.loads(sandbox.drydock("doctor", "small", "--json").stdout)
    (python,) = [one for one in found["diagnoses"] if one["what"] == "Python"]
    assert python["state"] == "fail"
    assert f"install Python {other}" in python["fix"]


@pytest.mark.parametrize("version", ["3.11.", "3.11.100", "3.11.7rc1", "3.11.7 "])
def test_what_is_no_release(sandbox: Sandbox, version: str) -> None:
    pin(sandbox, version)
    sandbox.drydock("lock", "small").failed(1, "python.version")


@pytest.mark.slow
def test_another_release_in_its_place_is_said(sandbox: Sandbox, tmp_path: Path) -> None:
    """As Homebrew and the systems' packages do it: the same path is another release after an upgrade."""
    base = copy_python(find_python(), tmp_path / "python")
    python = Path(base.python)
    release, other = release_of(python), another(release_of(python))
    sandbox.profile("small")
    sandbox.drydock("lock", "small").succeeded()
    sandbox.environment["DRYDOCK_PYTHON"] = str(python)
    env = sandbox.drydock("build", "small").succeeded().stdout.strip()
    python.unlink()
    python.symlink_to(other)
    assert release_of(f"{env}/bin/python") == release_of(other)
    verified = sandbox.drydock("verify", "small").succeeded().stdout
    assert f"Python {release_of(other)} on" in verified
    assert f"; it was {release} when this was built" in verified
    found = json.loads(sandbox.drydock("doctor", "small", "--json").stdout)
    (said,) = [one for one in found["diagnoses"] if one["what"] == "Python"]
    assert said["state"] == "warn"
    assert f"where it was {release}" in said["found"]
    assert f'[python] version = "{release}"' in said["fix"]


@pytest.mark.slow
def test_one_key_on_two_releases_is_a_difference(sandbox: Sandbox) -> None:
    """In a store of somebody else's machine, say: the generations name one key, and two Pythons."""
    other = another(release_of(sandbox.environment["DRYDOCK_PYTHON"]))
    sandbox.profile("small")
    sandbox.drydock("lock", "small").succeeded()
    env = Path(sandbox.drydock("build", "small").succeeded().stdout.strip())
    first = manifest(str(env))
    sandbox.remove(env.name)
    elsewhere = {"DRYDOCK_PYTHON": str(other), "DRYDOCK_HOME": str(sandbox.root / "elsewhere")}
    second = manifest(sandbox.drydock("build", "small", env=elsewhere).succeeded().stdout.strip())
    assert first["key"] == second["key"]
    assert first["interpreter"] != second["interpreter"]
    # Both as generations of one store: another profile with the same plan.
    sandbox.drydock("build", "small").succeeded()
    shutil.copy(sandbox.work / "profiles/small.toml", sandbox.work / "profiles/twin.toml")
    twin = sandbox.work / "profiles/twin.toml"
    twin.write_text(twin.read_text().replace('name = "small"', 'name = "twin"'))
    sandbox.drydock("lock", "twin").succeeded()
    sandbox.drydock("build", "twin", env={"DRYDOCK_PYTHON": str(other)}).succeeded()
    said = sandbox.drydock("diff", "small@1", "twin@1")
    assert "interpreter: 1 changed" in said.stdout
    assert f"~ Python '{first['interpreter']} " in said.stdout
    assert f"-> '{second['interpreter']} " in said.stdout
    assert "packages" not in said.stdout


@pytest.mark.slow
def test_a_python_without_modules_is_said(sandbox: Sandbox, tmp_path: Path) -> None:
    base = copy_python(find_python(), tmp_path / "python")
    gone = [path for name in ("_lzma", "_bz2", "_sqlite3") for path in base.prefix.rglob(f"{name}.*.so")]
    if len(gone) != 3:
        pytest.skip("this Python has these modules in itself")
    sandbox.profile("small")
    sandbox.drydock("lock", "small").succeeded()
    for path in gone:
        path.unlink()
    sandbox.environment["DRYDOCK_PYTHON"] = base.python

    def doctor() -> dict[str, str]:
        found = json.loads(sandbox.drydock("doctor", "small", "--json").stdout)
        (said,) = [one for one in found["diagnoses"] if one["what"] == "Python"]
        return dict(said)

    before = doctor()
    built = sandbox.drydock("build", "small").succeeded()
    assert "warning: this Python lacks _bz2, _lzma, _sqlite3: it was compiled where" in built.stderr
    assert "liblzma-dev" in built.stderr
    for said in (before, doctor()):
        assert said["state"] == "warn"
        assert "it lacks _bz2, _lzma, _sqlite3" in said["found"]
        assert "uv python install 3.11" in said["fix"]
    assert "; it lacks _bz2, _lzma, _sqlite3" in sandbox.drydock("verify", "small").succeeded().stdout
