"""Which processes a test has started, found by a variable in their environment, whoever their parent is now."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path

# None of DRYDOCK_*: what builds a package from source gets none of those.
VARIABLE = "TESTS_MARK"


class Mark:
    """A mark that everything inherits which is started with `environment`."""

    def __init__(self) -> None:
        self._value = uuid.uuid4().hex
        self.environment = {VARIABLE: self._value}

    def alive(self) -> dict[int, str]:
        """The processes that have the mark, with their command lines; those that ended have none any more."""
        found = {}
        wanted = f"{VARIABLE}={self._value}".encode()
        for entry in os.listdir("/proc"):
            if entry.isdecimal():
                try:
                    if wanted in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                        words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
                        found[int(entry)] = os.fsdecode(b" ".join(words))[:200]
                except OSError:
                    continue
        return found

    def gone(self, seconds: float) -> dict[int, str]:
        """Those that are alive still after so many seconds; sooner where there are none."""
        end = time.monotonic() + seconds
        while (left := self.alive()) and time.monotonic() < end:
            time.sleep(0.02)
        return left
