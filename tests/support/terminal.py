"""A terminal for a program: what it draws there, and for how long it is silent."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class Seen(NamedTuple):
    """What a program has drawn; `silent` are the seconds of its longest silence since it began to draw, `code` its exit
    status.
    """

    text: str
    silent: float
    code: int

    @property
    def lines(self) -> list[str]:
        """What was drawn, one after the other: a line that is written over counts as often as it is drawn."""
        return [line for line in self.text.replace("\x1b[K", "").replace("\r", "\n").split("\n") if line]


def on_terminal(
    command: Sequence[str], *, env: Mapping[str, str], cwd: Path, columns: int = 80, seconds: float = 120
) -> Seen:
    """Run a program with its stdout and stderr on a terminal of so many columns, to its end."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    began = last = time.monotonic()
    drawn, silent = b"", 0.0
    with subprocess.Popen(command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        while time.monotonic() - began < seconds:
            if not select.select([ours], [], [], 0.1)[0]:
                continue
            try:
                content = os.read(ours, 1 << 16)
            except OSError:  # EIO: nobody holds it open any more
                break
            silent = max(silent, time.monotonic() - last) if drawn else 0.0
            drawn, last = drawn + content, time.monotonic()
        else:
            process.kill()
        os.close(ours)
        code = process.wait()
    return Seen(drawn.decode(), silent, code)
