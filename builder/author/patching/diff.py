"""The text of a patch: a unified diff of files as git writes it, which builder.embedded.patches takes exactly.

Pure: bytes in, text out.
"""

from __future__ import annotations

import difflib
import io
from collections.abc import Mapping
from itertools import pairwise

from builder.embedded.errors import StageError
from builder.embedded.patches import apply_hunks, parse_patch
from builder.errors import PatchError

Contents = Mapping[str, tuple[bytes, bytes]]
"""Path to the bytes before and after."""

_NO_NEWLINE = "\\ No newline at end of file\n"


def patch_text(head: str, changes: Contents) -> str:
    """The patch that makes `changes`, with `head`, words for people, before it.

    Raises PatchError where a patch cannot express it: a path with a line break or a backslash.
    """
    text = head + "".join(_diff(path, *contents) for path, contents in sorted(changes.items()))
    try:
        done = {file.path: apply_hunks(file, changes[file.path][0]) for file in parse_patch(text)}
    except (StageError, KeyError) as error:
        raise PatchError(f"this change cannot be written as a patch: {error}") from None
    if done != {path: after for path, (_, after) in changes.items()}:
        raise PatchError(f"this change cannot be written as a patch: {', '.join(changes)}")
    return text


def head_of(text: str) -> str:
    """Return the text before the first file of a patch."""
    lines = io.StringIO(text, newline="\n").readlines()
    starts = (
        number
        for number, pair in enumerate(pairwise(lines))
        if pair[0].startswith("diff --git ") or (pair[0].startswith("--- ") and pair[1].startswith("+++ "))
    )
    return "".join(lines[: next(starts, len(lines))])


def stat(before: bytes, after: bytes) -> tuple[int, int]:
    """Return the numbers of lines that a change adds and removes."""
    lines = _diff("x", before, after).splitlines()[2:]
    return sum(line.startswith("+") for line in lines), sum(line.startswith("-") for line in lines)


def _diff(path: str, before: bytes, after: bytes) -> str:
    # Only a newline ends a line, as for diff and git; difflib does not tell where the last one has none.
    old, new = (io.StringIO(content.decode(), newline="\n").readlines() for content in (before, after))
    told = difflib.unified_diff(old, new, f"a/{path}", f"b/{path}")
    return "".join(line if line.endswith("\n") else f"{line}\n{_NO_NEWLINE}" for line in told)
