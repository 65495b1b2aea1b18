"""The frame of an environment: what uv makes of an empty virtual environment, taken over into a folder of ours."""

from __future__ import annotations

import os
from pathlib import Path

from builder.embedded import folders
from builder.embedded.errors import StageError
from builder.embedded.hashes import record_hash

# uv's own locks, and what keeps a working tree's tools out of a virtual environment.
_NOT_TAKEN = (".lock",)


def take_over(venv: Path, top: int) -> dict[str, str]:
    """Put the files and links of an empty virtual environment, which is ours, below the open folder `top`.

    Returns what each of them promises, by relative path. Raises StageError where uv left something half-written.
    """
    config = (venv / "pyvenv.cfg").read_text(encoding="utf-8")
    # uv 0.13 does not notice where this cannot be written; without it the packages of the system are seen.
    if "include-system-site-packages = false" not in config.splitlines():
        raise StageError("pyvenv.cfg is not whole: was the disk full for a moment?")
    inside, files = _contents(venv)
    for _ in folders.opened(top, folders.with_parents(inside), make=True):
        pass
    promises = {}
    for path in files:
        source = venv / path
        if source.is_symlink():
            folder, _, name = path.rpartition("/")
            parent = folders.open_below(top, folder)
            os.symlink(os.readlink(source), name, dir_fd=parent)
            os.close(parent)
            promises[path] = f"-> {os.readlink(source)}"
            continue
        content, mode = source.read_bytes(), folders.mode_of(source.stat().st_mode & 0o777)
        with open(folders.create(top, path, mode), "wb") as file:
            file.write(content)
        promises[path] = record_hash(content)
    return promises


def _contents(venv: Path) -> tuple[list[str], list[str]]:
    folders, files = [], []
    for folder, names, others in os.walk(venv):
        links = [name for name in names if os.path.islink(os.path.join(folder, name))]
        names[:] = sorted(name for name in names if name not in links)
        inside = os.path.relpath(folder, venv)
        base = "" if inside == "." else f"{inside}/"
        folders += [f"{base}{name}" for name in names]
        files += [f"{base}{name}" for name in sorted([*others, *links]) if name not in _NOT_TAKEN]
    return folders, files
