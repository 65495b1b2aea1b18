"""Which GPUs of NVIDIA a PyTorch has kernels for: as recorded where it is installed, else as known of its release."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from packaging.version import Version

from builder.embedded import architectures

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
        """Whether they run on a GPU of that compute capability, such as "8.6"."""
        return architectures.run_on(self.architectures, capability)

    @property
    def words(self) -> str:
        """The compute capabilities, as they are in the names."""
        return architectures.words(self.architectures)

    @property
    def patterns(self) -> str:
        """The compute capabilities that they run on, as patterns of sh."""
        return " ".join(architectures.patterns(self.architectures))


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
