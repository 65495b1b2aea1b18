"""Models and data sets: each file once in the store, by its sha256, and a folder of them for each profile.

    HOME/data/files/SHA256              a file, read-only
    HOME/data/partial/SHA256            what has come of one; who fetches it holds a lock on it
    HOME/data/views/DIGEST-PROFILE/     what a profile names, made of hard links, by one rename
        hub/models--ORG--NAME/…         as huggingface_hub keeps what it has fetched (HF_HUB_CACHE)
        data/NAME/…                     the file of a URL, or a folder

A fetch goes on where a killed one has stopped, and a file gets its name when its sha256 is right.
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, Optional
from urllib.parse import quote

from builder.embedded import caches, claim, folders, installer, lifeline
from builder.embedded.config_files import is_true
from builder.embedded.errors import StageError

HUB = "https://huggingface.co"
"""The hub where HF_ENDPOINT names no other (huggingface_hub, constants.py)."""

_AT_ONCE = 4
_BLOCK = 1 << 16  # what has come is written at once, so that a broken connection costs little
_SLOWEST = 1 << 14  # bytes a second, on the whole
_TRIES = 4  # that bring nothing new, one after the other
_OTHERS = "drydock push and pull, DRYDOCK_CACHE and bundles bring it too"


class File(NamedTuple):
    """A file to have: its `size` and `sha256`, what it is called in messages, and where it is: at a `url`, which is
    one of a hub where `page` is the page about it there, and `cached` where huggingface_hub keeps it, if it is large;
    or at a `path` below the folder of the project.
    """

    sha256: str
    size: int
    label: str
    url: str = ""
    page: str = ""
    cached: str = ""
    path: str = ""


def endpoint(environ: Mapping[str, str] = os.environ) -> str:
    """Where the hub is."""
    return (environ.get("HF_ENDPOINT") or HUB).rstrip("/")


def page(repo: str, kind: str, environ: Mapping[str, str] = os.environ) -> str:
    """The page of a repository of the hub; its files are below."""
    return f"{endpoint(environ)}/{'datasets/' if kind == 'dataset' else ''}{repo}"


def authorization(environ: Mapping[str, str] = os.environ) -> str:
    """The header with the user's token for the hub, "" without one: from where huggingface_hub has it.

    Raises StageError where it is no token.
    """
    found = environ.get("HF_TOKEN") or environ.get("HUGGING_FACE_HUB_TOKEN") or ""
    if not found:
        path = environ.get("HF_TOKEN_PATH") or os.path.join(_hub_home(environ), "token")
        try:
            with open(os.path.expanduser(path)) as file:
                found = file.read(4096)
        except (OSError, ValueError):
            return ""
    found = found.strip()
    if found and not re.fullmatch("[!-~]+", found):  # in our words, which do not have it
        raise StageError("the token of the hub has a character that no token has", "set HF_TOKEN, or: hf auth login")
    return f"Bearer {found}" if found else ""


def _hub_home(environ: Mapping[str, str]) -> str:
    """The folder of the hub's own tools (huggingface_hub, constants.py)."""
    cache = environ.get("XDG_CACHE_HOME") or os.path.join(environ.get("HOME", "/"), ".cache")
    return environ.get("HF_HOME") or os.path.join(cache, "huggingface")


def refused(code: int, asked: str, secret: str) -> StageError:
    """What the hub's refusal to show what is at the page `asked` means."""
    if code in (401, 403) and secret:
        return StageError("the hub refuses your token", f"may you read it? ask for access at {asked}; or set HF_TOKEN")
    if code in (401, 403):
        return StageError(
            "the hub wants a token: it is gated, private, or not there",
            f"agree to its terms at {asked}, then set HF_TOKEN, or: hf auth login",
        )
    return StageError("the hub does not have it", f"look at {asked}; {_OTHERS}")


def checked(path: str) -> Sequence[str]:
    """The parts of the path of a file of data. Raises StageError where it leads out, or is no name on some disk."""
    parts = path.split("/")
    is_long = any(len(os.fsencode(part)) > 255 for part in parts)
    if is_long or "\\" in path or not path.isprintable() or not folders.is_below(path):
        raise StageError(f"a file is called {path[:100]!a}, which is no name inside of a folder")
    return parts


def place(entry: Mapping[str, Any]) -> str:
    """Where the files of a model or data set are in the view. The scripts have it too (builder/script/data.py)."""
    if "hub" in entry:
        return f"hub/{entry['type']}s--{entry['hub'].replace('/', '--')}/snapshots/{entry['commit']}"
    return f"data/{entry['name']}"


def bring(entries: Sequence[Mapping[str, Any]], home: Path, view: str, mirror: Path, roots: Sequence[str]) -> None:
    """Have the files of models and data sets in the store, and the view of them.

    `roots` are folders that may be that of the project. Raises StageError where no place has a file, or has another one
    under its name; OSError.
    """
    path = home / "data" / "views" / view
    if path.is_dir():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fetch([file for entry in entries for file in files_of(entry)], home, mirror, roots)
    _link(entries, home, path)


def files_of(entry: Mapping[str, Any]) -> Iterator[File]:
    """The files of a model or data set. Raises StageError for a path that leads out."""
    for path, size, digest in entry["files"]:
        checked(path)
        label = f"{entry['name']}: {path}"
        if "hub" in entry:
            about = page(entry["hub"], entry["type"])
            cached = f"{place(entry).split('/')[1]}/blobs/{digest}"
            yield File(digest, size, label, f"{about}/resolve/{entry['commit']}/{quote(path)}", about, cached)
        elif "url" in entry:
            yield File(digest, size, label, entry["url"])
        else:
            yield File(digest, size, label, path=f"{entry['folder']}/{path}")


def kept(home: Path, digest: str) -> Path:
    """Where a file is, or would be."""
    return home / "data" / "files" / digest


def fetch(wanted: Sequence[File], home: Path, mirror: Path, roots: Sequence[str]) -> None:
    """Have files in the store. Raises as `bring`."""
    unique = {one.sha256: one for one in reversed(wanted)}
    files = [one for one in unique.values() if not kept(home, one.sha256).is_file()]
    if not files:
        return
    for name in ("files", "partial"):
        (home / "data" / name).mkdir(parents=True, exist_ok=True)
    known = [(one, caches.known(one)) for one in installer.places(mirror, os.environ)]
    ours = set().union(*(has for where, has in known if where == str(mirror)))  # these are linked
    _check_room([one for one in files if one.sha256 not in ours], home)
    _Fetch(files, home, mirror, known, roots).run()


def _check_room(files: Sequence[File], home: Path) -> None:
    begun = [home / "data" / "partial" / one.sha256 for one in files]
    needed = sum(one.size for one in files) - sum(one.stat().st_size for one in begun if one.is_file())
    room = os.statvfs(home / "data")
    if needed > room.f_bavail * room.f_frsize:
        free = room.f_bavail * room.f_frsize / 1e6
        raise OSError(errno.ENOSPC, f"the data takes {needed / 1e6:,.1f} MB, and {free:,.1f} MB are free", str(home))


class _Fetch:
    """Fetches several files at once, and says how far it is."""

    def __init__(
        self,
        files: Sequence[File],
        home: Path,
        mirror: Path,
        known: Sequence[tuple[str, set[str]]],
        roots: Sequence[str],
    ) -> None:
        self._jobs = deque(sorted(files, key=lambda one: -one.size))
        self._home, self._mirror, self._known, self._roots = home, mirror, known, roots
        self._total, self._done = sum(one.size for one in files), dict.fromkeys(self._jobs, 0)
        self._error: Optional[Exception] = None

    def run(self) -> None:
        from queue import Empty, SimpleQueue
        from threading import Thread

        ended: SimpleQueue[None] = SimpleQueue()

        def work() -> None:
            try:
                while self._error is None:
                    self._bring(self._jobs.popleft())
            except IndexError:  # there are no more
                pass
            except Exception as error:
                self._error = self._error or error
            ended.put(None)

        alive, pause = min(_AT_ONCE, len(self._jobs)), 1.0
        for _ in range(alive):
            # It dies with the process: whoever ends that does not wait for a server.
            Thread(target=work, daemon=True).start()
        try:
            while alive and self._error is None:
                try:
                    ended.get(timeout=pause)
                    alive -= 1
                except Empty:
                    pause = min(pause * 2, 30.0)
                    _say(f"fetching data: {sum(self._done.values()) / 1e6:,.1f} of {self._total / 1e6:,.1f} MB")
        except BaseException:
            self._error = InterruptedError()
            raise
        if self._error is not None:
            raise self._error

    def _bring(self, file: File) -> None:
        with _locked(self._home / "data" / "partial" / file.sha256, file.label) as partial:
            target = kept(self._home, file.sha256)
            if not target.is_file():  # else another process had the lock
                if not any(way(file, partial) for way in (self._copied, self._found, self._fetched)):
                    raise StageError(f"{file.label} is not in {', '.join(self._roots)}", _OTHERS)
                try:
                    os.chmod(partial, 0o444)
                except PermissionError:  # another member of the group has begun it
                    pass
                folders.share(partial)
                os.replace(partial, target)
        self._done[file] = file.size

    def _copied(self, file: File, partial: Path) -> bool:
        """Whether a cache had it."""
        for where, has in self._known:
            if file.sha256 not in has:
                continue
            path = f"files/{file.sha256[:2]}/{file.sha256}/{file.sha256[:16]}.data"
            try:
                if where.startswith(("http://", "https://")):
                    self._stream(file, partial, f"{where.rstrip('/')}/{path}")
                elif where == str(self._mirror):
                    self._take(file, self._mirror / path, partial)
                else:
                    self._copy(
                        file, Path(where[len("file://") :] if where.startswith("file://") else where) / path, partial
                    )
                return True
            except (OSError, StageError) as error:
                why = getattr(error, "strerror", None) or str(error)
                if getattr(error, "errno", None) == errno.ENOSPC or self._error is not None:
                    raise
                _say(f"warning: the cache {caches.shown(where)} did not send {file.label}: {why}; going on without it")
        return False

    def _found(self, file: File, partial: Path) -> bool:
        """Whether the folder of the project had it, or the user's own cache of the hub."""
        cache = os.environ.get("HF_HUB_CACHE") or os.path.join(_hub_home(os.environ), "hub")
        roots = self._roots if file.path else [os.path.expanduser(cache)] if file.cached else []
        for path in (os.path.join(root, file.path or file.cached) for root in roots):
            if os.path.isfile(path) and os.path.getsize(path) == file.size:
                try:
                    self._copy(file, Path(path), partial)
                    return True
                except StageError:
                    if file.path:  # the hub may still have it
                        raise
        return False

    def _copy(self, file: File, source: Path, partial: Path) -> None:
        with open(source, "rb") as content, open(partial, "wb") as to:
            self._write(file, content.read, to, sha256(), 0)

    def _take(self, file: File, source: Path, partial: Path) -> None:
        """From a cache that is ours, as it is: a file may be large."""
        with open(source, "rb") as content:
            self._write(file, content.read, None, sha256(), 0)
        new = partial.with_name(f".{partial.name}")
        try:
            os.link(source, new)
            os.replace(new, partial)
        except OSError:  # of another user's, or on another disk
            self._copy(file, source, partial)

    def _fetched(self, file: File, partial: Path) -> bool:
        if not file.url:
            return False
        if is_true(os.environ.get("UV_OFFLINE", "")) or (file.page and is_true(os.environ.get("HF_HUB_OFFLINE", ""))):
            raise StageError(f"{file.label} is not here, and no network is to be used", _OTHERS)
        try:
            self._stream(file, partial, file.url, authorization() if file.page else "")
        except OSError as error:
            if error.errno is not None and error.filename:
                raise  # of the disk
            raise StageError(f"{file.label} cannot be fetched: {error}", _OTHERS) from None
        return True

    def _stream(self, file: File, partial: Path, url: str, secret: str = "") -> None:
        """From a web server, from where an earlier try has stopped."""
        from time import sleep

        from builder.embedded.web import RefusedError

        left = _TRIES
        while True:
            before = partial.stat().st_size
            try:
                return self._ask(file, partial, url, secret)
            except RefusedError as error:
                if file.page and url == file.url and error.code in (401, 403, 404, 410):
                    found = refused(error.code, file.page, secret)
                    raise StageError(f"{file.label}: {found}", found.hint) from None
                if error.code == 416:
                    os.truncate(partial, 0)
                elif error.code < 500 and error.code not in (408, 429):
                    raise
                problem: OSError = error
            except OSError as error:
                if error.errno is not None:
                    raise
                problem = error
            left = _TRIES if partial.stat().st_size > before + _BLOCK else left - 1
            if not left or self._error is not None:
                raise problem
            sleep(2.0 ** (_TRIES - left) / 4)

    def _ask(self, file: File, partial: Path, url: str, secret: str) -> None:
        from builder.embedded.web import open_url

        digest, size = sha256(), 0
        with open(partial, "r+b") as to:
            while block := to.read(_BLOCK):
                digest.update(block)
                size += len(block)
            if size >= file.size:
                if size == file.size and digest.hexdigest() == file.sha256:
                    return
                to.truncate(0)
                to.seek(0)
                digest, size = sha256(), 0
            wanted = {"Range": f"bytes={size}-"} if size else {}
            seconds = 60 + file.size / _SLOWEST
            limit = file.size + 2 * _BLOCK  # what is more than the lock says is seen before that
            with open_url(url, limit=limit, seconds=seconds, headers=wanted, secret=secret) as answer:
                goes_on = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {size}-")
                if size and not goes_on:
                    to.truncate(0)
                    to.seek(0)
                    digest, size = sha256(), 0
                try:
                    self._write(file, answer.read, to, digest, size)
                except StageError:
                    to.truncate(0)  # not even what came earlier is believed
                    if not size:
                        raise
                    raise OSError("what came earlier does not fit") from None

    def _write(self, file: File, read: Callable[[int], bytes], to: Any, digest: Any, size: int) -> None:
        """Write the rest, and compare the whole with the lock."""
        while block := read(_BLOCK):
            if self._error is not None:
                raise InterruptedError(errno.EINTR, "another file could not be fetched")
            digest.update(block)
            size += len(block)
            if size > file.size:
                break
            if to is not None:
                try:
                    to.write(block)
                    to.flush()
                except OSError as error:
                    raise OSError(error.errno, error.strerror, to.name) from None
            self._done[file] = size
        if (size, digest.hexdigest()) != (file.size, file.sha256):
            raise StageError(
                f"{file.label} is not what was locked: {size} bytes came, and {file.size} are locked"
                if size != file.size
                else f"{file.label} is not what was locked: its sha256 is {digest.hexdigest()[:12]}, and "
                f"{file.sha256[:12]} is locked",
                "find out why before you lock it again: drydock lock --upgrade data",
            )
        if to is not None:
            os.fsync(to.fileno())  # its name is a promise, also after a power loss


@contextmanager
def _locked(path: Path, label: str) -> Iterator[Path]:
    """A file that nobody else writes to meanwhile: what has come of it so far. Waits for who does."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        taken = claim.lock(descriptor)
        if taken is False:
            _say(f"waiting for another fetch of {label}")
            taken = claim.lock(descriptor, wait=True)
        if taken is None:  # no locks here: a file of our own, from its beginning
            os.close(descriptor)
            path = path.with_name(f"{path.name}.{os.urandom(4).hex()}")
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        if folders.is_at(path, descriptor):
            break
        os.close(descriptor)  # it has its own name now
    folders.share(path)
    try:
        yield path
    finally:
        try:
            if folders.is_at(path, descriptor) and not os.fstat(descriptor).st_size:
                os.unlink(path)
        finally:
            os.close(descriptor)


def _link(entries: Sequence[Mapping[str, Any]], home: Path, path: Path) -> None:
    """Make the view, whole or not at all; one that is there is left as it is."""
    claim.sweep(path.parent, ".new-")
    stage, top = claim.begin(path.parent, ".new-")
    try:
        done = set()  # one repository may be there twice, with other files
        for entry in entries:
            folder = stage / place(entry)
            folder.mkdir(parents=True, exist_ok=True)
            for name, _, digest in entry["files"]:
                target = folder.joinpath(*checked(name))
                if (target, digest) not in done:
                    done.add((target, digest))
                    _put(kept(home, digest), target, entry["name"])
            for name in entry.get("revisions", ()):
                ref = folder.parent.with_name("refs").joinpath(*checked(name))
                ref.parent.mkdir(parents=True, exist_ok=True)
                ref.write_text(entry["commit"], encoding="ascii")
        os.unlink(stage / claim.NOTE)
        if not folders.is_shared(stage):
            for one, _, _ in os.walk(stage, topdown=False):
                os.chmod(one, 0o755 if one == str(stage) else 0o555)
        try:
            os.rename(stage, path)
        except OSError:
            if not path.is_dir():  # another start was faster
                raise
    finally:
        folders.remove_path(stage)
        os.close(top)


def _put(source: Path, target: Path, name: str) -> None:
    from shutil import copyfile

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EXDEV):
                raise
            copyfile(source, target)
            os.chmod(target, 0o444)
    except (FileExistsError, NotADirectoryError):
        raise StageError(f"{name}: two of its files have one name on this disk: {target.name!a}") from None


def command(home: str, mirror: str, script: str, view: str, path: str, *roots: str) -> None:
    """Bring what the file at `path` says, for the script of a process."""
    lifeline.leave_on_signals()
    folders.build_in(Path(home))
    guard = lifeline.Guard(int(script))
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))
        bring(entries, Path(home), view, Path(mirror), [os.path.normpath(one) for one in roots if one])
    finally:
        guard.end()


def _say(words: str) -> None:
    print(f"drydock: {words}", file=sys.stderr, flush=True)
