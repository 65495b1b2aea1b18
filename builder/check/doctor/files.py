"""Checks of the files of a profile: lock, generated files, environment, variables. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from builder.check.doctor.diagnosis import Diagnosis
from builder.check.doctor.hardware import gib
from builder.embedded.words import plural
from builder.errors import DrydockError
from builder.lock.outline import Locked, Outline, Patched, Unlimited
from builder.lock.sizes import size
from builder.machine import Machine


def lock(name: str, found: Locked | None, problem: DrydockError | None) -> Diagnosis:
    """Check that the lock exists and is fresh; `problem` is the error of reading or comparing it."""
    if problem is not None:
        return _failed("lock", problem, "a lock of the profile as it is", f"drydock lock {name}")
    if found is None:
        return Diagnosis("lock", "skipped", "it was not read")
    count = len(found.packages)
    return Diagnosis("lock", "ok", f"fresh, {plural(count, 'package')}, {size(found.size)}")


def generated(name: str, folder: Path, *, there: bool, fresh: bool, problem: DrydockError | None) -> Diagnosis:
    """Whether the committed files are what the profile renders to; `fresh` says whether the lock is."""
    if not there:
        return Diagnosis("generated files", "skipped", f"{folder} does not exist")
    if not fresh:
        return Diagnosis("generated files", "skipped", "cannot be rendered until the lock is fixed")
    if problem is not None:
        return _failed("generated files", problem, "what the profile renders to", f"drydock render {name}")
    return Diagnosis("generated files", "ok", f"{folder} is what the profile renders to")


def _failed(what: str, problem: DrydockError, wanted: str, fix: str) -> Diagnosis:
    where = f" ({problem.where})" if problem.where is not None else ""
    return Diagnosis(what, "fail", f"{problem.message}{where}", wanted, problem.hint or fix)


@dataclass(frozen=True)
class Built:
    """The state of a profile in the store: `store_name` is that of its lock.

    `manifest` and `python` say whether its environment exists, and the Python that it was built on; `current` is the
    store name of the current generation. `patched` has the sha256 of each file of a patch, None for one that is gone.
    """

    store_name: str
    manifest: bool
    python: bool
    current: str | None = None
    patched: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        """Whether a trainer could be started in it."""
        return self.manifest and self.python


def environment(name: str, built: Built | None) -> Diagnosis:
    """Check that the environment is built; `built` is None without a lock."""
    if built is None:
        return Diagnosis("environment", "skipped", "unknown until the failures above are fixed")
    build = f"drydock build {name}"
    if built.manifest and not built.python:
        return Diagnosis(
            "environment", "fail", f"{built.store_name}: the Python that it was built on is gone", "", build
        )
    other = built.current is not None and built.current != built.store_name
    if not built.usable:
        if not other:
            return Diagnosis("environment", "skipped", f"not built; to build it: {build}")
        return Diagnosis(
            "environment", "warn", f"not built, and `drydock run` starts {built.current}", built.store_name, build
        )
    if other:
        return Diagnosis(
            "environment", "warn", f"built, and `drydock run` starts {built.current}", built.store_name, build
        )
    return Diagnosis("environment", "ok", f"{built.store_name} is built; --full looks at every file")


def patches(locked: Sequence[Sequence[Patched]], built: Built | None) -> Diagnosis | None:
    """Whether the patched files are those of the lock; None where there are no patches."""
    if not locked:
        return None
    if built is None or not built.usable:
        return Diagnosis("patches", "skipped", f"{len(locked)} to apply, and nothing is built")
    wrong = [
        file.path for patch in locked for file in patch if built.patched.get(file.path) != _last(locked, file.path)
    ]
    if wrong:
        fix = f"drydock store verify --repair {built.store_name.partition('-')[0]}"
        return Diagnosis("patches", "fail", f"not the patched file: {', '.join(dict.fromkeys(wrong))}", "", fix)
    files = {file.path for patch in locked for file in patch}
    return Diagnosis("patches", "ok", f"{len(locked)} applied, to {', '.join(sorted(files))}; --full runs their proofs")


def _last(locked: Sequence[Sequence[Patched]], path: str) -> str:
    """The sha256 of a file after the last patch that changes it."""
    return [file.postimage for patch in locked for file in patch if file.path == path][-1]


def settings(profile: Outline, machine: Machine | None) -> Iterator[Diagnosis]:
    """Check the environment variables; `machine` is None where the profile is for another machine."""
    for one in profile.warnings:
        yield Diagnosis("settings", "warn", f"{one.variable}: {one.message} ({one.where})", "", one.hint or "")
    if profile.unlimited is not None:
        yield _unlimited(profile.name, profile.unlimited, machine)
    elif not profile.warnings:
        found = f"{plural(profile.variables, 'environment variable')}, no problem found"
        yield Diagnosis("settings", "ok", found)


def _unlimited(name: str, lifted: Unlimited, machine: Machine | None) -> Diagnosis:
    sizes = [size for size in (machine.memory, machine.memory_limit) if size is not None] if machine else []
    amount = f", {gib(round(min(sizes) * lifted.resident))} here," if sizes else ""
    text = (
        f"{lifted.variable} lifts PyTorch's limit of memory, as the profile acknowledges ({lifted.where}); "
        f"the memory guard of a supervised run stops the trainer at {lifted.resident:.0%} of the memory{amount} "
        f"or {lifted.swap:.0%} more of it in swap"
    )
    low = 'PYTORCH_MPS_LOW_WATERMARK_RATIO = "0.6"'
    fix = f'drydock run {name} --supervise; or {lifted.variable} = "0.7" with {low}'
    return Diagnosis("settings", "warn", text, "", fix)


# The first release with the repaired empty loader: huggingface/accelerate pull request 3659.
_REPAIRED = "1.9.0"


def has_empty_loader(version: str) -> bool:
    """Whether a release of accelerate needs the patch.

    >>> has_empty_loader("1.8.1"), has_empty_loader("1.9.0")
    (True, False)
    """
    from packaging.version import InvalidVersion, Version  # most locks have none

    try:
        return Version(version) < Version(_REPAIRED)
    except InvalidVersion:
        return False


def accelerate(profile: Outline, version: str, repaired: Sequence[str]) -> Diagnosis:
    """Whether the empty loader of an accelerate that has it is patched.

    `version` is the locked one, `repaired` are other profiles for the same target with a release that needs no patch.
    """
    instead = f"accelerate >= 1.9 needs no patch{f': profile {repaired[0]}' if repaired else ''}"
    if "accelerate" in profile.patched:
        return Diagnosis("accelerate", "ok", f"{version}, patched; {instead}")
    found = f"{version}, not patched: an empty data loader ends in UnboundLocalError 'current_batch'"
    return Diagnosis("accelerate", "warn", found, "", f'{instead}; or extends = ["accelerate-patched"]')
