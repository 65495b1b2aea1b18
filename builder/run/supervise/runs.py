"""Supervised runs as the commands see them: start one, read its state and its log, stop it.

runs/NAME/lock              held by the supervisor as long as it lives; its process id is in it
runs/NAME/request.json      the request: command, policy, secrets
runs/NAME/state.json        its state
runs/NAME/log, log.1 ...    output of the trainer, and lines of the supervisor
runs/NAME/samples.jsonl     samples of the trainer's use of the machine
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from builder import process
from builder.embedded import claim as kernel
from builder.embedded.state import fits, parse_json
from builder.errors import DrydockError, UsageError
from builder.names import stem
from builder.report import span
from builder.run.supervise.awake import keep_awake
from builder.run.supervise.journal import MARK, mark_of, older, read_state, write_state
from builder.run.supervise.policy import Policy
from builder.store.layout import Store

_STATE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""How a file of a run is opened: what stands in its place must not hang us."""


@dataclass(frozen=True)
class Request:
    """The request to a supervisor.

    `command` is the trainer's; `root` the path of its gc root, to which its process id is added; `policy` all that the
    profile says of its supervision. `secrets` are names of variables. With `gpus` NVIDIA's are sampled; with `quiet`
    the trainer's output goes to the log alone. `record` is the path of the record of the run, if it has one.
    """

    name: str
    command: Sequence[str]
    root: str
    policy: Policy
    gpus: bool = False
    secrets: Sequence[str] = ()
    quiet: bool = False
    record: str = ""


def folder(name: str) -> Path:
    """Where the runs of the profile `name` are."""
    return Store.here().runs / stem(name)


def claim(name: str) -> int:
    """Become the supervisor of `name`: the descriptor of its lock, which is released when the process ends.

    Raises DrydockError where there is a supervisor already, or a trainer that a killed one left.
    """
    where = folder(name)
    where.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(where / "lock", os.O_RDWR | os.O_CREAT | _STATE, 0o600)
    # More than once: who asks whether there is a supervisor holds the lock for a moment.
    if not _within(0.3, lambda: _locked(lock)):
        os.close(lock)
        raise DrydockError(
            f"{name} is supervised already, by process {supervisor(name) or 'of another'}",
            hint=f"drydock run {name} --status, or --stop",
        )
    left = _left_behind(name)
    if left is not None:
        raise DrydockError(
            f"the last supervisor of {name} was killed, and its trainer, process {left}, still runs",
            hint=f"drydock run {name} --stop",
        )
    try:
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(where / "lock")) from None
    return lock


def _locked(lock: int) -> bool:
    taken = kernel.lock(lock)
    return taken if taken is not None else not _supervises(_holder(lock))


def _holder(lock: int) -> int | None:
    """The process id in a lock."""
    found = re.fullmatch(rb"([0-9]{1,10})\n", os.pread(lock, 32, 0))
    return int(found[1]) if found else None


def _supervises(number: int | None) -> bool:
    """Whether a process is a supervisor, where the file system has no locks that say so."""
    import psutil

    if number is None:
        return False
    try:
        return "builder.run.supervise" in psutil.Process(number).cmdline()
    except (psutil.Error, OverflowError):
        return False


def supervise(lock: int, request: Request, environment: Mapping[str, str]) -> NoReturn:
    """Become the process that watches, in the run that `lock` has claimed; the trainer gets that `environment`."""
    where = folder(request.name)
    write_state(where / "request.json", asdict(request))
    os.set_inheritable(lock, True)
    keep_awake(os.getpid())  # which stays ours
    # -P: a folder called `builder` where we are is not ours.
    process.replace([sys.executable, "-P", "-m", "builder.run.supervise", str(where), str(lock)], environment)


def supervisor(name: str) -> int | None:
    """The process that supervises `name` now."""
    try:
        lock = os.open(folder(name) / "lock", os.O_RDONLY | _STATE)
    except FileNotFoundError:
        return None
    try:
        holder = _holder(lock)
        taken = kernel.lock(lock, shared=True)
        return holder if taken is False or (taken is None and _supervises(holder)) else None
    finally:
        os.close(lock)


def stop(name: str, say: Callable[[str], None]) -> None:
    """Stop the run of `name` and wait until it has ended. Raises DrydockError where it does not."""
    grace: float = read_state(folder(name) / "request.json").get("policy", {}).get("grace", Policy.grace)
    watching, left = supervisor(name), _left_behind(name)
    if watching is not None:
        os.kill(watching, signal.SIGTERM)
        if not _within(grace + 10, lambda: supervisor(name) != watching):
            raise DrydockError(f"process {watching} has not ended after {grace + 10:g} s", hint=f"kill {watching}")
        say(f"{name} is stopped")
    elif left is not None or _outlived(name):
        _end(name, left, signal.SIGTERM)
        if not _within(grace, lambda: _left_behind(name) is None and not _outlived(name)):
            _end(name, left, signal.SIGKILL)
        say(f"{name} is stopped; its supervisor was killed before")
    else:
        say(f"{name} is not running")


def status(name: str) -> dict[str, Any]:
    """Return the state of the run of `name`, with its real `phase` and the last `sample`. Raises UsageError."""
    state = read_state(folder(name) / "state.json")
    watching = supervisor(name)
    if watching is None and not state:
        raise UsageError(f"{name} was never supervised", hint=f"drydock run {name} --supervise")
    if not state:
        raise DrydockError(f"the state of {name} is damaged and cannot be read", hint=f"drydock run {name} --stop")
    if watching is None and state["phase"] != "ended":
        state["phase"] = "abandoned"
    sample = next(iter(last_lines(folder(name) / "samples.jsonl", 1)), b"")
    state["sample"] = parse_json(sample, {"time": float, "cores": float, "resident": int, "processes": int})
    return state


def losses(name: str) -> dict[str, str]:
    """The patterns of losses that the last run of `name` was started with."""
    policy = read_state(folder(name) / "request.json").get("policy", {})
    found: dict[str, str] = policy.get("losses", {}) if isinstance(policy, dict) else {}
    return found if fits(found, {str: str}) else {}


def describe(state: dict[str, Any]) -> Iterator[str]:
    """A status in words."""
    now, sample = time.time(), state.get("sample")
    since = _whole(now - state["since"])
    match state["phase"]:
        case "running":
            yield f"{state['name']} is running for {since}, as process {state['trainer']}"
        case "waiting":
            yield f"{state['name']} starts again in {_whole(state['next_start'] - now)} ({state['why']})"
        case "abandoned":
            yield f"{state['name']} has no supervisor any more: it was killed; drydock run {state['name']} --stop"
        case _:
            yield f"{state['name']} ended {since} ago with exit status {state['last_exit']}: {state['why']}"
    last = f"; the last exit status was {state['last_exit']}" if state["restarts"] and "last_exit" in state else ""
    yield f"  supervisor: process {state['supervisor']}, restarts: {state['restarts']}{last}"
    if sample and state["phase"] == "running" and sample["time"] >= state["trainer_began"]:
        yield (
            f"  used: {sample['cores']:.1f} cores, {sample['resident'] / 1e6:.0f} MB resident, "
            f"{sample['processes']} processes ({_whole(now - sample['time'])} ago)"
        )


def _whole(seconds: float) -> str:
    return span(max(0, round(seconds)))


def log(name: str, *, follow: bool) -> Iterator[bytes]:
    """The log of `name`, oldest first; with `follow` its last lines, and new ones until the run ends.

    Raises UsageError where there is no log.
    """
    path = folder(name) / "log"
    if not path.is_file():
        raise UsageError(f"{name} has no log", hint=f"drydock run {name} --supervise")
    yield from read_log(path, lambda: supervisor(name) is not None, follow=follow)


def read_log(path: Path, is_written: Callable[[], bool], *, follow: bool) -> Iterator[bytes]:
    """A log that may rotate, as `log` has it, while `is_written`."""
    if not follow:
        for one in [*reversed(older(path, 1000)), path]:
            with suppress(FileNotFoundError), _opened(one) as file:
                while piece := file.read(64 * 1024):
                    yield piece
        return
    file = path.open("rb")
    last = b"".join(line + b"\n" for line in last_lines(path, 10))
    file.seek(0, os.SEEK_END)
    yield last
    while True:
        lives = is_written()  # asked first: what it writes before it ends is still read
        if piece := file.read(64 * 1024):
            yield piece
            continue
        try:
            rotated = path.stat().st_ino != os.fstat(file.fileno()).st_ino
        except FileNotFoundError:
            rotated = False
        if rotated:
            file.close()
            file = path.open("rb")
        elif not lives:
            return
        else:
            time.sleep(0.2)


def _opened(path: Path) -> BinaryIO:
    """A file for reading; raises FileNotFoundError where it is no regular one, which might have no end."""
    if not path.is_file():
        raise FileNotFoundError(path)
    return path.open("rb")


def last_lines(path: Path, count: int) -> list[bytes]:
    """The last lines of a file, of its last 64 KiB."""
    try:
        if not path.is_file():
            return []
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 64 * 1024))
            return list(deque(file.read().split(b"\n")[:-1], count))
    except FileNotFoundError:
        return []


def _left_behind(name: str) -> int | None:
    """The trainer of a supervisor that was killed, where it still runs."""
    import psutil

    state = read_state(folder(name) / "state.json")
    if state.get("phase") != "running":
        return None
    try:
        trainer = psutil.Process(state["trainer"])
        ours = abs(trainer.create_time() - state["trainer_began"]) < 2 and trainer.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OverflowError, TypeError, ValueError):
        return None
    return trainer.pid if ours else None


def _outlived(name: str) -> list[int]:
    """The processes of a run whose supervisor was killed, in whichever session: by their environment."""
    import psutil

    state = read_state(folder(name) / "state.json")
    if state.get("phase") in (None, "ended"):
        return []
    found = []
    for one in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if one.pid != os.getpid() and one.environ().get(MARK) == mark_of(state):
                found += [one.pid] if one.status() != psutil.STATUS_ZOMBIE else []
    return found


def _end(name: str, group: int | None, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        if group is not None:
            os.killpg(group, number)
    for pid in _outlived(name):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _within(seconds: float, happened: Callable[[], bool]) -> bool:
    until = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True
