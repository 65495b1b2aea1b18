"""`drydock bench`: a profile beside the same wheels without it, another profile, or a generation; in pairs."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from builder import secrets
from builder.build.build import build
from builder.build.script import Script, script_of, script_of_generation
from builder.check.bench.claims import MEMORY, PROCESSOR, START, TELLING, Claim
from builder.check.bench.interval import Interval, interval
from builder.check.bench.plain import plain
from builder.check.bench.run import Run, Side, measure
from builder.consent import Consent
from builder.embedded.words import plural
from builder.errors import UsageError
from builder.isolation import LEAKS
from builder.names import is_reference
from builder.profile.model import Profile
from builder.project.catalogue import Catalogue
from builder.report import Reporter
from builder.store import generations
from builder.store.layout import Store, home

PLAIN = "plain"
NEW = "the new lock"
OUTCOME = "outcome of training"
LEAST_PAIRS = 5
_NOTHING = 0.01  # a difference that nobody would call one
_NOISE = 0.25  # processors that others keep busy: from here on it is said


@dataclass(frozen=True)
class Measure:
    """One row: what was measured, its values on both sides in `unit`, one per pair, and their ratio."""

    what: str
    unit: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    claim: Claim | None = None

    @property
    def ratios(self) -> list[float]:
        """One per pair."""
        return [mine / other for mine, other in zip(self.ours, self.theirs, strict=True)]

    @cached_property
    def ratio(self) -> Interval:
        """The interval of the true ratio."""
        return interval(self.ratios)

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        if self.ratio.low <= 1 <= self.ratio.high or abs(self.ratio.median - 1) < _NOTHING:
            said = "no difference" if self.ratio.spread < TELLING else "too noisy to tell"
        else:
            said = f"{abs(self.ratio.median - 1):.0%} {'less' if self.ratio.median < 1 else 'more'}"
        return said if self.claim is None else f"{said}; claimed {self.claim.words}: {self.claim.judge(self.ratio)}"

    def as_json(self) -> dict[str, Any]:
        """All of it, for `--json`."""
        claim = self.claim.words if self.claim else None
        return {**asdict(self), "ratio": asdict(self.ratio), "claim": claim, "verdict": self.verdict}


@dataclass(frozen=True)
class Comparison:
    """All that was measured. `others` is how many processors the rest of the machine kept busy, as a median."""

    ours: str
    theirs: str
    pairs: int
    processors: int
    others: float
    measures: tuple[Measure, ...]

    @property
    def warnings(self) -> list[str]:
        """Reasons to trust the numbers less than they suggest."""
        said = []
        if self.others >= _NOISE:
            said.append(
                f"the machine was not quiet: other programs kept {self.others:.1f} of {self.processors} processors busy"
            )
        wide = [one.what for one in self.measures if one.ratio.spread >= TELLING]
        if wide:
            said.append(f"the ratios vary too much for small differences: {', '.join(wide)}; more --pairs may help")
        return said

    def as_json(self) -> dict[str, Any]:
        """All of it, for `--json`."""
        return {**asdict(self), "measures": [one.as_json() for one in self.measures], "warnings": self.warnings}


def compare(name: str, against: str, catalogue: Catalogue, report: Reporter, *, pairs: int = LEAST_PAIRS) -> Comparison:
    """Measure the profile `name` beside `against`: "plain", a profile, or a generation (NAME@N).

    Both sides run `pairs` times, alternately, and in turn one or the other first; what a plain environment does at
    its very first start, before it has bytecode, is measured too. Raises DrydockError where a side cannot be built or
    run, UsageError where the profile has no [bench].
    """
    if pairs < LEAST_PAIRS:
        raise UsageError(f"{plural(pairs, 'pair')} are too few", hint=f"at least {LEAST_PAIRS}")
    profile = catalogue.profile(name)
    build(name, catalogue, report)
    with _programs() as folder:
        workload = _workload(profile, catalogue, name, folder)
        script = script_of(name, catalogue)
        ours = _side_of_script(profile, name, script, workload)
        with _other(name, profile, against, catalogue, report, workload, script.consent) as theirs:
            rows = _in_pairs(ours, theirs, pairs, report)
    return _comparison(name, against, rows)


def compare_locks(
    name: str, old: Script, new: Script, catalogue: Catalogue, report: Reporter, *, pairs: int, place: Path | None
) -> tuple[Comparison, list[float | None], list[float | None]]:
    """Measure the profile `name` with two locks, whose environments exist: a comparison, `new` first, and what training
    came to in each run, of the new one and of the old one.

    It runs in `place`, else where we do. Raises DrydockError where a side fails, and as `compare` does.
    """
    profile = catalogue.profile(name)
    with _programs() as folder:
        workload = _workload(profile, catalogue, name, folder)
        ours, theirs = (
            replace(_side_of_script(profile, word, script, workload), folder=place)
            for word, script in ((NEW, new), ("the old lock", old))
        )
        rows = _in_pairs(ours, theirs, pairs, report)
    outcomes = [[run.outcome for run in runs] for runs in zip(*((row.ours, row.theirs) for row in rows), strict=True)]
    return _comparison(ours.name, theirs.name, rows), outcomes[0], outcomes[1]


@dataclass(frozen=True)
class _Pair:
    """`first` are the runs in which the other side had no bytecode yet; None where it always has."""

    ours: Run
    theirs: Run
    first: tuple[Run, Run] | None


def _in_pairs(ours: Side, theirs: Side, pairs: int, report: Reporter) -> list[_Pair]:
    rows = []
    # Not counted: what is on the disk comes into memory, and the other side's bytecode comes to be.
    with report.busy("one run of each, not counted"):
        for side in (ours, theirs):
            measure(side)
    for number in range(pairs):
        with report.busy(f"pair {number + 1} of {pairs}"):
            cold = None
            if theirs.name == PLAIN:
                with _empty_folder() as folder:
                    there = {**theirs.environment, "PYTHONPYCACHEPREFIX": str(folder)}
                    cold = _both(ours, replace(theirs, environment=there), swap=number % 2 == 1)
            mine, others = _both(ours, theirs, swap=number % 2 == 1)
        rows.append(_Pair(mine, others, cold))
        said = f"pair {number + 1} of {pairs}: first step after {mine.start:.2f} s, and {others.start:.2f} s"
        report.step(said if cold is None else f"{said} ({cold[1].start:.2f} s before it had bytecode)")
    return rows


def _both(ours: Side, theirs: Side, *, swap: bool) -> tuple[Run, Run]:
    if swap:
        second, first = measure(theirs), measure(ours)
        return first, second
    return measure(ours), measure(theirs)


def _comparison(name: str, against: str, rows: Sequence[_Pair]) -> Comparison:
    measures = []
    firsts = [pair.first for pair in rows if pair.first is not None]
    # Claims are about a profile and its absence.
    claimed = against == PLAIN
    if firsts:
        measures += [
            _measure("start-up, first ever", "s", firsts, "start", START),
            _measure("its processor time", "s", firsts, "start_processor"),
            _measure("peak memory, first ever", "MB", firsts, "memory", MEMORY, 1e-6),
        ]
    warm = [(pair.ours, pair.theirs) for pair in rows]
    measures += [
        _measure("start-up", "s", warm, "start", START if claimed else None),
        _measure("its processor time", "s", warm, "start_processor"),
        _measure("training", "steps/s", warm, "speed"),
        _measure("processors kept busy", "", warm, "cores", PROCESSOR if claimed else None),
        _measure("processor time of all", "s", warm, "processor"),
        _measure("peak memory", "MB", warm, "memory", MEMORY if claimed else None, 1e-6),
    ]
    runs = [run for pair in warm for run in pair]
    # What was saved may have been paid for; a ratio needs numbers above zero.
    if all(run.outcome is not None and run.outcome > 0 for run in runs):
        measures.append(_measure(OUTCOME, "", warm, "outcome"))
    others = statistics.median(run.others for run in runs)
    return Comparison(name, against, len(rows), os.cpu_count() or 1, others, tuple(measures))


def _measure(
    what: str, unit: str, pairs: Sequence[tuple[Run, Run]], field: str, claim: Claim | None = None, scale: float = 1.0
) -> Measure:
    ours = tuple(getattr(one, field) * scale for one, _ in pairs)
    theirs = tuple(getattr(other, field) * scale for _, other in pairs)
    return Measure(what, unit, ours, theirs, claim)


# --- the two sides -------------------------------------------------------------------------------------------------


@contextmanager
def _programs() -> Iterator[Path]:
    """A folder for programs that are no part of an environment."""
    (home() / "cache").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home() / "cache", prefix="workload-") as folder:
        yield Path(folder)


def _workload(profile: Profile, catalogue: Catalogue, name: str, folder: Path) -> Path | None:
    """The program of [bench], put into `folder`; None where the trainer itself is run."""
    file = profile.bench.file if profile.bench is not None else None
    if file is None:
        return None
    path = folder / Path(file).name
    path.write_text(catalogue.texts(name)[file], encoding="utf-8")
    return path


def _chosen(profile: Profile) -> list[str]:
    """The arguments of the modes that the variables of a profile ask for: only its script gives them to its trainer."""
    asked = ((modes, profile.env[name].text) for name, modes in profile.trainer.modes.items() if name in profile.env)
    return [word for modes, value in asked if value in modes for word in modes[value].arguments]


@contextmanager
def _other(
    ours: str,
    profile: Profile,
    against: str,
    catalogue: Catalogue,
    report: Reporter,
    workload: Path | None,
    consent: Consent,
) -> Iterator[Side]:
    """The other side."""
    if against == PLAIN:
        with plain(catalogue.plan(ours), consent, report) as folder:
            yield _plain_side(profile, folder, workload, consent)
        return
    name, mark, number = against.rpartition("@")
    if mark and is_reference(name):
        found = generations.numbered(name, number)
        if not Store.here().is_built(found.store_name):
            raise UsageError(f"the environment of {against} does not exist", hint=f"sh {found.script} --build-only")
        yield _side_of_script(profile, against, script_of_generation(found, name, catalogue), workload)
        return
    other = catalogue.profile(against)
    build(against, catalogue, report)
    yield _side_of_script(other, against, script_of(against, catalogue), workload)


def _side_of_script(profile: Profile, name: str, script: Script, workload: Path | None) -> Side:
    bench = profile.bench
    if bench is None:
        raise UsageError(
            f"{profile.name} has no [bench]",
            hint='add [bench] arguments = ["--steps", "40"]: so that its trainer ends soon',
        )
    words = ["--", *bench.arguments]
    if workload is not None:
        words = ["--shell", "--", "python", str(workload), *_chosen(profile), *bench.arguments]
    return Side(name, script.command(*words), _environment(), bench.step, bench.outcome, script.consent)


def _plain_side(profile: Profile, folder: Path, workload: Path | None, consent: Consent) -> Side:
    bench, trainer = profile.bench, profile.trainer
    unknown = trainer.options or any(not isinstance(one, str) for one in trainer.arguments)
    if bench is None or (workload is None and unknown):
        raise UsageError(
            f"the trainer of {profile.name} has arguments that only its script can detect",
            hint="compare with a profile or a generation: --against NAME",
        )
    binaries = folder / "env" / "bin"
    if workload is not None:
        command = [str(binaries / "python"), str(workload)]
    elif trainer.file is not None:
        command = [str(binaries / "python"), str(folder / "parts" / trainer.file)]
    else:
        command = list(trainer.command or ())
        command[0] = str(binaries / command[0]) if (binaries / command[0]).exists() else command[0]
    if workload is None:
        command += [str(one) for one in trainer.arguments]
    environment = {
        name: value for name, value in _environment().items() if name not in LEAKS and name not in profile.env
    }
    environment["PATH"] = f"{binaries}{os.pathsep}{environment.get('PATH', os.defpath)}"
    return Side(PLAIN, [*command, *bench.arguments], environment, bench.step, bench.outcome, consent)


def _environment() -> Mapping[str, str]:
    """Ours, with the secrets. Bytecode is part of how Python starts, wherever a developer has not switched it off."""
    environment, _ = secrets.environment(())
    return {name: value for name, value in environment.items() if name != "PYTHONDONTWRITEBYTECODE"}


@contextmanager
def _empty_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=home() / "cache", prefix="bytecode-", ignore_cleanup_errors=True) as it:
        yield Path(it)
