"""./drydockw: what it installs, with what, and that no Python but its own is changed, whatever happens meanwhile."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from uv import find_uv_bin

from builder.embedded import network
from builder.embedded.hashes import sha256
from requirements import install
from tests.conftest import ROOT
from tests.support import Web, make_wheel
from tests.support.again import happening
from tests.support.base import Base, changes, copy_python, find_python, snapshot
from tests.support.waiting import LONG

VERSION = "drydock, version 0.1.0\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What ./drydockw needs of this checkout, in a folder with a space in its name."""
    folder = tmp_path / "a checkout"
    for name in ("builder", "profiles", "requirements", "templates"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("LICENSE", "README.md", "drydockw", "pyproject.toml"):
        shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A Python of a user, with packages, for `python3` on PATH."""
    copy = copy_python(find_python(), tmp_path_factory.mktemp("base") / "python")
    for name in ("python", "python3"):
        (copy.prefix / "bin" / name).symlink_to("python3.11")
    return Base(copy.prefix, snapshot(copy.prefix))


def call(checkout: Path, base: Base, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(checkout / "drydockw"), *arguments],
        env=environment(base, **env),
        cwd=checkout.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def environment(base: Base, **env: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DRYDOCK_", "PYTHON", "VIRTUAL"))}
    return {**kept, "PATH": f"{base.prefix}/bin:/usr/bin:/bin", **env}


def with_uv() -> dict[str, str]:
    return {"DRYDOCK_UV": find_uv_bin()}


# Which settings count


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".config/pip").mkdir(parents=True)
    (tmp_path / ".config/uv").mkdir()
    return tmp_path


def variables(home: Path, **env: str) -> dict[str, str]:
    return {"HOME": str(home), "XDG_CONFIG_DIRS": str(home / "none"), "PATH": "/bin", **env}


def for_pip(environ: dict[str, str]) -> dict[str, str]:
    return install.isolated(network.pip_environment(environ, root="/nowhere"))


def for_uv(environ: dict[str, str]) -> dict[str, str]:
    return install.isolated(network.environment(environ, root="/nowhere"))


def test_pip_gets_the_users_mirrors_and_nothing_else(home: Path) -> None:
    (home / "wheels").mkdir()
    (home / "own.pem").touch()
    (home / ".config/pip/pip.conf").write_text(
        "[global]\nindex-url = https://mirror.example/simple\ntarget = /victim\nconstraint = /c.txt\n"
        "find-links =\n    wheels\n    https://mirror.example/wheels\n[install]\ncert = own.pem\nplatform = win32\n"
        "user = true\n[list]\nindex-url = https://no.example\n"
    )
    found = for_pip(variables(home, PIP_TARGET="/victim", PIP_PREFIX="/victim", PIP_TIMEOUT="7", UV_X="1"))
    assert {name: value for name, value in found.items() if name.startswith(("PIP_", "UV_"))} == {
        "PIP_INDEX_URL": "https://mirror.example/simple",
        "PIP_FIND_LINKS": f"{home}/wheels https://mirror.example/wheels",
        "PIP_CERT": f"{home}/own.pem",
        "PIP_DEFAULT_TIMEOUT": "7",
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }


def test_uv_gets_the_users_mirrors_and_nothing_else(home: Path) -> None:
    for folder in ("a", "b", ".config/uv/wheels"):
        (home / folder).mkdir()
    uv_toml = home / ".config/uv/uv.toml"
    uv_toml.write_text(
        'native-tls = true\nexclude-newer = "2020-01-01"\nrequired-version = ">=99"\nfind-links = ["wheels"]\n'
        'cache-dir = "../cache"\n'
        '[[index]]\nname = "own"\nurl = "https://own.example/simple"\ndefault = true\n'
        '[[index]]\nname = "more"\nurl = "more"\n'
        '[[index]]\nname = "one"\nurl = "https://one.example/simple"\nexplicit = true\n'
        '[[index]]\nurl = "https://flat.example/"\nformat = "flat"\n'
        '[pip]\ntarget = "/victim"\nprefix = "/victim"\nno-deps = true\n'
    )
    environ = variables(home, UV_NO_VERIFY_HASHES="1", UV_TARGET="/v", UV_FIND_LINKS="a,b", UV_PYTHON="3.9")
    expected = {
        "UV_SYSTEM_CERTS": "0",
        "UV_CACHE_DIR": f"{home}/.config/uv/../cache",
        "UV_DEFAULT_INDEX": "own=https://own.example/simple",
        "UV_INDEX": f"more={home}/.config/uv/more",
        "UV_FIND_LINKS": f"{home}/a,{home}/b,{home}/.config/uv/wheels,https://flat.example/",
        "UV_NO_CONFIG": "1",
    }
    found = for_uv(environ)
    assert {name: value for name, value in found.items() if name.startswith("UV_")} == expected
    uv_toml.write_text(uv_toml.read_text() + "no-index = true\n")
    del expected["UV_INDEX"]
    found = for_uv(environ)
    assert {name: value for name, value in found.items() if name.startswith("UV_")} == {
        **expected,
        "UV_DEFAULT_INDEX": network.NO_INDEX,
    }


def test_uv_takes_pips_index_where_it_has_none_of_its_own(home: Path) -> None:
    for folder in ("a", "b"):
        (home / folder).mkdir()
    (home / "own.pem").touch()
    (home / ".config/pip/pip.conf").write_text(
        "[global]\nindex-url = https://me:secret@mirror.example/simple\nfind-links = ~/a b\ncert = own.pem\n"
    )
    found = for_uv(variables(home))
    assert found["UV_DEFAULT_INDEX"] == "https://me:secret@mirror.example/simple"
    assert found["UV_FIND_LINKS"] == f"{home}/a,{home}/b"
    assert found["SSL_CERT_FILE"] == f"{home}/own.pem"
    named = for_uv(variables(home, UV_DEFAULT_INDEX="https://uv.example/simple"))
    assert named["UV_DEFAULT_INDEX"] == "https://uv.example/simple"


def test_no_other_python_is_let_in(home: Path) -> None:
    leaks = {"PYTHONPATH": "/x", "PYTHONSAFEPATH": "1", "VIRTUAL_ENV": "/x", "UV_PYTHON_PREFERENCE": "only-managed"}
    kept = {"PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    for found in (for_pip(variables(home, **leaks, **kept)), for_uv(variables(home, **leaks, **kept))):
        assert leaks.keys() & found.keys() == set()
        assert kept.items() <= found.items()


# Words


@pytest.mark.slow
def test_without_pip_and_uv_both_ways_are_named(checkout: Path, base: Base, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(base.prefix, bare, symlinks=True, ignore=shutil.ignore_patterns("ensurepip", "pip*"))
    for name in ("cmp", "sh"):
        (bare / "bin" / name).symlink_to(Path("/usr/bin") / name)
    done = call(checkout, base, "drydock", "--version", PATH=str(bare / "bin"))
    assert done.returncode == 1
    assert "error: there is neither uv" in done.stderr
    assert "python3-pip" in done.stderr
    assert "DRYDOCK_UV" in done.stderr
    assert not list(checkout.glob(".venv-*"))


def test_a_file_that_cannot_be_read_is_named_and_nothing_is_written_beside_the_reader(
    checkout: Path, base: Base, home: Path
) -> None:
    (home / ".config/pip/pip.conf").write_text("nonsense")
    done = call(
        checkout,
        base,
        "drydock",
        HOME=str(home),
        XDG_CONFIG_HOME=str(home / ".config"),
        UV_DEFAULT_INDEX="file:///none",
        **with_uv(),
    )
    assert done.returncode == 1
    assert f"drydockw: note: passed over: {home}/.config/pip/pip.conf, which pip cannot read either" in done.stderr
    assert "error: uv could not install the tools" in done.stderr
    assert not list((checkout / "builder").rglob("__pycache__"))


@pytest.mark.slow
def test_relative_folders_are_those_of_the_caller(checkout: Path, base: Base, tmp_path: Path) -> None:
    """uv brings what only such a folder has; then what builds Drydock itself is missing, as none of it is pinned."""
    wheel = make_wheel(tmp_path / "wheels", "drydock-anchor", "1.0")
    pins = checkout / "requirements/run.txt"
    uv = re.search(r"(?m)^uv==.*\n(?:    --hash.*\n)+", pins.read_text())
    assert uv is not None
    pins.write_text(f"{uv[0]}drydock-anchor==1.0 --hash=sha256:{sha256(wheel.read_bytes())}\n")
    done = call(checkout, base, "drydock", UV_FIND_LINKS="wheels", **with_uv())
    assert "uv could not install" not in done.stderr
    assert "Drydock itself cannot be installed" in done.stderr


@pytest.mark.slow
def test_a_log_is_never_silent_and_a_failure_changes_nothing(checkout: Path, base: Base, tmp_path: Path) -> None:
    """An index that answers nothing for seconds."""
    old = checkout / ".venv"
    old.mkdir()
    (old / "installed-run.txt").write_text("an older one")
    settings = {"HOME": str(tmp_path), "UV_CACHE_DIR": str(tmp_path / "cache")}
    settings |= {"UV_HTTP_TIMEOUT": "7", "UV_HTTP_RETRIES": "0"}
    with Stalling(tmp_path) as index:
        settings["UV_DEFAULT_INDEX"] = index.url
        process = subprocess.Popen(
            [str(checkout / "drydockw"), "drydock", "--version"],
            env=environment(base, **with_uv(), **settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        times, lines = [time.monotonic()], []
        assert process.stderr is not None
        with process:
            for line in process.stderr:
                times.append(time.monotonic())
                lines.append(line)
    assert process.returncode == 1
    said = "".join(lines)
    assert said.count("drydockw: installing: ") >= 3
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) < 4, said
    assert "error: uv could not install the tools" in said
    assert "UV_DEFAULT_INDEX names a mirror" in said
    assert [path.name for path in old.iterdir()] == ["installed-run.txt"]
    assert not list(checkout.glob(".venv-*"))


class Stalling(Web):
    """Answers no request until it is closed."""

    def _handler(self) -> type:
        over = self.over

        class Handler(super()._handler()):  # type: ignore[misc]
            def do_GET(self) -> None:  # noqa: N802
                over.wait(LONG)

        return Handler


# Installing


@pytest.mark.slow
def test_a_uv_that_is_there_finds_the_python(checkout: Path, base: Base, tmp_path: Path) -> None:
    """As on a Mac without the Command Line Tools: no python3 on PATH, one that uv has installed."""
    pythons = tmp_path / "pythons"
    key = "cpython-3.11.7-linux-x86_64-gnu" if os.uname().machine == "x86_64" else "cpython-3.11.7-linux-aarch64-gnu"
    shutil.copytree(base.prefix, pythons / key, symlinks=True)
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("cmp", "sh", "sed"):
        (bare / name).symlink_to(Path("/usr/bin") / name)
    there = {"PATH": str(bare), "UV_PYTHON_INSTALL_DIR": str(pythons), "UV_PYTHON_DOWNLOADS": "never"}
    without = call(checkout, base, "drydock", "--version", **there)
    assert without.returncode == 1
    assert "error: no python3 >= 3.11 was found, and no uv that has one" in without.stderr
    (bare / "uv").symlink_to(find_uv_bin())
    done = call(checkout, base, "drydock", "--version", **there)
    assert (done.returncode, done.stdout) == (0, VERSION), done.stderr
    assert (checkout / ".venv/bin/python").resolve().is_relative_to(pythons)


@pytest.mark.slow
def test_what_was_installed_is_what_is_pinned(checkout: Path, base: Base) -> None:
    """Without a uv: the pip that `python -m venv` would install fetches it. Scripts start, and activate is right."""
    done = call(checkout, base, "drydock", "--version")
    assert (done.returncode, done.stdout) == (0, VERSION), done.stderr
    venv = checkout / ".venv"
    listed = subprocess.run(
        [find_uv_bin(), "pip", "list", "--format", "json", "--python", str(venv / "bin/python")],
        capture_output=True,
        check=True,
    )
    found = {package["name"]: package["version"] for package in json.loads(listed.stdout)}
    pinned = dict(re.findall(r"^([\w.-]+)==([\w.]+)", (checkout / "requirements/run.txt").read_text(), re.MULTILINE))
    assert found == {**pinned, "drydock-env": "0.1.0"}
    assert not list(venv.rglob("direct_url.json")) or "drydock" in str(next(venv.rglob("direct_url.json")))
    assert changes(base.prefix, base.files) == []
    where = subprocess.run(
        ["/bin/sh", "-c", '. "$1/bin/activate"; command -v drydock; echo "$VIRTUAL_ENV"', "sh", str(venv)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.splitlines() == [str(venv / "bin/drydock"), str(venv)]
    # A ready one asks nobody for anything.
    again = call(checkout, base, "drydock", "--version", UV_OFFLINE="1", PIP_NO_INDEX="1")
    assert (again.stdout, again.stderr) == (VERSION, "")


@pytest.mark.slow
def test_another_uv_is_not_used_and_a_venv_of_the_users_is_kept(checkout: Path, base: Base, tmp_path: Path) -> None:
    other = tmp_path / "bin/uv"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\necho uv 0.1.0\n")
    other.chmod(0o755)
    (checkout / ".venv").mkdir()
    (checkout / ".venv/notes").write_text("mine")
    done = call(checkout, base, "drydock", "--version", DRYDOCK_UV=str(other))
    assert (done.returncode, done.stdout) == (0, VERSION), done.stderr
    assert "note: DRYDOCK_UV is not uv" in done.stderr
    assert "it is now .venv-before" in done.stderr
    assert (checkout / ".venv-before/notes").read_text() == "mine"


@pytest.mark.slow
def test_uv_is_installed_without_a_changed_byte(checkout: Path, base: Base) -> None:
    for path in (checkout / "requirements").glob("*.txt"):
        path.write_text(re.sub(r"(?m)^(uv==.*\n(?:    --hash.*\n)+)", spoiled, path.read_text()))
    done = call(checkout, base, "drydock", "--version")
    assert done.returncode == 1
    assert "pip could not fetch uv" in done.stderr
    assert not (checkout / ".venv").exists()


def spoiled(pin: re.Match[str]) -> str:
    return re.sub(r"sha256:[0-9a-f]{4}", "sha256:0000", pin[0])


# Whatever happens meanwhile


def delete_configuration(venv: Path, _base: Base) -> None:
    (venv / "pyvenv.cfg").unlink()


def delete_programs(venv: Path, _base: Base) -> None:
    shutil.rmtree(venv / "bin")


def delete_all(venv: Path, _base: Base) -> None:
    shutil.rmtree(venv)


def replace_by_a_link(venv: Path, base: Base) -> None:
    if not venv.is_symlink():
        venv.rename(venv.with_name(f"taken-{random.random()}"))
        venv.symlink_to(base.prefix)


def attempt(event: Callable[[Path, Base], None], venv: Path, base: Base) -> None:
    with suppress(OSError):
        event(venv, base)


@pytest.mark.slow
@pytest.mark.parametrize("event", [delete_configuration, delete_programs, delete_all, replace_by_a_link])
def test_no_python_is_changed_whatever_happens_to_venv(
    event: Callable[[Path, Base], None], checkout: Path, base: Base
) -> None:
    with happening(partial(attempt, event, checkout / ".venv", base), 0.003):
        for _ in range(int(os.environ.get("DRYDOCK_TEST_ROUNDS", "3"))):
            done = call(checkout, base, "drydock", "--version", **with_uv())
            assert changes(base.prefix, base.files) == [], done.stderr
            assert done.returncode or done.stdout == VERSION
            assert "Traceback" not in done.stderr
    if (checkout / ".venv").is_symlink():
        (checkout / ".venv").unlink()
    done = call(checkout, base, "drydock", "--version", **with_uv())
    assert (done.returncode, done.stdout) == (0, VERSION), done.stderr
    assert changes(base.prefix, base.files) == []


@pytest.mark.slow
def test_a_call_that_is_killed_leaves_nothing_that_matters(checkout: Path, base: Base) -> None:
    for _ in range(int(os.environ.get("DRYDOCK_TEST_ROUNDS", "3"))):
        process = subprocess.Popen(
            [str(checkout / "drydockw"), "drydock", "--version"],
            env=environment(base, **with_uv()),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(random.uniform(0.1, 1.5))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = call(checkout, base, "drydock", "--version", **with_uv())
    assert (done.returncode, done.stdout) == (0, VERSION), done.stderr
    assert not list(checkout.glob(".venv-*"))
    assert changes(base.prefix, base.files) == []
