"""What the measured ratios say of the three claims that the seed makes, and never measured."""

from __future__ import annotations

from dataclasses import dataclass

from builder.check.bench.interval import Interval

# Wider than this, and an interval says nothing of effects such as those that are claimed.
TELLING = 0.2


@dataclass(frozen=True)
class Claim:
    """At least so much, as a ratio to what it is without: `bound`, and `less` or more than that."""

    words: str
    bound: float
    less: bool

    def judge(self, found: Interval) -> str:
        """holds, does not hold, or cannot be told: by whether the whole interval is on one side of the bound.

        >>> Claim("10 to 40 % less", 0.9, less=True).judge(Interval(0.5, 0.4, 0.6, 0.9375))
        'holds'
        """
        inside = (found.high <= self.bound) if self.less else (found.low >= self.bound)
        outside = (found.low > self.bound) if self.less else (found.high < self.bound)
        return "holds" if inside else "does not hold" if outside else "cannot be told"


# seed/000_675cf254d37ca122.txt: "CPU利用率: 提升20-30%", "内存使用: 减少15-25%", "启动时间: 减少10-40%"
START = Claim("10 to 40 % less", 0.9, less=True)
MEMORY = Claim("15 to 25 % less", 0.85, less=True)
PROCESSOR = Claim("20 to 30 % more", 1.2, less=False)
