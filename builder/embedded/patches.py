"""Patches: unified diffs, applied exactly or not at all, to packages that are installed."""

from __future__ import annotations

import io
import re
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from builder.embedded.errors import StageError
from builder.embedded.hashes import sha256
from builder.embedded.installed import distributions, replace_file, rewrite_record, site_packages


class Hunk(NamedTuple):
    """Lines that stand at `start` (0-based) before, and what stands there after; line ends included."""

    start: int
    before: tuple[bytes, ...]
    after: tuple[bytes, ...]


class FilePatch(NamedTuple):
    """The change to one file; `path` is relative to site-packages."""

    path: str
    hunks: tuple[Hunk, ...]


# Which side of a change a line belongs to, by its first character.
_SIDES = {b" ": (b"-", b"+"), b"-": (b"-",), b"+": (b"+",)}


_HUNK = re.compile(rb"^@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@")


# What git says of a file beside its lines.
_UNSUPPORTED = (b"rename from ", b"copy from ", b"new file mode ", b"deleted file mode ", b"old mode ", b"GIT binary ")


def parse_patch(text: str) -> list[FilePatch]:
    """The files that a unified diff changes, as git writes them: `a/` and `b/` stand for site-packages.

    Raises StageError for anything else: new or deleted files, renames, paths that leave site-packages.
    """
    lines = _lines(text.encode())
    files: list[FilePatch] = []
    at = 0
    of_git = False
    while at < len(lines):
        of_git = of_git or lines[at].startswith(b"diff --git ")
        if of_git and lines[at].startswith(_UNSUPPORTED):
            raise StageError(f"a patch may change lines of files, and nothing else: {_shown(lines[at])}")
        if not (lines[at].startswith(b"--- ") and at + 1 < len(lines) and lines[at + 1].startswith(b"+++ ")):
            at += 1
            continue
        old, new = (_patch_path(line) for line in lines[at : at + 2])
        if old != new:
            raise StageError(f"a patch may change files, not create, delete or rename them: {old} -> {new}")
        at += 2
        hunks: list[Hunk] = []
        while at < len(lines) and lines[at].startswith(b"@@"):
            hunk, at = _parse_hunk(lines, at)
            hunks.append(hunk)
        if not hunks:
            raise StageError(f"the patch names {new} and then changes nothing in it")
        if any(file.path == new for file in files):
            raise StageError(f"the patch names {new} twice")
        files.append(FilePatch(new, tuple(hunks)))
    if not files:
        raise StageError("this is not a unified diff: no '--- a/...' line")
    return files


def _lines(content: bytes) -> list[bytes]:
    """Lines with their ends. Only a newline ends one, as for diff and git: a carriage return is part of its line."""
    return io.BytesIO(content).readlines()


def _shown(line: bytes) -> str:
    return repr(line.decode(errors="replace").strip())


def _patch_path(line: bytes) -> str:
    name = line[4:].split(b"\t")[0].strip().decode()
    parts = PurePosixPath(name).parts
    if len(parts) < 2 or parts[0] not in ("a", "b"):
        raise StageError(f"a patch's paths begin with a/ and b/, not {name!r}")
    if ".." in parts or "\\" in name or "\0" in name:
        raise StageError(f"the path {name!r} leaves its package")
    return "/".join(parts[1:])


def _parse_hunk(lines: list[bytes], at: int) -> tuple[Hunk, int]:
    header = _HUNK.match(lines[at])
    if header is None:
        raise StageError(f"line {at + 1} of the patch is not a hunk header: {_shown(lines[at])}")
    old_left = int(header[2]) if header[2] is not None else 1
    new_left = int(header[4]) if header[4] is not None else 1
    # Where there are no lines before, the number is that of the line above (POSIX diff, "Diff Unified Output Format").
    start = int(header[1]) - 1 if old_left else int(header[1])
    sides: dict[bytes, list[bytes]] = {b"-": [], b"+": []}
    last = b""
    at += 1
    while at < len(lines) and (old_left or new_left or lines[at].startswith(b"\\")):
        mark, rest = lines[at][:1], lines[at][1:]
        if lines[at] in (b"\n", b"\r\n"):  # editors strip the space of an empty context line
            mark, rest = b" ", lines[at]
        if mark == b"\\" and last in _SIDES:  # "\ No newline at end of file" speaks of the line before it
            for side in _SIDES[last]:
                sides[side][-1] = sides[side][-1][:-1]
            last = mark
        elif mark not in _SIDES or not rest.endswith(b"\n"):
            break
        else:
            for side in _SIDES[mark]:
                sides[side].append(rest)
            old_left -= b"-" in _SIDES[mark]
            new_left -= b"+" in _SIDES[mark]
            last = mark
        at += 1
    # A line of a change that the header does not count: somebody edited the patch, and it says less than it shows.
    more = at < len(lines) and lines[at].startswith((b" ", b"+", b"-", b"\\")) and not _begins_something_else(lines, at)
    if old_left or new_left or more or start < 0 or not last:
        raise StageError(f"line {at} of the patch: the hunk is shorter or longer than its header says")
    return Hunk(start, tuple(sides[b"-"]), tuple(sides[b"+"])), at


def _begins_something_else(lines: list[bytes], at: int) -> bool:
    """Whether this is the next file, or the signature below a mail of git's."""
    return lines[at].rstrip() == b"--" or b"".join(line[:4] for line in lines[at : at + 2]) == b"--- +++ "


def apply_hunks(patch: FilePatch, content: bytes) -> bytes | None:
    """`content` with the patch applied, or None where it does not fit exactly: no offset, no fuzz."""
    lines = _lines(content)
    result: list[bytes] = []
    done = 0
    for hunk in patch.hunks:
        end = hunk.start + len(hunk.before)
        if not done <= hunk.start <= len(lines) or tuple(lines[hunk.start : end]) != hunk.before:
            return None
        result += lines[done : hunk.start]
        result += hunk.after
        done = end
    result += lines[done:]
    if not all(line.endswith(b"\n") for line in result[:-1]):
        return None  # what the patch takes for the end of the file is none
    return b"".join(result)


def reverse(patch: FilePatch) -> FilePatch:
    """The patch that takes this one back."""
    hunks: list[Hunk] = []
    shift = 0
    for hunk in patch.hunks:
        hunks.append(Hunk(hunk.start + shift, hunk.after, hunk.before))
        shift += len(hunk.after) - len(hunk.before)
    return FilePatch(patch.path, tuple(hunks))


def patch_package(site: Path, patch: dict[str, Any], text: str, *, revert: bool = False) -> bool:
    """Apply one patch (or take it back) to the installed source; False where that was done before.

    `patch` names the package, the patch file and, for each file it changes, the sha256 before and after; those are
    checked before anything is written. Raises StageError.
    """
    info = distributions(site).get(patch["package"])
    if info is None:
        raise StageError(f"{patch['file']} is for {patch['package']}, which is not installed in {site}")
    parsed = {file.path: file for file in parse_patch(text)}
    pinned = {file["path"]: file for file in patch["files"]}
    if set(parsed) != set(pinned):
        raise StageError(f"{patch['file']} changes other files than the lock says")
    goal = "preimage" if revert else "postimage"
    start = "postimage" if revert else "preimage"
    wanted: dict[str, bytes] = {}
    changed: list[str] = []
    for path, file in parsed.items():
        content = (site / path).read_bytes()
        if sha256(content) == pinned[path][goal]:
            wanted[path] = content
            continue
        if sha256(content) != pinned[path][start]:
            raise StageError(
                f"{patch['file']} does not apply: {site / path} has sha256 {sha256(content)}, and the patch is for "
                f"{pinned[path][start]}. Somebody changed the file, or it is of another version of {patch['package']}."
            )
        after = apply_hunks(reverse(file) if revert else file, content)
        if after is None or sha256(after) != pinned[path][goal]:
            raise StageError(f"{patch['file']} does not give the file that the lock promises for {path}")
        wanted[path] = after
        changed.append(path)
    for path in changed:
        replace_file(site / path, wanted[path])
    # Those that were done before too: a run that was killed here may have left RECORD behind.
    rewrite_record(info, wanted)
    return bool(changed)


def apply_patches(env: Path, parts: Path, plan: dict[str, Any]) -> None:
    """Apply the patches of the plan, in their order. Raises StageError."""
    for patch in plan["patches"]:
        patch_package(site_packages(env), patch, (parts / patch["file"]).read_bytes().decode("utf-8"))
