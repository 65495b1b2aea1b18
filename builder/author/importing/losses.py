"""What could not be carried over, as one short list: what is required first, and what nobody misses last."""

from __future__ import annotations

from collections.abc import Sequence

from builder.project.requirements.model import LeftOut

_NAMED = 6


def short(left_out: Sequence[LeftOut]) -> list[str]:
    """A line for all of a file that has one reason, with the line of each.

    >>> from builder.errors import Where
    >>> where = Where("environment.yml", 3)
    >>> lost = [LeftOut("zlib", "no Python package", where), LeftOut("torch", "a place", where, package="torch")]
    >>> short([*lost, LeftOut("git", "no Python package", where._replace(line=7))])
    ['environment.yml:3: torch: a place', 'environment.yml:3: zlib, git (line 7): no Python package']
    """
    groups: dict[tuple[bool, bool, str, str], list[LeftOut]] = {}
    for one in left_out:
        key = (one.expected, one.package is None, one.where.file, one.why)
        if one not in groups.setdefault(key, []):
            groups[key].append(one)
    return [_line(groups[key]) for key in sorted(groups, key=lambda key: key[:2])]


def _line(found: Sequence[LeftOut]) -> str:
    first = found[0]
    lines: dict[str, list[int]] = {}
    for one in found:
        lines.setdefault(one.what, []).append(one.where.line or 0)
    named = [
        _named(what, [line for line in numbers if line != (first.where.line or 0)]) for what, numbers in lines.items()
    ]
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return str(LeftOut(", ".join(named[:_NAMED]) + more, first.why, first.where))


def _named(what: str, lines: Sequence[int]) -> str:
    """An item with the lines where it stands, but for that of the whole list."""
    if not lines:
        return what
    numbers = ", ".join(map(str, lines[:3])) + (" and more" if lines[3:] else "")
    return f"{what} ({'line' if len(lines) == 1 else 'lines'} {numbers})"
