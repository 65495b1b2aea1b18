"""Known vulnerabilities of what is locked: `drydock audit`, from OSV by uv, or from a copy of its data."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from builder import uv
from builder.embedded.words import plural
from builder.errors import DrydockError, ToolError, UsageError
from builder.lock.advisories import of_copy
from builder.lock.audit import Advisory, Audit, audited, of_uv, packages

if TYPE_CHECKING:
    from builder.project.catalogue import Catalogue, Entry
    from builder.report import Reporter


def audit(
    names: Iterable[str],
    catalogue: Catalogue,
    report: Reporter,
    *,
    service: str | None = None,
    data: Path | None = None,
) -> dict[str, Audit]:
    """What is known of the packages that profiles lock, by profile.

    OSV's API is asked, at its own place or that of `service`; with `data`, a copy on this disk, and nobody is asked.
    Raises UsageError, LockError where a lock is stale, ToolError where it could not be asked.
    """
    if service is not None and data is not None:
        raise UsageError("--service and --data exclude each other", hint="--data asks nobody")
    found: dict[str, Audit] = {}
    known: dict[tuple[tuple[str, str], ...], list[Advisory]] = {}
    for name in names:
        entry = catalogue.entry(name)
        entry.check_fresh()
        wanted = tuple(packages(entry.lock))
        if wanted not in known:
            with report.busy(f"asking for vulnerabilities of {name}"):
                known[wanted] = _query_advisories(entry, wanted, service) if data is None else of_copy(data, wanted)
        one = audited(entry.profile, entry.lock, known[wanted])
        found[name] = replace(one, unused=[reason for reason in one.unused if _is_own(entry, reason)])
    return found


def check(found: dict[str, Audit]) -> None:
    """Raise DrydockError where anything is found that no profile acknowledges."""
    bad = {name: one for name, one in found.items() if one.found}
    if bad:
        raise DrydockError(
            f"{counted([advisory for one in bad.values() for advisory in one.found])} in {', '.join(bad)}",
            hint=f"newer versions: drydock update; one that is accepted: [audit.acknowledge] in {next(iter(bad))}.toml",
        )


def counted(found: Sequence[Advisory]) -> str:
    """How many known vulnerabilities there are, and of how many it could not be judged, in words."""
    known, doubts = sum(not one.doubt for one in found), sum(bool(one.doubt) for one in found)
    words = f"{known or 'no'} known vulnerabilit{'ies' if known > 1 else 'y'}"
    return f"{words}, and {plural(doubts, 'advisory')} that could not be judged" if doubts else words


def _query_advisories(entry: Entry, wanted: Sequence[tuple[str, str]], service: str | None) -> list[Advisory]:
    try:
        with tempfile.TemporaryDirectory(prefix="drydock-audit-") as work:
            return of_uv(uv.audit(wanted, entry.profile.python.series, Path(work), service))
    except ToolError as error:
        raise ToolError(
            f"nothing is known of the packages of {entry.name}, as OSV was not reached. {error.message}",
            hint="--service URL names a mirror of its API, --data PATH a copy of its data",
        ) from None


def _is_own(entry: Entry, reason: str) -> bool:
    """Whether a reason stands in the profile's own file; a part that it extends may serve others too."""
    return entry.resolved.flat["audit", "acknowledge", reason].source == entry.resolved.own.source
