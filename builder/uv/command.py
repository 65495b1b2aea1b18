"""How uv is started, and what its words mean."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from builder import process
from builder.consent import Builds
from builder.embedded import installer, network
from builder.embedded.network_settings import read, without_name
from builder.embedded.secrets import cleaned
from builder.errors import ToolError

_HINTS = (
    (
        r"invalid peer certificate",
        "which certificates are trusted, and who says so: drydock doctor --network; SSL_CERT_FILE names others, "
        "UV_SYSTEM_CERTS=0 takes those of uv",
    ),
    (
        r"\((401|403|407) |valid authentication credentials",
        "it wants a user and a password: in a netrc file, a keyring, or the URL of the index",
    ),
    (
        r"error sending request|dns error|operation timed out",
        "is the network there? UV_DEFAULT_INDEX names a mirror, UV_FIND_LINKS a folder of wheels; "
        "drydock doctor --network says what is in force",
    ),
    (
        r"[Nn]etwork (connectivity )?(is|was) disabled",
        "do it once without --offline, or name a folder that has the wheels: UV_FIND_LINKS",
    ),
    (r"No space left on device|os error 28\b", "free some space, or name another disk: DRYDOCK_HOME, UV_CACHE_DIR"),
    (r"Hash mismatch", "the index has another file under this name than the one that was locked: find out why"),
    (r"are incompatible", "change one of them, or override it and say why: [[packages.overrides]]"),
)


class Platform(Protocol):
    """What uv asks of the machine that wheels are for."""

    @property
    def uv_platform(self) -> str:
        """The value for `--python-platform`."""

    def uv_environment(self) -> dict[str, str]:
        """What it reads from the environment to choose wheels."""


def executable() -> str:
    """The uv that came with Drydock, or DRYDOCK_UV. Raises ToolError where that is no program."""
    named = os.environ.get("DRYDOCK_UV")
    if named:
        if shutil.which(named) is None:
            raise ToolError(f"DRYDOCK_UV names {named}, which is not a program", hint="unset it: Drydock has its own")
        return named
    from uv import find_uv_bin

    return str(find_uv_bin())


def version() -> str:
    """The version of the uv that came with Drydock."""
    from importlib.metadata import version as of

    return of("uv")


def environment(
    extra: Mapping[str, str] | None = None, index: str | None = None, *, builds: Builds = None
) -> dict[str, str]:
    """What uv runs with: our environment, without what would change its answers, and how indexes are reached.

    `index` is the only index to ask, instead of those that are configured. Where something may be built, it has no
    secrets.
    """
    found = network.environment(os.environ, index)
    return {**(found if builds is None else cleaned(found)), **(extra or {})}


def default_index() -> str | None:
    """The index that the user has named for uv or pip, in a variable or a file; None where they have not."""
    named = read(os.environ).first("index")
    return without_name(named) if named else None


def index_url(name: str, url: str) -> str:
    """Where the logical index `name` is: DRYDOCK_INDEX_NAME, else the `url` of the profile."""
    return installer.index_url(name, url, os.environ)


def find_links() -> list[Path]:
    """The folders of wheels that the settings of uv and pip name, as far as they exist."""
    return installer.folders_of_wheels(os.environ)


def hint(said: str) -> str | None:
    """What a user can do about what uv said; None where its words speak for themselves.

    >>> hint("error: failed to write to file `x`: No space left on device (os error 28)")
    'free some space, or name another disk: DRYDOCK_HOME, UV_CACHE_DIR'
    """
    known = next((words for pattern, words in _HINTS if re.search(pattern, said)), None)
    return known or _missing_hint(said) or _source_hint(said) or _undated_hint(said)


def _missing_hint(said: str) -> str | None:
    """Of a package that no index has: it is misspelt, or private, or a folder of somebody's own.

    >>> said = _missing_hint("Because se3 was not found in the package registry and profile depends on se3, we can")
    >>> (said or "").partition(", or")[0]
    'if se3 is not misspelt, say where it is in its requirement: "se3 @ ./FOLDER"'
    """
    missing = re.search(r"Because (\S+) was not found in the package registry", said)
    if missing is None:
        return None
    name = missing[1]
    return (
        f'if {name} is not misspelt, say where it is in its requirement: "{name} @ ./FOLDER", or a URL of git or of a '
        f'wheel; or name its index: [packages] index = {{ {name} = "NAME" }}, [indexes] NAME = "URL"'
    )


def _source_hint(said: str) -> str | None:
    source = re.search(r"Wheels are required for `([^`]+)`", said)
    return f'where its source may be built, say so: [packages.build] {source[1]} = ["setuptools"]' if source else None


def _undated_hint(said: str) -> str | None:
    """Of an index without upload times: of what is too new, uv says the day."""
    undated = re.findall(r"`([^`]+)` was filtered by `exclude-newer`[^\n]*? requirement is v[^,\s]+\. ", said)
    if not undated:
        return None
    return (
        f"the index does not say when its files were uploaded; except {undated[0]} from the day: "
        f"[packages.exclude-newer-package] {undated[0]} = false; or all that comes from one of [indexes]: "
        "[packages.exclude-newer-index] NAME = false; or everything: [packages] exclude-newer = false"
    )


def message(stderr: str) -> str:
    """What uv has said, for an error of ours."""
    said = re.sub(r"^error: ", "", stderr.strip())
    return re.sub(r"\n\s*\n\s*hint: ", "\n  uv's hint: ", said) or "nothing"


def forget(packages: Iterable[str]) -> None:
    """Delete what uv's cache has of some packages (`uv cache clean`). Raises ToolError."""
    done = process.run([executable(), "cache", "clean", "--no-config", "--quiet", *sorted(packages)], env=environment())
    if done.code:
        raise ToolError(f"uv's cache cannot be cleaned: {message(done.stderr)}")
