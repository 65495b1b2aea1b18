"""A shell script that starts a trainer: its variables, what it installs, its command. Read, never run.

Of the language only what such scripts have is understood: simple commands, quotes, `$NAME` and `${NAME:-default}`. All
else is named by its line.
"""

from __future__ import annotations

import re

from packaging.utils import canonicalize_name

from builder.author.importing.shell_words import NAME, Word, assignments, commands, lines
from builder.author.importing.variables import holds_secret
from builder.errors import ProfileError, Where
from builder.project.requirements.model import Imported
from builder.project.requirements.pip import Read, read_lines

_PYTHON = re.compile(r"(?:.*/)?python(?:3(?:\.\d+)?)?")
_STARTERS = ("torchrun", "accelerate", "deepspeed")
_MOST_LINES = 20_000
_LONGEST_LINE = 1 << 14  # characters; nobody starts a trainer with more
_SHOWN = 20
_OPENING = ("if", "for", "while", "until", "case", "select", "{")
_CLOSING = ("fi", "done", "esac", "}")
_IGNORED = ("set", "cd", "echo", "printf", "source", ".", "true", ":", "shift", "trap")

_SEEN_BY_ALL = "a secret has no place among arguments, which every user of the machine can see"
_PIP_WITH_VALUE = (
    *("-r", "-c", "-e", "-i", "-f"),
    *("--requirement", "--constraint", "--editable", "--index-url", "--extra-index-url", "--find-links"),
)


def read_script(path: str, text: str, read: Read) -> Imported:
    """Return what a run script sets, installs and starts. Raises ProfileError for an invalid requirement, and for a
    script that is too long.
    """
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
        for number, line in lines(text):
            if number > _MOST_LINES:
                raise ProfileError(f"more than {_MOST_LINES} lines", where=Where(self._path, number))
            if len(line) > _LONGEST_LINE:
                self._other.append(number)
                continue
            for words in commands(line):
                if words and not self._command(words, Where(self._path, number)):
                    self._other.append(number)
        if self._other:
            found = list(dict.fromkeys(self._other))
            numbers = ", ".join(map(str, found[:_SHOWN])) + (
                f" and {len(found) - _SHOWN} more" if found[_SHOWN:] else ""
            )
            why = "only variables, pip install and the trainer's command are carried over"
            self._imported.leave(f"lines {numbers}", why, Where(self._path, self._other[0]))
        self._imported.settle_constraints()
        return self._imported

    def _command(self, words: list[Word], where: Where) -> bool:
        """Read one simple command; returns whether it was understood. A command under a condition is not."""
        first = words[0].start
        self._blocks += (first in _OPENING) - (first in _CLOSING)
        if self._blocks > 0:
            return False
        if first == "unset":
            names = [word.start for word in words[1:] if re.fullmatch(NAME, word.start)]
            self._imported.env |= {name: {"unset": True} for name in names}
            self._imported.env_at |= dict.fromkeys(names, where)
            return True
        if first in ("export", "declare"):
            assigned, rest = assignments([word for word in words[1:] if word.start not in ("-x", "-gx")])
            for name, value in assigned:
                self._assign(name, value, where, exported=True)
            self._export([word.start for word in rest], where)
            return True
        assigned, program = assignments(words)
        for name, value in assigned:
            self._assign(name, value, where, exported=bool(program))
        return not program or self._program(program, where)

    def _export(self, names: list[str], where: Where) -> None:
        """Export a variable that was assigned before."""
        for name in names:
            if name in self._known:
                self._set(name, self._known[name], where)
            elif name in self._defaults:
                self._set(name, {"default": self._defaults[name]}, where)

    def _assign(self, name: str, word: Word, where: Where, *, exported: bool) -> None:
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
            why = 'its value is only known when the script runs; a profile can say { detect = "usable-cores" }'
            self._imported.leave(name, why, where)

    def _set(self, name: str, value: str | dict[str, str], where: Where) -> None:
        self._imported.env[name] = value
        self._imported.env_at[name] = where

    def _program(self, words: list[Word], where: Where) -> bool:
        first = words[0].value(self._known)
        if first is None:  # "$VENV/bin/python"
            last = words[0].pieces[-1] if words[0].pieces and not words[0].opaque else ""
            first = last if isinstance(last, str) else ""
        texts = [word.value(self._known) for word in words[1:]]
        if first == "uv" and len(texts) > 1 and texts[0] in ("run", "pip"):
            script = texts[0] == "run" and (texts[1] or "").endswith(".py")
            skipped = 1 if script or texts[0] == "pip" else 2
            first = "python" if script else texts[skipped - 1] or ""
            words, texts = words[skipped:], texts[skipped:]
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
        found, waiting = [], ""
        for text in texts:
            if text is None:
                self._imported.leave(
                    "an argument of pip install", "its value is only known when the script runs", where
                )
                waiting = ""
            elif waiting:
                found.append(f"{waiting} {text}")
                waiting = ""
            elif text in _PIP_WITH_VALUE:
                waiting = text
            elif text.startswith("-"):
                if "=" in text:
                    found.append(text)
            elif canonicalize_name(text) not in ("pip", "setuptools", "wheel"):
                found.append(text)
        read_lines(((where.line or 0, line) for line in found), self._path, self._read, self._imported)
        return True

    def _trainer(self, program: str, words: list[Word], where: Where) -> bool:
        """Set the command of the trainer. An argument from a variable becomes an option of the profile."""
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
                why = "an argument whose value is only known when the script runs; write it into [trainer]"
                imported.leave("an argument of the trainer", why, where)
        return True
