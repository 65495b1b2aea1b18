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
    first, *others = found
    if not others:
        return str(first)
    named = [first.what] + [
        f"{one.what} (line {one.where.line})" if one.where.line not in (None, first.where.line) else one.what
        for one in others[: _NAMED - 1]
    ]
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return str(LeftOut(", ".join(named) + more, first.why, first.where))
