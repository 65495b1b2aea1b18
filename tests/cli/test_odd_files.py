"""What is not a regular file, or stray, where Drydock has its own: nothing waits for it, and words say what it is."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import Sandbox

LONGEST = 120  # seconds; with what waits for a writer, a command never ends

COMMANDS = (
    ["lock", "small"],
    ["build", "small"],
    ["doctor", "small"],
    ["profile", "list"],
    ["generation", "list", "small"],
    ["store", "gc"],
    ["run", "small", "--supervise"],
    ["run", "small", "--status"],
    ["run", "small", "--logs"],
    ["run", "small", "--stop"],
)

PLACES = (
    "work/profiles/small.toml",
    "work/profiles/small.lock.toml",
    "work/drydock.toml",
    "home/.config/drydock/secrets",
    "drydock/format",
    "drydock/profiles/small",
    "drydock/runs/small/state.json",
    "drydock/runs/small/log",
    "drydock/runs/small/log.1",
    "drydock/runs/small/samples.jsonl",
    "drydock/runs/small/request.json",
    "drydock/runs/small/lock",
    "drydock/gcroots/collecting",
    "drydock/gcroots/scripts",
    "drydock/cache/mirror/SHA256SUMS",
)


def put_fifo(desk: Sandbox, place: str) -> Path:
    first, _, rest = place.partition("/")
    path = {"work": desk.work, "home": desk.home, "drydock": desk.store.parent}[first] / rest
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_nothing_waits_for_a_fifo(locked: Sandbox, place: str) -> None:
    locked.drydock("build", "small").succeeded()
    put_fifo(locked, place)
    for command in COMMANDS:
        try:
            done = locked.drydock(*command, timeout=LONGEST)
        except (subprocess.TimeoutExpired, TimeoutError):
            pytest.fail(f"drydock {' '.join(command)} waits for {place}")
        assert "Traceback" not in done.stderr, (command, done.stderr)


def test_a_file_that_is_named_and_is_none(locked: Sandbox) -> None:
    fifo = put_fifo(locked, "work/odd.lock.toml")
    locked.drydock("diff", "small", fifo.name, timeout=LONGEST).failed(1, "cannot be read: it is not a regular file")
    put_fifo(locked, "work/profiles/odd.toml")
    locked.drydock("build", "odd", timeout=LONGEST).failed(1, "odd.toml", "cannot be read: it is not a regular file")
    (locked.work / "profiles/odd.toml").unlink()
    put_fifo(locked, "work/drydock.toml")
    locked.drydock("profile", "list", timeout=LONGEST).failed(1, "drydock.toml", "it is not a regular file")


@pytest.mark.slow
def test_stray_entries_in_a_store_disturb_nothing_and_are_named(locked: Sandbox) -> None:
    """What desktops, editors and sync programs leave, and what nobody knows."""
    env = locked.drydock("build", "small").succeeded().stdout.strip()
    home = locked.store.parent
    strays = []
    for folder in (
        home / "store",
        home / "gcroots",
        home / "gcroots/running",
        home / "gcroots/scripts",
        home / "profiles",
    ):
        folder.mkdir(exist_ok=True)
        for name in (".DS_Store", "._small", "notes.txt~", "small (copy)"):
            (folder / name).write_bytes(b"\xff\0stray")
            strays.append(folder / name)
        (folder / "dangling").symlink_to("/nowhere/at-all")
        (folder / "a folder").mkdir()
        os.mkfifo(folder / "fifo")
        strays += [folder / "dangling", folder / "a folder", folder / "fifo"]
    for command in (
        ["build", "small"],
        ["run", "small"],
        ["generation", "list", "small"],
        ["store", "du"],
        ["store", "verify"],
    ):
        done = locked.drydock(*command, timeout=LONGEST).succeeded()
        assert "Traceback" not in done.stderr
    collected = locked.drydock("store", "gc", timeout=LONGEST).succeeded()
    assert [path for path in strays if not os.path.lexists(path)] == []
    assert Path(env).is_dir()
    said = collected.stdout + collected.stderr
    # Every folder has those of desktops; and a link to nowhere may be a profile's whose generation is gone.
    quiet = {".DS_Store", "._small"}
    unnamed = [path for path in strays if str(path) not in said and path.name not in quiet]
    unnamed = [path for path in unnamed if path != home / "profiles/dangling"]
    assert unnamed == [], said
