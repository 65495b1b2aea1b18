"""Finds what between two locks of a profile breaks a test, or its proofs.

Each mixture of the two locks that is tried fits together (builder/check/bisect/sets.py), and is built in the store
beside all others: what they share is linked. Both locks are tried first, twice each, as a test that is not the same
twice finds nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.metadata import Metadata
from packaging.requirements import Requirement

from builder import process, secrets
from builder.build.candidate import Candidate, candidate
from builder.check.bisect.memory import Answer, Memory, recall
from builder.check.bisect.search import search
from builder.check.bisect.sets import Mixture, Requirements, mixture, needs
from builder.embedded.installed import distributions, site_packages
from builder.embedded.words import plural
from builder.errors import BuildError, DrydockError, LockError, ToolError, UsageError
from builder.files import is_there
from builder.lock.model import Change, Lock, dump
from builder.profile import markers
from builder.project import direct
from builder.project.refs import side

if TYPE_CHECKING:
    from builder.project.catalogue import Catalogue, Entry
    from builder.report import Reporter

SKIP = 125
"""Exit status of a test that says that it cannot be told here, as `git bisect run` has it."""

_AGAIN, _PATIENCE = 3, 300.0
"""How often the test runs again on both sides of what was found; more than once for that many seconds."""

LONGEST = 1800.0
"""Seconds that a test may take."""


@dataclass(frozen=True)
class Bisected:
    """What breaks the test: all `culprits` together; each is one change, or several that could not be told apart.

    `needed` are the changes that come with them, as nothing else fits. `words` is the last line of the test that fails.
    `builds` are the environments that were built beside those of the two locks, `runs` the runs of the test.
    """

    culprits: tuple[tuple[Change, ...], ...]
    needed: tuple[Change, ...]
    words: str
    changed: int
    builds: int
    runs: int

    def as_json(self) -> dict[str, Any]:
        """It in plain JSON types."""
        return {
            "culprits": [[one.model_dump() for one in group] for group in self.culprits],
            "needed": [one.model_dump() for one in self.needed],
            "words": self.words,
            "changed": self.changed,
            "builds": self.builds,
            "runs": self.runs,
        }

    def lines(self) -> list[str]:
        """It in words."""
        found = []
        for number, group in enumerate(self.culprits):
            head = "broken by" if number == 0 else "together with"
            found += [f"{head} one of:"] if len(group) > 1 else []
            found += [f"  {one}" if len(group) > 1 else f"{head}: {one}" for one in group]
        found += [f"  which needs: {one}" for one in self.needed]
        return [*found, f"the test then says: {self.words}"]


def bisect(
    name: str,
    good: str,
    bad: str,
    test: Sequence[str],
    catalogue: Catalogue,
    report: Reporter,
    *,
    timeout: float = LONGEST,
    reset: bool = False,
) -> Bisected:
    """Find what between the locks `good` and `bad` of the profile `name` makes `test` fail; without one, its proofs.

    A lock is a profile's, a file, or one in git: HEAD~5, or HEAD~5:NAME. Raises DrydockError where the test does not
    pass with the good lock and fail with the bad one, each time.
    """
    entry = catalogue.entry(name)
    locks = [_lock(word, entry, catalogue, report) for word in (good, bad)]
    mixed = mixture(*locks)
    if not mixed.names:
        raise UsageError(f"{good} and {bad} have the same packages", hint="name two locks that differ")
    ends = [candidate(entry, mixed.lock(chosen)) for chosen in ((), mixed.names)]
    deciding = [*map(dump, locks), *(end.script.path.name + str(end.script.path.parent) for end in ends)]
    memory = recall([*deciding, str(Path.cwd()), str(timeout), *test])
    if reset:
        memory.forget()
        memory = Memory(memory.path)
    elif memory.answers:
        report.step(f"going on with {plural(len(memory.answers), 'answer')} from before; to begin anew: --reset")
    report.step(f"{plural(len(mixed.names), 'difference')} between {good} and {bad}")
    for end, word, lock in zip(ends, (good, bad), locks, strict=True):
        try:
            direct.provide(entry, end.script.consent, report.step, lock=lock)
            end.build(report)
        except BuildError as error:
            error.message = f"the environment of {word} cannot be built: {error.message}"
            raise
    found = _Search(entry, mixed, test, timeout, memory, report)
    found.check_end(good, frozenset(), "pass")
    found.check_end(bad, frozenset(mixed.names), "fail")
    return found.result(_needs(entry, mixed, ends))


def _lock(word: str, entry: Entry, catalogue: Catalogue, report: Reporter) -> Lock:
    """The lock that `word` means. Raises DrydockError."""
    known = is_there(Path(word)) or ":" in word or word.rpartition("@")[0] in catalogue.names()
    is_revision = not known and word not in catalogue.names()
    lock = side(f"{word}:{entry.name}" if is_revision else word, catalogue, report).lock
    if lock is None:
        raise UsageError(
            f"{word} does not have its whole lock", hint=f"name a lock file, or one in git: HEAD~5, HEAD~5:{entry.name}"
        )
    if lock.profile != entry.plain:
        raise LockError(f"{word} is the lock of {lock.profile}, and not of {entry.name}")
    return lock


def _needs(entry: Entry, mixed: Mixture, ends: Sequence[Candidate]) -> dict[str, frozenset[str]]:
    profile = entry.profile
    old, new = (_requirements(site_packages(end.path)) for end in ends)
    asked = [Requirement(text) for text in profile.packages.requires]
    return needs(mixed, old, new, asked, markers.environment(profile.target, profile.python.series))


def _requirements(site: Path) -> Requirements:
    """What the packages of an environment require."""
    return {
        name: Metadata.from_email((info / "METADATA").read_bytes(), validate=False).requires_dist or []
        for name, info in distributions(site).items()
    }


class _Search:
    """One search: mixtures are built, tested and remembered."""

    def __init__(
        self, entry: Entry, mixed: Mixture, test: Sequence[str], timeout: float, memory: Memory, report: Reporter
    ) -> None:
        self._entry = entry
        self._mixed = mixed
        self._test = test
        self._timeout = timeout
        self._memory = memory
        self._report = report
        self._words = " ".join(test) if test else "its proofs"

    def check_end(self, word: str, chosen: frozenset[str], wanted: str) -> None:
        """Raise DrydockError where the test does not do with a lock itself what it must, twice."""
        known = self._memory.answers.get(_key(chosen))
        if known is None:
            first, second = (self._run(chosen) for _ in range(2))
            if first.outcome != second.outcome:
                raise self._flaky(word, first, second)
            known = first
        if known.outcome != wanted:
            does = {"pass": "passes", "fail": "fails", "skip": "cannot be told"}[known.outcome]
            self._memory.forget()
            raise DrydockError(
                f"the test {does} with the {'good' if wanted == 'pass' else 'bad'} lock, {word}: {known.words}",
                hint="it must pass with --good and fail with --bad; -- TEST names another test",
            )
        self._remember(chosen, known)
        self._report.step(f"{word}: {known.outcome}")

    def result(self, rules: dict[str, frozenset[str]]) -> Bisected:
        """Search, and run the test again on both sides of what was found. Raises DrydockError where it differs."""
        found = search(rules, lambda chosen: self._ask(chosen).outcome)
        began, sides = time.monotonic(), ((found.failing, "fail"), (found.passing, "pass"))
        for number, (chosen, wanted) in enumerate(sides * _AGAIN):
            if number >= len(sides) and time.monotonic() - began > _PATIENCE:
                break
            before, again = self._memory.answers[_key(chosen)], self._run(chosen)
            if before.outcome == wanted != again.outcome:
                self._memory.forget()
                raise self._flaky(f"{plural(len(chosen), 'change')} of {self._name_some(chosen)}", before, again)
        self._memory.forget()
        culprits = frozenset[str]().union(*found.culprits)
        return Bisected(
            tuple(tuple(self._mixed.change(name) for name in sorted(group)) for group in found.culprits),
            tuple(self._mixed.change(name) for name in sorted(found.failing - culprits)),
            self._memory.answers[_key(found.failing)].words,
            len(self._mixed.names),
            self._memory.builds,
            self._memory.runs,
        )

    def _ask(self, chosen: frozenset[str]) -> Answer:
        known = self._memory.answers.get(_key(chosen))
        if known is not None:
            return known
        try:
            with self._report.busy(f"trying {plural(len(chosen), 'change')} of {len(self._mixed.names)}"):
                self._memory.builds += candidate(self._entry, self._mixed.lock(chosen)).build(self._report)
                answer = self._run(chosen)
        except BuildError as error:
            answer = Answer("skip", f"it cannot be built: {error.message}")
        self._remember(chosen, answer)
        number = len(self._memory.answers) - 2
        self._report.step(f"try {number}: {answer.outcome} with {self._name_some(chosen)}: {answer.words}")
        return answer

    def _run(self, chosen: frozenset[str]) -> Answer:
        """Run the test, or the proofs, with a mixture that is built."""
        tried = candidate(self._entry, self._mixed.lock(chosen))
        self._memory.runs += 1
        try:
            return self._tested(tried) if self._test else self._proved(tried)
        except ToolError:
            return Answer("fail", f"it did not end within {self._timeout:g} s")

    def _proved(self, tried: Candidate) -> Answer:
        bad = tried.verify(self._timeout)
        return Answer("fail", bad[-1][:500]) if bad else Answer("pass", "all that drydock verify looks at is good")

    def _tested(self, tried: Candidate) -> Answer:
        environment, names = secrets.environment(self._test)
        done = process.run(tried.script.command("--shell", "--", *self._test), env=environment, timeout=self._timeout)
        if done.code == SKIP:
            return Answer("skip", f"exit status {SKIP}")
        lines = ((done.stderr if done.code else "").strip() or done.stdout.strip()).splitlines()
        words = lines[-1] if lines else f"exit status {done.code}, and no output"
        return Answer("fail" if done.code else "pass", secrets.redacted(words, environment, names)[:500])

    def _remember(self, chosen: frozenset[str], answer: Answer) -> None:
        self._memory.answers[_key(chosen)] = answer
        self._memory.save()

    def _name_some(self, chosen: frozenset[str]) -> str:
        some = sorted(chosen)[:4]
        return ", ".join(some) + (f" and {len(chosen) - 4} more" if len(chosen) > len(some) else "") or "none"

    def _flaky(self, what: str, first: Answer, second: Answer) -> DrydockError:
        return DrydockError(
            f"the test is flaky: with {what} it says {first.outcome}, and then {second.outcome} "
            f"({first.words}; {second.words})",
            hint="make it the same each time: a seed, one thread, no network; or try it several times in one test",
        )


def _key(chosen: frozenset[str]) -> str:
    return " ".join(sorted(chosen))
