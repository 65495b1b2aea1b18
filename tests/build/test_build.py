"""Building and running, on small real wheels from a loopback index; and everything that may go wrong on the way."""

from __future__ import annotations

import difflib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builder.embedded.claim import NOTE
from tests.conftest import ROOT
from tests.support import Sandbox, make_wheel, python_3_11
from tests.support.mounts import remount, tmpfs
from tests.support.waiting import LONG, allowed, until

DRYDOCK = [sys.executable, "-m", "builder"]
SITE = "lib/python3.11/site-packages"


def build(desk: Sandbox, **env: str) -> Path:
    """Build `small`; gives its folder."""
    return Path(desk.drydock("build", "small", env=env).succeeded().stdout.strip())


def cold(desk: Sandbox) -> dict[str, str]:
    """An empty cache for uv, so that wheels come from the index."""
    return {"UV_CACHE_DIR": str(desk.root / "cold-cache")}


# --- the way through -----------------------------------------------------------------------------------------------


def test_a_profile_becomes_a_trainer_that_runs(sandbox: Sandbox) -> None:
    sandbox.profile("small")
    sandbox.drydock("lock", "small").succeeded()
    built = sandbox.drydock("build", "small").succeeded()
    assert built.stdout.strip() == str(sandbox.store / sandbox.environments()[0])
    assert sandbox.drydock("run", "small").succeeded().stdout == "trained with 1.0\n"


def test_files_that_a_wheel_has_beside_its_packages_are_there(sandbox: Sandbox) -> None:
    """As jupyter, matplotlib or CUDA's wheels have them: in share/, in include/, in the root of the environment."""
    data = {"anchor-1.5.data/data/licence.txt": "free\n", "anchor-1.5.data/data/share/anchor/more.txt": "more\n"}
    make_wheel(sandbox.wheels, "anchor", "1.5", files={"anchor/__init__.py": "version = '1.5'\n", **data})
    sandbox.profile("small")
    sandbox.drydock("lock", "small").succeeded()
    env = build(sandbox)
    assert (env / "licence.txt").read_text() == "free\n"
    assert (env / "share/anchor/more.txt").read_text() == "more\n"
    assert env.stat().st_mode & 0o222 == 0
    sandbox.drydock("verify", "small").succeeded()
    assert json.loads((env / ".drydock/manifest.json").read_text())["plan"]["packages"][0]["version"] == "1.5"


@pytest.mark.slow
@pytest.mark.parametrize("path", ["pyvenv.cfg", "PyVenv.cfg", ".drydock/manifest.json", "bin/activate"])
def test_a_wheel_that_brings_what_an_environment_is_entered_through_is_refused(sandbox: Sandbox, path: str) -> None:
    files = {"anchor/__init__.py": "version = '1.5'\n", f"anchor-1.5.data/data/{path}": "home = /elsewhere\n"}
    make_wheel(sandbox.wheels, "anchor", "1.5", files=files)
    sandbox.profile("small")
    sandbox.drydock("lock", "small").succeeded()
    done = sandbox.drydock("build", "small")
    assert done.code == 1
    assert f"anchor brings {path}, which every environment has of its own" in done.stderr
    assert not sandbox.environments()


def test_run_builds_what_is_not_there(locked: Sandbox) -> None:
    ran = locked.drydock("run", "small").succeeded()
    assert ran.stdout == "trained with 1.0\n"
    assert "building small" in ran.stderr
    assert len(locked.environments()) == 1


def test_the_second_build_does_nothing(built: Sandbox) -> None:
    env = built.store / built.environments()[0]
    before, asked = env.stat().st_ctime_ns, len(built.index.requests)
    again = built.drydock("build", "small").succeeded()
    assert again.stderr == "small is built\n"
    assert (env.stat().st_ctime_ns, len(built.index.requests)) == (before, asked)


def test_what_decides_nothing_rebuilds_nothing(built: Sandbox) -> None:
    path = built.work / "profiles/small.toml"
    path.write_text(path.read_text() + 'arguments = ["--steps", "7"]\n[env]\nOMP_NUM_THREADS = "3"\n')
    assert built.drydock("build", "small").succeeded().stderr == "small is built\n"


@pytest.mark.slow
def test_a_patch_is_applied_to_the_environment_and_to_nothing_else(sandbox: Sandbox) -> None:
    from builder.embedded.hashes import record_hash, sha256

    text = "".join(f"line {number}\n" for number in range(1, 10))
    mended = text.replace("line 5", "line five")
    files = {"anchor/__init__.py": "version = '1.5'\n", "anchor/lines.txt": text, "anchor/other.txt": "other\n"}
    make_wheel(sandbox.wheels, "anchor", "1.5", files=files)
    lines = difflib.unified_diff(
        text.splitlines(True), mended.splitlines(True), "a/anchor/lines.txt", "b/anchor/lines.txt"
    )
    sandbox.file("patches/fix.patch", "".join(lines))
    sandbox.file(
        "proofs/anchor.py",
        "import anchor, pathlib\nassert 'five' in (pathlib.Path(anchor.__file__).parent / 'lines.txt').read_text()\n",
    )
    sandbox.profile(
        "small",
        tail='[[patches]]\npackage = "anchor"\nversions = ">=1"\nfile = "patches/fix.patch"\n'
        'proof = "proofs/anchor.py"\nwhy = "line 5 is wrong"\n',
    )
    sandbox.drydock("lock", "small").succeeded()
    env = build(sandbox, **cold(sandbox))
    site, cached = env / SITE / "anchor", next(Path(cold(sandbox)["UV_CACHE_DIR"]).rglob("anchor/lines.txt")).parent
    # uv gave hard links into its cache: the patched file is a new one, and the cache has the old text.
    assert (site / "other.txt").samefile(cached / "other.txt")
    assert not (site / "lines.txt").samefile(cached / "lines.txt")
    assert ((site / "lines.txt").read_text(), (cached / "lines.txt").read_text()) == (mended, text)
    record = (env / SITE / "anchor-1.5.dist-info/RECORD").read_text()
    assert f"anchor/lines.txt,{record_hash(mended.encode())},{len(mended)}\n" in record
    assert record_hash(text.encode()) not in record
    manifest = json.loads((env / ".drydock/manifest.json").read_text())
    pinned = {"path": "anchor/lines.txt", "preimage": sha256(text.encode()), "postimage": sha256(mended.encode())}
    assert [patch["files"] for patch in manifest["plan"]["patches"]] == [[pinned]]
    verified = sandbox.drydock("verify", "small").succeeded().stdout
    assert "ok   patches/fix.patch: applied to anchor/lines.txt" in verified
    assert "ok   anchor.py" in verified


# --- locks ---------------------------------------------------------------------------------------------------------


def stale(desk: Sandbox) -> None:
    path = desk.work / "profiles/small.toml"
    path.write_text(path.read_text().replace('["anchor"]', '["anchor>=1"]'))


def edited(desk: Sandbox) -> None:
    path = desk.work / "profiles/small.lock.toml"
    text = path.read_text()
    digest = text.rpartition('sha256 = "')[2][:64]
    path.write_text(text.replace(digest, "0" * 64))


def damaged(desk: Sandbox) -> None:
    path = desk.work / "profiles/small.lock.toml"
    path.write_text(path.read_text()[:300])


def missing(desk: Sandbox) -> None:
    (desk.work / "profiles/small.lock.toml").unlink()


def of_another(desk: Sandbox) -> None:
    path = desk.work / "profiles/small.lock.toml"
    path.write_text(path.read_text().replace('profile = "small"', 'profile = "large"'))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "message", "hint"),
    [
        (stale, "the lock is stale: small has changed since it was made", "drydock lock small"),
        (
            edited,
            "the lock was edited by hand: its checksum does not match",
            "change the profile instead, then: drydock lock",
        ),
        (damaged, "this is not a lock that this Drydock can read", "make it again: drydock lock small"),
        (missing, '"small" has no lock', "drydock lock small"),
        (of_another, 'this is the lock of "large", not of "small"', "make it again: drydock lock small"),
    ],
)
def test_a_lock_that_cannot_be_trusted_is_refused(
    locked: Sandbox, spoil: Callable[[Sandbox], None], message: str, hint: str
) -> None:
    spoil(locked)
    before = {path: path.read_bytes() for path in (locked.work / "profiles").iterdir()}
    locked.drydock("build", "small").failed(1, f"error: {message}", "where: profiles/small.lock.toml", f"hint: {hint}")
    assert locked.environments() == []
    assert {path: path.read_bytes() for path in (locked.work / "profiles").iterdir()} == before


# --- bytes ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_wheel_with_another_hash_is_refused(locked: Sandbox) -> None:
    other = make_wheel(locked.root / "other", "anchor", "1.0", files={"anchor/__init__.py": "evil = True\n"})
    locked.index.tamper = lambda name, content: other.read_bytes() if name.startswith("anchor") else content
    locked.drydock("build", "small", env=cold(locked)).failed(
        1,
        "Hash mismatch for `anchor==1.0`",
        "error: the packages could not be installed; nothing was left in the store",
        "hint: the index has another file under this name",
    )
    assert locked.environments() == []
    locked.index.tamper = lambda _name, content: content
    build(locked, **cold(locked))  # the cache did not keep the wrong one


@pytest.mark.slow
def test_a_download_that_breaks_off_is_not_taken_for_the_whole(locked: Sandbox) -> None:
    locked.index.tamper = lambda _name, content: content[: len(content) // 2]
    locked.drydock("build", "small", env=cold(locked)).failed(
        1, "Failed to download `anchor==1.0`", "nothing was left in the store"
    )
    assert locked.environments() == []
    locked.index.tamper = lambda _name, content: content
    build(locked, **cold(locked))


@pytest.mark.slow
def test_a_package_that_the_index_has_no_more_is_named(locked: Sandbox) -> None:
    (locked.wheels / "anchor-1.0-py3-none-any.whl").unlink()
    locked.drydock("build", "small", env=cold(locked)).failed(
        1, "anchor was not found", "nothing was left in the store"
    )
    assert locked.environments() == []


@pytest.mark.slow
def test_without_a_network_the_build_says_so(locked: Sandbox) -> None:
    nowhere = {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", **cold(locked)}
    locked.drydock("build", "small", env=nowhere).failed(
        1, "Connection refused", "nothing was left in the store", "hint: is the network there? UV_DEFAULT_INDEX names"
    )
    assert locked.environments() == []


def test_with_the_wheels_in_a_folder_no_network_is_needed(locked: Sandbox) -> None:
    nowhere = {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", **cold(locked)}
    env = build(locked, UV_FIND_LINKS=str(locked.wheels), UV_OFFLINE="1", **nowhere)
    assert (env / SITE / "anchor/__init__.py").read_text() == "version = '1.0'\n"


@pytest.mark.slow
@pytest.mark.parametrize("by", ["UV_FIND_LINKS", "PIP_FIND_LINKS", "uv.toml", "DRYDOCK_CACHE"])
def test_relative_folders_are_those_of_the_caller(locked: Sandbox, by: str) -> None:
    """A build stands elsewhere; those in a uv.toml are relative to the file."""
    nowhere = {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", "UV_CACHE_DIR": "../cold-cache", "UV_OFFLINE": "1"}
    shutil.copytree(locked.wheels, locked.work / "wheels")
    if by == "uv.toml":
        config = locked.home / ".config/uv"
        config.mkdir(parents=True)
        shutil.move(locked.work / "wheels", config / "wheels")
        (config / "uv.toml").write_text('find-links = ["wheels"]\n')
    elif by == "DRYDOCK_CACHE":
        locked.drydock("push", "small", "mirror").succeeded()
        nowhere |= {by: "mirror"}
    else:
        nowhere |= {by: "wheels"}
    done = locked.run(["sh", str(locked.script("small"))], env=nowhere).succeeded()
    assert done.stdout == "trained with 1.0\n"
    assert (locked.root / "cold-cache/CACHEDIR.TAG").is_file()
    assert list(locked.store.parent.rglob("cold-cache")) == []


@pytest.mark.slow
def test_a_full_disk_leaves_nothing_behind(locked: Sandbox) -> None:
    make_wheel(locked.wheels, "ballast", "1.0", files={"ballast/__init__.py": "#" * 1_500_000})
    path = locked.profile("heavy")
    path.write_text(path.read_text().replace('["anchor"]', '["ballast"]'))
    locked.drydock("lock", "heavy").succeeded()
    with tmpfs(locked.root / "disk", "1m") as disk:
        locked.drydock("build", "heavy", env={"DRYDOCK_HOME": str(disk)}).failed(
            1, "No space left on device", "nothing was left in the store", "hint: free some space"
        )
        assert list((disk / "store").iterdir()) == []
        script = locked.run(["sh", str(locked.script("heavy")), "--build-only"], env={"DRYDOCK_HOME": str(disk)})
        assert "uv says above why" not in script.failed(1, "hint: free some space, or name another disk").stderr
        remount(disk, "size=8m")
        locked.drydock("build", "heavy", env={"DRYDOCK_HOME": str(disk)}).succeeded()
    with tmpfs(locked.root / "cache", "1m") as disk:
        locked.drydock("build", "heavy", env={"UV_CACHE_DIR": str(disk)}).failed(1, "No space left on device")
        assert locked.environments() == []


def test_a_disk_that_is_full_before_the_lock_is_written_keeps_the_old_lock(locked: Sandbox) -> None:
    old = (locked.work / "profiles/small.lock.toml").read_text()
    with tmpfs(locked.root / "profiles", "16k") as disk:
        (disk / "small.toml").write_text((locked.work / "profiles/small.toml").read_text())
        (disk / "small.lock.toml").write_text(old)
        make_wheel(locked.wheels, "anchor", "2.0")
        with pytest.raises(OSError, match="No space left"):
            (disk / "filler").write_bytes(b"#" * 65536)
        locked.drydock("lock", "small", "-U", env={"DRYDOCK_PROFILES": str(disk)}).failed(
            1, "the lock cannot be written: No space left on device", f"where: {disk}/small.lock.toml"
        )
        assert sorted(path.name for path in disk.iterdir()) == ["filler", "small.lock.toml", "small.toml"]
        assert (disk / "small.lock.toml").read_text() == old


@pytest.mark.slow
def test_a_read_only_store_serves_what_it_has_and_refuses_the_rest(locked: Sandbox) -> None:
    locked.profile("other")
    locked.drydock("lock", "other").succeeded()
    with tmpfs(locked.root / "disk", "8m") as disk:
        home = {"DRYDOCK_HOME": str(disk)}
        build(locked, **home)
        remount(disk, "ro")
        assert locked.drydock("build", "small", env=home).succeeded().stderr == "small is built\n"
        assert locked.drydock("run", "small", env=home).succeeded().stdout == "trained with 1.0\n"
        locked.drydock("verify", "small", env=home).succeeded()
        refused = locked.drydock("build", "other", env=home)
        refused.failed(
            1, f"error: {disk} cannot be written: Read-only file system", "hint: set DRYDOCK_HOME to a folder"
        )
        script = locked.script("other")
        locked.run(["sh", str(script), "--build-only"], env=home).failed(
            1, f"drydock: error: {disk}/store cannot be written", "hint: set DRYDOCK_HOME to a folder"
        )
        remount(disk, "rw")
        assert len(list((disk / "store").iterdir())) == 1


def test_a_store_that_is_a_file_is_an_error_in_words(locked: Sandbox) -> None:
    (locked.home / "file").write_text("mine")
    locked.drydock("build", "small", env={"DRYDOCK_HOME": str(locked.home / "file")}).failed(
        1, "cannot be written: ", "hint: set DRYDOCK_HOME to a folder of your own"
    )
    assert (locked.home / "file").read_text() == "mine"


# --- machines ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            'platform = "macos-arm64"\naccelerator = "mps"\nmin-os = "14.0"',
            f"small is for macos-arm64, and this is {os.uname().sysname} on {os.uname().machine}",
        ),
        (
            'platform = "linux-x86_64"\naccelerator = "cpu"\nglibc = "2.99"',
            "small needs glibc 2.99 or newer, and this has",
        ),
    ],
)
def test_an_environment_for_another_machine_is_not_built(sandbox: Sandbox, target: str, message: str) -> None:
    uv = next(sandbox.wheels.glob("uv-*")).name.split("-")[1]
    make_wheel(sandbox.wheels, "uv", uv, tag="py3-none-macosx_11_0_arm64")
    path = sandbox.profile("small")
    path.write_text(path.read_text().replace('platform = "linux-x86_64"\naccelerator = "cpu"\nglibc = "2.17"', target))
    sandbox.drydock("lock", "small").succeeded()
    sandbox.drydock("build", "small").failed(1, f"error: {message}")
    sandbox.drydock("run", "small").failed(1, f"error: {message}")
    assert sandbox.environments() == []


@pytest.mark.slow
def test_without_the_python_that_is_wanted_the_build_says_so(sandbox: Sandbox) -> None:
    path = sandbox.profile("small")
    path.write_text(path.read_text().replace('version = "3.11"', 'version = "3.99"'))
    sandbox.drydock("lock", "small").succeeded()
    del sandbox.environment["DRYDOCK_PYTHON"]
    sandbox.drydock("build", "small").failed(
        1, "No interpreter found for Python 3.99", "no virtual environment", "install it, or name it: DRYDOCK_PYTHON="
    )
    assert sandbox.environments() == []


@pytest.mark.slow
def test_a_python_of_another_version_is_refused(sandbox: Sandbox) -> None:
    path = sandbox.profile("small")
    path.write_text(path.read_text().replace('version = "3.11"', 'version = "3.12"'))
    sandbox.drydock("lock", "small").succeeded()
    sandbox.drydock("build", "small").failed(1, "Python 3.11", "the profile wants 3.12")
    assert sandbox.environments() == []


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["DRYDOCK_PYTHON", "DRYDOCK_UV"])
def test_a_tool_that_is_not_there_is_named(locked: Sandbox, variable: str) -> None:
    locked.drydock("build", "small", env={variable: "/nowhere/tool"}).failed(1, "/nowhere/tool", "hint: ")
    assert locked.environments() == []


class Asked:
    """A uv that writes down what it is asked."""

    def __init__(self, desk: Sandbox) -> None:
        self._log = desk.root / "asked"
        uv = desk.root / "bin/uv"
        uv.parent.mkdir()
        uv.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >>{self._log}\nexec {desk.environment["DRYDOCK_UV"]} "$@"\n')
        uv.chmod(0o755)
        desk.environment["DRYDOCK_UV"] = str(uv)

    def frames(self) -> int:
        """How many virtual environments it was asked for since the last call."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        self._log.unlink(missing_ok=True)
        return sum(" venv " in f" {line} " for line in lines)


def _build_again(desk: Sandbox, **env: str) -> dict[str, Any]:
    """Build `small` where it is not there; returns its manifest."""
    if desk.store.exists():
        desk.store.rename(desk.root / f"old-{time.time_ns()}")
    manifest: dict[str, Any] = json.loads((build(desk, **env) / ".drydock/manifest.json").read_text())
    return manifest


@pytest.mark.slow
def test_uv_is_asked_once_for_a_python(locked: Sandbox) -> None:
    del locked.environment["DRYDOCK_PYTHON"]
    asked = Asked(locked)
    first = _build_again(locked)
    assert asked.frames() == 1
    assert _build_again(locked) == first
    assert asked.frames() == 0
    locked.drydock("verify", "small").succeeded()
    assert _build_again(locked, PATH=f"{locked.environment['PATH']}:/opt") == first
    assert asked.frames() == 1  # it looks there
    assert _build_again(locked, DRYDOCK_PYTHON=python_3_11()) == first
    assert asked.frames() == 1  # it is named


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "now"),
    [
        (rb"version_info = 3\.11\.\d+", b"version_info = 3.11.99"),  # it was replaced where it is
        (rb"(?s)\{.*", b"{"),  # a full disk
        (rb"(?s)\n/[^\n]*\n", b"\n/nowhere/python\n"),  # it is gone
        (rb', "faultless": .*', b"}"),  # an older Drydock wrote it
    ],
)
def test_where_the_known_python_does_not_fit_uv_is_asked_again(locked: Sandbox, what: bytes, now: bytes) -> None:
    del locked.environment["DRYDOCK_PYTHON"]
    asked = Asked(locked)
    first = _build_again(locked)
    note = locked.store.parent / "cache/frames/small-3.11"
    assert note.stat().st_mode & 0o777 == 0o600
    whole = note.read_bytes()
    changed = re.sub(what, now, whole, count=1)
    assert changed != whole
    note.write_bytes(changed)
    asked.frames()
    assert _build_again(locked) == first
    assert asked.frames() == 1
    assert note.read_bytes() == whole  # and it is known again


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to another user")
def test_a_note_of_another_user_is_not_believed(locked: Sandbox) -> None:
    del locked.environment["DRYDOCK_PYTHON"]
    asked = Asked(locked)
    _build_again(locked)
    note = locked.store.parent / "cache/frames/small-3.11"
    mark = locked.root / "mark"
    theirs = locked.root / "python"
    theirs.write_text(f"#!/bin/sh\ntouch {mark}\nexit 1\n")
    theirs.chmod(0o755)
    head, _, rest = note.read_bytes().split(b"\n", 2)
    note.write_bytes(head + f"\n{theirs}\n".encode() + rest)
    os.chown(note, 12345, 12345)
    asked.frames()
    _build_again(locked)
    assert asked.frames() == 1
    assert not mark.exists()


# --- interruptions -------------------------------------------------------------------------------------------------


class Gate:
    """Holds downloads back: `reached` is set when one has begun, and none goes on before `open` is."""

    def __init__(self, desk: Sandbox) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()
        desk.index.tamper = self._hold

    def _hold(self, _name: str, content: bytes) -> bytes:
        self.reached.set()
        self.open.wait(LONG)
        return content


def stage_leader(desk: Sandbox) -> int:
    """The process of the script that builds in the only stage of the store."""
    (stage,) = (name for name in desk.environments() if name.startswith(".stage-"))
    return os.getpgid(json.loads((desk.store / stage / NOTE).read_text())["pid"])


def is_whole(desk: Sandbox) -> bool:
    """Whether the store has one environment and nothing else, and that is as it should be."""
    (name,) = desk.environments()
    desk.drydock("verify", "small").succeeded()
    return name.endswith("-small")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "words"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "the build of small was stopped by SIGTERM"),
        pytest.param(signal.SIGHUP, 129, "the build of small was stopped by SIGHUP", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_build_ends_at_once_and_leaves_nothing(
    locked: Sandbox, number: signal.Signals, status: int, words: str
) -> None:
    gate = Gate(locked)
    process = locked.start("build", "small", env=cold(locked))
    assert gate.reached.wait(LONG)
    leader = stage_leader(locked)
    process.send_signal(number)
    began = time.monotonic()
    stdout, stderr = process.communicate(timeout=LONG)
    assert time.monotonic() - began < allowed(10), "it waited for the download"
    assert (process.returncode, stdout) == (status, b"")
    assert words in stderr.decode()
    assert "Traceback" not in stderr.decode()
    assert locked.environments() == []
    with pytest.raises(ProcessLookupError):
        os.kill(leader, 0)
    gate.open.set()
    build(locked, **cold(locked))
    assert is_whole(locked)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("arguments", [["lock", "small", "-U"], ["build", "small", "--cross", "there"]])
def test_an_interrupted_lock_or_cross_build_leaves_nothing(
    locked: Sandbox, tmp_path: Path, arguments: list[str], number: signal.Signals
) -> None:
    gate = Gate(locked)
    (tmp_path / "tmp").mkdir()
    before = (locked.work / "profiles/small.lock.toml").read_bytes()
    process = locked.start(*arguments, env={"TMPDIR": str(tmp_path / "tmp"), **cold(locked)})
    assert gate.reached.wait(LONG)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=LONG)
    assert (process.returncode, stdout) == (128 + number, b"")
    assert b"Traceback" not in stderr
    gate.open.set()
    time.sleep(0.2)  # a uv that had not ended with it would write now
    assert list((tmp_path / "tmp").iterdir()) == []
    assert [path.name for path in locked.work.iterdir()] == ["profiles"]
    assert (locked.work / "profiles/small.lock.toml").read_bytes() == before


@pytest.mark.slow
def test_a_build_that_is_killed_is_cleaned_up_by_the_next(locked: Sandbox) -> None:
    gate = Gate(locked)
    process = locked.start("build", "small", env=cold(locked))
    assert gate.reached.wait(LONG)
    dead = locked.environments()
    os.killpg(stage_leader(locked), signal.SIGKILL)
    _, stderr = process.communicate(timeout=LONG)
    assert process.returncode == 137
    assert b"the build of small was stopped by SIGKILL" in stderr
    assert locked.environments() == dead
    gate.open.set()
    build(locked, **cold(locked))
    assert is_whole(locked)


def test_a_stage_of_a_dead_build_that_had_our_process_number_is_no_obstacle(locked: Sandbox) -> None:
    # In a container each build may have the same number.
    script = locked.script("small")
    key = Path(locked.run(["sh", str(script), "--where"]).stdout).name.partition("-")[0]
    stage = f"{locked.store}/.stage-{key}-$(uname -n)-$$"
    line = f'mkdir -p "{stage}/lib" && echo half >"{stage}/pyvenv.cfg" && exec sh {script} --build-only'
    locked.run(["sh", "-c", line]).succeeded()
    assert is_whole(locked)


@pytest.mark.parametrize("command", [["build", "small"], ["store", "gc"]])
def test_what_a_killed_fetch_of_uv_left_is_removed(locked: Sandbox, command: list[str]) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    tools = locked.store.parent / "tools"
    half, living = (tools / f".new-{os.uname().nodename}-{number}" for number in (dead.pid, os.getpid()))
    for folder in (half, living):
        (folder / "uv/bin").mkdir(parents=True)
    locked.store.mkdir()
    locked.drydock(*command).succeeded()
    assert list(tools.iterdir()) == [living]


@pytest.mark.slow
def test_a_build_whose_caller_is_killed_harms_no_later_one(locked: Sandbox) -> None:
    gate = Gate(locked)
    process = locked.start("build", "small", env=cold(locked))
    assert gate.reached.wait(LONG)
    process.kill()
    process.communicate()
    gate.open.set()
    env = build(locked, **cold(locked))
    assert env.name in locked.environments()
    locked.drydock("verify", "small").succeeded()


@pytest.mark.slow
def test_a_power_cut_at_any_time_harms_no_later_build(locked: Sandbox) -> None:
    script = locked.script("small")
    for tenths in range(5):
        process = subprocess.Popen(
            ["sh", str(script), "--build-only"],
            env=locked.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        time.sleep(tenths * 0.09)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for name in locked.environments():
            if not name.startswith("."):  # it was quick: then what is there is whole
                assert is_whole(locked)
                locked.remove(name)
    build(locked)
    assert is_whole(locked)


@pytest.mark.slow
def test_what_a_caller_ignores_stays_ignored(locked: Sandbox) -> None:
    gate = Gate(locked)
    line = f"trap '' HUP; exec {sys.executable} -m builder build small"
    process = subprocess.Popen(
        ["sh", "-c", line],
        cwd=locked.work,
        env={**locked.environment, **cold(locked)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert gate.reached.wait(LONG)
    process.send_signal(signal.SIGHUP)
    gate.open.set()
    stdout, _ = process.communicate(timeout=LONG)
    assert process.returncode == 0
    assert stdout.decode().strip() == str(locked.store / locked.environments()[0])


# --- several at once -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_builds_of_one_key_at_once_both_succeed(locked: Sandbox) -> None:
    gate = Gate(locked)
    logs = [locked.root / f"log-{number}" for number in range(2)]
    processes = [
        locked.start("build", "small", env={"UV_CACHE_DIR": str(locked.root / f"cache-{number}")}, stderr=log)
        for number, log in enumerate(logs)
    ]
    waiting = "waiting for another build of small"
    until(lambda: gate.reached.is_set() and any(waiting in log.read_text() for log in logs))
    gate.open.set()
    told = [process.communicate(timeout=LONG)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], [log.read_text() for log in logs]
    assert sorted(waiting in log.read_text() for log in logs) == [False, True]
    assert sum("anchor-1.0-py3-none-any.whl" in path for path in locked.index.requests) == 1, "it was built twice"
    assert {stdout.decode().strip() for stdout in told} == {str(locked.store / locked.environments()[0])}
    assert is_whole(locked)


@pytest.mark.slow
def test_builds_of_different_keys_do_not_disturb_each_other(locked: Sandbox) -> None:
    make_wheel(locked.wheels, "boat", "1.0", requires=["anchor"])
    for name in ("one", "two"):
        path = locked.profile(name)
        path.write_text(path.read_text().replace('["anchor"]', '["boat"]' if name == "one" else '["anchor", "boat"]'))
        text = path.read_text()
        path.write_text(text.replace('glibc = "2.17"', 'glibc = "2.18"') if name == "two" else text)
    locked.drydock("lock", "one", "two").succeeded()
    names = ["small", "one", "two"]
    processes = [locked.start("build", name) for name in names]
    told = [process.communicate(timeout=LONG) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], told
    assert [Path(stdout.decode().strip()).name.partition("-")[2] for stdout, _ in told] == names
    assert len(locked.environments()) == 3


# --- scripts that were edited --------------------------------------------------------------------------------------


@pytest.fixture
def carrying(sandbox: Sandbox) -> Path:
    """The run script of a profile that carries a program with it."""
    path = sandbox.profile("small")
    head, _, _ = path.read_text().partition("[trainer]")
    path.write_text(f'{head}[trainer]\nfile = "trainers/mine.py"\n')
    sandbox.file("trainers/mine.py", "print('my trainer')\n")
    sandbox.drydock("lock", "small").succeeded()
    return sandbox.script("small")


@pytest.mark.slow
def test_the_script_is_refused_when_its_plan_was_edited(sandbox: Sandbox, carrying: Path) -> None:
    text = carrying.read_text()
    carrying.write_text(text.replace('"version": "1.0"', '"version": "1.1"', 1))
    sandbox.run(["sh", str(carrying)]).failed(1, "this script was edited", "nothing was left in the store")
    assert sandbox.environments() == []
    carrying.write_text(text)
    odd = {"DRYDOCK_HOME": f'{sandbox.root}/it\'s a "home" $(id)'}
    assert sandbox.run(["sh", str(carrying)], env=odd).succeeded().stdout == "my trainer\n"
    sandbox.run(["sh", str(carrying), "--verify"], env=odd).succeeded()


def test_the_script_is_refused_when_a_program_in_it_was_edited(sandbox: Sandbox, carrying: Path) -> None:
    text = carrying.read_text()
    carrying.write_text(text.replace("print('my trainer')", "print('your trainer')"))
    refused = sandbox.run(["sh", str(carrying)]).failed(1, "trainers/mine.py is not the file that the plan names")
    assert refused.stdout == ""
    assert sandbox.environments() == []


# --- isolation -----------------------------------------------------------------------------------------------------


@pytest.fixture
def bogus(tmp_path: Path) -> dict[str, str]:
    """Everything in an environment that could lead Python to a wrong `anchor`."""
    wrong = tmp_path / "wrong"
    base = tmp_path / "base"
    user = base / SITE
    venv = tmp_path / "venv"
    for folder in (wrong, user, venv / SITE):
        (folder / "anchor").mkdir(parents=True)
        (folder / "anchor/__init__.py").write_text("version = 'bogus'\n")
        (folder / "sitecustomize.py").write_text("print('bogus start')\n")
    startup = tmp_path / "startup.py"
    startup.write_text("print('bogus start')\n")
    (venv / "bin").mkdir()
    (venv / "bin/python").write_text("#!/bin/sh\necho bogus python\n")
    (venv / "bin/python").chmod(0o755)
    return {
        "PYTHONPATH": str(wrong),
        "PYTHONHOME": str(base),
        "PYTHONUSERBASE": str(base),
        "PYTHONSTARTUP": str(startup),
        "PYTHONPLATLIBDIR": "bogus",
        "VIRTUAL_ENV": str(venv),
        "PATH": f"{venv}/bin:/usr/local/bin:/usr/bin:/bin",
        "UV_PROJECT_ENVIRONMENT": str(venv),
    }


ASK = """
import anchor, json, os, site, sys
print(json.dumps({
    "anchor": anchor.version, "python": sys.executable, "path": sys.path, "venv": os.environ["VIRTUAL_ENV"],
    "first": os.environ["PATH"].split(":")[0], "user": site.ENABLE_USER_SITE,
    "left": [name for name in os.environ if name in ("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONSTARTUP")],
}))
"""


def test_nothing_of_the_callers_python_reaches_build_or_trainer(
    locked: Sandbox, bogus: dict[str, str], tmp_path: Path
) -> None:
    locked.trainer(ASK)
    script = locked.script("small")
    env = Path(locked.run(["sh", str(script), "--build-only"], env=bogus).succeeded().stdout.strip())
    assert sorted(path.name for path in (env / SITE).iterdir() if path.is_dir()) == ["anchor", "anchor-1.0.dist-info"]
    told = json.loads(locked.run(["sh", str(script)], env=bogus).succeeded().stdout)
    assert told["anchor"] == "1.0"
    assert told["python"] == f"{env}/bin/python"
    assert (told["venv"], told["first"]) == (str(env), f"{env}/bin")
    assert not told["user"]
    assert told["left"] == []
    assert not [entry for entry in told["path"] if entry.startswith(str(tmp_path)) and not entry.startswith(str(env))]
    verified = locked.run(["sh", str(script), "--verify"], env=bogus).succeeded()
    assert "bogus" not in verified.stdout + verified.stderr


@pytest.mark.slow
def test_a_surrounding_venv_and_pythonpath_do_not_mislead_the_program(locked: Sandbox, bogus: dict[str, str]) -> None:
    wrong = {name: bogus[name] for name in ("PYTHONPATH", "PYTHONUSERBASE", "VIRTUAL_ENV")}
    assert locked.drydock("run", "small", env=wrong).succeeded().stdout.endswith("trained with 1.0\n")


def test_running_writes_nothing_into_the_environment(built: Sandbox) -> None:
    env = built.store / built.environments()[0]
    before = sorted(env.rglob("*"))
    built.drydock("run", "small").succeeded()
    assert sorted(env.rglob("*")) == before


# --- where the store is --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("home", ["here", 'a b/it\'s "here"$(touch x)`touch x`;*', "größe/日本"])
def test_the_store_may_be_in_any_folder(locked: Sandbox, home: str) -> None:
    before = sorted(path.name for path in locked.work.iterdir())
    env = build(locked, DRYDOCK_HOME=home)
    assert env.parent.resolve() == (locked.work / home / "store").resolve()
    assert locked.drydock("run", "small", env={"DRYDOCK_HOME": home}).succeeded().stdout == "trained with 1.0\n"
    assert sorted(path.name for path in locked.work.iterdir()) == sorted([*before, Path(home).parts[0]])


def test_program_and_script_agree_on_a_store_with_a_relative_name(built: Sandbox) -> None:
    script = built.script("small")
    home = {"DRYDOCK_HOME": "here/../there/"}
    would = built.drydock("build", "small", "--dry-run", env=home).succeeded().stdout.strip()
    told = built.run(["sh", str(script), "--where"], env=home).succeeded().stdout.strip()
    assert os.path.normpath(would) == os.path.normpath(told) == f"{built.work}/there/store/{built.environments()[0]}"
    shutil.rmtree(built.work / "there")  # or other tests of this desk would meet it


@pytest.mark.slow
def test_xdg_data_home_is_honoured(locked: Sandbox, tmp_path: Path) -> None:
    assert build(locked, XDG_DATA_HOME=str(tmp_path / "data")).parent == tmp_path / "data/drydock/store"


@pytest.mark.slow
def test_with_no_place_for_the_store_the_user_is_asked_for_one(locked: Sandbox) -> None:
    script = locked.script("small")
    del locked.environment["HOME"]
    locked.drydock("build", "small").failed(2, "there is no place for the store", "hint: set HOME or DRYDOCK_HOME")
    assert "set HOME or DRYDOCK_HOME" in locked.run(["sh", str(script), "--where"]).stderr
    build(locked, DRYDOCK_HOME=str(locked.root / "own"))


# --- real things: slow ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_script_alone_is_enough_on_a_machine_without_uv_and_drydock(sandbox: Sandbox, tmp_path: Path) -> None:
    """Its python3 has no pip, as on Debian, so that uv is fetched by the one that venv brings."""
    no_pip = subprocess.run([python_3_11(), "-c", "import pip"], capture_output=True, text=True, check=False)
    assert "No module named 'pip'" in no_pip.stderr
    sandbox.profile("small")
    path = sandbox.work / "profiles/small.toml"
    path.write_text(path.read_text().replace('"anchor"', '"iniconfig"').replace("import anchor", "import iniconfig"))
    path.write_text(path.read_text().replace("anchor.version", "iniconfig.__name__"))
    network = {
        name: value
        for name, value in os.environ.items()
        if name.lower().endswith("_proxy") or name in ("PIP_CERT", "SSL_CERT_FILE", "SSL_CERT_DIR", "PIP_INDEX_URL")
    }
    del sandbox.environment["UV_DEFAULT_INDEX"]
    sandbox.drydock("lock", "small", env=network).succeeded()
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(sandbox.script("small"), alone / "train.sh")
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name in ("python3", "python3.11"):
        (bin_ / name).symlink_to(python_3_11())
    env = {"HOME": str(alone / "home"), "PATH": f"{bin_}:/usr/bin:/bin", "UV_PYTHON_DOWNLOADS": "never", **network}
    assert shutil.which("uv", path=env["PATH"]) is None
    assert shutil.which("drydock", path=env["PATH"]) is None
    done = subprocess.run(
        ["sh", "train.sh"], cwd=alone, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "trained with iniconfig\n"
    assert "fetching uv" in done.stderr
    # uv is fetched once and kept.
    subprocess.run(["chmod", "-R", "u+w", str(alone / "home/.local/share/drydock/store")], check=True)
    shutil.rmtree(alone / "home/.local/share/drydock/store")
    again = subprocess.run(
        ["sh", "train.sh"], cwd=alone, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert (again.returncode, again.stdout) == (0, "trained with iniconfig\n")
    assert "fetching uv" not in again.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh venv with the wheel of Drydock in it, as a user who does not develop it has."""
    from uv import find_uv_bin

    folder = tmp_path_factory.mktemp("installed")
    uv = find_uv_bin()
    for command in (
        ["build", "--quiet", "--wheel", "--out-dir", str(folder / "dist"), str(ROOT)],
        ["venv", "--quiet", "--python", python_3_11(), str(folder / "venv")],
    ):
        subprocess.run([uv, *command], check=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    subprocess.run([uv, "pip", "install", "--quiet", "--python", str(folder / "venv"), str(wheel)], check=True)
    return folder / "venv/bin/drydock"


@pytest.mark.slow
def test_an_installed_wheel_has_its_profiles_and_templates(sandbox: Sandbox, installed: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    listed = sandbox.run([str(installed), "profile", "list", "--json"], cwd=empty).succeeded()
    by_name = {row["name"]: Path(row["file"]) for row in json.loads(listed.stdout)}
    assert {"base", "rl-swarm", "m4", "m4-upstream", "arm64", "cuda", "cpu", "cpu-swarm"} <= set(by_name)
    assert all(path.is_relative_to(installed.parent.parent) for path in by_name.values())
    for name in ("cpu", "m4"):
        sandbox.run([str(installed), "render", name, "--out", f"out/{name}"], cwd=empty).succeeded()
        rendered = {path.name: path.read_bytes() for path in (empty / "out" / name).iterdir()}
        here = sandbox.run([*DRYDOCK, "render", name, "--out", f"here/{name}"], cwd=empty).succeeded()
        assert here.code == 0
        assert rendered == {path.name: path.read_bytes() for path in (empty / "here" / name).iterdir()}
    locked = [name for name, path in by_name.items() if path.with_name(f"{name}.lock.toml").exists()]
    sandbox.run([str(installed), "lock", "--check", *locked], cwd=empty).succeeded()


@pytest.mark.slow
def test_the_wrapper_installs_its_tools_on_first_use_only(tmp_path: Path) -> None:
    copy = tmp_path / "a copy"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    env = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "python3").symlink_to(python_3_11())
    env["PATH"] = f"{bin_}:{env['PATH']}"

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(copy / "drydockw"), *arguments], env=env, cwd=tmp_path, capture_output=True, text=True
        )

    assert call().returncode == 2
    # What a call that was killed leaves: the file of its lock, and half a venv.
    (copy / ".venv.lock").touch()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(copy / ".venv")], check=True)
    processes = [
        subprocess.Popen(
            [str(copy / "drydockw"), "drydock", "--version"],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    told = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert {stdout for stdout, _ in told} == {"drydock, version 0.1.0\n"}
    assert sum("installing the tools" in stderr for _, stderr in told) == 1
    assert (copy / ".venv/bin/drydock").is_file()
    assert sum("waiting for another call" in stderr for _, stderr in told) == 1
    again = call("drydock", "build", "nonsense")
    assert again.returncode == 1
    assert again.stderr.startswith('error: no profile "nonsense"')
    # A venv whose Python is gone is made anew.
    (copy / ".venv/bin/python").unlink()
    (copy / ".venv/bin/python").symlink_to("/nowhere/python")
    mended = call("drydock", "--version")
    assert (mended.returncode, mended.stdout) == (0, "drydock, version 0.1.0\n"), mended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stage.py", "Stage.py", "installed", "requirements.txt", "verify.py"])
def test_a_file_of_the_users_is_in_the_way_of_nothing(sandbox: Sandbox, name: str) -> None:
    """These were names of ours once: a check of that name was run instead of a build, which then was a success."""
    sandbox.file(name, "print('mine')\n")
    sandbox.profile("small", tail=f'[[checks]]\nfile = "{name}"\nwhy = "it is mine"\n')
    sandbox.drydock("lock", "small").succeeded()
    env = Path(sandbox.drydock("build", "small").succeeded().stdout.strip())
    assert (env / ".drydock" / name).read_text() == "print('mine')\n"
    assert "mine" in sandbox.drydock("verify", "small").succeeded().stdout
