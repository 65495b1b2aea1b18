"""Pythons that locks name: archives of python-build-standalone, unpacked once for all environments.

    pythons/SHA256/KEY/             the Python, read-only; SHA256 is that of its archive, KEY what uv calls it
    pythons/SHA256/manifest.json    its files by sha256; what has one is complete

uv unpacks it where it stays, writes that place into its settings (sysconfig), and compiles it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from builder.embedded import folders
from builder.embedded.errors import StageError
from builder.embedded.manifest import promise_of
from builder.embedded.state import LARGE, read_json

FOLDER = "pythons"
_MANIFEST = "manifest.json"


def seal(folder: Path, name: str) -> None:
    """Make the Python `name`, which uv has unpacked in `folder`, read-only, and remember its files.

    Raises StageError where it is not one, OSError.
    """
    top = folder / name
    if not top.is_dir() or top.is_symlink():
        raise StageError(f"{top} is not a folder")
    for other in sorted(folder.iterdir()):  # uv's lock, its folder of work, a link to the Python
        if other.name not in (name, _MANIFEST):
            folders.remove_path(other)
    files = {path: promise_of(top, path) for path in _files(top)}
    for path, _, names in os.walk(top):
        for one in names:
            if not os.path.islink(os.path.join(path, one)):
                os.chmod(os.path.join(path, one), 0o555 if os.access(os.path.join(path, one), os.X_OK) else 0o444)
        os.chmod(path, 0o555)
    new = folder / f".{_MANIFEST}.{os.getpid()}"
    with new.open("w", encoding="utf-8") as file:
        json.dump({"name": name, "files": files}, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), 0o444)
    os.replace(new, folder / _MANIFEST)
    folder.chmod(0o555)


def _files(top: Path) -> Iterator[str]:
    """Files and links by path; not the bytecode, which a Python may write again."""
    for path, names, others in os.walk(top):
        names[:] = sorted(name for name in names if name != "__pycache__")
        links = [name for name in names if os.path.islink(os.path.join(path, name))]
        for name in sorted([*links, *others]):
            yield (Path(path) / name).relative_to(top).as_posix()


def place_of(home: Path, plan: Mapping[str, Any]) -> Path | None:
    """Where the Python is that a plan names; None where it names none."""
    build = plan.get("python-build")
    return home / FOLDER / str(build["sha256"]) if build else None


def check_base(home: Path, plan: Mapping[str, Any], python: str) -> None:
    """Raise StageError where the plan names a Python by its archive, and `python` is another one."""
    place = place_of(home, plan)
    if place is not None and not os.path.realpath(python).startswith(f"{os.path.realpath(place)}/"):
        raise StageError(f"this Python is {python}, and the lock names {plan['python-build']['file']}")


def problems(home: Path, plan: Mapping[str, Any], python: Path) -> Iterator[str]:
    """What is not as it was unpacked, of the Python that a plan names; `python` is that of the environment."""
    place = place_of(home, plan)
    if place is None:
        return
    known = read_json(place / _MANIFEST, {"name": str, "files": {str: str}}, LARGE)
    if known is None:
        yield f"{place / _MANIFEST} is not there, or not readable"
        return
    top = place / known["name"]
    if not os.path.realpath(python).startswith(f"{os.path.realpath(top)}/"):
        yield f"it is {os.path.realpath(python)}"
    there = set(_files(top))
    for path, promise in known["files"].items():
        if path not in there:
            yield f"{path} is gone"
        elif promise_of(top, path) != promise:
            yield f"{path} was changed"
    yield from (f"{path} was added" for path in sorted(there - known["files"].keys()))
