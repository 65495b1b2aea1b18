"""Which patch has which change: one file of a package is changed by one patch, so that each applies by itself.

Pure: edited files and existing patches in, the changes of each patch out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from builder.author.patching.diff import Contents
from builder.errors import PatchError, UsageError


@dataclass(frozen=True)
class Standing:
    """A patch of a profile: what it changes, and why it must not be changed itself, None where it may."""

    file: str
    changes: Contents
    fixed: str | None


def shares(
    edited: Contents, standing: Sequence[Standing], file: str | None, default: str
) -> tuple[dict[str, Contents], str | None]:
    """Return the changes of each patch that may be changed, by its file, and the one that takes the new changes.

    That is `file`, else the only patch that may be changed, else a new one named `default`. Raises PatchError where a
    patch that may not be changed would have to be, or would be left empty; UsageError where it is not clear which one
    is meant.
    """
    rest = dict(edited)
    found: dict[str, Contents] = {}
    for patch in standing:
        mine = {path: rest.pop(path) for path in patch.changes if path in rest}
        if patch.fixed is None:
            found[patch.file] = mine
        elif mine != patch.changes:
            path = next(path for path in patch.changes if mine.get(path) != patch.changes[path])
            raise PatchError(f"{path} is changed by {patch.file}, and one file has one patch", hint=patch.fixed)
    taker = file or (next(iter(found)) if len(found) == 1 else None)
    if taker is None and rest and found:
        raise UsageError(
            f"it is not clear which patch takes {', '.join(rest)}",
            hint=f"name one, or a new one: --file {' or --file '.join(found)}",
        )
    if taker is None and rest:
        taker = default
    if taker is not None and taker not in found and not rest:
        had = ", ".join(f"{path} ({one})" for one, changes in found.items() for path in changes)
        raise PatchError(
            f"there is no change for {taker}"
            + (f": one file has one patch, and these have theirs: {had}" if had else ""),
            hint="omit --file" if had else None,
        )
    if taker is not None:
        found[taker] = {**found.get(taker, {}), **rest}
    for one, changes in found.items():
        if not changes:
            raise PatchError(f"{one} would be empty", hint="remove its entry from the profile, then lock again")
    return found, taker
