"""A virtual environment as it is: its Python, and each distribution that is installed in it. Nothing of it is run."""

from __future__ import annotations

import json
import re
from pathlib import Path

from packaging.metadata import parse_email
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from builder.author.importing.readers import KNOWN
from builder.errors import ProfileError, Where
from builder.project.requirements.model import Imported

_LIMIT = 4 << 20
_INSTALLERS = ("pip", "setuptools", "wheel")


def read_venv(folder: Path) -> Imported:
    """Return the contents of a virtual environment, or another prefix. Raises ProfileError where it is not one."""
    sites = sorted(folder.glob("lib/python3.*/site-packages"))
    if len(sites) != 1:
        raise ProfileError(
            f"not a virtual environment: it has {len(sites) or 'no'} lib/python3.*/site-packages",
            hint=f"name a file or a virtual environment; known: {KNOWN}",
            where=Where(str(folder)),
        )
    imported = Imported(python=sites[0].parent.name.removeprefix("python"))
    for info in sorted(sites[0].glob("*.dist-info")):
        _distribution(info, imported)
    for info in sorted(sites[0].glob("*.egg-info")):
        imported.leave(info.name, "an old installation, without the metadata that a lock needs", Where(str(info)))
    return imported


def _distribution(info: Path, imported: Imported) -> None:
    where = Where(str(info))
    raw, _ = parse_email(_text(info / "METADATA"))
    name, version = raw.get("name", ""), raw.get("version", "")
    try:
        said = f"{canonicalize_name(name, validate=True)}=={Version(version)}"
    except (InvalidVersion, ValueError):
        imported.leave(info.name, "its METADATA has no name and version", where)
        return
    if canonicalize_name(name) in _INSTALLERS:
        imported.leave(said, "an installer; the lock has it where a package needs it", where)
    elif (origin := _origin(info)) is not None:
        imported.leave(said, f"installed from {origin}, not from an index", where)
    else:
        imported.require(said, where)


def _origin(info: Path) -> str | None:
    """Return where it was installed from, if that was not an index (PEP 610)."""
    if not (info / "direct_url.json").is_file():
        return None
    try:
        data = json.loads(_text(info / "direct_url.json"))
        kinds = ("vcs_info", "a repository"), ("dir_info", "a folder"), ("archive_info", "a file")
        return next((words for key, words in kinds if key in data), "a URL")
    except (ValueError, TypeError, RecursionError):
        return "a URL"


def _text(path: Path) -> str:
    """The text of a regular file of a distribution, as far as anybody needs it; empty where it cannot be read."""
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return re.sub(r"\r\n?", "\n", file.read(_LIMIT).decode("utf-8", errors="replace"))
    except OSError:
        return ""
