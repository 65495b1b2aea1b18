"""Wheels that were not met before: uv unpacks them, every file is compared with its RECORD, and each gets its note."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from builder.embedded import bytecode, claim, folders, place, wheels
from builder.embedded.errors import StageError
from builder.embedded.examine import look
from builder.embedded.hashes import record_hash
from builder.embedded.installed import check_record, distributions, forget_origins, read_record, site_packages
from builder.embedded.programs import make_relocatable
from builder.embedded.progress import end, show
from builder.embedded.workers import on_all_cores


def unpack(
    home: Path,
    folder: Path,
    packages: Mapping[str, dict[str, Any]],
    install: wheels.Install,
    forget: Callable[[list[str]], None],
) -> None:
    """Have packages installed into a folder of their own, and take that apart into one per package in `folder`.

    Raises StageError where what comes is not what its RECORD says, twice.
    """
    left = dict(packages)
    damaged: list[str] = []
    alone = False
    for _ in range(3):
        groups = [{one: package} for one, package in left.items()] if alone else [left]
        fetch_again = False
        for group in groups:
            prefix, descriptor = claim.begin(folder, ".new-")
            try:
                install(list(group.values()), descriptor)
                done, bad = _take_apart(home, folder, prefix, descriptor, group)
                left = {one: package for one, package in left.items() if one not in done}
            finally:
                os.close(descriptor)
                folders.remove_path(prefix)
            if bad:
                if damaged:
                    raise StageError(
                        f"{bad[0]}: even when fetched again", "the wheel is broken, or something here changes files"
                    )
                damaged, fetch_again = bad, True
                end()
                names = sorted({problem.partition(":")[0] for problem in bad})
                print(
                    f"drydock: warning: {', '.join(names)}: files in uv's cache were changed; fetching again",
                    file=sys.stderr,
                    flush=True,
                )
                forget(names)
        if not left:
            return
        alone = alone or not fetch_again  # then they overlap
    raise StageError(f"{', '.join(sorted(one['name'] for one in left.values()))}: cannot be unpacked")


class _Part(NamedTuple):
    """An installed package: rows of its RECORD as (path in the environment, hash, size)."""

    name: str
    info: Path
    rows: list[tuple[str, str, int]]


def _take_apart(
    home: Path, folder: Path, prefix: Path, descriptor: int, packages: Mapping[str, dict[str, Any]]
) -> tuple[set[str], list[str]]:
    """Make a wheel of ours of every package that is installed in `prefix`, as far as they do not overlap.

    Returns the identities of those that were done, and what is wrong with others.
    """
    site = site_packages(prefix)
    forget_origins(site)
    make_relocatable(site, prefix)
    inside = site.relative_to(prefix).as_posix()
    infos = distributions(site)
    missing = [package["name"] for package in packages.values() if package["name"] not in infos]
    if missing:
        raise StageError(f"in the lock, but not installed: {', '.join(sorted(missing))}")
    parts = {one: _part(package["name"], infos[package["name"]], inside) for one, package in packages.items()}
    folds = place.folds_case(folder.parent)  # which is called "wheels"
    for part in parts.values() if folds else ():
        _check_case(part)
    apart = _overlapping(parts, folds)
    parts = {one: part for one, part in parts.items() if one not in apart}
    bad = _problems(prefix, parts)
    wrong = {problem.partition(":")[0] for problem in bad}
    parts = {one: part for one, part in parts.items() if part.name not in wrong}
    new = {one: prefix / f".{number}" for number, one in enumerate(parts)}
    for one, part in parts.items():
        folders.make_in(new[one].name, descriptor)
        for _, target in folders.opened(descriptor, [new[one].name]):
            _move(part, descriptor, target)
    sources = {one: _sources(part.rows, inside) for one, part in parts.items()}
    uncompiled = bytecode.give({new[one] / inside: some for one, some in sources.items()}, home / "bytecode")
    for one, part in parts.items():
        folders.give_to_group(new[one])
        _put(folder / one, new[one], _note(part, new[one], inside, uncompiled[new[one] / inside]))
    return set(parts), bad


def _part(name: str, info: Path, inside: str) -> _Part:
    check_record(info)
    rows = []
    for row in read_record(info):
        if not row or not row[0]:
            continue
        path = os.path.normpath(f"{inside}/{row[0]}")
        if row[0].startswith("/") or path.startswith("../"):
            raise StageError(f"{info.name}/RECORD names {row[0]}, which is outside of the environment")
        rows.append((path, row[1] if len(row) > 1 else "", int(row[2] or 0) if len(row) > 2 else 0))
    # What a wheel brings where our bytecode goes is not kept, and a copy of it from another store has it no more.
    tag = bytecode.cache_tag()
    ours = {bytecode.place_of(path, tag) for _, path in _sources(rows, inside)}
    return _Part(name, info, [row for row in rows if row[0][len(inside) + 1 :] not in ours])


def _check_case(part: _Part) -> None:
    """Raise StageError where two files of a package are one: only one of them is there."""
    seen: dict[str, str] = {}
    for path, _, _ in part.rows:
        other = seen.setdefault(path.casefold(), path)
        if other != path:
            raise wheels.case_clash([part.name], other, path)


def _overlapping(parts: Mapping[str, _Part], folds: bool) -> set[str]:
    """Those that bring a path that another brings too: only one of their files is there.

    `folds` says whether paths are the same that differ in case alone.
    """
    first: dict[str, str] = {}
    apart = set()
    for one, part in parts.items():
        for path, _, _ in part.rows:
            same = path.casefold() if folds else path
            if first.setdefault(same, one) != one:
                apart |= {one, first[same]}
    return apart if len(parts) > 1 else set()


def _problems(prefix: Path, parts: Mapping[str, _Part]) -> list[str]:
    """What is not as RECORD says, each beginning with the name of its package."""
    rows = [(part.name, path, said, size) for part in parts.values() for path, said, size in part.rows if said]
    jobs = [(f"{prefix}/{path}", said) for _, path, said, _ in rows]
    costs = [size + 10_000 for *_, size in rows]
    found = on_all_cores(
        look, jobs, costs, grain=8_000_000, progress=lambda done: show("checking files", done, len(jobs))
    )
    return [f"{name}: {path} {what}" for (name, path, _, _), (what, _) in zip(rows, found) if what]


def _move(part: _Part, source: int, target: int) -> None:
    """Move the files of a package from one open folder to another."""
    by_folder: dict[str, set[str]] = {}
    for path, _, _ in part.rows:
        parent, _, name = path.rpartition("/")
        by_folder.setdefault(parent, set()).add(name)
    paths = folders.with_parents(list(by_folder))
    for (path, there), (_, here) in zip(folders.opened(source, paths), folders.opened(target, paths, make=True)):
        for name in sorted(by_folder.get(path, ())):
            os.rename(name, name, src_dir_fd=there, dst_dir_fd=here)


def _sources(rows: Sequence[tuple[str, str, int]], inside: str) -> list[tuple[str, str]]:
    """The modules of a package: the sha256 of each, and its path in site-packages. A RECORD may name one twice."""
    found = {
        path[len(inside) + 1 :]: base64.urlsafe_b64decode(said[len("sha256=") :] + "=").hex()
        for path, said, _ in rows
        if path.endswith(".py") and said.startswith("sha256=") and path.startswith(f"{inside}/")
    }
    return [(digest, path) for path, digest in found.items()]


def _note(part: _Part, tree: Path, inside: str, uncompiled: Sequence[str]) -> dict[str, Any]:
    files: dict[str, list[str]] = {}
    for path, names, states in _walk(tree, ""):
        files[path] = wheels.texts([(name, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in zip(names, states)])
    unhashed = [path for path, said, _ in part.rows if not said and not path.endswith(f".{bytecode.cache_tag()}.pyc")]
    return {
        "format": wheels.FORMAT,
        "package": part.name,
        "files": files,
        "own": {path: record_hash((tree / path).read_bytes()) for path in unhashed},
        "uncompiled": [f"{inside}/{path}" for path in uncompiled],
    }


def _walk(top: Path, path: str) -> list[tuple[str, list[str], list[os.stat_result]]]:
    found = []
    names, states, below = [], [], []
    with os.scandir(top / path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                below.append(f"{path}/{entry.name}" if path else entry.name)
            else:
                names.append(entry.name)
                states.append(entry.stat(follow_symlinks=False))
    if names:
        found.append((path, names, states))
    for folder in below:
        found += _walk(top, folder)
    return found


def _put(path: Path, tree: Path, note: Mapping[str, Any]) -> None:
    """Give a finished wheel its name, and then its note; whoever was faster has made the same."""
    if (
        path.is_dir() and wheels.known(path.parent, path.name, "") is None
    ):  # not finished, damaged, or of another format
        wheels.drop([path])
    try:
        os.rename(tree, path)
    except OSError:
        folders.remove_path(tree)
        if path.is_dir():
            return
        raise
    new = path.with_name(f".{path.name}.json.{os.getpid()}")
    new.write_text(json.dumps(note, separators=(",", ":")), encoding="utf-8")
    os.replace(new, path.with_name(f"{path.name}.json"))
