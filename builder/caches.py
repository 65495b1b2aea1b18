"""Caches: mirrors that a build looks into before it asks an index. `drydock push` and `drydock pull` write them.

They are the folder cache/mirror of Drydock's own, and what DRYDOCK_CACHE names: folders and URLs, separated by white
space or commas. What a cache has is said by its SHA256SUMS; what it serves is believed only by its hash.

Every generated script carries this file, after builder/stage.py, so it needs the standard library only, of Python 3.9
or newer.

    stage.py take PARTS MIRROR NUMBER   copy the requirement files to PARTS/left, and there move what a cache has to
                                        cached.txt; NUMBER 0 is the folder MIRROR, the others count DRYDOCK_CACHE
    stage.py give-back LEFT             undo the last one
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import List, Mapping, Set

from builder.embedded.config_files import is_true
from builder.embedded.network_settings import shown_url
from builder.embedded.web import open_url

VARIABLE = "DRYDOCK_CACHE"
LARGEST_INDEX = 1 << 26
"""Bytes of a SHA256SUMS: some 500,000 files."""


def places(environ: Mapping[str, str] = os.environ) -> List[str]:
    """What DRYDOCK_CACHE names.

    >>> places({"DRYDOCK_CACHE": "https://host/mirror, /srv/mirror"})
    ['https://host/mirror', '/srv/mirror']
    """
    return [word for word in re.split(r"[,\s]+", environ.get(VARIABLE, "")) if word]


def shown(text: str) -> str:
    """A URL without user, password and query, as it may be said or written.

    >>> shown("https://me:secret@host:8080/a?token=b"), shown("me@host:folder")
    ('https://host:8080/a', 'me@host:folder')
    """
    return shown_url(text) if "://" in text else text


def is_far(place: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a place is on the web, and no network is to be used (`drydock --offline`, UV_OFFLINE)."""
    return is_true(environ.get("UV_OFFLINE", "")) and place.startswith(("http://", "https://"))


def has(place: str) -> Set[str]:
    """The sha256 of every file that a cache says it has. Raises OSError."""
    if place.startswith(("http://", "https://")):
        with open_url(place.rstrip("/") + "/SHA256SUMS", limit=LARGEST_INDEX, seconds=60) as answer:
            text = answer.read().decode("ascii", "replace")
    elif "://" in place and not place.startswith("file://"):
        raise OSError("a script cannot read it; drydock pull can")
    else:
        folder = Path(place[len("file://") :] if place.startswith("file://") else place)
        text = (folder / "SHA256SUMS").read_text(encoding="ascii", errors="replace")
    return {line[:64] for line in text.splitlines() if re.fullmatch(r"[0-9a-f]{64}  files/.*", line)}


def take(parts: Path, mirror: Path, number: Path) -> bool:
    """Move the lines of requirement files whose files a cache has to left/cached.txt; False where it has none.

    What is built from source needs all build requirements from the same place.
    """
    left = parts / "left"
    if not left.exists():
        left.mkdir()
        for file in parts.glob("*requirements*.txt"):
            shutil.copy(file, left)
    place = str(mirror) if number.name == "0" else places()[int(number.name) - 1]
    if is_far(place):
        return False
    try:
        known = has(place)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        print(f"drydock: warning: the cache {shown(place)} cannot be used: {why}; going on without it", file=sys.stderr)
        return False
    builds = _lines_of(left / "build-requirements.txt")
    packages = json.loads((parts / "plan.json").read_text(encoding="utf-8"))["plan"]["packages"]
    sources = {package["name"] for package in packages if not package["file"].endswith(".whl")}
    apart = sources if any(_sha256_of(line) not in known for line in builds) else set()
    taken = []
    for file in sorted(left.glob("requirements*.txt")):
        lines = _lines_of(file)
        mine = [line for line in lines if _sha256_of(line) in known and line.partition("==")[0] not in apart]
        _write(file, [line for line in lines if line not in mine])
        taken += [f"{line}  # {file.name}" for line in mine]
    _write(left / "cached.txt", taken)
    return bool(taken)


def give_back(left: Path) -> None:
    """Undo `take`: put the lines of cached.txt back where they came from."""
    for line in _lines_of(left / "cached.txt"):
        line, _, name = line.partition("  # ")
        _write(left / name, [*_lines_of(left / name), line])


def _lines_of(file: Path) -> List[str]:
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def _write(file: Path, lines: List[str]) -> None:
    file.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _sha256_of(line: str) -> str:
    return line.rpartition("sha256:")[2]
