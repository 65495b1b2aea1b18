"""A file on a server, read piece by piece: the METADATA of a wheel is a few KiB of what may be gigabytes."""

from __future__ import annotations

import io

from builder.embedded.web import Answer, open_url

_SECONDS = 120.0
_PIECE = 1 << 26  # bytes; zipfile asks for far less


def get(url: str, limit: int) -> bytes:
    """The first `limit` bytes at `url`. Raises OSError where it does not exist, or is not a URL of the web."""
    with _opened(url, {}, limit) as answer:
        return answer.read(limit)


class Remote(io.RawIOBase):
    """The file at `url`, of `size` bytes, to be read and sought in. Raises OSError where the server refuses."""

    def __init__(self, url: str, size: int) -> None:
        super().__init__()
        self._url, self._size, self._at = url, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if self._at < 0:
            raise OSError("before the start of the file")
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        wanted = min(len(buffer), self._size - self._at, _PIECE)
        if wanted <= 0:
            return 0
        with _opened(self._url, {"Range": f"bytes={self._at}-{self._at + wanted - 1}"}, wanted) as answer:
            if answer.status != 206:  # the whole file would come
                raise OSError("the server does not support ranges")
            piece = answer.read(wanted)
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


def _opened(url: str, headers: dict[str, str], limit: int) -> Answer:
    return open_url(url, limit=limit, seconds=_SECONDS, headers=headers)
