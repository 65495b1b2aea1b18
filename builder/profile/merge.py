"""How the files of a profile become one: later wins, requirements by package, tables append."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from builder.errors import ProfileError
from builder.profile.explain import quoted
from builder.profile.places import named
from builder.profile.source import Source


@dataclass(frozen=True)
class Piece:
    """A merged value with the profile that it comes from; `over` are those whose word it replaced on the way."""

    value: Any
    origin: str
    source: Source
    over: frozenset[str] = frozenset()

    def settles(self, rival: Piece) -> bool:
        """Whether the two agree, or this one was written in knowledge of the other."""
        return self.value == rival.value or rival.origin in self.over


# A flat profile: the path of each value to the value. Lists of requirements are spread by package name.
Key = tuple[str, ...]
Flat = dict[Key, Piece]
_REQUIRES = ("packages", "requires")
_REQUIRES_FROM = ("packages", "requires-from")
# Lists of tables: a child's are added to those of its parents.
_TABLES = {("patches",), ("checks",), _REQUIRES_FROM, ("packages", "overrides"), ("trainer", "options")}
# Tables by package name, which has more than one spelling.
_BY_PACKAGE = {("packages", "build"), ("packages", "index"), ("packages", "exclude-newer-package")}
# Of two that exclude each other, a child's replaces what it inherits.
_INSTEAD_OF: dict[Key, Key] = {
    ("trainer", "command"): ("trainer", "file"),
    ("trainer", "file"): ("trainer", "command"),
}


def merge(parents: Sequence[Flat], own: Flat, source: Source) -> Flat:
    """A profile with what it inherits. Raises ProfileError where its parents disagree and it does not decide."""
    merged: Flat = {}
    for parent in parents:
        for path, piece in parent.items():
            before = merged.get(path)
            if before is None:
                merged[path] = piece
            elif path in _TABLES:
                merged[path] = _appended(before, piece)
            elif path in own or piece.settles(before):
                merged[path] = replace(piece, over=before.over | piece.over | {before.origin})
            elif not before.settles(piece):
                raise ProfileError(
                    f"{_spoken(path)} is {quoted(before.value)} in {before.origin} "
                    f"and {quoted(piece.value)} in {piece.origin}",
                    hint=f"set it in {source.path}",
                    where=source.where("extends"),
                )
    for path, piece in own.items():
        before = merged.get(path)
        merged.pop(_INSTEAD_OF.get(path, ()), None)
        if before is not None and path in _TABLES:
            merged[path] = _appended(before, piece)
        else:
            over = before.over | {before.origin} if before is not None else frozenset[str]()
            merged[path] = replace(piece, over=over)
    return merged


def _appended(before: Piece, piece: Piece) -> Piece:
    """Tables of both, those that both have (from a shared grandparent) once."""
    return replace(piece, value=before.value + [item for item in piece.value if item not in before.value])


# Taken from the profile itself only, never from what it extends.
_OWN = ("$schema", "schema", "name", "description", "extends", "generated")


def flatten(data: Mapping[str, Any], origin: str, source: Source) -> Flat:
    """The data of one file, by the path of each value."""
    flat: Flat = {}

    def walk(path: Key, value: Any) -> None:
        if path == _REQUIRES:
            for text in value:
                key = (*path, canonicalize_name(Requirement(named(text)).name))
                flat[key] = Piece((*(flat[key].value if key in flat else ()), text), origin, source)
        elif path == _REQUIRES_FROM:
            flat[path] = Piece(value if isinstance(value, list) else [value], origin, source)
        elif isinstance(value, dict) and not (path[0] == "env" and len(path) == 2):
            for key, item in value.items():
                walk((*path, canonicalize_name(key) if path in _BY_PACKAGE else key), item)
        else:
            flat[path] = Piece(value.isoformat() if isinstance(value, date) else value, origin, source)

    for key, value in data.items():
        walk((key,), value)
    return flat


def unflatten(flat: Flat) -> dict[str, Any]:
    """The tables again, as a model reads them."""
    data: dict[str, Any] = {}
    own = flat[("name",)].origin
    for path, piece in flat.items():
        if path[0] in _OWN and piece.origin != own:
            continue
        tables, last = (path[:-1], path[-1]) if path[:2] != _REQUIRES else (_REQUIRES[:1], _REQUIRES[1])
        table = data
        for key in tables:
            table = table.setdefault(key, {})
        if path[:2] == _REQUIRES:
            table.setdefault(last, []).extend(piece.value)
        else:
            table[last] = piece.value
    return data


def _spoken(path: Key) -> str:
    return f"the requirement on {path[2]}" if path[:2] == _REQUIRES else ".".join(path)
