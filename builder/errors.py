"""Everything that can go wrong, as data; `builder.report` holds the wording.

DrydockError            exit code 1
+-- UsageError          exit code 2: the command line was wrong
+-- ProfileError        a profile is wrong: file, line and key
+-- LockError           a lock is missing, stale, edited, or can't be made
+-- SourceError         a source of profiles cannot be fetched, or is not what it was pinned to
+-- ConsentError        nobody has agreed yet to run what a source says
+-- PatchError          a patch does not apply, is unused, or is upstream already
+-- ToolError           a program that Drydock called failed
+-- BuildError          the generated script could not build the environment
+-- DriftError          generated files differ from their profile
"""

from __future__ import annotations

from typing import NamedTuple

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class Where(NamedTuple):
    """A place in a file: what an editor needs to jump there."""

    file: str
    line: int | None = None
    key: str | None = None

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return place if self.key is None else f"{place}: {self.key}"


class DrydockError(Exception):
    """The root of all errors that a user can meet.

    `message` says what happened, `where` in which file, `hint` what to do now.
    """

    exit_code = EXIT_FAILED

    def __init__(self, message: str, *, hint: str | None = None, where: Where | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where = where


class UsageError(DrydockError):
    """The command line was wrong."""

    exit_code = EXIT_USAGE


class ProfileError(DrydockError):
    """A profile is wrong."""


class LockError(DrydockError):
    """A lock is missing, stale, edited by hand, or cannot be made."""


class SourceError(DrydockError):
    """A source of profiles cannot be fetched, or is not what it was pinned to."""


class ConsentError(DrydockError):
    """Nobody has agreed yet to run what the sources of the profile `name` say."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f'"{name}" runs what came from a source, and nobody has agreed to that on this machine yet',
            hint=f"on a terminal you are shown what, and asked: drydock build {name}; without a look: add --yes",
        )
        self.name = name


class PatchError(DrydockError):
    """A patch does not apply, is unused, or is upstream already."""


class ToolError(DrydockError):
    """A program that Drydock called failed; its own words are in the message."""


class BuildError(DrydockError):
    """The generated script could not build the environment. `exit_code` is the script's."""

    def __init__(self, message: str, *, exit_code: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class DriftError(DrydockError):
    """Generated files are not what their profile renders to."""
