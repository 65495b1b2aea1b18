"""Wheels that were met before, unpacked: an environment is made by linking their files, without an installer.

    wheels/TAG/IDENTITY/            what a wheel brings to an environment of that Python, bytecode included
    wheels/TAG/IDENTITY.json        its folders and files, each file with inode, size and time

uv unpacks what is new, once; every file is then compared with the hash in RECORD. The files are hard links, so who
writes into one in place (in another environment, or in uv's cache) changes it here too: its time or size says so, and
the wheel is unpacked again.
"""

from __future__ import annotations

import base64
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from builder.embedded import bytecode, claim, folders
from builder.embedded.errors import StageError
from builder.embedded.examine import look
from builder.embedded.hashes import record_hash, sha256
from builder.embedded.installed import check_record, distributions, forget_origins, read_record, site_packages
from builder.embedded.overlap import plain, winner
from builder.embedded.programs import make_relocatable
from builder.embedded.state import LARGE, read_json
from builder.embedded.words import plural
from builder.embedded.workers import on_all_cores

FORMAT = 1

Install = Callable[[Sequence[dict[str, Any]], int], None]
"""Has packages of a plan installed below an open folder, as below the root of an environment."""


class Wheel(NamedTuple):
    """What a package of a plan brings: `files` by folder, each with (name, inode, size, time in ns).

    All is relative to the environment. `own` are the files that no RECORD gives a hash, with their promises;
    `uncompiled` the modules that this Python cannot compile.
    """

    name: str
    path: Path
    files: dict[str, list[list[Any]]]
    own: dict[str, str]
    uncompiled: list[str]


def identity(package: Mapping[str, Any], builds: Sequence[Mapping[str, Any]]) -> str:
    """What stands for a package as it is once installed: its sha256; of source, with those of what builds it."""
    if package["file"].endswith(".whl"):
        return str(package["sha256"])
    return sha256(" ".join([package["sha256"], *(one["sha256"] for one in builds)]).encode())


def wheels_of(
    home: Path, plan: Mapping[str, Any], install: Install, forget: Callable[[list[str]], None]
) -> list[Wheel]:
    """Every package of a plan, unpacked; what is not known yet is installed by `install`, in one go.

    `forget` has the installer's cache drop some packages. Raises StageError where what comes is not what its RECORD
    says, twice.
    """
    folder = home / "wheels" / bytecode.cache_tag()
    names = {identity(package, plan["build-requires"]): package for package in plan["packages"]}
    found = {one: known(folder, one, package["name"]) for one, package in names.items()}
    new = {one: package for one, package in names.items() if found[one] is None}
    if new:
        folder.mkdir(parents=True, exist_ok=True)
        claim.sweep(folder, ".new-")
        _unpack(home, folder, new, install, forget)
        found.update((one, known(folder, one, package["name"])) for one, package in new.items())
    missing = [package["name"] for one, package in names.items() if found[one] is None]
    if missing:
        raise StageError(f"{', '.join(missing)} went away while this was built", "is somebody else cleaning up?")
    return [wheel for wheel in found.values() if wheel is not None]


# --- what was met before -------------------------------------------------------------------------------------------


def known(folder: Path, name: str, package: str) -> Wheel | None:
    """A wheel from its note; None where there is none, or none that we can read."""
    try:
        note = read_json(folder / f"{name}.json", _NOTE, LARGE)
        if (
            note is None
            or note["format"] != FORMAT
            or not all(map(_is_whole, note["files"].values()))
            or not (folder / name).is_dir()
        ):
            return None
        return Wheel(package, folder / name, note["files"], note["own"], note["uncompiled"])
    except OSError:
        return None


_NOTE = {"format": int, "files": {str: list}, "own": {str: str}, "uncompiled": [str]}


def _is_whole(files: list[Any]) -> bool:
    """Whether the files of a folder are noted as name, inode, size and time. They are many: few questions."""
    try:
        return all(
            "/" not in name and name not in ("", ".", "..") and type(inode) is type(size) is type(time) is int
            for name, inode, size, time in files
        )
    except (TypeError, ValueError):
        return False


def without_bytecode(wheel: Wheel) -> Wheel:
    """A wheel as its package was published, for those who edit what is installed: Python compiles it itself."""
    ours = f".{bytecode.cache_tag()}.pyc"
    kept = {folder: [file for file in files if not file[0].endswith(ours)] for folder, files in wheel.files.items()}
    return wheel._replace(files={folder: files for folder, files in kept.items() if files})


def owned(wheels: Sequence[Wheel], overlap: Mapping[str, str]) -> list[Wheel]:
    """The wheels, each without what another one has in its place: of a path that several bring, one file is there.

    `overlap` is that of the plan. Raises StageError where they differ and it does not say whose counts, ChangedError.
    """
    first: dict[str, int] = {}
    several: dict[str, list[int]] = {}
    for number, wheel in enumerate(wheels):
        for folder, files in wheel.files.items():
            for file in files:
                path = f"{folder}/{file[0]}" if folder else file[0]
                if first.setdefault(path, number) != number:
                    several.setdefault(path, [first[path]]).append(number)
    lost: dict[int, set[str]] = {}
    clashes: list[tuple[str, list[int]]] = []
    for path, numbers in several.items():
        chosen = winner(path, [wheels[number].name for number in numbers], overlap)
        if chosen is None and not _is_same(path, [wheels[number] for number in numbers]):
            clashes.append((path, numbers))
        for number in numbers:
            if wheels[number].name != (chosen or wheels[numbers[-1]].name):
                lost.setdefault(number, set()).add(path)
    if clashes:
        raise _clash(sorted(clashes), wheels)
    return [_without(wheel, lost[number]) if number in lost else wheel for number, wheel in enumerate(wheels)]


def _is_same(path: str, wheels: Sequence[Wheel]) -> bool:
    folder, _, name = path.rpartition("/")
    sizes = {file[2] for wheel in wheels for file in wheel.files[folder] if file[0] == name}
    if len(sizes) > 1 or sizes == {0}:
        return len(sizes) == 1
    try:
        return len({sha256((wheel.path / path).read_bytes()) for wheel in wheels}) == 1
    except OSError:
        raise ChangedError(wheels) from None


def _without(wheel: Wheel, paths: set[str]) -> Wheel:
    files = {
        folder: [file for file in some if (f"{folder}/{file[0]}" if folder else file[0]) not in paths]
        for folder, some in wheel.files.items()
    }
    return wheel._replace(
        files={folder: some for folder, some in files.items() if some},
        own={path: promise for path, promise in wheel.own.items() if path not in paths},
        uncompiled=[path for path in wheel.uncompiled if path not in paths],
    )


def _clash(clashes: Sequence[tuple[str, list[int]]], wheels: Sequence[Wheel]) -> StageError:
    # A module before its bytecode.
    path, numbers = min(clashes, key=lambda clash: ("__pycache__" in clash[0], clash))
    names = [wheels[number].name for number in numbers]
    more = len({plain(path) for path, _ in clashes}) - 1
    folder, slash, _ = plain(path).partition("/")
    pattern = f"{folder}/*" if slash and more else plain(path)
    return StageError(
        f"{' and '.join(names)} bring {plain(path)}, each another one"
        + (f", and {plural(more, 'more file')} so" if more else ""),
        f'one of them, or say in the profile whose counts: [packages] overlap = {{ "{pattern}" = "{names[-1]}" }}',
    )


def link(wheels: Sequence[Wheel], top: int) -> int:
    """Put the files of `wheels` below the open folder `top`; returns how many had to be copied.

    They are what `owned` returns. Raises ChangedError where a wheel is not what it was, StageError where one brings
    what every environment has of its own.
    """
    for wheel in wheels:
        _check_names(wheel)
    every = sorted({folder for wheel in wheels for folder in wheel.files})
    for _ in folders.opened(top, folders.with_parents(every), make=True):
        pass
    costs = [sum(map(len, wheel.files.values())) for wheel in wheels]
    jobs = list(range(len(wheels)))
    done = on_all_cores(lambda job: _link(wheels[job], top), jobs, costs, grain=2_000)
    changed = [wheels[job] for job, copied in zip(jobs, done) if copied < 0]
    if changed:
        raise ChangedError(changed)
    return sum(done)


# What an environment is recognized by and entered through, also where capitals do not count.
_OWN = re.compile(r"(?i)(pyvenv\.cfg|\.builder\.json|\.drydock/.*|bin/(python[0-9.]*|activate(_this\.py|\.\w+)?))")


def _check_names(wheel: Wheel) -> None:
    for folder, files in wheel.files.items():
        if folder in ("", "bin") or folder[:8].lower() == ".drydock":
            for name, *_ in files:
                path = f"{folder}/{name}" if folder else name
                if _OWN.fullmatch(path):
                    raise StageError(f"{wheel.name} brings {path}, which every environment has of its own")


def unlink(wheels: Sequence[Wheel], top: int) -> None:
    """Undo `link`, however far it came."""
    for wheel in wheels:
        for path, here in folders.opened(top, folders.with_parents(list(wheel.files))):
            for name, *_ in wheel.files.get(path, ()):
                try:
                    os.unlink(name, dir_fd=here)
                except FileNotFoundError:
                    pass


class ChangedError(Exception):
    """Wheels whose unpacked files are not what they were."""

    def __init__(self, wheels: Sequence[Wheel]) -> None:
        super().__init__(", ".join(wheel.name for wheel in wheels))
        self.names = [wheel.name for wheel in wheels]
        for wheel in wheels:
            _drop(wheel.path)


def _drop(path: Path) -> None:
    path.with_name(f"{path.name}.json").unlink(missing_ok=True)
    folders.remove_path(path)


def _link(wheel: Wheel, top: int) -> int:
    """Link the files of one wheel; returns how many had to be copied, and -1 where one was changed."""
    source = os.open(wheel.path, os.O_RDONLY | os.O_DIRECTORY)
    copied = 0
    try:
        paths = folders.with_parents(list(wheel.files))
        for (path, there), (_, here) in zip(folders.opened(source, paths), folders.opened(top, paths)):
            for name, inode, size, time in wheel.files.get(path, ()):
                state = os.stat(name, dir_fd=there, follow_symlinks=False)
                if (state.st_ino, state.st_size, state.st_mtime_ns) != (inode, size, time):
                    return -1
                try:
                    os.link(name, name, src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)
                except FileExistsError:
                    raise
                except OSError:  # another file system, one without hard links, a file with too many, or another's
                    _copy(name, there, here)
                    copied += 1
    except FileNotFoundError:
        return -1
    finally:
        os.close(source)
    return copied


def _copy(name: str, there: int, here: int) -> None:
    import shutil

    with open(os.open(name, os.O_RDONLY, dir_fd=there), "rb") as source:
        mode = os.fstat(source.fileno()).st_mode & 0o777
        new = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode, dir_fd=here)
        with open(new, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)


# --- what is new ---------------------------------------------------------------------------------------------------


def _unpack(
    home: Path,
    folder: Path,
    packages: Mapping[str, dict[str, Any]],
    install: Install,
    forget: Callable[[list[str]], None],
) -> None:
    """Have packages installed into a folder of their own, and take that apart into one per package."""
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
    apart = _overlapping(parts)
    parts = {one: part for one, part in parts.items() if one not in apart}
    bad = _problems(prefix, parts)
    wrong = {problem.partition(":")[0] for problem in bad}
    parts = {one: part for one, part in parts.items() if part.name not in wrong}
    new = {one: prefix / f".{number}" for number, one in enumerate(parts)}
    for one, part in parts.items():
        folders.make_in(new[one].name, descriptor)
        for _, target in folders.opened(descriptor, [new[one].name]):
            _move(part, descriptor, target)
    sources = {one: _sources(part, inside) for one, part in parts.items()}
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
    return _Part(name, info, rows)


def _overlapping(parts: Mapping[str, _Part]) -> set[str]:
    """Those that bring a path that another brings too: only one of their files is there."""
    first: dict[str, str] = {}
    apart = set()
    for one, part in parts.items():
        for path, _, _ in part.rows:
            if first.setdefault(path, one) != one:
                apart |= {one, first[path]}
    return apart if len(parts) > 1 else set()


def _problems(prefix: Path, parts: Mapping[str, _Part]) -> list[str]:
    """What is not as RECORD says, each beginning with the name of its package."""
    rows = [(part.name, path, said, size) for part in parts.values() for path, said, size in part.rows if said]
    jobs = [(f"{prefix}/{path}", said) for _, path, said, _ in rows]
    found = on_all_cores(look, jobs, [size + 10_000 for *_, size in rows], grain=8_000_000)
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


def _sources(part: _Part, inside: str) -> list[tuple[str, str]]:
    """The modules of a package: the sha256 of each, and its path in site-packages. A RECORD may name one twice."""
    found = {
        path[len(inside) + 1 :]: base64.urlsafe_b64decode(said[len("sha256=") :] + "=").hex()
        for path, said, _ in part.rows
        if path.endswith(".py") and said.startswith("sha256=") and path.startswith(f"{inside}/")
    }
    return [(digest, path) for path, digest in found.items()]


def _note(part: _Part, tree: Path, inside: str, uncompiled: Sequence[str]) -> dict[str, Any]:
    files: dict[str, list[list[Any]]] = {}
    for path, names, states in _walk(tree, ""):
        files[path] = [[name, s.st_ino, s.st_size, s.st_mtime_ns] for name, s in zip(names, states)]
    unhashed = [path for path, said, _ in part.rows if not said and not path.endswith(f".{bytecode.cache_tag()}.pyc")]
    return {
        "format": FORMAT,
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
    if path.is_dir() and not path.with_name(f"{path.name}.json").exists():
        folders.remove_path(path)
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
