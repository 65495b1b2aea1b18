"""Unpack archives that others made: what may be read of them is decided in builder/archives.py, `Tree` writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from builder.archives import ArchiveError, Limits, Member, members, tar_members
from builder.errors import SourceError
from builder.project.sources.tree import MAX_BYTES, MAX_FILES, Tree

_MEMBERS = 2 * MAX_FILES  # folders and links among them


def unpack(archive: Path, kind: str, root: Path) -> None:
    """Unpack `archive`, of the kind that the end of the name `kind` says, into the empty folder `root`.

    Raises SourceError for links, devices, names that lead out, and for what is too much; `root` is then half full.
    """
    _fill(Tree(root), members(archive, kind, Limits(_MEMBERS, MAX_BYTES)), None)


def untar(
    stream: BinaryIO, root: Path, *, leave_out: Callable[[str], None] | None = None, most: int = MAX_BYTES
) -> None:
    """Unpack a tar from a stream; `leave_out` is told the names of links, which are refused where it is None.

    Raises SourceError.
    """
    _fill(Tree(root, most), tar_members(stream, Limits(_MEMBERS, most)), leave_out)


def _fill(tree: Tree, found: Iterable[Member], leave_out: Callable[[str], None] | None) -> None:
    try:
        for member in found:
            if member.kind == "folder":
                continue
            if member.kind == "link" and leave_out is not None:
                leave_out(member.name)
                continue
            if member.content is None:
                what = member.kind if member.kind == "something else" else f"a {member.kind}"
                raise SourceError(f"{ascii(member.name)[1:-1]} in it is {what}, not a regular file")
            tree.add(member.name.removeprefix("./"), member.content)
    except ArchiveError as error:
        raise SourceError(error.message, hint=error.hint) from None
