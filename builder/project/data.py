"""Models and data sets, as `[data]` names them: locked by commit and content, and brought into the store.

Of the hub's protocol this is one question, for the files of a revision with their hashes, and the files themselves
(decision 0010 says why it is not huggingface_hub). Files that the hub knows by their sha256 are not fetched here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from builder.download import download
from builder.embedded import data
from builder.embedded.caches import shown
from builder.embedded.config_files import is_true
from builder.embedded.errors import StageError
from builder.embedded.folders import share
from builder.embedded.web import RefusedError, open_url
from builder.errors import DrydockError, LockError
from builder.files import hash_of, make_folder
from builder.lock.model import DataFile, Lock, LockedData, place_of
from builder.profile.model import Data
from builder.project.catalogue import Entry
from builder.project.folders import ALL, state
from builder.project.sources import consent
from builder.store.layout import Store

UPGRADE = "data"
"""What `drydock lock --upgrade` calls all of them; `data.NAME` is one."""

MOST = 10_000
"""Files of one model or data set: a lock has a line for each."""

_LARGEST_LIST = 1 << 26
_AT_ONCE = 8


def is_upgrade(word: str) -> bool:
    """Whether `drydock lock --upgrade` means data by a word."""
    return word == UPGRADE or word.startswith(f"{UPGRADE}.")


def lock_data(
    entry: Entry, previous: Lock | None, upgrade: Sequence[str], step: Callable[[str], None]
) -> list[LockedData]:
    """The lock of what a profile names in `[data]`; that of the `previous` lock, where it is of the same place.

    What is a folder is read each time. Raises LockError, ConsentError.
    """
    named = entry.profile.data
    unknown = [word for word in upgrade if word.startswith("data.") and word[len("data.") :] not in named]
    if unknown:
        raise LockError(f"{entry.name} has no {unknown[0]}", hint=f"it has: {', '.join(named) or 'no data'}")
    before = {one.name: one for one in previous.data} if previous is not None and UPGRADE not in upgrade else {}
    found = []
    for name, one in named.items():
        place = place_of(one)
        known = before.get(name) if f"data.{name}" not in upgrade else None
        if known is not None and known.place == place and one.folder is None:
            found.append(known)
            continue
        consent.check(entry.name, entry.content)
        try:
            found.append(_locked(name, one, entry, step))
        except (DrydockError, StageError, OSError) as error:
            message = error.message if isinstance(error, DrydockError) else str(error)
            hint = getattr(error, "hint", None) or None
            raise LockError(f"[data.{name}] {one.hub or one.url or one.folder}: {message}", hint=hint) from None
    return found


def _locked(name: str, one: Data, entry: Entry, step: Callable[[str], None]) -> LockedData:
    if one.folder is not None:
        _check_local(entry)
        return LockedData(name=name, place=place_of(one), files=_of_folder(entry.project_folder / one.folder))
    if is_true(os.environ.get("UV_OFFLINE", "")):
        raise LockError("it is not locked yet, and --offline forbids asking for it")
    if one.url is not None:
        return LockedData(name=name, place=place_of(one), files=[_of_url(name, one.url, one.sha256, step)])
    commit, files = _of_hub(name, one, step)
    return LockedData(
        name=name,
        place=place_of(one),
        hub=one.hub,
        type=one.type,
        revision=one.revision,
        commit=commit,
        files=files,
    )


# --- a hub -----------------------------------------------------------------------------------------------------------


def _of_hub(name: str, one: Data, step: Callable[[str], None]) -> tuple[str, list[DataFile]]:
    """The commit of a revision, and its files. Raises LockError, StageError, OSError."""
    repo, about = str(one.hub), data.page(str(one.hub), one.type)
    step(f"asking the hub for {repo}, revision {one.revision}")
    url = f"{data.endpoint()}/api/{one.type}s/{repo}/revision/{quote(one.revision, safe='')}?blobs=true"
    answer = _fetch_json(url, about, one.revision)
    commit, listed = answer.get("sha"), answer.get("siblings")
    if not isinstance(commit, str) or not re.fullmatch("[0-9a-f]{40}", commit) or not isinstance(listed, list):
        raise LockError("the answer is not that of a hub", hint="is HF_ENDPOINT a hub?")
    rows = [row for row in listed if isinstance(row, dict) and isinstance(row.get("rfilename"), str)]
    chosen = [row for row in rows if _is_wanted(row["rfilename"], one.files)]
    if not chosen:
        some = ", ".join(row["rfilename"] for row in rows[:5])
        raise LockError("none of its files is one of `files`", hint=f"it has {len(rows)}: {some!a}")
    _check_names([row["rfilename"] for row in chosen])
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        files = list(pool.map(lambda row: _of_row(name, row, f"{about}/resolve/{commit}", about), chosen))
    return commit, sorted(files, key=lambda file: file.path)


def _fetch_json(url: str, about: str, revision: str) -> dict[str, Any]:
    secret = data.authorization()
    try:
        with open_url(url, limit=_LARGEST_LIST, seconds=60, secret=secret) as answer:
            found = json.loads(answer.read())
    except RefusedError as error:
        if error.code == 404 and error.headers.get("X-Error-Code") == "RevisionNotFound":
            raise LockError(f"it has no revision {revision}", hint=f"look at {about}") from None
        if error.code in (401, 403, 404):
            raise data.refused(error.code, about, secret) from None
        raise
    except ValueError:
        raise LockError("the hub did not answer in JSON", hint="is HF_ENDPOINT a hub?") from None
    return found if isinstance(found, dict) else {}


def _is_wanted(path: str, patterns: Sequence[str]) -> bool:
    """Whether patterns, as huggingface_hub's `allow_patterns` reads them, want a file; without any, all are wanted.

    >>> [_is_wanted("onnx/model.bin", [pattern]) for pattern in ("*.bin", "onnx/", "onnx", "*.json")]
    [True, True, False, False]
    """
    return not patterns or any(fnmatchcase(path, f"{one}*" if one.endswith("/") else one) for one in patterns)


def _of_row(name: str, row: dict[str, Any], where: str, about: str) -> DataFile:
    """A file of the hub's list: large ones stand there with their sha256, the others are fetched."""
    path: str = row["rfilename"]
    size: Any = row.get("size")
    large = row.get("lfs")
    if isinstance(large, dict):
        digest, size = large.get("sha256") or large.get("oid"), large.get("size", size)
        if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest) or not _is_size(size):
            raise LockError(f"the hub gives no size and no sha256 of {path!a}")
        return DataFile(path=path, size=size, sha256=digest)
    if not _is_size(size):
        raise LockError(f"the hub gives no size of {path!a}")
    found, git = _fetched(f"{where}/{quote(path)}", size, about, data.authorization())
    if isinstance(row.get("blobId"), str) and row["blobId"] != git:
        raise LockError(f"{name}: {path!a} is not the file that the hub says it is")
    return DataFile(path=path, size=size, sha256=found)


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1 << 50


def _check_names(paths: Sequence[str]) -> None:
    """Raise LockError, StageError where files cannot be in one folder, on any disk."""
    if len(paths) > MOST:
        raise LockError(
            f"it has {len(paths):,} files, and {MOST:,} are the most", hint="pack them, or name fewer: files"
        )
    seen: set[str] = set()
    above = {"/".join(parts[:count]) for parts in map(data.checked, paths) for count in range(1, len(parts))}
    for path in paths:
        if path in above or path.casefold() in seen:
            raise LockError(f"two of its files have one name on some disks: {path!a}")
        seen.add(path.casefold())


# --- a URL, and a folder ---------------------------------------------------------------------------------------------


def _of_url(name: str, url: str, digest: str | None, step: Callable[[str], None]) -> DataFile:
    path = re.sub(r"[^A-Za-z0-9_.+-]", "_", unquote(urlsplit(url).path).rpartition("/")[2]).lstrip(".")[:120] or name
    size = _announced(url) if digest is not None else None
    if digest is not None and size is not None:
        return DataFile(path=path, size=size, sha256=digest)
    step(f"fetching {name}: {shown(url)}")
    found, _, size = _downloaded(url)
    if digest is not None and found != digest:
        raise LockError(f"its sha256 is {found}, and the profile says {digest}")
    return DataFile(path=path, size=size, sha256=found)


def _announced(url: str) -> int | None:
    """How many bytes a server says that a file has."""
    try:
        with open_url(url, limit=1 << 20, seconds=60, method="HEAD") as answer:
            text = answer.headers.get("Content-Length") or ""
    except RefusedError as error:
        if error.code in (403, 405, 501):  # it may answer to GET only
            return None
        raise
    return int(text) if text.isdecimal() and len(text) < 15 else None


def _of_folder(path: Path) -> list[DataFile]:
    if not path.is_dir():
        raise LockError("it is not a folder" if path.exists() else "there is no such folder")
    names = sorted(_names(path))
    if not names:
        raise LockError("it has no files")
    _check_names(names)
    found = []
    for name in names:
        digest = hash_of(path / name)
        found.append(DataFile(path=name, size=(path / name).stat().st_size, sha256=digest))
    return found


def _names(folder: Path) -> Iterator[str]:
    """The files of a folder; a link counts as the file that it leads to, inside of it. Raises LockError."""
    real = folder.resolve()
    for top, below, files in os.walk(folder):
        for path in (Path(top, one) for one in (*below, *files)):
            name = path.relative_to(folder).as_posix()
            leads_out = path.is_symlink() and not path.resolve().is_relative_to(real)
            if leads_out or (path.is_symlink() and not path.is_file()):
                why = "a link that leads out of it" if leads_out else "a link, and not one to a file"
                raise LockError(f"{name!a} is {why}", hint="replace it by what it leads to")
            if path.is_file():
                yield name


def _check_local(entry: Entry) -> None:
    if entry.sources:
        raise LockError(
            "a profile that has a part of a source may name hubs and URLs, and no path of this machine",
            hint="a source is read everywhere: put it where a URL leads",
        )


def states(entry: Entry) -> list[list[str]]:
    """The folders as they are, for `builder.project.folders.are_same`. Raises LockError."""
    found = []
    for one in entry.profile.data.values():
        if one.folder is not None:
            path = (entry.project_folder / one.folder).absolute()
            try:
                found.append([str(path), state(path, [ALL]), ALL])
            except OSError as error:
                raise LockError(f"{error.filename}: {error.strerror}") from None
    return found


def check_fresh(entry: Entry, lock: Lock) -> None:
    """Raise LockError where a folder is not what was locked. One that is not here may be in the store, or a cache."""
    for one in lock.data:
        folder = entry.profile.data[one.name].folder if one.name in entry.profile.data else None
        path = entry.project_folder / folder if folder is not None else None
        if path is not None and path.is_dir() and _of_folder(path) != one.files:
            raise LockError(
                f"the lock is stale: {folder}, which is the data {one.name}, has changed since it was made",
                hint=f"drydock lock {entry.name}",
            )


# --- the store -------------------------------------------------------------------------------------------------------


def _fetched(url: str, size: int, about: str, secret: str) -> tuple[str, str]:
    """Bring a file of the hub into the store: its sha256, and the name that git has for it."""
    try:
        found, git, there = _downloaded(url, size, secret)
    except RefusedError as error:
        if error.code in (401, 403, 404, 410):
            raise data.refused(error.code, about, secret) from None
        raise
    if there != size:
        raise LockError(f"{shown(url)} has {there} bytes, and the hub says {size}")
    return found, git


def _downloaded(url: str, size: int = 0, secret: str = "") -> tuple[str, str, int]:
    """Bring what is at a URL into the store: its sha256, its name in git, and its size."""
    home = Store.here().home
    target = data.kept(home, "")
    make_folder(target)
    with tempfile.TemporaryDirectory(prefix="drydock-data-", dir=target) as work:
        path = Path(work) / "file"
        found = download(url, path, size=size, secret=secret)
        digest = found.hashes["sha256"]
        git = hashlib.sha1(b"blob %d\0" % found.size, usedforsecurity=False)
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                git.update(block)
        path.chmod(0o444)
        share(path.replace(data.kept(home, digest)))
    return digest, git.hexdigest(), found.size


def bring(entry: Entry, digest: str) -> Path:
    """A file of the data of a profile, in the store, from wherever it is. Raises DrydockError."""
    home = Store.here().home
    said = entry.profile.data
    for one in entry.lock.data:
        row: dict[str, Any] = {"name": one.name, "files": [(file.path, file.size, file.sha256) for file in one.files]}
        if one.hub is not None:
            row |= {"hub": one.hub, "type": one.type, "commit": one.commit}
        elif one.name in said:
            row |= {"url": said[one.name].url} if said[one.name].url else {"folder": said[one.name].folder}
        wanted = [file for file in data.files_of(row) if file.sha256 == digest]
        if wanted:
            for folder in ("files", "partial"):
                make_folder(home / "data" / folder)
            try:
                data.fetch(wanted[:1], home, home / "cache" / "mirror", [str(entry.project_folder)])
            except StageError as error:
                raise DrydockError(str(error), hint=error.hint or None) from None
            return data.kept(home, digest)
    raise LockError(f"{entry.name} has no such data any more", hint=f"drydock lock {entry.name}")
