"""Which GPUs of NVIDIA a PyTorch has kernels for: as recorded where it is installed, else as known of its release.

A library has machine code for some compute capabilities (sm_86), and may have PTX, which a driver compiles for newer
ones (compute_86). NVIDIA, "CUDA C++ Programming Guide", "Application compatibility", and nvcc's documentation, "GPU
feature list": machine code runs from its own capability on within the same major number, but neither from nor to a
Tegra; that of an architecture with its features (sm_90a) on that one only; that of a family (sm_100f) on the newer ones
of the family with the same major number. PTX runs on all that are as new, compute_90a on that one only, compute_100f on
the family.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from packaging.version import Version

_NAME = re.compile(r"(sm|compute)_([0-9]+)([0-9])([af]?)")
# Systems on a chip, from Tegra X1 to Orin. Thor is 11.0, and sm_110 is of nothing else.
_TEGRA = {(5, 3), (6, 2), (7, 2), (8, 7)}

_OLD = "sm_50 sm_60 sm_70 sm_75 sm_80 sm_86 sm_90"
_BLACKWELL = "sm_75 sm_80 sm_86 sm_90 sm_100 sm_120"
_ARM = "sm_80 sm_90 sm_100 sm_110 sm_120"
# By processor and release of CUDA: the first and the last release of torch that it is known of, and the list of
# architectures in its wheel (builder/embedded/architectures.py says where). Read in the wheels of 2.5.1 and 2.6.0
# (12.4), 2.7.1 (12.6), 2.8.0 to 2.10.0 (12.8), 2.11.0 to 2.14.1 (13.0), 2.14.0 and 2.15.0 (13.2), and of aarch64 2.11.0
# to 2.13.0, 2.15.0. None of them has PTX.
_BUILT_FOR = {
    ("x86_64", "12.4"): ("2.5", "2.6", _OLD),
    ("x86_64", "12.6"): ("2.6", "2.7", _OLD),
    ("x86_64", "12.8"): ("2.8", "2.10", f"sm_70 {_BLACKWELL}"),
    ("x86_64", "13.0"): ("2.11", "2.14", _BLACKWELL),
    ("x86_64", "13.2"): ("2.14", "2.15", _BLACKWELL),
    ("aarch64", "13.0"): ("2.11", "2.13", _ARM),
    ("aarch64", "13.2"): ("2.14", "2.15", _ARM),
}


@dataclass(frozen=True)
class Kernels:
    """What a build has kernels for, nothing where that is not known; `build` says which it is, for people."""

    build: str
    architectures: tuple[str, ...]

    @property
    def known(self) -> bool:
        """Whether it is known what it has kernels for."""
        return bool(self.architectures)

    def run_on(self, capability: str) -> bool:
        """Whether they run on a GPU of that compute capability, such as "8.6".

        The generated scripts have the same rule (templates/_gpu.sh.j2, runs_on).

        >>> ours = Kernels("torch", ("sm_80", "sm_86", "sm_100f", "compute_90"))
        >>> [ours.run_on(one) for one in ("7.5", "8.0", "8.7", "8.9", "9.0", "10.3", "12.0")]
        [False, True, False, True, True, True, True]
        >>> [Kernels("", ("sm_120",)).run_on(one) for one in ("11.0", "12.0", "12.1")]
        [False, True, True]
        """
        major, minor = (int(number) for number in capability.split("."))
        return any(_runs(name, (major, minor)) for name in self.architectures)

    @property
    def words(self) -> str:
        """The compute capabilities, as they are in the names.

        >>> Kernels("", ("sm_75", "sm_120", "compute_120")).words
        '7.5, 12.0, and newer by PTX'
        """
        found = [match for name in self.architectures if (match := _NAME.fullmatch(name)) is not None]
        words = [f"{match[2]}.{match[3]}{match[4]}" for match in found if match[1] == "sm"]
        return ", ".join([*words, *(["and newer by PTX"] if any(match[1] == "compute" for match in found) else [])])


def kernels(torch: str, cuda: str, machine: str, recorded: Sequence[str] = ()) -> Kernels:
    """Those of a release of torch for a release of CUDA: the `recorded` ones, else what is known of such a release.

    `machine` is what `uname -m` says.

    >>> kernels("2.13.0+cu130", "13.0", "aarch64").words
    '8.0, 9.0, 10.0, 11.0, 12.0'
    >>> kernels("2.99.0", "13.0", "aarch64").known
    False
    """
    version = Version(torch)
    names = tuple(recorded)
    first, last, known = _BUILT_FOR.get((machine, cuda), ("", "", ""))
    if (
        not names
        and first
        and Version(first) <= Version(version.public)
        and version.release[:2] <= Version(last).release
    ):
        names = tuple(known.split())
    return Kernels(f"torch {version.public} for CUDA {cuda}", names)


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
