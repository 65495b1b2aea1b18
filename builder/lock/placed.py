"""Requirements that name a place, for a resolution: each a wheel, built here where the place has a source."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from builder import uv
from builder.consent import Consent
from builder.embedded.plan import pinned
from builder.errors import LockError, ToolError
from builder.files import hash_of
from builder.lock.finder import Artefacts
from builder.lock.model import Artefact, Origin
from builder.profile import markers
from builder.profile.model import Profile

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first day that a zip knows


@dataclass(frozen=True)
class Fetched:
    """What is at the place of a requirement: a wheel, or a `source` (a folder, or an archive) that builds to one.

    `build_requires` is what it declares to be built by, with what its setup.py imports; `version` is what is said to
    it where it asks its repository for one.
    """

    name: str
    origin: Origin
    wheel: Path | None = None
    source: Path | None = None
    build_requires: tuple[str, ...] = ()
    version: str | None = None


def placed(profile: Profile) -> dict[str, Requirement]:
    """The requirements of a profile that name a place, by package: those that are for its target."""
    here = markers.environment(profile.target, profile.python.series)
    parsed = map(Requirement, profile.packages.requires)
    wanted = (one for one in parsed if one.url and (one.marker is None or one.marker.evaluate(here)))
    return {str(canonicalize_name(one.name)): one for one in wanted}


def by_version(profile: Profile, wheels: Mapping[str, Path]) -> Profile:
    """The same profile with the versions of `wheels` instead of places."""
    requires = []
    for text in profile.packages.requires:
        one = Requirement(text)
        if one.url:
            wheel = wheels.get(str(canonicalize_name(one.name)))
            if wheel is None:
                continue
            extras = f"[{','.join(sorted(one.extras))}]" if one.extras else ""
            marker = f" ; {one.marker}" if one.marker else ""
            text = f"{one.name}{extras}=={parse_wheel_filename(wheel.name)[1]}{marker}"
        requires.append(text)
    return profile.model_copy(update={"packages": profile.packages.model_copy(update={"requires": requires})})


def build_texts(profile: Profile, fetched: Sequence[Fetched]) -> list[str]:
    """What builds the sources of a profile: what it lists itself, and what places declare; within its own versions."""
    sources = [one for one in fetched if one.build_requires]
    texts = {text for one in sources for text in one.build_requires}
    texts |= {text for listed in profile.packages.build.values() for text in listed}
    names = {canonicalize_name(Requirement(text).name) for text in texts}
    for text in profile.packages.requires if sources else ():
        one = Requirement(text)
        if canonicalize_name(one.name) in names and one.url is None and not one.marker:
            texts.add(f"{one.name}{one.specifier}")
    return sorted(texts)


def built(
    one: Fetched, tools: Sequence[Artefact], files: Artefacts, profile: Profile, consent: Consent, folder: Path
) -> Path:
    """The wheel of a place, in the new `folder`. Raises LockError where it is not what was asked for, ToolError."""
    folder.mkdir()
    if one.wheel is not None:
        wheel = folder / one.wheel.name
        shutil.copyfile(one.wheel, wheel)
    else:
        raw = build(one, tools, profile, consent, folder.with_name(f"{folder.name}-build"), files.index_places())
        wheel = folder / raw.name
        normalise(raw, wheel)
    check(one.name, wheel.name, profile)
    return wheel


def build(
    one: Fetched,
    tools: Sequence[Artefact],
    profile: Profile,
    consent: Consent,
    work: Path,
    places: Mapping[str, str],
) -> Path:
    """Build a source with `tools`, which come by hash, into the new folder `work`. Raises ToolError, LockError."""
    work.mkdir()
    constraints = work / "constraints.txt"
    constraints.write_text("".join(f"{pinned(tool.model_dump())}\n" for tool in tools))
    indexes = sorted({places[tool.name] for tool in tools if tool.name in places})
    try:
        return uv.build_wheel(
            one.source or work,
            constraints,
            work / "out",
            consent,
            python=profile.python.series,
            complete=True,
            indexes=indexes,
            version=one.version,
        )
    except ToolError as error:
        raise LockError(f"{one.name}, from its place: {error.message}", hint=error.hint) from None


def check(name: str, file: str, profile: Profile) -> None:
    """Raise LockError where a wheel is of another package, or not for the target."""
    try:
        found, _, _, tags = parse_wheel_filename(file)
    except InvalidWheelFilename as error:
        raise LockError(f"{file} is not the name of a wheel: {error}") from None
    if found != name:
        raise LockError(f"{name} is required, and at its place is {found}", hint=f'write "{found} @ …"')
    known = set(profile.target.wheel_tags(profile.python.series))
    own = {
        tag for tag in tags if tag.platform == f"linux_{profile.target.machine}" and profile.target.system == "Linux"
    }
    if not known & tags and not own:
        raise LockError(
            f"{file} is not for {profile.target.platform} and Python {profile.python.series}",
            hint="what is compiled is locked on a machine of the target, and others get it: drydock push, pull, bundle",
        )


def normalise(wheel: Path, target: Path) -> None:
    """Write a wheel anew without what depends on the host: order, times, permissions, and the version of zlib."""
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        # The dist-info folder last, as the specification of wheels recommends.
        for entry in sorted(old.infolist(), key=lambda entry: (".dist-info/" in entry.filename, entry.filename)):
            if entry.is_dir():
                continue
            copy = zipfile.ZipInfo(entry.filename, _EPOCH)
            copy.create_system = 3  # Unix
            copy.external_attr = (0o755 if entry.external_attr >> 16 & 0o100 else 0o644) << 16
            new.writestr(copy, old.read(entry))


def with_origins(
    packages: Sequence[Artefact], fetched: Sequence[Fetched], wheels: Mapping[str, Path]
) -> list[Artefact]:
    """The locked packages; those from places say what they were made of. Raises LockError."""
    origins = {one.name: one.origin for one in fetched}
    made = []
    for package in packages:
        if package.name in origins:
            if package.sha256 != hash_of(wheels[package.name]):
                raise LockError(f"{package.name} was taken from somewhere else than its place")
            package = package.model_copy(update={"origin": origins[package.name], "index": None})
        made.append(package)
    return made


Keep = Callable[[Path, Fetched], None]
"""Keeps a wheel for the builds to come."""
