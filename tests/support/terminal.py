"""A terminal for a program: what it draws there, when, what of it is left, and for how long it is silent."""

from __future__ import annotations

import codecs
import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from tests.support.waiting import LONG


class Seen(NamedTuple):
    """What a program has drawn; `silent` are the seconds of its longest silence since it began to draw, `code` its exit
    status, `pieces` what it wrote at once, so many seconds after it began.
    """

    text: str
    silent: float
    code: int
    pieces: tuple[tuple[float, bytes], ...]

    @property
    def lines(self) -> list[str]:
        """What was drawn, one after the other: a line that is written over counts as often as it is drawn."""
        return [line for line in self.text.replace("\x1b[K", "").replace("\r", "\n").split("\n") if line]


def on_terminal(
    command: Sequence[str], *, env: Mapping[str, str], cwd: Path, columns: int = 80, seconds: float = LONG
) -> Seen:
    """Run a program with its stdout and stderr on a terminal of so many columns, to its end."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    began = last = time.monotonic()
    silent, pieces = 0.0, list[tuple[float, bytes]]()
    with subprocess.Popen(command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        while time.monotonic() - began < seconds:
            if not select.select([ours], [], [], 0.1)[0]:
                continue
            try:
                content = os.read(ours, 1 << 16)
            except OSError:  # EIO: nobody holds it open any more
                break
            silent = max(silent, time.monotonic() - last) if pieces else 0.0
            last = time.monotonic()
            pieces.append((last - began, content))
        else:
            process.kill()
        os.close(ours)
        code = process.wait()
    return Seen(b"".join(content for _, content in pieces).decode(), silent, code, tuple(pieces))


class Line(NamedTuple):
    """A line as a terminal shows it in the end, with SGR sequences, and when it was written last."""

    seconds: float
    text: str


class Screen:
    """A terminal that never scrolls: what is left of what programs write over. It knows the sequences that Drydock and
    rich send, and raises ValueError for every other one, so that nothing is shown that no terminal shows.
    """

    _TOKEN = re.compile(r"\x1b\[([\d;?]*)([A-Za-z])|([\x00-\x1f\x7f-\x9f])|(.)", re.DOTALL)
    _CUT = re.compile(r"\x1b(?:\[[\d;?]*)?\Z")

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self._rows: list[dict[int, tuple[str, str]]] = [{}]  # for each column a character and its SGR sequences
        self._times = [0.0]
        self._row = self._column = 0
        self._style = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._rest = ""

    def write(self, content: bytes, seconds: float) -> None:
        """Take in what was written at this time; what is cut off in a character or a sequence waits for the rest."""
        text = self._rest + self._decoder.decode(content)
        cut = self._CUT.search(text)
        text, self._rest = (text[: cut.start()], cut[0]) if cut else (text, "")
        for parameters, command, control, character in self._TOKEN.findall(text):
            if character:
                self._put(character, seconds)
            elif control:
                self._control(control)
            else:
                self._sequence(parameters, command)

    def _put(self, character: str, seconds: float) -> None:
        if self._column == self._columns:
            self._column = 0
            self._down()
        self._rows[self._row][self._column] = (character, self._style)
        self._times[self._row] = seconds
        self._column += 1

    def _control(self, control: str) -> None:
        if control == "\r":
            self._column = 0
        elif control == "\n":
            self._down()
        else:
            raise ValueError(f"unknown control character: {control!r}")

    def _down(self) -> None:
        self._row += 1
        if self._row == len(self._rows):
            self._rows.append({})
            self._times.append(0.0)

    def _sequence(self, parameters: str, command: str) -> None:
        """ECMA-48's SGR, EL, CUU and CUD; and mode 25 of DEC, the cursor, which is not drawn."""
        if command == "m":
            self._style = "" if parameters in ("", "0") else f"{self._style}\x1b[{parameters}m"
        elif command == "K" and parameters in ("", "0", "2"):
            kept = 0 if parameters == "2" else self._column
            self._rows[self._row] = {at: cell for at, cell in self._rows[self._row].items() if at < kept}
        elif command == "A":
            self._row = max(0, self._row - int(parameters or 1))
        elif command == "B":
            for _ in range(int(parameters or 1)):
                self._down()
        elif (parameters, command) not in (("?25", "l"), ("?25", "h")):
            raise ValueError(f"unknown sequence: ESC [ {parameters} {command}")

    def lines(self) -> list[Line]:
        """The lines that are left, without empty ones at the end."""
        lines = [Line(seconds, _painted(row)) for seconds, row in zip(self._times, self._rows, strict=True)]
        while lines and not lines[-1].text:
            lines.pop()
        return lines


def _painted(row: Mapping[int, tuple[str, str]]) -> str:
    """The cells of a row as text, with SGR sequences around each run of one style."""
    cells = [row.get(column, (" ", "")) for column in range(max(row, default=-1) + 1)]
    runs = [(style, "".join(character for character, _ in run)) for style, run in groupby(cells, lambda cell: cell[1])]
    return "".join(f"{style}{text}\x1b[0m" if style else text for style, text in runs).rstrip()
