"""Known vulnerabilities of what is locked, by a snapshot of advisories in OSV's format. Fails closed.

A snapshot is what OSV publishes for an ecosystem, PyPI/all.zip, or a folder of the same files; nothing is asked of a
network. What cannot be read, and what an advisory leaves open, is said and counts as found (https://ossf.github.io/osv-schema).
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from builder.errors import DrydockError, UsageError
from builder.lock.model import Artefact, Lock

_LARGEST = 1 << 24
"""Bytes of one advisory, at most."""


@dataclass(frozen=True)
class Finding:
    """An advisory about a locked package: `fixed` are the releases that repair it, `reason` why it is acknowledged."""

    package: str
    version: str
    advisory: str
    aliases: tuple[str, ...]
    summary: str
    fixed: tuple[str, ...]
    reason: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All names of the advisory."""
        return (self.advisory, *self.aliases)


@dataclass(frozen=True)
class Audit:
    """What was found; `asked` packages were looked for among `advisories`, the newest of which is of the day `newest`.
    `needless` are acknowledged, and about nothing that is locked.
    """

    findings: tuple[Finding, ...]
    asked: int
    advisories: int
    newest: str
    needless: tuple[str, ...]

    @property
    def open(self) -> list[Finding]:
        """What is not acknowledged."""
        return [one for one in self.findings if one.reason is None]


def audit(lock: Lock, snapshot: Path, acknowledged: Mapping[str, str]) -> Audit:
    """Look for everything that is locked. Raises DrydockError where the snapshot is none, or cannot be read whole."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    newest, count = "", 0
    for advisory in _read(snapshot):
        count += 1
        newest = max(newest, str(advisory.get("modified", ""))[:10])
        if "withdrawn" in advisory:
            continue
        for name in {_package(affected) for affected in advisory["affected"]} - {None}:
            by_name.setdefault(str(name), []).append(advisory)
    if not by_name:
        raise DrydockError(
            f"{snapshot} has no advisory about a package of PyPI, so that nothing was looked for",
            hint="OSV publishes them as PyPI/all.zip",
        )
    packages = [*lock.packages, *lock.build_requires, lock.uv]
    found = [
        one
        for package in packages
        for advisory in by_name.get(package.name, ())
        if (one := _finding(package, advisory, acknowledged)) is not None
    ]
    unique = tuple(dict.fromkeys(sorted(found, key=lambda one: (one.package, one.advisory))))
    used = {name for one in unique for name in one.names}
    needless = tuple(sorted(name for name in acknowledged if name not in used))
    return Audit(unique, len(packages), count, newest, needless)


def _read(snapshot: Path) -> Iterator[dict[str, Any]]:
    try:
        if snapshot.is_dir():
            texts = ((path.name, path.read_bytes()) for path in sorted(snapshot.rglob("*.json")))
            yield from (_advisory(name, text) for name, text in texts)
            return
        with zipfile.ZipFile(snapshot) as archive:
            for info in archive.infolist():
                if not info.filename.endswith(".json"):
                    continue
                if info.file_size > _LARGEST:
                    raise DrydockError(f"{snapshot}: {info.filename} is larger than any advisory")
                yield _advisory(info.filename, archive.read(info))
    except (OSError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"{snapshot} cannot be read: {error}", hint="name OSV's PyPI/all.zip, or a folder of its files"
        ) from None


def _advisory(name: str, text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
        if isinstance(found, dict) and isinstance(found["id"], str):
            found["affected"] = [one for one in found.get("affected", ()) if isinstance(one, dict)]
            return found
    except (ValueError, KeyError, TypeError):
        pass
    raise DrydockError(f"{name} is no advisory of OSV, so that the snapshot is not whole", hint="fetch it again")


def _package(affected: Mapping[str, Any]) -> str | None:
    package = affected.get("package", {})
    return str(canonicalize_name(package["name"])) if package.get("ecosystem") == "PyPI" else None


def _finding(package: Artefact, advisory: Mapping[str, Any], acknowledged: Mapping[str, str]) -> Finding | None:
    mine = [one for one in advisory["affected"] if _package(one) == package.name]
    if not any(_affects(one, package.version) for one in mine):
        return None
    aliases = tuple(str(name) for name in advisory.get("aliases", ()))
    events = (event for one in mine for events in one.get("ranges", ()) for event in events.get("events", ()))
    fixed = dict.fromkeys(str(event["fixed"]) for event in events if "fixed" in event)
    reason = next((acknowledged[name] for name in (advisory["id"], *aliases) if name in acknowledged), None)
    summary = str(advisory.get("summary") or advisory.get("details") or "").strip().partition("\n")[0]
    return Finding(package.name, package.version, advisory["id"], aliases, summary, tuple(fixed), reason)


def _affects(affected: Mapping[str, Any], version: str) -> bool:
    """Whether a release is among those that are affected; also where that cannot be told.

    >>> def by(*events): return {"ranges": [{"type": "ECOSYSTEM", "events": list(events)}]}
    >>> [_affects(by({"introduced": "0"}, {"fixed": "2.6.0"}), one) for one in ("2.5.1", "2.6.0", "2.13.0+cpu")]
    [True, False, False]
    >>> [_affects({"versions": ["1.0"]}, one) for one in ("1.0", "1.1")], _affects({}, "1.0")
    ([True, False], True)
    """
    here = Version(Version(version).public)
    versions, ranges = affected.get("versions", ()), affected.get("ranges", ())
    known = [one for one in ranges if one.get("type") == "ECOSYSTEM"]
    if not versions and not known:
        return True
    try:
        listed = any(Version(one) == here for one in versions if _is_version(one))
        return listed or any(_in_range(one.get("events", ()), here) for one in known)
    except (InvalidVersion, TypeError, KeyError):
        return True


def _is_version(text: str) -> bool:
    """Whether it is a version by PEP 440: old releases with others cannot be locked."""
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True


def _in_range(events: list[Mapping[str, str]], here: Version) -> bool:
    """OSV's own rule: the events in the order of their versions, each turning it on or off."""
    inside = False
    order = {"introduced": 0, "fixed": 1, "last_affected": 2, "limit": 1}
    points = [(kind, text) for event in events for kind, text in event.items() if kind in order]
    for kind, text in sorted(points, key=lambda one: (Version("0a0" if one[1] == "0" else one[1]), order[one[0]])):
        point = Version("0a0") if text == "0" else Version(text)
        if kind == "introduced" and here >= point:
            inside = True
        elif (kind in ("fixed", "limit") and here >= point) or (kind == "last_affected" and here > point):
            inside = False
    return inside
