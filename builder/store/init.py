"""Make a store, for one user or for a group: docs/how-to/shared-store.md."""

from __future__ import annotations

import grp
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from builder.errors import DrydockError, UsageError
from builder.files import make_folder, write_atomically
from builder.store.layout import FORMAT, Store

_FOLDERS = (
    *("store", "wheels", "pythons", "bytecode", "profiles", "gcroots/running", "gcroots/scripts", "gcroots/sources"),
    *("cache", "tools", "sources", "consents", "runs", "scratch", "fleet"),
)
_FINISHED = ("store", "sources", "runs", "scratch", "fleet")
"""What is in these stays as it is: finished environments and sources are read-only, and runs are their user's."""


def init(store: Store, *, shared: bool = False, group: str | None = None) -> list[str]:
    """Make the folders of a store; returns what the user should know.

    With `shared`, every member of the group (of `group`, else of the user's own) may build, run and collect in it: its
    folders are setgid and the group may write to them, and all that is made in such a store is so too, whatever the
    umask. Raises UsageError and DrydockError.
    """
    if group is not None and not shared:
        raise UsageError("--group goes with --shared")
    gid = _gid(group) if group is not None else os.getegid()
    for name in ("", *_FOLDERS):
        make_folder(store.home / name)
        if shared:
            _share(store.home / name, gid)
    if shared:
        for folder in _below(store):
            _share(folder, gid)
    if not (store.home / "format").exists():
        write_atomically(store.home / "format", f"{FORMAT}\n")
    return list(_closed(store.home, gid)) if shared else []


def _gid(group: str) -> int:
    try:
        return int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise UsageError(f'there is no group "{group}"', hint="groups: getent group, or id -Gn") from None


def _share(path: Path, gid: int) -> None:
    state = path.stat()
    if state.st_gid == gid and stat.S_IMODE(state.st_mode) == 0o2775:
        return
    try:
        if state.st_gid != gid:
            os.chown(path, -1, gid)
        path.chmod(0o2775)
    except PermissionError:
        name = f"group {gid}"
        raise DrydockError(
            f"{path} cannot be given to {name}",
            hint="whoever owns it and is a member of that group can do this, or root",
        ) from None
    if not path.stat().st_mode & stat.S_ISGID:  # chmod(2): left out where the user is no member
        raise DrydockError(f"{path} cannot be setgid", hint="be a member of the group, or ask root")


def _below(store: Store) -> Iterator[Path]:
    """The folders of a store that was there before, in which others must be able to write."""
    for name in {name.partition("/")[0] for name in _FOLDERS} - set(_FINISHED):
        for folder, _, _ in os.walk(store.home / name):
            yield Path(folder)


def _closed(home: Path, gid: int) -> Iterator[str]:
    for folder in home.parents:
        state = folder.stat()
        if not state.st_mode & stat.S_IXOTH and not (state.st_gid == gid and state.st_mode & stat.S_IXGRP):
            yield f"{folder} is closed to the others of the group: chmod g+x it, or name another place: DRYDOCK_HOME"
