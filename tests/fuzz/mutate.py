"""Damage: what disks, editors, merges and people who mean harm make of a file."""

from __future__ import annotations

import random
from collections.abc import Sequence

_PIECES = (
    *(
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\r\n",
        b"\n",
        b" ",
        b"\t",
        b'"',
        b"'",
        b"[",
        b"]",
        b"{",
        b"}",
        b"=",
        b":",
        b"#",
    ),
    *(b"[" * 3000, b"{" * 3000, b'{"a":' * 3000, b"9" * 5000, b"1e999", b"-1", b"0", b"null", b"true", b"NaN"),
    *(
        b"../",
        b"/",
        b"~",
        b"$(x)",
        b"\\",
        b"\x1b[2J",
        b"\xe2\x80\xae",
        b"\xed\xa0\x80",
        b"\\ud800",
        b"99999999999999999999",
    ),
    *(
        b"1979-05-27",
        b"inf",
        b"@",
        b"--- a/",
        b"@@ -1 +1 @@",
        b"&a",
        b"*a",
        b"!!python/object:x",
        b"<<: *a",
        b"x" * 300,
    ),
)


def mutated(seeds: Sequence[bytes], chance: random.Random) -> bytes:
    """One of `seeds`, damaged in one to six ways."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.randint(1, 6)):
        at, end = sorted(chance.randint(0, len(data)) for _ in range(2))
        match chance.randint(0, 8):
            case 0:
                data[at:at] = chance.choice(_PIECES)
            case 1:
                data[at : at + chance.randint(0, 8)] = chance.choice(_PIECES)
            case 2:
                del data[at:end]
            case 3:
                data[at:at] = data[at:end][:4000]
            case 4:
                del data[at:]
            case 5 if data:
                data[min(at, len(data) - 1)] = chance.randrange(256)
            case 6:
                lines = bytes(data).split(b"\n")
                chance.shuffle(lines)
                data = bytearray(b"\n".join(lines))
            case 7:
                data[at:at] = chance.randbytes(chance.randint(1, 20))
            case _:
                word = chance.choice(bytes(data).split() or [b"x"])
                data = bytearray(bytes(data).replace(word, chance.choice(_PIECES), 1))
    return bytes(data[: 1 << 20])
