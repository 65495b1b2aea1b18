"""All profiles at a glance. What a file says of itself is remembered by its hash: a source may have a thousand."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from builder.embedded import state
from builder.embedded.words import printable
from builder.errors import DrydockError, ProfileError, Where
from builder.files import display, read_regular, write_atomically
from builder.profile.toml_lines import loads
from builder.project.catalogue import Catalogue
from builder.project.discovery import names_in
from builder.resources import shipped
from builder.store.layout import home

_FORMAT = 1


@dataclass(frozen=True)
class Summary:
    """What there is to say of a profile in a line. A part has no platform and no accelerator."""

    name: str
    description: str
    platform: str | None
    accelerator: str | None
    file: Path


def summaries(catalogue: Catalogue, warn: Callable[[str], None]) -> list[Summary]:
    """All profiles: the project's own, those of each source, the built-in ones; of each the parts last, else by name.

    Raises ProfileError. What is wrong with a source, or with a profile in one, is told to `warn`; it is left out then.
    """
    rows: dict[str, Summary] = {}
    for folder in reversed(catalogue.folders):
        rows |= {row.name: row for row in _of_folder(folder, "", None)}
    own: list[Summary] = []
    ours: list[Summary] = []
    for row in sorted(rows.values(), key=_parts_last):
        (ours if row.file.parent == shipped("profiles") else own).append(row)
    found = own
    for source in catalogue.project.declared:
        try:
            found += sorted(_of_folder(catalogue.source_folder(source), f"{source}:", warn), key=_parts_last)
        except DrydockError as error:
            warn(f"{error.message}{f' ({error.hint})' if error.hint else ''}")
    return found + ours


def _parts_last(row: Summary) -> tuple[bool, str]:
    return row.platform is None, row.name


def _of_folder(folder: Path, prefix: str, warn: Callable[[str], None] | None) -> Iterator[Summary]:
    """The profiles in a folder, in no order; their names get a prefix. With `warn` a bad one does not stop it."""
    place = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()
    memory = home() / "cache" / "summaries" / f"{place}.json"
    told = state.read_json(memory, {"format": int, "profiles": {str: [(str, None)]}}, state.LARGE)
    known: dict[str, list[str | None]] = told["profiles"] if told and told["format"] == _FORMAT else {}
    here = {}
    for name in names_in(folder):
        path = folder.absolute() / f"{name}.toml"
        try:
            content = read_regular(path)
            if warn is not None and b"schema" not in content:
                continue  # a source may have its profiles in its root, beside other files
            digest = hashlib.sha256(content).hexdigest()
            row = known.get(digest) or _read(name, content, path)
            if len(row) != 4 or row[0] != name:  # the same file under another name: let the error be explained
                row = _read(name, content, path)
        except OSError as error:
            raise ProfileError(f"cannot be read: {error.strerror}", where=Where(display(path))) from None
        except DrydockError as error:
            if warn is None:
                raise
            warn(f"{error.where}: {error.message}")
            continue
        here[digest] = row
        # A profile may come from anywhere: what it says must not steer a terminal.
        said = [one if one is None else printable(one) for one in row[1:]]
        yield Summary(f"{prefix}{name}", said[0] or "", said[1], said[2], path)
    if here != known:
        with suppress(OSError):  # in a store that cannot be written to it is read again each time
            write_atomically(memory, json.dumps({"format": _FORMAT, "profiles": here}))


def _read(name: str, content: bytes, path: Path) -> list[str | None]:
    """Name, description, platform and accelerator of a profile, unchecked where they are what they should be."""
    with suppress(UnicodeDecodeError, tomllib.TOMLDecodeError):
        text = content.decode("utf-8")
        # What comes after [target] is not asked for here, and takes most of the time.
        head = re.search(r"^\[target\][^\n]*\n(?:(?!\[).*\n)*", text, re.MULTILINE)
        data = loads(text[: head.end()] if head else text)
        target = data.get("target", {})
        if isinstance(target, dict):
            row = [data.get("name"), data.get("description", ""), target.get("platform"), target.get("accelerator")]
            whole = row[2:] == [None, None] or all(isinstance(one, str) for one in row[2:])
            if data.get("schema") == 1 and row[0] == name and isinstance(row[1], str) and whole:
                return row
    # Something is wrong with it: whoever checks whole profiles says what.
    from builder.profile.load import read_part
    from builder.profile.source import Source

    source = Source(display(path), content.decode("utf-8", errors="replace"))
    part = read_part(name, source).model
    target = part.target
    return [part.name, part.description, target.platform if target else None, target.accelerator if target else None]
