"""Which GPUs of NVIDIA the kernels of a PyTorch run on.

A wheel has machine code for some compute capabilities (sm_86), and may have PTX, which a driver compiles for newer ones
(compute_86). NVIDIA, "CUDA C++ Programming Guide", "Application compatibility", and nvcc's documentation, "GPU feature
list": machine code runs from its own capability on within the same major number, but neither from nor to a Tegra; that
of an architecture with its features (sm_90a) on that one only; that of a family (sm_100f) on the newer ones of the
family with the same major number. PTX runs on all that are as new, compute_90a on that one only, compute_100f on the
family.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from packaging.version import Version

_OLD = "sm_50 sm_60 sm_70 sm_75 sm_80 sm_86 sm_90"
_BLACKWELL = "sm_75 sm_80 sm_86 sm_90 sm_100 sm_120"
_ARM = "sm_80 sm_90 sm_100 sm_110 sm_120"
# By processor and release of CUDA: the first release of torch that it is known of, and its own list of architectures,
# torch._C._cuda_getArchFlags(), which stands in torch/lib/libtorch_python.so of the wheel. Read in the wheels of 2.5.1
# and 2.6.0 (12.4), 2.7.1 (12.6), 2.8.0 to 2.10.0 (12.8), 2.11.0 to 2.13.0 (13.0), 2.14.0 and 2.15.0 (13.2), and of
# aarch64 2.11.0 to 2.13.0, 2.15.0. None of them has PTX.
_BUILT_FOR = {
    ("x86_64", "12.4"): ("2.5", _OLD),
    ("x86_64", "12.6"): ("2.6", _OLD),
    ("x86_64", "12.8"): ("2.8", f"sm_70 {_BLACKWELL}"),
    ("x86_64", "13.0"): ("2.11", _BLACKWELL),
    ("x86_64", "13.2"): ("2.14", _BLACKWELL),
    ("aarch64", "13.0"): ("2.11", _ARM),
    ("aarch64", "13.2"): ("2.14", _ARM),
}
# Systems on a chip, from Tegra X1 to Orin. Thor is 11.0, and sm_110 is of nothing else.
_TEGRA = {(5, 3), (6, 2), (7, 2), (8, 7)}
_NAME = re.compile(r"(sm|compute)_([0-9]+)([0-9])([af]?)")
_MAJORS = range(3, 20)


@dataclass(frozen=True)
class Kernels:
    """What a build has kernels for; `build` says which it is, for people."""

    build: str
    architectures: tuple[str, ...]

    def run_on(self, capability: str) -> bool:
        """Whether they run on a GPU of that compute capability, such as "8.6".

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

    @property
    def pattern(self) -> str:
        """The compute capabilities that they run on, as a pattern of sh.

        >>> Kernels("", ("sm_75", "sm_80", "sm_120")).pattern
        '7.[5-9]|8.[0-689]|12.*'
        """
        found = []
        for major in _MAJORS:
            minors = [minor for minor in range(10) if self.run_on(f"{major}.{minor}")]
            if minors:
                found.append(f"{major}.{'*' if len(minors) == 10 else _class(minors)}")
        if self.run_on(f"{_MAJORS[-1] + 80}.0"):
            found.append("[2-9][0-9].*")
        return "|".join(found)


def kernels(torch: str, cuda: str, machine: str) -> Kernels | None:
    """Those of a release of torch for a release of CUDA; `machine` is what `uname -m` says. None where not known.

    >>> kernels("2.13.0+cu130", "13.0", "aarch64").words
    '8.0, 9.0, 10.0, 11.0, 12.0'
    """
    public = Version(torch).public
    first, names = _BUILT_FOR.get((machine, cuda), (None, ""))
    if first is None or Version(public) < Version(first):
        return None
    return Kernels(f"torch {public} for CUDA {cuda}", tuple(names.split()))


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
