"""A new lock for a profile: resolve, choose one file per package, pin what the patches change."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from builder import uv
from builder.errors import LockError, PatchError, ToolError
from builder.lock import Artefact, Lock, LockedOverride, LockedPatch, PatchedFile, digest
from builder.patch import FilePatch, StageError, apply_hunks, parse_patch, reverse, sha256
from builder.profile import Patch, Profile


def resolve(
    profile: Profile,
    texts: Mapping[str, str],
    *,
    previous: Lock | None = None,
    upgrade: Sequence[str] = (),
    step: Callable[[str], None] = lambda _: None,
) -> Lock:
    """Resolve `profile` for its target, from any host.

    Versions of the `previous` lock are kept where they still fit, except those of the packages in `upgrade`.
    Raises LockError where no set of packages fits, PatchError where a patch does not fit what was locked.
    """
    names = [canonicalize_name(package) for package in upgrade]
    pinned = dict(previous.versions()) if previous else {}
    unknown = [name for name in names if name not in pinned and name != "uv"]
    if unknown:
        raise LockError(f"{', '.join(unknown)} is not in the lock of {profile.name}, so it cannot be upgraded")
    with tempfile.TemporaryDirectory(prefix="drydock-lock-") as work:
        locker = _Locker(profile, Path(work))
        try:
            step(f"resolving {profile.name} for {profile.target.platform}")
            packages = locker.packages(preferred=pinned, upgrade=names)
            builds = locker.build_requirements()
            tool = previous.uv if previous and "uv" not in names else locker.tool()
            step(f"checking {len(profile.patches)} patches") if profile.patches else None
            patches = [locker.patch(patch, texts[patch.file], packages) for patch in profile.patches]
        except ToolError as error:
            raise LockError(f'"{profile.name}" cannot be locked. {error.message}', hint=error.hint) from None
    return Lock(
        schema_=1,
        profile=profile.name,
        digest=digest(profile, texts),
        uv=tool,
        overrides=[LockedOverride(**override.model_dump()) for override in profile.packages.overrides],
        patches=patches,
        build_requires=builds,
        packages=packages,
    )


def locked_files(profile: Profile, packages: Sequence[Artefact]) -> dict[str, dict[str, Any]]:
    """What the indexes say now of the files of some locked packages (PEP 751: `url`, `upload-time`), by sha256.

    Raises LockError where they are not there to be asked, or have not all of the versions.
    """
    with tempfile.TemporaryDirectory(prefix="drydock-lock-") as work:
        try:
            return _Locker(profile, Path(work)).files(packages)
        except ToolError as error:
            raise LockError(f'the files of "{profile.name}" were not found. {error.message}', hint=error.hint) from None


class _Locker:
    """One resolution, in a temporary folder."""

    def __init__(self, profile: Profile, work: Path) -> None:
        self._profile = profile
        self._work = work
        self._patched_by: dict[str, str] = {}
        self._tags = {tag: place for place, tag in enumerate(profile.target.wheel_tags(profile.python.version))}

    def packages(self, preferred: Mapping[str, str], upgrade: Sequence[str]) -> list[Artefact]:
        packages = self._profile.packages
        universe = self._universe(sources=list(packages.build), index=self._index_places())
        pins = uv.resolve(
            packages.requires,
            universe,
            self._folder("packages"),
            overrides=[override.requirement for override in packages.overrides],
            preferred=preferred,
            upgrade=upgrade,
        )
        return self._artefacts(pins, universe, packages.index)

    def build_requirements(self) -> list[Artefact]:
        wanted = sorted({text for texts in self._profile.packages.build.values() for text in texts})
        if not wanted:
            return []
        universe = self._universe()
        return self._artefacts(uv.resolve(wanted, universe, self._folder("build")), universe, {})

    def tool(self) -> Artefact:
        universe = uv.Universe(self._profile.target, self._profile.python.version)
        pins = [uv.Pin("uv", uv.version(), ())]
        return self._artefacts(pins, universe, {})[0]

    def files(self, packages: Sequence[Artefact]) -> dict[str, dict[str, Any]]:
        sources = [package.name for package in packages if not package.is_wheel]
        universe = self._universe(sources=sources, index=self._index_places())
        pins = [uv.Pin(package.name, package.version, ()) for package in packages]
        found = uv.artefacts(pins, universe, self._folder("files"))
        return {file["hashes"]["sha256"]: file for files in found.values() for file in files}

    def patch(self, patch: Patch, text: str, packages: Sequence[Artefact]) -> LockedPatch:
        """Pin the files that a patch changes, by applying it to the locked package."""
        locked = next((package for package in packages if package.name == patch.package), None)
        if locked is None:
            raise PatchError(
                f"{patch.file} is not used: {patch.package} is not among the packages of {self._profile.name}",
                hint="take the patch out of the profile",
            )
        if locked.version not in SpecifierSet(patch.versions, prereleases=True):
            raise PatchError(
                f"{patch.file} is not used: it is for {patch.package} {patch.versions}, and {locked.version} is locked",
                hint="take the patch out of the profile, or pin a version that it is for",
            )
        site = self._unpacked(locked)
        try:
            parsed = parse_patch(text)
        except StageError as error:
            raise PatchError(f"{patch.file}: {error}") from None
        for file in parsed:
            other = self._patched_by.setdefault(file.path, patch.file)
            if other != patch.file:
                raise PatchError(f"{patch.file} and {other} both change {file.path}", hint="make one patch of them")
        files = [self._patched(patch, locked, site, file) for file in parsed]
        return LockedPatch(package=patch.package, file=patch.file, sha256=sha256(text.encode()), files=files)

    def _patched(self, patch: Patch, locked: Artefact, site: Path, file: FilePatch) -> PatchedFile:
        told = f"{patch.package} {locked.version}"
        path = site / file.path
        if not path.resolve().is_relative_to(site.resolve()) or not path.is_file():
            raise PatchError(
                f"{patch.file} does not apply: {told} has no file {file.path}",
                hint="make the patch again for this version, or pin the version that it was made for",
            )
        before = path.read_bytes()
        after = apply_hunks(file, before)
        if after is not None:
            return PatchedFile(path=file.path, preimage=sha256(before), postimage=sha256(after))
        if apply_hunks(reverse(file), before) is not None:
            raise PatchError(
                f"{patch.file} is already upstream: {told} has the change in {file.path}",
                hint="take the patch out of the profile",
            )
        raise PatchError(
            f"{patch.file} does not apply to {file.path} of {told}: the lines around the change differ",
            hint="make the patch again for this version, or pin the version that it was made for",
        )

    def _unpacked(self, package: Artefact) -> Path:
        site = self._work / "unpacked" / package.name
        if not site.is_dir():
            site.mkdir(parents=True)
            requirement = self._work / f"{package.name}.txt"
            requirement.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
            arguments = ["--require-hashes", "--target", str(site), "-r", str(requirement)]
            place = self._index_places().get(package.name)
            if place is not None:
                arguments += ["--default-index", place] if "://" in place else ["--no-index", "--find-links", place]
            uv.install(arguments, self._profile.target, self._profile.python.version)
        return site

    def _universe(self, *, sources: Sequence[str] = (), index: Mapping[str, str] | None = None) -> uv.Universe:
        packages = self._profile.packages
        return uv.Universe(
            self._profile.target,
            self._profile.python.version,
            sources=sources,
            exclude_newer=_end_of(packages.exclude_newer) if packages.exclude_newer else None,
            exclude_newer_package={name: _end_of(day) for name, day in packages.exclude_newer_package.items()},
            index=index or {},
        )

    def _index_places(self) -> dict[str, str]:
        """Where each package with an index of its own is looked for: a folder of wheels that has it, or its URL."""
        places = {}
        wheels = [wheel for folder in uv.find_links() for wheel in folder.glob("*.whl")]
        for package, index in self._profile.packages.index.items():
            fitting = (wheel.parent for wheel in wheels if self._fits(package, wheel.name))
            places[package] = str(next(fitting, None) or uv.index_url(index, self._profile.indexes[index]))
        return places

    def _fits(self, package: str, file: str) -> bool:
        """Whether a wheel is of `package`, for the target, and of a version that the profile allows."""
        allowed = [
            wanted.specifier
            for wanted in map(Requirement, self._profile.packages.requires)
            if canonicalize_name(wanted.name) == package
        ]
        try:
            name, version, _, _ = parse_wheel_filename(file)
        except InvalidWheelFilename:
            return False
        fits = all(one.contains(version, prereleases=True) for one in allowed)
        return name == package and fits and self._place(file) is not None

    def _artefacts(self, pins: Sequence[uv.Pin], universe: uv.Universe, index: Mapping[str, str]) -> list[Artefact]:
        files = uv.artefacts(pins, universe, self._folder("files"))
        chosen = []
        for pin in pins:
            file = self._best(pin, files[pin.name], pin.name in universe.sources)
            chosen.append(
                Artefact(
                    name=pin.name,
                    version=pin.version,
                    file=file["file"],
                    size=file.get("size", 0),
                    sha256=file["hashes"]["sha256"],
                    index=index.get(pin.name),
                    required_by=sorted(pin.required_by),
                )
            )
        return chosen

    def _best(self, pin: uv.Pin, files: Sequence[dict[str, Any]], source: bool) -> dict[str, Any]:
        """The one file to install: the wheel with the best tag for the target, or the source distribution."""
        if source:
            return next(file for file in files if not file["file"].endswith(".whl"))
        fitting = [
            (place, file["file"], file)
            for file in files
            if file["file"].endswith(".whl") and (place := self._place(file["file"])) is not None
        ]
        if not fitting:
            target = self._profile.target
            raise LockError(
                f"{pin.name} {pin.version} has no wheel for {target.platform} ({target.min_os or target.glibc}) "
                f"and Python {self._profile.python.version}",
                hint=f'allow its source to be built: [packages.build] {pin.name} = ["setuptools"]',
            )
        return min(fitting)[2]

    def _place(self, file: str) -> int | None:
        tags: frozenset[Tag] = parse_wheel_filename(file)[3]
        return min((self._tags[tag] for tag in tags if tag in self._tags), default=None)

    def _folder(self, name: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._work))


def _end_of(day: str) -> str:
    """The end of a day, UTC, as a time that means the same in every time zone."""
    return f"{date.fromisoformat(day) + timedelta(days=1)}T00:00:00Z"
