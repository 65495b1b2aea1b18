"""TOML of anybody's, and where in a text a key stands: by tree-sitter's grammar, as no reader of TOML says it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

_TABLES = ("table", "table_array_element")
_KEYS = ("bare_key", "quoted_key", "dotted_key")

_Path = tuple[str | int, ...]


def loads(text: str) -> dict[str, Any]:
    """The data of a TOML text. Raises tomllib.TOMLDecodeError, also for what is too deep or too long for Python."""
    if text.startswith("\ufeff"):
        raise tomllib.TOMLDecodeError("it begins with a byte order mark (BOM) (at line 1, column 1)")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise tomllib.TOMLDecodeError("nested too deeply") from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as error:  # a number of thousands of digits
        raise tomllib.TOMLDecodeError(str(error).partition(";")[0]) from None


def hint_for(text: str) -> str | None:
    """How to repair a text that is not TOML, where something known made it so.

    >>> hint_for("a = 1\\n<<<<<<< HEAD\\n")
    'git left a conflict in it: solve that first'
    """
    if text.startswith("\ufeff"):
        return "save it as UTF-8 without one"
    return "git left a conflict in it: solve that first" if re.search("^<{7} ", text, re.MULTILINE) else None


def line_in(error: tomllib.TOMLDecodeError, text: str) -> int | None:
    """The line of an error: its message ends with "(at line 3, column 5)", "(at end of document)", or neither."""
    if found := re.search(r"\(at line (\d+)", str(error)):
        return int(found[1])
    return text.rstrip("\n").count("\n") + 1 if "(at end of document)" in str(error) else None


def line_of(text: str, path: Sequence[str | int], *, tables_only: bool = False) -> int | None:
    """The 1-based line where `path`, or the first thing in it, is written, or its nearest parent; None without any.

    With `tables_only`, lines of tables alone are known: for a lock, which may have very many keys.

    >>> line_of('[env]\\nA = "1"\\n[[patches]]\\nfile = "x"\\n', ["patches", 0, "file"])
    4
    """
    keys, lines = tuple(path), _lines(text, tables_only)
    return next((lines[keys[:end]] for end in range(len(keys), 0, -1) if keys[:end] in lines), None)


@lru_cache(maxsize=16)
def _lines(text: str, tables_only: bool) -> Mapping[_Path, int]:
    source = text.encode("utf-8", "replace")
    found: dict[_Path, int] = {}
    counts: dict[_Path, int] = {}
    # A list instead of recursion: the file decides how deep this goes.
    waiting: list[tuple[Node, _Path]] = []
    root = _parser().parse(source).root_node
    waiting += [(node, ()) for node in root.children if node.type == "pair"]
    for node in (child for child in root.children if child.type in _TABLES):
        path = _numbered(_header(node, source), node.type != "table", counts)
        _note(found, path, _line(node))
        if not tables_only:
            waiting += [(child, path) for child in node.children if child.type == "pair"]
    while waiting:
        for node, path in _below(*waiting.pop(), source):
            _note(found, path, _line(node))
            waiting.append((node, path))
    return found


def _note(lines: dict[_Path, int], path: _Path, line: int) -> None:
    """Note a line for a path and all above it: the first one counts."""
    for end in range(1, len(path) + 1):
        lines[path[:end]] = min(line, lines.get(path[:end], line))


def _below(node: Node, path: _Path, source: bytes) -> Iterator[tuple[Node, _Path]]:
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


def _numbered(keys: tuple[str, ...], several: bool, counts: dict[_Path, int]) -> _Path:
    """The keys of a header with the number of the table after each that is a list of tables."""
    path: _Path = ()
    for place, key in enumerate(keys):
        path = (*path, key)
        if several and place == len(keys) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path
