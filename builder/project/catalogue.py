"""Profiles and locks as they are on disk: found, read, and put together to a plan.

A list of profiles needs none of the models, whose import takes longest: they are imported where they are used.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import DrydockError, LockError, ProfileError, Where
from builder.files import display as display
from builder.files import is_there, not_utf8, read_regular
from builder.names import FORMS, is_reference, split
from builder.project.discovery import names_in, profile_folders, profile_names
from builder.project.sources.fetch import folder_of, silent
from builder.resources import shipped

if TYPE_CHECKING:
    from builder.lock.model import Lock
    from builder.profile.model import Profile
    from builder.profile.source import Source
    from builder.profile.target import Target
    from builder.project.sources.pins import Project
    from builder.script.plan import Plan


@dataclass
class Catalogue:
    """Finds and reads profiles: `m4` in `folders`, `team:m4` in the source `team` of this project.

    `seen` has every file that an answer was made from, with its bytes; None for one that was looked for in vain. `step`
    hears what source is fetched.
    """

    folders: list[Path] = field(default_factory=profile_folders)
    seen: dict[Path, bytes | None] = field(default_factory=dict)
    step: Callable[[str], None] = silent
    _of_sources: dict[str, Path] = field(default_factory=dict)

    @cached_property
    def project(self) -> Project:
        """The project that this folder is in, and its sources. Raises ProfileError and LockError."""
        from builder.project import config
        from builder.project.sources import pins

        return pins.read(config.find(self.seen), self.seen)

    def names(self) -> list[str]:
        """All profiles but those of sources, sorted."""
        return profile_names(self.folders)

    def at_hand(self) -> list[str]:
        """All profiles, those of sources too where these need not be fetched; sorted."""
        return sorted([*self.names(), *self._names_at_hand()])

    def path(self, name: str) -> Path:
        """The file of the profile `name`. Raises ProfileError with the nearest name."""
        source, plain = split(name)
        if is_reference(name):
            found = self._first(f"{plain}.toml", [self.source_folder(source)] if source else self.folders)
            if found is not None:
                return found
        known = self.at_hand()
        near = difflib.get_close_matches(name.lower(), known, 1)
        hint = f'did you mean "{near[0]}"?' if near else f"known profiles: {', '.join(known)}"
        raise ProfileError(f'no profile "{name}"', hint=hint if is_reference(name) else f"{hint}; {FORMS}")

    def source(self, name: str, scope: str = "") -> Source:
        """The text of the profile `name`; in the `scope` of a source, its own come before the built-in ones.

        Raises ProfileError.
        """
        from builder.profile.source import Source

        if not scope:
            path = self.path(name)
            return Source(display(path), self._text(path), split(name)[0])
        if split(name)[0]:
            raise ProfileError(
                f'"{name}" is of another source, and a source extends its own profiles and the built-in ones only',
                hint="extend both in a profile of your own",
            )
        found = self._first(f"{name}.toml", self._folders_of(scope))
        if found is None:
            raise ProfileError(f'no profile "{name}" in the source "{scope}", and none is built in')
        return Source(display(found), self._text(found), scope)

    def profile(self, name: str) -> Profile:
        """The whole profile `name`. Raises ProfileError."""
        from builder.profile.load import load

        return load(name, self.source)

    def target(self, name: str) -> Target | None:
        """The target that the file of `name` itself states; None for a part. Raises ProfileError."""
        from builder.profile.load import load_part

        return load_part(name, self.source(name)).target

    def texts(self, name: str) -> Mapping[str, str]:
        """The texts of the files that the profile `name` names: patches, proofs, checks, trainer.

        Each is from where the profile is that names it. Raises ProfileError, also where two of them have one name and
        are not alike: a script carries them by name.
        """
        from builder.profile.load import files_of

        texts: dict[str, str] = {}
        for file, source in sorted(files_of(name, self.source), key=lambda one: one[0]):
            text = self._beside(file, source)
            if texts.setdefault(file, text) != text:
                raise ProfileError(
                    f"{file} is one file here, and another in a source", hint="rename one", where=source.where()
                )
        return texts

    def lock_path(self, name: str) -> Path:
        """Where the lock of `name` is, or would be: beside its profile."""
        return self.path(name).with_name(f"{split(name)[1]}.lock.toml")

    def lock(self, name: str) -> Lock:
        """The lock of `name`, unchecked against its profile. Raises LockError."""
        from builder.lock.model import parse

        path = self.lock_path(name)
        with self._locked_elsewhere(name):
            if not is_there(path):
                raise LockError(f'"{name}" has no lock', hint=f"drydock lock {name}", where=Where(display(path)))
            return parse(self._text(path), display(path), split(name)[1])

    def check_lockable(self, name: str) -> None:
        """Raises LockError where `name` is of a source that is pinned: its lock came with it."""
        source, plain = split(name)
        if source and self.project.source(source).path is None:
            raise LockError(
                f'the lock of "{name}" is that of its source, which is pinned',
                hint=f"lock {plain} in the repository of {source}, then: drydock sources update {source}",
            )

    def plan(self, name: str) -> Plan:
        """The plan of `name`, from a lock that is fresh. Raises ProfileError or LockError."""
        from builder.lock.model import check_fresh
        from builder.script.plan import make_plan

        profile = self.profile(name)
        texts = self.texts(name)
        lock = self.lock(name)
        with self._locked_elsewhere(name):
            check_fresh(lock, profile, texts, display(self.lock_path(name)))
        return make_plan(profile, lock, texts)

    def from_sources(self) -> Iterator[tuple[str, str, bytes]]:
        """Every file of a source that was read until now: the source, its name there, its content."""
        for path, content in self.seen.items():
            for source, folder in self._of_sources.items():
                if content is not None and path.is_relative_to(folder):
                    yield source, str(path.relative_to(folder)), content

    def place_of(self, source: str) -> tuple[str, Path]:
        """Where a source comes from and what it is pinned to, in words, and the folder with its profiles."""
        declared = self.project.source(source)
        said = str(declared) if declared.path is not None else f"{declared}, {self.project.pin(source).said}"
        return said, self.source_folder(source)

    @contextmanager
    def _locked_elsewhere(self, name: str) -> Iterator[None]:
        """Has the hint of a LockError say where a profile of a source is locked."""
        source, plain = split(name)
        try:
            yield
        except LockError as error:
            if source and self.project.source(source).path is None:
                error.hint = f"lock {plain} in the repository of {source}, then: drydock sources update {source}"
            elif source:
                error.hint = f"drydock lock {name}"
            raise

    def source_folder(self, source: str) -> Path:
        """The folder with the profiles of a source, which is fetched where it is not there; raises as that does."""
        if source not in self._of_sources:
            self._of_sources[source] = folder_of(self.project, source, self.step)
        return self._of_sources[source]

    def _folders_of(self, scope: str) -> list[Path]:
        return [self.source_folder(scope), shipped("profiles")] if scope else self.folders

    def _names_at_hand(self) -> Iterator[str]:
        """The profiles of the sources that need not be fetched, for a hint: what is wrong with the others is not."""
        try:
            for source in self.project.declared:
                with suppress(DrydockError, OSError):
                    folder = folder_of(self.project, source, fetching=False)
                    yield from (f"{source}:{name}" for name in names_in(folder))
        except DrydockError:
            return

    def _beside(self, name: str, profile: Source) -> str:
        """A file that a profile names, from the first folder that has it; never from outside of that folder."""
        folders = self._folders_of(profile.scope)
        path = self._first(name, folders)
        if path is None:
            raise ProfileError(f"{name} is not there", hint="put it beside the profile", where=Where(profile.path))
        if not any(path.resolve().is_relative_to(folder.resolve()) for folder in folders):
            raise ProfileError(f"{name} leads out of {display(path.parent)}", hint="replace the link by the file")
        return self._text(path)

    def _first(self, name: str, folders: list[Path]) -> Path | None:
        for folder in folders:
            path = (folder / name).absolute()
            if is_there(path):
                return path
            self.seen[path] = None
        return None

    def _text(self, path: Path) -> str:
        try:
            content = read_regular(path)
            self.seen[path] = content
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise ProfileError(
                not_utf8(content), hint="save the file as UTF-8", where=Where(display(path), line)
            ) from None
        except OSError as error:
            raise ProfileError(f"cannot be read: {error.strerror}", where=Where(display(path))) from None
