"""Redacts secrets in the output of a trainer, however it is cut into pieces."""

from __future__ import annotations

import re
from collections.abc import Mapping

from builder.secrets import SHORTEST, forms


class Redactor:
    """A stream in, the same stream out, with each value of `secrets` (name to value) replaced by its name,
    in each of the forms that programs write it in.

    A possible beginning of a secret is held back until the next piece decides.
    """

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._names = {
            form.encode(errors="surrogateescape"): f"[{name}]".encode()
            for name, value in secrets.items()
            if len(value) >= SHORTEST
            for form in forms(value)
        }
        values = sorted(self._names, key=len, reverse=True)
        self._any = re.compile(b"|".join(map(re.escape, values))) if values else None
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """The next piece, as far as it is safe."""
        if self._any is None:
            return piece
        data = self._held + piece
        cut = len(data) - max(_overlap(data, value) for value in self._names)
        for found in self._any.finditer(data):
            if found.start() < cut < found.end():
                cut = found.start()
        self._held = data[cut:]
        return self._replaced(data[:cut])

    def rest(self) -> bytes:
        """Return the bytes that were held back; to be called at the end."""
        rest, self._held = self._replaced(self._held), b""
        return rest

    def _replaced(self, data: bytes) -> bytes:
        return self._any.sub(lambda found: self._names[found[0]], data) if self._any else data


def _overlap(data: bytes, value: bytes) -> int:
    """How many bytes at the end of `data` are the beginning of `value`, and not the whole of it.

    >>> _overlap(b"token=hf_", b"hf_secret")
    3
    """
    return next((n for n in range(min(len(value) - 1, len(data)), 0, -1) if data.endswith(value[:n])), 0)
