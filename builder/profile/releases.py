"""The releases of a package that a patch fits: `profiles/patches/NAME.releases.toml`, beside NAME.patch.

An environment has one release of a package, and the lock pins the files of that one. Other installations have others,
and the same patch may fit those too, a few lines further down: what it makes of each is written there, by sha256.
`profiles/recipes/releases.py` makes it from the wheels.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from builder.errors import ProfileError, Where
from builder.profile.toml_lines import loads

_SHA256 = r"^[0-9a-f]{64}$"
_VERSION = r"^[0-9]+(\.[0-9]+)*$"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReleasedFile(_Model):
    """A file that the patch changes: sha256 before and after, and how many lines below the patch's own it is."""

    path: str
    shift: int = 0
    preimage: str = Field(pattern=_SHA256)
    postimage: str = Field(pattern=_SHA256)


class Release(_Model):
    """Versions of the package in which the files that the patch changes are the same."""

    versions: list[str]
    files: list[ReleasedFile]


class Releases(_Model):
    """All releases of `package` that a patch fits, of those in `versions` (PEP 440); `fixed` needs it no more."""

    package: str
    versions: str
    fixed: str = Field(pattern=_VERSION)
    releases: list[Release] = []


def parse(text: str, path: str) -> Releases:
    """What is in the text of such a file. Raises ProfileError where it is something else."""
    try:
        return Releases.model_validate(loads(text))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise ProfileError(
            f"not a list of releases: {reason}", hint="make it again: just patch-releases", where=Where(path)
        ) from None


def dump(releases: Releases, patch: str) -> str:
    """The text of the file beside `patch`; the same releases give the same bytes."""
    lines = [
        f"# The releases of {releases.package} that {patch} fits, and what it makes of each.",
        "# The three lines below are written by hand; the rest is made of the wheels by `just patch-releases`.",
        "",
        f'package = "{releases.package}"',
        f'versions = "{releases.versions}"',
        f'fixed = "{releases.fixed}"',
    ]
    for release in releases.releases:
        lines += ["", "[[releases]]", f"versions = [{_words(release.versions)}]"]
        for file in release.files:
            lines += [
                "",
                "[[releases.files]]",
                f'path = "{file.path}"',
                f"shift = {file.shift}",
                f'preimage = "{file.preimage}"',
                f'postimage = "{file.postimage}"',
            ]
    return "\n".join([*lines, ""])


def _words(words: Sequence[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)
