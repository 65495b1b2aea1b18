"""The search: which changes make a test fail, in as few tests as it takes. Pure.

With n changes, one culprit is found in log2(n) tests and one more, which shows that it is alone; each further one that
it fails together with takes as many again. This is binary search for the shortest failing beginning of a list, repeated
with what was found before put in front (the idea of QuickXplain: Junker, 2004).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["pass", "fail", "skip"]
Ask = Callable[[frozenset[str]], Outcome]
"""The outcome of a test with a set of changes; `skip` where that cannot be found out."""


@dataclass(frozen=True)
class Found:
    """The changes that make the test fail together, each alone in its group where it could be told from the others.

    `failing` is the smallest set of changes that fails, with what the culprits need; `passing` one that lacks a
    culprit and passes.
    """

    culprits: tuple[frozenset[str], ...]
    failing: frozenset[str]
    passing: frozenset[str]


def groups(needs: Mapping[str, frozenset[str]]) -> list[frozenset[str]]:
    """What can only change together, in an order in which all that a group needs comes before it.

    >>> [sorted(one) for one in groups({"a": frozenset("ab"), "b": frozenset("b"), "c": frozenset("c")})]
    [['b'], ['c'], ['a']]
    """
    found = {frozenset(other for other in needs[name] if name in needs[other]) for name in needs}
    return sorted(found, key=lambda group: (len(needs[min(group)]), min(group)))


def search(needs: Mapping[str, frozenset[str]], ask: Ask) -> Found:
    """The changes that make the test fail, where it passes with none of them and fails with all.

    >>> every = {name: frozenset(name) for name in "abcdefgh"}
    >>> [sorted(one) for one in search(every, lambda chosen: "fail" if chosen >= {"c", "f"} else "pass").culprits]
    [['f'], ['c']]
    """
    left = groups(needs)
    fixed: frozenset[str] = frozenset()
    culprits: list[frozenset[str]] = []
    while True:
        low, high = _boundary(left, fixed, ask)
        passing = fixed.union(*left[:low])
        culprit = frozenset[str]().union(*left[low:high])
        culprits.append(culprit)
        fixed = fixed.union(*(needs[name] for name in culprit))
        left = [group for group in left[:low] if not group <= fixed]
        if not left or ask(fixed) == "fail":
            return Found(tuple(culprits), fixed, passing)


def _boundary(left: Sequence[frozenset[str]], fixed: frozenset[str], ask: Ask) -> tuple[int, int]:
    """How many groups pass, together with what is `fixed`, and how many fail: one more, where all can be tested."""
    low, high, skipped = 0, len(left), set[int]()
    while open_ := [number for number in range(low + 1, high) if number not in skipped]:
        middle = min(open_, key=lambda number: (abs(2 * number - low - high), number))
        outcome = ask(fixed.union(*left[:middle]))
        if outcome == "skip":
            skipped.add(middle)
        elif outcome == "fail":
            high = middle
        else:
            low = middle
    return low, high
