"""PEP 751: `pylock.toml`, which pip >= 26.1 and uv install as it is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w
from packaging.markers import Marker
from packaging.pylock import Package, PackageSdist, PackageWheel, Pylock
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from builder.lock.model import Artefact
from builder.script.plan import Plan
from builder.share.export.header import first_lines
from builder.share.export.urls import Place


def pylock(plan: Plan, places: Mapping[str, Place], beside: Path) -> str:
    """The text of a `pylock.toml`: one file per package, for one Python on one platform.

    `places` has the place of each file by its name; paths are written as seen from the folder `beside`.
    """
    target = plan.profile.target
    marker = f"sys_platform == '{target.system.lower()}' and platform_machine == '{target.machine}'"
    python = plan.profile.python
    lock = Pylock(
        lock_version=Version("1.0"),
        environments=[Marker(marker)],
        requires_python=SpecifierSet(f"=={python.release or f'{python.series}.*'}"),
        created_by="drydock",
        packages=[_package(package, places[package.file], beside) for package in plan.lock.packages],
        tool={"drydock": {"profile": plan.profile.name, "key": plan.key}},
    )
    data = dict(lock.to_dict())
    Pylock.from_dict(data)
    return "".join(f"{line}\n" for line in first_lines(plan)) + "\n" + tomli_w.dumps(data)


def _package(package: Artefact, place: Place, beside: Path) -> Package:
    file: dict[str, Any] = {
        "name": package.file,
        "upload_time": place.uploaded,
        "size": package.size or None,
        "hashes": {"sha256": package.sha256},
    }
    if place.path is not None:
        file["path"] = _seen_from(beside, place.path)
    else:
        file["url"] = place.url
    name, version = canonicalize_name(package.name), Version(package.version)
    if package.is_wheel:
        return Package(name=name, version=version, wheels=[PackageWheel(**file)])
    return Package(name=name, version=version, sdist=PackageSdist(**file))


def _seen_from(folder: Path, path: Path) -> str:
    """Relative where the file is in or below the folder, so that both can move together; else absolute."""
    whole = Path(os.path.normpath(path.absolute()))
    return whole.relative_to(folder).as_posix() if whole.is_relative_to(folder) else str(whole)
