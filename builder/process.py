"""The one gateway to other programs, and the only importer of plumbum.

Arguments always travel as a list; no shell ever parses them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, cast

from builder.errors import ToolError


@dataclass(frozen=True)
class Done:
    """A program that has ended."""

    code: int
    stdout: str
    stderr: str


def run(command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> Done:
    """Run a program to its end and hold what it said.

    `env` is the whole environment; None passes ours on. Raises ToolError where it cannot be started.
    """
    from plumbum import ProcessExecutionError, local
    from plumbum.commands.processes import CommandNotFound

    try:
        program = local[command[0]]
        code, stdout, stderr = program[list(command[1:])].run(retcode=None, env=dict(env or os.environ), cwd=cwd)
    except (CommandNotFound, ProcessExecutionError, OSError) as error:
        raise ToolError(f"{command[0]} cannot be run: {error}") from None
    return Done(code, stdout, stderr)


def stream(command: Sequence[str], line: Callable[[str], None], *, env: Mapping[str, str] | None = None) -> int:
    """Run a program and hand each line of its stderr to `line` as it comes; its stdout is dropped.

    Gives the exit status as a shell would: 128 + N for signal N. An interrupt reaches the program too, and is waited
    for, so that it can clean up.
    """
    from plumbum import local

    process = local[command[0]][list(command[1:])].popen(
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=dict(env or os.environ)
    )
    previous = signal.signal(signal.SIGTERM, lambda *_: process.send_signal(signal.SIGTERM))
    try:
        # plumbum's pipes are of bytes, whatever their type says
        for raw in cast("Iterable[bytes]", process.stderr):
            line(raw.decode(errors="replace").rstrip("\n"))
        code: int = process.wait()
    except KeyboardInterrupt:
        # On a terminal the program got the signal already; a second one does no harm.
        process.send_signal(signal.SIGINT)
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)
    return code if code >= 0 else 128 - code


def replace(command: Sequence[str], env: Mapping[str, str] | None = None) -> NoReturn:
    """Become another program: its signals, its exit status and its terminal are then its own."""
    sys.stdout.flush()
    os.execve(command[0], list(command), dict(env or os.environ))
