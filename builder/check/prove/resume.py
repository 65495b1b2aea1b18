"""Whether a trainer goes on from its checkpoint: started, killed once it has one, and started again."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from builder import process, secrets
from builder.run.replay.compare import lines
from builder.run.supervise.start import resume_of

if TYPE_CHECKING:
    from builder.build.script import Script
    from builder.project.catalogue import Entry

_LOOK = 0.05  # seconds


@dataclass(frozen=True)
class Resumed:
    """Whether it goes on, and in words; None where the profile does not say how, or it has written no checkpoint."""

    good: bool | None
    words: str


def resumes(entry: Entry, script: Script, place: Path, longest: float) -> Resumed:
    """Start the trainer in the new folder `place`, kill it once it has a whole checkpoint, and start it again.

    Each start may take `longest` seconds. Raises ToolError where it cannot be started.
    """
    resume, bench = resume_of(entry), entry.profile.bench
    if resume is None or bench is None:
        return Resumed(None, "the profile does not say how: [supervise.resume] and [bench]")
    environment, names = secrets.environment(bench.arguments)
    environment["PYTHONUNBUFFERED"] = "1"

    def run(arguments: Sequence[str], number: int, is_over: Callable[[], bool]) -> tuple[int | None, bytes]:
        """Its status, None where it was killed, and its output."""
        output, end = place.with_name(f"{place.name}.{number}"), time.monotonic() + longest
        command = script.command("--", *bench.arguments, *arguments)
        with process.running(command, env=environment, cwd=place, output=output) as code:
            while code() is None and not is_over() and time.monotonic() < end:
                time.sleep(_LOOK)
            status = code()
        return status, output.read_bytes()

    def last(output: bytes) -> str:
        found = lines(output)
        return f": {secrets.redacted(found[-1], environment, names)}" if found else ""

    status, before = run((), 1, lambda: resume.find((), place).path is not None)
    more, checkpoint, _ = resume.find((), place)
    if status:
        return Resumed(False, f"it ended with exit status {status}{last(before)}")
    if checkpoint is None:
        return Resumed(None, f"with [bench] arguments it writes no checkpoint that matches {resume.newest}")
    again, after = run(more, 2, lambda: False)
    if again is None:
        return Resumed(False, f"after a kill it did not end within {longest:g} s")
    if again:
        return Resumed(False, f"started again at {checkpoint}, it ended with exit status {again}{last(after)}")
    first, second = (_first_step(output, bench.step) for output in (before, after))
    if first is not None and second is not None and second <= first:
        return Resumed(False, f"started again at {checkpoint}, it began anew, at step {second}")
    return Resumed(True, f"{'killed' if status is None else 'ended'}, and went on from {checkpoint}")


def _first_step(output: bytes, pattern: str) -> int | None:
    """The number of the first step that an output names."""
    found = (re.search(pattern, line) for line in lines(output))
    return next((int(one[1]) for one in found if one is not None), None)
