"""Tries an upgrade before it is kept: the new lock is built beside, and must do what the old one does.

The environment of each lock is in the store, and neither becomes a generation; the lock of the profile is written at
the very end, where all has held. What each has to show:

    lock        it resolves, and each patch fits
    build       it can be built
    verify      files, machine and accelerator, and the proofs of the patches
    resume      the trainer goes on from a checkpoint ([supervise.resume])
    loss        what training comes to, within a band around what it came to before ([bench])
    speed       steps a second, not less than before but for a limit
    memory      the peak, not more than before but for a limit
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from builder.build.candidate import Candidate, candidate
from builder.check.bench.compare import LEAST_PAIRS, NEW, OUTCOME, Comparison, compare_locks
from builder.check.prove.place import workplace
from builder.check.prove.resume import resumes
from builder.errors import DrydockError, LockError, PatchError, ToolError, Where
from builder.files import display, write_atomically
from builder.lock.model import Lock, dump
from builder.project import direct, undo
from builder.project.lock import lock_of_variant, relock

if TYPE_CHECKING:
    from builder.check.bench.compare import Measure
    from builder.profile.model import Patch, Profile
    from builder.project.catalogue import Catalogue, Entry
    from builder.report import Reporter

LONGEST = 1800.0
"""Seconds that a proof, or a run of the trainer for a checkpoint, may take: with an untried release it may hang."""


class Limits(NamedTuple):
    """How far an upgrade may be from what was before, as shares: of loss up or down, of speed down, of memory up."""

    loss: float = 0.05
    speed: float = 0.1
    memory: float = 0.1


LIMITS = Limits()


class Proof(NamedTuple):
    """One thing that was looked at: whether it holds, None where it could not be looked at, and in words."""

    what: str
    good: bool | None
    words: str


@dataclass
class Proven:
    """An upgrade that was tried. `new` is None where none could be locked; `kept` says whether it was written."""

    name: str
    old: Lock
    new: Lock | None = None
    kept: bool = False
    proofs: list[Proof] = field(default_factory=list)
    measured: Comparison | None = None

    @property
    def is_upgrade(self) -> bool:
        """Whether there is anything newer."""
        return self.new is None or dump(self.new) != dump(self.old)

    @property
    def failed(self) -> list[Proof]:
        """What does not hold."""
        return [proof for proof in self.proofs if proof.good is False]


def prove(
    name: str,
    catalogue: Catalogue,
    report: Reporter,
    *,
    upgrade: Sequence[str] = (),
    upgrade_all: bool = False,
    dry_run: bool = False,
    limits: Limits = LIMITS,
) -> Proven:
    """Try an upgrade of the profile `name`, and write its lock only where all holds.

    Raises DrydockError where the old lock does not do itself what the new one must, or was written meanwhile.
    """
    entry = catalogue.entry(name)
    entry.check_lockable()
    old, text = entry.lock, undo.text_of(entry.lock_path)
    found = Proven(name, old)
    before = candidate(entry, old)
    direct.provide(entry, before.script.consent, report.step, lock=old)
    before.build(report)
    try:
        found.new = relock(name, catalogue, report, upgrade=upgrade, upgrade_all=upgrade_all, dry_run=True).lock
    except (LockError, PatchError) as error:
        found.proofs.append(Proof("lock", False, error.message))
        return found
    if not found.is_upgrade:
        return found
    _try(found, before, entry, catalogue, report, limits)
    if not found.failed and not dry_run:
        _write(entry, found.new, text)
        found.kept = True
    return found


def prove_release(
    name: str, patch: Patch, version: str, catalogue: Catalogue, report: Reporter, *, patched: bool
) -> list[Proof]:
    """Try a release of the package that `patch` is for, with it or without it; nothing is written.

    Everything else stays as it is locked, as far as it fits. Raises DrydockError as `prove` does.
    """
    entry = catalogue.entry(name)
    found = Proven(name, entry.plan.lock)
    before = candidate(entry, found.old)
    direct.provide(entry, before.script.consent, report.step, lock=found.old)
    before.build(report)
    profile = _with_release(entry.profile, patch, version, patched=patched)
    try:
        found.new = lock_of_variant(entry, profile, [patch.package], report)
    except (LockError, PatchError) as error:
        return [Proof("lock", False, error.message)]
    _try(found, before, entry, catalogue, report, LIMITS)
    return found.proofs


def _with_release(profile: Profile, patch: Patch, version: str, *, patched: bool) -> Profile:
    """A profile that requires a release, of whatever day, with a patch that is for it, or without it."""
    packages = profile.packages
    others = [text for text in packages.requires if canonicalize_name(Requirement(text).name) != patch.package]
    overrides = [
        one for one in packages.overrides if canonicalize_name(Requirement(one.requirement).name) != patch.package
    ]
    packages = packages.model_copy(
        update={
            "requires": [*others, f"{patch.package}=={version}"],
            "overrides": overrides,
            "exclude_newer_package": {**packages.exclude_newer_package, patch.package: False},
        }
    )
    patches = [
        one.model_copy(update={"versions": f"=={version}"}) if one.package == patch.package else one
        for one in profile.patches
        if patched or one.file != patch.file
    ]
    return profile.model_copy(update={"packages": packages, "patches": patches})


def _try(
    found: Proven, before: Candidate, entry: Entry, catalogue: Catalogue, report: Reporter, limits: Limits
) -> None:
    """Look at what the new lock of `found` has to show."""
    if found.new is None:
        return
    trial = _Trial(entry, before, candidate(entry, found.new), catalogue, report, limits)
    for proof in trial.proofs():
        report.step(f"{_MARKS[proof.good]} {proof.what}: {proof.words}")
        found.proofs.append(proof)
    found.measured = trial.measured


_MARKS = {True: "ok  ", False: "FAIL", None: "skip"}


def _write(entry: Entry, lock: Lock, before: str | None) -> None:
    """Write the lock, where it is as it was when all this began."""
    path = entry.lock_path
    where = Where(display(path))
    if undo.text_of(path) != before:
        raise LockError("the lock was changed while its upgrade was tried, and is left as it is", where=where)
    try:
        write_atomically(path, dump(lock))
    except OSError as error:
        raise LockError(f"the lock cannot be written: {error.strerror}", where=where) from None


class _Trial:
    """An upgrade that is tried: what it has to show, one after the other, until something does not hold."""

    def __init__(
        self, entry: Entry, old: Candidate, new: Candidate, catalogue: Catalogue, report: Reporter, limits: Limits
    ) -> None:
        self._entry = entry
        self._old = old
        self._new = new
        self._catalogue = catalogue
        self._report = report
        self._limits = limits
        self.measured: Comparison | None = None

    def proofs(self) -> Iterator[Proof]:
        """What was looked at; nothing after what does not hold, as it costs more the later it comes."""
        for look in (self._build, self._verify, self._resume, self._measure):
            good = True
            for proof in look():
                yield proof
                good = good and proof.good is not False
            if not good:
                return

    def _build(self) -> Iterator[Proof]:
        try:
            self._new.build(self._report)
        except DrydockError as error:
            yield Proof("build", False, error.message)
            return
        yield Proof("build", True, self._new.plan.store_name)

    def _verify(self) -> Iterator[Proof]:
        for side, words in ((self._old, "the old lock"), (self._new, "the new lock")):
            with self._report.busy(f"verifying {words}"):
                try:
                    bad = side.verify(LONGEST)
                except ToolError as error:
                    bad = [error.message]
            if bad and side is self._old:
                raise self._of_old(f"cannot be verified: {'; '.join(bad)}")
        without = f"; without their patch: {', '.join(self._new.left)}" if self._new.left else ""
        yield Proof("verify", not bad, "; ".join(bad) or f"files, machine, accelerator and proofs{without}")

    def _resume(self) -> Iterator[Proof]:
        bench = self._entry.profile.bench
        missing = "[supervise.resume]" if self._entry.profile.supervise.resume is None else "[bench] of its trainer"
        if self._entry.profile.supervise.resume is None or bench is None or bench.file is not None:
            yield Proof("resume", None, f"the profile has no {missing}")
            return
        for side in (self._old, self._new):
            with workplace(self._entry.profile) as place, self._report.busy("killing the trainer, to see it resume"):
                found = resumes(self._entry, side.script, place, LONGEST)
            if side is self._old and found.good is False:
                raise self._of_old(f"does not resume: {found.words}")
            if side is self._old and found.good is None:
                yield Proof("resume", None, found.words)
                return
        yield Proof("resume", found.good is True, found.words)

    def _measure(self) -> Iterator[Proof]:
        if self._entry.profile.bench is None:
            yield Proof("training", None, "the profile has no [bench]")
            return
        measure: Callable[..., tuple[Comparison, list[float | None], list[float | None]]] = partial(
            compare_locks, self._entry.name, self._old.script, self._new.script, self._catalogue, self._report
        )
        with workplace(self._entry.profile) as place:
            try:
                self.measured, new, old = measure(pairs=LEAST_PAIRS, place=place)
            except DrydockError as error:
                if not error.message.startswith(NEW):
                    raise
                yield Proof("training", False, error.message)
                return
        rows = {one.what: one for one in self.measured.measures}
        yield self._loss(rows.get(OUTCOME), new, old)
        limits = self._limits
        yield _within("speed", rows["training"], 1 - limits.speed, None)
        yield _within("memory", rows["peak memory"], None, 1 + limits.memory)

    def _loss(self, row: Measure | None, new: Sequence[float | None], old: Sequence[float | None]) -> Proof:
        if row is not None:
            return _within("loss", row, 1 - self._limits.loss, 1 + self._limits.loss)
        if all(one is None for one in old):
            return Proof("loss", None, "the trainer prints none that [bench] outcome finds")
        if any(one is None or not one > 0 for one in old):
            return Proof("loss", None, f"that of the old lock is no measure: {_numbers(old)}")
        return Proof("loss", False, f"{_numbers(new)}; it was {_numbers(old)}")

    def _of_old(self, words: str) -> DrydockError:
        return DrydockError(
            f"the lock of {self._entry.name} as it is {words}",
            hint="nothing was changed; an upgrade is compared with what works: repair that first",
        )


def _within(what: str, row: Measure, least: float | None, most: float | None) -> Proof:
    """Whether the median of a ratio, new to old, is within its bounds."""
    ratio = row.ratio.median
    bounds = [f"at least {least:.2f}" if least is not None else "", f"at most {most:.2f}" if most is not None else ""]
    good = (least is None or ratio >= least) and (most is None or ratio <= most)
    return Proof(what, good, f"{row.ratio} times the old one; allowed is {' and '.join(filter(None, bounds))}")


def _numbers(values: Sequence[float | None]) -> str:
    return ", ".join(dict.fromkeys("none" if one is None else f"{one:g}" for one in values))
