"""Whether every file is still what was built."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from builder.embedded.bytecode import seal
from builder.embedded.installed import distributions, read_record, site_packages
from builder.embedded.manifest import read_manifest
from builder.embedded.overlap import winner
from builder.embedded.workers import on_all_cores


class Problem(NamedTuple):
    """A file that is not as it was built: its path in the environment, and what is wrong with it.

    `package` is the name of the package that it is of, where it is of one.
    """

    path: str
    what: str
    package: str = ""

    def __str__(self) -> str:
        return f"{self.path} {self.what}"


class Examined(NamedTuple):
    """What looking at every file of an environment found; `bytes` is the sum of their sizes."""

    env: Path
    files: int
    bytes: int
    problems: list[Problem]


class _Promise(NamedTuple):
    """What should stand at a path: a hash as RECORD writes it (or several: one is enough), `-> ` and where a
    link leads, or `pyc ` and the sha256 of the
    source.
    """

    said: str
    size: int
    package: str


def examine(envs: Sequence[Path], progress: Callable[[int, int], None] = lambda *_: None) -> list[Examined]:
    """Look at every file of some environments: changed, missing, or not part of it.

    A file that several of them share by hard link is read once. `progress` hears how many files of how many are done.
    """
    promised = [_promises(env) for env in envs]
    found = [dict(_walk(str(env), len(str(env)) + 1)) for env in envs]
    jobs: dict[tuple[Any, str], tuple[str, str]] = {}
    costs: list[int] = []
    for env, promises, files in zip(envs, promised, found):
        for path, promise in promises.items():
            file = files.get(path)
            key = (file, promise.said)
            if file is not None and key not in jobs:
                jobs[key] = (f"{env}/{path}", promise.said)
                costs.append(promise.size + _EACH)
    said = on_all_cores(
        look, list(jobs.values()), costs, grain=8_000_000, progress=lambda done: progress(done, len(jobs))
    )
    wrong = {key: (what, size) for key, (what, size) in zip(jobs, said)}
    return [_examined(*one, wrong) for one in zip(envs, promised, found)]


# What opening a file costs, in the time of bytes hashed.
_EACH = 10_000


def _examined(
    env: Path,
    promises: dict[str, _Promise],
    files: dict[str, int],
    wrong: dict[tuple[Any, str], tuple[str, int]],
) -> Examined:
    problems, total = [], 0
    for path, promise in promises.items():
        if path not in files:
            problems.append(Problem(path, "is missing", promise.package))
            continue
        what, size = wrong[files[path], promise.said]
        total += size
        if what:
            problems.append(Problem(path, what, promise.package))
    problems += [Problem(path, "is not part of it") for path in files if path not in promises and path != _MANIFEST]
    return Examined(env, len(files), total, sorted(problems))


_MANIFEST = ".drydock/manifest.json"


def _promises(env: Path) -> dict[str, _Promise]:
    """What a finished environment should consist of, by path, without its manifest. Raises StageError."""
    manifest = read_manifest(env)
    site = site_packages(env)
    inside = f"{site.relative_to(env).as_posix()}/"
    without = set(manifest["uncompiled"])
    promises = _records(site, inside, manifest["plan"].get("overlap", {}))
    for path, promise in list(promises.items()):
        if path.endswith(".py") and path.startswith(inside) and path not in without:
            folder, _, name = path.rpartition("/")
            digests = " ".join(
                base64.urlsafe_b64decode(said[len("sha256=") :] + "=").hex() for said in promise.said.split(" ")
            )
            cached = f"{folder}/__pycache__/{name[:-3]}.{manifest['cache-tag']}.pyc"
            promises[cached] = _Promise(f"pyc {digests}", promise.size, promise.package)
    promises.update((path, _Promise(said, 0, "")) for path, said in manifest["own"].items())
    return promises


def _records(site: Path, inside: str, overlap: Mapping[str, str]) -> dict[str, _Promise]:
    """What every RECORD says of its files, by path; `inside` is that of site-packages, with its slash.

    Where several packages bring a file, `overlap` says whose it is.
    """
    promises: dict[str, _Promise] = {}
    for name, info in sorted(distributions(site).items()):
        try:
            rows = read_record(info)
        except (OSError, ValueError):
            continue  # its own hash says so too
        for row in rows:
            if len(row) < 3 or not row[1]:
                continue
            path = os.path.normpath(inside + row[0]) if row[0].startswith("..") else inside + row[0]
            said = row[1]
            if path in promises and promises[path].said != said:
                owner = winner(path, (promises[path].package, name), overlap)
                if owner is not None and owner != name:
                    continue
                if owner is None:
                    # One of them was the last, with a Drydock that did not ask whose it is.
                    said = f"{promises[path].said} {said}"
            promises[path] = _Promise(said, int(row[2] or 0), name)
    return promises


def check_records(site: Path, plan: Mapping[str, Any], *, named: bool = False) -> Examined:
    """Look at what the packages in a site-packages folder brought, against RECORD: changed or missing.

    With `named`, only at those that the plan names.
    """
    promises = _records(site, "", plan.get("overlap", {}))
    if named:
        names = {package["name"] for package in plan["packages"]}
        promises = {path: promise for path, promise in promises.items() if promise.package in names}
    jobs = [(f"{site}/{path}", promise.said) for path, promise in promises.items()]
    costs = [promise.size + _EACH for promise in promises.values()]
    found = list(zip(promises.items(), on_all_cores(look, jobs, costs, grain=8_000_000)))
    problems = [Problem(path, what, promise.package) for (path, promise), (what, _) in found if what]
    return Examined(site, len(found), sum(size for _, (_, size) in found), sorted(problems))


def _walk(folder: str, skip: int) -> Iterator[tuple[str, int]]:
    """Every file and link below `folder`: its path without the first `skip` characters, and its inode."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path, skip)
            else:
                yield entry.path[skip:], entry.inode()


def look(job: tuple[str, str]) -> tuple[str, int]:
    """What is wrong with a file, nothing where it keeps its promise; and its size."""
    path, said = job
    try:
        if said.startswith("-> "):
            return _look_at_link(path, said[len("-> ") :]), 0
        if said.startswith("pyc "):
            with open(path, "rb", buffering=0) as file:
                content = file.read()
            good = any(content[-32:] == seal(digest, content[:-32]) for digest in said.split(" ")[1:])
            return "" if good else "is not the bytecode of its source", len(content)
        found, size = _hash(path, said.partition("=")[0])
        return "" if found in said.split(" ") else "was changed", size
    except FileNotFoundError:
        return "is missing", 0
    except (OSError, ValueError) as error:
        return f"cannot be checked: {error}", 0


def _look_at_link(path: str, target: str) -> str:
    found = os.readlink(path)
    if found != target:
        return f"leads to {found}, not to {target}"
    return "" if os.path.exists(path) else f"leads to {target}, which is gone"


def _hash(path: str, algorithm: str) -> tuple[str, int]:
    digest, size = hashlib.new(algorithm), 0
    with open(path, "rb", buffering=0) as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
            size += len(block)
    return f"{algorithm}=" + base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode(), size
