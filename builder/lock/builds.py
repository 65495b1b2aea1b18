"""What the wheels of a lock are built for, against the target: a processor, or a release of CUDA. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from builder.embedded.words import plural
from builder.errors import LockError
from builder.lock.cuda import cuda_of
from builder.lock.model import Artefact
from builder.lock.why import ancestors, paths
from builder.profile import pytorch
from builder.profile.model import Profile


class CudaError(LockError):
    """What can be locked is for another CUDA than the target is: for the older `release`, which its driver runs too."""

    def __init__(self, message: str, release: str, *, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.release = release


def older(profile: Profile, contradiction: Contradiction) -> str | None:
    """The CUDA that a package is for, where it is one older than that of the target; None where it is not."""
    cuda, release = profile.target.cuda, contradiction.what.removeprefix("CUDA ")
    if cuda is None or re.fullmatch(r"[0-9]+\.[0-9]+", release) is None:
        return None
    return release if Version(release) < Version(cuda) else None


@dataclass(frozen=True)
class Contradiction:
    """A package that is built for something else than the target is: `what` says for what."""

    package: Artefact
    what: str


def contradictions(profile: Profile, packages: Sequence[Artefact]) -> list[Contradiction]:
    """The packages whose wheels contradict the target of a profile; those of PyTorch first.

    Within one major release of CUDA all go together (NVIDIA, "CUDA Compatibility", minor version compatibility), and a
    driver for a newer one runs libraries of an older one (the same, backward compatibility): of these only what a
    framework brings contradicts the target, as it is a build of that.
    """
    target = profile.target
    wanted = target.cuda.split(".")[0] if target.cuda is not None else None
    has_cuda = any(cuda_of(package) is not None for package in packages)
    above = {one.name: one.required_by for one in packages}
    found = []
    for package in packages:
        release, build = cuda_of(package), pytorch.build_of(package.version)
        if (
            release is not None
            and release.split(".")[0] != wanted
            and not _runs_anyway(package, release, wanted, above)
        ):
            found.append(Contradiction(package, f"CUDA {release}"))
        elif build is not None and build.startswith(("rocm", "xpu")) and not build.startswith(target.accelerator):
            found.append(Contradiction(package, "a GPU of AMD" if build.startswith("rocm") else "a GPU of Intel"))
        elif target.accelerator in ("rocm", "xpu") and package.name == "torch":
            if build is None or not build.startswith(target.accelerator):
                found.append(Contradiction(package, "processors" if build == "cpu" else "another accelerator"))
        elif wanted is not None and build == "cpu" and package.name in pytorch.PACKAGES:
            found.append(Contradiction(package, "processors"))
        elif wanted is not None and _is_without_cuda(package, has_cuda=has_cuda):
            found.append(Contradiction(package, "processors: it asks for none of CUDA's libraries"))
    if (torch := _torch_of(found, packages)) is not None:
        found.insert(0, torch)
    return sorted(found, key=lambda one: one.package.name not in pytorch.PACKAGES)


def _runs_anyway(package: Artefact, release: str, wanted: str | None, above: Mapping[str, Sequence[str]]) -> bool:
    """Whether it is a library of an older CUDA than `wanted`, for something else than a framework."""
    if wanted is None or int(release.split(".")[0]) > int(wanted) or not package.name.startswith("nvidia-"):
        return False
    return not ancestors(package.name, above) & {*pytorch.PACKAGES, "jax", "jaxlib", "mlx"}


def _torch_of(found: Sequence[Contradiction], packages: Sequence[Artefact]) -> Contradiction | None:
    """The torch that brings what contradicts the target, where its version does not say for what it is built."""
    torch = next((one for one in packages if one.name == "torch" and Version(one.version).local is None), None)
    above = {one.name: one.required_by for one in packages}
    brought = [one for one in found if "torch" in ancestors(one.package.name, above)]
    if torch is None or not brought or any(one.package.name == "torch" for one in found):
        return None
    named = [one for one in brought if "." in one.what] or brought
    return Contradiction(torch, named[0].what)


def _is_without_cuda(package: Artefact, *, has_cuda: bool) -> bool:
    """Whether it is the default index's torch, of which one for CUDA requires CUDA's libraries since 2.0."""
    is_default = package.name == "torch" and package.index is None and Version(package.version).local is None
    return is_default and not has_cuda and Version(package.version) >= Version("2.0")


def check(profile: Profile, packages: Sequence[Artefact]) -> None:
    """Raise LockError where wheels contradict the target, with what to write into the profile."""
    found = contradictions(profile, packages)
    if found:
        raise LockError(
            describe_contradictions(profile, found, packages), hint=_hint(profile, found[0].package, packages)
        )


def describe_contradictions(profile: Profile, found: Sequence[Contradiction], packages: Sequence[Artefact]) -> str:
    """What contradicts the target, in words: the first package, and how much comes with it."""
    first = found[0]
    names = {one.package.name for one in found}
    if profile.target.cuda is None:
        names |= {one.name for one in packages if one.name.startswith("nvidia-") and one.name != "nvidia-ml-py"}
    size = sum(one.size for one in packages if one.name in names) / 1e6
    others = f" ({plural(len(names), 'such package')}, {size:,.0f} MB)" if len(names) > 1 else ""
    return (
        f"{first.package.name} {first.package.version} is for {first.what}, and {profile.name} {wants(profile)}{others}"
    )


def wants(profile: Profile) -> str:
    """What a profile is for, in words."""
    target = profile.target
    return f"is for CUDA {target.cuda}" if target.cuda is not None else f'has accelerator = "{target.accelerator}"'


def _hint(profile: Profile, package: Artefact, packages: Sequence[Artefact]) -> str:
    build, cuda, release = pytorch.build(profile.target), profile.target.cuda, cuda_of(package)
    root = _root(package.name, packages) or package.name
    texts = {str(canonicalize_name(Requirement(one).name)): one for one in profile.packages.requires}
    wanted = Requirement(texts[root]) if root in texts else None
    if wanted is not None and root in pytorch.PACKAGES and "+" in str(wanted.specifier):
        return f'the target decides the build: [packages] requires = ["{root}=={_public(wanted)}"]'
    if build is not None and package.name in pytorch.packages(build):
        return f'[packages] index = {{ {package.name} = "{pytorch.index(build)}" }}'
    if wanted is not None and any("cuda" in extra for extra in wanted.extras):
        extras = [one for one in sorted(wanted.extras) if "cuda" not in one]
        extras += [f"cuda{cuda.split('.')[0]}"] if cuda is not None else []
        wanted.extras = set(extras)
        return f'[packages] requires = ["{wanted}"]'
    if cuda is not None and release is not None:
        more = release if "." in release else f"{release}.0"
        return f'where the driver has it: [target] cuda = "{more}"; or require an older {root}'
    if cuda is not None:
        return f'require a {root} for CUDA; or [target] accelerator = "cpu", without cuda'
    instead = f"; or require {_FOR_PROCESSORS[root]} instead" if root in _FOR_PROCESSORS else ""
    return (
        f"{root} brings it; where that runs without, leave it out and say why: [[packages.overrides]] "
        f'requirement = "{package.name}; python_version < \'3\'", reason = "…"{instead}'
    )


# The same package without what only GPUs need, by its own documentation.
_FOR_PROCESSORS = {"xgboost": "xgboost-cpu"}


def _public(wanted: Requirement) -> str:
    return next(Version(one.version).public for one in wanted.specifier if "+" in one.version)


def _root(package: str, packages: Sequence[Artefact]) -> str | None:
    """What the profile requires that leads to a package."""
    parents: Mapping[str, Collection[str]] = {one.name: one.required_by for one in packages}
    return next((path[0] for path in islice(paths(parents, package), 1)), None)
