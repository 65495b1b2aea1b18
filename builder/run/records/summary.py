"""Sums up a supervised run as it goes: the losses that its trainer prints, and what it used of the machine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # a service of a fleet carries this, and none of those
    from builder.run.records.history import Logged
    from builder.run.supervise.sample import Sample

# loss=1.5, 'loss': 1.5, "train_loss": nan, loss 1.5
LOSS = re.compile(
    rb"\b([A-Za-z_]{0,20}loss)[\"']?(?:\s*[:=]\s*|\s+)[\"']?(-?[0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?|nan|-?inf)\b", re.I
)
"""A loss as trainers print it: its name, its number."""

_LONGEST_LINE = 2000  # a pattern looks no further: a line may be a megabyte of progress bar
_CURVES = 8  # names of losses
_POINTS = 200  # of a curve


class Loss(NamedTuple):
    """A printed loss: its name, its number as printed, and the text around it that was recognized."""

    name: str
    number: str
    text: str


class Losses:
    """Finds losses in what a trainer prints: in the forms that all trainers use, and in those of its profile.

    `patterns` are regular expressions by name, whose group is the number.

    >>> [*Losses({"perplexity": "ppl ([0-9.]+)"}).find(b"loss=1.5 ppl 4.5")]
    [Loss(name='loss', number='1.5', text='loss=1.5'), Loss(name='perplexity', number='4.5', text='ppl 4.5')]
    """

    def __init__(self, patterns: Mapping[str, str] | None = None) -> None:
        self._patterns = {name: re.compile(pattern) for name, pattern in (patterns or {}).items()}

    def find(self, lines: bytes) -> Iterator[Loss]:
        """Those of whole lines."""
        if b"loss" in lines or b"Loss" in lines:
            for found in LOSS.finditer(lines):
                name = found[1].decode().lower()
                if name not in self._patterns:
                    yield Loss(name, found[2].decode(), found[0].decode())
        if self._patterns:
            for line in lines.decode(errors="replace").splitlines():
                yield from self._in(line[:_LONGEST_LINE])

    def _in(self, line: str) -> Iterator[Loss]:
        for name, pattern in self._patterns.items():
            for found in pattern.finditer(line):
                if found[1] is not None:
                    yield Loss(name, found[1], found[0])


class Curve:
    """A series of rows, of which at most `_POINTS` are kept, evenly over all: every second one goes when they are full.

    >>> curve = Curve()
    >>> for number in range(1000):
    ...     curve.add([number])
    >>> len(curve.rows), curve.rows[:3], curve.rows[-1]
    (125, [[0], [8], [16]], [992])
    """

    def __init__(self) -> None:
        self.rows: list[list[float]] = []
        self._every, self._count = 1, 0

    def add(self, row: list[float]) -> None:
        """Take the next row."""
        if self._count % self._every == 0:
            self.rows.append(row)
            if len(self.rows) == _POINTS:
                self.rows, self._every = self.rows[::2], 2 * self._every
        self._count += 1


class Summary:
    """What a record says of a run in a few numbers; sizes in bytes. `patterns` are those of its profile, for losses."""

    def __init__(self, patterns: Mapping[str, str] | None = None) -> None:
        self._printed = Losses(patterns)
        self._losses: dict[str, dict[str, Any]] = {}
        self._curves: dict[str, Curve] = {}
        self._use = Curve()
        self._samples = 0
        self._resident = self._processes = 0
        self._cores = 0.0
        self._gpus: dict[int, dict[str, Any]] = {}

    def read(self, lines: bytes) -> None:
        """Take what the trainer has printed, in whole lines."""
        for found in self._printed.find(lines):
            with suppress(ValueError):  # what a pattern calls a number may be none
                self._add(found.name, float(found.number))

    def add_logged(self, logged: Iterable[Logged]) -> None:
        """Take losses that were logged to a file, of those names that were never printed."""
        printed = set(self._losses)
        for loss in logged:
            if loss.name not in printed:
                self._add(loss.name, loss.value)

    @property
    def has_no_losses(self) -> bool:
        """Whether no loss is known so far."""
        return not self._losses

    def _add(self, name: str, value: float) -> None:
        if name not in self._losses and len(self._losses) == _CURVES:
            return
        curve = self._losses.setdefault(
            name, {"count": 0, "not-finite": 0, "first": None, "last": None, "lowest": None}
        )
        curve["count"] += 1
        if not float("-inf") < value < float("inf"):
            curve["not-finite"] += 1
            return
        curve["first"] = value if curve["first"] is None else curve["first"]
        curve["lowest"] = value if curve["lowest"] is None else min(curve["lowest"], value)
        curve["last"] = value
        self._curves.setdefault(name, Curve()).add([curve["count"], value])

    def sample(self, sample: Sample, gpus: list[dict[str, Any]]) -> None:
        """Take a sample of what it uses."""
        self._samples += 1
        self._cores += sample.cores
        self._use.add([round(sample.time, 1), round(sample.cores, 2), sample.resident])
        self._resident = max(self._resident, sample.resident)
        self._processes = max(self._processes, sample.processes)
        for gpu in gpus:
            one = self._gpus.setdefault(gpu["index"], {"count": 0, "busy": 0.0, "memory": 0})
            one["count"] += 1
            one["busy"] += gpu["busy"] or 0.0
            one["memory"] = max(one["memory"], gpu["memory"] or 0)

    def data(self) -> dict[str, Any]:
        """The summary in plain JSON types."""
        found: dict[str, Any] = {
            "losses": self._losses,
            "curves": {name: curve.rows for name, curve in self._curves.items()},
        }
        if self._samples:
            found["used"] = {
                "samples": self._samples,
                "cores": round(self._cores / self._samples, 2),
                "resident": self._resident,
                "processes": self._processes,
            }
            found["use"] = self._use.rows
        if self._gpus:
            found["gpus"] = {
                str(index): {"busy": round(one["busy"] / one["count"], 3), "memory": one["memory"]}
                for index, one in sorted(self._gpus.items())
            }
        return found
