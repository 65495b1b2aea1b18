"""The store: where finished environments are, each in a folder named by its key."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from builder.errors import UsageError

FORMAT = "1"
"""How the store is laid out; the generated scripts know this one too (templates/run.sh.j2, check_format)."""


def home(environ: Mapping[str, str] = os.environ) -> Path:
    """Drydock's own folder: DRYDOCK_HOME, else XDG_DATA_HOME/drydock, else ~/.local/share/drydock.

    The generated scripts have the same rule (templates/_facts.sh.j2). Raises UsageError where none is set, and where a
    newer Drydock has laid it out.
    """
    folder = _named(environ)
    _check_format(folder)
    return folder


@cache
def _check_format(folder: Path) -> None:
    try:
        found = (folder / "format").read_text().strip()
    except OSError:
        return
    if found not in ("", FORMAT):
        raise UsageError(
            f"{folder} is a store of format {found}, and this Drydock knows format {FORMAT}",
            hint="use the newer Drydock, or name another folder: DRYDOCK_HOME",
        )


def _named(environ: Mapping[str, str]) -> Path:
    if named := environ.get("DRYDOCK_HOME"):
        return Path(named).absolute()
    if data := environ.get("XDG_DATA_HOME"):
        return Path(data).absolute() / "drydock"
    if user := environ.get("HOME"):
        return Path(user).absolute() / ".local/share/drydock"
    raise UsageError("there is no place for the store", hint="set HOME or DRYDOCK_HOME")


def environment_path(store_name: str) -> Path:
    """The folder of an environment, built or not; `store_name` is KEY-NAME."""
    return home() / "store" / store_name


def is_built(store_name: str) -> bool:
    """Whether an environment is there, with its Python; only the last step of a build, one rename, makes this true."""
    # As builder.stage.is_usable, which takes 10 ms to import.
    env = environment_path(store_name)
    return (env / ".drydock" / "manifest.json").is_file() and (env / "bin" / "python").exists()


def write_atomically(path: Path, text: str, *, executable: bool = False) -> None:
    """Put `text` at `path` by a rename: a reader sees the old file or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_text(text, encoding="utf-8")
        new.chmod(0o755 if executable else 0o644)
        new.replace(path)
    except OSError as error:  # that of a write knows no file
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        new.unlink(missing_ok=True)


def link_atomically(target: str, path: Path) -> None:
    """A link to `target` at `path`, by a rename: a reader sees the old one or the new one."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(path)


def write_new(path: Path, text: str) -> None:
    """Put `text` at `path`, whole or not at all. Raises UsageError where anything is there, a broken link too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = path.open("x", encoding="utf-8")
    except FileExistsError:
        raise UsageError(f"{path} is there already", hint="move it away, or take another name") from None
    try:
        with file:
            file.write(text)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write texts into a new folder, by their relative paths."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


def remove_tree(path: Path) -> None:
    """Delete a folder of the store; finished environments are read-only, so their folders are opened first."""
    for folder, folders, _ in os.walk(path):
        with suppress(FileNotFoundError):  # somebody else deletes it too
            Path(folder).chmod(0o755)
        folders[:] = [name for name in folders if not (Path(folder) / name).is_symlink()]
    shutil.rmtree(path, ignore_errors=True)
