"""From TOML texts to one whole profile: `extends`, merging, and errors that name file, line and key.

Pure: the caller says how a profile's text is read.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, TypeVar

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from builder.errors import ProfileError, Where
from builder.names import split
from builder.profile.locate import line_of
from builder.profile.model import Profile, ProfilePart
from builder.settings import Finding, findings


@dataclass(frozen=True)
class Source:
    """One profile file: where it is, its text, and `scope`, the source where what it extends is looked for first."""

    path: str
    text: str
    scope: str = ""

    def where(self, *key: str | int) -> Where:
        """The place of `key` in this file."""
        return Where(self.path, line_of(self.text, key), ".".join(map(str, key)) or None)


Read = Callable[..., Source]
"""Gives the source of a profile by its name, and by the scope of who extends it, where that has one.

Raises ProfileError where there is none.
"""


@dataclass(frozen=True)
class _Piece:
    """A merged value with the profile that it comes from; `over` are those whose word it replaced on the way."""

    value: Any
    origin: str
    source: Source
    over: frozenset[str] = frozenset()

    def settles(self, rival: _Piece) -> bool:
        """Whether the two agree, or this one was written in knowledge of the other."""
        return self.value == rival.value or rival.origin in self.over


# A flat profile: the path of each value to the value. Lists of requirements are spread by package name.
_Path = tuple[str, ...]
_Flat = dict[_Path, _Piece]

_REQUIRES = ("packages", "requires")
# Lists of tables: a child's are added to those of its parents.
_TABLES = {("patches",), ("checks",), ("packages", "overrides"), ("trainer", "options")}
# Tables by package name, which has more than one spelling.
_BY_PACKAGE = {("packages", "build"), ("packages", "index"), ("packages", "exclude-newer-package")}
# Of two that exclude each other, a child's replaces what it inherits.
_INSTEAD_OF: dict[_Path, _Path] = {
    ("trainer", "command"): ("trainer", "file"),
    ("trainer", "file"): ("trainer", "command"),
}


def load(name: str, read: Read) -> Profile:
    """The whole profile `name`.

    `extends` is followed depth first. Later wins: a child over its parents. Tables merge key by key, requirement
    lists by package name, lists of tables append. Two parents that disagree on a value are an error, unless the
    child says which it is, or one of them replaced the other's word knowingly, by extending it.

    Raises ProfileError: no such profile, a cycle, a bad value, a disagreement, a part that cannot be built, or a
    variable that does what its author cannot mean.
    """
    source = read(name)
    flat = _flatten_tree(name, source, read, ())
    merged = _unflatten(flat)
    for missing in ("target", "python", "trainer"):
        if missing not in merged:
            raise ProfileError(
                f'profile "{name}" is a part to extend: it has no [{missing}] and cannot be built',
                hint=f'extend it in a profile of your own: extends = ["{name}"]',
                where=source.where(),
            )
    profile = validated(Profile, merged, source)
    named = {("packages", "index", package): index for package, index in profile.packages.index.items()}
    named |= {("packages", "exclude-newer-index", index): index for index in profile.packages.exclude_newer_index}
    for place, index in named.items():
        if index not in profile.indexes:
            raise ProfileError(
                f'the index "{index}" is not among [indexes]',
                hint=f'name its place: [indexes] {index} = "https://..."',
                where=source.where(*place),
            )
    for finding in _settings_findings(profile):
        if finding.refused:
            raise _refused(finding, _setting_at(finding.name, flat, source))
    return profile


def settings_warnings(name: str, read: Read) -> list[tuple[Where, Finding]]:
    """What is to be said of the environment variables of the profile `name`, which may be used all the same.

    Each with the place of the setting, in the file that it is from. Raises ProfileError, as `load` does.
    """
    source = read(name)
    part = load_part(name, source)
    flat = _flatten_tree(name, source, read, ())
    found = _settings_findings(part if part.target is None else load(name, read))
    for finding in found:
        if finding.refused:
            raise _refused(finding, _setting_at(finding.name, flat, source))
    return [(_setting_at(finding.name, flat, source), finding) for finding in found]


def where_is(name: str, read: Read, *key: str) -> Where:
    """The place of `key` of the profile `name`, in the file that it is from. Raises ProfileError."""
    source = read(name)
    flat = _flatten_tree(name, source, read, ())
    return (flat[key].source if key in flat else source).where(*key)


def files_of(name: str, read: Read) -> list[tuple[str, Source]]:
    """The files that the profile `name` names, patches, proofs, checks and trainer, each with the profile that does.

    Raises ProfileError.
    """
    source = read(name)
    trainer = _flatten_tree(name, source, read, ()).get(("trainer", "file"))
    named = [(trainer.value, trainer.source)] if trainer is not None else []
    for one, data in _tree(source, read):
        tables = [*data.get("patches", ()), *data.get("checks", ())]
        named += [(table[key], one) for table in tables for key in ("file", "proof") if key in table]
    return named


def _tree(source: Source, read: Read) -> Iterator[tuple[Source, Mapping[str, Any]]]:
    """A profile and all that it extends, with their data; `_flatten_tree` has found them good."""
    data = tomllib.loads(source.text)
    yield source, data
    for parent in data.get("extends", ()):
        yield from _tree(_read_parent(parent, source, read), read)


def _settings_findings(profile: ProfilePart) -> list[Finding]:
    """What is wrong with a profile's environment variables, and not acknowledged beside them.

    Of a part, only what is wrong on every target, and whatever the profiles that extend it say.
    """
    found = findings(
        {name: setting.text for name, setting in profile.env.items()},
        {name: setting.acknowledge for name, setting in profile.env.items() if setting.acknowledge},
        platform=profile.target.platform if profile.target else None,
        accelerator=profile.target.accelerator if profile.target else None,
    )
    if profile.target is not None:
        return found
    return [finding for finding in found if finding.code not in {"watermarks", "unused-acknowledgement"}]


def _refused(finding: Finding, where: Where) -> ProfileError:
    return ProfileError(f"{finding.name}: {finding.message}", hint=finding.hint, where=where)


def _setting_at(name: str, flat: _Flat, source: Source) -> Where:
    """Where a variable is set: in the profile itself, or in the one that it has it from."""
    key = ("env", name)
    return (flat[key].source if key in flat else source).where(*key)


def load_part(name: str, source: Source) -> ProfilePart:
    """One file by itself, checked. Raises ProfileError."""
    try:
        data = tomllib.loads(source.text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"not TOML: {error}", where=Where(source.path, _line_in(str(error), source.text))) from None
    part = validated(ProfilePart, data, source)
    plain = split(name)[1]
    if part.name != plain:
        raise ProfileError(
            f'the file is called {plain}.toml, but its name is "{part.name}"',
            hint="make the two alike",
            where=source.where("name"),
        )
    return part


def _line_in(message: str, text: str) -> int:
    """The line that tomllib's message names; it ends with "(at line 3, column 5)" or "(at end of document)"."""
    found = re.search(r"\(at line (\d+)", message)
    return int(found[1]) if found else text.rstrip("\n").count("\n") + 1


def _flatten_tree(name: str, source: Source, read: Read, above: tuple[str, ...]) -> _Flat:
    # A name means another profile in a source than outside of it.
    origin = f"{source.scope}:{name}" if source.scope and ":" not in name else name
    if origin in above:
        raise ProfileError(
            f"extends goes in a circle: {' -> '.join((*above[above.index(origin) :], origin))}",
            hint="take one of them out of extends",
            where=source.where("extends"),
        )
    part = load_part(name, source)
    data = tomllib.loads(source.text)
    own = _flatten(data, origin, source)
    parents = [
        _flatten_tree(parent, _read_parent(parent, source, read), read, (*above, origin)) for parent in part.extends
    ]
    return _merge(parents, own, source)


def _read_parent(parent: str, child: Source, read: Read) -> Source:
    try:
        return read(parent, child.scope) if child.scope else read(parent)
    except ProfileError as error:
        raise ProfileError(error.message, hint=error.hint, where=error.where or child.where("extends")) from None


def _merge(parents: Sequence[_Flat], own: _Flat, source: Source) -> _Flat:
    merged: _Flat = {}
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
                    f"{_spoken(path)} is {_shown(before.value)} in {before.origin} "
                    f"and {_shown(piece.value)} in {piece.origin}",
                    hint=f"say in {source.path} which it is",
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


def _appended(before: _Piece, piece: _Piece) -> _Piece:
    """Tables of both, those that both have (from a shared grandparent) once."""
    return replace(piece, value=before.value + [item for item in piece.value if item not in before.value])


# Taken from the profile itself only, never from what it extends.
_OWN = ("$schema", "schema", "name", "description", "extends", "generated")


def _flatten(data: Mapping[str, Any], origin: str, source: Source) -> _Flat:
    flat: _Flat = {}

    def walk(path: _Path, value: Any) -> None:
        if path == _REQUIRES:
            for text in value:
                key = (*path, canonicalize_name(Requirement(text).name))
                flat[key] = _Piece((*(flat[key].value if key in flat else ()), text), origin, source)
        elif isinstance(value, dict) and not (path[0] == "env" and len(path) == 2):
            for key, item in value.items():
                walk((*path, canonicalize_name(key) if path in _BY_PACKAGE else key), item)
        else:
            flat[path] = _Piece(value.isoformat() if isinstance(value, date) else value, origin, source)

    for key, value in data.items():
        walk((key,), value)
    return flat


def _unflatten(flat: _Flat) -> dict[str, Any]:
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


def _spoken(path: _Path) -> str:
    return f"the requirement on {path[2]}" if path[:2] == _REQUIRES else ".".join(path)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_shown, value))
    return f'"{value}"' if isinstance(value, str) else str(value)


_M = TypeVar("_M", bound=BaseModel)


def validated(model: type[_M], data: Mapping[str, Any], source: Source) -> _M:
    """`data`, which is that of `source`, as a `model`. Raises ProfileError in the user's words."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _explained(error, model, source) from None


def _explained(error: ValidationError, model: type[BaseModel], source: Source) -> ProfileError:
    """The first problem, in the user's words; pydantic reports in the order of the fields."""
    errors = error.errors()
    first = errors[0]
    if first["type"] == "missing":  # because it is misspelt, perhaps
        beside = (one for one in errors if one["type"] == "extra_forbidden" and one["loc"][:-1] == first["loc"][:-1])
        first = next(beside, first)
    key = tuple(part for part in first["loc"] if not str(part).startswith("["))  # what pydantic adds
    found = first.get("input")
    hint: str | None = None
    if first["type"] == "extra_forbidden":
        message = f'unknown key "{key[-1]}"'
        allowed = _keys_at(model, key[:-1])
        near = difflib.get_close_matches(str(key[-1]), allowed, 1)
        hint = f'did you mean "{near[0]}"?' if near else f"known here: {', '.join(allowed)}"
    elif first["type"] == "missing":
        message = f'the key "{key[-1]}" is missing'
    else:
        message = first["msg"].removeprefix("Value error, ")
        if isinstance(found, str | int | float | bool):
            message += f" (found {_shown(found)})"
            expected = re.findall("'([^']+)'", first.get("ctx", {}).get("expected", ""))
            near = difflib.get_close_matches(str(found), expected, 1)
            hint = f'did you mean "{near[0]}"?' if near else None
    return ProfileError(message, hint=hint, where=source.where(*key))


def _keys_at(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """The keys allowed in the table at `path`."""
    here: Any = model
    for part in path:
        if isinstance(part, int):
            continue
        fields: Mapping[str, FieldInfo] = getattr(here, "model_fields", {})
        named = {info.alias or name: info for name, info in fields.items()}
        here = _model_inside(named[str(part)].annotation) if str(part) in named else here
    fields = getattr(here, "model_fields", {})
    return sorted(info.alias or name for name, info in fields.items())


def _model_inside(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (inside := _model_inside(argument)) is not None:
            return inside
    return None
