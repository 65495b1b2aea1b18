"""Profiles and locks as they are on disk: found, read, and put together to a plan."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from builder.errors import LockError, ProfileError, Where
from builder.folders import profile_folders, profile_names
from builder.lock import Lock, check_fresh, parse
from builder.plan import Plan, make_plan
from builder.profile import Profile, Source, load, load_part
from builder.profile.model import NAME_PATTERN
from builder.target import Target


@dataclass
class Catalogue:
    """Finds and reads profiles.

    `seen` has every file that an answer was made from, with its bytes; None for one that was looked for in vain.
    """

    folders: list[Path] = field(default_factory=profile_folders)
    seen: dict[Path, bytes | None] = field(default_factory=dict)

    def names(self) -> list[str]:
        """All profiles, sorted."""
        return profile_names(self.folders)

    def path(self, name: str) -> Path:
        """The file of the profile `name`. Raises ProfileError with the nearest name."""
        if re.match(NAME_PATTERN, name):
            found = self._first(f"{name}.toml")
            if found is not None:
                return found
        near = difflib.get_close_matches(name.lower(), self.names(), 1)
        hint = f'did you mean "{near[0]}"?' if near else f"known profiles: {', '.join(self.names())}"
        raise ProfileError(f'no profile "{name}"', hint=hint)

    def source(self, name: str) -> Source:
        """The text of the profile `name`. Raises ProfileError."""
        path = self.path(name)
        return Source(display(path), self._text(path))

    def profile(self, name: str) -> Profile:
        """The whole profile `name`. Raises ProfileError."""
        return load(name, self.source)

    def target(self, name: str) -> Target | None:
        """The target that the file of `name` itself states; None for a part. Raises ProfileError."""
        return load_part(name, self.source(name)).target

    def texts(self, profile: Profile) -> Mapping[str, str]:
        """The texts of the files that a profile names: patches, proofs, checks, trainer. Raises ProfileError."""
        names = {*profile.carried_files, *(patch.file for patch in profile.patches)}
        return {name: self._beside(profile.name, name) for name in sorted(names)}

    def lock_path(self, name: str) -> Path:
        """Where the lock of `name` is, or would be: beside its profile."""
        return self.path(name).with_name(f"{name}.lock.toml")

    def lock(self, name: str) -> Lock:
        """The lock of `name`, unchecked against its profile. Raises LockError."""
        path = self.lock_path(name)
        if not path.is_file():
            raise LockError(f'"{name}" has no lock', hint=f"drydock lock {name}", where=Where(display(path)))
        return parse(self._text(path), display(path), name)

    def plan(self, name: str) -> Plan:
        """The plan of `name`, from a lock that is fresh. Raises ProfileError or LockError."""
        profile = self.profile(name)
        texts = self.texts(profile)
        lock = self.lock(name)
        check_fresh(lock, profile, texts, display(self.lock_path(name)))
        return make_plan(profile, lock, texts)

    def _beside(self, profile: str, name: str) -> str:
        """A file that a profile names, from the first folder that has it; never from outside of that folder."""
        path = self._first(name)
        if path is None:
            where = Where(display(self.path(profile)))
            raise ProfileError(f"{name} is not there", hint="put it beside the profile", where=where)
        if not any(path.resolve().is_relative_to(folder.resolve()) for folder in self.folders):
            raise ProfileError(f"{name} leads out of {display(path.parent)}", hint="replace the link by the file")
        return self._text(path)

    def _first(self, name: str) -> Path | None:
        for folder in self.folders:
            path = (folder / name).absolute()
            if path.is_file():
                return path
            self.seen[path] = None
        return None

    def _text(self, path: Path) -> str:
        try:
            content = path.read_bytes()
            self.seen[path] = content
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise ProfileError("not UTF-8", hint="save the file as UTF-8", where=Where(display(path), line)) from None
        except OSError as error:
            raise ProfileError(f"cannot be read: {error.strerror}", where=Where(display(path))) from None


def display(path: Path) -> str:
    """A path as short as it can be said from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
