"""The output of a trainer: pipes that are read, and screens that never block."""

from __future__ import annotations

import os
import select
import stat
import time
from typing import IO

from builder.run.supervise.redact import Redactor

_PIECE = 64 * 1024
_CALM = 0.05  # seconds between two looks at a pipe that trickles: some twenty wake-ups a second at most
STUCK = 5.0  # seconds after which a terminal that takes nothing is passed over


class Screen:
    """Our stdout or stderr, for the output of the trainer. It never blocks us, whatever the reader does.

    A reader that takes nothing holds the trainer up, as it would without us, but for `STUCK` seconds at most.
    """

    def __init__(self, number: int) -> None:
        self._file: int | None = number
        self._waiting = bytearray()
        self._since = 0.0
        self._atomic = select.PIPE_BUF
        try:
            if os.isatty(number):
                # A description of our own: O_NONBLOCK on the one we have would reach everybody who shares it.
                self._file = os.open(os.ttyname(number), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            elif stat.S_ISREG(os.fstat(number).st_mode):
                self._atomic = _PIECE
        except OSError:  # closed, or a terminal of another namespace
            self._file = None

    def show(self, data: bytes) -> None:
        """Add output to be written."""
        if self._file is None or (self._is_stuck and not self._takes(0)):
            return
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting += data
        self.push()

    def push(self, patience: float = 0) -> None:
        """Write as much as is taken now, or within `patience` seconds of each other."""
        while self._waiting and self._file is not None and self._takes(patience):
            try:
                count = os.write(self._file, self._waiting[: self._atomic])
            except BlockingIOError:
                break
            except OSError:  # the reader is gone, or the disk behind it is full
                self._file = None
                break
            del self._waiting[:count]
            self._since = time.monotonic()

    @property
    def holds_up(self) -> int | None:
        """The descriptor that must take something before more is to be read for it."""
        return self._file if self._waiting and not self._is_stuck else None

    @property
    def _is_stuck(self) -> bool:
        return bool(self._waiting) and time.monotonic() - self._since > STUCK

    def _takes(self, patience: float) -> bool:
        return self._file is not None and bool(select.select([], [self._file], [], patience)[1])


class Pipe:
    """One output of the trainer, for a screen; without secrets."""

    def __init__(self, file: IO[bytes], redactor: Redactor, screen: Screen | None) -> None:
        self.number = file.fileno()
        self.screen = screen
        self.calm_until = 0.0
        self._read_at = 0.0
        self._file = file
        self._redactor = redactor
        self._begun = b""

    def lines(self, data: bytes, *, all_of_it: bool) -> bytes:
        """Whole lines for the log, where two outputs meet; a partial line waits for its end, or for `all_of_it`."""
        data = self._begun + data
        end = len(data) if all_of_it or len(data) > _PIECE else max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        self._begun = data[end:]
        return data[:end]

    def read(self) -> bytes | None:
        """Return the available output; None at the end."""
        data = os.read(self.number, _PIECE)
        # A flood is read as fast as it comes, a trickle is gathered; a line now and then is shown at once.
        now = time.monotonic()
        trickles = len(data) < _PIECE and now - self._read_at < 1.8 * _CALM
        self.calm_until, self._read_at = now + _CALM if trickles else 0.0, now
        return self._redactor.feed(data) if data else None

    def close(self) -> bytes:
        """Return the output that was held back."""
        self._file.close()
        return self._redactor.rest()


def new_pipe() -> tuple[int, int]:
    """A pipe that does not block; macOS has no pipe2. Python's descriptors are not inherited."""
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    return ends
