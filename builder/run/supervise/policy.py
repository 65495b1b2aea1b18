"""Decisions after a trainer has ended. Pure: exit status, last lines, clock and history in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from builder.embedded.resume import Resume

_LONGEST_LINE = 2000  # a pattern looks no further: a line may be a megabyte of progress bar


@dataclass(frozen=True)
class Case:
    """One reason to start again: an exit status of `codes`, or a last line in which one of `patterns` is found."""

    name: str
    codes: tuple[int, ...] = ()
    patterns: tuple[str, ...] = ()

    def fits(self, code: int, lines: Sequence[str]) -> bool:
        """Whether an exit is of this case."""
        if code in self.codes:
            return True
        return any(re.search(pattern, line[:_LONGEST_LINE]) for pattern in self.patterns for line in lines)


@dataclass(frozen=True)
class Guard:
    """How much memory a trainer may use: the shares `resident` and `swap` of `memory`, which is in bytes.

    `swap` is by how much the machine's may grow from the start of the trainer. `advice` is what to change.
    """

    memory: int
    resident: float
    swap: float
    advice: str

    def exceeded(self, resident: int, swap_grown: int) -> str | None:
        """Return what exceeds the limits, in words; sizes in bytes.

        >>> Guard(16 * 10**9, 0.9, 0.25, "").exceeded(15 * 10**9, 0)
        'the trainer holds 15.0 GB of the 14.4 GB that memory-guard.resident = 0.9 allows'
        """
        for what, size, share, key in (
            ("the trainer holds", resident, self.resident, "resident"),
            ("swap has grown by", swap_grown, self.swap, "swap"),
        ):
            if size > share * self.memory:
                allowed = share * self.memory / 1e9
                return f"{what} {size / 1e9:.1f} GB of the {allowed:.1f} GB that memory-guard.{key} = {share:g} allows"
        return None


@dataclass(frozen=True)
class Policy:
    """All that a profile says of supervision; all times in seconds.

    The first wait is `backoff`, each further one is twice as long, up to `longest`. A run of `healthy` or more begins
    that anew. There are at most `budget` restarts in any `window`. A trainer that is to end is killed after `grace`.
    What it uses is written down `sample_every` so often. A log has `log_size` bytes, and `log_files` older ones are
    kept. `guard` is of the memory of this machine. `resume` says where checkpoints are. `losses` has patterns by name.
    """

    cases: tuple[Case, ...] = ()
    backoff: float = 5.0
    longest: float = 300.0
    healthy: float = 600.0
    budget: int = 10
    window: float = 3600.0
    grace: float = 30.0
    sample_every: float = 5.0
    log_size: int = 10**7
    log_files: int = 5
    guard: Guard | None = None
    resume: Resume | None = None
    losses: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Policy:
        """The policy that `dataclasses.asdict` made plain data of."""
        cases = (Case(one["name"], tuple(one["codes"]), tuple(one["patterns"])) for one in data["cases"])
        guard = None if data["guard"] is None else Guard(**data["guard"])
        resume = None if data["resume"] is None else Resume.of(data["resume"])
        return cls(**{**data, "cases": tuple(cases), "guard": guard, "resume": resume})


@dataclass(frozen=True)
class History:
    """What came before: `failures` in a row, and when there was a restart, within the window."""

    failures: int = 0
    restarts: tuple[float, ...] = ()


@dataclass(frozen=True)
class Done:
    """The trainer has done its work."""


@dataclass(frozen=True)
class GiveUp:
    """It is not restarted; `why` is the reason."""

    why: str


@dataclass(frozen=True)
class Restart:
    """It is restarted `after` so many seconds, because of `why`."""

    after: float
    why: str
    history: History = field(default_factory=History)


Decision = Done | GiveUp | Restart


def decide(code: int, lines: Sequence[str], lasted: float, now: float, history: History, policy: Policy) -> Decision:
    """Return the decision after an exit with the status `code`, as of a shell, of a run that `lasted` so many seconds.

    >>> policy = Policy((Case("out-of-memory", patterns=("OutOfMemoryError",)),), backoff=5)
    >>> decide(1, ["torch.OutOfMemoryError: ..."], 60, 100, History(failures=1), policy).after
    10.0
    """
    if code == 0:
        return Done()
    case = next((case for case in policy.cases if case.fits(code, lines)), None)
    if case is None:
        return GiveUp("no restart case of the profile matches")
    failures = 0 if lasted >= policy.healthy else history.failures
    after = min(policy.backoff * 2.0 ** min(failures, 60), policy.longest)
    recent = tuple(time for time in history.restarts if time > now + after - policy.window)
    if len(recent) >= policy.budget:
        return GiveUp(f"{case.name}, and the budget of {policy.budget} restarts in {policy.window:g} s is used up")
    return Restart(after, case.name, History(failures + 1, (*recent, now + after)))
