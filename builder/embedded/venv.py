"""The frame of an environment: what uv makes of an empty virtual environment, taken over into a folder of ours.

uv is asked once per Python and name: looking for a Python takes longer than a build where it is a script that looks
for one itself (pyenv's). What it made is remembered in one file: what was asked, the Python, and the frame as JSON,
with what else need not be looked at again.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from builder.embedded import folders
from builder.embedded.errors import StageError
from builder.embedded.hashes import record_hash
from builder.embedded.state import parse_json, read_bytes

ASK_UV = 75
"""The exit status that says: what is remembered does not fit, uv must be asked (EX_TEMPFAIL of sysexits.h)."""

# uv's own locks, and what keeps a working tree's tools out of a virtual environment.
_NOT_TAKEN = (".lock",)


class Frame(NamedTuple):
    """Folders, and by relative path: files as mode and text, links as what they are to. `faultless` names what was
    looked at and lacks nothing: a build of Python, a disk since a start of the machine.
    """

    folders: list[str]
    files: dict[str, list[Any]]
    links: dict[str, str]
    faultless: list[str]


_SHAPE = {"folders": [str], "files": {str: [(int, str)]}, "links": {str: str}, "faultless": [str]}


def take_over(venv: Path, top: int) -> dict[str, str]:
    """Put the files and links of an empty virtual environment, which is ours, below the open folder `top`.

    Returns what each of them promises, by relative path. Raises StageError where uv left something half-written.
    """
    return put(read(venv), top)


def read(venv: Path) -> Frame:
    """What uv made in a folder. Raises StageError where it left something half-written."""
    frame = Frame([], {}, {}, [])
    for folder, names, others in os.walk(venv):
        base = Path(os.path.relpath(folder, venv))
        for name in sorted([*names, *others]):
            source, path = Path(folder, name), (base / name).as_posix()
            if source.is_symlink():
                frame.links[path] = os.readlink(source)
            elif name in names:
                frame.folders.append(path)
            elif name not in _NOT_TAKEN:
                text = source.read_bytes().decode("utf-8", "surrogateescape")
                frame.files[path] = [source.stat().st_mode & 0o777, text]
    # uv 0.13 does not notice where this cannot be written; without it the packages of the system are seen.
    if "include-system-site-packages = false" not in _config(frame):
        raise StageError("pyvenv.cfg is not whole: was the disk full for a moment?")
    return frame


def put(frame: Frame, top: int) -> dict[str, str]:
    """Put a frame below the open folder `top`; returns what each of its files and links promises."""
    promises = {}
    order = folders.with_parents([*frame.folders, ""])
    for folder, here in folders.opened(top, order, make=True):
        for path, target in frame.links.items():
            if path.rpartition("/")[0] == folder:
                os.symlink(target, path.rpartition("/")[2], dir_fd=here)
                promises[path] = f"-> {target}"
        for path, (mode, text) in frame.files.items():
            if path.rpartition("/")[0] == folder:
                content = text.encode("utf-8", "surrogateescape")
                with open(folders.create(here, path.rpartition("/")[2], folders.mode_of(mode)), "wb") as file:
                    file.write(content)
                promises[path] = record_hash(content)
    return promises


def python_of(frame: Frame) -> str:
    """The Python that a frame is of."""
    return frame.links.get("bin/python", "")


def remember(note: Path, asked: str, frame: Frame) -> None:
    """Keep a frame for the next build that asks for the same; where that cannot be done, it asks again.

    Only its owner may write to the note, in a shared store too: what it names is run.
    """
    head, new = f"{asked}\n{python_of(frame)}\n", note.with_name(f".{note.name}.{os.getpid()}")
    if not asked or head.count("\n") != 2 or not python_of(frame).startswith("/"):
        return
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write((head + json.dumps(frame._asdict())).encode("utf-8", "surrogateescape"))
        os.replace(new, note)
    except OSError:
        pass


def known(note: Path) -> Frame | None:
    """The frame that is remembered in a note; None where it is not of the Python that runs this."""
    content = (read_bytes(note) or b"").split(b"\n", 2)
    fields = parse_json(content[-1], _SHAPE)
    if not fields:
        return None
    frame = Frame(**{name: fields[name] for name in Frame._fields})
    ours = {
        f"home = {os.path.dirname(python_of(frame))}",
        "version_info = {}.{}.{}".format(*sys.version_info[:3]),
        "include-system-site-packages = false",
    }
    return frame if ours.issubset(_config(frame)) and python_of(frame) == os.fsdecode(content[1]) else None


def _config(frame: Frame) -> list[str]:
    return str(frame.files.get("pyvenv.cfg", [0, ""])[1]).splitlines()
