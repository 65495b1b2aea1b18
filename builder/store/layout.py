"""The store: where finished environments are, each in a folder named by its key."""

from __future__ import annotations

import os
from collections.abc import Mapping
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
    # As builder.embedded.manifest.is_usable, which takes 10 ms to import.
    env = environment_path(store_name)
    return (env / ".drydock" / "manifest.json").is_file() and (env / "bin" / "python").exists()
