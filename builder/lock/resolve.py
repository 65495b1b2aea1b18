"""A new lock for a profile: resolve, choose one file per package, pin the files that patches change."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from builder import uv
from builder.consent import Builds
from builder.embedded.errors import StageError
from builder.embedded.hashes import sha256
from builder.embedded.patches import FilePatch, apply_hunks, parse_patch, reverse
from builder.embedded.words import plural
from builder.errors import LockError, PatchError, ToolError
from builder.lock import python as pythons
from builder.lock import systems
from builder.lock.builds import check as check_builds
from builder.lock.finder import Artefacts
from builder.lock.model import Artefact, Lock, LockedOverride, LockedPatch, PatchedFile, digest, requires_read
from builder.lock.placed import Fetched, Keep, build_texts, built, by_version, with_origins
from builder.lock.resolution import Resolution
from builder.lock.standalone import PYTHON, fits
from builder.names import meant
from builder.profile import pytorch
from builder.profile.model import Patch, Profile


def resolve(
    profile: Profile,
    texts: Mapping[str, str],
    builds: Builds,
    *,
    previous: Lock | None = None,
    beside: Sequence[Lock] = (),
    upgrade: Sequence[str] = (),
    caches: Iterable[str] = (),
    work: Path | None = None,
    step: Callable[[str], None] = lambda _: None,
    warn: Callable[[str], None] = lambda _: None,
    wants_builds: bool = False,
    fetched: Sequence[Fetched] = (),
    keep: Keep = lambda _wheel, _fetched: None,
) -> Lock:
    """Resolve `profile` for its target, from any host.

    Of PyTorch it is the build for the target, from its own index; where that is out of reach, from a folder of wheels,
    one of the `caches`, or the default index.

    `builds` allows to build what the profile says is taken as source, of which the metadata is asked for.
    Versions of the `previous` lock are kept where they still fit, then those of the locks `beside` it, except those of
    the packages in `upgrade`. `warn` hears of newer versions that have no wheel; with `wants_builds` they are an error.
    What is fetched meanwhile is in a folder in `work`, or in the system's own for such.
    `fetched` is what is at the places that requirements name, and `keep` gets the wheels of these.
    Raises UnbuiltError where sources would have to be built that the profile does not allow, LockError where no set of
    packages fits, or what fits is built for something else; PatchError where a patch does not fit the locked packages.
    """
    names = [canonicalize_name(package) for package in upgrade]
    kept = previous.versions() if previous else {}
    tools = ["uv", *([PYTHON] if profile.python.standalone else [])]
    unknown = [name for name in names if name not in kept and name not in tools]
    pinned = {**_for_target(beside, profile), **{name: [version] for name, version in kept.items()}}
    if unknown:
        raise LockError(
            f"{', '.join(unknown)} is not in the lock of {profile.name}, so it cannot be upgraded",
            hint=meant(unknown[0], [*kept, *tools]),
        )
    with tempfile.TemporaryDirectory(prefix="drydock-lock-", dir=work) as folder, ExitStack() as beside_it:
        locker = _Locker(profile, Path(folder), builds)
        try:
            kept_uv = previous.uv if previous and "uv" not in names else None
            tool = beside_it.enter_context(locker.tool()) if kept_uv is None else lambda: kept_uv
            step(f"resolving {profile.name} for {profile.target.platform}")
            placed = locker.build_requirements(fetched, previous) if fetched else []
            wheels = locker.wheels(fetched, placed, step)
            resolution = Resolution(locker.files, by_version(profile, wheels), pinned, names, step, warn, wants_builds)
            packages = with_origins(resolution.packages(caches), fetched, wheels)
            check_builds(profile, packages)
            packages = locker.with_tools(packages)
            build_requires = placed if fetched else locker.build_requirements(fetched, None, packages)
            own_uv = tool()
            python = locker.python(previous.python if previous and PYTHON not in names else None, step)
            step(f"checking {plural(len(profile.patches), 'patch')}") if profile.patches else None
            patches = [locker.patch(patch, texts[patch.file], packages) for patch in profile.patches]
        except ToolError as error:
            hint = systems.of_uv(profile.target, error.message) or error.hint
            raise LockError(f'"{profile.name}" cannot be locked. {error.message}', hint=hint) from None
        for one in fetched:
            keep(wheels[one.name], one)
    return Lock(
        schema_=1,
        profile=profile.name,
        digest=digest(profile, texts),
        uv=own_uv,
        python=python,
        requires_from=requires_read(profile),
        overrides=[LockedOverride(**override.model_dump()) for override in profile.packages.overrides],
        patches=patches,
        build_requires=build_requires,
        packages=packages,
    )


def _for_target(beside: Sequence[Lock], profile: Profile) -> dict[str, list[str]]:
    """The versions of other locks, with the build of PyTorch that is for the target."""
    found: dict[str, list[str]] = {}
    build = pytorch.build(profile.target)
    for lock in beside:
        for name, version in lock.versions().items():
            public = Version(version).public
            of_torch = public if build is None else f"{public}+{build}"
            found.setdefault(name, []).append(of_torch if name in pytorch.PACKAGES else version)
    return found


def repin(profile: Profile, texts: Mapping[str, str], lock: Lock, builds: Builds) -> Lock:
    """`lock` for a profile of which only patches have changed since: they are pinned again, and nothing is resolved.

    Raises PatchError where one does not fit, LockError where a package cannot be fetched.
    """
    with tempfile.TemporaryDirectory(prefix="drydock-lock-") as work:
        locker = _Locker(profile, Path(work), builds)
        try:
            patches = [locker.patch(patch, texts[patch.file], lock.packages) for patch in profile.patches]
        except ToolError as error:
            raise LockError(f'"{profile.name}" cannot be locked. {error.message}', hint=error.hint) from None
    return lock.model_copy(update={"patches": patches, "digest": digest(profile, texts)})


class _Locker:
    """One resolution, in a temporary folder."""

    def __init__(self, profile: Profile, work: Path, builds: Builds) -> None:
        self._profile = profile
        self._builds = builds
        self.files = Artefacts(profile, work, builds)
        self._patched_by: dict[str, str] = {}

    def with_tools(self, packages: Sequence[Artefact]) -> list[Artefact]:
        """The packages; of a source with what the profile names for its build and it does not declare itself.

        Raises LockError, ToolError.
        """
        sources = [one for one in packages if not one.is_wheel]
        read = self.files.sdists([uv.Pin(one.name, one.version, ()) for one in sources]) if sources else {}
        made = {}
        for one in sources:
            declared = {canonicalize_name(Requirement(text).name) for text in read[one.name].build_requires}
            named = {canonicalize_name(Requirement(text).name) for text in self._profile.packages.build[one.name]}
            made[one.name] = one.model_copy(update={"build": sorted(named - declared)})
        return [made.get(one.name, one) for one in packages]

    def build_requirements(
        self, fetched: Sequence[Fetched], previous: Lock | None, packages: Sequence[Artefact] = ()
    ) -> list[Artefact]:
        """What builds the sources; of what is among the `packages` too that version, or that of before, if it fits."""
        wanted = build_texts(self._profile, fetched)
        if not wanted:
            return []
        names = {canonicalize_name(Requirement(text).name) for text in wanted}
        places = {name: place for name, place in self.files.index_places().items() if name in names}
        universe = self.files.universe(index=places)
        kept = {one.name: [one.version] for one in (*(previous.build_requires if previous else ()), *packages)}
        pins = uv.resolve(wanted, universe, self.files.folder("build"), preferred=kept)
        return self.files.artefacts(pins, universe, {name: self.files.index[name] for name in places})

    def wheels(
        self, fetched: Sequence[Fetched], tools: Sequence[Artefact], step: Callable[[str], None]
    ) -> dict[str, Path]:
        """The wheels of what was `fetched`, by package, where the resolution looks for them. Raises LockError."""
        made: dict[str, Path] = {}
        for one in fetched:
            if one.wheel is None:
                step(f"building {one.name} from its place")
            if self._builds is None:
                raise ValueError("nobody has agreed to a build")
            folder = self.files.folder("placed") / one.name
            made[one.name] = built(one, tools, self.files, self._profile, self._builds, folder)
        self.files.placed = {name: str(wheel.parent) for name, wheel in made.items()}
        return made

    @contextmanager
    def tool(self) -> Iterator[Callable[[], Artefact]]:
        """The wheel of uv, asked for beside the resolution: both wait for an index. Raises ToolError."""
        universe = uv.Universe(self._profile.target, self._profile.python.version)
        pin = uv.Pin("uv", uv.version(), ())
        with uv.candidates_beside([pin], universe, self.files.folder("files")) as found:
            yield lambda: self.files.artefacts([replace(pin, files=tuple(found()["uv"]))], universe, {})[0]

    def python(self, kept: Artefact | None, step: Callable[[str], None]) -> Artefact | None:
        """The Python that the profile wants by its bytes: the one that is `kept`, where it still fits."""
        if not self._profile.python.standalone:
            return None
        if kept is not None and fits(kept, self._profile):
            return kept
        step(f"fetching Python {self._profile.python.version} of python-build-standalone, to know it by its sha256")
        return pythons.find(self._profile, self.files.folder("python"))

    def patch(self, patch: Patch, text: str, packages: Sequence[Artefact]) -> LockedPatch:
        """Pin the files that a patch changes, by applying it to the locked package."""
        locked = next((package for package in packages if package.name == patch.package), None)
        if locked is None:
            raise PatchError(
                f"{patch.file} is not used: {patch.package} is not among the packages of {self._profile.name}",
                hint="remove the patch from the profile",
            )
        if locked.version not in SpecifierSet(patch.versions, prereleases=True):
            raise PatchError(
                f"{patch.file} is not used: it is for {patch.package} {patch.versions}, and {locked.version} is locked",
                hint="remove the patch from the profile, or pin a version that it is for",
            )
        site = self.files.unpacked(locked)
        try:
            parsed = parse_patch(text)
        except StageError as error:
            raise PatchError(f"{patch.file}: {error}") from None
        for file in parsed:
            other = self._patched_by.setdefault(file.path, patch.file)
            if other != patch.file:
                raise PatchError(f"{patch.file} and {other} both change {file.path}", hint="merge them into one patch")
        files = [self._patched(patch, locked, site, file) for file in parsed]
        return LockedPatch(package=patch.package, file=patch.file, sha256=sha256(text.encode()), files=files)

    def _patched(self, patch: Patch, locked: Artefact, site: Path, file: FilePatch) -> PatchedFile:
        version = f"{patch.package} {locked.version}"
        path = site / file.path
        if not path.resolve().is_relative_to(site.resolve()) or not path.is_file():
            raise PatchError(
                f"{patch.file} does not apply: {version} has no file {file.path}",
                hint="make the patch again for this version, or pin the version that it was made for",
            )
        before = path.read_bytes()
        after = apply_hunks(file, before)
        if after is not None:
            return PatchedFile(path=file.path, preimage=sha256(before), postimage=sha256(after))
        if apply_hunks(reverse(file), before) is not None:
            raise PatchError(
                f"{patch.file} is already upstream: {version} has the change in {file.path}",
                hint="remove the patch from the profile",
            )
        raise PatchError(
            f"{patch.file} does not apply to {file.path} of {version}: the lines around the change differ",
            hint="make the patch again for this version, or pin the version that it was made for",
        )
