"""Places where environments cannot be, or only in another way: what is wrong with them is said as what it is."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from builder.embedded import wheels
from builder.embedded.errors import StageError
from tests.support import Sandbox, make_wheel
from tests.support.base import copy_python, find_python
from tests.support.homes import script_of
from tests.support.mounts import folding, overlay, remount, tmpfs
from tests.support.steps import GO, Step, Watched, why_not
from tests.support.storms import GROUP, USERS, why_no_members


def doctor(desk: Sandbox, what: str, **env: str) -> dict[str, str]:
    found = json.loads(desk.drydock("doctor", "small", "--json", env=env).stdout)
    return next(dict(one) for one in found["diagnoses"] if one["what"] == what)


def test_a_good_place_is_said_to_be_one_and_nothing_stays_there(locked: Sandbox) -> None:
    before = sorted(os.listdir(locked.home))
    assert doctor(locked, "place of the store")["state"] == "ok"
    assert sorted(os.listdir(locked.home)) == before
    locked.drydock("build", "small").succeeded()
    assert doctor(locked, "place of the store")["state"] == "ok"
    assert not list(locked.store.parent.rglob(".try-*"))


def test_a_place_where_programs_cannot_be_started(locked: Sandbox) -> None:
    with tmpfs(locked.root / "disk", "64m", "noexec") as disk:
        home = {"DRYDOCK_HOME": str(disk)}
        locked.drydock("build", "small", env=home).failed(
            1, "programs cannot be started from it (Permission denied): it may be mounted with noexec", "hint: mount it"
        )
        assert list((disk / "store").iterdir()) == []
        found = doctor(locked, "place of the store", **home)
        assert (found["state"], "noexec" in found["found"]) == ("fail", True)


@pytest.mark.slow
def test_a_uv_that_is_fetched_to_where_it_cannot_be_started(sandbox: Sandbox, tmp_path: Path) -> None:
    from tests.embedded.test_network import bare

    sandbox.profile("small")
    environment = {**bare(sandbox, tmp_path), "PIP_INDEX_URL": sandbox.index.url}
    with tmpfs(sandbox.root / "disk", "64m", "noexec") as disk:
        done = sandbox.run(["sh", str(sandbox.script("small"))], env={**environment, "DRYDOCK_HOME": str(disk)})
        done.failed(1, f"programs cannot be started from {disk}: it may be mounted with noexec")


def test_inodes_that_are_used_up(locked: Sandbox) -> None:
    with tmpfs(locked.root / "disk", "64m", "nr_inodes=100") as disk:
        home = {"DRYDOCK_HOME": str(disk)}
        locked.drydock("build", "small", env=home).failed(
            1, "files more may be made on this disk: its inodes are used up"
        )
        for number in range(100):
            try:
                (disk / f"file-{number}").touch()
            except OSError:
                break
        assert "its inodes are used up" in doctor(locked, "place of the store", **home)["found"]


def test_a_place_without_symbolic_links(locked: Sandbox) -> None:
    """As exFAT has none, which external disks often are: no system here has it, so its answer is given by hand."""
    reason = why_not()
    if reason is not None:
        pytest.skip(f"system calls cannot be handed over here: {reason}")
    home = locked.root / "disk"
    environment = {**locked.environment, "DRYDOCK_HOME": str(home)}

    def decide(_watched: Watched, step: Step) -> int:
        return errno.EPERM if step.call.startswith(("symlink", "link")) else GO

    code, _, stderr = Watched(script_of(locked), home, decide, env=environment, cwd=locked.work).ended()
    assert code == 1
    assert "it has no symbolic links (Operation not permitted), as exFAT and FAT have none" in stderr
    assert "name a folder on another disk: DRYDOCK_HOME" in stderr
    assert "install" not in stderr
    assert list((home / "store").iterdir()) == []


@pytest.mark.parametrize("by", ["script", "program"])
def test_a_path_with_a_colon_is_refused(locked: Sandbox, by: str) -> None:
    home = {"DRYDOCK_HOME": str(locked.root / "a:b")}
    words = (
        f"the store cannot be in {locked.root}/a:b, as PATH has no folder with a colon",
        "DRYDOCK_HOME names another",
    )
    if by == "script":
        locked.run(script_of(locked), env=home).failed(1, *words)
    else:
        locked.drydock("build", "small", env=home).failed(2, *words)
        found = json.loads(locked.drydock("doctor", "small", "--json", env=home).stdout)
        assert any("colon" in one["found"] for one in found["diagnoses"])
    assert not (locked.root / "a:b").exists()


@pytest.mark.parametrize("by", ["read-only home", "read-only cache"])
def test_a_cache_of_uvs_that_cannot_be_written_is_no_missing_python(locked: Sandbox, by: str) -> None:
    script = script_of(locked)
    with tmpfs(locked.root / "disk", "1m") as disk:
        remount(disk, "ro")
        environment = {"DRYDOCK_HOME": str(locked.root / "store")}
        if by == "read-only home":
            del locked.environment["UV_CACHE_DIR"]
            environment |= {"HOME": str(disk)}
        else:
            environment |= {"UV_CACHE_DIR": str(disk / "uv")}
        done = locked.run(script, env=environment)
        found = doctor(locked, "uv's cache", **environment)
    assert (found["state"], "UV_CACHE_DIR" in found["fix"]) == ("fail", True)
    done.failed(
        1, "error: the cache of uv cannot be used: ", "Read-only file system", "hint: name a folder of your own"
    )
    assert "install" not in done.stderr
    assert "fetching Python" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif((_reason := why_no_members()) is not None, reason=f"no other user here: {_reason}")
@pytest.mark.parametrize("whose", ["home", "cache"])
def test_what_root_has_made_in_a_home_is_no_missing_python(locked: Sandbox, whose: str) -> None:
    """As `sudo drydock` or a container leaves it: a home, or uv's cache in it, that is root's, and a user builds."""
    script = script_of(locked)
    with tempfile.TemporaryDirectory(prefix="drydock-members-") as folder:
        desk = Path(folder)
        desk.chmod(0o755)
        for name in ("home", "home/cache", "store"):
            (desk / name).mkdir()
        for name in ("store", *(["home"] if whose == "cache" else [])):
            os.chown(desk / name, USERS[0], GROUP)
        shutil.copy(script[1], desk / "run.sh")
        shutil.copy(locked.environment["DRYDOCK_UV"], desk / "uv")
        base = copy_python(find_python(), desk / "python")
        asker = {"HOME": f"{desk}/home", "DRYDOCK_HOME": f"{desk}/store", "DRYDOCK_UV": f"{desk}/uv"}
        asker |= {"DRYDOCK_PYTHON": base.python, "TMPDIR": f"{desk}/store", "PATH": "/usr/bin:/bin"}
        if whose == "cache":
            asker |= {"UV_CACHE_DIR": f"{desk}/home/cache"}
        who = ["setpriv", f"--reuid={USERS[0]}", f"--regid={GROUP}", "--clear-groups"]
        del locked.environment["UV_CACHE_DIR"]
        done = locked.run([*who, "sh", f"{desk}/run.sh"], env=asker, cwd=desk)
        assert os.listdir(desk / "store/store") == []
    done.failed(1, "error: the cache of uv cannot be used: ", "Permission denied", "hint: name a folder of your own")
    assert "install" not in done.stderr
    assert "fetching Python" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="for others the store is protected by its modes")
def test_what_root_changes_in_the_store_is_said_at_the_next_start(locked: Sandbox) -> None:
    env = Path(locked.drydock("build", "small").succeeded().stdout.strip())
    script = script_of(locked)[:2]

    def notes(*command: str) -> str:
        return "".join(line for line in locked.run(command).stderr.splitlines(True) if line.startswith("drydock:"))

    assert notes(*script) == ""
    site = env / "lib/python3.11/site-packages"
    (module,) = [path for path in (site / "anchor.py", site / "anchor/__init__.py") if path.exists()]
    said = str(module.relative_to(site))
    with module.open("a") as file:
        file.write("\nversion = 'hacked'\n")
    assert said in notes(*script)
    assert "a module that is edited runs as it was compiled" in notes(*script)
    assert "trained with 1.0" in locked.run(script).stdout
    assert said in notes(*script, "--shell", "--", "true")
    assert notes(*script, "--build-only") == ""
    with locked.start("run", "small") as running:  # to the end of its pipe: the note may come after the trainer
        assert said.encode() in running.communicate()[1]
    for number in range(9):
        (site / f"beside{number}.py").write_text("")
    assert "  and 6 more" in notes(*script)  # with the folder itself
    locked.drydock("store", "verify", "--repair").succeeded()
    assert notes(*script) == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="for others the store is protected by its modes")
def test_a_trainer_does_not_wait_for_what_is_said_of_changes(locked: Sandbox) -> None:
    env = Path(locked.drydock("build", "small").succeeded().stdout.strip())
    (env / "lib/python3.11/site-packages/beside.py").write_text("")
    go, slow = locked.root / "go", locked.root / "slow"
    slow.mkdir()
    wait = f'for one in 1 2 3 4 5 6 7 8 9; do [ ! -e {go} ] || exec {shutil.which("find")} "$@"; sleep 1; done'
    (slow / "find").write_text(f"#!/bin/sh\n{wait}\n")
    (slow / "find").chmod(0o755)
    path = f"{slow}{os.pathsep}{locked.environment['PATH']}"
    with locked.start("run", "small", env={"PATH": path}) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert b"trained with 1.0" in running.stdout.readline()
        go.touch()
        assert b"beside.py" in running.stderr.read()
    assert running.returncode == 0


@pytest.mark.slow
def test_an_overlay_whose_folders_cannot_be_renamed(locked: Sandbox) -> None:
    """As in a container whose image has a store in it: a collection goes through, and what is broken is built again."""
    lower = locked.root / "lower"
    built = Path(locked.drydock("build", "small", env={"DRYDOCK_HOME": str(lower)}).succeeded().stdout.strip())
    with overlay(locked.root / "merged", lower) as home:
        environment = {"DRYDOCK_HOME": str(home)}
        env = home / "store" / built.name
        with pytest.raises(OSError, match="cross-device"):
            env.rename(env.with_name("other"))
        # What it was built on is gone.
        (env / "bin").chmod(0o755)
        (env / "bin/python").unlink()
        (env / "bin/python").symlink_to("/nowhere/python3.11")
        locked.drydock("build", "small", env=environment).succeeded()
        assert (env / "bin/python").exists()
        locked.drydock("verify", "small", env=environment).succeeded()
    with overlay(locked.root / "merged", lower) as home:
        environment = {"DRYDOCK_HOME": str(home)}
        env = home / "store" / built.name
        module = env / "lib/python3.11/site-packages/anchor/__init__.py"
        module.parent.chmod(0o755)
        module.unlink()
        module.write_text("changed = True\n")
        locked.drydock("store", "verify", "--repair", env=environment).succeeded()
        assert module.read_text() == "version = '1.0'\n"
    with overlay(locked.root / "merged", lower) as home:
        environment = {"DRYDOCK_HOME": str(home)}
        shutil.rmtree(home / "profiles")
        shutil.rmtree(home / "gcroots")
        done = locked.drydock("store", "gc", env=environment).succeeded()
        assert "cross-device" not in done.stderr.lower()
        assert [name for name in os.listdir(home / "store") if not name.startswith(".lock")] == []


@pytest.mark.slow
def test_where_upper_and_lower_case_are_the_same(sandbox: Sandbox) -> None:
    make_wheel(sandbox.wheels, "one", "1.0", files={"Both/thing.py": "A = 1\n", "Both/__init__.py": ""})
    make_wheel(sandbox.wheels, "two", "1.0", files={"both/Thing.py": "A = 2\n"})
    make_wheel(sandbox.wheels, "itself", "1.0", files={"itself/Data.txt": "one\n", "itself/data.txt": "two\n"})

    def wanting(*names: str) -> None:
        text = ", ".join(f'"{name}"' for name in ("anchor", *names))
        path = sandbox.profile("small")
        path.write_text(path.read_text().replace('["anchor"]', f"[{text}]"))
        sandbox.drydock("lock", "small").succeeded()

    with folding(sandbox.root / "disk") as disk:
        env = {"DRYDOCK_HOME": str(disk / "drydock"), "UV_CACHE_DIR": str(sandbox.root / "cache")}
        wanting("one")
        sandbox.drydock("build", "small", env=env).succeeded()
        said = doctor(sandbox, "place of the store", **env)
        assert (said["state"], "upper and lower case are the same there" in said["found"]) == ("ok", True)
        assert sandbox.drydock("run", "small", env=env).succeeded().stdout == "trained with 1.0\n"
        wanting("one", "two")
        # NTFS forgets the case too, where it is told to ignore it: they bring the very same path.
        sandbox.drydock("build", "small", env=env).failed(1, "one and two bring both/thing.py, each another one")
        wanting("itself")
        words = "itself bring itself/Data.txt and itself/data.txt, which are one file here"
        sandbox.drydock("build", "small", env=env).failed(1, words, "DRYDOCK_HOME")
        assert len(os.listdir(disk / "drydock/store")) == 1
    # Elsewhere they are what they are; and what a Mac would make of them, which forgets nothing.
    wanting("one", "two", "itself")
    env_path = Path(sandbox.drydock("build", "small").succeeded().stdout.strip())
    assert "case" not in doctor(sandbox, "place of the store")["found"]
    plan = json.loads((env_path / ".drydock/manifest.json").read_text())["plan"]
    names = {one["name"]: one["sha256"] for one in plan["packages"]}
    folder = env_path.parent.parent / "wheels/cpython-311"
    found = [wheel for name in ("anchor", "one", "two") if (wheel := wheels.known(folder, names[name], name))]
    wheels.check_case(found[:2])
    with pytest.raises(
        StageError, match=r"one and two bring Both/thing\.py and both/Thing\.py, which are one file here"
    ):
        wheels.check_case(found)
