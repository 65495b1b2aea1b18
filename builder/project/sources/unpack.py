"""Unpack archives that others made. tarfile and zipfile only read: `Tree` writes, and checks every name."""

from __future__ import annotations

import errno
import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

from builder.errors import SourceError
from builder.project.sources.tree import MAX_BYTES, MAX_FILES, Tree

_MEMORY = 2**27  # of an xz decoder; `xz -9` asks for half of it
_HEADERS = MAX_FILES * 2048  # what a tar may have beside the files: padding to blocks, and their headers
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, gzip.BadGzipFile)


def unpack(archive: Path, kind: str, root: Path) -> None:
    """Unpack `archive`, of the kind that the end of the name `kind` says, into the empty folder `root`.

    Raises SourceError for links, devices, names that lead out, and for what is too much; `root` is then half full.
    """
    try:
        if kind.endswith(".zip"):
            _unzip(archive, Tree(root))
            return
        with archive.open("rb") as file:
            opened = _Xz(file) if kind.endswith(".xz") else gzip.GzipFile(fileobj=file)
            untar(cast("BinaryIO", opened), root)
    except _BROKEN as error:
        raise SourceError(f"it is not a whole {kind}: {error}") from None
    except OSError as error:
        if error.errno != errno.EINVAL:  # a zip that says that something is before its beginning
            raise
        raise SourceError(f"it is not a whole {kind}") from None
    except (UnicodeError, NotImplementedError, RuntimeError, ValueError, IndexError, struct.error) as error:
        raise SourceError(f"it cannot be unpacked: {error}") from None


def untar(
    stream: BinaryIO, root: Path, *, leave_out: Callable[[str], None] | None = None, most: int = MAX_BYTES
) -> None:
    """Unpack a tar from a stream; `leave_out` is told the names of links, which are refused where it is None.

    Raises SourceError, and what tarfile does for a stream that is no tar.
    """
    tree = Tree(root, most)
    # A stream is read once, from front to back: what is not wanted of a bomb is counted too.
    with tarfile.open(fileobj=_Counted(stream, most), mode="r|") as tar:
        for number, member in enumerate(tar):
            if number > 2 * MAX_FILES:
                raise SourceError(f"more than {MAX_FILES} files")
            if member.isdir():
                continue
            if (member.issym() or member.islnk()) and leave_out is not None:
                leave_out(member.name)
                continue
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
                raise SourceError(f"{ascii(member.name)[1:-1]} in it is {_what(member)}, not a regular file")
            content = tar.extractfile(member)
            if content is not None:
                tree.add(member.name.removeprefix("./"), cast("BinaryIO", content))


def _what(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return "a link"
    return "a device" if member.isdev() else "something else"


def _unzip(archive: Path, tree: Tree) -> None:
    # zipfile makes an object of every entry before it lets us count them.
    if archive.read_bytes().count(b"PK\x01\x02") > 2 * MAX_FILES:
        raise SourceError(f"more than {MAX_FILES} files")
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            mode = member.external_attr >> 16
            if member.is_dir():
                continue
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                what = "a link" if stat.S_ISLNK(mode) else "a device"
                raise SourceError(f"{ascii(member.filename)[1:-1]} in it is {what}, not a regular file")
            if member.flag_bits & 1:
                raise SourceError(f"{ascii(member.filename)[1:-1]} in it is encrypted")
            if member.orig_filename != member.filename:  # zipfile cuts a name at a NUL
                raise SourceError(f"a file in it is called {member.orig_filename!a}, which is no plain name")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise SourceError("it is compressed in a way that is rare", hint="zip it with deflate")
            with opened.open(member) as content:
                tree.add(member.filename, cast("BinaryIO", content))


class _Counted(io.RawIOBase):
    """A stream that ends with a SourceError where it is too long: a bomb is small only while it is packed."""

    def __init__(self, stream: BinaryIO, most: int) -> None:
        self._stream = stream
        self._most = most
        self._read = 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._read += len(data)
        if self._read > self._most + _HEADERS:
            raise SourceError(f"more than {self._most // 2**20} MB, unpacked")
        return data


class _Xz(io.RawIOBase):
    """Decompresses xz within limits of memory, which lzma.LZMAFile does not have."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)

    def read(self, size: int = -1) -> bytes:
        while not self._decoder.eof:
            packed = self._file.read(2**16) if self._decoder.needs_input else b""
            if not packed and self._decoder.needs_input:
                raise EOFError("it ends too early")
            if data := self._decoder.decompress(packed, size):
                return data
        return b""
