"""What a profile and its lock say that checks of a machine ask for, in plain values: to read it needs no models.

So it is remembered with an evaluation (builder/project/evaluate.py). Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

from builder.embedded.state import fits

if TYPE_CHECKING:
    from builder.errors import Where
    from builder.lock.model import Artefact, Lock
    from builder.profile.model import Profile
    from builder.profile.variables import Finding

_T = TypeVar("_T")


@dataclass(frozen=True)
class Target:
    """The target of a profile. `machine` is its processor, `chip` and `gpu` are the patterns of its match."""

    platform: str
    machine: str
    accelerator: str
    min_os: str | None
    glibc: str | None
    cuda: str | None
    chip: str | None
    gpu: str | None


@dataclass(frozen=True)
class Unlimited:
    """The `variable` that lifts PyTorch's own limit of memory, knowingly, in machines with `at_least` so many GiB.

    `resident` and `swap` are the shares of the memory that the guard of a supervised run allows.
    """

    variable: str
    where: str
    at_least: int
    resident: float
    swap: float


@dataclass(frozen=True)
class Warned:
    """A finding about an environment variable that is no error."""

    where: str
    variable: str
    message: str
    hint: str | None


@dataclass(frozen=True)
class Package:
    """A locked file; `size` in bytes."""

    name: str
    version: str
    file: str
    size: int
    sha256: str

    @property
    def is_wheel(self) -> bool:
        """Whether the file is a wheel."""
        return self.file.endswith(".whl")


@dataclass(frozen=True)
class Patched:
    """A file that a patch changes: its path in site-packages, and its sha256 after that."""

    path: str
    postimage: str


@dataclass(frozen=True)
class Locked:
    """What a lock has; of each patch the files that it changes."""

    packages: list[Package]
    python: Package | None
    patches: list[list[Patched]]

    @property
    def size(self) -> int:
        """Bytes to download for a first build."""
        return sum(package.size for package in [*self.packages, *([self.python] if self.python else [])])

    def version(self, name: str) -> str | None:
        """The version of a package; None where it is not locked."""
        return next((package.version for package in self.packages if package.name == name), None)


@dataclass(frozen=True)
class Outline:
    """A profile, and its lock where that can be read.

    `memory` is the least that the profile is meant for, in GiB, `variables` how many it sets, `newest` the last day
    that it is locked as of, and `patched` names the packages that it patches.
    """

    name: str
    target: Target
    python: str
    standalone: bool
    memory: int
    variables: int
    unlimited: Unlimited | None
    warnings: list[Warned]
    newest: str | None
    patched: list[str]
    lock: Locked | None


def outline(
    profile: Profile, lock: Lock | None, warnings: Iterable[tuple[Where, Finding]], where: Callable[..., Where]
) -> Outline:
    """The outline of a profile; `where` returns the place of a key in its files."""
    target, packages = profile.target, profile.packages
    match = target.match
    days = [
        packages.exclude_newer,
        *packages.exclude_newer_package.values(),
        *packages.exclude_newer_index.values(),
    ]
    return Outline(
        name=profile.name,
        target=Target(
            target.platform,
            target.machine,
            target.accelerator,
            target.min_os,
            target.glibc,
            target.cuda,
            match.chip if match else None,
            match.gpu if match else None,
        ),
        python=profile.python.version,
        standalone=profile.python.standalone,
        memory=max([target.memory_gb or 0, *_memory_of_values(profile)]),
        variables=len(profile.env),
        unlimited=_unlimited(profile, where),
        warnings=[Warned(str(where), one.name, one.message, one.hint) for where, one in warnings],
        newest=max((day for day in days if day), default=None),
        patched=[patch.package for patch in profile.patches],
        lock=_locked(lock) if lock is not None else None,
    )


def _memory_of_values(profile: Profile) -> list[int]:
    """The least memory that values count with which the script finds out."""
    from builder.profile.detect import Detect

    values = [value for one in profile.env.values() for value in (one.value, one.default)]
    values += [*profile.trainer.arguments, *(option.default for option in profile.trainer.options)]
    return [value.min or 0 for value in values if isinstance(value, Detect) and value.detect == "memory-gb"]


def _unlimited(profile: Profile, where: Callable[..., Where]) -> Unlimited | None:
    variable, guard = profile.unlimited, profile.memory_guard
    if variable is None or guard is None:
        return None
    choice = profile.env[variable].choice
    at_least = choice.at_least if choice is not None else 0
    return Unlimited(variable, str(where("env", variable)), at_least, guard.resident, guard.swap)


def _locked(lock: Lock) -> Locked:
    return Locked(
        [_package(one) for one in lock.packages],
        _package(lock.python) if lock.python is not None else None,
        [[Patched(file.path, file.postimage) for file in patch.files] for patch in lock.patches],
    )


def _package(one: Artefact) -> Package:
    return Package(one.name, one.version, one.file, one.size, one.sha256)


def dump(found: Outline) -> dict[str, Any]:
    """The outline as JSON has it."""
    return asdict(found)


_MAYBE = (str, None)
_PACKAGE = {"name": str, "version": str, "file": str, "size": int, "sha256": str}
_LOCK = {
    "packages": [_PACKAGE],
    "python": (_PACKAGE, None),
    "patches": [[{"path": str, "postimage": str}]],
}
_OUTLINE = {
    "name": str,
    "target": {
        "platform": str,
        "machine": str,
        "accelerator": str,
        "min_os": _MAYBE,
        "glibc": _MAYBE,
        "cuda": _MAYBE,
        "chip": _MAYBE,
        "gpu": _MAYBE,
    },
    "python": str,
    "standalone": bool,
    "memory": int,
    "variables": int,
    "unlimited": ({"variable": str, "where": str, "at_least": int, "resident": float, "swap": float}, None),
    "warnings": [{"where": str, "variable": str, "message": str, "hint": _MAYBE}],
    "newest": _MAYBE,
    "patched": [str],
    "lock": (_LOCK, None),
}


def load(data: Any) -> Outline | None:
    """The outline that `dump` made JSON of; None where the data has another shape."""
    if not fits(data, _OUTLINE):
        return None
    lock, unlimited = data["lock"], data["unlimited"]
    parts = {
        "target": _instance(Target, data["target"]),
        "unlimited": _instance(Unlimited, unlimited) if unlimited is not None else None,
        "warnings": [_instance(Warned, one) for one in data["warnings"]],
        "lock": _load_locked(lock) if lock is not None else None,
    }
    return _instance(Outline, {**data, **parts})


def _load_locked(data: Mapping[str, Any]) -> Locked:
    return Locked(
        [_instance(Package, one) for one in data["packages"]],
        _instance(Package, data["python"]) if data["python"] is not None else None,
        [[_instance(Patched, file) for file in patch] for patch in data["patches"]],
    )


def _instance(kind: type[_T], data: Mapping[str, Any]) -> _T:
    return kind(**{field.name: data[field.name] for field in fields(kind)})  # type: ignore[arg-type]
