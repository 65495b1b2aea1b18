"""The files of packages for the target of one profile: which fit, where they are looked for, what is in them."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from builder import uv
from builder.consent import Builds
from builder.download import download
from builder.embedded import caches
from builder.embedded.installer import SEARCHES
from builder.embedded.plan import pinned
from builder.embedded.web import open_url
from builder.errors import LockError, ToolError
from builder.lock import systems
from builder.lock.identify import identified, the_one
from builder.lock.model import Artefact
from builder.lock.sdist import Sdist
from builder.lock.sdist import read as read_sdist
from builder.profile import pytorch
from builder.profile.model import Profile

_AT_ONCE = 4


def candidates(profile: Profile, packages: Sequence[Artefact], builds: Builds) -> dict[str, uv.Candidate]:
    """What the indexes say now of the files of some locked packages, by sha256.

    Raises LockError where an index cannot be asked, or lacks one of the versions.
    """
    with tempfile.TemporaryDirectory(prefix="drydock-lock-") as work:
        asked = Artefacts(profile, Path(work), builds)
        asked.index = {package.name: package.index for package in packages if package.index is not None}
        sources = [package.name for package in packages if not package.is_wheel]
        universe = asked.universe(sources=sources, index=asked.index_places())
        pins = [uv.Pin(package.name, package.version, ()) for package in packages if package.origin is None]
        try:
            found = uv.candidates(pins, universe, asked.folder("files"))
        except ToolError as error:
            raise LockError(f'the files of "{profile.name}" were not found. {error.message}', hint=error.hint) from None
    known = {package.file: package.sha256 for package in packages}  # where the index does not say a sha256
    return {file.sha256 or known.get(file.file, ""): file for files in found.values() for file in files}


class Artefacts:
    """Asks uv for files of packages, in the temporary folder `work`.

    `index` maps packages to the logical indexes that they come from. Without `builds` nothing of a source distribution
    is run, and one whose metadata has to be built is not found.
    """

    def __init__(self, profile: Profile, work: Path, builds: Builds) -> None:
        self._builds = builds
        self._profile = profile
        self._work = work
        self.index: dict[str, str] = dict(profile.packages.index)
        self.placed: dict[str, str] = {}
        """The folders of the packages whose requirements name a place: each has one wheel, of this very moment."""
        self._newer: dict[str, list[str]] = {}
        self._tags = {tag: place for place, tag in enumerate(profile.target.wheel_tags(profile.python.series))}

    def universe(
        self, *, sources: Sequence[str] = (), index: Mapping[str, str] | None = None, said: uv.Said | None = None
    ) -> uv.Universe:
        """The packages to choose from for the profile, as of the day that it names."""
        packages = self._profile.packages
        return uv.Universe(
            self._profile.target,
            self._profile.python.version,
            sources=sources,
            builds=self._builds if sources else None,
            tools={name: packages.build[name] for name in sources if name in packages.build},
            said=said or {},
            exclude_newer=_end_of(packages.exclude_newer) if packages.exclude_newer else None,
            exclude_newer_package={name: _end_of(day) if day else "false" for name, day in self._days().items()},
            index=index or {},
        )

    def _days(self) -> dict[str, str | Literal[False]]:
        """The packages that have a day of their own, or none: those of an index, and single ones."""
        packages = self._profile.packages
        by_index = packages.exclude_newer_index
        of_index = {name: by_index[index] for name, index in self.index.items() if index in by_index}
        return {**of_index, **packages.exclude_newer_package, **dict.fromkeys(self.placed, False)}

    def index_places(self) -> dict[str, str]:
        """Where each package with an index of its own is looked for: a folder of wheels that has it, or its URL."""
        places = {}
        wheels = [wheel for folder in uv.find_links() for wheel in folder.glob("*.whl")]
        for package, index in self.index.items():
            fitting = [wheel for wheel in wheels if self._fits(package, wheel.name)]
            if fitting and self._build(package) and self._has_others(package, fitting):
                places[package] = str(self._only(fitting))
            else:
                places[package] = str(fitting[0].parent if fitting else self.index_place(index))
        return {**places, **self.placed}

    def in_caches(self, places: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Package to the newest version in a cache, and the index that the cache is: as far as one has it."""
        found: dict[str, tuple[str, str]] = {}
        for place in places:
            files = _files_of(place)
            root = place if "://" in place else Path(place).absolute().as_uri()
            for package in self.index.keys() - found.keys():
                fitting = [parse_wheel_filename(file)[1] for file in files if self._fits(package, file)]
                if fitting:
                    found[package] = (str(max(fitting)), f"{root.rstrip('/')}/simple")
        return found

    def _has_others(self, package: str, fitting: Sequence[Path]) -> bool:
        """Whether the first folder of wheels that fit lacks some of these, or has other wheels of the package."""
        there = {wheel for wheel in fitting[0].parent.glob("*.whl") if _name_of(wheel.name) == package}
        return there != set(fitting)

    def _only(self, wheels: Sequence[Path]) -> Path:
        """A folder with these wheels and no others: beside them may be those of another build, of a newer version.

        uv remembers nothing of it for the next time, and reads each wheel whole.
        """
        folder = self.folder("wheels")
        for wheel in wheels:
            if not (folder / wheel.name).is_symlink():
                (folder / wheel.name).symlink_to(wheel.absolute())
        return folder

    def _build(self, package: str) -> str | None:
        """The build that a package is to be, where its index is one of PyTorch's; None where any will do."""
        name = self.index.get(package)
        return pytorch.build_at(self._profile.index_url(name)) if name and package in pytorch.PACKAGES else None

    def _fits(self, package: str, file: str) -> bool:
        """Whether a wheel is of `package`, for the target, and of a version that the profile allows.

        From an index of PyTorch, it is of that build.
        """
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
        if build := self._build(package):
            fits &= pytorch.build_of(str(version)) == build
        return name == package and fits and self._place(file) is not None

    def artefacts(self, pins: Sequence[uv.Pin], universe: uv.Universe, index: Mapping[str, str]) -> list[Artefact]:
        """The one file to install of each pinned package; `index` maps packages to the names of their indexes.

        Of pins with all their files, nothing is asked. Raises LockError where a package has none for the target, and
        ToolError.
        """
        known = {pin.name: pin.files for pin in pins}
        files = known if all(known.values()) else uv.candidates(pins, universe, self.folder("files"))
        best = [self._best(pin, files[pin.name], pin.name in universe.sources) for pin in pins]
        chosen = []
        for pin, file in zip(pins, identified(best, self.folder("hashed")), strict=True):
            chosen.append(
                Artefact(
                    name=pin.name,
                    version=pin.version,
                    file=file.file,
                    size=file.size,
                    sha256=file.sha256,
                    index=index.get(pin.name),
                    required_by=sorted(pin.required_by),
                )
            )
        return chosen

    def _best(self, pin: uv.Pin, files: Sequence[uv.Candidate], source: bool) -> uv.Candidate:
        """The one file to install: the wheel with the best tag for the target, or the source distribution."""
        if source:
            return the_one(pin.name, [file for file in files if not file.is_wheel])
        fitting = [(place, file) for file in files if file.is_wheel and (place := self._place(file.file)) is not None]
        if not fitting:
            target = self._profile.target
            raise LockError(
                f"{pin.name} {pin.version} has no wheel for {target.platform} ({target.min_os or target.glibc}) "
                f"and Python {self._profile.python.version}",
                hint=f'allow its source to be built: [packages.build] {pin.name} = ["setuptools"]',
            )
        best = min((place, file.file) for place, file in fitting)
        return the_one(pin.name, [file for place, file in fitting if (place, file.file) == best])

    def _place(self, file: str) -> int | None:
        tags: frozenset[Tag] = parse_wheel_filename(file)[3]
        return min((self._tags[tag] for tag in tags if tag in self._tags), default=None)

    # --- sources that nobody may build yet ---

    def sdists(self, pins: Sequence[uv.Pin]) -> dict[str, Sdist]:
        """The source distributions of pinned packages, by name, read and not run. Raises ToolError, LockError."""
        found = self._source_files(pins)
        return {pin.name: self._read(found[pin.name]) for pin in pins}

    def newest_sources(self, requirements: Sequence[str]) -> dict[str, str]:
        """The newest version that fits of packages of which there is a source distribution; of those without, none."""
        names = [canonicalize_name(Requirement(text).name) for text in requirements]
        try:
            pins = uv.resolve(requirements, self._source_universe(names), self.folder("source")) if names else []
        except ToolError:
            if len(names) == 1:
                return {}
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                each = list(pool.map(lambda text: self.newest_sources([text]), requirements))
            return {name: version for found in each for name, version in found.items()}
        return {pin.name: pin.version for pin in pins}

    def has_wheel(self, pin: uv.Pin) -> bool:
        """Whether there is a wheel for the target."""
        try:
            files = uv.candidates([pin], self.universe(index=self.index_places()), self.folder("files"))[pin.name]
        except ToolError:
            return False
        return any(file.is_wheel and self._place(file.file) is not None for file in files)

    def unusable(self, requirements: Sequence[str]) -> dict[str, str]:
        """Those of the requirements that no wheel fits, whatever else is required, each with what there is instead.

        Raises ToolError where an index cannot be asked.
        """
        universe = self.universe(sources=list(self._profile.packages.build), index=self.index_places())

        def instead(text: str) -> str | None:
            said = uv.why_unusable(text, universe, self.folder("one"))
            return None if said is None else _instead(said)

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = list(pool.map(instead, requirements))
        return {text: words for text, words in zip(requirements, found, strict=True) if words is not None}

    def newer_systems(self, pins: Sequence[uv.Pin]) -> dict[str, str]:
        """The line of [target] with which a package has a wheel, by name; those are left out that never have one."""
        target = systems.newest(self._profile.target)
        universe = replace(self.universe(index=self.index_places()), target=target)

        def line(pin: uv.Pin) -> str | None:
            try:
                files = uv.candidates([pin], universe, self.folder("files"))[pin.name]
            except ToolError:
                return None
            return systems.line(self._profile.target, self._profile.python.series, [one.file for one in files])

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = list(pool.map(line, pins))
        return {pin.name: text for pin, text in zip(pins, found, strict=True) if text is not None}

    def uploaded(self, pins: Sequence[uv.Pin], *, sources: bool) -> dict[str, datetime | None]:
        """When the files of pinned packages came, by name, as far as their indexes say it. Raises ToolError."""
        if not pins:
            return {}
        universe = self.universe(index=self.index_places())
        files = self._source_files(pins) if sources else uv.candidates(pins, universe, self.folder("files"))
        days = {name: [file.uploaded for file in some if file.uploaded is not None] for name, some in files.items()}
        return {name: min(some, default=None) for name, some in days.items()}

    def _source_files(self, pins: Sequence[uv.Pin]) -> dict[str, list[uv.Candidate]]:
        universe = self._source_universe([pin.name for pin in pins])
        return uv.candidates(pins, universe, self.folder("files"))

    def _source_universe(self, names: Sequence[str]) -> uv.Universe:
        return self.universe(index=self.index_places(), said={name: {"": ()} for name in names})

    def _read(self, files: Sequence[uv.Candidate]) -> Sdist:
        """What one of several places of a source distribution has, once it is what its index says."""
        file = the_one(files[0].file, [file for file in files if not file.is_wheel])
        if file.path is not None:
            return read_sdist(file.path)
        target = self.folder("sdist") / file.file
        try:
            found = download(file.url, target, size=file.size or 0)
        except OSError as error:
            raise LockError(f"{file.file} has no wheel, and its source cannot be fetched: {error}") from None
        if file.sha256 is not None and found.hashes["sha256"] != file.sha256:
            raise LockError(f"{file.file} is not what its index says: its sha256 is {found.hashes['sha256']}")
        try:
            return read_sdist(target)
        finally:
            target.unlink()

    def folder(self, name: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._work))

    def newer(self, package: Artefact) -> list[str]:
        """The versions of a package that are newer than the locked one and have a wheel for the target, oldest first.

        Whatever day the profile names; without prereleases. Raises ToolError where the index cannot be asked, LockError
        for a package that is locked as source: to look at one, it would have to be built, which may do anything.
        """
        if package.origin is not None:
            raise LockError(f"{package.name} is locked from a place, which has no versions to look at")
        if not package.is_wheel:
            raise LockError(f"{package.name} is locked as source, and newer sources are not built to look at them")
        if package.name not in self._newer:
            today = self._today(package)
            self._newer[package.name] = uv.newer(package.name, package.version, today, self.folder("newer"))
        return self._newer[package.name]

    def release(self, package: Artefact, version: str) -> Artefact:
        """The wheel of another version of a locked package. Raises LockError, ToolError."""
        pins = [uv.Pin(package.name, version, ())]
        index = {package.name: package.index} if package.index else {}
        return self.artefacts(pins, self._today(package), index)[0]

    def _today(self, package: Artefact) -> uv.Universe:
        index = {package.name: self.index_place(package.index)} if package.index else {}
        return uv.Universe(self._profile.target, self._profile.python.version, index=index)

    def index_place(self, name: str) -> str:
        """Where the logical index `name` is."""
        return uv.index_url(name, self._profile.index_url(name))

    def unpacked(self, package: Artefact, *, copy: bool = False) -> Path:
        """A folder with what a package brings, checked by hash: not to be written to, unless it is a `copy`.

        Raises ToolError.
        """
        site = self._work / "unpacked" / package.sha256
        if not site.is_dir():
            arguments = ["--target", ".", *self.requirement(package)]
            # Links would lead into uv's cache.
            arguments += ["--link-mode", "copy"] if copy else []
            site.mkdir(parents=True)
            try:
                builds = None if package.is_wheel else self._builds
                uv.install(arguments, site, self._profile.target, self._profile.python.version, builds=builds)
            except BaseException:
                shutil.rmtree(site)  # a second question must not take it for the answer
                raise
        return site

    def requirement(self, package: Artefact) -> list[str]:
        """The arguments with which uv installs a package by its hash, from where it is looked for: `uv.install`."""
        file = self._work / f"{package.sha256}.txt"
        file.write_text(f"{pinned(package.model_dump())}\n")
        arguments = [
            "--require-hashes",
            *SEARCHES,
            "-r",
            str(file),
            *(["--only-binary", ":all:"] if package.is_wheel else []),
        ]
        ours = [Path(self.placed[package.name])] if package.name in self.placed else []
        local = next((folder for folder in (*ours, *uv.find_links()) if (folder / package.file).is_file()), None)
        if local is not None:
            return [*arguments, "--no-index", "--find-links", str(local)]
        return [*arguments, *(["--default-index", self.index_place(package.index)] if package.index else [])]


def _instead(said: str) -> str:
    """What there is of a package without a wheel that fits, by the words of uv.

    >>> _instead("hint: You require A, but we only found wheels for B with the following Python ABI tags: `cp38`")
    'it has wheels for cp38'
    >>> _instead("hint: Wheels are required for `a` because building from source is disabled")
    'its source would have to be built'
    """
    flat = " ".join(said.split())
    tags = re.search(r"with the following [A-Za-z ]*tags?: ((?:`[^`]+`(?:, | and )?)+)", flat)
    if tags:
        return f"it has wheels for {tags[1].replace('`', '').rstrip(', ')}"
    if "Wheels are required" in flat or "no usable wheels" in flat:
        return "its source would have to be built"
    cause = re.search(r"Because (?:only )?(.*?)(?:,? and |, we )", flat)
    return cause[1] if cause else "no version of it fits"


def _name_of(file: str) -> str | None:
    try:
        return str(parse_wheel_filename(file)[0])
    except InvalidWheelFilename:
        return None


def _files_of(cache: str) -> list[str]:
    """The names of the files in a cache; of one that cannot be read, none."""
    try:
        if cache.startswith(("http://", "https://")):
            with open_url(f"{cache.rstrip('/')}/SHA256SUMS", limit=caches.LARGEST_INDEX, seconds=60) as answer:
                text = answer.read().decode("ascii", "replace")
        else:
            text = Path(cache.removeprefix("file://"), "SHA256SUMS").read_text("ascii", "replace")
    except OSError:
        return []
    return [line.rpartition("/")[2] for line in text.splitlines()]


def _end_of(day: str) -> str:
    """The end of a day, UTC, as a time that means the same in every time zone."""
    return f"{date.fromisoformat(day) + timedelta(days=1)}T00:00:00Z"
