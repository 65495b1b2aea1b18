"""Timing of whole commands, side by side: each round runs every command once, so that noise meets all alike."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Command:
    """What is timed: `prepare` runs before each round, untimed. With `until`, up to the first line that has it."""

    name: str
    arguments: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    prepare: Callable[[], None] = lambda: None
    until: str | None = None


@dataclass(frozen=True)
class Timing:
    """Seconds of each round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def best(self) -> float:
        return min(self.seconds)


def side_by_side(commands: Sequence[Command], rounds: int) -> dict[str, Timing]:
    """Times each command `rounds` times, alternately, after one round that warms caches."""
    seconds: dict[str, list[float]] = {command.name: [] for command in commands}
    for number in range(rounds + 1):
        for command in commands:
            command.prepare()
            taken = _time(command)
            if number:
                seconds[command.name].append(taken)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def _time(command: Command) -> float:
    if command.until is not None:
        return _time_until(command, command.until)
    begin = time.perf_counter()
    done = subprocess.run(
        list(command.arguments),
        env={**os.environ, **command.env},
        cwd=command.cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    taken = time.perf_counter() - begin
    if done.returncode:
        raise SystemExit(f"{command.name} failed: {done.stderr.decode()[-2000:]}")
    return taken


def _time_until(command: Command, words: str) -> float:
    """Seconds to the first line of its output with `words`; what it does then is waited for, and not counted."""
    begin, taken = time.perf_counter(), None
    with subprocess.Popen(
        list(command.arguments),
        env={**os.environ, **command.env},
        cwd=command.cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        lines = []
        for line in process.stdout or ():
            lines.append(line)
            if taken is None and words in line:
                taken = time.perf_counter() - begin
    if taken is None or process.returncode:
        raise SystemExit(f"{command.name} failed: {''.join(lines)[-2000:]}")
    return taken
