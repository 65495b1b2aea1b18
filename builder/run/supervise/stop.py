"""What a run is asked to end for, and when it is killed. Pure: signals, the clock and what is used come in.

Each step returns what is so afterwards, and what is to be done now.
"""

from __future__ import annotations

import math
import signal
from dataclasses import dataclass, replace

from builder.errors import EXIT_FAILED

_AGAIN = 1.0  # seconds from one kill to the next: a process that a broken device holds up dies later


@dataclass(frozen=True)
class Stop:
    """Why a run is to end: the first signal of the user's, or `too_much` memory in use, in words.

    `kill_at` is when a trainer that has not ended is killed; infinite where it is not to end.
    """

    signal: int | None = None
    too_much: str | None = None
    kill_at: float = math.inf

    @property
    def is_asked(self) -> bool:
        """Whether the user, or the system, has told us to stop."""
        return self.signal is not None

    @property
    def is_over(self) -> bool:
        """Whether the trainer is to end, for whatever reason."""
        return self.is_asked or self.too_much is not None

    def verdict(self, code: int) -> tuple[int, str] | None:
        """The exit status and the reason with which a run ends that was to end; None where it was not.

        >>> Stop(too_much="12 GB").verdict(0), Stop().verdict(1)
        ((1, '12 GB'), None)
        """
        if self.is_asked:
            return code, "stopped"
        return None if self.too_much is None else (code or EXIT_FAILED, self.too_much)


def begun(stop: Stop, now: float, grace: float) -> tuple[Stop, int | None]:
    """A trainer is started: a signal that came before there was anybody to tell is passed on to it now."""
    if stop.signal is None:
        return replace(stop, kill_at=math.inf), None
    return replace(stop, kill_at=now + grace), stop.signal


def on_signal(stop: Stop, number: int, now: float, grace: float) -> tuple[Stop, int | None]:
    """A signal came: the first is passed on; a further SIGINT is of somebody who does not want to wait.

    >>> stop, passed = on_signal(Stop(), signal.SIGTERM, now=10, grace=5)
    >>> stop.kill_at, passed == signal.SIGTERM, on_signal(stop, signal.SIGINT, 11, 5)[0].kill_at
    (15, True, 11)
    """
    if stop.signal is None:
        return replace(stop, signal=number, kill_at=now + grace), number
    return (replace(stop, kill_at=min(now, stop.kill_at)) if number == signal.SIGINT else stop), None


def exceeded(stop: Stop, why: str | None, now: float, grace: float) -> tuple[Stop, int | None]:
    """Memory was looked at; `why` says what is too much. Who is to end already is left alone."""
    if why is None or stop.is_over:
        return stop, None
    return replace(stop, too_much=why, kill_at=now + grace), signal.SIGTERM


def overdue(stop: Stop, now: float) -> tuple[Stop, bool]:
    """Time has passed: whether what has not ended is killed now."""
    if now < stop.kill_at:
        return stop, False
    return replace(stop, kill_at=now + _AGAIN), True
