"""Which CUDA a locked package is for, and for which GPUs the locked torch has kernels. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from builder.profile.architectures import Kernels


class Named(Protocol):
    """A package as a lock has it."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...


# Components whose version is that of the CUDA release; cuDNN, NCCL and the mathematical libraries count by themselves.
_OF_THE_RELEASE = r"cuda-toolkit|nvidia-(?:cuda-runtime|cuda-nvrtc|cuda-cupti|nvtx|nvjitlink)(?:-cu[0-9]+)?"
_NAMED = r"nvidia-.*-cu([0-9]+)|(?:jax|mlx|cupy)-cuda-?([0-9]+)x?(?:-.*)?"


def cuda_of(package: Named) -> str | None:
    """The CUDA release of a package; the major number alone where its name says no more.

    >>> from builder.lock.outline import Package
    >>> def of(name, version): return cuda_of(Package(name, version, "f", 0, ""))
    >>> of("torch", "2.6.0+cu124"), of("nvidia-cuda-runtime-cu12", "12.4.127"), of("nvidia-cudnn-cu12", "9.1.0.70")
    ('12.4', '12.4', '12')
    >>> of("jax-cuda13-plugin", "0.9"), of("mlx-cuda-12", "0.30"), of("cupy-cuda12x", "13.0"), of("nvidia-ml-py", "13")
    ('13', '12', '12', None)
    >>> of("cupy-cuda111", "12.3.0")
    '11.1'
    """
    if local := re.search(r"\+cu([0-9]+)([0-9])(?:[.]|$)", package.version):
        return f"{local[1]}.{local[2]}"
    if re.fullmatch(_OF_THE_RELEASE, package.name):
        return ".".join(package.version.split(".")[:2])
    if exact := re.fullmatch(r"cupy-cuda([0-9]+)([0-9])", package.name):
        return f"{exact[1]}.{exact[2]}"
    named = re.fullmatch(_NAMED, package.name)
    return (named[1] or named[2]) if named else None


def kernels_of(machine: str, packages: Sequence[Named], recorded: Sequence[str] = ()) -> Kernels | None:
    """Which GPUs the locked torch has kernels for; None where there is no torch for CUDA.

    `machine` is the processor of the target. `recorded` is what was read in it when it was installed
    (builder.embedded.architectures), nothing where it is not.
    """
    from builder.profile import architectures  # most locks are for no CUDA

    torch = next((one for one in packages if one.name == "torch"), None)
    releases = [release for one in packages if (release := cuda_of(one)) is not None and "." in release]
    if torch is None or not releases:
        return None
    own = cuda_of(torch) or next((cuda_of(one) for one in packages if one.name.startswith("nvidia-cuda-runtime")), None)
    return architectures.kernels(torch.version, own, machine, recorded) if own is not None else None
