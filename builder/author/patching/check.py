"""Whether patches are still needed by newer releases of their packages.

`--json` prints a list of objects; their keys stay as they are:

    profile, package, version, patch    whose patch it is, of which locked release
    verdict                             broken: it does not do what it must for the locked release
                                        needless: its proof passes without it in the newest release
                                        needed: the newest release needs it, and its lines are there
                                        outdated: the newest release needs it, and its lines are not there any more
                                        unknown: what the newest release makes of it could not be found out
    newest                              the newest release; null where it is not known
    applies-through                     the last release that has the lines which it changes; null likewise
    applies-unchanged-through           the last one that has them where they were, as a build wants them
    needless-from                       the first release in which its proof passes without it; null where none is known
    notes                               what else there is to know, for people
    tried                               what --prove has tried: {"version", "patched", "holds", "proofs"}, where each
                                        proof is {"what", "holds", "found"}; left out where nothing was
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

from packaging.markers import default_environment
from packaging.metadata import Metadata
from packaging.utils import canonicalize_name

from builder.author.patching.trial import Trial, trial
from builder.consent import Consent
from builder.embedded.hashes import sha256
from builder.embedded.installed import distributions
from builder.embedded.patches import FilePatch, apply_hunks, parse_patch, reverse
from builder.errors import LockError, ToolError
from builder.lock.finder import Artefacts
from builder.lock.model import Artefact
from builder.machine import detect, fit
from builder.profile.model import Patch
from builder.profile.target import Match
from builder.project.catalogue import Catalogue
from builder.project.sources import consent
from builder.report import Reporter
from builder.script.plan import Plan

Verdict = Literal["broken", "needless", "needed", "outdated", "unknown"]


@dataclass
class Outlook:
    """The outlook of one patch of a profile; the fields are those of `--json`."""

    profile: str
    package: str
    version: str
    patch: str
    verdict: Verdict = "unknown"
    newest: str | None = None
    applies: str | None = None
    unchanged: str | None = None
    needless: str | None = None
    notes: list[str] = field(default_factory=list)
    runs_here: bool = True
    """Whether what is in the environment can run on this machine."""
    tried: dict[str, Any] | None = None

    @property
    def to_try(self) -> tuple[str, bool] | None:
        """The release to try in the whole environment, and whether with the patch: the newest where it is needless,
        else the last one that it fits; None where there is none.
        """
        if not self.runs_here or self.verdict == "broken":
            return None
        if self.verdict == "needless" and self.newest is not None:
            return self.newest, False
        return (self.unchanged, True) if self.unchanged not in (None, self.version) else None

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {
            "profile": self.profile,
            "package": self.package,
            "version": self.version,
            "patch": self.patch,
            "verdict": self.verdict,
            "newest": self.newest,
            "applies-through": self.applies,
            "applies-unchanged-through": self.unchanged,
            "needless-from": self.needless,
            "notes": self.notes,
            **({"tried": self.tried} if self.tried is not None else {}),
        }

    def lines(self) -> Iterator[str]:
        """The answer for people: a line, and one for each note."""
        told = []
        if self.applies:
            moved = f" (to other lines after {self.unchanged})" if self.unchanged != self.applies else ""
            told.append(f"applies through {self.applies}{moved}")
        told += [f"needless from {self.needless}"] if self.needless else []
        told += [f"newest {self.newest}"] if self.newest else []
        told[:0] = [f"{self.package} {self.version}"]
        yield f"{self.verdict:<8}  {self.profile} {self.patch}: {', '.join(told)}"
        yield from (f"            {note}" for note in self.notes)
        if self.tried is not None:
            bad = [f"{one['what']}: {one['found']}" for one in self.tried["proofs"] if one["holds"] is False]
            how = f"{self.package} {self.tried['version']} {'with' if self.tried['patched'] else 'without'} it"
            held = ", ".join(one["what"] for one in self.tried["proofs"] if one["holds"])
            yield f"            {how} {f'does not hold: {bad[0]}' if bad else f'holds: {held}'}"


def check(name: str, catalogue: Catalogue, report: Reporter) -> Iterator[Outlook]:
    """The outlook of each patch of the profile `name`.

    The newest release is looked at first, then likely ones, then halves: what holds for one is taken to hold for those
    between it and the locked one. Raises ProfileError, LockError, and ConsentError where nobody has agreed yet to run
    the proofs.
    """
    entry = catalogue.entry(name)
    plan = entry.plan
    if not plan.profile.patches:
        report.step(f"{name} has no patches")
        return iter(())
    return _outlooks(plan, consent.check(name, entry.content), report)


def _outlooks(plan: Plan, agreed: Consent, report: Reporter) -> Iterator[Outlook]:
    with tempfile.TemporaryDirectory(prefix="drydock-patch-") as work, ExitStack() as stack:
        files = Artefacts(plan.profile, Path(work), agreed)
        trials = cache(lambda: stack.enter_context(trial(plan, files, agreed)))
        for patch in plan.profile.patches:
            with report.busy(f"checking {patch.file} of {plan.profile.name}"):
                found = _Question(plan, patch, files, trials, report).answer()
            yield found


class _Question:
    """The questions about one patch, and their answer."""

    def __init__(
        self, plan: Plan, patch: Patch, files: Artefacts, trials: Callable[[], Trial], report: Reporter
    ) -> None:
        self._plan = plan
        self._patch = patch
        self._files = files
        self._trials = trials
        self._report = report
        self._locked = next(package for package in plan.lock.packages if package.name == patch.package)
        self._pins = [pin for pin in plan.lock.patches if pin.package == patch.package]
        self._parsed = parse_patch(plan.texts[patch.file])
        self._releases: dict[str, Artefact] = {self._locked.version: self._locked}
        self._fits = cache(self._fit)
        self._passes = cache(self._ask)

    def answer(self) -> Outlook:
        locked = self._locked.version
        found = Outlook(self._plan.profile.name, self._patch.package, locked, self._patch.file)
        found.runs_here = not self._elsewhere
        try:
            broken = self._broken()
        except ToolError as error:
            found.notes.append(_error_text(error))
            return found
        found.notes += broken
        found.verdict = "broken" if broken else "unknown"
        try:
            self._look_ahead(found)
        except (ToolError, LockError) as error:
            found.notes.append(f"newer releases are not known: {_error_text(error)}")
        return found

    def _broken(self) -> list[str]:
        """Return what is wrong with the patch for the locked release."""
        pin = next(pin for pin in self._pins if pin.file == self._patch.file)
        site = self._files.unpacked(self._locked)
        for file in pin.files:
            before = (site / file.path).read_bytes()
            after = apply_hunks(next(one for one in self._parsed if one.path == file.path), before)
            if after is None or (sha256(before), sha256(after)) != (file.preimage, file.postimage):
                return [f"it does not change {file.path} as the lock says"]
        if self._elsewhere:
            return []
        proof = self._trials().ask(self._patch.proof, self._locked, self._pins)
        if not proof.passed:
            return [f"its proof fails with it: {proof.said}"]
        if self._passes(self._locked.version):
            return ["its proof passes without it: either the patch does nothing, or the proof tests nothing"]
        return []

    @cached_property
    def _elsewhere(self) -> str | None:
        """The reason why the proof cannot run on this machine; None where it can."""
        target = self._plan.profile.target
        machine = detect()
        # Whichever chip `auto` picks it for: what counts is whether its programs run.
        suits = fit(target.model_copy(update={"match": Match()}), machine)
        if suits.score is None:
            return suits.why
        return "for an NVIDIA GPU" if target.accelerator == "cuda" and not machine.gpus else None

    def _look_ahead(self, found: Outlook) -> None:
        versions = [self._locked.version, *self._files.newer(self._locked)]
        found.newest = versions[-1]
        found.unchanged = last(versions, lambda version: self._fits(version) == "unchanged")
        found.applies = last(versions, lambda version: self._fits(version) in {"unchanged", "moved"})
        if found.verdict == "broken":
            return
        newest = self._fits(found.newest)
        if self._elsewhere:
            found.notes.append(f"its proof was not run: {found.profile} is {self._elsewhere}")
            found.verdict = "needless" if newest == "upstream" else "unknown"
        elif self._passes(found.newest):
            found.verdict = "needless"
            # Mostly a release that repairs it is the first that the patch does not apply to.
            defective = last(versions, lambda version: not self._passes(version), likely=found.applies)
            found.needless = versions[versions.index(defective) + 1]
        elif unmet := self._unmet(found.newest):
            found.notes.append(
                f"{self._patch.package} {found.newest} wants {', '.join(unmet)}: its proof is inconclusive"
            )
        else:
            found.verdict = "outdated" if newest == "not at all" else "needed"

    def _release(self, version: str) -> Artefact:
        if version not in self._releases:
            self._releases[version] = self._files.release(self._locked, version)
        return self._releases[version]

    def _fit(self, version: str) -> str:
        """How the patch applies to a release."""
        site = self._files.unpacked(self._release(version))
        contents = [(file, site / file.path) for file in self._parsed]
        if not all(path.is_file() for _, path in contents):
            return "not at all"
        read = [(file, path.read_bytes()) for file, path in contents]
        if all(apply_hunks(file, content) is not None for file, content in read):
            return "unchanged"
        if all(has_lines(file, content) for file, content in read):
            return "moved"
        return "upstream" if all(has_lines(reverse(file), content) for file, content in read) else "not at all"

    def _ask(self, version: str) -> bool:
        """Whether the proof passes in a release without the patch; the locked one keeps the others."""
        kept = [pin for pin in self._pins if pin.file != self._patch.file] if version == self._locked.version else []
        answer = self._trials().ask(self._patch.proof, self._release(version), kept)
        word = "passes" if answer.passed else "fails"
        self._report.detail(f"{self._patch.package} {version}: the proof {word} without it: {answer.said}")
        return answer.passed

    def _unmet(self, version: str) -> list[str]:
        """Return the requirements of a release that the lock does not meet."""
        info = distributions(self._files.unpacked(self._release(version)))[self._patch.package]
        metadata = Metadata.from_email((info / "METADATA").read_bytes(), validate=False)
        python = self._plan.profile.python
        here = {key: str(value) for key, value in default_environment().items()}
        here |= {
            "python_version": python.series,
            "python_full_version": python.release or f"{python.series}.0",
            "extra": "",
        }
        locked = self._plan.lock.versions()
        return [
            str(wanted)
            for wanted in metadata.requires_dist or ()
            if wanted.marker is None or wanted.marker.evaluate(here)
            if not wanted.specifier.contains(locked.get(canonicalize_name(wanted.name), "0.dev0"), prereleases=True)
        ]


def last(versions: Sequence[str], holds: Callable[[str], bool], *, likely: str | None = None) -> str:
    """The last of `versions` for which something holds that holds for the first, up to some one, and for none after it.

    The `likely` one is asked early, and the one after it: an answer may cost a run of a proof.

    >>> asked = []
    >>> last("abcdefgh", lambda version: asked.append(version) or version < "d"), "".join(asked)
    ('c', 'hdbc')
    >>> asked.clear()
    >>> last("abcdefgh", lambda version: asked.append(version) or version < "d", likely="c"), "".join(asked)
    ('c', 'hcd')
    """
    if len(versions) == 1 or holds(versions[-1]):
        return versions[-1]
    low, high = 0, len(versions) - 1
    first = [] if likely is None else [versions.index(likely), versions.index(likely) + 1]
    while high - low > 1:
        middle = next((at for at in first if low < at < high), (low + high) // 2)
        low, high = (middle, high) if holds(versions[middle]) else (low, middle)
    return versions[low]


def has_lines(patch: FilePatch, content: bytes) -> bool:
    """Whether the lines that a patch is about are all in `content`, in their order, wherever that is.

    A build wants them where they were; a person makes the patch again where they are.
    """
    lines = tuple(io.BytesIO(content).readlines())
    at = 0
    for hunk in patch.hunks:
        size = len(hunk.before)
        starts = (start for start in range(at, len(lines) - size + 1) if lines[start : start + size] == hunk.before)
        start = next(starts, None)
        if start is None:
            return False
        at = start + size
    return True


def _error_text(error: ToolError | LockError) -> str:
    return error.message.splitlines()[0] + (f" ({error.hint})" if error.hint else "")
