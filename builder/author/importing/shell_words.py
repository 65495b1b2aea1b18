"""The commands of a shell script and their words, by tree-sitter's grammar of bash; nothing of it is run.

A word is known where it is made of text, `$NAME`, `${NAME:-default}` and lists; else it is opaque: only the shell can
know it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_EXPANSION = re.compile(rf"\$(?:({NAME}|[@*0-9])|\{{({NAME}|[@*0-9])(\[[@*]\])?(?::?[-=]([^}}]*))?\}})", re.DOTALL)
_BLOCKS = ("if_statement", "while_statement", "for_statement", "c_style_for_statement", "case_statement")
_FUNCTION = "function_definition"
_OPAQUE = ("command_substitution", "process_substitution", "arithmetic_expansion", "brace_expression", "regex")
_TESTS = ("test_command", "comment", "arithmetic_expansion")


@dataclass(frozen=True)
class Expansion:
    """`$NAME` in a word, with the text that stands in for an unset variable."""

    name: str
    default: str | None = None
    quoted: bool = False


@dataclass
class Word:
    """A word as it is written, its line, and its pieces; `opaque` where it is more than these."""

    text: str
    line: int
    pieces: list[str | Expansion] = field(default_factory=list)
    opaque: bool = False

    def values(
        self, known: Mapping[str, str], lists: Mapping[str, list[Word]], *, defaults: bool = False
    ) -> list[str] | None:
        """The words that the shell makes of it, with what is known of variables; None where that is not all.

        With `defaults` a variable that is not known has the default that stands beside it.
        """
        if self.opaque:
            return None
        whole = self.variable
        if whole is not None and whole.name in lists:
            # A list may name itself, or one that names it.
            others = {name: words for name, words in lists.items() if name != whole.name}
            found = [word.values(known, others) for word in lists[whole.name]]
            return None if None in found else [text for texts in found for text in texts or ()]
        text, split = "", whole is not None and not whole.quoted and known.get(whole.name) == ""
        for piece in self.pieces:
            value = piece if isinstance(piece, str) else known.get(piece.name, piece.default if defaults else None)
            if value is None:
                return None
            split |= isinstance(piece, Expansion) and not piece.quoted and re.search(r"\s", value) is not None
            text += value
        return text.split() if split else [text]

    def value(self, known: Mapping[str, str]) -> str | None:
        """The text, where the shell makes one word of it."""
        found = self.values(known, {})
        return found[0] if found is not None and len(found) == 1 else None

    @property
    def variable(self) -> Expansion | None:
        """The expansion that is all of the word."""
        piece = self.pieces[0] if len(self.pieces) == 1 and not self.opaque else ""
        return piece if isinstance(piece, Expansion) else None

    @property
    def start(self) -> str:
        """The text that it begins with."""
        return self.pieces[0] if self.pieces and isinstance(self.pieces[0], str) else ""

    @property
    def end(self) -> str:
        """The text that it ends with."""
        return self.pieces[-1] if self.pieces and not self.opaque and isinstance(self.pieces[-1], str) else ""


@dataclass(frozen=True)
class Command:
    """A simple command: `kind` is "command", "export", "assign" or "unset"; `words` without its redirections.

    `depends` says whether it runs only under a condition, and `unset` names the variable whose absence is that. The
    kind "function" has the name of one in its word; a variable of a loop is assigned what is not known.
    """

    kind: str
    line: int
    assigned: list[tuple[str, Word | list[Word]]]
    words: list[Word]
    depends: bool
    unset: str | None = None


def commands(text: str) -> Iterator[Command]:
    """The commands of a script, in the order of its lines, those of functions and blocks too."""
    source = text.encode("utf-8", "replace")
    waiting: list[tuple[Node, bool, str | None]] = [(_parser().parse(source).root_node, False, None)]
    while waiting:
        node, depends, unset = waiting.pop()
        found = _command(node, source, depends, unset)
        if found is not None:
            yield found
            continue
        if node.type in _TESTS or node.type == "heredoc_redirect":
            continue
        children = node.children
        if node.type in _BLOCKS:
            depends, unset = True, _tested(node, source)
        elif node.type == _FUNCTION:
            depends = True
        if (name := _declared(node)) is not None:
            word = Word(_text(name, source), name.start_point[0] + 1, opaque=True)
            loop = node.type != _FUNCTION
            yield Command(
                "assign" if loop else "function", word.line, [(word.text, word)] if loop else [], [word], depends=False
            )
        inner = [(child, depends, unset) for child in children if child.is_named]
        if node.type == "list" and inner:
            alternative = any(child.type == "||" for child in children) or inner[0][0].type == "test_command"
            inner[1:] = [(child, depends or alternative, unset) for child, _, _ in inner[1:]]
        waiting += reversed(inner)


@cache
def _parser() -> Parser:
    import tree_sitter_bash
    from tree_sitter import Language, Parser

    return Parser(Language(tree_sitter_bash.language()))


def _declared(node: Node) -> Node | None:
    """The name of a function, or the variable of a loop."""
    kinds = {_FUNCTION: "name", "for_statement": "variable"}
    return node.child_by_field_name(kinds[node.type]) if node.type in kinds else None


def _tested(node: Node, source: bytes) -> str | None:
    """The variable that `if [ -z "$NAME" ]` asks for; None for any other condition, or with an `else`."""
    condition = node.child_by_field_name("condition")
    if condition is None or any(child.type in ("else_clause", "elif_clause") for child in node.children):
        return None
    found = re.fullmatch(rf"\[\[?\s+-z\s+\"?\$\{{?({NAME})(?::?-)?\}}?\"?\s+\]?\]", _text(condition, source))
    return found[1] if found else None


def _command(node: Node, source: bytes, depends: bool, unset: str | None) -> Command | None:
    line = node.start_point[0] + 1
    kinds = {"command": "command", "unset_command": "unset", "variable_assignment": "assign"}
    kind = kinds.get(node.type, "")
    if node.type == "declaration_command":
        first = _text(node.children[0], source)
        exports = first == "export" or re.match(r"(declare|typeset)\s+-\w*x", _text(node, source)) is not None
        kind = "export" if exports else "assign"
    if not kind:
        return None
    assigned, words = list[tuple[str, Word | list[Word]]](), list[Word]()
    for child in [node] if node.type == "variable_assignment" else node.children:
        if child.type == "variable_assignment":
            if (found := _assignment(child, source)) is not None:
                assigned.append(found)
        elif child.type == "command_name":
            words.append(_word(child.children[0] if child.children else child, source))
        elif child.is_named and not child.type.endswith("redirect") and child.type != "comment":
            words.append(_word(child, source))
    return Command(kind, line, assigned, words, depends, unset)


def _assignment(node: Node, source: bytes) -> tuple[str, Word | list[Word]] | None:
    name, value = node.child_by_field_name("name"), node.child_by_field_name("value")
    if name is None or name.type != "variable_name":  # an element of a list
        return None
    plain = "+=" not in _text(node, source)[: len(_text(name, source)) + 2]
    if value is None:
        line = node.start_point[0] + 1
        return _text(name, source), Word("", line, [""], opaque=not plain)
    if value.type == "array":
        words = [_word(child, source) for child in value.children if child.is_named and child.type != "comment"]
        before = Word(_text(name, source), node.start_point[0] + 1, [Expansion(_text(name, source))])
        return _text(name, source), words if plain else [before, *words]
    word = _word(value, source)
    word.opaque |= not plain
    return _text(name, source), word


def _word(node: Node, source: bytes) -> Word:
    word = Word(_text(node, source), node.start_point[0] + 1)
    parts = [node]
    while parts:
        part = parts.pop()
        text = _text(part, source)
        if part.has_error:
            word.opaque = True
        if part.type == "concatenation":
            parts += reversed(part.children)
        elif part.type == "string":
            _quoted(part, source, word)
        elif part.type == "raw_string":
            word.pieces.append(text[1:-1])
        elif part.type in ("simple_expansion", "expansion"):
            _expand(text, word, quoted=False)
        elif part.type in _OPAQUE or part.type == "ansi_c_string":
            word.opaque = True
        else:
            # What is not quoted means other things too: the names of files, the user's folder.
            word.opaque |= re.search(r"(?<!\\)[*?`]|^~|(?<!\\)\[.*\]|(?<!\\)\{.*,.*\}", text) is not None
            word.pieces.append(re.sub(r"\\(.)", r"\1", text.replace("\\\n", "")))
    word.pieces = _joined(word.pieces)
    return word


def _quoted(node: Node, source: bytes, word: Word) -> None:
    """Add what is between double quotes: text wherever no expansion is."""
    at, end = node.start_byte + 1, node.end_byte - 1
    word.pieces.append("")
    for child in node.children:
        if child.type in ("simple_expansion", "expansion", *_OPAQUE):
            word.pieces.append(_unescaped(source[at : child.start_byte].decode("utf-8", "replace")))
            if child.type in _OPAQUE:
                word.opaque = True
            else:
                _expand(_text(child, source), word, quoted=True)
            at = child.end_byte
    word.pieces.append(_unescaped(source[at:end].decode("utf-8", "replace")))


def _expand(text: str, word: Word, *, quoted: bool) -> None:
    found = _EXPANSION.fullmatch(text)
    if found is None or re.search(r"[$`]", found[4] or ""):
        word.opaque = True
        return
    default = found[4]
    try:
        default = " ".join(shlex.split(default)) if default and ("'" in default or '"' in default) else default
    except ValueError:
        word.opaque = True
    word.pieces.append(Expansion(found[1] or found[2], default, quoted))


def _unescaped(text: str) -> str:
    return re.sub(r"\\([\"\\$`])", r"\1", text.replace("\\\n", ""))


def _joined(pieces: list[str | Expansion]) -> list[str | Expansion]:
    """The pieces with neighbouring texts as one, without those that are empty beside others."""
    found: list[str | Expansion] = []
    for piece in pieces:
        if isinstance(piece, str) and found and isinstance(found[-1], str):
            found[-1] += piece
        else:
            found.append(piece)
    return [piece for piece in found if piece != ""] or ([""] if pieces else [])


def _text(node: Node, source: bytes) -> str:
    return source[node.start_byte : node.end_byte].decode("utf-8", "replace")
