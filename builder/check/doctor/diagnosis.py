"""One line of the doctor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from builder.embedded.words import printable

State = Literal["ok", "warn", "fail", "skipped"]

_MARKS: dict[State, str] = {"ok": "ok  ", "warn": "warn", "fail": "FAIL", "skipped": "skip"}


@dataclass(frozen=True)
class Diagnosis:
    """One check: what was found, what is wanted, and how to fix it where the two differ.

    `skipped` is a check that was impossible, or not asked for; `found` then says why. `--json` prints these
    fields, whose names stay as they are.
    """

    what: str
    state: State
    found: str
    wanted: str = ""
    fix: str = ""

    def lines(self) -> Iterator[str]:
        """For people: one line, and below it the fix of a problem."""
        yield printable(
            f"{_MARKS[self.state]} {self.what}: {self.found}{f'; wanted: {self.wanted}' if self.wanted else ''}"
        )
        if self.fix and self.state in ("warn", "fail"):
            yield printable(f"     fix: {self.fix}")


def ill(diagnoses: Iterable[Diagnosis]) -> bool:
    """Whether anything failed."""
    return any(one.state == "fail" for one in diagnoses)
