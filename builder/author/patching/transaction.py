"""Several files at once: all of them, or none."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from builder.errors import ProfileError, Where
from builder.files import display, write_atomically


def current(path: Path) -> str | None:
    """Return the text of a file, byte for byte; None where it does not exist."""
    return path.read_bytes().decode("utf-8") if path.is_file() else None


def write_all(files: Mapping[Path, str], before: Mapping[Path, str | None]) -> None:
    """Write `files`, in their order; where one cannot be written, restore those before it.

    Between two of them a power cut or SIGKILL may come: name first what others refer to. Raises ProfileError where
    somebody changed one since it was read as `before`, and where one cannot be written.
    """
    done: list[Path] = []
    try:
        for path, text in files.items():
            if current(path) != before[path]:
                raise ProfileError("it was changed meanwhile", hint="try again", where=Where(display(path)))
            done.append(path)
            write_atomically(path.resolve(), text)  # a link stays one
    except BaseException as error:
        for path in reversed(done):
            _restore(path, before[path])
        if isinstance(error, OSError):
            raise ProfileError(f"cannot be written: {error.strerror}", where=Where(str(error.filename))) from None
        raise


def _restore(path: Path, text: str | None) -> None:
    with suppress(OSError):
        if text is None:
            path.unlink(missing_ok=True)
            path.parent.rmdir()  # where it was made for this file
        elif current(path) != text:
            write_atomically(path.resolve(), text)
