"""A profile while its patches are changed: its patches, the places of new files, its new lock."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from builder.author.patching.assign import Standing
from builder.author.patching.ownership import Written, check_editable, patches_of
from builder.author.patching.transaction import current
from builder.embedded.errors import StageError
from builder.embedded.patches import apply_hunks, parse_patch
from builder.errors import DrydockError, PatchError, ProfileError, UsageError
from builder.files import display
from builder.lock.model import Lock, digest
from builder.lock.resolve import repin, resolve
from builder.profile.fields import RelativePath
from builder.profile.load import Part, read_part, resolved
from builder.profile.source import Source
from builder.project.catalogue import Catalogue
from builder.project.sources import consent
from builder.report import Reporter


class Desk:
    """The profile `name`, which is the user's own. Raises ProfileError, LockError, ConsentError."""

    def __init__(self, name: str, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._entry = catalogue.entry(name)
        self.name = name
        self.path = check_editable(catalogue, name)
        self.source = self._entry.own.source
        self.profile = self._entry.profile
        self.texts = self._entry.texts
        self.lock = self._entry.lock
        self.lock_path = self._entry.lock_path
        self.builds = consent.for_builds(self._entry)

    def read(self, path: Path) -> str | None:
        """Return the text of a file when it was first read; None where it did not exist."""
        seen = self._entry.seen.get(path)
        return seen.decode("utf-8") if seen is not None else current(path)

    def standing(self, package: str, files: Mapping[str, Path]) -> list[Standing]:
        """Return the patches of a package; `files` are its files without any patch."""
        return [
            Standing(one.patch.file, _changes(one.patch.file, self.texts[one.patch.file], files), self._fixed(one))
            for one in patches_of(self._catalogue, self.name, package)
        ]

    def _fixed(self, one: Written) -> str | None:
        """Return why a patch must not be changed here, and what to do; None where it may."""
        if one.profile != self.name:
            try:
                path = check_editable(self._catalogue, one.profile)
            except ProfileError:
                return f"{one.profile} is built in: write what you need of it into a part of your own, and extend that"
            return f"it belongs to the profile {one.profile}: change it there, in {display(path)} and beside it"
        place = self.path.parent / one.patch.file
        if place.is_symlink() or self._elsewhere(one.patch.file) or not place.is_file():
            return f"it is not beside {display(self.path)}: put a copy of another name there"
        return None

    def _elsewhere(self, file: str) -> Path | None:
        """A file of that name beside other profiles: one would hide the other."""
        own = self.path.parent.resolve()
        places = (folder / file for folder in self._catalogue.folders if folder.resolve() != own)
        return next((place for place in places if place.exists()), None)

    def new_file(self, file: str, text: str, option: str) -> None:
        """Check that a file may be written beside the profile; an existing file of the same text is fine.

        Raises UsageError, naming the option that gives it another name.
        """
        try:
            TypeAdapter(RelativePath).validate_python(file)
        except ValidationError:
            raise UsageError(
                f"{file!r} is not a plain file name", hint="letters, digits, dots, - and _: fix-loader"
            ) from None
        place = self.path.parent / file
        if not place.resolve().is_relative_to(self.path.parent.resolve()):
            raise UsageError(f"{display(place)} leads out of {display(self.path.parent)}", hint="replace the link")
        there = self._elsewhere(file) or (place if place.is_symlink() or place.exists() else None)
        if there and (there != place or place.is_symlink() or not place.is_file() or current(place) != text):
            raise UsageError(
                f"{display(there)} already exists, and does not belong to {self.name}",
                hint=f"use another name: {option} NAME",
            )

    def locked(self, text: str, texts: Mapping[str, str], report: Reporter) -> Lock:
        """Return the lock of the profile if its text were `text`, and those of its files `texts`.

        Raises ProfileError, PatchError, LockError.
        """
        own = read_part(self.name, Source(self.source.path, text))
        whole = resolved(own, lambda name, scope: self._part(own, name, scope))
        profile = self._entry.with_requirements(whole).profile
        every = {**self.texts, **texts}
        if self.lock.digest == digest(self.profile, self.texts):
            return repin(profile, every, self.lock, self.builds)
        return resolve(profile, every, self.builds, previous=self.lock, step=report.detail)

    def _part(self, own: Part, name: str, scope: str) -> Part:
        return own if (name, scope) == (self.name, "") else self._entry.part(name, scope)

    def stale(self) -> list[str]:
        """Return other profiles of the user's whose locks have become stale."""
        catalogue = Catalogue()
        return [name for name in catalogue.names() if name != self.name and _is_stale(catalogue, name)]


def _is_stale(catalogue: Catalogue, name: str) -> bool:
    try:
        check_editable(catalogue, name)
        profile = catalogue.profile(name)
        return catalogue.lock(name).digest != digest(profile, catalogue.texts(name))
    except DrydockError:
        return False


def _changes(file: str, text: str, files: Mapping[str, Path]) -> dict[str, tuple[bytes, bytes]]:
    """Return the changes of a patch to the files of a package. Raises PatchError where it does not apply."""
    found = {}
    try:
        for one in parse_patch(text):
            before = files[one.path].read_bytes()
            after = apply_hunks(one, before)
            if after is None:
                raise PatchError(f"{file} does not apply to {one.path}", hint="restore the patch file")
            found[one.path] = (before, after)
    except (StageError, KeyError) as error:
        raise PatchError(f"{file}: {error}", hint="restore the patch file") from None
    return found
