"""`drydock store verify`, with and without --repair: every kind of damage is found, named, and mended from the lock."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.embedded.installed import rewrite_record
from tests.support import Result, Sandbox, make_wheel
from tests.support.steps import GO, Step, Watched, why_not

SITE = "lib/python3.11/site-packages"
PYC = f"{SITE}/anchor/__pycache__/__init__.cpython-311.pyc"


@pytest.fixture
def desk(locked: Sandbox) -> Sandbox:
    """A desk where `small` is built, with a cache of uv's of its own: damage goes through hard links."""
    locked.environment["UV_CACHE_DIR"] = str(locked.root / "cache")
    locked.drydock("build", "small").succeeded()
    return locked


def env_of(desk: Sandbox) -> Path:
    return desk.store / next(name for name in desk.environments() if name.endswith("-small"))


def opened(path: Path) -> Path:
    """A file whose folder and itself can be written to."""
    path.parent.chmod(0o755)
    if path.exists() and not path.is_symlink():
        path.chmod(0o644)
    return path


def write(path: str, text: str) -> Callable[[Path], None]:
    def damage(env: Path) -> None:
        opened(env / path).write_text(text)

    return damage


def append(path: str) -> Callable[[Path], None]:
    """In place, so that what is linked to the file changes too."""

    def damage(env: Path) -> None:
        with opened(env / path).open("ab") as file:
            file.write(b"#")

    return damage


def remove(path: str) -> Callable[[Path], None]:
    def damage(env: Path) -> None:
        opened(env / path).unlink()

    return damage


def relink(path: str, target: str) -> Callable[[Path], None]:
    def damage(env: Path) -> None:
        opened(env / path).unlink()
        (env / path).symlink_to(target)

    return damage


def forge(env: Path) -> None:
    """Change a file, and RECORD so that it agrees."""
    info = env / SITE / "anchor-1.0.dist-info"
    opened(env / SITE / "anchor/forged.py").write_text("x = 2\n")
    opened(info / "RECORD")
    rewrite_record(info, {"anchor/forged.py": b"x = 2\n"})


DAMAGES = {
    f"{SITE}/anchor/changed.py was changed": append(f"{SITE}/anchor/changed.py"),
    f"{SITE}/anchor/missing.py is missing": remove(f"{SITE}/anchor/missing.py"),
    f"{SITE}/anchor/extra.py is not part of it": write(f"{SITE}/anchor/extra.py", "x = 1\n"),
    f"{SITE}/anchor-1.0.dist-info/RECORD was changed": forge,
    f"{SITE}/anchor/__pycache__/spoilt.cpython-311.pyc is not the bytecode of its source": append(
        f"{SITE}/anchor/__pycache__/spoilt.cpython-311.pyc"
    ),
    f"{SITE}/anchor/__pycache__/gone.cpython-311.pyc is missing": remove(
        f"{SITE}/anchor/__pycache__/gone.cpython-311.pyc"
    ),
    "bin/pip was changed": append("bin/pip"),
    "pyvenv.cfg was changed": append("pyvenv.cfg"),
    "bin/python leads to /usr/bin/env, not to": relink("bin/python", "/usr/bin/env"),
    ".drydock/extra is not part of it": write(".drydock/extra", ""),
}


@pytest.mark.slow
def test_every_damage_is_found_and_mended(desk: Sandbox) -> None:
    names = ("__init__", "changed", "missing", "forged", "spoilt", "gone")
    files = {f"anchor/{name}.py": f"version = '1.0'  # {name}\n" for name in names}
    make_wheel(desk.wheels, "anchor", "1.0", files=files)
    desk.environment["UV_CACHE_DIR"] = str(desk.root / "another cache")
    (desk.work / "profiles/small.lock.toml").unlink()
    desk.drydock("lock", "small").succeeded()
    env = Path(desk.drydock("build", "small").succeeded().stdout.strip())
    for damage in DAMAGES.values():
        damage(env)
    words = ("1 of 1 environment is damaged", "store verify --repair")
    found = desk.drydock("store", "verify", env.name).failed(1, *words)
    assert f"FAIL {env.name}: " in found.stdout
    lines = found.stdout.splitlines()[1:]
    for told in DAMAGES:
        assert [line for line in lines if line.strip().startswith(told)], told
    assert len(lines) == len(DAMAGES) + 1  # the forged file is not that of its bytecode either
    assert f"{SITE}/anchor/__pycache__/forged.cpython-311.pyc is not the bytecode of its source" in found.stdout
    mended = desk.drydock("store", "verify", "--repair").succeeded()
    assert f"repaired {env.name}: " in mended.stdout
    assert "anchor: files in uv's cache were changed; fetching again" in mended.stderr
    assert desk.drydock("store", "verify").succeeded().stdout.count("ok   ") == 2
    assert desk.drydock("run", "small").succeeded().stdout == "trained with 1.0\n"
    assert desk.drydock("build", "small").succeeded().stderr == "small is built\n"
    assert len(desk.environments()) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda text: text.replace("3.11.", "3.12."), "it was edited"),
        (lambda text: text[:-20], "unreadable"),
        (lambda _: "[]", "unreadable"),
    ],
)
def test_a_manifest_that_was_edited_is_found_and_mended(desk: Sandbox, damage: Callable[[str], str], told: str) -> None:
    env = env_of(desk)
    path = opened(env / ".drydock/manifest.json")
    path.write_text(damage(path.read_text()))
    mended = desk.drydock("store", "verify", "--repair").succeeded()
    assert f".drydock/manifest.json {told}" in mended.stdout
    assert desk.drydock("store", "verify").succeeded().stdout.startswith(f"ok   {env.name}: ")
    assert desk.environments() == [env.name]


@pytest.mark.slow
def test_damaged_bytecode_that_nothing_links_yet_is_found_and_made_again(desk: Sandbox) -> None:
    [shared] = [path for path in (desk.store.parent / "bytecode").rglob("*.pyc") if path.samefile(env_of(desk) / PYC)]
    append(PYC)(env_of(desk))
    desk.remove(env_of(desk).name)
    found = desk.drydock("store", "verify").failed(1)
    assert f"{shared.relative_to(desk.store.parent)} is not whole" in found.stdout
    desk.drydock("store", "verify", "--repair").succeeded()
    desk.drydock("build", "small").succeeded()
    assert desk.drydock("store", "verify").succeeded().stdout.startswith("ok   ")


@pytest.mark.slow
def test_a_file_that_several_environments_share_is_found_in_each(desk: Sandbox) -> None:
    text = (desk.work / "profiles/small.toml").read_text().replace('name = "small"', 'name = "other"')
    desk.profile("other", text)
    desk.drydock("lock", "other").succeeded()
    desk.drydock("build", "other").succeeded()
    append(f"{SITE}/anchor/__init__.py")(env_of(desk))
    rows = json.loads(desk.drydock("store", "verify", "--json").failed(1).stdout)
    assert len(rows) == 2
    for row in rows:
        assert row["problems"] == [{"path": f"{SITE}/anchor/__init__.py", "what": "was changed"}]
    mended = desk.drydock("store", "verify", "--repair").succeeded()
    assert mended.stdout.count("repaired ") == 2
    assert "anchor: files in uv's cache were changed; fetching again" in mended.stderr


def test_a_renamed_folder_cannot_be_mended_and_the_others_are(desk: Sandbox) -> None:
    env = env_of(desk)
    remove("bin/pip")(env)
    env.chmod(0o755)
    shutil.copytree(env, env.with_name(f"renamed-{env.name}"), symlinks=True)
    found = desk.drydock("store", "verify", "--repair")
    found.failed(1, "1 of 2 environments is damaged", "no generation and no script has this key")
    assert f"the folder was renamed: it is {env.name}" in found.stdout
    assert f"repaired {env.name}: " in found.stdout


def test_a_key_that_nothing_has_is_named(desk: Sandbox) -> None:
    desk.drydock("store", "verify", "zzz").failed(2, "no environment of the store has a key that begins with zzz")


def test_one_environment_is_verified_by_its_path_too(desk: Sandbox) -> None:
    assert desk.drydock("store", "verify", str(env_of(desk))).succeeded().stdout.startswith("ok   ")


@pytest.mark.slow
def test_a_mended_trainer_goes_on(desk: Sandbox) -> None:
    """What runs while its environment is swapped finds every file where it was."""
    desk.trainer(
        "import sys, time, pathlib, anchor; print('up', flush=True); sys.stdin.readline();"
        "import anchor; print(pathlib.Path(anchor.__file__).read_text(), flush=True)"
    )
    env = env_of(desk)
    process = subprocess.Popen(
        ["sh", str(desk.script("small"))],
        env=desk.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    remove("bin/pip")(env)
    desk.drydock("store", "verify", "--repair").succeeded()
    assert process.communicate("\n", timeout=30)[0].startswith("version = '1.0'")


@pytest.mark.slow
def test_there_is_an_environment_at_every_step_of_a_repair(desk: Sandbox) -> None:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    env = env_of(desk)
    remove("bin/pip")(env)
    absent: list[str] = []

    def decide(_watched: Watched, step: Step) -> int:
        if not (env / SITE / "anchor/__init__.py").is_file():
            absent.append(str(step))
        return GO

    command = [sys.executable, "-m", "builder", "store", "verify", "--repair"]
    home = desk.store.parent
    code, _, stderr = Watched(command, home, decide, env=desk.environment, cwd=desk.work).ended(120)
    assert (code, absent) == (0, []), stderr
    assert (env / "bin/pip").is_file()


@pytest.mark.slow
def test_a_generation_that_is_deleted_during_a_repair_takes_only_its_script(desk: Sandbox) -> None:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    env = env_of(desk)
    desk.run(["sh", str(desk.script("small")), "--build-only"]).succeeded()
    remove("bin/pip")(env)
    script = desk.store.parent / "profiles/small-1-run.sh"
    assert script.exists()

    def decide(_watched: Watched, step: Step) -> int:
        if ".stage-" in str(step):
            script.unlink(missing_ok=True)
        return GO

    command = [sys.executable, "-m", "builder", "store", "verify", "--repair"]
    code, _, stderr = Watched(command, desk.store.parent, decide, env=desk.environment, cwd=desk.work).ended(120)
    assert not script.exists()
    assert code == 0, stderr
    assert (env / "bin/pip").is_file()


# --- a Python that is gone -----------------------------------------------------------------------------------------


def dangle(env: Path) -> None:
    relink("bin/python", "/nowhere/python3.11")(env)


@pytest.mark.slow
def test_an_environment_whose_python_is_gone_is_built_again(desk: Sandbox) -> None:
    env = env_of(desk)
    dangle(env)
    found = desk.drydock("store", "verify").failed(1)
    assert "bin/python leads to /nowhere/python3.11" in found.stdout
    ran = desk.drydock("run", "small").succeeded()
    assert ran.stdout == "trained with 1.0\n"
    assert "the Python that small was built on is gone; building it again" in ran.stderr
    assert desk.environments() == [env.name]
    desk.drydock("store", "verify").succeeded()
    dangle(env)
    desk.run(["sh", str(desk.script("small")), "--verify"]).failed(1, "the Python that it was built on is gone")
    assert desk.drydock("build", "small").succeeded().stdout == f"{env}\n"
    assert desk.environments() == [env.name]


# --- a store that is not ours --------------------------------------------------------------------------------------


def test_a_store_of_a_newer_format_is_refused_by_program_and_script(desk: Sandbox) -> None:
    script = desk.script("small")
    (desk.store.parent / "format").write_text("2\n")
    for result in (
        desk.drydock("build", "small"),
        desk.drydock("store", "gc"),
        desk.run(["sh", str(script)]),
        desk.run(["sh", str(script), "--verify"]),
    ):
        code = 2 if "this Drydock" in result.stderr else 1
        result.failed(code, "is a store of format 2, and this", "knows format 1", "DRYDOCK_HOME")
    assert desk.environments() == [env_of(desk).name]


def test_what_was_built_in_the_future_is_no_trouble(desk: Sandbox) -> None:
    """The clock was set back."""
    future = 4102444800
    env = env_of(desk)
    for path in (env, *desk.store.parent.glob("profiles/*"), *desk.store.parent.glob("gcroots/*/*")):
        os.utime(path, (future, future), follow_symlinks=False)
    results: list[Result] = [
        desk.drydock("run", "small"),
        desk.drydock("generation", "list", "small"),
        desk.drydock("store", "gc", "--max-age", "1d"),
        desk.drydock("store", "verify"),
        desk.drydock("build", "small"),
    ]
    for result in results:
        result.succeeded()
    assert "2100-01-01" in results[1].stdout
    assert desk.environments() == [env.name]
