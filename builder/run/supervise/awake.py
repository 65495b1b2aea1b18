"""A machine that does not sleep while a trainer runs."""

from __future__ import annotations

import shutil
from contextlib import suppress

from builder import process
from builder.errors import ToolError


def keep_awake(number: int) -> None:
    """Hold off the sleep of an idle Mac for as long as a process lives: caffeinate(8), which other systems do not have.

    It is nobody's child, so that it is no part of what the process starts and waits for.
    """
    program = shutil.which("caffeinate")
    if program is not None:
        with suppress(ToolError):
            process.detach([program, "-i", "-w", str(number)])
