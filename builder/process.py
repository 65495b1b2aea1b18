"""The one gateway to other programs, and the only importer of plumbum.

Arguments always travel as a list; no shell ever parses them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from builder.errors import ToolError

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
        program = local[command[0]][list(command[1:])]
        with _nothing_but(env) as whole:
            code, stdout, stderr = program.run(retcode=None, env=whole, cwd=cwd)
    except (CommandNotFound, ProcessExecutionError, OSError) as error:
        raise ToolError(f"{command[0]} cannot be run: {error}") from None
    return Done(code, stdout, stderr)


@contextmanager
def _nothing_but(env: Mapping[str, str] | None) -> Iterator[dict[str, str]]:
    """`env`, or ours, as the whole environment: plumbum only ever adds to its own (plumbum.machines.local, _popen)."""
    from plumbum import local

    whole = dict(os.environ if env is None else env)
    with local.env():
        local.env.clear()
        yield whole


def stream(command: Sequence[str], line: Callable[[str], None], *, env: Mapping[str, str] | None = None) -> int:
    """Run a program and hand each line of its stderr to `line` as it comes; its stdout is dropped.

    Gives the exit status as a shell would: 128 + N for signal N. The program leads a process group of its own. An
    interrupt, termination or hang-up of ours goes to all of that group, so that what the program waits for ends too,
    and is waited for, so that it can clean up. Raises KeyboardInterrupt after an interrupt.
    """
    from plumbum import local

    process: Any = None
    received: list[int] = []

    def send(number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)

    def forward(number: int, _frame: object) -> None:
        received.append(number)
        if process is not None:
            send(number)

    # What our caller ignores (nohup, a job in the background) stays ignored.
    heard = [number for number in _FORWARDED if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, forward) for number in heard}
    try:
        program = local[command[0]][list(command[1:])]
        with _nothing_but(env) as whole:
            process = program.popen(
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=whole,
                process_group=0,
            )
        for number in received:  # one that came before there was a process to send it to
            send(number)
        # plumbum's pipes are of bytes, whatever their type says
        for raw in cast("Iterable[bytes]", process.stderr):
            line(raw.decode(errors="replace").rstrip("\n"))
        code: int = process.wait()
    except BaseException:
        # Nobody listens any more (a closed terminal): what is half-done must not go on alone.
        if process is not None:
            send(signal.SIGTERM)
            process.wait()
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if signal.SIGINT in received:
        raise KeyboardInterrupt
    return code if code >= 0 else 128 - code


def replace(command: Sequence[str], env: Mapping[str, str] | None = None) -> NoReturn:
    """Become another program: its signals, its exit status and its terminal are then its own."""
    sys.stdout.flush()
    os.execve(command[0], list(command), dict(env or os.environ))
