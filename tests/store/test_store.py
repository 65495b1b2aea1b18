"""The store through the program: generations, garbage collection, read-only paths, scratch environments."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support import Sandbox, make_wheel

SLEEPER = 'command = ["python", "-c", "import time, anchor; print(anchor.version, flush=True); time.sleep(60)"]'


@pytest.fixture
def desk(locked: Sandbox) -> Sandbox:
    """A desk where `small` is built as generation 1; `change()` takes a newer anchor and builds generation 2."""
    locked.drydock("build", "small").succeeded()
    return locked


def change(desk: Sandbox, version: str = "2.0") -> None:
    make_wheel(desk.wheels, "anchor", version)
    desk.environment["UV_CACHE_DIR"] = str(desk.root / f"cache-{version}")
    desk.drydock("lock", "small", "-U").succeeded()
    desk.drydock("build", "small").succeeded()


def trained(desk: Sandbox) -> str:
    return desk.drydock("run", "small").succeeded().stdout.strip()


def home(desk: Sandbox) -> Path:
    return desk.store.parent


@pytest.mark.slow
def test_a_rolled_back_profile_stays_so_until_the_next_build(desk: Sandbox) -> None:
    change(desk)
    assert trained(desk) == "trained with 2.0"
    assert desk.drydock("generation", "rollback", "small").succeeded().stdout == "small is generation 1\n"
    again = desk.drydock("run", "small").succeeded()
    assert again.stdout == "trained with 1.0\n"
    assert "drydock build small" in again.stderr
    desk.drydock("build", "small").succeeded()
    assert trained(desk) == "trained with 2.0"
    rows = json.loads(desk.drydock("generation", "list", "small", "--json").succeeded().stdout)
    assert [(row["number"], row["current"], row["changes"]) for row in rows] == [
        (1, False, "1 package"),
        (2, False, "anchor 1.0 -> 2.0"),
        (3, True, "as generation 2"),
    ]


def test_a_rollback_with_nothing_behind_it(desk: Sandbox) -> None:
    desk.drydock("generation", "rollback", "small").failed(2, "no generation before the current one")
    desk.drydock("generation", "rollback", "never-built").failed(2, "no generation before the current one")
    desk.drydock("generation", "switch", "small", "9").failed(2, "small has no generation 9", "it has: 1")


def test_changed_settings_are_taken_over_without_a_new_generation(desk: Sandbox) -> None:
    text = (desk.work / "profiles/small.toml").read_text()
    desk.profile(
        "small", text.replace("print(", "import os; print(os.environ['GREETING'],") + '[env]\nGREETING = "hi"\n'
    )
    assert trained(desk).startswith("hi trained")
    assert len(desk.drydock("generation", "list", "small").succeeded().stdout.splitlines()) == 1


@pytest.mark.slow
def test_collection_takes_what_nothing_needs_and_nothing_else(desk: Sandbox) -> None:
    change(desk)
    assert len(desk.environments()) == 2
    desk.drydock("store", "gc").succeeded()
    assert len(desk.environments()) == 2, "both are generations"
    desk.drydock("generation", "delete", "small", "old").succeeded()
    told = desk.drydock("store", "gc", "--dry-run").succeeded()
    assert "nothing needs it" in told.stdout
    assert "would free: 1 path," in told.stderr
    assert len(desk.environments()) == 2
    assert "freed: 1 path," in desk.drydock("store", "gc").succeeded().stderr
    assert len(desk.environments()) == 1
    assert trained(desk) == "trained with 2.0"


def test_a_script_that_was_run_is_a_root_as_long_as_it_is_there(desk: Sandbox) -> None:
    script = desk.script("small")
    desk.run(["sh", str(script), "--build-only"]).succeeded()
    generation = next((home(desk) / "profiles").glob("small-1-link"))
    for link in (generation, home(desk) / "profiles/small"):
        link.unlink()
    desk.drydock("store", "gc").succeeded()
    assert len(desk.environments()) == 1
    script.unlink()
    desk.drydock("store", "gc").succeeded()
    assert desk.environments() == []


@pytest.mark.slow
def test_a_running_trainer_is_a_root_until_it_ends(sandbox: Sandbox) -> None:
    sandbox.profile("small")
    text = (sandbox.work / "profiles/small.toml").read_text()
    sandbox.profile("small", "\n".join(SLEEPER if line.startswith("command") else line for line in text.splitlines()))
    sandbox.drydock("lock", "small").succeeded()
    script = sandbox.script("small")
    with subprocess.Popen(
        ["sh", str(script)], env=sandbox.environment, cwd=sandbox.work, stdout=subprocess.PIPE, text=True
    ) as trainer:
        assert trainer.stdout is not None
        assert trainer.stdout.readline() == "1.0\n"
        script.unlink()
        sandbox.drydock("store", "gc").succeeded()
        assert len(sandbox.environments()) == 1
        trainer.send_signal(signal.SIGKILL)
        trainer.wait()
    sandbox.drydock("store", "gc").succeeded()
    assert sandbox.environments() == []
    assert list((home(sandbox) / "gcroots/running").iterdir()) == []


def test_a_process_number_that_was_given_to_somebody_else_is_no_root(desk: Sandbox) -> None:
    desk.drydock("generation", "list", "small").succeeded()
    for link in (home(desk) / "profiles").iterdir():
        link.unlink()
    mark = home(desk) / "gcroots/running" / f"{desk.environments()[0]}.{os.getpid()}"
    mark.touch()
    long_ago = time.time() - 10 * 365 * 86400
    os.utime(mark, (long_ago, long_ago))
    desk.drydock("store", "gc").succeeded()
    assert desk.environments() == []


@pytest.mark.slow
def test_a_collection_that_died_while_it_chose_blocks_nobody(desk: Sandbox) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    (home(desk) / "gcroots/collecting").write_text(f"{gone.pid}\n")
    assert trained(desk) == "trained with 1.0"
    desk.drydock("store", "gc").succeeded()


@pytest.mark.slow
def test_a_process_that_has_the_number_of_a_dead_collection_blocks_nobody(desk: Sandbox) -> None:
    mark = home(desk) / "gcroots/collecting"
    mark.write_text(f"{os.getpid()}\n")
    os.utime(mark, (0, 0))
    assert trained(desk) == "trained with 1.0"
    desk.drydock("store", "gc").succeeded()
    assert not mark.exists()


def test_a_file_that_a_dead_process_wrote_is_collected_after_an_hour(desk: Sandbox) -> None:
    old = [home(desk) / name for name in ("bytecode/cpython-311/ab/cd.pyc.7", "cache/evaluations/.ab.json.7")]
    new = [path.with_name(f"{path.name}8") for path in old]
    for path in [*old, *new]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    for path in old:
        os.utime(path, (0, 0))
    desk.drydock("store", "gc").succeeded()
    assert [path.exists() for path in old] == [False, False]
    assert [path.exists() for path in new] == [True, True]


def test_stages_of_dead_builds_are_collected_and_living_ones_are_not(desk: Sandbox) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    named = f".stage-{'x' * 32}-{os.uname().nodename}"  # as they were named before they had a note
    living = [f"{named}-{os.getpid()}", f".stage-{'x' * 32}-another.host-{dead.pid}"]
    for name in (f"{named}-{dead.pid}", *living):
        (desk.store / name / "lib").mkdir(parents=True)
    desk.drydock("store", "gc").succeeded()
    assert [name for name in desk.environments() if name.startswith(".")] == sorted(living)


@pytest.mark.slow
def test_limits_of_a_collection(desk: Sandbox) -> None:
    change(desk)
    desk.drydock("generation", "delete", "small", "old").succeeded()
    desk.drydock("store", "gc", "--max-age", "1d").succeeded()
    desk.drydock("store", "gc", "--max-size", "10G").succeeded()
    assert len(desk.environments()) == 2
    desk.drydock("store", "gc", "--max-size", "1").succeeded()
    assert len(desk.environments()) == 1
    desk.drydock("store", "gc", "--max-age", "soon").failed(2, "30d")
    desk.drydock("store", "gc", "--max-size", "much").failed(2, "20G")


def test_folders_are_read_only_and_a_collection_removes_them_all_the_same(desk: Sandbox) -> None:
    env = desk.store / desk.environments()[0]
    for folder in (env, env / "bin", env / ".drydock", env / "lib/python3.11/site-packages/anchor"):
        assert folder.stat().st_mode & 0o777 == 0o555, folder
    assert (env / ".drydock/manifest.json").stat().st_mode & 0o777 == 0o444
    (home(desk) / "profiles/small-1-link").unlink()
    desk.drydock("store", "gc").succeeded()
    assert desk.environments() == []


def test_pip_in_an_environment_says_what_to_do_instead(desk: Sandbox) -> None:
    env = desk.store / desk.environments()[0]
    done = desk.run([str(env / "bin/pip"), "install", "something"])
    assert done.code == 1
    assert "name it in the profile" in done.stderr
    assert "drydock shell --scratch" in done.stderr


@pytest.mark.slow
def test_a_scratch_environment_is_writable_and_lies_on_the_store_path(desk: Sandbox) -> None:
    make_wheel(desk.wheels, "trinket", "5.0")
    shell = desk.root / "shell"
    shell.write_text(
        '#!/bin/sh\n"$DRYDOCK_UV" pip install -q trinket && python -c '
        "'import anchor, trinket; print(anchor.version, trinket.version)'\n"
    )
    shell.chmod(0o755)
    before = sorted(str(path) for path in desk.store.rglob("*"))
    done = desk.drydock("shell", "--scratch", "small", env={"SHELL": str(shell)}).succeeded()
    assert done.stdout == "1.0 5.0\n"
    assert sorted(str(path) for path in desk.store.rglob("*")) == before


@pytest.mark.slow
def test_bytecode_is_linked_into_environments_that_share_a_source(desk: Sandbox) -> None:
    make_wheel(desk.wheels, "trinket", "5.0")
    text = (desk.work / "profiles/small.toml").read_text()
    other = text.replace('name = "small"', 'name = "other"').replace('["anchor"]', '["anchor", "trinket"]')
    desk.profile("other", other)
    desk.drydock("lock", "other").succeeded()
    desk.drydock("build", "other").succeeded()
    links = {path.stat().st_ino for path in desk.store.glob("*/lib/*/site-packages/anchor/__pycache__/*.pyc")}
    assert len(links) == 1
    assert len(list(desk.store.glob("*/lib/*/site-packages/anchor/__pycache__/*.pyc"))) == 2
    content = next(desk.store.glob("*/lib/*/site-packages/anchor/__pycache__/*.pyc")).read_bytes()
    assert content[4:8] == b"\x01\0\0\0", "unchecked hash-based (PEP 552)"
    assert str(desk.root).encode() not in content


@pytest.mark.slow
def test_a_source_that_does_not_compile_is_left_out(sandbox: Sandbox) -> None:
    files = {"anchor/__init__.py": "version = '1.0'\n", "anchor/old.py": "print 'Python 2'\n"}
    make_wheel(sandbox.wheels, "anchor", "1.0", files=files)
    sandbox.environment["UV_CACHE_DIR"] = str(sandbox.root / "cache")
    sandbox.profile("small")
    sandbox.drydock("lock", "small").succeeded()
    sandbox.drydock("build", "small").succeeded()
    cached = sandbox.store.glob("*/lib/*/site-packages/anchor/__pycache__/*.pyc")
    assert [path.name.split(".")[0] for path in cached] == ["__init__"]


@pytest.mark.slow
def test_bytecode_is_that_of_the_source_which_is_there(sandbox: Sandbox) -> None:
    """Two wheels with a module of one name, and a wheel that brings bytecode; met for the first time, and again."""
    tag = "__pycache__/shared.cpython-311.pyc"
    make_wheel(
        sandbox.wheels, "anchor", "1.0", files={"anchor/__init__.py": "version = '1.0'\n", "shared.py": "x = 1\n"}
    )
    make_wheel(sandbox.wheels, "buoy", "1.0", files={"buoy.py": "", "shared.py": "x = 2\n"})
    make_wheel(sandbox.wheels, "chain", "1.0", files={"chain.py": "x = 3\n", "__pycache__/chain.cpython-311.pyc": "no"})
    sandbox.environment["UV_CACHE_DIR"] = str(sandbox.root / "cache")
    for name in ("small", "other"):
        path = sandbox.profile(name)
        more = '["anchor", "buoy", "chain"]\noverlap = { "shared.py" = "buoy" }'
        path.write_text(path.read_text().replace('["anchor"]', more))
        sandbox.drydock("lock", name).succeeded()
        env = Path(sandbox.drydock("build", name).succeeded().stdout.strip())
        site = env / "lib/python3.11/site-packages"
        program = "import shared, chain, anchor; print(shared.x, shared.__cached__, chain.x)"
        told = sandbox.run([str(env / "bin/python"), "-c", program]).succeeded().stdout.split()
        assert told == [site.joinpath("shared.py").read_text().split()[-1], str(site / tag), "3"]
        sandbox.drydock("store", "verify", env.name).succeeded()


@pytest.mark.slow
def test_a_wheel_that_was_met_before_brings_its_bytecode_patched_or_not(desk: Sandbox) -> None:
    """What was noted of a wheel is of use only to those who install it as it was then."""
    files = {"anchor/__init__.py": "version = '1.0'\n", "anchor/lines.py": "a = 1\n"}
    make_wheel(desk.wheels, "anchor", "1.0", files=files)
    desk.environment["UV_CACHE_DIR"] = str(desk.root / "cache")
    desk.file("fix.patch", "--- a/anchor/lines.py\n+++ b/anchor/lines.py\n@@ -1 +1 @@\n-a = 1\n+a = 2\n")
    desk.file("fix.py", "import anchor.lines\nassert anchor.lines.a == 2\n")
    patch = '[[patches]]\npackage = "anchor"\nversions = ">=1"\nfile = "fix.patch"\nproof = "fix.py"\nwhy = "a is 2"\n'
    for name, tail in (("plain", ""), ("mended", patch), ("again", ""), ("mended-too", patch)):
        path = desk.profile(name, tail=tail)
        path.write_text(
            path.read_text()
            .replace("import anchor;", "import anchor.lines as l, anchor;")
            .replace("'trained with', anchor.version", "l.a, l.__cached__[-4:]")
        )
        desk.drydock("lock", name).succeeded()
        assert desk.drydock("run", name).succeeded().stdout == f"{2 if tail else 1} .pyc\n"
    desk.drydock("store", "verify").succeeded()


@pytest.mark.slow
def test_usage_counts_a_hard_link_once(desk: Sandbox) -> None:
    make_wheel(desk.wheels, "trinket", "5.0")
    text = (desk.work / "profiles/small.toml").read_text()
    desk.profile("other", text.replace('name = "small"', 'name = "other"'))
    desk.drydock("lock", "other").succeeded()
    desk.drydock("build", "other").succeeded()
    total = json.loads(desk.drydock("store", "du", "--json").succeeded().stdout)
    assert len(total["environments"]) == 2
    counted = {
        (path.stat().st_ino): path.stat().st_blocks * 512
        for path in desk.store.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    shared = {
        path.stat().st_ino: path.stat().st_blocks * 512
        for folder in ("bytecode", "wheels")
        for path in (home(desk) / folder).rglob("*")
        if path.is_file()
    }
    assert total["real"] == sum({**counted, **shared}.values())
    assert total["apparent"] > total["real"] - total["bytecode"]


def test_a_manifest_that_was_edited_is_believed_nowhere(desk: Sandbox) -> None:
    env = desk.store / desk.environments()[0]
    manifest = env / ".drydock/manifest.json"
    text = manifest.read_text()
    manifest.chmod(0o644)
    manifest.write_text(text.replace('"interpreter"', '"nothing": 1, "interpreter"'))
    assert "its environment is missing or damaged" in desk.drydock("generation", "list", "small").succeeded().stdout
    desk.drydock("diff", "small@1", "small").failed(1, "the manifest of small@1 is damaged: it was edited")
