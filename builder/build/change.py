"""Change what a project requires: its files, locks, scripts and built environments in one go, or nothing of it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from builder.author import requirements
from builder.build.build import build
from builder.errors import DrydockError, LockError, ProfileError, UsageError, Where
from builder.files import display
from builder.lock.model import Change, Lock, dump
from builder.lock.unbuilt import UnbuiltError
from builder.names import stem
from builder.project import generated, undo
from builder.project.catalogue import Catalogue
from builder.project.discovery import own_profile_folders, profile_names
from builder.project.lock import relock
from builder.report import Reporter
from builder.store import generations

Place = tuple[Path, requirements.Place]
"""A file, and where in it requirements stand."""


@dataclass(frozen=True)
class Done:
    """What was changed: in the locks, by profile, and in which `files`, those that say what is required first.

    `undoable` says whether `undo` can take it back.
    """

    locks: Mapping[str, list[Change]]
    files: Sequence[Path]
    undoable: bool

    def lines(self) -> list[str]:
        """The changes of the locks, those that are alike over profiles once, and each in one line."""
        alike: dict[str, list[str]] = {}
        for name, changes in self.locks.items():
            if changes:
                alike.setdefault(_folded(changes), []).append(name)
        return [f"{', '.join(names)}: {text}" for text, names in alike.items()]


def _folded(changes: Sequence[Change], most: int = 4) -> str:
    some = [str(change) for change in changes[:most]]
    rest = len(changes) - len(some)
    return ", ".join(some) + (f", and {rest} more" if rest else "")


def add(wanted: Sequence[str], to: str | None, catalogue: Catalogue, report: Reporter, *, builds: bool = True) -> Done:
    """Add requirements, as PEP 508 writes them, to the project, or only to the profile `to`.

    Raises UsageError, ProfileError, LockError, BuildError; then nothing is changed.
    """
    asked = [requirements.parsed(text) for text in wanted]
    names = [canonicalize_name(one.name) for one in asked]
    own = _own_names(catalogue)
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{name} is named twice", hint=f'say it once: "{name}>=1,<2"')
        if name in own:
            raise UsageError(f"{name} is this project itself", hint="an extra of it: requires-from, in the profile")
    path, place = _place(catalogue, to)
    with _named(path):
        new = {path: requirements.with_requirements(_read(path), place, asked)}
    try:
        return _apply(f"add {' '.join(wanted)}", new, catalogue, report, builds=builds)
    except UnbuiltError as error:
        error.hint = "where that may be built, write these lines into [packages.build] of the profile, and add it again"
        raise
    except LockError as error:
        error.hint = _nearest(asked, error.message, catalogue) or error.hint
        raise


def remove(
    names: Sequence[str], to: str | None, catalogue: Catalogue, report: Reporter, *, builds: bool = True
) -> Done:
    """Take requirements out of all files of the project that have them, or only out of the profile `to`.

    Raises UsageError where one is in none, and as `add` does.
    """
    places = [_place(catalogue, to)] if to is not None else list(dict.fromkeys(_places(catalogue)))
    new: dict[Path, str] = {}
    found: set[str] = set()
    gone = {canonicalize_name(name) for name in names}
    for path, place in places:
        text = new.get(path, _read(path))
        there = requirements.names(text, place) & gone
        if there:
            with _named(path):
                new[path] = requirements.without_packages(text, place, sorted(there))
            found |= there
    if missing := sorted(gone - found):
        raise _not_required(missing[0], places, catalogue)
    done = _apply(f"remove {' '.join(names)}", new, catalogue, report, builds=builds)
    new_catalogue = catalogue.with_files({})
    by = {
        (package.name, *package.required_by)
        for name in done.locks
        for package in new_catalogue.lock(name).packages
        if package.name in gone
    }
    for package, *parents in sorted(by):
        report.step(f"{package} stays locked, as it is required by {', '.join(parents)}")
    return done


def update(
    packages: Sequence[str], names: Sequence[str], catalogue: Catalogue, report: Reporter, *, builds: bool = True
) -> Done:
    """Lock the newest versions that profiles allow, of some packages or of all, and bring all that follows up to date.

    Raises UsageError for a package that none of the locks has, and as `add` does.
    """
    asked = {canonicalize_name(package) for package in packages}
    known: set[str] = set()
    for name in names:
        known |= {*catalogue.entry(name).lock.versions(), "uv"}
    if unknown := sorted(asked - known):
        near = difflib.get_close_matches(unknown[0], known, 1)
        raise UsageError(
            f"{unknown[0]} is in no lock of {', '.join(names)}", hint=f"did you mean {near[0]}?" if near else None
        )
    words = " ".join(["update", *packages])
    return _apply(words, {}, catalogue, report, names=names, upgrade=packages, upgrade_all=not packages, builds=builds)


def _apply(
    command: str,
    edits: Mapping[Path, str],
    catalogue: Catalogue,
    report: Reporter,
    *,
    names: Sequence[str] | None = None,
    upgrade: Sequence[str] = (),
    upgrade_all: bool = False,
    builds: bool,
) -> Done:
    """All locks are made before anything is written; what fails after that is taken back."""
    new = catalogue.with_files({path: text.encode() for path, text in edits.items()})
    affected = list(names) if names is not None else _affected(new, edits)
    files: dict[Path, str | None] = dict(edits)
    locks: dict[str, list[Change]] = {}
    made: dict[str, Lock] = {}
    for name in affected:
        entry = new.entry(name)
        here = {canonicalize_name(one) for one in upgrade} & {*entry.lock.versions(), "uv"} if upgrade else set()
        done = relock(name, new, report, made=made, upgrade=sorted(here), upgrade_all=upgrade_all, dry_run=True)
        locks[name], made[name] = done.changes, done.lock
        if done.new:
            files[entry.lock_path.absolute()] = dump(done.lock)
    before = {path: undo.text_of(path) for path in files}
    files = {path: text for path, text in files.items() if text != before[path]}
    moved: dict[str, tuple[int, int]] = {}
    try:
        undo.put(files)
        written = catalogue.with_files({})
        for name in affected:
            folder = Path("generated") / stem(name)
            if folder.is_dir():
                before |= {path: undo.text_of(path) for path in generated.ours(name, folder.absolute())}
                for path in generated.generate(name, folder.absolute(), written.plan(name)):
                    before.setdefault(path, None)
            if builds and (here_now := generations.current(name)) is not None:
                build(name, written, report)
                after = generations.current(name)
                if after is not None and after.number != here_now.number:
                    moved[name] = (here_now.number, after.number)
    except BaseException:
        undo.put(before)
        for name, (number, _) in moved.items():
            generations.switch(name, number)
        raise
    changed = {path: text for path, text in before.items() if undo.text_of(path) != text}
    undoable = bool(changed) and undo.remember(undo.Change(command, changed, moved))
    return Done(locks, sorted(changed, key=lambda path: (path not in edits, path)), undoable)


def _affected(catalogue: Catalogue, edits: Mapping[Path, str]) -> list[str]:
    """The profiles of the project that can be built and are made of one of the files."""
    found = []
    for name in _buildable(catalogue):
        entry = catalogue.entry(name)
        _ = entry.profile
        if any(path in entry.seen for path in edits):
            found.append(name)
    return found


def _own_names(catalogue: Catalogue) -> set[str]:
    found: set[str] = set()
    for name in _buildable(catalogue):
        with suppress(DrydockError):  # which is for those to say that need this profile
            found.update(catalogue.entry(name).own_names)
    return found


def _buildable(catalogue: Catalogue) -> list[str]:
    return [name for name in profile_names(own_profile_folders()) if catalogue.target(name) is not None]


def _place(catalogue: Catalogue, to: str | None) -> Place:
    """Where a requirement is added: to the profile `to`, else to the file that all profiles of the project share.

    Raises UsageError where there is no such one.
    """
    if to is not None:
        return _own(catalogue.path(to)), requirements.PROFILE
    every = [_places_of(catalogue, name) for name in _buildable(catalogue)]
    if not every:
        raise UsageError("there is no profile of a project here", hint="drydock init, or name one: --to NAME")
    shared = [place for place in every[0] if all(place in places for places in every)]
    # A file of the project that says what is required comes before the profile that names the file.
    files = [place for place in shared if place[1] != requirements.PROFILE]
    with_some = [place for place in shared if requirements.listed(_read(place[0]), place[1])]
    chosen = files[:1] or next((some for some in (shared, with_some) if len(some) == 1), [])
    if not chosen:
        known = ", ".join(sorted({path.stem for places in every for path, _ in places}))
        raise UsageError(
            "several profiles could get it, and no profile is extended by all of them",
            hint=f"name one: --to NAME, of {known}",
        )
    return chosen[0]


def _places(catalogue: Catalogue) -> list[Place]:
    """Every place of the project's own where requirements stand, or could."""
    return [place for name in profile_names(own_profile_folders()) for place in _places_of(catalogue, name)]


def _places_of(catalogue: Catalogue, name: str) -> list[Place]:
    """Those of one profile: files of the project that it names, then its own and those of what it extends."""
    own, entry = _own_folders(), catalogue.entry(name)
    resolved = entry.resolved
    found: list[Place] = []
    for asked in entry.asked(resolved) if catalogue.target(name) is not None else ():
        path = (asked.folder / asked.entry.file).absolute()
        found += [(path, place) for place in requirements.places_of(asked.entry, _read(path))]
    return found + [
        (path, requirements.PROFILE)
        for path, content in entry.seen.items()
        if content is not None and path.parent in own and path.suffix == ".toml" and "." not in path.stem
    ]


def _own_folders() -> list[Path]:
    return [folder.absolute() for folder in own_profile_folders()]


def _own(path: Path) -> Path:
    if path.absolute().parent not in _own_folders():
        raise UsageError(
            f"{display(path)} is not a profile of this project", hint="extend it in a profile of your own: drydock init"
        )
    return path.absolute()


def _read(path: Path) -> str:
    text = undo.text_of(path)
    if text is None:
        raise UsageError(f"there is no {display(path)}")
    return text


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Says of an error in which file it is."""
    try:
        yield
    except ProfileError as error:
        error.where = Where(display(path))
        raise


def _not_required(name: str, places: Sequence[Place], catalogue: Catalogue) -> UsageError:
    there = {one for path, place in places for one in requirements.names(_read(path), place)}
    for profile in _buildable(catalogue):
        try:
            package = next((one for one in catalogue.lock(profile).packages if one.name == name), None)
        except DrydockError:
            continue
        if package is not None:
            return UsageError(
                f"no profile of this project requires {name} itself",
                hint=f"{', '.join(package.required_by)} does; all paths: drydock why {profile} {name}",
            )
    near = difflib.get_close_matches(name, there, 1)
    hint = f"did you mean {near[0]}?" if near else f"required are: {', '.join(sorted(there))}" if there else None
    return UsageError(f"no profile of this project requires {name}", hint=hint)


def _nearest(asked: Sequence[Requirement], said: str, catalogue: Catalogue) -> str | None:
    """A hint for a name that no index has: the nearest that a lock has which is at hand."""
    known: set[str] = set()
    for name in catalogue.names():
        try:
            known |= set(catalogue.lock(name).versions())
        except DrydockError:
            continue
    for one in asked:
        name = canonicalize_name(one.name)
        if name in said and "not found" in said and name not in known:
            near = difflib.get_close_matches(name, known, 3)
            return f"did you mean {' or '.join(near)}?" if near else f"is it called {one.name} on the index?"
    return None
