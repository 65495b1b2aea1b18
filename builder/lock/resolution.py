"""The packages of a profile, each with its one file: of PyTorch the build that the target is for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from types import MappingProxyType
from urllib.parse import urlparse

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from builder import uv
from builder.embedded.words import plural
from builder.errors import LockError, ToolError
from builder.lock import builds
from builder.lock.cuda import cuda_of
from builder.lock.finder import Artefacts
from builder.lock.model import Artefact
from builder.lock.unbuilt import PassedOver, Search, Unbuilt, UnbuiltError
from builder.profile import markers, pytorch
from builder.profile.model import Profile

_OUT_OF_REACH: set[str] = set()
"""Indexes that did not answer in this process: uv's patience with one, some 7 s, is not for each lock."""

_NO_WHEEL = r"no usable wheels|has no wheels with a matching|Wheels are required for"
_PYTHONS = ("3.13", "3.12", "3.11", "3.10", "3.9")


@cache
def _answers(host: str, scheme: str) -> bool:
    return uv.answers(f"{scheme}://{host}")


@dataclass
class Resolution:
    """One resolution; `preferred` versions are kept where they fit, except those in `upgrade`."""

    files: Artefacts
    profile: Profile
    preferred: Mapping[str, Sequence[str]]
    upgrade: Sequence[str]
    step: Callable[[str], None]
    warn: Callable[[str], None] | None = None
    """Hears of newer versions that have no wheel; None asks for none."""
    wants_builds: bool = False
    """Whether somebody will allow what is passed over for want of a wheel: then it is an error, however small."""
    _unusable: list[str] = field(default_factory=list)
    _search: Search | None = None
    """Looks for what builds of sources would bring to the last resolution."""
    _asked: dict[frozenset[tuple[str, str]], tuple[list[uv.Pin], list[str], Search]] = field(default_factory=dict)
    """What each resolution found, by its `implied`: where PyTorch's index is out of reach, the first is asked again."""

    def packages(self, caches: Iterable[str]) -> list[Artefact]:
        """The closure of what the profile requires. Raises ToolError, LockError."""
        here = markers.environment(self.profile.target, self.profile.python.series)
        required = map(Requirement, self.profile.packages.requires)
        wanted = {one.name for one in required if one.marker is None or one.marker.evaluate(here)}
        direct = {str(canonicalize_name(name)) for name in wanted}
        # What was locked before is likely to be required by others again: then one resolution is enough.
        implied = self._implied(direct | self.preferred.keys())
        try:
            pins = self._pins(implied)
            if any(not pin.required_by for pin in pins):
                implied = self._implied(direct)
                pins = self._pins(implied)
            # What only others require is known now.
            more = self._implied(pin.name for pin in pins)
            if more.keys() - implied.keys():
                implied |= more
                pins = self._pins(implied)
            self._check_passed_over(pins)
            return self._artefacts(pins)
        except ToolError as error:
            if not implied:
                raise
            if uv.is_out_of_reach(error.message):
                _OUT_OF_REACH.update(host for host, _ in self._hosts())
            return self._from_elsewhere(error, implied, caches)

    def _implied(self, names: Iterable[str]) -> dict[str, str]:
        """The index of PyTorch for those of the packages that have a build for the target, and no index by the profile.

        One that is required by its build, ==2.8.0+cu128, comes from the index of that; one that goes with a torch whose
        index the profile says, from there too.
        """
        build = pytorch.build(self.profile.target)
        if build is None:
            return {}
        own = self.profile.packages.index
        index = pytorch.index(build)
        if "torch" in own and pytorch.build_at(self.profile.index_url(own["torch"])):
            index = own["torch"]
        found = {name: index for name in names if name in pytorch.packages(build) and name not in own}
        for text in self.profile.packages.requires:
            wanted = Requirement(text)
            builds = [pytorch.build_of(spec.version) for spec in wanted.specifier if "+" in spec.version]
            pinned = next((pytorch.index(one) for one in builds if one is not None), "")
            if canonicalize_name(wanted.name) in found and pytorch.url(pinned) is not None:
                found[canonicalize_name(wanted.name)] = pinned
        if found and "torch" not in own:  # which all of them require
            found.setdefault("torch", index)
        return found

    def _pins(
        self, implied: Mapping[str, str], cached: Mapping[str, tuple[str, str]] = MappingProxyType({})
    ) -> list[uv.Pin]:
        """The versions. An index is for what is required directly, so that the rest of `implied` is required too.

        `cached` are those that are taken from a cache: package to version and index. Raises ToolError, and UnbuiltError
        where all that is missing is that sources may be built.
        """
        packages = self.profile.packages
        self.files.index = {**implied, **packages.index}
        if not cached and frozenset(implied.items()) in self._asked:
            pins, self._unusable, self._search = self._asked[frozenset(implied.items())]
            return pins
        named = {canonicalize_name(Requirement(text).name) for text in packages.requires}
        added = [name for name in implied if name not in named]

        def ask(said: uv.Said, unusable: Callable[[str], None]) -> list[uv.Pin]:
            more = [*added, *(f"{name}=={version}" for name, (version, _) in cached.items())]
            pins = self._resolved(more, cached, said, unusable)
            return [_without_profile(pin) if pin.name in added else pin for pin in pins]

        self._unusable = []
        self._search = Search(ask, self.files, frozenset(packages.build))
        try:
            pins = ask({}, self._unusable.append)
        except ToolError as error:
            self._check_unbuilt(self._search, error)
            raise self._with_others(error) from None
        if not cached:
            self._asked[frozenset(implied.items())] = pins, self._unusable, self._search
        return pins

    def _resolved(
        self,
        more: Sequence[str],
        cached: Mapping[str, tuple[str, str]],
        said: uv.Said,
        unusable: Callable[[str], None],
    ) -> list[uv.Pin]:
        packages = self.profile.packages
        return uv.resolve(
            [*packages.requires, *more],
            self._universe(cached, said),
            self.files.folder("packages"),
            overrides=[override.requirement for override in packages.overrides],
            preferred=self.preferred,
            upgrade=self.upgrade,
            unusable=unusable,
            impatient=any(host in _OUT_OF_REACH or not _answers(host, scheme) for host, scheme in self._hosts()),
        )

    def _hosts(self) -> set[tuple[str, str]]:
        """Where the packages come from that have an index of their own: hosts, with ports, and schemes."""
        found = {urlparse(place) for place in self.files.index_places().values()}
        return {(one.netloc, one.scheme) for one in found if one.netloc}

    def _artefacts(
        self, pins: Sequence[uv.Pin], cached: Mapping[str, tuple[str, str]] = MappingProxyType({})
    ) -> list[Artefact]:
        return self.files.artefacts(pins, self._universe(cached), self.files.index)

    def _universe(self, cached: Mapping[str, tuple[str, str]], said: uv.Said = MappingProxyType({})) -> uv.Universe:
        places = {**self.files.index_places(), **{package: place for package, (_, place) in cached.items()}}
        return self.files.universe(sources=list(self.profile.packages.build), index=places, said=said)

    def _check_unbuilt(self, search: Search, error: ToolError) -> None:
        """Raise UnbuiltError with all that has no wheel, where nothing else is wrong; where it cannot be found out,
        `error` is right.
        """
        unusable = self._unusable
        if not unusable or "was not found in the package registry" in " ".join(error.message.split()):
            return  # of what is nowhere, no source helps
        self.step(f"looking at the sources of {_names(unusable)}: no wheel fits, and nothing is run")
        try:
            missing = search.missing(unusable)
        except ToolError:
            return
        if missing:
            target = f"{self.profile.target.platform} and Python {self.profile.python.version}"
            rows = "".join(f"\n  {one}" for one in missing)
            raise UnbuiltError(
                f"{plural(len(missing), 'package')} without a wheel for {target}, "
                f"and [packages.build] does not allow to build the source:{rows}",
                missing,
                hint=_how_to_allow(self.profile.name, missing),
            ) from error

    def _with_others(self, error: ToolError) -> ToolError:
        """The error of a resolution with all the requirements that fit by themselves as little: uv names the first."""
        if not re.search(_NO_WHEEL, " ".join(error.message.split())) or uv.is_out_of_reach(error.message):
            return error
        required = self.profile.packages.requires
        self.step(f"looking at each of {plural(len(required), 'requirement')}: no wheel fits one of them")
        try:
            found = self.files.unusable(required)
        except ToolError:
            return error
        if len(found) < 2:
            return error
        target, python = self.profile.target, self.profile.python.series
        rows = "".join(f"\n  {text}: {instead}" for text, instead in found.items())
        return ToolError(
            f"{plural(len(found), 'requirement')} without a wheel for {target.platform} and Python {python}, "
            f"and with their sources nothing fits either:{rows}",
            hint=self._older_python(list(found)) or "require newer versions of them, which have wheels",
        )

    def _older_python(self, requirements: Sequence[str]) -> str | None:
        """The line of [python] with which some requirements have wheels; None where there is none."""
        for series in _PYTHONS:
            if series == self.profile.python.series:
                continue
            universe = replace(self.files.universe(index=self.files.index_places()), python=series)
            with suppress(ToolError):
                uv.resolve(requirements, universe, self.files.folder("python"))
                return f'they have wheels for another Python: [python] version = "{series}"; or require newer versions'
        return None

    def _check_passed_over(self, pins: Sequence[uv.Pin]) -> None:
        """Say which newer versions were not taken for want of a wheel. Raises UnbuiltError where one is far newer."""
        if not self._unusable or self._search is None or self.warn is None:
            return
        try:
            found = self._search.passed_over(self._unusable, pins)
        except (ToolError, LockError) as error:
            self.warn(
                f"it is not known whether newer versions of {_names(self._unusable)} were passed over: {error.message}"
            )
            return
        refused = [one for one in found if one.far or self.wants_builds]
        for one in found if not refused else ():
            lines = "; ".join(source.line for source in one.sources)
            self.warn(f"{one}; to have it built: [packages.build] {lines}")
        if refused:
            raise _too_far(self.profile.name, found, refused)

    def _from_elsewhere(self, error: ToolError, implied: Mapping[str, str], caches: Iterable[str]) -> list[Artefact]:
        """The packages where PyTorch's index did not help: from a cache that is an index too, or the default index.

        Raises LockError where the default index has another build, and says what to do.
        """
        self.files.index = {**implied, **self.profile.packages.index}
        cached = self.files.in_caches(caches)
        if implied.keys() <= cached.keys():
            self.step("PyTorch from a cache")
            cached = {name: cached[name] for name in implied}
            pins = self._pins(implied, cached)
            self._check_passed_over(pins)
            return self._artefacts(pins, cached)
        pins = self._pins({})
        packages = self._artefacts(pins)
        found = builds.contradictions(self.profile, packages)
        if not found:
            self._check_passed_over(pins)
            self.step("PyTorch from the default index, whose build is for the target")
            return packages
        index, torch = next(iter(implied.values())), found[0]
        said = builds.describe_contradictions(self.profile, found, packages)
        cuda = self.profile.target.cuda is not None
        if uv.is_out_of_reach(error.message):
            why = f"was not reached: {uv.reason(error.message)}"
            said = f"{said}. The index {index}, which has the build for that, {why}"
            hint = self._what_to_fetch(packages, implied, index)
            more = "; or require an older torch, whose build there is another" if cuda else ""
        else:
            said = f"{said}; and of what the index {index} has nothing fits. {error.message}"
            hint, more = error.hint or f"require another {torch.package.name}", ""
            release = cuda_of(torch.package) or torch.what.removeprefix("CUDA ")
            if cuda and error.hint is None:
                hint = f'an older {torch.package.name}; or, where the driver has it: [target] cuda = "{release}"'
        if (older := builds.older(self.profile, torch)) is not None:
            as_it_is = f"a newer driver runs {torch.package.name} {torch.package.version} as it is"
            raise builds.CudaError(said, older, hint=f'{as_it_is}: [target] cuda = "{older}"; or {hint}')
        raise LockError(said, hint=f"{hint}{more}")

    def _what_to_fetch(self, packages: Sequence[Artefact], implied: Mapping[str, str], index: str) -> str:
        series, machine = self.profile.python.series.replace(".", ""), self.profile.target.machine
        build = pytorch.build_at(self.profile.index_url(index))
        files = [
            f"{one.name}-{Version(one.version).public}+{build}-cp{series}-cp{series}-manylinux_2_28_{machine}.whl"
            for one in packages
            if one.name in implied
        ]
        variable = f"DRYDOCK_INDEX_{re.sub('[^A-Z0-9]', '_', index.upper())}"
        return (
            f"fetch {', '.join(files)}, or another release +{build}, into a folder: UV_FIND_LINKS=FOLDER; "
            f"or name a mirror of that index: {variable}=URL"
        )


def _names(requirements: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(Requirement(text).name for text in requirements))


def _how_to_allow(name: str, sources: Sequence[Unbuilt]) -> str:
    some = f"; to allow only some: --allow-builds={sources[0].name}" if len(sources) > 1 else ""
    return f"to allow building them, here and on every machine: drydock lock {name} --allow-builds{some}"


def _too_far(name: str, found: Sequence[PassedOver], refused: Sequence[PassedOver]) -> UnbuiltError:
    """The error for what is passed over."""
    rows = "".join(f"\n  {one}" for one in refused)
    sources = list({source.name: source for one in found for source in one.sources}.values())
    lines = "".join(f"\n  {one}" for one in sources)
    meant = ", ".join(f'"{one.name}=={one.locked}"' for one in refused)
    return UnbuiltError(
        f"old versions would be locked:{rows}\nto have the newer ones, [packages.build] would allow to build:{lines}",
        sources,
        hint=f"{_how_to_allow(name, sources)}; where the old one is meant, require it: {meant}",
    )


def _without_profile(pin: uv.Pin) -> uv.Pin:
    """A pin of what only other packages require."""
    return replace(pin, required_by=tuple(one for one in pin.required_by if one != "profile"))
