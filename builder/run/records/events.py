"""Losses that a trainer has written for TensorBoard and nobody printed: scalars of its event files, read as data.

A file is a row of records: length (8 bytes), a checksum of it (4), the bytes, a checksum of these (4). Each is a
message of Protocol Buffers, `Event`, whose field 5 is a summary; in that, each value is field 1, with tag (1),
simple_value (2) or a tensor (8), whose numbers are tensor_content (4), float_val (5) or double_val (6). What was cut
off by a kill is left out. The checksums are of a kind that Python does not have, and are not compared: a length that
cannot be ends the file.

https://www.tensorflow.org/tutorials/load_data/tfrecord, https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

from builder.run.records.history import Logged

_NAME = re.compile(r"events\.out\.tfevents\.[0-9]+\..+")
_TAG = re.compile(r"[A-Za-z0-9_./ -]{0,60}loss[A-Za-z0-9_./ -]{0,60}", re.IGNORECASE)
_DEPTH = 6  # folders below the working directory
_ENTRIES = 20_000
_FILES = 200
_RECORD = 1 << 16  # bytes: one with a picture or a graph is passed over
_READ = 64 << 20  # bytes of all files
_FLOATS = {1: "<f", 2: "<d"}  # DataType of a tensor: DT_FLOAT, DT_DOUBLE


def logged(folder: Path, since: float) -> list[Logged]:
    """The losses in the event files below `folder` that were written to since then, in seconds since 1970.

    They are those whose tag has "loss" in it, file by file in the order in which these were begun. Raises nothing.
    """
    found: list[Logged] = []
    left = _READ
    for path in sorted(_files(folder, since), key=lambda path: (path.name, path))[:_FILES]:
        for record in _records(path, left):
            left -= len(record)
            try:
                found += _scalars(record)
            except (ValueError, IndexError, struct.error):
                break
    return found


def _files(folder: Path, since: float) -> Iterator[Path]:
    entries = 0
    for top, folders, names in os.walk(folder):
        entries += len(folders) + len(names)
        depth = len(Path(top).relative_to(folder).parts)
        folders[:] = sorted(name for name in folders if depth < _DEPTH and not name.startswith("."))
        for name in names:
            path = Path(top, name)
            if _NAME.fullmatch(name) and not path.is_symlink() and path.is_file() and path.stat().st_mtime >= since:
                yield path
        if entries > _ENTRIES:
            return


def _records(path: Path, most: int) -> Iterator[bytes]:
    """The records of a file that are small, as long as these are together no more than `most` bytes."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            while len(head := file.read(12)) == 12 and most > 0:
                length = int.from_bytes(head[:8], "little")
                if length > size:
                    return
                if length > _RECORD:
                    file.seek(length + 4, os.SEEK_CUR)
                    continue
                record = file.read(length)
                if len(record) < length or len(file.read(4)) < 4:
                    return
                most -= length
                yield record
    except OSError:
        return


def _scalars(record: bytes) -> Iterator[Logged]:
    for number, summary in _fields(record):
        if number == 5 and isinstance(summary, bytes):
            for inner, value in _fields(summary):
                if inner == 1 and isinstance(value, bytes):
                    yield from _scalar(dict(_fields(value)))


def _scalar(value: dict[int, int | bytes]) -> Iterator[Logged]:
    tag, simple, tensor = value.get(1), value.get(2), value.get(8)
    name = tag.decode("utf-8", "replace") if isinstance(tag, bytes) else ""
    if not _TAG.fullmatch(name):
        return
    if isinstance(simple, bytes) and len(simple) == 4:
        yield Logged(name, struct.unpack("<f", simple)[0])
    elif isinstance(tensor, bytes):
        parts = dict(_fields(tensor))
        form = _FLOATS.get(kind) if isinstance(kind := parts.get(1), int) else None
        content = parts.get(4) or parts.get(5 if form == "<f" else 6)
        if form is not None and isinstance(content, bytes) and len(content) == struct.calcsize(form):
            yield Logged(name, struct.unpack(form, content)[0])


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: a number, or bytes.

    >>> list(_fields(bytes.fromhex("10ac02 0a0161 150000803f")))
    [(2, 300), (1, b'a'), (2, b'\\x00\\x00\\x80?')]
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == 2:
            size, at = _varint(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(kind)
        if at + size > len(message):
            raise ValueError(size)
        yield number, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(at)
