"""Which GPUs of NVIDIA the kernels of a build run on, by its own list of architectures, and where a PyTorch has that.

A library has machine code for some compute capabilities (sm_86), and may have PTX, which a driver compiles for newer
ones (compute_86). NVIDIA, "CUDA C++ Programming Guide", "Application compatibility", and nvcc's documentation, "GPU
feature list": machine code runs from its own capability on within the same major number, but neither from nor to a
Tegra; that of an architecture with its features (sm_90a) on that one only; that of a family (sm_100f) on the newer ones
of the family with the same major number. PTX runs on all that are as new, compute_90a on that one only, compute_100f on
the family.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Sequence
from pathlib import Path

RECORD = ".drydock/architectures"
# What torch._C._cuda_getArchFlags() returns, a constant of this library (torch/csrc/cuda/Module.cpp); only a build for
# CUDA has one.
_LIBRARY = "torch/lib/libtorch_python.so"
_LIST = re.compile(rb"\0(sm_[0-9]+[af]?(?: (?:sm|compute)_[0-9]+[af]?)*)(?=\0)")
_NAME = re.compile(r"(sm|compute)_([0-9]+)([0-9])([af]?)")
# Systems on a chip, from Tegra X1 to Orin. Thor is 11.0, and sm_110 is of nothing else.
_TEGRA = {(5, 3), (6, 2), (7, 2), (8, 7)}
_MAJORS = range(3, 20)


def of_torch(site: Path) -> tuple[str, ...]:
    """The architectures that the torch in a site-packages folder was built for; none where it does not say."""
    try:
        with open(site / _LIBRARY, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = set(_LIST.findall(content))
    except (OSError, ValueError):  # it is not there, or empty
        return ()
    return tuple(found.pop().decode().split()) if len(found) == 1 else ()


def recorded(env: Path) -> tuple[str, ...]:
    """What `record` wrote in an environment when it was built; none where it did not."""
    try:
        with open(env / RECORD, encoding="ascii") as file:
            names = tuple(file.readline().split())
    except (OSError, ValueError):
        return ()
    return names if all(map(_NAME.fullmatch, names)) else ()


def record(architectures: Sequence[str]) -> str:
    """The record of an environment: its architectures, the patterns and the words of them, a line each.

    templates/_gpu.sh.j2 reads it.
    """
    return f"{' '.join(architectures)}\n{' '.join(patterns(architectures))}\n{words(architectures)}\n"


def run_on(architectures: Sequence[str], capability: str) -> bool:
    """Whether they run on a GPU of that compute capability, such as "8.6".

    >>> ours = ("sm_80", "sm_86", "sm_100f", "compute_90")
    >>> [run_on(ours, one) for one in ("7.5", "8.0", "8.7", "8.9", "9.0", "10.3", "12.0")]
    [False, True, False, True, True, True, True]
    >>> [run_on(("sm_120",), one) for one in ("11.0", "12.0", "12.1")]
    [False, True, True]
    """
    major, minor = (int(number) for number in capability.split("."))
    return any(_runs(name, (major, minor)) for name in architectures)


def words(architectures: Sequence[str]) -> str:
    """The compute capabilities, as they are in the names.

    >>> words(("sm_75", "sm_120", "compute_120"))
    '7.5, 12.0, and newer by PTX'
    """
    found = [match for name in architectures if (match := _NAME.fullmatch(name)) is not None]
    said = [f"{match[2]}.{match[3]}{match[4]}" for match in found if match[1] == "sm"]
    return ", ".join([*said, *(["and newer by PTX"] if any(match[1] == "compute" for match in found) else [])])


def patterns(architectures: Sequence[str]) -> list[str]:
    """The compute capabilities that they run on, as patterns of sh.

    >>> patterns(("sm_75", "sm_80", "sm_120"))
    ['7.[5-9]', '8.[0-689]', '12.*']
    """
    found = []
    for major in _MAJORS:
        minors = [minor for minor in range(10) if run_on(architectures, f"{major}.{minor}")]
        if minors:
            found.append(f"{major}.{'*' if len(minors) == 10 else _class(minors)}")
    if run_on(architectures, f"{_MAJORS[-1] + 80}.0"):
        found.append("[2-9][0-9].*")
    return found


def _runs(name: str, capability: tuple[int, int]) -> bool:
    found = _NAME.fullmatch(name)
    if found is None:
        return False
    kind, own = found[1], (int(found[2]), int(found[3]))
    if found[4] == "a":
        return capability == own
    if kind == "compute" and not found[4]:
        return capability >= own
    if capability != own and {capability, own} & _TEGRA:
        return False
    return capability[0] == own[0] and capability[1] >= own[1]


def _class(digits: Sequence[int]) -> str:
    """Digits, as sh matches one of them.

    >>> _class([5, 6, 7, 8, 9]), _class([0, 1, 2, 3, 4, 5, 6, 8, 9]), _class([0])
    ('[5-9]', '[0-689]', '[0]')
    """
    runs: list[list[int]] = []
    for digit in digits:
        if runs and digit == runs[-1][-1] + 1:
            runs[-1].append(digit)
        else:
            runs.append([digit])
    return f"[{''.join(f'{run[0]}-{run[-1]}' if len(run) > 2 else ''.join(map(str, run)) for run in runs)}]"
