"""Pages of documentation as scripts: their files and commands in order, and what the commands are said to print."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^(?P<indent> *)```(?P<kind>\w*)(?P<rest>[^\n]*)\n(?P<body>.*?)^(?P=indent)```$", re.M | re.S)
_TITLE = re.compile(r'title="([^"]+)"')
# Before a block that cannot be run here: <!-- not run: it needs a Mac -->
_NOT_RUN = re.compile(r"<!-- not run: (?P<why>[^\n]+) -->\s*\Z")
COMMANDS = ("console", "sh", "bash", "shell")


@dataclass(frozen=True)
class File:
    """A file that a reader writes."""

    line: int
    name: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command that a reader types, and what they are told to see; `...` stands for anything."""

    line: int
    text: str
    expected: str

    def matches(self, seen: str) -> bool:
        """Whether `seen` is what was told."""
        return not self.expected or bool(re.fullmatch(_pattern(self.expected), _plain(seen), re.S))


@dataclass(frozen=True)
class Skipped:
    """A block of commands that is not run, and why."""

    line: int
    why: str


def read(page: Path) -> list[File | Command | Skipped]:
    """What a page has its reader do, in order."""
    text, found = page.read_text(encoding="utf-8"), list[File | Command | Skipped]()
    for fence in _FENCE.finditer(text):
        line = text.count("\n", 0, fence.start()) + 1
        indent = len(fence["indent"])
        body = "".join(row[indent:] if row.strip() else "\n" for row in fence["body"].splitlines(keepends=True))
        title, not_run = _TITLE.search(fence["rest"]), _NOT_RUN.search(text, 0, fence.start())
        if not_run:
            found.append(Skipped(line, not_run["why"]))
        elif title:
            found.append(File(line, title[1], body))
        elif fence["kind"] in COMMANDS:
            found += _commands(body, line)
    return found


def _commands(body: str, line: int) -> list[Command]:
    """Those that follow "$ ", each with its continuation lines ("> ") and its output."""
    found: list[Command] = []
    for number, row in enumerate(body.splitlines(), line + 1):
        if row.startswith("$ "):
            found.append(Command(number, row[2:], ""))
        elif not found:
            raise ValueError(f"line {number}: a block of commands begins with one: $ COMMAND")
        elif row.startswith("> ") and not found[-1].expected:
            found[-1] = Command(found[-1].line, f"{found[-1].text}\n{row[2:]}", "")
        else:
            found[-1] = Command(found[-1].line, found[-1].text, f"{found[-1].expected}{row}\n")
    return found


def _pattern(expected: str) -> str:
    """A line of dots is any number of lines; dots within one are anything in it."""
    lines = []
    for line in expected.splitlines():
        if line.strip() == "...":
            lines.append(r"(?:[^\n]*\n)*?")
        else:
            lines.append(r"[^\n]*?".join(map(re.escape, line.rstrip().split("..."))) + r"[^\S\n]*\n")
    return "".join(lines)


def _plain(seen: str) -> str:
    return "".join(f"{line.rstrip()}\n" for line in seen.splitlines())
