"""Foreign TOML: its data, with errors that name the line, and where in it anything stands."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from builder.errors import ProfileError, Where
from builder.profile.toml_lines import loads

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

_TABLES = ("table", "table_array_element")
_KEYS = ("bare_key", "quoted_key", "dotted_key")


def parsed(path: str, text: str) -> dict[str, Any]:
    """Return the data in a TOML text. Raises ProfileError where it is not TOML."""
    try:
        return loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        raise ProfileError(
            f"not TOML: {ascii(str(error))[1:-1]}", where=Where(path, int(found[1]) if found else None)
        ) from None


class Places:
    """Where things stand in a TOML text, by tree-sitter's grammar: read when a place is asked for the first time."""

    def __init__(self, path: str, text: str, *, tables_only: bool = False) -> None:
        """With `tables_only`, the places of tables alone: for a lock, which may have very many keys."""
        self._path, self._text, self._tables_only = path, text, tables_only

    def where(self, *keys: str | int) -> Where:
        """The place of what the keys lead to, or of its nearest parent that is written.

        >>> Places("a.toml", '[a]\\nb = [\\n  "x",\\n  "y"]\\n[[c]]\\n[[c]]\\nd = 1\\n').where("a", "b", 1)
        Where(file='a.toml', line=4, key=None)
        """
        for end in range(len(keys), 0, -1):
            if (line := self._lines.get(keys[:end])) is not None:
                return Where(self._path, line)
        return Where(self._path)

    @cached_property
    def _lines(self) -> dict[tuple[str | int, ...], int]:
        source = self._text.encode("utf-8", "replace")
        found: dict[tuple[str | int, ...], int] = {}
        counts: dict[tuple[str | int, ...], int] = {}
        # A list instead of recursion: the file decides how deep this goes.
        waiting: list[tuple[Node, tuple[str | int, ...]]] = []
        root = _parser().parse(source).root_node
        waiting += [(node, ()) for node in root.children if node.type == "pair"]
        for node in (child for child in root.children if child.type in _TABLES):
            path = _numbered(_header(node, source), node.type != "table", counts)
            _note(found, path, _line(node))
            if not self._tables_only:
                waiting += [(child, path) for child in node.children if child.type == "pair"]
        while waiting:
            for node, path in _below(*waiting.pop(), source):
                _note(found, path, _line(node))
                waiting.append((node, path))
        return found


def _note(lines: dict[tuple[str | int, ...], int], path: tuple[str | int, ...], line: int) -> None:
    """Note a line for a path and all above it: the first one counts."""
    for end in range(1, len(path) + 1):
        lines[path[:end]] = min(line, lines.get(path[:end], line))


def _below(node: Node, path: tuple[str | int, ...], source: bytes) -> Iterator[tuple[Node, tuple[str | int, ...]]]:
    """What is written right below a node, with its keys."""
    if node.type == "pair":
        yield node.children[-1], (*path, *_header(node, source))
    elif node.type == "inline_table":
        yield from ((child, path) for child in node.children if child.type == "pair")
    elif node.type == "array":
        values = [child for child in node.children if child.is_named and child.type != "comment"]
        yield from ((value, (*path, number)) for number, value in enumerate(values))


@cache
def _parser() -> Parser:
    import tree_sitter_toml
    from tree_sitter import Language, Parser

    return Parser(Language(tree_sitter_toml.language()))


def _line(node: Node) -> int:
    return node.start_point[0] + 1


def _header(node: Node, source: bytes) -> tuple[str, ...]:
    """The keys of a table's header, or of a pair."""
    return tuple(key for child in node.children if child.type in _KEYS for key in _keys(child, source))


def _keys(node: Node, source: bytes) -> Iterator[str]:
    waiting = [node]
    while waiting:
        part = waiting.pop()
        if part.type == "dotted_key":
            waiting += reversed([child for child in part.children if child.type in _KEYS])
        else:
            text = source[part.start_byte : part.end_byte].decode("utf-8", "replace")
            yield text[1:-1] if part.type == "quoted_key" else text


def _numbered(keys: tuple[str, ...], several: bool, counts: dict[tuple[str | int, ...], int]) -> tuple[str | int, ...]:
    """The keys of a header with the number of the table after each that is a list of tables."""
    path: tuple[str | int, ...] = ()
    for place, key in enumerate(keys):
        path = (*path, key)
        if several and place == len(keys) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path
