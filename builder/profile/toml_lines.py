"""TOML of anybody's, and where in a text a key stands.

No maintained TOML library for Python reports positions, and an error message needs only the line.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(#.*)?$")
_ASSIGNMENT = re.compile(
    r"""^\s*((?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+))*)\s*="""
)


def loads(text: str) -> dict[str, Any]:
    """The data of a TOML text. Raises tomllib.TOMLDecodeError, also for what is too deep or too long for Python."""
    if text.startswith("\ufeff"):
        raise tomllib.TOMLDecodeError(
            "it begins with a byte order mark (BOM): save it as UTF-8 without one (at line 1, column 1)"
        )
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise tomllib.TOMLDecodeError("nested too deeply") from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as error:  # a number of thousands of digits
        raise tomllib.TOMLDecodeError(str(error).partition(";")[0]) from None


def line_of(text: str, path: Sequence[str | int]) -> int | None:
    """The 1-based line where `path`, or the first thing in it, is written, or its nearest parent; None without any.

    >>> line_of('[env]\\nA = "1"\\n[[patches]]\\nfile = "x"\\n', ["patches", 0, "file"])
    4
    """
    wanted = [str(part) for part in path]
    best: tuple[int, int] | None = None
    table: list[str] = []
    counts: dict[tuple[str, ...], int] = {}
    for number, line in _lines_outside_strings(text):
        if header := _HEADER.match(line):
            *parents, last = _keys(header[2])
            table = [*_numbered(parents, counts), last]
            if header[1] == "[[":
                counts[tuple(table)] = counts.get(tuple(table), -1) + 1
            here = table = _numbered(_keys(header[2]), counts)
        elif assignment := _ASSIGNMENT.match(line):
            here = table + _keys(assignment[1])
        else:
            continue
        common = _common(here, wanted)
        # A line says something about the path when it lies on the way to it, or further along.
        if common in (len(here), len(wanted) or None) and (best is None or common > best[0]):
            best = (common, number)
    return None if best is None else best[1]


def _numbered(keys: Sequence[str], counts: Mapping[tuple[str, ...], int]) -> list[str]:
    """The keys of a header with the number of the last table after each that is a list of tables."""
    path: list[str] = []
    for key in keys:
        path.append(key)
        if tuple(path) in counts:
            path.append(str(counts[tuple(path)]))
    return path


def _lines_outside_strings(text: str) -> Iterator[tuple[int, str]]:
    """The numbered lines of a TOML text, without those that a string over several lines goes on in."""
    quotes: str | None = None
    for number, line in enumerate(text.split("\n"), 1):
        if quotes is None:
            yield number, line
            quotes = next((three for three in ('"""', "'''") if line.count(three) % 2), None)
        elif quotes in line:
            quotes = None


def _keys(dotted: str) -> list[str]:
    return [key.strip().strip("\"'") for key in re.findall(r"""\s*("[^"]*"|'[^']*'|[^.]+)\s*(?:\.|$)""", dotted)]


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count
