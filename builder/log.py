"""What a command has done so far: shown at once by -v, and kept in a file where the command fails.

Kept in memory until then: the programs that were run, with their status, time and words, and what was said.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_BEGAN = time.monotonic()
# (seconds since the start, text); the oldest go first.
_events: deque[tuple[float, str]] = deque(maxlen=5000)
_LAST_WORDS = 20  # lines of a program's stderr
_KEPT = 20  # files
_listener: Callable[[str], None] | None = None
_verbosity = 0
_programs = 0


def listen(listener: Callable[[str], None], verbosity: int) -> None:
    """Hand what is run to `listener`, as it ends: from a `verbosity` of 1 on, from 2 on with what it said."""
    global _listener, _verbosity
    _listener, _verbosity = listener, verbosity


def add(text: str) -> None:
    """Keep a line."""
    _events.append((time.monotonic() - _BEGAN, text))


def ran(command: Sequence[str], code: int | None, began: float, words: str = "") -> None:
    """Keep that a program was run: `code` is None where it did not end, `began` is from time.monotonic()."""
    from shlex import join

    global _programs
    _programs += 1
    seconds = time.monotonic() - began
    status = "did not end" if code is None else f"status {code}"
    line = f"run: {join(command)} ({status}, {seconds:.2f} s)"
    said = [f"  {one}" for one in words.splitlines() if one.strip()]
    add(line)
    for one in said[-_LAST_WORDS:]:
        add(one)
    if _listener is not None and _verbosity:
        _listener(line)
        for one in said if _verbosity > 1 else ():
            _listener(one)


def has_run() -> bool:
    """Whether a program was run: what fails before says all that there is in its message."""
    return _programs > 0


def folder(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Where the files are: drydock/log in XDG_STATE_HOME or ~/.local/state; None where neither is known."""
    if state := environ.get("XDG_STATE_HOME"):
        return Path(state) / "drydock/log"
    home = environ.get("HOME")
    return Path(home) / ".local/state/drydock/log" if home else None


def write(head: Sequence[str], end: Sequence[str], shown: Callable[[str], str]) -> Path | None:
    """Write a file of all that was kept, between `head` and `end`, each line as `shown` makes it, for its owner only.

    The oldest files are deleted. Returns its path; None where it cannot be written, which is no reason to fail twice.
    """
    place = folder()
    if place is None:
        return None
    lines = [*head, "", *(f"{seconds:8.3f} {text}" for seconds, text in _events), "", *end]
    path = place / f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.log"
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(f"{shown(line)}\n" for line in lines)
    except OSError:
        return None
    for old in files()[_KEPT:]:
        with suppress(OSError):
            old.unlink()
    return path


def files() -> list[Path]:
    """The files that are there, the newest first."""
    place = folder()
    try:
        return sorted(place.glob("*.log"), reverse=True) if place is not None else []
    except OSError:
        return []
