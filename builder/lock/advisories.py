"""A copy of advisories on this disk: a folder, or a zip archive as OSV offers one, of records in JSON or YAML."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from builder.archives import ArchiveError, Limits, members
from builder.errors import UsageError
from builder.files import read_regular
from builder.lock.audit import Advisory, matching

_SUFFIXES = (".json", ".yaml", ".yml")
_LARGEST = 8 << 20  # bytes of a record
_LIMITS = Limits(members=1_000_000, unpacked=1 << 34)
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # where PyYAML has it: twenty times as fast


def of_copy(path: Path, wanted: Sequence[tuple[str, str]]) -> list[Advisory]:
    """What the records at `path` say of packages, each with its version.

    Raises UsageError where nothing there is a record: that says nothing of the packages.
    """
    names = [name.encode() for name, _ in wanted]
    found: list[Advisory] = []
    records = 0
    try:
        for name, content in _contents(path):
            if b"affected" not in content or b"PyPI" not in content:
                continue
            records += 1
            # Most are about other packages; YAML takes its time.
            plain = content.lower().replace(b"_", b"-").replace(b".", b"-")
            if any(one in plain for one in names):
                found += matching(_record(name, content), wanted)
    except (OSError, ArchiveError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    if not records:
        raise UsageError(
            f"{path} has no advisories on packages of PyPI in the form of OSV",
            hint="a folder or a .zip of .json or .yaml files",
        )
    return found


def _contents(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        for folder, folders, names in os.walk(path):
            folders.sort()
            for name in sorted(names):
                if name.endswith(_SUFFIXES):
                    yield name, read_regular(Path(folder, name), _LARGEST)
        return
    if not zipfile.is_zipfile(path):
        yield path.name, read_regular(path, _LARGEST)
        return
    for one in members(path, ".zip", _LIMITS):
        if one.content is not None and one.name.endswith(_SUFFIXES):
            content = one.content.read(_LARGEST + 1)
            if len(content) > _LARGEST:
                raise UsageError(f"{path} cannot be read: {one.name} is larger than any advisory")
            yield one.name, content


def _record(name: str, content: bytes) -> dict[str, Any]:
    """A record; an empty one where it is none. Raises UsageError where it cannot be parsed: it may be what counts."""
    try:
        data = json.loads(content) if name.endswith(".json") else yaml.load(content, Loader=_LOADER)  # noqa: S506
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"{name} is not a record of OSV: {str(error).splitlines()[0]}") from None
    return data if isinstance(data, dict) else {}
