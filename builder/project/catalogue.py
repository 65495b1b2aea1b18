"""Profiles and locks as they are on disk: found, read, and put together to a plan.

A list of profiles needs none of the models, whose import takes longest: they are imported where they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import DrydockError, LockError, ProfileError, Where
from builder.files import display
from builder.names import FORMS, is_reference, split
from builder.project.discovery import names_in, profile_folders, profile_names, project_above
from builder.project.snapshot import Seen, Snapshot
from builder.resources import shipped

if TYPE_CHECKING:
    from builder.lock.model import Lock
    from builder.lock.outline import Outline
    from builder.profile.load import Part, Resolved
    from builder.profile.model import Profile
    from builder.profile.source import Source
    from builder.profile.target import Target
    from builder.profile.variables import Finding
    from builder.project.config import Config
    from builder.project.evaluate import Evaluation
    from builder.project.requirements.found import Asked, Found
    from builder.project.requirements.model import LeftOut
    from builder.project.sources.pins import Project
    from builder.script.code import Code
    from builder.script.plan import Plan


class Catalogue:
    """Finds and reads profiles: `m4` in `folders`, `team:m4` in the source `team` of this project.

    Each file is read, parsed and checked once, and whatever is asked later is of the same bytes: one for a command.
    `step` hears what source is fetched, `under_way` makes a context for the time that it takes.
    """

    def __init__(
        self,
        folders: list[Path] | None = None,
        step: Callable[[str], None] = lambda _: None,
        under_way: Callable[[str], AbstractContextManager[None]] = lambda _: nullcontext(),
        files: Seen | None = None,
    ) -> None:
        """In the folders of profiles that are known here, where none are named; `files` as they are going to be."""
        self.folders = profile_folders() if folders is None else folders
        self.step, self.under_way = step, under_way
        self._files = Snapshot(files)
        self._entries: dict[str, Entry] = {}
        self._of_sources: dict[str, Path] = {}
        self._settings: Seen = {}

    def with_files(self, contents: Mapping[Path, bytes]) -> Catalogue:
        """The profiles as they are once files, by their absolute paths, have these contents; all is read anew."""
        return Catalogue(self.folders, self.step, self.under_way, dict(contents))

    @cached_property
    def config(self) -> Config:
        """What drydock.toml says. Raises ProfileError."""
        from builder.project import config

        return config.find(self._settings)

    def check_version(self, seen: Seen) -> None:
        """Raise ProfileError where the project is for another Drydock; `seen` gets the files that say so, or do not."""
        self.config.check_version()
        seen |= self._settings

    @cached_property
    def project(self) -> Project:
        """The project that this folder is in, and its sources. Raises ProfileError and LockError."""
        from builder.project.sources import pins

        return pins.read(self.config, self._settings)

    def entry(self, name: str) -> Entry:
        """The profile `name`, with what belongs to it; nothing of it is read yet."""
        if name not in self._entries:
            self._entries[name] = Entry(name, self, self._files)
        return self._entries[name]

    def content(self, path: Path) -> bytes | None:
        """What a file has, in this command's view; None where there is none. Raises ProfileError."""
        return self._files.content(path, {})

    def names(self) -> list[str]:
        """All profiles but those of sources, sorted."""
        return profile_names(self.folders)

    def at_hand(self) -> list[str]:
        """All profiles, those of sources too where these need not be fetched; sorted."""
        return sorted([*self.names(), *self._names_at_hand()])

    def path(self, name: str) -> Path:
        """The file of the profile `name`. Raises ProfileError with the nearest name."""
        return self.entry(name).path

    def target(self, name: str) -> Target | None:
        """The target that the file of `name` itself states; None for a part. Raises ProfileError."""
        return self.entry(name).own.model.target

    def profile(self, name: str) -> Profile:
        """The whole profile `name`. Raises ProfileError."""
        return self.entry(name).profile

    def texts(self, name: str) -> Mapping[str, str]:
        """The texts of the files that the profile `name` names; see Entry."""
        return self.entry(name).texts

    def lock_path(self, name: str) -> Path:
        """Where the lock of `name` is, or would be: beside its profile."""
        return self.entry(name).lock_path

    def lock(self, name: str) -> Lock:
        """The lock of `name`, unchecked against its profile. Raises LockError."""
        return self.entry(name).lock

    def plan(self, name: str) -> Plan:
        """The plan of `name`, from a lock that is fresh. Raises ProfileError or LockError."""
        return self.entry(name).plan

    def place_of(self, source: str) -> tuple[str, Path]:
        """Where a source comes from and what it is pinned to, in words, and the folder with its profiles."""
        declared = self.project.source(source)
        said = str(declared) if declared.path is not None else f"{declared}, {self.project.pin(source).revision}"
        return said, self.source_folder(source)

    def source_folder(self, source: str) -> Path:
        """The folder with the profiles of a source, which is fetched where it is not there; raises as that does."""
        if source not in self._of_sources:
            from builder.project.sources.fetch import folder_of

            self._of_sources[source] = folder_of(self.project, source, self.step, self.under_way)
        return self._of_sources[source]

    def folders_of(self, scope: str, seen: Seen) -> list[Path]:
        """Where profiles and their files are looked for, in a source or, where `scope` is "", outside of all.

        `seen` gets the files that say where a source is.
        """
        if not scope:
            return self.folders
        found = [self.source_folder(scope), shipped("profiles")]
        seen |= self._settings
        return found

    def _names_at_hand(self) -> Iterator[str]:
        """The profiles of the sources that need not be fetched, for a hint: what is wrong with the others is not."""
        from builder.project.sources.fetch import folder_of

        try:
            for source in self.project.declared:
                with suppress(DrydockError, OSError):
                    folder = folder_of(self.project, source, fetching=False)
                    yield from (f"{source}:{name}" for name in names_in(folder))
        except DrydockError:
            return


class Entry:
    """A profile with what belongs to it: its file and those that it extends, the files that they name, its lock.

    `seen` has every file that an answer was made from, with its bytes; None for one that was looked for in vain.
    `sources` are those that have a part in it.
    """

    def __init__(self, name: str, catalogue: Catalogue, files: Snapshot) -> None:
        self.name = name
        self.seen: Seen = {}
        self.sources: set[str] = set()
        self.evaluation: Evaluation | None = None
        """What it came to, once it was evaluated: builder.project.evaluate."""
        self.folders: list[list[str]] = []
        """The states of the folders and files of this machine that it requires: builder.project.direct."""
        self._catalogue = catalogue
        self._files = files

    @cached_property
    def source(self) -> str:
        """The source that it is of; "" for none."""
        return split(self.name)[0]

    @cached_property
    def plain(self) -> str:
        """Its name there."""
        return split(self.name)[1]

    @cached_property
    def path(self) -> Path:
        """The file. Raises ProfileError with the nearest name."""
        is_name = is_reference(self.name)
        found = self._first(f"{self.plain}.toml", self.source, named=True) if is_name else None
        if found is not None:
            return found
        known = self._catalogue.at_hand()
        from difflib import get_close_matches

        folder, _, file = self.name.rpartition("/")
        word = (file or folder.rpartition("/")[2]).removesuffix(".toml").removesuffix(".lock").lower()
        near = get_close_matches(word, [name for name in known if name != self.name], 1)
        hint = f'did you mean "{near[0]}"?' if near else f"known profiles: {', '.join(known)}"
        above = project_above() if is_name and not self.source else None
        if above is not None and self.name in profile_names([above / "profiles"]):
            hint = f"the project above has it: cd {above}"
        raise ProfileError(f'no profile "{self.name}"', hint=hint if is_name else f"{hint} ({FORMS})")

    @cached_property
    def own(self) -> Part:
        """The file by itself, checked. Raises ProfileError."""
        return self._files.part(self.path, self.source, self.seen)

    @cached_property
    def resolved(self) -> Resolved:
        """The profile with what it extends. Raises ProfileError."""
        from builder.profile.load import resolved

        self._catalogue.check_version(self.seen)
        return resolved(self.own, self.part)

    @property
    def profile(self) -> Profile:
        """The whole profile, with what the files of the project require. Raises ProfileError."""
        return self._required.profile

    @property
    def left_out(self) -> list[LeftOut]:
        """What the files of `requires-from` say that a profile cannot hold. Raises ProfileError."""
        return self._required.left_out

    @cached_property
    def _required(self) -> Found:
        found = self._plain
        own = found.profile.project
        if own is None or own.mode == "tree":
            return found
        from dataclasses import replace

        from builder.project.code import required

        return replace(found, profile=required(found.profile, self._own_names(found.profile), self.resolved.where))

    @cached_property
    def _plain(self) -> Found:
        """The profile without the project itself, where that is installed as a wheel."""
        return self.with_requirements(self.resolved)

    def with_requirements(self, resolved: Resolved) -> Found:
        """A profile with what the files of its `requires-from` require, as it is or would be. Raises ProfileError."""
        from builder.project.requirements.found import Found

        profile = resolved.profile
        if not profile.packages.requires_from:
            return Found(profile)
        from builder.project.requirements.files import with_requirements

        return with_requirements(profile, self.asked(resolved), self._own_names(profile), self._content)

    def asked(self, resolved: Resolved) -> list[Asked]:
        """The entries of `requires-from` of all files of a profile, each with the project that its file is in.

        Raises ProfileError.
        """
        from builder.project.requirements.found import Asked

        asked = []
        for part in resolved.parts:
            path = self.path if part is resolved.own else self._catalogue.path(part.model.name)
            for entry in part.model.packages.requires_from:
                where = part.source.where("packages", "requires-from")
                if part.source.scope or path.parent == shipped("profiles").absolute():
                    raise ProfileError(
                        f"{part.origin} is not a profile of a project here, and requires-from names files of one",
                        hint=f'name them in a profile of your own that extends it: extends = ["{part.origin}"]',
                        where=where,
                    )
                asked.append(Asked(entry, path.parent.parent, where))
        # As they are merged: what is said twice, once.
        return [one for one in asked if one.entry in resolved.profile.packages.requires_from]

    def warnings(self) -> list[tuple[Where, Finding]]:
        """What is to be said of the settings, each with its place; of a profile also what contradicts its determinism.

        Raises ProfileError.
        """
        found = self.resolved.warnings()
        if self.own.model.target is None or self.profile.determinism is None:
            return found
        from builder.project.determinism import contradictions

        return [*found, *contradictions(self)]

    def part(self, name: str, scope: str) -> Part:
        """What a profile extends as `name`; in the `scope` of a source, its own come before the built-in ones.

        Raises ProfileError.
        """
        if not scope:
            other = self._catalogue.entry(name)
            found = other.own
            self.seen |= other.seen
            self.sources |= other.sources
            return found
        if ":" in name:
            raise ProfileError(
                f'"{name}" is of another source, and a source extends its own profiles and the built-in ones only',
                hint="extend both in a profile of your own",
            )
        path = self._first(f"{name}.toml", scope)
        if path is None:
            raise ProfileError(f'no profile "{name}" in the source "{scope}", and none is built in')
        return self._files.part(path, scope, self.seen)

    @cached_property
    def texts(self) -> Mapping[str, str]:
        """The texts of the files that the profile names: patches, proofs, checks, trainer.

        Each is from where the profile is that names it. Raises ProfileError, also where two of them have one name and
        are not alike: a script carries them by name.
        """
        texts: dict[str, str] = {}
        for file, source in sorted(self.resolved.files(), key=lambda one: one[0]):
            text = self._beside(file, source)
            if texts.setdefault(file, text) != text:
                raise ProfileError(
                    f"{file} is one file here, and another in a source", hint="rename one", where=source.where()
                )
        return texts

    @property
    def lock_path(self) -> Path:
        """Where the lock is, or would be: beside the profile."""
        return self.path.with_name(f"{self.plain}.lock.toml")

    @property
    def lock(self) -> Lock:
        """The lock, unchecked against its profile. Raises LockError."""
        with self._locked_elsewhere():
            found = self._files.lock(self.lock_path, self.seen)
            if found is None:
                raise LockError(
                    f'"{self.name}" has no lock', hint=f"drydock lock {self.name}", where=Where(display(self.lock_path))
                )
            return found

    @property
    def outline(self) -> Outline:
        """What it and its lock come to in plain values; the lock is unchecked, and None where there is none to read.

        Raises ProfileError.
        """
        from builder.lock.outline import outline

        profile, lock = self.profile, None
        with suppress(DrydockError):
            lock = self.lock
        return outline(profile, lock, self.warnings(), self.resolved.where)

    def check_fresh(self) -> None:
        """Raises LockError where the lock is missing, edited, or of what the profile said before."""
        from builder.lock.model import check_fresh

        with self._locked_elsewhere():
            check_fresh(self.lock, self.profile, self.texts, display(self.lock_path))
            if any(package.origin is not None for package in self.lock.packages):
                from builder.project import direct

                self.folders = direct.states(self)
                direct.check_fresh(self, self.lock)
            if any(one.folder is not None for one in self.profile.data.values()):
                from builder.project import data

                self.folders = [*self.folders, *data.states(self)]
                data.check_fresh(self, self.lock)

    def check_lockable(self) -> None:
        """Raises LockError where it is of a source that is pinned: its lock came with it."""
        if self._is_pinned():
            raise LockError(f'the lock of "{self.name}" is that of its source, which is pinned', hint=self._lock_it())

    @property
    def project_folder(self) -> Path:
        """The folder of the project: the one that has the folder of the profile. Raises ProfileError."""
        return self.path.parent.parent

    @cached_property
    def is_of_project(self) -> bool:
        """Whether it is a profile of a project here; not where it is built in, or of a source. Raises ProfileError."""
        return not self.source and self.path.parent != shipped("profiles").absolute()

    @cached_property
    def code(self) -> Code | None:
        """The project's own code, where the profile has [project].

        Raises ProfileError: no code is there, or the profile requires a package by the name of its own project.
        """
        from builder.project import code

        own, project = self.profile.project, self.resolved.where("project")
        if not self.is_of_project:
            if own is None:
                return None
            raise ProfileError(
                f"{self.name} is not a profile of a project here, and [project] is the code of one",
                hint=f'extend it in a profile of your own: extends = ["{self.name}"]',
                where=project,
            )
        folder = self.project_folder
        for name in self.own_names:
            code.check_not_required(name, self._plain.profile, self._where_required)
        if own is None or own.mode == "wheel":
            return None
        marker = f"{self.path.parent.name}/{self.path.name}"
        try:
            return code.read(folder, own.path, marker, self._content)
        except ProfileError as error:
            error.where = error.where or project
            raise

    def _where_required(self, *key: str) -> Where:
        """The place of a requirement, in a profile or in a file that one names."""
        place = self._required.places.get(key[-1])
        return place if place is not None and key not in self.resolved.flat else self.resolved.where(*key)

    @property
    def own_names(self) -> list[str]:
        """What the project here is called on an index, where it says so; nothing for what is not of a project here."""
        return self._own_names(self.profile)

    def _own_names(self, profile: Profile) -> list[str]:
        from builder.project.code import name_of

        if self.source or self.path.parent == shipped("profiles").absolute():
            return []
        own = profile.project
        folders = dict.fromkeys((self.project_folder, self.project_folder / (own.path if own is not None else ".")))
        found = (name_of(folder, self._content) for folder in folders)
        return [name for name in found if name is not None]

    def check_lock(self, lock: Lock) -> None:
        """Raises ProfileError where the project itself is among what is locked."""
        from builder.project.code import check_not_locked

        for name in self.own_names:
            check_not_locked(name, lock, Where(display(self.path)))

    def _content(self, path: Path) -> bytes | None:
        return self._files.content(path.absolute(), self.seen)

    @cached_property
    def plan(self) -> Plan:
        """The plan, from a lock that is fresh. Raises ProfileError or LockError."""
        from builder.script.plan import make_plan

        profile, texts, code = self.profile, self.texts, self.code
        self.check_fresh()
        self.check_lock(self.lock)
        return make_plan(profile, self.lock, texts, code)

    @property
    def content(self) -> str | None:
        """The digest of all that sources have a part in it with, for consent. Raises ProfileError."""
        from builder.project.sources.consent import digest

        _ = self.profile, self.texts
        with suppress(LockError):  # there may be none yet, or a broken one, and it is agreed to all the same
            _ = self.lock
        folders = {source: self._catalogue.source_folder(source) for source in self.sources}
        return digest(
            (str(path.relative_to(folder)), content)
            for path, content in self.seen.items()
            for folder in folders.values()
            if content is not None and path.is_relative_to(folder)
        )

    @contextmanager
    def _locked_elsewhere(self) -> Iterator[None]:
        """Has the hint of a LockError say where a profile of a source is locked."""
        try:
            yield
        except LockError as error:
            if self.source:
                error.hint = self._lock_it() if self._is_pinned() else f"drydock lock {self.name}"
            raise

    def _is_pinned(self) -> bool:
        return bool(self.source) and self._catalogue.project.source(self.source).path is None

    def _lock_it(self) -> str:
        return f"lock {self.plain} in the repository of {self.source}, then: drydock sources update {self.source}"

    def _beside(self, name: str, profile: Source) -> str:
        """A file that a profile names, from the first folder that has it; never from outside of that folder."""
        path = self._first(name, profile.scope)
        if path is None:
            raise ProfileError(f"{name} does not exist", hint="put it beside the profile", where=Where(profile.path))
        folders = self._catalogue.folders_of(profile.scope, self.seen)
        if not any(path.resolve().is_relative_to(folder.resolve()) for folder in folders):
            raise ProfileError(f"{name} leads out of {display(path.parent)}", hint="replace the link by the file")
        return self._files.text(path, self.seen)

    def _first(self, name: str, scope: str, *, named: bool = False) -> Path | None:
        """The first file of that name; of a source itself where the source is `named`: team:cpu is not built in."""
        folders = self._catalogue.folders_of(scope, self.seen)
        if scope:
            self.sources.add(scope)
        for folder in folders[:1] if scope and named else folders:
            path = (folder / name).absolute()
            if self._files.content(path, self.seen) is not None:
                return path
        return None
