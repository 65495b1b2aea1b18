"""Where a trainer runs that is tried: a new folder, with a copy of the working directory where it needs that."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from builder import process
from builder.embedded import git
from builder.errors import UsageError
from builder.run.replay.twice import needs_its_folder

if TYPE_CHECKING:
    from builder.profile.model import Profile


@contextmanager
def workplace(profile: Profile) -> Iterator[Path]:
    """A new folder for as long as the context lasts; nothing that a trainer writes comes into the working directory.

    Raises UsageError where the trainer needs the files of the working directory and git does not know which those are.
    """
    with tempfile.TemporaryDirectory(prefix="drydock-prove-", ignore_cleanup_errors=True) as folder:
        place = Path(folder).resolve() / "work"
        place.mkdir()
        if needs_its_folder(profile):
            _copy(Path.cwd(), place)
        yield place


def _copy(source: Path, target: Path) -> None:
    """Copy the files below a folder that git knows, or would add."""
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(source), "ls-files", "-z", "-co", "--exclude-standard"]
    environ = {key: value for key, value in os.environ.items() if key not in git.PLACES}
    done = process.run(command, env={**environ, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"})
    if done.code:
        raise UsageError(
            "the trainer works on files of this folder, and git does not know which belong to it",
            hint="git init, and git add what it needs",
        )
    for name in filter(None, done.stdout.split("\0")):
        path = source / name
        if path.is_file() and not path.is_symlink():  # deleted, a submodule, or leads elsewhere
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target / name)
