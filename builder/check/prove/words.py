"""An upgrade that was tried, as Markdown for a pull request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.embedded.words import plural
from builder.lock.diff import compare, side_of_lock
from builder.report import sanitized

if TYPE_CHECKING:
    from builder.check.prove.prove import Proven

_HOLDS = {True: "yes", False: "**no**", None: "not looked at"}


def markdown(found: Proven) -> str:
    """The verdict, each proof, what was measured, and what differs between the two locks."""
    lines = [f"## Upgrade of `{found.name}`: {_verdict(found)}", ""]
    if found.proofs:
        lines += ["| proof | holds | found |", "| --- | --- | --- |"]
        lines += [f"| {proof.what} | {_HOLDS[proof.good]} | {_cell(proof.words)} |" for proof in found.proofs]
    if found.measured is not None:
        measured = found.measured
        head = f"measured in {plural(measured.pairs, 'pair')} of runs, the new lock to the old one"
        lines += ["", f"{head}:", "", "| measure | ratio | |", "| --- | --- | --- |"]
        lines += [f"| {one.what} | {one.ratio} | {one.verdict} |" for one in measured.measures]
        lines += ["", *(f"- {_cell(warning)}" for warning in measured.warnings)] if measured.warnings else []
    if found.new is not None and found.is_upgrade:
        sides = [side_of_lock(name, "lock", lock) for name, lock in (("before", found.old), ("after", found.new))]
        lines += ["", *compare(*sides).markdown()]
    return "\n".join(lines) + "\n"


def _verdict(found: Proven) -> str:
    if found.failed:
        return "does not hold, and nothing was changed"
    if not found.is_upgrade:
        return "nothing is newer"
    return "holds" if found.kept else "holds, and was not written (--dry-run)"


def _cell(text: str) -> str:
    """A text in a table, where it must not end the cell or be more than text."""
    plain = sanitized(text).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("`", "'")
    return " ".join(plain.split())
