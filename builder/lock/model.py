"""The lock: `profiles/NAME.lock.toml`, the flat closure of one profile for its one target.

Exactly one artefact per package, named by sha256. No URL and no host, so that one lock serves every mirror.
Pure: texts in, texts out; `builder.lock.resolve` makes a new one.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import tomli_w
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from builder.embedded.words import printable
from builder.errors import LockError, Where
from builder.names import SOURCE_END
from builder.profile.model import Data, Profile, RequiresRead
from builder.profile.toml_lines import loads

Sha256 = Field(pattern=r"^[0-9a-f]{64}$")
NAME = r"^[a-z0-9][a-z0-9-]*$"
FILE_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.+!-]*$"


_SCHEMA = 1


class NewerLockError(LockError):
    """A lock that a newer Drydock has made: not to be replaced by an older one."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Origin(_Model):
    """What a wheel was made of that no index has: the sha256 of a file, or of the content of a folder, and the commit.

    `place` is a digest of where that was, to know it again: the lock names no host, the profile does.
    """

    sha256: str = Sha256
    commit: str | None = Field(default=None, pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")
    place: str = Sha256


class Artefact(_Model):
    """One file to install: a wheel, or a source distribution that the profile allows to build. `size` in bytes."""

    name: str = Field(pattern=NAME)
    version: str = Field(pattern=r"^[A-Za-z0-9.+!_-]+$")
    file: str = Field(pattern=FILE_NAME)
    size: int = Field(ge=0)
    sha256: str = Sha256
    index: str | None = None
    required_by: list[str] = Field(default=[], alias="required-by")
    origin: Origin | None = None
    """Of a wheel that no index has: what it was made of."""
    build: list[Annotated[str, Field(pattern=NAME)]] = []
    """Of a source: what is installed to build it beside what it declares, by name; `build-requires` has the files."""

    @property
    def is_wheel(self) -> bool:
        """Whether the file is a wheel."""
        return self.file.endswith(".whl")


class LockedSource(_Model):
    """The trainer's own code: the archive that its commit makes (builder/embedded/source.py).

    `place` is a digest of where that was, as an Origin has it.
    """

    file: str = Field(pattern=FILE_NAME)
    size: int = Field(ge=0)
    sha256: str = Sha256
    commit: str = Field(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")
    place: str = Sha256

    @property
    def folder(self) -> str:
        """The name of the folder of a copy."""
        return self.file.removesuffix(SOURCE_END)


class DataFile(_Model):
    """A file of a model or data set; `path` is relative to it, `size` in bytes."""

    path: str = Field(min_length=1)
    size: int = Field(ge=0, le=1 << 50)
    sha256: str = Sha256


class LockedData(_Model):
    """A model or data set: its files, and of a hub the `commit` that the `revision` of the profile was.

    `place` is a digest of what the profile says, to know it again.
    """

    name: str = Field(pattern=NAME)
    place: str = Sha256
    hub: str | None = None
    type: Literal["model", "dataset"] | None = None
    revision: str | None = None
    commit: str | None = Field(default=None, pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")
    files: list[DataFile]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def sha256(self) -> str:
        """The digest of the paths and contents of all files."""
        return _sha256_of([[file.path, file.sha256] for file in self.files])

    @property
    def label(self) -> str:
        """Which one it is, in a word or two: the beginnings of commit and content."""
        return f"{self.commit[:12]} {self.sha256[:12]}" if self.commit else self.sha256[:12]


class PatchedFile(_Model):
    """A file that a patch changes: sha256 before and after; `path` is relative to site-packages."""

    path: str
    preimage: str = Sha256
    postimage: str = Sha256


class LockedPatch(_Model):
    """A patch, pinned to the very files it was made for."""

    package: str
    file: str
    sha256: str = Sha256
    files: list[PatchedFile]


class LockedOverride(_Model):
    """An override of the profile, repeated where a reader of the lock looks for it."""

    requirement: str
    reason: str

    @property
    def package(self) -> str:
        """The name of the overridden package; the whole text where it is not a requirement."""
        try:
            return str(canonicalize_name(Requirement(self.requirement).name))
        except InvalidRequirement:
            return self.requirement

    def __str__(self) -> str:
        # A lock may come from anywhere: what it says must not steer a terminal.
        return printable(f"{self.requirement} ({self.reason})")


class LockedRequires(_Model):
    """What a file of the project required when the lock was made, so that a change of it can be named."""

    file: str
    requires: list[str]


class Lock(_Model):
    """A whole lock. `digest` is that of the profile that it was resolved from, `checksum` that of the lock itself."""

    schema_: Literal[1] = Field(alias="schema")
    profile: str
    digest: str
    uv: Artefact
    python: Artefact | None = None
    """The archive of the Python, where the profile wants one of python-build-standalone."""
    trainer: LockedSource | None = None
    """The trainer's own code, where the profile names its source."""
    data: list[LockedData] = []
    """Models and data sets, where the profile names some."""
    requires_from: list[LockedRequires] = Field(default=[], alias="requires-from")
    overrides: list[LockedOverride] = []
    patches: list[LockedPatch] = []
    build_requires: list[Artefact] = Field(default=[], alias="build-requires")
    packages: list[Artefact]

    @property
    def size(self) -> int:
        """Bytes to download for a first build."""
        return sum(package.size for package in [*self.packages, *([self.python] if self.python else [])])

    def versions(self) -> dict[str, str]:
        """Package name to version."""
        return {package.name: package.version for package in self.packages}


def digest(profile: Profile, files: Mapping[str, str]) -> str:
    """The digest of everything in a profile that decides its lock; `files` are the texts of its patches."""
    decisive = {
        "target": profile.target.model_dump(include={"platform", "min_os", "glibc", "cuda"}),
        "python": profile.python.version,
        # Only where it is so, so that older locks stay fresh.
        **({"standalone": True} if profile.python.standalone else {}),
        **({"trainer": repr(source.place)} if (source := profile.trainer.source) else {}),
        **({"data": {name: place_of(one) for name, one in profile.data.items()}} if profile.data else {}),
        "packages": _decisive(profile.packages.model_dump()),
        "patches": [
            {**patch.model_dump(include={"package", "versions", "file"}), "text": files[patch.file]}
            for patch in profile.patches
        ],
    }
    return "sha256:" + _sha256_of(decisive)


def place_of(data: Data) -> str:
    """A digest of what a profile says of a model or data set."""
    return _sha256_of(data.model_dump(exclude_none=True))


def _decisive(packages: dict[str, Any]) -> dict[str, Any]:
    # What came later counts where it is used, so that older locks stay fresh; an order of files resolves nothing.
    decisive = {name: value for name, value in packages.items() if name != "overlap"}
    # What the files of requires-from say is among `requires`.
    return {name: value for name, value in decisive.items() if value or name not in _LATER}


_LATER = ("exclude_newer_index", "requires_from")


def _sha256_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def dump(lock: Lock) -> str:
    """The TOML text of a lock; the same lock gives the same bytes."""
    data = lock.model_dump(by_alias=True, exclude_none=True, exclude_defaults=True)
    data = {"schema": lock.schema_, "checksum": "sha256:" + _sha256_of(data), **data}
    head = (
        f"# The lock of the profile {lock.profile}: every file that its environment is made of, by sha256.\n"
        f"# Made by `drydock lock {lock.profile}`; do not edit.\n\n"
    )
    return head + tomli_w.dumps(data, multiline_strings=False)


def parse(text: str, path: str, name: str) -> Lock:
    """Return the lock in `text`. Raises LockError where it is not a lock, or was edited."""
    hint = f"make it again: drydock lock {name}"
    try:
        data = loads(text)
        schema = data.get("schema")
        if isinstance(schema, int) and schema > _SCHEMA:
            raise NewerLockError(
                f"a newer Drydock has made this lock: its schema is {schema}, and this one reads {_SCHEMA}",
                hint="update Drydock; in a team, agree on one: required-version in drydock.toml",
                where=Where(path),
            )
        checksum = data.pop("checksum", None)
        lock = Lock.model_validate(data)
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        reason = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise LockError(
            f"this is not a lock that this Drydock can read: {reason}", hint=hint, where=Where(path)
        ) from None
    written = lock.model_dump(by_alias=True, exclude_none=True, exclude_defaults=True)
    if lock.profile != name:
        raise LockError(f'this is the lock of "{lock.profile}", not of "{name}"', hint=hint, where=Where(path))
    if checksum != "sha256:" + _sha256_of(written):
        raise LockError(
            "the lock was edited by hand: its checksum does not match what it says",
            hint=f"change the profile instead, then: drydock lock {name}",
            where=Where(path),
        )
    return lock


def check_fresh(lock: Lock, profile: Profile, files: Mapping[str, str], path: str) -> None:
    """Raise LockError where the profile has changed since the lock was made."""
    if lock.digest != digest(profile, files):
        turned = [file for file, text in files.items() if "\r\n" in text]
        plain = {file: text.replace("\r\n", "\n") for file, text in files.items()}
        if turned and lock.digest == digest(profile, plain):
            raise LockError(
                f"{', '.join(turned)}: its line ends are CRLF here, and LF where {profile.name} was locked",
                hint=f"git turned them: write '*.patch -text' into .gitattributes, then: git checkout -- {turned[0]}; "
                "a new lock would be stale for everybody else",
                where=Where(path),
            )
        changed = "; ".join(_changes_of_files(lock, profile))
        raise LockError(
            f"the lock is stale: {changed or f'{profile.name} has changed'} since it was made",
            hint=f"drydock lock {profile.name}",
            where=Where(path),
        )


def requires_read(profile: Profile) -> list[LockedRequires]:
    """What the files of `requires-from` require; of a file that is named twice, all that is wanted of it."""
    found: dict[str, set[str]] = {}
    for one in profile.packages.requires_from:
        found.setdefault(one.file, set()).update(one.requires if isinstance(one, RequiresRead) else ())
    return [LockedRequires(file=file, requires=sorted(requires)) for file, requires in found.items()]


def _changes_of_files(lock: Lock, profile: Profile) -> Iterator[str]:
    """Files of `requires-from` with what is required now (+), and no more (-)."""
    before = {one.file: one.requires for one in lock.requires_from}
    for one in requires_read(profile):
        if one.file not in before:
            continue
        new = [text for text in one.requires if text not in before[one.file]]
        gone = [text for text in before[one.file] if text not in one.requires]
        words = [*(f"+ {text}" for text in new), *(f"- {text}" for text in gone)]
        more = [f"and {len(words) - _NAMED} more"] if len(words) > _NAMED else []
        if words:
            said = ", ".join([*words[:_NAMED], *more])
            yield f"{one.file} has changed ({printable(said)})"


_NAMED = 5


class Change(_Model):
    """One difference between two locks; `before` or `after` is None where the package was added or removed."""

    name: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        if self.before is None:
            return f"+ {self.name} {self.after}"
        if self.after is None:
            return f"- {self.name} {self.before}"
        return f"~ {self.name} {self.before} -> {self.after}"


def changes(before: Lock | None, after: Lock) -> list[Change]:
    """What differs between two locks, by package name; a new file of the same version counts too."""
    old = _by_name(before) if before else {}
    new = _by_name(after)
    found = []
    commits = [one.trainer.commit[:12] if one and one.trainer else None for one in (before, after)]
    if commits[0] != commits[1]:
        found.append(Change(name="trainer.source", before=commits[0], after=commits[1]))
    labels = [{data.name: data.label for data in lock.data} if lock else {} for lock in (before, after)]
    for name in sorted(labels[0].keys() | labels[1].keys()):
        was, now = (rows.get(name) for rows in labels)
        if was != now:
            found.append(Change(name=f"data.{name}", before=was, after=now))
    for name in sorted(old.keys() | new.keys()):
        one, two = old.get(name), new.get(name)
        if one is not None and two is not None and one.sha256 == two.sha256:
            continue
        same_version = one is not None and two is not None and one.version == two.version
        found.append(Change(name=name, before=_version_of(one, same_version), after=_version_of(two, same_version)))
    return found


def _by_name(lock: Lock) -> dict[str, Artefact]:
    found = {package.name: package for package in lock.packages}
    return {**found, lock.python.name: lock.python} if lock.python else found


def _version_of(package: Artefact | None, with_file: bool) -> str | None:
    if package is None:
        return None
    return f"{package.version} ({package.file})" if with_file else package.version
