"""The caches of this project: DRYDOCK_CACHE, then `places` of [caches] in ./drydock.toml.

[caches]
places = ["https://wheels.example/drydock", "/srv/drydock", "s3://bucket/drydock"]
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from urllib.parse import urlsplit

from builder.embedded.caches import places
from builder.errors import ProfileError, Where

FILE = Path("drydock.toml")
_READ_BY_SCRIPTS = ("", "file", "http", "https")


def cache_places() -> list[str]:
    """All caches, in the order in which they are asked. Raises ProfileError."""
    return list(dict.fromkeys([*places(), *_configured()]))


def is_read_by_scripts(place: str) -> bool:
    """Whether a generated script can read a cache by itself; others are for `drydock pull`."""
    return (urlsplit(place).scheme if "://" in place else "") in _READ_BY_SCRIPTS


def _configured() -> list[str]:
    try:
        caches = tomllib.loads(FILE.read_text(encoding="utf-8")).get("caches", {})
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ProfileError(f"cannot be read: {error}", where=Where(str(FILE))) from None
    where = Where(str(FILE), key="caches")
    found = caches.get("places", []) if isinstance(caches, dict) else None
    if (
        not isinstance(found, list)
        or not all(isinstance(word, str) and word for word in found)
        or set(caches) - {"places"}
    ):
        raise ProfileError("[caches] has one key: places, a list of folders and URLs", where=where)
    for word in found:
        if any(char.isspace() or char == "," for char in word):
            raise ProfileError(f'"{word}" has white space or a comma in it', hint="write %20", where=where)
        if "://" in word and "@" in urlsplit(word).netloc and urlsplit(word).password is not None:
            raise ProfileError(
                "a password is in the URL of a cache", hint="keep it out of files: DRYDOCK_CACHE", where=where
            )
    return found
