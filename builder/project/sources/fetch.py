"""Sources in the store: fetched once, checked against their pin, and read from there ever after.

sources/SHA256/            the content of a source, read-only
sources/.new-HOST-PID/     one that is being fetched
gcroots/sources/SHA256     the lock files that refer to it, a path a line
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import DrydockError, SourceError
from builder.project.sources.tree import close, content_hash, profiles_in
from builder.store import roots
from builder.store.layout import home
from builder.store.scratch import scratch

if TYPE_CHECKING:
    from builder.project.sources.pins import Pin, Project

Step = Callable[[str], None]

BEGUN = ".new-"
"""What the name of a source begins with that is being fetched."""


def silent(_: str) -> None:
    """Says nothing."""


def folder_of(
    project: Project,
    name: str,
    step: Step = silent,
    under_way: Callable[[str], AbstractContextManager[None]] = lambda _: nullcontext(),
    *,
    fetching: bool = True,
) -> Path:
    """The folder with the profiles of the source `name`: that of a path where it is, any other's in the store.

    It is fetched where it is not there, or not whole any more, in a context that `under_way` makes.
    Raises ProfileError, LockError, SourceError, ToolError.
    """
    declared = project.source(name)
    if declared.path is not None:
        return profiles_in(project.path(name))
    pin = project.pin(name)
    if not is_there(pin.sha256):
        if not fetching:
            raise SourceError(f'the source "{name}" is not fetched yet', hint="drydock sources lock")
        with under_way(name):
            fetch(project, name, step, pin)
    roots.mark_source(pin.sha256, project.lock_file)
    return profiles_in(_place(pin.sha256))


def is_there(sha256: str) -> bool:
    """Whether the store has this content, every byte of it."""
    try:
        return content_hash(_place(sha256)) == sha256
    except (OSError, SourceError):
        return False


def fetch(project: Project, name: str, step: Step, pin: Pin | None = None) -> Pin:
    """Bring the content of a source into the store; gives its pin.

    With a `pin` only that very content is taken. Raises SourceError, which says what was pinned and what is there, and
    ToolError.
    """
    from builder.project.sources.pins import Pin

    declared = project.source(name)
    try:
        with scratch(home() / "sources", BEGUN) as work:
            step(f"fetching {name}: {declared}")
            root, facts = _content(project, name, work, step, pin)
            sha256 = content_hash(root)
            if pin is not None and sha256 != pin.sha256:
                raise SourceError(
                    f"it has changed: pinned is content {pin.sha256[:12]}, and there is {sha256[:12]}",
                    hint=_update_hint(name),
                )
            made = Pin(declared, sha256, **facts)
            _put(root, sha256, work)
            return made
    except DrydockError as error:
        error.message, error.where = f'"{name}": {error.message}', error.where or project.where(name)
        raise
    except OSError as error:
        reason = f"{error.filename or home()}: {error.strerror}"
        raise SourceError(f'"{name}" cannot be fetched: {reason}', where=project.where(name)) from None


def _content(project: Project, name: str, work: Path, step: Step, pin: Pin | None) -> tuple[Path, dict[str, str]]:
    """The content of a source in a new folder in `work`, and what there is to say of it: its commit, its version."""
    declared, root = project.source(name), work / "files"
    if declared.package is not None:
        from builder.project.sources import package

        root.mkdir()
        version = package.copy(declared.package, root)
        return root, {"version": version} if version else {}
    if declared.git is not None:
        return _from_git(project, name, work, step, pin)
    from builder.project.sources import download, unpack

    url, packed = str(declared.archive), work / "archive"
    _online(url)
    download.download(url, packed)
    root.mkdir()
    unpack.unpack(packed, url.rpartition("/")[2], root)
    inside = list(root.iterdir())
    # Most archives have one folder, of the name and version, that has all the rest.
    if len(inside) == 1 and inside[0].is_dir() and inside[0].name != "profiles":
        root = inside[0]
    return root, {}


def _from_git(project: Project, name: str, work: Path, step: Step, pin: Pin | None) -> tuple[Path, dict[str, str]]:
    from builder.embedded.git import is_scp
    from builder.project.sources import git

    declared = project.source(name)
    place = str(declared.git)
    if "://" not in place and not is_scp(place):
        place = str((project.lock_file.parent / place).absolute())
        if not Path(place).is_dir():
            raise SourceError(f"{place} is not a repository")
    elif not place.startswith("file://"):
        _online(place)
    ref = git.resolve(place, declared.rev)
    if pin is not None and pin.commit is not None and ref.kind == "tag" and ref.commit != pin.commit:
        moved = f"the tag {declared.rev} was moved: pinned is commit {pin.commit}, and there is {ref.commit}"
        raise SourceError(moved, hint=_update_hint(name))
    commit = pin.commit if pin is not None and pin.commit is not None else ref.commit
    try:
        root = git.fetch(place, ref, commit, work, lambda path: step(f"left out, because it is a link: {path!a}"))
    except SourceError as error:
        error.hint = error.hint or (_update_hint(name) if pin is not None else None)
        raise
    return root, {"commit": commit}


def _update_hint(name: str) -> str:
    return f"if that is meant: drydock sources update {name}"


def _online(place: str) -> None:
    if os.environ.get("UV_OFFLINE", "").lower() not in ("", "0", "false"):
        raise SourceError(f"{place} is not fetched yet, and --offline forbids it")


def _put(root: Path, sha256: str, work: Path) -> None:
    """Give the content its name in the store, by a rename. Where it is there already, another process was faster."""
    place = _place(sha256)
    close(root)
    if place.exists() and not is_there(sha256):
        place.chmod(0o755)  # a folder that is renamed must be writable, on some systems
        place.rename(work / "damaged")
    try:
        root.rename(place)
    except OSError:
        if not is_there(sha256):
            raise
    with suppress(OSError):
        place.chmod(0o555)


def _place(sha256: str) -> Path:
    return home() / "sources" / sha256
