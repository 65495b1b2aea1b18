"""A run on a fleet as seen from another terminal: its state, its log, its end.

The desk's process holds fleet/runs/FLEET.NAME/lock of the store, and its number is in it.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from builder.embedded.state import read_json
from builder.errors import UsageError
from builder.fleet.hosts import folded
from builder.fleet.journal import least_to_most
from builder.names import stem
from builder.project.fleets import Fleet
from builder.run.supervise import runs
from builder.store.layout import Store


def folder_of(fleet: str, name: str) -> Path:
    """Where what is known of a run is kept."""
    return Store.here().fleet / "runs" / f"{fleet}.{stem(name)}"


def desk_of(folder: Path) -> int | None:
    """The process that runs it now; None where none does."""
    try:
        lock = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        words = os.pread(lock, 32, 0).split()
        return int(words[0]) if words and words[0].isdigit() else None
    else:
        return None
    finally:
        os.close(lock)


def status(fleet: Fleet, name: str) -> dict[str, Any]:
    """The state of the run. Raises UsageError where there was none."""
    folder = folder_of(fleet.name, name)
    found = read_state_of(folder)
    if not found:
        raise UsageError(f"{name} never ran on {fleet.name}", hint=f"drydock run {name} --on {fleet.name}")
    if found.get("phase") != "ended" and desk_of(folder) is None:
        found["phase"] = "abandoned"
        for row in found["hosts"].values():
            row["state"] = "ended" if row.get("state") in ("running", "waiting") else row.get("state")
    return found


def read_state_of(folder: Path) -> dict[str, Any]:
    """What a run has written of itself; empty where there is nothing to read."""
    shape = {"fleet": str, "name": str, "desk": int, "restarts": int, "phase": str, "hosts": {str: dict}}
    return read_json(folder / "state.json", shape) or {}


def describe(state: Mapping[str, Any]) -> Iterator[str]:
    """Describe a status: hosts that are alike share a line."""
    phases = {
        "running": f"{state['name']} runs on {state['fleet']}, from process {state['desk']}",
        "waiting": f"{state['name']} on {state['fleet']} waits for hosts that do not answer, process {state['desk']}",
        "abandoned": f"{state['name']} on {state['fleet']}: the desk's process was killed, and with it all ended",
    }
    ended = f"{state['name']} on {state['fleet']} ended: {state.get('why', '')}"
    yield f"{phases.get(state['phase'], ended)}; restarts: {state['restarts']}"
    groups: dict[str, list[str]] = {}
    for host, row in state["hosts"].items():
        code = f", exit status {row['code']}" if row.get("code") is not None else ""
        what = f"{row.get('profile')} " if state["name"] == "auto" else ""
        groups.setdefault(f"{what}{row.get('state')}{code}", []).append(host)
    for words, hosts in groups.items():
        used = [state["hosts"][host].get("memory", 0) for host in hosts]
        memory = f", {least_to_most(used)}" if any(used) else ""
        yield f"  {folded(hosts)}: {words}{memory}"


def log(fleet: Fleet, name: str, *, follow: bool) -> Iterator[bytes]:
    """The log. Raises UsageError where there is none."""
    folder = folder_of(fleet.name, name)
    if not (folder / "log").is_file():
        raise UsageError(f"{name} has no log of {fleet.name}", hint=f"drydock run {name} --on {fleet.name}")
    yield from runs.read_log(folder / "log", lambda: desk_of(folder) is not None, follow=follow)


def stop(fleet: Fleet, name: str, say: Callable[[str], None]) -> None:
    """Stop it, and wait for its end."""
    folder = folder_of(fleet.name, name)
    number = desk_of(folder)
    if number is None:
        say(f"{name} does not run on {fleet.name}")
        return
    with suppress(ProcessLookupError):
        os.kill(number, signal.SIGTERM)
    while desk_of(folder) is not None:
        time.sleep(0.1)
    say(f"{name} has ended on {fleet.name}")
