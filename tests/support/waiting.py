"""Waiting for what other processes do, on a machine that may have fifteen more of them on each core."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

# Seconds until a test gives up what it waits for. It costs nothing where that happens, so it is never too long.
LONG = 180.0

Found = TypeVar("Found")


def until(happened: Callable[[], Found], seconds: float = LONG) -> Found:
    """Ask again and again; returns the first answer that is not false.

    Files that are missing or half written, and what is missing in them, are no answer.
    """
    end = time.monotonic() + seconds
    while True:
        error: Exception | None = None
        try:
            if found := happened():
                return found
        except (OSError, ValueError, LookupError, StopIteration) as raised:
            error = raised
        if time.monotonic() > end:
            raise AssertionError(f"it did not happen within {seconds:.0f} s") from error
        time.sleep(0.02)


def allowed(seconds: float) -> float:
    """What a promise of so many seconds is on this machine now: more where several processes want each core."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
