"""What goes wrong in a build, in words for the person who runs the script."""

from __future__ import annotations


class StageError(Exception):
    """What is wrong, and, where there is something to do about it, a `hint`."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
