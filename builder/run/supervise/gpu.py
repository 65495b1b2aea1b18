"""How busy NVIDIA's GPUs are, from one nvidia-smi that runs beside the supervisor.

All GPUs that it lists: in a container it does not know the owner of a process. macOS reports GPUs only to root.
"""

from __future__ import annotations

import os
import re
import signal
from contextlib import suppress
from subprocess import Popen
from typing import IO, Any

from builder import process
from builder.errors import ToolError


class Gpus:
    """The GPUs, looked at `every` so many seconds, which is at least 1; none where there is no nvidia-smi."""

    def __init__(self, every: float) -> None:
        self._now: dict[int, dict[str, Any]] = {}
        self._begun = ""
        self._program: Popen[bytes] | None = None
        self._output: IO[bytes] | None = None
        query = "--query-gpu=index,utilization.gpu,memory.used"
        with suppress(ToolError):
            self._program = process.start(
                ["nvidia-smi", query, "--format=csv,noheader,nounits", f"--loop={max(1, round(every))}"]
            )
            self._output = self._program.stdout
            if self._program.stderr is not None:
                self._program.stderr.close()

    @property
    def pid(self) -> int | None:
        """The process id of nvidia-smi, as long as it lives."""
        return self._program.pid if self._program and self._output else None

    @property
    def number(self) -> int | None:
        """The descriptor to wait for."""
        return self._output.fileno() if self._output else None

    def read(self) -> None:
        """Read its output."""
        if self._output is None:
            return
        data = os.read(self._output.fileno(), 64 * 1024)
        if not data:
            self._output.close()
            self._output, self._now = None, {}
            return
        *lines, self._begun = (self._begun + data.decode(errors="replace")).split("\n")
        self._now.update((gpu["index"], gpu) for gpu in map(parse, lines) if gpu is not None)

    def now(self) -> list[dict[str, Any]]:
        """The last report of each GPU."""
        return list(self._now.values())

    def close(self) -> None:
        """End it."""
        if self._program is not None and self._output is not None:
            self._output.close()
            self._output = None
            with suppress(ProcessLookupError):
                os.killpg(self._program.pid, signal.SIGKILL)
            self._program.wait()


def parse(line: str) -> dict[str, Any] | None:
    """One GPU: `busy` is the share of the time that it was, `memory` in bytes; None where it is not reported.

    >>> parse("0, 37, 1024"), parse("1, [N/A], [N/A]"), parse("No devices were found")
    ({'index': 0, 'busy': 0.37, 'memory': 1073741824}, {'index': 1, 'busy': None, 'memory': None}, None)
    """
    found = re.fullmatch(r"(\d+), (?:(\d+)|\[.*\]), (?:(\d+)|\[.*\])", line.strip())
    if found is None:
        return None
    index, busy, memory = (int(part) if part else None for part in found.groups())
    return {
        "index": index,
        "busy": None if busy is None else busy / 100,
        "memory": None if memory is None else memory * 2**20,
    }
