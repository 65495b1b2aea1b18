"""The members of archives that others made, read within limits: of files, of bytes, of headers, of memory."""

from __future__ import annotations

import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from builder.errors import DrydockError

_MEMORY = 2**27  # of an xz decoder; `xz -9` asks for half of it
_HEADERS = 2**16  # bytes that say what one member of a tar is; its name is the longest of them
_GLOBAL = 100  # records that a tar says of all members after them
_PIECE = 2**16
_AT_ONCE = 2**26  # bytes of a zip that zipfile may ask for in one read: all its names
_PARTS = 10_000  # gzip files one after the other
_BROKEN = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, IndexError),
    *(struct.error, NotImplementedError, RuntimeError, OverflowError, MemoryError),
)


class ArchiveError(DrydockError):
    """An archive is broken, or too much."""


@dataclass(frozen=True)
class Limits:
    """The most that an archive may have: `members`, folders among them, and `unpacked` bytes."""

    members: int
    unpacked: int


@dataclass(frozen=True)
class Member:
    """A member of an archive: `kind` is "file", "folder", "link", "device" or "something else".

    `content` is read before the next member is asked for; None where it is no file.
    """

    name: str
    kind: str
    size: int = 0
    content: BinaryIO | None = None


def members(path: Path, kind: str, limits: Limits) -> Iterator[Member]:
    """The members of an archive of the kind that the end of the name `kind` says: .zip, .xz, else .gz.

    Raises ArchiveError, and OSError where `path` cannot be read.
    """
    with path.open("rb") as file, _in_words(kind):
        if kind.endswith(".zip"):
            yield from _of_zip(file, limits)
        else:
            yield from _of_tar(_Xz(file) if kind.endswith(".xz") else _Gzip(file), limits)


def tar_members(stream: BinaryIO, limits: Limits) -> Iterator[Member]:
    """The members of a tar. Raises ArchiveError."""
    with _in_words("tar"):
        yield from _of_tar(stream, limits)


@contextmanager
def _in_words(kind: str) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        raise ArchiveError(f"it is not a whole {kind}: {error}") from None


def _of_tar(stream: Any, limits: Limits) -> Iterator[Member]:
    # A stream is read once, from front to back: what is not wanted of a bomb is counted too.
    counted = _Counted(stream, limits)
    counted.header = _HEADERS
    with tarfile.open(fileobj=cast("BinaryIO", counted), mode="r|") as tar:
        number = 0
        while (found := tar.next()) is not None:
            number += 1
            if number > limits.members:
                raise ArchiveError(f"more than {limits.members} members")
            if len(tar.pax_headers) > _GLOBAL:
                raise ArchiveError("its headers are too long")
            if found.size < 0:
                raise ArchiveError(f"{ascii(found.name[:100])[1:-1]} in it has a negative size")
            cast("Any", tar).members.clear()  # tarfile keeps them all, with their headers
            content = _content(tar, found)
            counted.header = None
            yield Member(found.name, _kind(found), found.size, _in_words_too(content, "tar"))
            while content is not None and content.read(_PIECE):
                pass
            counted.header = _HEADERS


def _in_words_too(content: Any, kind: str) -> BinaryIO | None:
    return None if content is None else cast("BinaryIO", _Content(content, kind))


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> BinaryIO | None:
    return cast("BinaryIO", tar.extractfile(member)) if _kind(member) == "file" else None


def _kind(member: tarfile.TarInfo) -> str:
    if member.isdir():
        return "folder"
    if member.issym() or member.islnk():
        return "link"
    if member.isdev():
        return "device"
    return "file" if member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse() else "something else"


def _of_zip(file: BinaryIO, limits: Limits) -> Iterator[Member]:
    # zipfile makes an object of every entry before it lets us count them.
    if _count(file, b"PK\x01\x02") > limits.members:
        raise ArchiveError(f"more than {limits.members} members")
    count = 0
    with zipfile.ZipFile(cast("BinaryIO", _Seekable(file))) as opened:
        for entry in opened.infolist():
            if entry.orig_filename != entry.filename:  # zipfile cuts a name at a NUL
                raise ArchiveError(f"a file in it is called {entry.orig_filename[:100]!a}, which is not a plain name")
            kind = _zip_kind(entry)
            if kind != "file":
                yield Member(entry.filename, kind)
                continue
            if entry.flag_bits & 1:
                raise ArchiveError(f"{ascii(entry.filename[:100])[1:-1]} in it is encrypted")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ArchiveError("it is compressed in a way that is rare", hint="zip it with deflate")
            with opened.open(entry) as content:
                counted = _Counted(content, Limits(0, limits.unpacked), count)
                yield Member(entry.filename, kind, entry.file_size, _in_words_too(counted, "zip"))
                count = counted.count


def _zip_kind(entry: zipfile.ZipInfo) -> str:
    mode = entry.external_attr >> 16
    if entry.is_dir():
        return "folder"
    if stat.S_IFMT(mode) in (0, stat.S_IFREG):
        return "file"
    return "link" if stat.S_ISLNK(mode) else "device"


def _count(file: BinaryIO, mark: bytes) -> int:
    number, kept = 0, b""
    while piece := file.read(2**20):
        number += (kept + piece).count(mark)
        kept = (kept + piece)[1 - len(mark) :]
    return number


class _Content(io.RawIOBase):
    """The content of a member: what is broken in it is an ArchiveError."""

    def __init__(self, content: Any, kind: str) -> None:
        self._content = content
        self._kind = kind

    def read(self, size: int = -1) -> bytes:
        with _in_words(self._kind):
            data: bytes = self._content.read(size)
            return data


class _Counted(io.RawIOBase):
    """A stream that ends with an ArchiveError where it is too long: a bomb is small only while it is packed.

    `header` is how much of it may still say what the next member is; None within a member.
    """

    def __init__(self, stream: Any, limits: Limits, count: int = 0) -> None:
        self._stream = stream
        self._limits = limits
        self.count = count
        self.header: int | None = None

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._stream.read(size)
        self.count += len(data)
        # A tar has headers and padding beside the files.
        if self.count > self._limits.unpacked + self._limits.members * 1024:
            raise ArchiveError(f"more than {self._limits.unpacked // 2**20} MB, unpacked")
        if self.header is not None:
            self.header -= len(data)
            if self.header < -_PIECE:  # tarfile reads ahead
                raise ArchiveError("its headers are too long")
        return data


class _Seekable(io.RawIOBase):
    """A file of which no single read may be large."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == 0 and offset < 0:
            raise zipfile.BadZipFile("it says that something is before its beginning")
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        if size > _AT_ONCE:
            raise ArchiveError("its headers are too long")
        return self._file.read(_AT_ONCE if size < 0 else size)


class _Xz(io.RawIOBase):
    """Decompresses xz within limits of memory, which lzma.LZMAFile does not have."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)

    def read(self, size: int = -1) -> bytes:
        while not self._decoder.eof:
            packed = self._file.read(_PIECE) if self._decoder.needs_input else b""
            if not packed and self._decoder.needs_input:
                raise EOFError("it ends too early")
            if data := self._decoder.decompress(packed, size):
                return data
        return b""


class _Gzip(io.RawIOBase):
    """Decompresses gzip; gzip.GzipFile reads the name in a header byte by byte, and empty parts without end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = zlib.decompressobj(31)  # with the header and the checksum of gzip
        self._packed = b""
        self._parts = 1

    def read(self, size: int = -1) -> bytes:
        while True:
            if self._decoder.eof:
                self._packed = (self._decoder.unused_data or self._file.read(_PIECE)).lstrip(b"\0")
                if not self._packed:
                    return b""
                self._parts += 1
                if self._parts > _PARTS:
                    raise ArchiveError("it has too many parts")
                self._decoder = zlib.decompressobj(31)
            packed = self._packed or self._file.read(_PIECE)
            data = self._decoder.decompress(packed, max(size, 0))
            self._packed = self._decoder.unconsumed_tail
            if data:
                return data
            if not packed and not self._decoder.eof:
                raise EOFError("it ends too early")
