"""How well a target fits a machine, and why."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from builder.machine.model import Machine
    from builder.profile.target import Target


@dataclass(frozen=True)
class Fit:
    """`score` is None for not at all, else more for a more specific match; `why` is for people."""

    score: int | None
    why: str


def fit(target: Target, machine: Machine) -> Fit:
    """How well a target fits a machine."""
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
        if not any(fnmatchcase(gpu.name, match.gpu) for gpu in machine.gpus or ()):
            return Fit(None, f'for an NVIDIA GPU "{match.gpu}"')
        score += _weight(match.gpu)
        reasons.append(f'a GPU is "{match.gpu}"')
    return Fit(score, " and ".join(reasons) or f"for any {target.platform}")


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
