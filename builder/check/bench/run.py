"""One run of a trainer, measured from outside: nothing is added to it."""

from __future__ import annotations

import math
import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from threading import Thread
from typing import IO

import psutil

from builder import process, secrets
from builder.consent import Consent
from builder.errors import DrydockError, UsageError

_TICK = 0.01  # seconds; what an operating system counts a process's time in
_PATIENCE = 5  # seconds for what an ended trainer said last
# A trainer goes on after its loss has come to this, and what it printed before is not what it has come to.
_NOT_FINITE = re.compile(r"loss\W{1,4}[-+]?(?:nan|inf)", re.I)
_TAIL = 15  # lines that are shown of a run that failed


@dataclass(frozen=True)
class Side:
    """One side: a command in an environment, which somebody has agreed to; `folder` is where it runs, else where we do.

    `step` finds the number of a training step in a line of its output, `outcome` the number that training ends with.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    step: str
    outcome: str
    consent: Consent
    folder: Path | None = None


@dataclass(frozen=True)
class Run:
    """The measurements of one run.

    `start` is seconds from its start to the line of the first training step, and `start_processor` the processor's
    seconds until then, which depend less on what else the machine does. `speed` is steps a second from there to the
    last. `cores` is how many processors it kept busy all the time, `processor` the seconds of them. `memory` is the
    peak of its largest process in bytes (getrusage(2)), or what Drydock itself holds, some 40 MB, where that is more:
    Linux counts a process from its fork on. `others` is how many processors everything else on the machine
    kept busy meanwhile. `outcome` is the last number that the trainer said of what it has come to, not a
    number where its last loss was none.
    """

    start: float
    start_processor: float
    speed: float
    cores: float
    processor: float
    memory: int
    others: float
    outcome: float | None


class _Heard:
    """What a trainer says while it runs: its steps with their times, its last outcome, and the end of all of it."""

    def __init__(self, side: Side, program: Popen[bytes], began: float) -> None:
        self._step, self._outcome = re.compile(side.step), re.compile(side.outcome)
        self._program, self._began = program, began
        self._outcomes: deque[float] = deque(maxlen=1)
        self.steps: list[tuple[int, float]] = []
        self.at_first: float | None = None
        """Seconds of processor that were spent at the first step, where the system says so."""
        self.tail: deque[str] = deque(maxlen=_TAIL)
        pipes = [pipe for pipe in (program.stdout, program.stderr) if pipe]
        self._threads = [Thread(target=self._listen, args=(pipe,), daemon=True) for pipe in pipes]
        for thread in self._threads:
            thread.start()

    def _listen(self, pipe: IO[bytes]) -> None:
        with pipe:
            for raw in pipe:
                self._hear(raw.decode(errors="replace").rstrip())

    def _hear(self, line: str) -> None:
        self.tail.append(line)
        is_broken = _NOT_FINITE.search(line) is not None
        self._outcomes.extend(_numbers(self._outcome.search(line)) or ([math.nan] if is_broken else []))
        if found := self._step.search(line):
            if not self.steps:
                self.at_first = _spent(self._program.pid)
            self.steps.append((int(found.group(1)), time.monotonic() - self._began))

    def to_the_end(self) -> None:
        """Wait for the last words of a program that has ended."""
        for thread in self._threads:
            thread.join(_PATIENCE)

    @property
    def outcome(self) -> float | None:
        """The last outcome."""
        return self._outcomes[0] if self._outcomes else None


def measure(side: Side) -> Run:
    """Run `side` once to its end. Raises UsageError where no two steps are seen, DrydockError where it fails."""
    began, busy = time.monotonic(), _busy()
    # In a pipe, Python would hold its lines back.
    program = process.start(side.command, env={**side.environment, "PYTHONUNBUFFERED": "1"}, cwd=side.folder)
    try:
        heard = _Heard(side, program, began)
        _, status, used = os.wait4(program.pid, 0)
        program.returncode = code = os.waitstatus_to_exitcode(status)
        took = time.monotonic() - began
        heard.to_the_end()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        if program.returncode is None:
            program.wait()
    if code:
        _, names = secrets.environment((), side.environment)
        tail = secrets.redacted("\n  ".join(["", *heard.tail]).rstrip(), side.environment, names)
        raise DrydockError(f"{side.name} ended with exit status {code}: {tail}")
    first, last = (heard.steps[0], heard.steps[-1]) if heard.steps else ((0, 0.0), (0, 0.0))
    if last[0] <= first[0]:
        raise UsageError(
            f"{side.name} trained, but its output shows fewer than two training steps",
            hint=f'set their pattern: [bench] step = "{side.step}" is what was looked for',
        )
    processor = used.ru_utime + used.ru_stime
    return Run(
        start=first[1],
        start_processor=processor if heard.at_first is None else max(heard.at_first, _TICK),
        speed=(last[0] - first[0]) / (last[1] - first[1]),
        cores=processor / took,
        processor=processor,
        memory=used.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        others=max(0.0, (_busy() - busy - processor) / took),
        outcome=heard.outcome,
    )


def _numbers(found: re.Match[str] | None) -> list[float]:
    """The number that a trainer says in a line, where it says one."""
    with suppress(ValueError):
        return [float(found.group(1))] if found else []
    return []


def _spent(number: int) -> float | None:
    """Return the processor seconds of a process and its ended children; None where it does not exist any more."""
    try:
        times = psutil.Process(number).cpu_times()
    except psutil.Error:
        return None
    return float(times.user + times.system + times.children_user + times.children_system)


def _busy() -> float:
    """Return the busy seconds of all processors of this machine, together."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    # What a guest used is in `user` too (proc(5)).
    return float(sum(times) - idle - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0))
