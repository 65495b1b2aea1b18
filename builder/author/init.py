"""Start a project beside a trainer's code: a profile, its lock, its generated script, a hook."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from builder.author import gitattributes, precommit
from builder.author.importing import Options
from builder.author.importing.own import command_of, own_code
from builder.author.importing.target import choose
from builder.author.importing.workflow import check, named, notes, read
from builder.author.importing.write import profile_text
from builder.errors import UsageError
from builder.files import display, write_atomically, write_new
from builder.machine import Machine
from builder.project import generated
from builder.project.catalogue import Catalogue
from builder.project.lock import relock
from builder.project.requirements.model import Imported, LeftOut
from builder.report import Reporter

HOOKS_FILE = Path(".pre-commit-config.yaml")
ATTRIBUTES_FILE = Path(".gitattributes")
_SOURCES = ("requirements.txt", "pyproject.toml")
_TRAINERS = ("train.py", "main.py", "run.py")


@dataclass(frozen=True)
class Started:
    """A new project: its files, the profile's `name`, items left out, notes, and the hook if not added."""

    name: str
    files: list[Path]
    left_out: list[LeftOut]
    notes: list[str]
    hook: str | None


def start_project(name: str | None, machine: Machine, report: Reporter, *, lock: bool = True) -> Started:
    """Start a project in the current folder; `lock` resolves and renders too, which needs an index or a cache.

    On any error its files are removed again. Raises UsageError where a file is in the way, and ProfileError and
    LockError.
    """
    source = next((Path(one) for one in _SOURCES if Path(one).is_file() and _is_project(Path(one))), None)
    chosen = choose(machine, None, None)
    imported = read(source, chosen, Options()) if source else Imported()
    if not imported.command:
        found = next((one for one in _TRAINERS if Path(one).is_file()), None)
        imported.command = ["python", found] if found else []
    name, path = named(Options(name=name), imported.name or Path.cwd().name)
    own = own_code(source, path, imported)
    if own.code is not None and not imported.command:
        imported.command = command_of(own.code, Path.cwd())
    folder = Path("generated") / name
    lock_path = path.with_name(f"{name}.lock.toml")
    for taken in (lock_path, folder):
        if os.path.lexists(taken):
            raise UsageError(f"{display(taken)} already exists", hint="use another name: --name")
    text = profile_text(
        name,
        f"made by drydock init{f' of {source}' if source else ''}",
        imported,
        {**chosen.table, "match": _match(machine)},
        # With requirements of one's own, those of base and its day would be in the way.
        extends=() if source else ("base",),
        project=own.path,
    )
    check(name, text, path)
    with _all_or_nothing([path, lock_path, folder, ATTRIBUTES_FILE, HOOKS_FILE]):
        write_new(path, text)
        if lock:
            relock(name, Catalogue(step=report.step), report)
            generated.generate(name, folder, Catalogue().plan(name))  # with the lock that is there now
        made = [path, *([lock_path, *sorted(folder.iterdir())] if lock else [])]
        with _as_it_was(ATTRIBUTES_FILE):
            made += _add_attributes()
            # The last step: what it changes of the user's is never to be undone.
            added, hook = _add_hook()
    said = notes(imported, chosen, path)
    if source is None:
        said = [f"no requirements.txt and no [project] here: {display(path)} extends base; add torch to [packages]"]
        said += [one for one in notes(imported, chosen, path) if "nothing is required" not in one]
    said += [own.note] if own.note else []
    return Started(name, [*made, HOOKS_FILE] if added else made, list(imported.left_out), said, hook)


def _is_project(path: Path) -> bool:
    """Return whether the file has requirements: a pyproject.toml may only configure tools."""
    return path.name != "pyproject.toml" or "[project]" in path.read_text(encoding="utf-8", errors="replace")


def _match(machine: Machine) -> dict[str, str]:
    """So that `auto` picks the profile on this machine, and on those of the team that are of its kind."""
    return {"gpu": "*"} if machine.gpus else {}


def _add_attributes() -> list[Path]:
    """Say in the file of git what scripts and locks are; returns it where it was changed. A link is left alone."""
    if not os.path.lexists(ATTRIBUTES_FILE):
        write_new(ATTRIBUTES_FILE, gitattributes.with_lines(""))
        return [ATTRIBUTES_FILE]
    if ATTRIBUTES_FILE.is_symlink() or not ATTRIBUTES_FILE.is_file():
        return []
    try:
        text = ATTRIBUTES_FILE.read_bytes().decode()
    except UnicodeDecodeError:
        return []
    added = text if "\r" in text else gitattributes.with_lines(text)
    if added == text:
        return []
    _replace(ATTRIBUTES_FILE, added)
    return [ATTRIBUTES_FILE]


def _replace(path: Path, text: str) -> None:
    mode = path.stat().st_mode & 0o777
    write_atomically(path, text)
    path.chmod(mode)


@contextmanager
def _as_it_was(path: Path) -> Iterator[None]:
    """Give a file that the body may change its text back where the body fails."""
    text = path.read_bytes() if path.is_file() else None
    try:
        yield
    except BaseException:
        if text is not None and path.read_bytes() != text:
            _replace(path, text.decode())
        raise


def _add_hook() -> tuple[bool, str | None]:
    """Add the hook to the file of pre-commit; returns whether that was done, and the entry if the user must do it."""
    if not os.path.lexists(HOOKS_FILE):
        write_new(HOOKS_FILE, precommit.new_config())
        return True, None
    try:
        text = HOOKS_FILE.read_bytes().decode()
    except (OSError, UnicodeDecodeError):
        return False, precommit.entry(2)
    if precommit.has_hook(text):
        return False, None
    added = None if HOOKS_FILE.is_symlink() or "\r" in text else precommit.with_hook(text)
    if added is None:
        return False, precommit.entry(2)
    _replace(HOOKS_FILE, added)
    return True, None


@contextmanager
def _all_or_nothing(paths: list[Path]) -> Iterator[None]:
    """On failure, remove the `paths` that the body made, and the folders above that it made for them."""
    mine = [path for path in paths if not os.path.lexists(path)]
    above = {parent for path in mine for parent in path.parents if not parent.exists()}
    try:
        yield
    except BaseException:
        for path in mine:
            for inner in sorted(path.iterdir()) if path.is_dir() else [path]:
                inner.unlink(missing_ok=True)
            with suppress(OSError):
                path.rmdir()
        for parent in sorted(above, key=lambda one: len(one.parts), reverse=True):
            with suppress(OSError):
                parent.rmdir()
        raise
