"""The words of a shell script: quotes, `$NAME` and `${NAME:-default}`, and which of it only the shell can know.

Enough of the language (POSIX.1-2024, "Shell Command Language") for scripts that start something.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field

NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_EXPANSION = re.compile(rf"\$(?:({NAME}|[@*])|\{{({NAME}|[@*])(?::?-([^}}]*))?\}})")
_ASSIGNMENT = re.compile(rf"({NAME})=")
# What only starts the program that follows.
_BEFORE = ("exec", "nohup", "time", "command", "env")


@dataclass
class Word:
    """A word of the shell: its pieces, each a text or an expansion (name, default); `opaque` where it is more."""

    pieces: list[str | tuple[str, str | None]] = field(default_factory=list)
    opaque: bool = False

    def add(self, text: str) -> None:
        if self.pieces and isinstance(self.pieces[-1], str):
            self.pieces[-1] += text
        else:
            self.pieces.append(text)

    def value(self, known: dict[str, str]) -> str | None:
        """The text, with what is known of variables; None where it is not known from here."""
        if self.opaque:
            return None
        texts = [piece if isinstance(piece, str) else known.get(piece[0]) for piece in self.pieces]
        return None if None in texts else "".join(text for text in texts if text is not None)

    @property
    def variable(self) -> tuple[str, str | None] | None:
        """The expansion that is all of the word."""
        piece = self.pieces[0] if len(self.pieces) == 1 and not self.opaque else ""
        return piece if isinstance(piece, tuple) else None

    @property
    def start(self) -> str:
        """The text that it begins with."""
        return self.pieces[0] if self.pieces and isinstance(self.pieces[0], str) else ""


def assignments(words: list[Word]) -> tuple[list[tuple[str, Word]], list[Word]]:
    """The assignments at the head of a command, with what only starts the program that follows; and the rest."""
    assigned = []
    for place, word in enumerate(words):
        if found := _ASSIGNMENT.match(word.start):
            rest = [word.start[found.end() :], *word.pieces[1:]]
            assigned.append((found[1], Word([piece for piece in rest if piece != ""], word.opaque)))
        elif word.value({}) not in _BEFORE:
            return assigned, words[place:]
    return assigned, []


def lines(text: str) -> Iterator[tuple[int, str]]:
    """Logical lines with their numbers: joined where one ends with a backslash; without here-documents."""
    start, held, until = 0, "", ""
    for number, line in enumerate(text.split("\n"), 1):
        if until:
            until = "" if line.strip() == until else until
            continue
        start = start or number
        if line.endswith("\\"):
            held += line[:-1] + " "
            continue
        whole = held + line
        if found := re.search(rf"<<-?\s*['\"]?({NAME})", whole):
            until = found[1]
        yield start, whole
        start, held = 0, ""


def commands(line: str) -> Iterator[list[Word]]:
    """The simple commands of a line, each a list of words; one ends where a pipe or a redirection begins."""
    words: list[Word] = []
    word: Word | None = None
    place = 0
    while place < len(line):
        char = line[place]
        if char in " \t\r":
            words, word = [*words, word] if word else words, None
        elif char == "#" and word is None:
            break
        elif char in ";&|<>()":
            if word is not None and not (char in "<>" and (word.value({}) or "").isdigit()):  # that of 2>
                words = [*words, word]
            word = None
            if char in "<>|" or (char == "&" and line[place : place + 2] != "&&"):
                yield words
                return
            yield words
            words = []
            place += line[place : place + 2] in ("&&", "||")
        elif char == "'":
            end = line.find("'", place + 1)
            word = word or Word()
            word.opaque |= end < 0
            word.add(line[place + 1 : end if end >= 0 else len(line)])
            place = end if end >= 0 else len(line)
        elif char == '"':
            word = word or Word()
            place = _double_quoted(line, place + 1, word)
        elif char == "\\" and place + 1 < len(line):
            word = word or Word()
            place += 1
            word.add(line[place])
        else:
            word = word or Word()
            place = _plain(line, place, word)
        place += 1
    yield [*words, word] if word else words


def _double_quoted(line: str, place: int, word: Word) -> int:
    """Add the text up to the closing quote; returns its place."""
    word.add("")
    while place < len(line) and line[place] != '"':
        if line[place] == "\\" and line[place + 1 : place + 2] in ('"', "\\", "$", "`"):
            place += 1
            word.add(line[place])
        else:
            place = _plain(line, place, word)
        place += 1
    word.opaque |= place >= len(line)
    if word.pieces[:1] == [""] and len(word.pieces) > 1:
        word.pieces = word.pieces[1:]
    return place


def _plain(line: str, place: int, word: Word) -> int:
    """Add one character, or the expansion that begins with it; returns the place of its end."""
    if line[place] == "`":
        word.opaque = True
    elif line[place] == "$":
        found = _EXPANSION.match(line, place)
        if found is None or re.search(r"[$`]", found[3] or ""):
            word.opaque = True
            return max(place, _closing(line, place))
        default = found[3]
        try:
            default = "".join(shlex.split(default)) if default and ("'" in default or '"' in default) else default
        except ValueError:
            word.opaque = True
        word.pieces.append((found[1] or found[2], default))
        return found.end() - 1
    else:
        word.add(line[place])
    return place


def _closing(line: str, place: int) -> int:
    """Return the end of `$(...)` or `${...}` at `place`, by counting brackets."""
    depth = 0
    for at in range(place + 1, len(line)):
        depth += (line[at] in "({") - (line[at] in ")}")
        if depth == 0:
            return at if line[place + 1] in "({" else place
    return len(line) - 1
