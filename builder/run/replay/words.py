"""A replay in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.embedded.words import plural
from builder.report import sanitized

if TYPE_CHECKING:
    from builder.run.replay.twice import Replay


def described(found: Replay) -> list[str]:
    """What came of a replay, in lines: the verdict, the first difference, what is known to cause one."""
    printed = _lines(found) if found.printed.compared else ""
    weights = f"{plural(len(found.weights), 'file')} of weights" if found.weights else ""
    if found.same:
        return [f"the same, bit by bit as printed: {' and '.join(filter(None, (printed, weights)))}"]
    lines = [*_difference(found), *(f"{name} differs" for name in found.differing)]
    if found.causes:
        lines.append("known causes that apply here:")
        for cause in found.causes:
            where = "" if cause.code == "run" else " (between machines only)"
            lines += [f"  {cause.name}: {cause.message}{where}", f"    {cause.hint}; source: {cause.source}"]
    return [*lines, f"both runs are in {found.folder}"]


def _lines(found: Replay) -> str:
    return plural(found.printed.compared, "line") + (" with a loss" if found.printed.losses else "")


def _difference(found: Replay) -> list[str]:
    difference = found.printed.difference
    if difference is None:
        return [f"the same as printed: {_lines(found)}"] if found.printed.compared else []
    step = f"step {difference.step}, " if difference.step else ""
    return [
        f"different from {step}line {difference.line} of {_lines(found)}",
        *(
            f"  {which}: {sanitized(text) if text is not None else 'no such line'}"
            for which, text in (("first", difference.first), ("second", difference.second))
        ),
    ]
