"""Files of a supervised run: a log of bounded size, samples as JSON lines, and its state."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from builder.embedded import state as files_of_state

# A FIFO in its place is an error, and no wait for somebody who reads it.
_APPENDING = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


class RotatingFile:
    """A file that is appended to; at `size` bytes it becomes NAME.1, and at most `kept` of those stay.

    A disk that is full, or a folder that is gone, is reported once, by `complain`, and later data is lost: the
    trainer goes on.
    """

    def __init__(self, path: Path, size: int, kept: int, complain: Callable[[str], None]) -> None:
        self._path = path
        self._size = size
        self._kept = kept
        self._complain = complain
        self._complained = False
        self._file: int | None = None
        self._written = 0

    def write(self, data: bytes) -> None:
        """Append `data`."""
        try:
            if self._file is None:
                self._open()
            elif self._written and self._written + len(data) > self._size:
                self._rotate()
            while data and self._file is not None:
                count = os.write(self._file, data)
                self._written += count
                data = data[count:]
        except OSError as error:
            if not self._complained:
                self._complained = True
                self._complain(f"{self._path} cannot be written ({error.strerror}); the trainer goes on")

    def close(self) -> None:
        """Close it; a later write opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> None:
        # Of the user alone: a trainer says more than a stranger on the machine has to know.
        self._file = os.open(self._path, _APPENDING, 0o600)
        self._written = os.fstat(self._file).st_size

    def _rotate(self) -> None:
        self.close()
        names = [self._path, *older(self._path, self._kept)]
        for source, target in reversed(list(pairwise(names))):
            if source.exists():
                source.replace(target)
        if not self._kept:
            self._path.unlink()
        self._open()


def older(path: Path, kept: int) -> list[Path]:
    """Return the rotated files of a path, newest first."""
    return [path.with_name(f"{path.name}.{number}") for number in range(1, kept + 1)]


class Tail:
    """The last `size` bytes of a stream."""

    def __init__(self, size: int = 64 * 1024) -> None:
        self._size = size
        self._pieces: deque[bytes] = deque()
        self._held = 0

    def add(self, piece: bytes) -> None:
        """Add the next piece."""
        self._pieces.append(piece)
        self._held += len(piece)
        while self._held - len(self._pieces[0]) >= self._size:
            self._held -= len(self._pieces.popleft())

    def lines(self) -> list[str]:
        """Return the kept bytes as lines; a progress bar begins one at each carriage return."""
        return b"".join(self._pieces)[-self._size :].decode(errors="replace").splitlines()

    def clear(self) -> None:
        """Forget it all."""
        self._pieces.clear()
        self._held = 0


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write the state to `path`, whole or not at all. Raises OSError."""
    new = path.with_name(f".{path.name}.new")
    try:
        new.unlink(missing_ok=True)
        new.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
        new.replace(path)
    except OSError as error:  # that of a write knows no file
        raise OSError(error.errno, error.strerror, str(path)) from None


def read_state(path: Path) -> dict[str, Any]:
    """Return the state at `path`; empty where there is none."""
    return files_of_state.read_json(path, _SHAPES.get(path.name, dict)) or {}


MARK = "DRYDOCK_SUPERVISED"
"""The variable that all processes of a run have, whichever session they make their own."""


def mark_of(state: dict[str, Any]) -> str:
    """What MARK is in the run of a state."""
    return f"{state['name']} {state['supervisor']} {state['began']!r}"


_STATE = {"name": str, "supervisor": int, "began": float, "restarts": int, "since": float}
_EXIT = {**_STATE, "last_exit": int, "why": str}
_PHASES: dict[str, Any] = {
    "running": {**_STATE, "trainer": int, "trainer_began": (float, None)},
    "waiting": {**_EXIT, "next_start": float},
    "ended": _EXIT,
}
_SHAPES: dict[str, Any] = {
    "state.json": tuple({**shape, "phase": frozenset({phase})} for phase, shape in _PHASES.items()),
    "request.json": {"name": str, "policy": {"grace": float}},
}
