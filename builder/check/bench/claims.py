"""The verdict of measured ratios on three claims that the original recipe makes without measurements."""

from __future__ import annotations

from dataclasses import dataclass

from builder.check.bench.interval import Interval

# Wider than this, and an interval says nothing of effects such as those that are claimed.
TELLING = 0.2


@dataclass(frozen=True)
class Claim:
    """A claim on a ratio: at most `bound` where `less`, else at least `bound`."""

    words: str
    bound: float
    less: bool

    def judge(self, found: Interval) -> str:
        """Return holds, does not hold, or undecided: by whether the whole interval is on one side of the bound.

        >>> Claim("10 to 40 % less", 0.9, less=True).judge(Interval(0.5, 0.4, 0.6, 0.9375))
        'holds'
        """
        inside = (found.high <= self.bound) if self.less else (found.low >= self.bound)
        outside = (found.low > self.bound) if self.less else (found.high < self.bound)
        return "holds" if inside else "does not hold" if outside else "undecided"


# seed/000_675cf254d37ca122.txt: "CPU利用率: 提升20-30%", "内存使用: 减少15-25%", "启动时间: 减少10-40%"
START = Claim("10 to 40 % less", 0.9, less=True)
MEMORY = Claim("15 to 25 % less", 0.85, less=True)
PROCESSOR = Claim("20 to 30 % more", 1.2, less=False)
