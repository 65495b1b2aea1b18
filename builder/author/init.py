"""Start a project beside a trainer's code: a profile, its lock, its generated script, a hook."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import tomli_w

from builder.author import beside, gitattributes, precommit
from builder.author.importing import Options
from builder.author.importing.own import command_of, own_code
from builder.author.importing.readers import read, text_of
from builder.author.importing.target import Chosen, of_cuda, with_cuda_of
from builder.author.importing.trainer import Trainer, find
from builder.author.importing.workflow import named, notes, use
from builder.author.importing.write import profile_text, trainer_tables
from builder.author.kinds import extra_for, here, match_for, sensible, target_for
from builder.errors import LockError, UsageError, Where
from builder.files import display, write_atomically, write_new
from builder.lock.builds import CudaError
from builder.lock.model import Lock
from builder.lock.unbuilt import UnbuiltError
from builder.machine import Machine
from builder.project import generated
from builder.project.alike import differences, oldest_first
from builder.project.catalogue import Catalogue
from builder.project.lock import relock, words
from builder.project.requirements.indexes import for_target
from builder.project.requirements.model import Imported, LeftOut
from builder.project.requirements.pyproject import PYPROJECT, extras_of
from builder.report import Reporter

HOOKS_FILE = Path(".pre-commit-config.yaml")
ATTRIBUTES_FILE = Path(".gitattributes")
_READ_ANEW = ("requirements.txt", "pyproject.toml")


@dataclass(frozen=True)
class Started:
    """A new project: its files, the profile's `name`, items left out, notes, and the hook if not added.

    Where there is a profile for each of several kinds of machines, `name` is that of this machine, or the first.
    """

    name: str
    files: list[Path]
    left_out: list[LeftOut]
    notes: list[str]
    hook: str | None


def start_project(
    name: str | None, machine: Machine, report: Reporter, *, lock: bool = True, kinds: Sequence[str] = ()
) -> Started:
    """Start a project in the current folder; `lock` resolves and renders too, which needs an index or a cache.

    For several `kinds` of machines, a part has what the project needs, and a profile each target. On any error its
    files are removed again. Raises UsageError where a file is in the way, and ProfileError and LockError.
    """
    sources = beside.sources(Path())
    source = sources[0] if sources else None
    text = text_of(source, by_hand=True) if source is not None else ""
    extras = extras_of(text) if source is not None and source.name == PYPROJECT else []
    again = shlex.join(
        ["drydock", "init", *(["--name", name] if name else []), *(["--for", ",".join(kinds)] if kinds else [])]
    )
    asked, kinds = list(kinds), list(kinds) or sensible(machine, text, extras)
    chosen = {kind: target_for(kind, machine) for kind in kinds}
    imported = read(source, chosen[kinds[0]], Options()) if source is not None else Imported()
    chosen = {kind: with_cuda_of(one, imported, text) for kind, one in chosen.items()}
    name, path = named(Options(name=name), imported.name or Path.cwd().name)
    own = own_code(source, path, imported)
    if own.code is not None and not imported.command:
        imported.command = command_of(own.code, Path.cwd())
    trainers = {} if imported.command else {kind: find(Path.cwd(), chosen[kind].target.accelerator) for kind in kinds}
    if trainers:
        use(trainers[kinds[0]], imported)
    chosen_extras = {kind: extra_for(kind, extras) for kind in kinds}
    begun = _Begun(name, path, source, imported, chosen, chosen_extras, extras, own.path, trainers)
    said = [*(beside.unread(source, sources[1:], imported, chosen[kinds[0]]) if source is not None else []), own.note]
    try:
        return _written(begun, machine, report, said, again if lock else None, alone=not asked)
    except CudaError as error:
        older = {kind: of_cuda(one, error.release) for kind, one in chosen.items()}
        if older == chosen:
            raise
        report.step(f'[target] cuda = "{error.release}" instead of a guess: {error.message.partition(". ")[0]}')
        begun = replace(begun, chosen=older)
        return _written(begun, machine, report, said, again if lock else None, alone=not asked)


def _written(
    begun: _Begun, machine: Machine, report: Reporter, found: Sequence[str | None], again: str | None, *, alone: bool
) -> Started:
    """Write a project, and lock it where it is `again` the command for that, which hints name.

    An error leaves nothing, and with `alone` says how to begin with one machine.
    """
    kinds = list(begun.chosen)
    texts = begun.texts()
    folders = {one: Path("generated") / one for one in begun.built()}
    locks = [begun.path.with_name(f"{one}.lock.toml") for one in folders]
    files = {begun.path.with_name(f"{one}.toml"): text for one, text in texts.items()}
    _check_free([*files, *locks, *folders.values()])
    made = [*files]
    with _all_or_nothing([*files, *locks, *folders.values(), ATTRIBUTES_FILE, HOOKS_FILE]):
        for file, content in files.items():
            write_new(file, content)
        catalogue = Catalogue(step=report.step)
        for one in folders:
            _ = catalogue.profile(one)
        if again is not None:
            try:
                made += _lock_all(folders, catalogue, report)
            except LockError as error:
                failed = Path(error.where.file).name if error.where is not None and error.where.file else ""
                if error.where is not None and any(error.where.file == display(file) for file in files):
                    error.where = None  # it is removed again
                if isinstance(error, UnbuiltError):
                    error.hint = f"{again} --no-lock && drydock lock {' '.join(folders)} --allow-builds"
                    raise
                ways = [error.hint, f"to have the profiles written, and change them first: {again} --no-lock"]
                if alone and len(kinds) > 1:
                    works = [kind for kind, one in zip(kinds, folders, strict=True) if f"{one}.toml" != failed]
                    how = "with this machine alone" if kinds[0] in works else "without that"
                    ways.append(f"to begin {how}: {again} --for {kinds[0] if kinds[0] in works else ','.join(works)}")
                error.hint = "; ".join(way for way in ways if way)
                raise
        with _as_it_was(ATTRIBUTES_FILE):
            made += _add_attributes()
            # The last step: what it changes of the user's is never to be undone.
            added, hook = _add_hook()
    said = begun.notes() + [
        note for note in dict.fromkeys([*found, *(one.note for one in begun.trainers.values())]) if note
    ]
    if begun.source is not None and again is not None:
        written = Catalogue()
        locked = {name for one in folders for name in written.lock(one).versions()}
        said += [note] if (note := beside.missing_framework(Path.cwd(), locked)) else []
    # What a file says that a lock cannot have, the lock has said.
    left_out = [one for one in begun.imported.left_out if not begun.refers or (not one.expected and again is None)]
    first = begun.built()[kinds.index(here(machine)) if here(machine) in kinds else 0]
    return Started(first, [*made, HOOKS_FILE] if added else made, left_out, said, hook)


def _check_free(paths: Iterable[Path]) -> None:
    for taken in paths:
        if os.path.lexists(taken):
            raise UsageError(f"{display(taken)} already exists", hint="use another name: --name")


@dataclass
class _Begun:
    """What is known of a project before anything is written.

    `extras` has the extra for each kind of machine, None where there is none, `offered` all that the project has,
    `code` the path of its own code, and `trainers` what was found for each kind, where the project does not say it.
    """

    name: str
    path: Path
    source: Path | None
    imported: Imported
    chosen: Mapping[str, Chosen]
    extras: Mapping[str, str | None]
    offered: Sequence[str]
    code: str | None
    trainers: Mapping[str, Trainer]

    @cached_property
    def refers(self) -> bool:
        """Whether its profiles read the project's own file; not where that says what a lock cannot have."""
        if (
            self.source is None
            or self.source.name not in _READ_ANEW
            or self.path.absolute().parent.parent != Path.cwd()
        ):
            return False
        extras = {extra for extra in self.extras.values() if extra is not None}
        chosen = next(iter(self.chosen.values()))
        every = [self.imported, *(read(self.source, chosen, Options(extras=[extra])) for extra in extras)]
        return not any(one.package is not None for found in every for one in found.left_out)

    @property
    def differ(self) -> bool:
        """Whether kinds of machines have trainers of their own."""
        return len({str((one.command, one.options, one.commands)) for one in self.trainers.values()}) > 1

    def built(self) -> list[str]:
        """The names of the profiles with a target, in the order of the kinds."""
        return [f"{self.name}-{kind}" for kind in self.chosen] if len(self.chosen) > 1 else [self.name]

    def texts(self) -> dict[str, str]:
        """The profiles by name: one, or a part and one for each kind of machine."""
        kind, chosen = next(iter(self.chosen.items()))
        several = len(self.chosen) > 1
        if not self.refers:
            for_target(self.imported, chosen.target, Where(str(self.source)))
        whole = profile_text(
            self.name,
            f"made by drydock init{f' of {self.source}' if self.source is not None else ''}",
            self.imported,
            {} if several else {**chosen.table, "match": match_for(kind)},
            # With requirements of one's own, those of base and its day would be in the way.
            extends=() if self.source is not None else ("base",),
            project=self.code,
            requires_from=self._entry(None if several else self.extras[kind]) if self.refers else None,
            with_trainer=not self.differ,
        )
        return {
            self.name: whole,
            **({f"{self.name}-{kind}": self._of(kind) for kind in self.chosen} if several else {}),
        }

    def _of(self, kind: str) -> str:
        """A small profile for one kind of machine."""
        extra = self.extras[kind] if self.refers else None
        data = {
            "schema": 1,
            "name": f"{self.name}-{kind}",
            "description": f"{self.name} for {kind}",
            "extends": [self.name],
            "target": {**self.chosen[kind].table, "match": match_for(kind)},
            **({"packages": {"requires-from": self._entry(extra)}} if extra is not None else {}),
            **(trainer_tables(f"{self.name}-{kind}", self._own_trainer(kind)) if self.differ else {}),
        }
        return tomli_w.dumps(data)

    def _own_trainer(self, kind: str) -> Imported:
        trainer = Imported()
        use(self.trainers[kind], trainer)
        return trainer

    def notes(self) -> list[str]:
        """What to look at in the profiles."""
        guessed = [note for one in self.chosen.values() for note in one.guessed]
        said = notes(self.imported, replace(next(iter(self.chosen.values())), guessed=()), self.path)
        if self.source is not None:
            return [*guessed, *said, *self._extras_left()]
        names, folders = beside.imported_packages(Path.cwd()), beside.folders_with_sources(Path.cwd())
        said_by_code = f"the code imports {', '.join(names)}: drydock add {' '.join(names)}" if names else "drydock add"
        if folders:  # what these import together is no project's
            named = ", ".join(folders[:6]) + (f" and {len(folders) - 6} more" if folders[6:] else "")
            said_by_code = (
                f"{named} say what they require; to begin with one: cd {shlex.quote(folders[0])} && drydock init"
            )
        head = f"no requirements.txt and no [project] here: {display(self.path)} extends base; {said_by_code}"
        return [head, *guessed, *(one for one in said if "no package is required" not in one)]

    def _extras_left(self) -> list[str]:
        left = [one for one in self.offered if one not in self.extras.values()]
        if not left:
            return []
        more = f" and {len(left) - 6} more" if left[6:] else ""
        named = f"the extra{'s' if left[1:] else ''} {', '.join(left[:6])}{more} of {self.source}"
        how = f"drydock import {self.source} --extra NAME"
        if self.refers:
            how = f'[packages.requires-from] extras = ["NAME"] in {display(self.path)}'
        return [f"not locked: {named}; to have one: {how}"]

    def _entry(self, extra: str | None) -> dict[str, Any]:
        return {"file": str(self.source), **({"extras": [extra]} if extra is not None else {})}


def _lock_all(folders: Mapping[str, Path], catalogue: Catalogue, report: Reporter) -> list[Path]:
    """Lock and render the profiles; returns the files."""
    made: dict[str, Lock] = {}
    files: list[Path] = []
    for name in folders:
        made[name] = relock(name, catalogue, report, made=made).lock
    again: dict[str, Lock] = {}
    for name in oldest_first(made):
        again[name] = made[name] if not again else relock(name, catalogue, report, upgrade_all=True, made=again).lock
    made |= again
    for name, folder in folders.items():
        fresh = Catalogue()  # with the lock that is there now
        generated.generate(name, folder, fresh.plan(name))
        files += [fresh.lock_path(name).relative_to(Path.cwd()), *sorted(folder.iterdir())]
        report.step(f"{name}: locked, {words(made[name])}")
    for line in differences(made):
        report.step(line)
    return files


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
