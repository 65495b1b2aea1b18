"""Licences of packages, from the METADATA of their wheels."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO
from zipfile import BadZipFile, ZipFile

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.metadata import parse_email
from packaging.utils import canonicalize_name

from builder.embedded.installed import site_packages
from builder.errors import LockError
from builder.lock.model import Artefact
from builder.project.catalogue import Entry
from builder.script.plan import Plan
from builder.share.export.remote import Remote, get
from builder.share.export.urls import Place, find_places
from builder.store.layout import Store

_LIMIT = 4 << 20
_LONGEST_NAME = 100
"""Characters; some packages have the whole text of their licence in the field for its name."""


@dataclass(frozen=True)
class Licence:
    """An SPDX `expression`, or else the `names` that a package gives."""

    expression: str | None = None
    names: tuple[str, ...] = ()


def licence(metadata: str) -> Licence | None:
    """Return the licence in a METADATA file (core metadata, PEP 639 and before); None where there is none.

    >>> licence("License: MIT"), licence("Classifier: License :: OSI Approved :: BSD License")
    (Licence(expression='MIT', names=()), Licence(expression=None, names=('BSD License',)))
    """
    raw, _ = parse_email(metadata)
    for text in (raw.get("license_expression"), raw.get("license")):
        try:
            if text and len(text) <= _LONGEST_NAME:
                return Licence(expression=str(canonicalize_license_expression(text)))
        except InvalidLicenseExpression:
            continue
    classifiers = [text.split(" :: ")[-1] for text in raw.get("classifiers", ()) if text.startswith("License :: ")]
    names = dict.fromkeys(name for name in classifiers if name != "OSI Approved")
    said = " ".join((raw.get("license") or "").split())
    if not names and said and len(said) <= _LONGEST_NAME and said.upper() != "UNKNOWN":
        names = {said: None}
    return Licence(names=tuple(names)) if names else None


def find_licences(entry: Entry, wheels: Path | None) -> dict[str, Licence]:
    """Return the licence of each package that has one, by name: from the environment, the folder `wheels`, or else
    the wheels' index, unless UV_OFFLINE is set.
    """
    plan = entry.plan
    packages = [*plan.lock.packages, *plan.lock.build_requires]
    found = _built(plan)
    rest = [package for package in plan.lock.packages if package.name not in found]
    if rest:
        found |= _elsewhere(entry, rest, wheels)
    licences = {package.name: licence(found[package.name]) for package in packages if package.name in found}
    return {name: one for name, one in licences.items() if one is not None}


def _built(plan: Plan) -> dict[str, str]:
    """Return the METADATA of the packages in the environment of this key."""
    if not Store.here().is_built(plan.store_name):
        return {}
    site = site_packages(Store.here().path(plan.store_name))
    found = {}
    for path in sorted(site.glob("*.dist-info/METADATA")):
        text = path.read_text(encoding="utf-8", errors="replace")
        found[canonicalize_name(parse_email(text)[0].get("name", ""))] = text
    return {str(name): text for name, text in found.items()}


def _elsewhere(entry: Entry, packages: list[Artefact], wheels: Path | None) -> dict[str, str]:
    offline = bool(os.environ.get("UV_OFFLINE"))
    try:
        places: Mapping[str, Place] = find_places(entry, wheels)
    except LockError:
        if not offline:
            raise
        places = {}

    def text(package: Artefact) -> str | None:
        place = places.get(package.file)
        if place is None or not package.is_wheel:
            return None
        if place.path is not None:
            return _in_wheel(place.path)
        return None if offline or place.url is None else _on_index(place.url, package)

    with ThreadPoolExecutor(8) as threads:
        texts = list(threads.map(text, packages))
    return {package.name: found for package, found in zip(packages, texts, strict=True) if found is not None}


def _in_wheel(wheel: Path | IO[bytes]) -> str | None:
    try:
        with ZipFile(wheel) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            with archive.open(name) as file:
                return file.read(_LIMIT).decode(errors="replace")
    # What a file that is no wheel, and a server that gives something else, can bring zipfile to.
    except (OSError, HTTPException, BadZipFile, StopIteration, ValueError, EOFError, RuntimeError, zlib.error):
        return None


def _on_index(url: str, package: Artefact) -> str | None:
    """The METADATA of a wheel on an index: as a file of its own (PEP 658), else out of the wheel, of which only that
    part is fetched. None where the index has neither, and for that of another package.
    """
    try:
        text: str | None = get(f"{url}.metadata", _LIMIT).decode(errors="replace")
    except (OSError, HTTPException):
        text = _in_wheel(io.BufferedReader(Remote(url, package.size), 1 << 16)) if package.size else None
    raw, _ = parse_email(text or "")
    same = canonicalize_name(raw.get("name", "")) == package.name and raw.get("version") == package.version
    return text if same else None
