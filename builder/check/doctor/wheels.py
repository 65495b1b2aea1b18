"""Requirements of wheels from their names (PEP 425, PEP 600; local versions of PyTorch's own index)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from builder.lock.cuda import cuda_of
from builder.lock.outline import Package
from builder.machine.fit import numbers

_LEGACY = {"manylinux2014": "2.17", "manylinux2010": "2.12", "manylinux1": "2.5"}  # PEP 599, 571, 513


@dataclass(frozen=True)
class Need:
    """The newest `version` that any package needs, and the package with the name of its file."""

    version: str
    package: str
    file: str

    def __str__(self) -> str:
        return f"{self.package}, {self.file}"


def system_need(packages: Iterable[Package]) -> Need | None:
    """The glibc, or the macOS, that the wheels need; None where no wheel needs any."""
    return _newest(Need(least, one.name, one.file) for one in packages if (least := system_of(one.file)) is not None)


def system_of(file: str) -> str | None:
    """The oldest glibc, or macOS, that a wheel runs on: the least of its tags. None for any, and for a source.

    >>> system_of("m-6-cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.manylinux_2_28_x86_64.whl")
    '2.17'
    >>> system_of("numpy-2.3.1-cp311-cp311-macosx_14_0_arm64.whl"), system_of("click-8.2.1-py3-none-any.whl")
    ('14.0', None)
    """
    tags = file.removesuffix(".whl").rpartition("-")[2].split(".") if file.endswith(".whl") else []
    versions = [_version_of(tag) for tag in tags]
    found = [version for version in versions if version is not None]
    return None if len(found) < len(tags) or not found else min(found, key=numbers)


def _version_of(tag: str) -> str | None:
    if found := re.match(r"(?:manylinux|macosx)_([0-9]+)_([0-9]+)_", tag):
        return f"{found[1]}.{found[2]}"
    return _LEGACY.get(tag.partition("_")[0])


def cuda_need(packages: Iterable[Package]) -> Need | None:
    """The CUDA release that the wheels are built for; None where they are for none."""
    return _newest(Need(release, one.name, one.file) for one in packages if (release := cuda_of(one)) is not None)


def _newest(needs: Iterator[Need]) -> Need | None:
    return max(needs, key=lambda need: numbers(need.version), default=None)
