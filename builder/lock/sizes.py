"""Bytes of what is locked: in words, and what comes of them on a disk. Pure."""

from __future__ import annotations

# Unpacked, and compiled, bytes for each to download: 921 and 215 MB from 240, as measured for the profile `cpu`
# (`drydock store du`); m4's 970 from 266 unpacked are as many. How much CUDA's libraries shrink differs.
UNPACKED, BYTECODE = 3.84, 0.9


def size(count: int | None) -> str:
    """Bytes for people; nothing where they are not known.

    >>> [size(count) for count in (None, 999, 17_606_939, 2_500_000_000)]
    ['', '999 B', '17.6 MB', '2.5 GB']
    """
    if count is None:
        return ""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"
