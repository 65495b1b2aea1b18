"""What goes on while something takes long: a line that is written over on a terminal, now and then one in a log.

Drydock, which sets DRYDOCK_PROGRESS, gets the numbers and draws them itself: `drydock: ~DONE OF SIZE WHAT`.
"""

from __future__ import annotations

import os
import re
import sys
import time

_raw = os.environ.get("DRYDOCK_PROGRESS")
_line = not _raw and os.environ.get("TERM") != "dumb" and not os.environ.get("CI") and sys.stderr.isatty()
_what = ""
_began = _spoken = 0.0


def show(what: str, done: int = 0, of: int = 0, size: int = 0) -> None:
    """Show that `what` is under way, and how much of it is `done`; `size` is 1 where these are bytes.

    To be called often, from half a second on: it is said when it is time to.
    """
    global _what, _began, _spoken
    now = time.monotonic()
    if what != _what:
        _what, _began, _spoken = what, now, now
    elif now - _spoken > (0.2 if _raw or _line else 10):
        _spoken = now
        said = f"~{done} {of} {size} {what}" if _raw else "      " + words(what, done, of, size, now - _began)
        width = os.get_terminal_size(2).columns - 1 if _line else 999
        sys.stderr.write(f"\r\x1b[K{said.strip()[:width]}" if _line else f"drydock: {said}\n")
        sys.stderr.flush()


def end() -> None:
    """Remove the line from a terminal: something else is said now."""
    global _what
    if _line and _what:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
    _what = ""


def words(what: str, done: int, of: int, size: int, seconds: float) -> str:
    """The progress of something after some seconds: with what remains, and for bytes with their rate.

    >>> words("packages", 0, 0, 0, 3), words("bytecode", 200, 800, 0, 2), words("bytecode", 2, 800, 0, 0.2)
    ('packages: 3 s', 'bytecode: 200 of 800, 6 s left', 'bytecode: 2 of 800')
    >>> words("packages", 40_000_000, 100_000_000, 1, 2)
    'packages: 40 of 100 MB, 20.0 MB/s, 3 s left'
    """
    if not done or not of:
        return f"{what}: {seconds:.0f} s"
    left = f", {seconds * (of - done) / done:.0f} s left" if seconds >= 2 else ""
    if size:
        return f"{what}: {done / 1e6:.0f} of {of / 1e6:.0f} MB, {done / 1e6 / seconds:.1f} MB/s{left}"
    return f"{what}: {done} of {of}{left}"


class Listener:
    """Hears what uv, or pip, draws on a terminal while it does `what`: it becomes our progress, and the rest of it,
    which is warnings and errors, lines of ours.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._rest = b""
        self._bytes: dict[str, tuple[int, int]] = {}
        self._loads = False
        self.is_full = False
        """Whether it said that a disk is full."""

    def __call__(self, content: bytes) -> None:
        """Take in what came, which may be nothing, every half a second at least."""
        *lines, self._rest = (self._rest + content).replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            text = re.sub(_STEERING, "", line.decode(errors="replace")).rstrip()
            bars = re.findall(_BAR, text)
            self._loads = bool(bars) or (self._loads and not text)
            for name, done, unit, of, units in bars:
                self._bytes[name] = (_bytes(done, unit), _bytes(of, units))
            if text and not bars and not re.match(_UNSAID, text):
                end()
                print(text, file=sys.stderr, flush=True)
                self.is_full |= "No space left on device" in text or "(os error 28)" in text
        numbers = [*map(sum, zip(*self._bytes.values())), 1] if self._loads else []
        show(self._what, *numbers)


# Compiled where they are used: most commands hear nothing.
_STEERING = r"\x1b\[[\d;?]*[A-Za-z]"
_BAR = r"(\S+) +-+ +([\d.]+) ([KMG]?)i?B/([\d.]+) ([KMG]?)i?B"
_UNSAID = "[\u2800-\u28ff\u2588\u2591]| [+~-] |(Using CPython|Resolved|Prepared|Installed|Downloading| Downloaded) "


def _bytes(number: str, unit: str) -> int:
    return int(float(number) * 1024 ** " KMG".index(unit or " "))
