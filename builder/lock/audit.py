"""Known vulnerabilities of what a lock has, and which of them a profile acknowledges: `drydock audit`. Pure.

Advisories have the form of OSV (Open Source Vulnerability format, schema 1); several databases name the same one: each
name of it counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from builder.lock.model import Lock
from builder.profile.model import Profile


@dataclass(frozen=True)
class Advisory:
    """A known vulnerability of a package: its `id` and other names, and the versions that it is fixed in.

    `doubt` says why it could not be judged whether it is of this version, "" where it is.
    """

    package: str
    version: str
    id: str
    aliases: tuple[str, ...]
    summary: str
    fixed: tuple[str, ...]
    doubt: str = ""

    @property
    def names(self) -> set[str]:
        """All that it is called."""
        return {self.id, *self.aliases}

    def __str__(self) -> str:
        fixed = f"fixed in {', '.join(self.fixed)}" if self.fixed else "not fixed yet"
        cve = next((one for one in self.aliases if one.startswith("CVE-")), None)
        if self.doubt:
            fixed = f"could not be judged, as {self.doubt}"
        return f"{self.package} {self.version}: {self.id}{f' ({cve})' if cve else ''}, {fixed}: {self.summary}"


@dataclass(frozen=True)
class Audit:
    """What was `found` in so many `packages`, what is `acknowledged` and why, and which reasons are `unused`."""

    packages: int
    found: list[Advisory]
    acknowledged: list[tuple[Advisory, str]]
    unused: list[str]

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "packages": self.packages,
            "found": [asdict(one) for one in self.found],
            "acknowledged": [{**asdict(one), "reason": reason} for one, reason in self.acknowledged],
            "unused": self.unused,
        }


def packages(lock: Lock) -> list[tuple[str, str]]:
    """Name and version of all that a lock brings, what builds sources and uv too.

    The versions are without their local part: those of PyTorch's builds are the same code.
    """
    found = [*lock.packages, *lock.build_requires, lock.uv]
    return sorted({(one.name, Version(one.version).public) for one in found})


def of_uv(rows: Iterable[Mapping[str, Any]]) -> list[Advisory]:
    """The advisories in what `uv audit` prints (its schema "preview")."""
    found = []
    for row in rows:
        package = row.get("dependency")
        package = package if isinstance(package, dict) else {}
        name, version = _text(package.get("name")), _text(package.get("version"))
        aliases = tuple(str(one) for one in row.get("aliases") or ())
        fixed = tuple(str(one) for one in row.get("fix_versions") or ())
        summary = (_text(row.get("summary")) or _text(row.get("description"))).strip().partition("\n")[0]
        found.append(Advisory(name, version, str(row.get("id")), aliases, summary, fixed))
    return found


def audited(profile: Profile, lock: Lock, advisories: Iterable[Advisory]) -> Audit:
    """What of the advisories is new, and what the profile acknowledges."""
    reasons = profile.audit.acknowledge
    found, acknowledged, used = [], [], set[str]()
    for one in sorted(_merged(advisories), key=lambda one: (one.package, one.version, one.id)):
        named = [name for name in reasons if name in one.names]
        used |= set(named)
        if named:
            acknowledged.append((one, reasons[named[0]]))
        else:
            found.append(one)
    return Audit(len(packages(lock)), found, acknowledged, sorted(reasons.keys() - used))


def _merged(advisories: Iterable[Advisory]) -> list[Advisory]:
    """Each once, although several databases may have it."""
    merged: list[Advisory] = []
    for one in advisories:
        same = next((at for at, other in enumerate(merged) if _is_same(one, other)), None)
        if same is None:
            merged.append(one)
            continue
        other = merged[same]
        aliases = sorted((one.names | other.names) - {other.id})
        fixed = tuple(sorted({*one.fixed, *other.fixed}, key=_sortable))
        summary = other.summary or one.summary
        doubt = one.doubt and other.doubt  # what one database says plainly is known
        merged[same] = Advisory(other.package, other.version, other.id, tuple(aliases), summary, fixed, doubt)
    return merged


def _is_same(one: Advisory, other: Advisory) -> bool:
    return (one.package, one.version) == (other.package, other.version) and bool(one.names & other.names)


def _sortable(text: str) -> tuple[bool, Version]:
    try:
        return True, Version(text)
    except InvalidVersion:
        return False, Version("0")


def matching(record: Mapping[str, Any], wanted: Sequence[tuple[str, str]]) -> Iterator[Advisory]:
    """What a record of OSV says of packages: name and version of each that it is about.

    A record that is withdrawn, or of no package, says nothing; one whose versions cannot be compared is in doubt. (OSV
    schema, "affected[].versions" and "ranges".)
    """
    if not isinstance(record.get("id"), str) or record.get("withdrawn"):
        return
    for name, version in wanted:
        rows = [one for one in _rows(record.get("affected")) if _is_of(one, name)]
        verdicts = [_verdict(one, version) for one in rows]
        if not all(verdict is None for verdict in verdicts):
            doubt = "" if "" in verdicts else next(verdict for verdict in verdicts if verdict)
            aliases = tuple(str(one) for one in record.get("aliases") or ())
            text = str(record.get("summary") or record.get("details") or "").strip()
            events = (event for one in rows for each in _ranges(one) for event in _events(each))
            fixed = {_text(event.get("fixed")) for event in events} - {""}
            later = sorted((one for one in fixed if _sortable(one) > _sortable(version)), key=_sortable)
            yield Advisory(name, version, record["id"], aliases, text.partition("\n")[0], tuple(later), doubt)


def _rows(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _is_of(affected: Mapping[str, Any], name: str) -> bool:
    package = affected.get("package")
    if not isinstance(package, dict) or package.get("ecosystem") != "PyPI":
        return False
    return canonicalize_name(_text(package.get("name"))) == name


def _ranges(affected: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The ranges of versions; those of commits are of the source code, and stand beside these or a list."""
    return [one for one in _rows(affected.get("ranges")) if one.get("type") != "GIT"]


def _events(versions: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return _rows(versions.get("events"))


def _verdict(affected: Mapping[str, Any], version: str) -> str | None:
    """None where a version is not affected, "" where it is, else why that cannot be judged."""
    listed = affected.get("versions")
    listed = listed if isinstance(listed, list) else []
    if any(_is_version(one, version) for one in listed):
        return ""
    ranges = _ranges(affected)
    if not listed and not ranges:
        return "it names no versions"
    verdicts = [_within(_events(one), version) for one in ranges]
    return "" if "" in verdicts else next((verdict for verdict in verdicts if verdict), None)


def _is_version(text: Any, version: str) -> bool:
    try:
        return Version(_text(text)).public == Version(version).public
    except InvalidVersion:
        return False


def _within(events: Sequence[Mapping[str, Any]], version: str) -> str | None:
    """As `_verdict`, for one range, whose events are gone through in their order."""
    steps: list[tuple[Version, int, bool]] = []
    for event in events:
        for key, order, begins in (("introduced", 1, True), ("fixed", 0, False), ("last_affected", 2, False)):
            if not (text := _text(event.get(key))):
                continue
            try:
                # "0" is before all versions (OSV schema, "affected[].ranges[].events").
                steps.append((Version("0.dev0" if text == "0" and begins else text), order, begins))
            except InvalidVersion:
                return f'"{text}" is no version of PEP 440'
    if not any(begins for _, _, begins in steps):
        return "a range of it has no beginning"
    here, affected = Version(version), False
    for bound, order, begins in sorted(steps):
        if bound > here or (bound == here and order == 2):
            break
        affected = begins
    return "" if affected else None
