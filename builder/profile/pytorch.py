"""Which build of PyTorch is for a target: each has an index of its own, and says itself in its version.

PyTorch publishes every release for processors and for a few releases of CUDA. A build is called cpu or cu128, is at the
end of its index's address, and is the local part of a version: 2.8.0+cu128 (https://pytorch.org/get-started/locally).
What the default index has is one of them, and another with each release.
"""

from __future__ import annotations

import re

from packaging.version import Version

from builder.profile.target import Target

_INDEXES = "https://download.pytorch.org/whl/"
_NAME = re.compile(r"pytorch-(cpu|cu[0-9]{3}|rocm[0-9]{2}|xpu)")
_OF_ALL = ("torch", "torchvision", "torchaudio")
_OF_CUDA = (*_OF_ALL, "xformers")  # facebookresearch/xformers, README, "Installing xFormers"
PACKAGES = _OF_CUDA
"""What has a build of its own for each of PyTorch. Triton has not: the default index has the one for all."""
BUILD = re.compile(r"(?:cpu|cu[0-9]+|rocm[0-9.]+|xpu)(?:\.cxx11\.abi)?")
"""A local version that says what a wheel was built for."""


def build(target: Target) -> str | None:
    """The build for a target; None for macOS, where there is one, on the default index.

    >>> build(Target(platform="linux-x86_64", accelerator="cuda", cuda="12.8", glibc="2.28"))
    'cu128'
    >>> build(Target(platform="linux-x86_64", accelerator="rocm", rocm="7.1", glibc="2.28"))
    'rocm7.1'
    """
    if target.platform == "macos-arm64":
        return None
    if target.accelerator in ("rocm", "xpu"):
        return f"rocm{target.rocm}" if target.rocm is not None else "xpu"
    return "cpu" if target.cuda is None else f"cu{target.cuda.replace('.', '')}"


def packages(build: str) -> tuple[str, ...]:
    """What comes from the index of a build."""
    if build.startswith(("rocm", "xpu")):
        # Of Triton they have builds of their own: pytorch-triton-rocm, from 2.10 on triton-rocm, and those for xpu. As
        # the default index has none, a profile requires them by name.
        return (*_OF_ALL, "pytorch-triton-rocm", "triton-rocm", "pytorch-triton-xpu", "triton-xpu")
    return _OF_ALL if build == "cpu" else _OF_CUDA


def index(build: str) -> str:
    """The logical name of the index of a build, which has no dot, as DRYDOCK_INDEX_NAME has none.

    >>> index("cu128"), index("rocm7.1")
    ('pytorch-cu128', 'pytorch-rocm71')
    """
    return f"pytorch-{build.replace('.', '')}"


def url(name: str) -> str | None:
    """The address of the index of that logical name; None where it is not PyTorch's.

    >>> url("pytorch-cu128"), url("team")
    ('https://download.pytorch.org/whl/cu128', None)
    >>> url("pytorch-rocm71")
    'https://download.pytorch.org/whl/rocm7.1'
    """
    found = _NAME.fullmatch(name)
    return _INDEXES + re.sub("rocm([0-9])", r"rocm\1.", found[1]) if found else None


def build_of(version: str) -> str | None:
    """The build that a version says it is; None where it says none.

    >>> build_of("2.8.0+cu128"), build_of("2.8.0"), build_of("1.0+ours.3"), build_of("2.8.*")
    ('cu128', None, None, None)
    """
    local = Version(version.removesuffix(".*")).local
    return local if local is not None and BUILD.fullmatch(local) else None


def build_at(url: str) -> str | None:
    """The build whose releases an index has, by its address, which a mirror may have too; None for any other.

    >>> build_at("https://mirror.example/pytorch/whl/cu128/"), build_at("https://mirror.example/simple")
    ('cu128', None)
    """
    found = re.search(r"/whl/(cpu|cu[0-9]+|rocm[0-9.]+|xpu)/?$", url)
    return found[1] if found else None


def cuda(build: str) -> str | None:
    """The CUDA release of a build; None for another.

    >>> cuda("cu128"), cuda("cu130"), cuda("cpu")
    ('12.8', '13.0', None)
    """
    found = re.fullmatch(r"cu([0-9]+)([0-9])", build)
    return f"{found[1]}.{found[2]}" if found else None
