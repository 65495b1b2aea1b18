"""Where a mirror is: a folder, a web server, or a scheme of fsspec (ssh, S3, ...).

A path is relative to the root of the mirror, with slashes. What is written under its own name is whole: by a rename,
or, at an object store, by its own promise.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, Protocol
from urllib.parse import unquote, urlsplit

from builder.download import download
from builder.embedded.caches import LARGEST_INDEX, shown
from builder.embedded.folders import share
from builder.embedded.web import open_url
from builder.errors import DrydockError, ToolError, UsageError
from builder.files import hash_of, make_folder
from builder.share.mirror.pages import SUMS, parse_sums

# What puts whole files under their name in one step; elsewhere a file gets its name by a rename.
_OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "memory", "oss", "r2")
_EXTRAS = {"s3": "s3", "s3a": "s3", "ssh": "ssh", "sftp": "ssh"}
_BLOCK = 1 << 20
_SECONDS = 60.0  # for a small file from a web server


class Place(Protocol):
    """A mirror, somewhere. Its methods raise OSError, or what fsspec raises; `shown` has no credentials."""

    shown: str

    def sizes(self) -> Mapping[str, int | None]:
        """All that is below files/: path to bytes, None where that is not known."""

    def read(self, path: str) -> bytes | None:
        """The content of a small file; None where it does not exist."""

    def fetch(self, path: str, target: Path, size: int = 0) -> str:
        """Fetch a file to `target`; returns its sha256. More than `size` bytes, where known, are refused."""

    def write(self, path: str, content: bytes) -> None:
        """Write a small file."""

    def put(self, source: Path, path: str) -> None:
        """Put a file in place; `source` is in the folder of `scratch`, and may be moved."""

    def scratch(self) -> Any:
        """A context with a folder for files on their way, removed at its end."""


def open_place(text: str) -> Place:
    """The place that a folder's path or a URL names. Raises UsageError where it is not a place that can be reached."""
    scheme = text.partition("://")[0].lower() if "://" in text else ""
    try:
        urlsplit(text if scheme else "")
    except ValueError as error:
        raise UsageError(f"{text} is not a URL: {error}") from None
    if scheme in ("http", "https"):
        return WebPlace(text)
    if scheme in ("", "file"):
        parts = urlsplit(text)
        if scheme and parts.netloc not in ("", "localhost"):
            raise UsageError(f"{text} names a host", hint="a folder of this machine is file:///path")
        return LocalPlace(Path(unquote(parts.path) if scheme else text).absolute())
    return FsspecPlace(text, scheme)


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn errors at the place `name` into errors without credentials."""
    try:
        yield
    except DrydockError:
        raise
    except Exception as error:  # a back end of fsspec raises what it likes
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        hint = "connect to it once with ssh, to see and accept its key" if "Host key" in why else None
        raise DrydockError(f"{name}: {re.sub(r'://[^/@ ]+@', '://', why)}", hint=hint) from None


class LocalPlace:
    """A folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.shown = str(root)

    def sizes(self) -> dict[str, int | None]:
        found: dict[str, int | None] = {}
        with suppress(FileNotFoundError):
            for first in os.scandir(self.root / "files"):
                for second in os.scandir(first.path) if first.is_dir() else ():
                    for entry in os.scandir(second.path) if second.is_dir() else ():
                        if entry.is_file():
                            found[f"files/{first.name}/{second.name}/{entry.name}"] = entry.stat().st_size
        return found

    def read(self, path: str) -> bytes | None:
        try:
            return (self.root / path).read_bytes()
        except FileNotFoundError:
            return None

    def fetch(self, path: str, target: Path, size: int = 0) -> str:  # noqa: ARG002
        return copy_hashed(self.root / path, target)

    def write(self, path: str, content: bytes) -> None:
        target = self.root / path
        make_folder(target.parent)
        new = target.with_name(f".{target.name}.{socket.gethostname()}.{os.getpid()}")
        try:
            new.write_bytes(content)
            share(new)
            new.replace(target)
        finally:
            new.unlink(missing_ok=True)

    def put(self, source: Path, path: str) -> None:
        target = self.root / path
        make_folder(target.parent)
        source.replace(target)
        share(target)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """On the same file system, so that a rename is enough; leftovers of killed pushes are removed."""
        host = socket.gethostname()
        for old in self.root.glob(f".incoming-{host}-*"):
            if not _lives(old.name.rpartition("-")[2]):
                shutil.rmtree(old, ignore_errors=True)
        folder = self.root / f".incoming-{host}-{os.getpid()}"
        make_folder(self.root)
        folder.mkdir(exist_ok=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class WebPlace:
    """A static web server; it can be read only."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self.shown = shown(self._url)

    def sizes(self) -> dict[str, int | None]:
        text = self.read(SUMS)
        if text is None:
            raise DrydockError(
                f"{self.shown} is not a mirror of drydock push: it has no {SUMS}",
                hint="use the folder that contains simple/ and files/",
            )
        return {file.path: None for file in parse_sums(text.decode(errors="replace"))}

    def read(self, path: str) -> bytes | None:
        try:
            with open_url(f"{self._url}/{path}", limit=LARGEST_INDEX, seconds=_SECONDS) as answer:
                return answer.read()
        except OSError as error:
            if getattr(error, "code", None) in (404, 410):  # of RefusedError
                return None
            raise

    def fetch(self, path: str, target: Path, size: int = 0) -> str:
        return download(f"{self._url}/{path}", target, size=size).hashes["sha256"]

    def write(self, path: str, content: bytes) -> NoReturn:  # noqa: ARG002
        self._refuse()

    def put(self, source: Path, path: str) -> NoReturn:  # noqa: ARG002
        self._refuse()

    def scratch(self) -> NoReturn:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UsageError(
            f"{self.shown} is read-only: files cannot be written over HTTP",
            hint="push to the folder that the web server serves: a path, ssh://HOST/PATH, s3://BUCKET/PATH",
        )


class FsspecPlace:
    """A place of fsspec. Credentials come from where its back ends look for them, or from the URL."""

    def __init__(self, url: str, scheme: str) -> None:
        import fsspec

        self.shown = shown(url)
        options: dict[str, Any] = {}
        if scheme in _OBJECT_STORES and "@" in urlsplit(url).netloc:
            raise UsageError(
                f"{self.shown}: the URL has credentials",
                hint="remove them: they come from the environment (AWS_ACCESS_KEY_ID, ...) or a configuration file",
            )
        if scheme in ("ssh", "sftp"):
            # asyncssh's own defaults, ~/.ssh/known_hosts and ~/.ssh/config: sshfs would trust any host key.
            options["known_hosts"] = ()
            if scheme == "sftp":
                url, scheme = f"ssh{url[4:]}", "ssh"
        with explained(self.shown):
            try:
                self._fs, root = fsspec.url_to_fs(url, **options)
            except ImportError:
                extra = _EXTRAS.get(scheme)
                hint = f"pip install 'drydock-env[{extra}]'" if extra else f"install what fsspec needs for {scheme}://"
                raise ToolError(f"{self.shown}: {scheme}:// needs a package that is not installed", hint=hint) from None
            except ValueError:
                raise UsageError(
                    f"{self.shown}: no installed package can read or write {scheme}://",
                    hint="a folder, ssh://HOST/PATH, s3://BUCKET/PATH, or another scheme of fsspec",
                ) from None
        self._root = str(root).rstrip("/")
        self._renames = scheme not in _OBJECT_STORES

    def sizes(self) -> dict[str, int | None]:
        self._fs.invalidate_cache()
        try:
            found = self._fs.find(f"{self._root}/files", detail=True)
        except FileNotFoundError:
            return {}
        return {"/".join(path.split("/")[-4:]): row["size"] for path, row in found.items()}

    def read(self, path: str) -> bytes | None:
        try:
            return bytes(self._fs.cat_file(f"{self._root}/{path}"))
        except FileNotFoundError:
            return None

    def fetch(self, path: str, target: Path, size: int = 0) -> str:  # noqa: ARG002
        self._fs.get_file(f"{self._root}/{path}", str(target))
        return hash_of(target)

    def write(self, path: str, content: bytes) -> None:
        if self._renames:
            self._renamed(path, lambda new: self._fs.pipe_file(new, content))
        else:
            self._fs.pipe_file(f"{self._root}/{path}", content)

    def put(self, source: Path, path: str) -> None:
        if self._renames:
            self._renamed(path, lambda new: self._fs.put_file(str(source), new))
        else:
            self._fs.put_file(str(source), f"{self._root}/{path}")

    def _renamed(self, path: str, make: Any) -> None:
        folder, _, name = f"{self._root}/{path}".rpartition("/")
        self._fs.makedirs(folder, exist_ok=True)
        new = f"{folder}/.{name}.{socket.gethostname()}.{os.getpid()}"
        try:
            make(new)
            self._fs.mv(new, f"{folder}/{name}")
        except BaseException:
            with suppress(Exception):
                self._fs.rm_file(new)
            raise

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="drydock-push-") as folder:
            yield Path(folder)


def copy_hashed(source: Path, target: Path) -> str:
    """Copy a file; returns its sha256."""
    digest = hashlib.sha256()
    with source.open("rb") as one, target.open("wb") as other:
        while block := one.read(_BLOCK):
            digest.update(block)
            other.write(block)
    return digest.hexdigest()


def _lives(number: str) -> bool:
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return int(number) != os.getpid()
