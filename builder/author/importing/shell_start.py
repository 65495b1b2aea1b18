"""A command that a script starts, as a profile can have it: with its values, and options of what the caller sets."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from builder.author.importing.shell_words import NAME, Expansion, Word
from builder.author.importing.variables import holds_secret

ONLY_RUNNING = "its value is only known when the script runs"
_SEEN_BY_ALL = "a secret has no place among arguments, which every user of the machine can see"


@dataclass
class Variables:
    """What is known of a script's variables, at one of its lines.

    `running` are those that the script sets to what is not known here.
    """

    known: dict[str, str] = field(default_factory=dict)
    defaults: dict[str, str] = field(default_factory=dict)
    lists: dict[str, list[Word]] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)

    def values(self, word: Word) -> list[str] | None:
        """The words that the shell makes of one; None where that is not known."""
        return word.values(self.known, self.lists)

    def by_default(self, word: Word) -> list[str] | None:
        """The same, where nobody sets a variable that has a default."""
        return word.values({**self.defaults, **self.known}, self.lists, defaults=True)

    def is_callers(self, expansion: Expansion) -> bool:
        """Whether a variable comes from who starts the script, with a default or without."""
        return re.fullmatch(NAME, expansion.name) is not None and expansion.name not in self.running

    def forget(self, name: str) -> None:
        """The script sets a variable to what is not known here."""
        self.known.pop(name, None)
        self.running.add(name)


@dataclass
class Start:
    """A command that starts something: its `script` or module, "" until that is known, and what was `lost` of it.

    `env` is set for it alone, and `score` says how likely it is the trainer.
    """

    line: int
    script: str = ""
    command: list[str] = field(default_factory=list)
    options: list[dict[str, str]] = field(default_factory=list)
    lost: list[tuple[str, str, int]] = field(default_factory=list)
    env: dict[str, Word] = field(default_factory=dict)
    score: int = 0

    def add(self, words: list[Word], variables: Variables) -> bool:
        """Add the words after the program; returns whether it is known what it starts."""
        for word in words:
            if self.script:
                self._argument(word, variables)
            elif not self._of_launcher(word, variables):
                return False
        return self.script != ""

    def with_defaults(self) -> list[str]:
        """The command where nobody sets a variable."""
        chosen = [one for one in self.options if one["default"]]
        return [*self.command, *(text for one in chosen for text in (one["flag"], one["default"]))]

    def _of_launcher(self, word: Word, variables: Variables) -> bool:
        """Add a word before the script; returns whether it is still known which script that is."""
        texts = variables.values(word)
        if texts is None:
            texts = variables.by_default(word)
            if texts is None:
                return self._drop(word) or word.start.startswith("-")
            self.lost.append((word.text, f"its default was taken: {' '.join(texts)}", word.line))
        for text in texts:
            before = self.command[-1]
            is_script = text.endswith(".py")
            if self.command[0] == "python":
                is_script = not text.startswith("-") and before not in ("-X", "-W")
            self.command.append(text)
            if not self.script and (is_script or before in ("-m", "--module")):
                self.script = text
        return True

    def _argument(self, word: Word, variables: Variables) -> None:
        """Add an argument; one from a variable of the caller becomes an option of the profile."""
        values = variables.values(word)
        if values is None:
            self._unknown(word, variables)
            return
        for value in values:
            flag = self.command[-1]
            option, _, inline_value = value.partition("=")
            if flag.startswith("-") and holds_secret(flag, value):
                self.lost.append((f"{flag} with its value", _SEEN_BY_ALL, word.line))
                self.command.pop()
            elif holds_secret(option, inline_value) or holds_secret("", value):
                self.lost.append((option if inline_value else "an argument", _SEEN_BY_ALL, word.line))
            else:
                self.command.append(value)

    def _unknown(self, word: Word, variables: Variables) -> None:
        expansion = word.variable
        if expansion is not None and expansion.name in ("@", "*"):
            return  # what the caller adds comes at the end anyway
        flag, inline = "", expansion
        if len(word.pieces) == 2 and not word.opaque and isinstance(last := word.pieces[1], Expansion):
            flag, inline = word.start.removesuffix("="), last
        if inline is None or not variables.is_callers(inline):
            self._drop(word)
        elif flag and word.start == f"{flag}=" and flag.startswith("-"):
            self._option(flag, inline, variables)
        elif not flag and self._waits():
            self._option(self.command.pop(), inline, variables)
        else:
            self._drop(word)

    def _option(self, flag: str, expansion: Expansion, variables: Variables) -> None:
        default = expansion.default if expansion.default is not None else variables.defaults.get(expansion.name, "")
        self.options.append({"flag": flag, "from": expansion.name, "default": default})

    def _drop(self, word: Word) -> bool:
        """Leave out an argument whose value is not known, with the flag before it; returns whether there was one."""
        flag = f"{self.command.pop()} " if self._waits() else ""
        self.lost.append((f"{flag}{word.text}", f"{ONLY_RUNNING}: write it into [trainer]", word.line))
        return flag != ""

    def _waits(self) -> bool:
        """Whether the last word is an option that may wait for a value."""
        last = self.command[-1]
        return last.startswith("-") and "=" not in last and last not in ("-", "--")
