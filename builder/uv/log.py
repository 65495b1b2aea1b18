"""What uv says in the log of its resolver alone."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

LOGGED = re.compile(r"(DEBUG|INFO|TRACE|WARN) ")
"""How a line of the log begins."""
_SEARCHING = re.compile(r"DEBUG Searching for a compatible version of ([A-Za-z0-9._-]+)(?:\[[^\]]*\])? \((.*)\)$")
_SELECTING = re.compile(r"DEBUG Selecting: ([A-Za-z0-9._-]+)")


def without_version(log: str) -> list[str]:
    """The packages that uv has looked for a version of, and selected none: it says so in its log alone.

    Each with the first range that it looked in, where that is one.

    >>> without_version("DEBUG Searching for a compatible version of chess (*)\\nDEBUG Tried 1 versions")
    ['chess']
    >>> without_version("DEBUG Searching for a compatible version of chess (>=4.9.dev0, <4.10.dev0)\\n")
    ['chess>=4.9.dev0,<4.10.dev0']
    """
    found: dict[str, str] = {}
    open_: tuple[str, str] | None = None
    for line in log.splitlines():
        if searching := _SEARCHING.match(line):
            if open_ is not None:
                found.setdefault(*open_)
            open_ = searching[1], searching[2]
        elif _SELECTING.match(line):
            open_ = None
    if open_ is not None:
        found.setdefault(*open_)
    return [_requirement(name, said.replace(" ", "")) for name, said in found.items()]


_ADDING = re.compile(r"DEBUG Adding (?:direct|transitive) dependency(?: for (\S+)==(\S+))?: ([A-Za-z0-9._-]+)")


def parents(
    log: str, versions: Mapping[str, str], direct: Collection[str], overridden: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """Who requires each of the pinned packages, sorted: packages, "profile" and "override", by the resolver's log.

    Of the same log is what builds a source, whose requirements are `direct` too, but not of the profile.

    >>> log = "DEBUG Adding direct dependency: a*\\nDEBUG Adding direct dependency: b\\n"
    >>> log += "DEBUG Adding transitive dependency for a==1: b>=1\\n"
    >>> parents(log + "DEBUG Adding transitive dependency for a==2: c*", {"a": "1", "b": "3"}, {"a"}, {"b"})
    {'a': ('profile',), 'b': ('a', 'override')}
    """
    found: dict[str, set[str]] = {name: {"override"} if name in overridden else set() for name in versions}
    for line in log.splitlines():
        if (adding := _ADDING.match(line)) and (name := adding[3]) in found:
            parent = adding[1] or "profile"
            # What was tried and dropped again is in the log too; an extra requires its own package.
            if name in direct if parent == "profile" else parent != name and versions.get(parent) == adding[2]:
                found[name].add(parent)
    return {name: tuple(sorted(parents)) for name, parents in found.items()}


def _requirement(name: str, said: str) -> str:
    """A requirement on a range as uv's log writes it; on any version, where that is not one of PEP 440.

    >>> _requirement("a", ">=1,<2"), _requirement("a", ">=1.0,<1.0+"), _requirement("a", "<1|>1")
    ('a>=1,<2', 'a', 'a')
    """
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        _ = SpecifierSet(said)
    except InvalidSpecifier:
        return name
    return f"{name}{said}"
