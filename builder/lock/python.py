"""Find a Python of python-build-standalone for a lock."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote

from builder import uv
from builder.errors import LockError
from builder.files import hash_of
from builder.lock.model import Artefact
from builder.lock.standalone import FILE, INDEX, PYTHON, fits, system_of
from builder.profile.model import Profile


def find(profile: Profile, folder: Path) -> Artefact:
    """The newest build of the Python that a profile wants, fetched into the empty `folder` to know its sha256.

    Raises LockError where uv knows none, ToolError where it cannot be fetched or is not what uv's list says.
    """
    version, row = profile.python.version, newest(profile)
    if row is None:
        raise _unknown(profile)
    file = unquote(str(row["url"]).rpartition("/")[2])
    named = FILE.fullmatch(file)
    if named is None:
        raise LockError(f"{file!a} is not an archive of python-build-standalone that can be locked")
    archive = uv.fetch_python(str(row["key"]), folder)
    size = archive.stat().st_size
    found = Artefact(name=PYTHON, version=named[1], file=file, size=size, sha256=hash_of(archive), index=INDEX)
    if not fits(found, profile):
        raise LockError(f"{file} is not Python {version} for {profile.target.platform}")
    return found


def newest(profile: Profile) -> dict[str, Any] | None:
    """The row of uv's list for the newest Python that a profile wants, for its target; None where there is none."""
    wanted = (*system_of(profile.target), "default")
    rows = uv.known_pythons(profile.python.version)
    return next((row for row in rows if (row["os"], row["arch"], row["libc"], row["variant"]) == wanted), None)


def _unknown(profile: Profile) -> LockError:
    series, platform = profile.python.series, profile.target.platform
    other = next((str(row["version"]) for row in uv.known_pythons(series)), None)
    known = f'the newest that it knows: version = "{other}"' if other else f"it knows none of {series}"
    return LockError(
        f"[python] standalone: uv {uv.version()} knows no Python {profile.python.version} of {INDEX} for {platform}",
        hint=f"{known}; UV_PYTHON_DOWNLOADS_JSON_URL names another list",
    )
