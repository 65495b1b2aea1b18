"""Small files that keep state: notes, marks, caches, manifests. Anybody may have damaged them.

Read so that nothing hangs (a FIFO in their place), nothing is too large, and whatever else is wrong with one makes it
one that is not there.
"""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any, NoReturn

SMALL, LARGE = 1 << 20, 1 << 28
"""Bytes that a note, and that a manifest may have."""


def read_bytes(
    path: str | Path, limit: int = SMALL, *, folder: int | None = None, follow: bool = False
) -> bytes | None:
    """The content of a regular file of at most `limit` bytes; None where there is none.

    Relative to an open `folder`. A link is none, unless `follow`: for files of the user's.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags, dir_fd=folder)
    except (OSError, ValueError):  # a name with a NUL in it
        return None
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode) or state.st_size > limit:
            return None
        content = b""
        while len(content) <= limit and (part := os.read(descriptor, state.st_size + 4096)):
            content += part
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return content if len(content) <= limit else None


def read_head(path: str | Path, length: int) -> bytes:
    """The first bytes of a regular file of the user's, however large it is; none where there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return b""
    try:
        return os.read(descriptor, length) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def read_text(path: str | Path, limit: int = SMALL, *, folder: int | None = None, follow: bool = False) -> str | None:
    """As `read_bytes`, in UTF-8; what is no UTF-8 stays as it is in file names."""
    content = read_bytes(path, limit, folder=folder, follow=follow)
    return None if content is None else content.decode("utf-8", "surrogateescape")


def read_json(path: str | Path, shape: Any, limit: int = SMALL, *, folder: int | None = None) -> Any:
    """The JSON of a file that `fits` the shape; None where there is none."""
    content = read_bytes(path, limit, folder=folder)
    return None if content is None else parse_json(content, shape)


def parse_json(content: bytes | str, shape: Any) -> Any:
    """JSON that `fits` the shape; None where it does not, or is none.

    >>> parse_json('{"phase": 1}', {"phase": str}), parse_json('{"phase": "running"}', {"phase": str})
    (None, {'phase': 'running'})
    """
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        found = json.loads(text, parse_int=_integer, parse_float=_number, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return found if fits(found, shape) else None


def fits(data: Any, shape: Any) -> bool:
    """Whether plain data has a shape: a type, one of a tuple of shapes, one of a frozen set of words, `[SHAPE]`,
    `{str: SHAPE}`, or at least some fields, `{"name": SHAPE}`. `object` is anything.

    >>> fits({"a": [1, 2], "b": None}, {"a": [int], "b": (str, None)})
    True
    """
    if shape is object:
        return True
    if isinstance(shape, tuple):
        return any(fits(data, one) for one in shape)
    if isinstance(shape, frozenset):
        return isinstance(data, str) and data in shape
    if isinstance(shape, list):
        return isinstance(data, list) and all(fits(one, shape[0]) for one in data)
    if isinstance(shape, dict):
        if not isinstance(data, dict):
            return False
        if str in shape:
            return all(fits(one, shape[str]) for one in data.values())
        return all(name in data and fits(data[name], one) for name, one in shape.items())
    if shape is None:
        return data is None
    # A whole number is a number; true and false are neither.
    return type(data) is shape or (shape is float and type(data) is int)


def _integer(text: str) -> int:
    if len(text) > 20:  # some Pythons take seconds for millions of digits
        raise ValueError("a number that nothing has")
    return int(text)


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")
