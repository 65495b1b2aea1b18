"""Names of profiles: `m4`, or `team:m4` for the one of the source `team`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from builder.errors import UsageError

# A name becomes a file name, a store path and a comment in a script: keep it plain.
NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,63}$"
REFERENCE_PATTERN = r"^([a-z0-9][a-z0-9-]{0,63}:)?[a-z0-9][a-z0-9-]{0,63}$"
FORMS = "a profile is named m4, or team:m4 where a source has it"


def is_reference(text: str) -> bool:
    """Whether `text` has the form of a profile's name, with or without a source.

    >>> [is_reference(text) for text in ("m4", "team:m4", "a:b:c", "../x", "-rf", "team:")]
    [True, True, False, False, False, False]
    """
    # `$` would allow a newline at the end.
    return re.fullmatch(REFERENCE_PATTERN.removesuffix("$"), text) is not None


def meant(word: str, known: Iterable[str]) -> str | None:
    """A hint with the known name that is nearest to what was typed; None where none is near.

    >>> meant("trch", ["torch", "numpy"]), meant("x", ["torch"])
    ('did you mean "torch"?', None)
    """
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), 1)
    return f'did you mean "{near[0]}"?' if near else None


def split(name: str) -> tuple[str, str]:
    """The source, "" for none, and the name that the profile has there.

    >>> split("team:m4"), split("m4")
    (('team', 'm4'), ('', 'm4'))
    """
    source, _, plain = name.rpartition(":")
    return source, plain


def stem(name: str) -> str:
    """What the files of a profile are called: `team.m4`.

    A dot is in no name, and in the names that every file system, systemd and launchd allow; a colon is not (macOS
    shows it as a slash). Raises UsageError for what is no name: no path is ever made of it.
    """
    if not is_reference(name):
        raise UsageError(f'"{name}" is not the name of a profile', hint=FORMS)
    return name.replace(":", ".")


def of_stem(text: str) -> str:
    """The name whose `stem` that is."""
    return text.replace(".", ":")


SOURCE_END = ".source.zip"
"""How the names of archives of a trainer's own code end."""

DATA_END = ".data"
"""How the names end that files of models and data sets have in mirrors (builder/embedded/data.py)."""
