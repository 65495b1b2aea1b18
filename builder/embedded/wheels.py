"""Wheels that were met before, unpacked: an environment is made by linking their files, without an installer.

    wheels/TAG/IDENTITY/            what a wheel brings to an environment of that Python, bytecode included
    wheels/TAG/IDENTITY.json        its folders and files, each file with inode, size and time

uv unpacks what is new, once; every file is then compared with the hash in RECORD. The files are hard links, so who
writes into one in place (in another environment, or in uv's cache) changes it here too: its time or size says so, and
the wheel is unpacked again.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from builder.embedded import bytecode, claim, folders, progress
from builder.embedded.errors import StageError
from builder.embedded.hashes import sha256
from builder.embedded.overlap import plain, winner
from builder.embedded.state import LARGE, read_json
from builder.embedded.words import plural
from builder.embedded.workers import on_all_cores

FORMAT = 2

Install = Callable[[Sequence[dict[str, Any]], int], None]
"""Has packages of a plan installed below an open folder, as below the root of an environment."""


class Wheel(NamedTuple):
    """What a package of a plan brings: its files by folder, as a note has them: names between slashes, and then inode,
    size and time in ns of each between spaces. They are many, and most are looked at by the process that links them.

    All is relative to the environment. `own` are the files that no RECORD gives a hash, with their promises;
    `uncompiled` the modules that this Python cannot compile.
    """

    name: str
    path: Path
    files: dict[str, list[str]]
    own: dict[str, str]
    uncompiled: list[str]


def identity(package: Mapping[str, Any], builds: Sequence[Mapping[str, Any]]) -> str:
    """What stands for a package as it is once installed: its sha256; of source, with those of what builds it."""
    if package["file"].endswith(".whl"):
        return str(package["sha256"])
    parts = [package["sha256"], *(one["sha256"] for one in builds), *package.get("build", ())]
    return sha256(" ".join(parts).encode())


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
        from builder.embedded.unpack import unpack  # here, because most builds meet nothing new

        unpack(home, folder, new, install, forget)
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
            or any(len(texts) != 2 for texts in note["files"].values())
            or not _are_inside(note["files"])
            or not (folder / name).is_dir()
        ):
            return None
        return Wheel(package, folder / name, note["files"], note["own"], note["uncompiled"])
    except OSError:
        return None


_NOTE = {"format": int, "files": {str: [str]}, "own": {str: str}, "uncompiled": [str]}


def _are_inside(paths: Collection[str]) -> bool:
    """Whether relative paths of folders, "" among them, stay below where they begin."""
    joined = "".join(f"/{path}/\n" for path in paths if path)
    return not any(part in joined for part in ("//", "/./", "/../"))


def _rows(wheel: Wheel, folder: str) -> list[tuple[str, int, int, int]]:
    """The files of a folder: name, inode, size and time. Raises ChangedError where the note was damaged."""
    if folder not in wheel.files:
        return []
    names, states = (text.split(mark) for text, mark in zip(wheel.files[folder], "/ "))
    if len(states) != 3 * len(names) or {"", ".", ".."}.intersection(names) or max(map(len, states)) > 20:
        raise ChangedError([wheel])
    try:
        numbers = list(map(int, states))
    except ValueError:
        raise ChangedError([wheel]) from None
    return list(zip(names, numbers[::3], numbers[1::3], numbers[2::3]))


def texts(rows: Sequence[tuple[str, int, int, int]]) -> list[str]:
    """What `_rows` reads."""
    return ["/".join(name for name, *_ in rows), " ".join(str(number) for _, *state in rows for number in state)]


def without_bytecode(wheel: Wheel) -> Wheel:
    """A wheel as its package was published, for those who edit what is installed: Python compiles it itself."""
    ours = f".{bytecode.cache_tag()}.pyc"
    kept = {folder: [row for row in _rows(wheel, folder) if not row[0].endswith(ours)] for folder in wheel.files}
    return wheel._replace(files={folder: texts(rows) for folder, rows in kept.items() if rows})


def owned(wheels: Sequence[Wheel], overlap: Mapping[str, str]) -> list[Wheel]:
    """The wheels, each without what another one has in its place: of a path that several bring, one file is there.

    `overlap` is that of the plan. Raises StageError where they differ and it does not say whose counts, ChangedError.
    """
    first: dict[str, int] = {}
    several: dict[str, list[int]] = {}
    for folder in _shared(wheels):
        for number, wheel in enumerate(wheels):
            for name, *_ in _rows(wheel, folder):
                path = f"{folder}/{name}" if folder else name
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


def check_case(wheels: Sequence[Wheel]) -> None:
    """Raise StageError where two files of `wheels`, which are what `owned` returns, differ in case alone.

    Where a file system does not tell them apart, only one of them would be there.
    """
    folded: dict[str, list[tuple[int, str]]] = {}
    for number, wheel in enumerate(wheels):
        for folder in wheel.files:
            folded.setdefault(folder.casefold(), []).append((number, folder))
    for some in folded.values():
        if len(some) < 2:
            continue
        seen: dict[str, tuple[int, str]] = {}
        for number, folder in some:
            for name, *_ in _rows(wheels[number], folder):
                path = f"{folder}/{name}" if folder else name
                other, before = seen.setdefault(path.casefold(), (number, path))
                if before != path:
                    raise case_clash([wheels[other].name, wheels[number].name], before, path)


def case_clash(names: Sequence[str], path: str, other: str) -> StageError:
    """What is said of two files of packages that are one where capitals do not count."""
    return StageError(
        f"{' and '.join(dict.fromkeys(names))} bring {plain(path)} and {plain(other)}, which are one file here: "
        "this file system does not tell upper and lower case apart",
        "name a folder on one that does (on a Mac, a volume of APFS that is case-sensitive): DRYDOCK_HOME",
    )


def _shared(wheels: Sequence[Wheel]) -> set[str]:
    """The folders that more than one wheel has files in."""
    seen: set[str] = set()
    shared: set[str] = set()
    for wheel in wheels:
        shared |= seen & wheel.files.keys()
        seen |= wheel.files.keys()
    return shared


def _is_same(path: str, wheels: Sequence[Wheel]) -> bool:
    folder, _, name = path.rpartition("/")
    sizes = {size for wheel in wheels for one, _, size, _ in _rows(wheel, folder) if one == name}
    if len(sizes) > 1 or sizes == {0}:
        return len(sizes) == 1
    try:
        return len({sha256((wheel.path / path).read_bytes()) for wheel in wheels}) == 1
    except OSError:
        raise ChangedError(wheels) from None


def _without(wheel: Wheel, paths: set[str]) -> Wheel:
    files = dict(wheel.files)
    for folder in {path.rpartition("/")[0] for path in paths}:
        rows = [row for row in _rows(wheel, folder) if (f"{folder}/{row[0]}" if folder else row[0]) not in paths]
        if rows:
            files[folder] = texts(rows)
        else:
            del files[folder]
    return wheel._replace(
        files=files,
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


class _Job(NamedTuple):
    """A part of a wheel to link: some of its folders, neighbours, and how many files are in them."""

    wheel: int
    folders: list[str]
    files: int


def link(wheels: Sequence[Wheel], top: int, closed: Collection[str] = ()) -> int:
    """Put the files of `wheels` below the open folder `top`; returns how many had to be copied.

    They are what `owned` returns. What is in `closed`, folders of one wheel each, is read-only as soon as it is full.
    Raises ChangedError where a wheel is not what it was, StageError where one brings what every environment has of its
    own.
    """
    for wheel in wheels:
        _check_names(wheel)
    jobs = [job for number, wheel in enumerate(wheels) for job in _jobs(number, wheel)]
    costs = [job.files + 5 * len(job.folders) for job in jobs]
    done = on_all_cores(
        lambda job: _link(wheels[job.wheel], top, job, closed),
        jobs,
        costs,
        grain=2_000,
        progress=lambda _: progress.show("linking files"),
    )
    changed = {job.wheel for job, copied in zip(jobs, done) if copied < 0}
    if changed:
        raise ChangedError([wheels[number] for number in sorted(changed)])
    return sum(done)


def _jobs(number: int, wheel: Wheel) -> Iterator[_Job]:
    """The parts of a wheel, small enough that every core gets about the same."""
    some, files = [], 0
    for folder in folders.in_order(list(wheel.files)):
        some.append(folder)
        files += wheel.files[folder][0].count("/") + 1
        if files >= 1_000:
            yield _Job(number, some, files)
            some, files = [], 0
    if some:
        yield _Job(number, some, files)


def full_at_once(wheels: Sequence[Wheel], patched: Collection[str]) -> set[str]:
    """The folders of packages that nothing comes into any more once their files are linked: of one wheel only, without
    folders in them, and not of the packages that are `patched`.
    """
    every = {folder for wheel in wheels for folder in wheel.files}
    above = {folder.rpartition("/")[0] for folder in folders.with_parents(list(every))}
    own = {folder for wheel in wheels if wheel.name not in patched for folder in wheel.files}
    return {folder for folder in own - above - _shared(wheels) if folder.count("/") > 2}


# What an environment is recognized by and entered through, also where capitals do not count.
_OWN = re.compile(r"(?i)(pyvenv\.cfg|\.builder\.json|\.drydock/.*|bin/(python[0-9.]*|activate(_this\.py|\.\w+)?))")


def _check_names(wheel: Wheel) -> None:
    for folder in wheel.files:
        if folder in ("", "bin") or folder[:8].lower() == ".drydock":
            for name, *_ in _rows(wheel, folder):
                path = f"{folder}/{name}" if folder else name
                if _OWN.fullmatch(path):
                    raise StageError(f"{wheel.name} brings {path}, which every environment has of its own")


def unlink(wheels: Sequence[Wheel], top: int) -> None:
    """Undo `link`, however far it came."""
    for wheel in wheels:
        for path, here in folders.opened(top, folders.with_parents(list(wheel.files)), make=True):
            if path in wheel.files:
                os.fchmod(here, 0o755)
                for name in wheel.files[path][0].split("/"):
                    try:
                        os.unlink(name, dir_fd=here)
                    except OSError:  # it was never there
                        pass


class ChangedError(Exception):
    """Wheels whose unpacked files, or whose notes, are not what they were."""

    def __init__(self, wheels: Sequence[Wheel]) -> None:
        super().__init__(", ".join(wheel.name for wheel in wheels))
        self.wheels = wheels


def drop(paths: Sequence[Path]) -> None:
    """Delete unpacked wheels: they are unpacked again when they are wanted."""
    for path in paths:
        path.with_name(f"{path.name}.json").unlink(missing_ok=True)
        folders.remove_path(path)


_NOT_AS_NOTED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""What looking for a file ends with where a note says what was never there."""


def _link(wheel: Wheel, top: int, job: _Job, closed: Collection[str]) -> int:
    """Link some files of one wheel; returns how many had to be copied, and -1 where one was changed."""
    source = os.open(wheel.path, os.O_RDONLY | os.O_DIRECTORY)
    copied = 0
    ours = set(job.folders)
    try:
        paths = folders.with_parents(job.folders)
        for (path, there), (_, here) in zip(folders.opened(source, paths), folders.opened(top, paths, make=True)):
            for name, inode, size, time in _rows(wheel, path) if path in ours else ():
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
            if path in closed and path in ours:
                os.fchmod(here, 0o555)
    except ChangedError:
        return -1
    except OSError as error:
        if error.errno not in _NOT_AS_NOTED:
            raise
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
