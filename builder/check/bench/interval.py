"""Intervals of a ratio from pairs of measurements, without an assumption about the distribution of noise."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_LEVEL = 0.9


@dataclass(frozen=True)
class Interval:
    """The median of some values, and where the true one is with the probability `level`."""

    median: float
    low: float
    high: float
    level: float

    @property
    def spread(self) -> float:
        """How wide it is, as a share of the median."""
        return (self.high - self.low) / self.median

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def interval(values: Sequence[float]) -> Interval:
    """The median with its confidence interval from order statistics, of a level of 90 % or more where that can be.

    The true median is below all of n values, or above all of them, with a probability of 1/2 to the n each (Conover,
    Practical Nonparametric Statistics, 3.2).

    >>> interval([1.0, 1.1, 1.3, 0.9, 1.2])
    Interval(median=1.1, low=0.9, high=1.3, level=0.9375)
    """
    ordered, count = sorted(values), len(values)
    outside, level = 0, 1 - 2 * _tail(count, 0)
    while outside + 1 < count / 2 and 1 - 2 * _tail(count, outside + 1) >= _LEVEL:
        outside += 1
        level = 1 - 2 * _tail(count, outside)
    return Interval(statistics.median(ordered), ordered[outside], ordered[count - 1 - outside], max(0.0, level))


def _tail(count: int, most: int) -> float:
    """The probability that at most `most` of `count` fair coins show heads."""
    return float(sum(math.comb(count, number) for number in range(most + 1)) / 2**count)
