"""A small TOML file of a project, whose errors say where. By hand: pydantic takes longer than all the rest."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from builder.errors import ProfileError, Where
from builder.files import not_utf8, read_regular
from builder.profile.toml_lines import line_in, line_of, loads


def content(path: Path) -> bytes | None:
    """What is in a file; None where there is none. Raises ProfileError where it cannot be read."""
    try:
        return read_regular(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ProfileError(f"cannot be read: {error.strerror}", where=Where(str(path))) from None


class Document:
    """The text and the data of a file. Raises ProfileError where it is not TOML in UTF-8."""

    def __init__(self, file: Path, content: bytes) -> None:
        self.file = file
        try:
            self.text = content.decode("utf-8")
            self.data: dict[str, Any] = loads(self.text)
        except UnicodeDecodeError:
            raise ProfileError(not_utf8(content), hint="save the file as UTF-8", where=Where(str(file))) from None
        except tomllib.TOMLDecodeError as error:
            raise ProfileError(f"not TOML: {error}", where=Where(str(file), line_in(error, self.text))) from None

    def known(self, keys: Iterable[str]) -> None:
        """Raises ProfileError for a key of the file that is not among `keys`."""
        self.keys(self.data, keys, ())

    def table(self, value: Any, key: tuple[str, ...], message: str = "must be a table") -> dict[str, Any]:
        """The value of `key`, a table. Raises ProfileError where it is none."""
        if not isinstance(value, dict):
            raise self.error(message, key)
        return value

    def check(self, value: Any, known: Mapping[str, Callable[[str], str]], key: tuple[str, ...]) -> None:
        """Raises ProfileError where `value` is no table of texts, or one of them is not as its check in `known` says.

        A check raises ValueError.
        """
        table = self.table(value, key)
        self.keys(table, known, key)
        for name, text in table.items():
            try:
                known[name](text if isinstance(text, str) else "")
            except ValueError as error:
                raise self.error(str(error), (*key, name)) from None

    def keys(self, table: Mapping[str, Any], allowed: Iterable[str], key: tuple[str, ...]) -> None:
        """Raises ProfileError for a key of a table that is not `allowed` there, with the nearest that is."""
        known = list(allowed)
        for name in table:
            if name not in known:
                from difflib import get_close_matches

                near = get_close_matches(name, known, 1)
                hint = f'did you mean "{near[0]}"?' if near else f"known here: {', '.join(known)}"
                raise self.error(f'unknown key "{name}"', (*key, name), hint=hint)

    def line(self, key: tuple[str, ...]) -> int | None:
        """The line that a key stands in."""
        return line_of(self.text, key)

    def error(self, message: str, key: tuple[str, ...], hint: str | None = None) -> ProfileError:
        """An error with the line that it is about."""
        return ProfileError(message, hint=hint, where=Where(str(self.file), self.line(key), ".".join(key)))
