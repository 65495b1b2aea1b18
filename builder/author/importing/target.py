"""The target of an imported profile: this machine, unless another is named."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import ValidationError

from builder.errors import UsageError
from builder.machine import Machine
from builder.profile import pytorch
from builder.profile.target import Target
from builder.project.requirements.model import Imported

_OLDEST_GLIBC = "2.28"  # what the wheels of PyTorch 2.6 and newer are built for
_OLDEST_MACOS = "14.0"
_CUDA = "13.0"  # of the builds of PyTorch that the default index has in 2026
# The CUDA of PyTorch's builds on the default index, from 2.MINOR on: nvidia-cuda-runtime in their metadata.
_OF_TORCH = {15: "13.2", 11: "13.0", 8: "12.8", 7: "12.6", 5: "12.4", 1: "12.1"}


@dataclass(frozen=True)
class Chosen:
    """A target, as a profile writes it, and the guesses in it."""

    table: dict[str, Any]
    target: Target
    guessed: tuple[str, ...]


def choose(machine: Machine, platform: str | None, accelerator: str | None) -> Chosen:
    """Return the target for `machine`, or the named one. Raises UsageError where there is no such target."""
    platform = platform or machine.platform
    if platform is None:
        raise UsageError(
            f"there are no profiles for {machine.system} {machine.machine}", hint="name a target: --platform"
        )
    here = platform == machine.platform
    table: dict[str, Any] = {"platform": platform}
    guessed = []
    if platform == "macos-arm64":
        table |= {"accelerator": accelerator or "mps", "min-os": _OLDEST_MACOS}
    else:
        table["accelerator"] = accelerator or ("cuda" if here and machine.gpus else "cpu")
        old = here and machine.glibc is not None and _numbers(machine.glibc) < _numbers(_OLDEST_GLIBC)
        table["glibc"] = machine.glibc if old else _OLDEST_GLIBC
    if table["accelerator"] == "cuda":
        table["cuda"] = (machine.cuda if here else None) or _CUDA
        if not (here and machine.cuda):
            guessed.append(f'cuda = "{_CUDA}" is a guess: say in [target] what the wheels are built for')
    try:
        return Chosen(table, Target.model_validate(table), tuple(guessed))
    except ValidationError as error:
        reason = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise UsageError(f"no such target: {platform}, {table['accelerator']}: {reason}") from None


def with_cuda_of(chosen: Chosen, imported: Imported, text: str) -> Chosen:
    """The same target, for the CUDA that a file says itself, in what was `imported` of it or in its whole `text`.

    What was chosen of it counts before all else in it, and the newest where it says several. Without, it stays a guess.
    """
    if not chosen.guessed:
        return chosen
    builds = [pytorch.build_at(imported.indexes[name]) for name in imported.index.values()]
    said = [release for build in builds if build is not None and (release := pytorch.cuda(build))]
    said = said or _cuda_in("\n".join(imported.requires)) or _cuda_in(text) or _cuda_of_torch(imported.requires)
    return of_cuda(chosen, max(said, key=_numbers)) if said else chosen


def of_cuda(chosen: Chosen, release: str) -> Chosen:
    """The same target, for a `release` of CUDA where it has only guessed one."""
    if not chosen.guessed:
        return chosen
    table = {**chosen.table, "cuda": release}
    return Chosen(table, Target.model_validate(table), ())


def _cuda_in(text: str) -> list[str]:
    """The releases of CUDA that a text names, as indexes, local versions and packages of conda and NVIDIA do.

    >>> _cuda_in("pytorch-cuda=12.4"), _cuda_in("torch==2.8.0+cu128"), _cuda_in("nvidia-cuda-runtime-cu12==12.4.127")
    (['12.4'], ['12.8'], ['12.4'])
    >>> _cuda_in("cupy-cuda111"), _cuda_in("cupy-cuda12x")
    (['11.1'], [])
    """
    builds = re.findall(r"(?:\+|/whl/(?:nightly/|test/)?)(cu[0-9]{3})\b", text)
    builds += [f"cu{digits}" for digits in re.findall(r"\bcupy-cuda([0-9]{2,3})\b", text)]
    named = r"\b(?:pytorch-cuda|cuda-version|cudatoolkit|cuda-toolkit|nvidia-cuda-runtime(?:-cu[0-9]+)?)"
    releases = re.findall(rf"{named}\s*=+\s*([0-9]+\.[0-9]+)", text)
    return [*(release for build in builds if (release := pytorch.cuda(build))), *releases]


def _cuda_of_torch(requires: Sequence[str]) -> list[str]:
    """The CUDA of the newest torch that requirements allow; none where they allow today's.

    >>> _cuda_of_torch(["torch==2.6.0"]), _cuda_of_torch(["torch>=2,<2.8"]), _cuda_of_torch(["torch>=2.5", "six<1"])
    (['12.4'], ['12.6'], [])
    """
    wanted = [one.specifier for one in map(Requirement, requires) if canonicalize_name(one.name) == "torch"]
    newest = next(iter(_OF_TORCH))
    for minor in range(newest, 0, -1):
        if wanted and all(any(one.contains(f"2.{minor}.{patch}") for patch in range(5)) for one in wanted):
            return [] if minor == newest else [next(cuda for first, cuda in _OF_TORCH.items() if minor >= first)]
    return []


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())
