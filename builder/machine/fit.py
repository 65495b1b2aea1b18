"""How well a target fits a machine, and why."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from builder.machine.model import Gpu, Machine
    from builder.profile.architectures import Kernels
    from builder.profile.target import Target


@dataclass(frozen=True)
class Fit:
    """`score` is None for not at all, else more for a more specific match; `why` is for people."""

    score: int | None
    why: str


def fit(target: Target, machine: Machine, kernels: Kernels | None = None) -> Fit:
    """How well a target fits a machine; `kernels` are those that are locked for it, None where not known."""
    match = target.match
    if match is None:
        return Fit(None, "only by its name: it has no [target.match]")
    if target.platform != machine.platform:
        translated = ", and this Python is translated by Rosetta: run an arm64 one" if machine.rosetta else ""
        return Fit(None, f"for {target.platform}{translated}")
    if lacking := _lacking(target, machine):
        return Fit(None, lacking)
    score, reasons = 0, []
    if match.chip is not None:
        if not fnmatchcase(machine.chip, match.chip):
            return Fit(None, f'for a chip "{match.chip}"')
        score += _weight(match.chip)
        reasons.append(f'the chip is "{match.chip}"')
    if match.gpu is not None:
        lacking, found = _gpu(target, machine, match.gpu, kernels)
        if lacking:
            return Fit(None, lacking)
        score += _weight(match.gpu)
        reasons.append(found)
    return Fit(score, " and ".join(reasons) or f"for any {target.platform}")


_WANTED = {"cuda": "an NVIDIA GPU", "rocm": "a GPU of AMD", "xpu": "a GPU of Intel"}


def _gpu(target: Target, machine: Machine, pattern: str, kernels: Kernels | None) -> tuple[str, str]:
    """What is wrong with the GPUs, else "", and the words for the one that is meant. Any one will do: a trainer takes
    one, and CUDA_VISIBLE_DEVICES says which.
    """
    wanted = f'for {_WANTED.get(target.accelerator, "an NVIDIA GPU")} "{pattern}"'
    if target.accelerator in ("rocm", "xpu"):
        other = [gpu for gpu in machine.others if gpu.accelerator == target.accelerator]
        named = next((gpu for gpu in other if fnmatchcase(gpu.name, pattern)), None)
        return ("", f"a GPU is {named}") if named else (wanted, "")
    if machine.gpus is None:
        return f"{wanted}, and nvidia-smi fails here", ""
    gpus = [gpu for gpu in machine.gpus if fnmatchcase(gpu.name, pattern)]
    if not gpus:
        return wanted, ""
    if kernels is None or not kernels.known:
        doubt = f", though it is not known which GPUs {kernels.build} has kernels for" if kernels is not None else ""
        return "", f"a GPU is {_named(gpus[0])}{doubt}"
    good = [gpu for gpu in gpus if gpu.capability is None or kernels.run_on(gpu.capability)]
    if good:
        return "", f"a GPU is {_named(good[0])}"
    return no_kernels(kernels, gpus[0].name, gpus[0].capability or ""), ""


def _named(gpu: Gpu) -> str:
    return f"{gpu.name} ({gpu.capability})" if gpu.capability else gpu.name


def no_kernels(kernels: Kernels, gpu: str, capability: str) -> str:
    """That a build does not run on a GPU, in words."""
    return f"{kernels.build} has kernels for compute capability {kernels.words}, and {gpu} has {capability}"


def _lacking(target: Target, machine: Machine) -> str | None:
    """What is too old here. Within one major release of CUDA, any driver runs what was built for another minor one."""
    if target.glibc and is_older(machine.glibc, target.glibc):
        return f"for glibc {target.glibc} or newer, and this is {machine.glibc or 'another C library'}"
    if target.min_os and is_older(machine.os.removeprefix("macOS "), target.min_os):
        return f"for macOS {target.min_os} or newer, and this is {machine.os or 'unknown'}"
    if target.cuda and machine.cuda and numbers(machine.cuda)[:1] < numbers(target.cuda)[:1]:
        return f"for CUDA {target.cuda}, and the driver supports {machine.cuda}"
    return None


def is_older(found: str | None, wanted: str) -> bool:
    """Whether a version is older than the wanted one, by the first two numbers; one without any is.

    The generated scripts have the same rule (templates/run.sh.j2, at_least).

    >>> [is_older(found, "14.0") for found in ("13.9", "14", "14.2.1", "", None)]
    [True, False, False, True, True]
    """
    return not numbers(found) or _first_two(found) < _first_two(wanted)


def _first_two(text: str | None) -> tuple[int, ...]:
    return (*numbers(text), 0, 0)[:2]


def numbers(text: str | None) -> tuple[int, ...]:
    """The numbers of a version, as far as it has any.

    >>> numbers("2.36"), numbers("14.4.1"), numbers(None)
    ((2, 36), (14, 4, 1), ())
    """
    found = re.match(r"[0-9.]*[0-9]", text or "")
    return tuple(int(part) for part in found[0].split(".") if part) if found else ()


def _weight(pattern: str) -> int:
    return len(pattern.rstrip("*")) + 1
