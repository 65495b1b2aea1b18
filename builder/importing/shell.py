"""A shell script that starts a trainer: its variables, what it installs, its command. Read, never run.

Of the language only what such scripts have is understood: simple commands, quotes, `$NAME` and `${NAME:-default}`. All
else is named by its line.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field

from packaging.utils import canonicalize_name

from builder.errors import Where
from builder.importing.imported import Imported
from builder.importing.requirements import Read, read_lines
from builder.importing.variables import holds_secret

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_EXPANSION = re.compile(rf"\$(?:({_NAME}|[@*])|\{{({_NAME}|[@*])(?::?-([^}}]*))?\}})")
_ASSIGNMENT = re.compile(rf"({_NAME})=")
_PYTHON = re.compile(r"(?:.*/)?python(?:3(?:\.\d+)?)?")
_STARTERS = ("torchrun", "accelerate", "deepspeed")
_BEFORE = ("exec", "nohup", "time", "command", "env")
_OPENING = ("if", "for", "while", "until", "case", "select", "{")
_CLOSING = ("fi", "done", "esac", "}")
_IGNORED = ("set", "cd", "echo", "printf", "source", ".", "true", ":", "shift", "trap")

_SEEN_BY_ALL = "a secret has no place among arguments, which every user of the machine can see"


@dataclass
class _Word:
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


def read_script(path: str, text: str, read: Read) -> Imported:
    """What a run script sets, installs and starts. Raises ProfileError for a requirement that is none."""
    return _Reader(path, read).read(text)


class _Reader:
    def __init__(self, path: str, read: Read) -> None:
        self._path, self._read = path, read
        self._imported = Imported()
        self._known: dict[str, str] = {}
        self._defaults: dict[str, str] = {}
        self._other: list[int] = []
        self._blocks = 0
        self._started: Where | None = None

    def read(self, text: str) -> Imported:
        for number, line in _lines(text):
            for words in _commands(line):
                if words and not self._command(words, Where(self._path, number)):
                    self._other.append(number)
        if self._other:
            numbers = ", ".join(map(str, dict.fromkeys(self._other)))
            why = "only variables, pip install and the trainer's command are carried over"
            self._imported.leave(f"lines {numbers}", why, Where(self._path, self._other[0]))
        self._imported.settle_constraints()
        return self._imported

    def _command(self, words: list[_Word], where: Where) -> bool:
        """Take one simple command; whether it was understood. What is done under a condition only, is not."""
        first = words[0].start
        self._blocks += (first in _OPENING) - (first in _CLOSING)
        if self._blocks > 0:
            return False
        if first == "unset":
            names = [word.start for word in words[1:] if re.fullmatch(_NAME, word.start)]
            self._imported.env |= {name: {"unset": True} for name in names}
            self._imported.env_at |= dict.fromkeys(names, where)
            return True
        if first in ("export", "declare"):
            assigned, rest = _assignments([word for word in words[1:] if word.start not in ("-x", "-gx")])
            for name, value in assigned:
                self._assign(name, value, where, exported=True)
            self._export([word.start for word in rest], where)
            return True
        assigned, program = _assignments(words)
        for name, value in assigned:
            self._assign(name, value, where, exported=bool(program))
        return not program or self._program(program, where)

    def _export(self, names: list[str], where: Where) -> None:
        """Export what was assigned before."""
        for name in names:
            if name in self._known:
                self._set(name, self._known[name], where)
            elif name in self._defaults:
                self._set(name, {"default": self._defaults[name]}, where)

    def _assign(self, name: str, word: _Word, where: Where, *, exported: bool) -> None:
        expansion = word.variable
        value = word.value(self._known)
        if expansion is not None and expansion[0] == name and expansion[1] is not None:
            self._defaults[name] = expansion[1]
            if exported:
                self._set(name, {"default": expansion[1]}, where)
        elif value is not None:
            if not holds_secret(name, value):  # what is known may become an argument
                self._known[name] = value
            if exported:
                self._set(name, value, where)
        elif exported:
            why = 'its value is found out when the script runs; a profile can say { detect = "usable-cores" }'
            self._imported.leave(name, why, where)

    def _set(self, name: str, value: str | dict[str, str], where: Where) -> None:
        self._imported.env[name] = value
        self._imported.env_at[name] = where

    def _program(self, words: list[_Word], where: Where) -> bool:
        first = words[0].value(self._known)
        if first is None:  # "$VENV/bin/python"
            last = words[0].pieces[-1] if words[0].pieces and not words[0].opaque else ""
            first = last if isinstance(last, str) else ""
        texts = [word.value(self._known) for word in words[1:]]
        if first == "uv" and texts[:1] in (["run"], ["pip"]):
            first, words, texts = ("python" if texts[0] == "run" else "pip"), words[1:], texts[1:]
            if first == "python" and texts and texts[0] is not None and _PYTHON.fullmatch(texts[0]):
                words, texts = words[1:], texts[1:]
        if _PYTHON.fullmatch(first) and texts[:2] == ["-m", "pip"]:
            first, words, texts = "pip", words[2:], texts[2:]
        if first.rpartition("/")[2] in ("pip", "pip3"):
            return texts[:1] == ["install"] and self._install(texts[1:], where)
        if _PYTHON.fullmatch(first):
            if texts[:2] in (["-m", "venv"], ["-m", "virtualenv"]) or texts[:1] == ["-c"]:
                return texts[:1] != ["-c"]
            return self._trainer("python", words[1:], where)
        if first in _STARTERS:
            return self._trainer(first, words[1:], where)
        return first in _IGNORED

    def _install(self, texts: list[str | None], where: Where) -> bool:
        lines, waiting = [], ""
        for text in texts:
            if text is None:
                self._imported.leave("an argument of pip install", "its value is found out when the script runs", where)
                waiting = ""
            elif waiting:
                lines.append(f"{waiting} {text}")
                waiting = ""
            elif text in (
                "-r",
                "-c",
                "-e",
                "-i",
                "-f",
                "--requirement",
                "--constraint",
                "--editable",
                "--index-url",
                "--extra-index-url",
                "--find-links",
            ):
                waiting = text
            elif text.startswith("-"):
                if "=" in text:
                    lines.append(text)
            elif canonicalize_name(text) not in ("pip", "setuptools", "wheel"):
                lines.append(text)
        read_lines(((where.line or 0, line) for line in lines), self._path, self._read, self._imported)
        return True

    def _trainer(self, program: str, words: list[_Word], where: Where) -> bool:
        """The command of the trainer. What it has from a variable becomes an option of the profile."""
        imported = self._imported
        if self._started is not None:
            imported.leave("a second command", f"a profile has one trainer: that of line {self._started.line}", where)
            return True
        if not words:
            return False
        self._started = where
        imported.command = [program]
        for word in words:
            value, expansion = word.value(self._known), word.variable
            flag = imported.command[-1]
            option, _, inline = (value or "").partition("=")
            if value is not None and flag.startswith("-") and holds_secret(flag, value):
                imported.leave(f"{flag} with its value", _SEEN_BY_ALL, where)
                imported.command.pop()
            elif holds_secret(option, inline) or holds_secret("", value or ""):
                imported.leave(option if inline else "an argument", _SEEN_BY_ALL, where)
            elif value is not None:
                imported.command.append(value)
            elif expansion is not None and expansion[0] in ("@", "*"):
                continue  # what the caller adds comes at the end anyway
            elif expansion is not None and flag.startswith("-") and len(imported.command) > 1:
                imported.command.pop()
                default = expansion[1] if expansion[1] is not None else self._defaults.get(expansion[0], "")
                imported.options.append({"flag": flag, "from": expansion[0], "default": default})
            else:
                why = "an argument whose value is found out when the script runs; write it into [trainer]"
                imported.leave("an argument of the trainer", why, where)
        return True


def _assignments(words: list[_Word]) -> tuple[list[tuple[str, _Word]], list[_Word]]:
    """The assignments at the head of a command, with what only starts the program that follows; and the rest."""
    assigned = []
    for place, word in enumerate(words):
        if found := _ASSIGNMENT.match(word.start):
            rest = [word.start[found.end() :], *word.pieces[1:]]
            assigned.append((found[1], _Word([piece for piece in rest if piece != ""], word.opaque)))
        elif word.value({}) not in _BEFORE:
            return assigned, words[place:]
    return assigned, []


def _lines(text: str) -> Iterator[tuple[int, str]]:
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
        if found := re.search(rf"<<-?\s*['\"]?({_NAME})", whole):
            until = found[1]
        yield start, whole
        start, held = 0, ""


def _commands(line: str) -> Iterator[list[_Word]]:
    """The simple commands of a line, each a list of words; one ends where a pipe or a redirection begins."""
    words: list[_Word] = []
    word: _Word | None = None
    place = 0
    while place < len(line):
        char = line[place]
        if char in " \t\r":
            words, word = [*words, word] if word else words, None
        elif char == "#" and word is None:
            break
        elif char in ";&|<>()":
            words, word = [*words, word] if word else words, None
            if char in "<>|" or (char == "&" and line[place : place + 2] != "&&"):
                yield words
                return
            yield words
            words = []
            place += line[place : place + 2] in ("&&", "||")
        elif char == "'":
            end = line.find("'", place + 1)
            word = word or _Word()
            word.opaque |= end < 0
            word.add(line[place + 1 : end if end >= 0 else len(line)])
            place = end if end >= 0 else len(line)
        elif char == '"':
            word = word or _Word()
            place = _double_quoted(line, place + 1, word)
        elif char == "\\" and place + 1 < len(line):
            word = word or _Word()
            place += 1
            word.add(line[place])
        else:
            word = word or _Word()
            place = _plain(line, place, word)
        place += 1
    yield [*words, word] if word else words


def _double_quoted(line: str, place: int, word: _Word) -> int:
    """Adds what is up to the closing quote; gives its place."""
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


def _plain(line: str, place: int, word: _Word) -> int:
    """Adds one character, or the expansion that begins with it; gives the place of its end."""
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
    """The end of `$(...)` or `${...}` at `place`, as far as brackets tell."""
    depth = 0
    for at in range(place + 1, len(line)):
        depth += (line[at] in "({") - (line[at] in ")}")
        if depth == 0:
            return at if line[place + 1] in "({" else place
    return len(line) - 1
