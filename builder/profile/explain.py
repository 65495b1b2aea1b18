"""Errors of pydantic as errors of a profile: key, line, allowed values, nearest name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from builder.errors import ProfileError
from builder.profile.source import Source


def quoted(value: Any) -> str:
    """Return a value as messages print it."""
    if isinstance(value, tuple):
        return ", ".join(map(quoted, value))
    return f'"{value}"' if isinstance(value, str) else str(value)


_M = TypeVar("_M", bound=BaseModel)


def validated(model: type[_M], data: Mapping[str, Any], source: Source) -> _M:
    """Return `data` of the file `source` as a `model`. Raises ProfileError for the first problem."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _explained(error, model, source) from None


def _explained(error: ValidationError, model: type[BaseModel], source: Source) -> ProfileError:
    """Return the first problem; pydantic reports in the order of the fields."""
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
        hint = "a profile begins with: schema = 1" if key == ("schema",) else None
    elif first["type"] == "string_type" and isinstance(found, int | float) and not isinstance(found, bool):
        message, hint = f"not text, but a number: {found}", f'put it in quotes: {key[-1]} = "{found}"'
    elif first["type"] in ("literal_error", "enum") and isinstance(found, str):
        expected = re.findall("'([^']+)'", first.get("ctx", {}).get("expected", ""))
        near = difflib.get_close_matches(found, expected, 1, 0.7)
        message = f"{quoted(found)} is not one of {', '.join(expected)}"
        hint = f'did you mean "{near[0]}"?' if near else None
    else:
        message = first["msg"].removeprefix("Value error, ")
        if isinstance(found, str | int | float | bool):
            message += f" (found {quoted(found)})"
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
