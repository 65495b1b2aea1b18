"""The Python that scripts carry: builder/embedded/, without its comments, as a folder with a `__main__.py`.

Who knows the machinery of a version of Drydock need not read it again: its sha256 stands in the head of each script.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import itertools
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

_MAIN = "from builder.embedded.__main__ import run\n\nrun()\n"

_LINE = 115
PARTS = {"source": ("git", "source"), "data": ("data",), "python": ("pythons",)}
"""What only scripts need that bring the trainer's own code, models and data sets, or a Python by its bytes."""
_STRICT = "determinism"  # what only those have that ask for it, beside the machinery
_RESUME = "resume"  # what only batch scripts carry, by itself

_PIECE = re.compile(
    r'''
    """(?:[^\\"]|\\.|"(?!""))*""" | '{3}(?:[^\\']|\\.|'(?!''))*'{3}
    | "(?:[^\\"\n]|\\.)*" | '(?:[^\\'\n]|\\.)*'
    | \#[^\n]* | [()\[\]{}] | \\\n | \n
    ''',
    re.DOTALL | re.VERBOSE,
)


def machinery_files(parts: Iterable[str] = tuple(PARTS)) -> dict[str, str]:
    """The files that every script has, and those of some `parts`: relative path to text, each compact, and each after
    those that it imports.

    So what is alike stands side by side: zlib looks back no further than 32 KB, and makes 3 % less of it than in the
    order of the alphabet.
    """
    left = {_STRICT, _RESUME, *(name for part, names in PARTS.items() if part not in parts for name in names)}
    texts = {name: text for name, text in _texts().items() if name not in left}
    order: dict[str, str] = {}
    begun: set[str] = set()

    def add(name: str) -> None:
        if name in texts and name not in begun:
            begun.add(name)
            for imported in _imports(texts[name]):
                add(imported)
            order[f"builder/embedded/{name}.py"] = texts[name]

    for name in texts:
        add(name)
    return {"__main__.py": _MAIN, "builder/__init__.py": "\n", **order}


@cache
def _texts() -> dict[str, str]:
    """Each module, compact, by its name."""
    return {path.stem: compact(path.read_text("utf-8")) for path in _modules()}


def strict() -> str:
    """What a script carries beside the machinery where its profile asks for runs that repeat themselves."""
    return _texts()[_STRICT]


def _imports(text: str) -> list[str]:
    """The modules of builder/embedded/ that a compact module imports.

    >>> _imports("from builder.embedded import state\\ndef f():\\n from builder.embedded.errors import StageError\\n")
    ['errors', 'state']
    """
    found = re.findall(r"^ *from builder\.embedded(?:\.(\w+) import .*| import (.*))$", text, re.MULTILINE)
    return sorted({name for module, names in found for name in re.findall(r"\w+", module or names)})


@cache
def machinery(parts: Sequence[str] = tuple(PARTS)) -> bytes:
    """All of them in one: path, form feed, text, form feed, and so on."""
    files = machinery_files(parts)
    return "".join(f"{path}\f{text}\f" for path, text in files.items()).encode("ascii")


def digest(parts: Sequence[str] = tuple(PARTS)) -> str:
    """The sha256 of `machinery`, which names it."""
    return hashlib.sha256(machinery(parts)).hexdigest()


def encoded(parts: Sequence[str] = tuple(PARTS)) -> str:
    """`machinery`, compressed, as lines that a here-document can carry; templates/_machinery.sh.j2 reads them.

    Other builds of zlib may compress it to other bytes: `canonical` is for comparing scripts.
    """
    packed = base64.b85encode(zlib.compress(machinery(parts), 9)).decode("ascii")
    return "".join(f"{packed[at : at + _LINE]}\n" for at in range(0, len(packed), _LINE))


def decoded(lines: str) -> bytes:
    """What `encoded` has made to lines; nothing where they are something else."""
    try:
        return zlib.decompress(base64.b85decode(lines.replace("\n", "")))
    except (ValueError, zlib.error):
        return b""


def canonical(script: str) -> str:
    """The text of a script with its machinery as it is and not as it is compressed."""

    def plain(found: re.Match[str]) -> str:
        content = decoded(found[0])
        return hashlib.sha256(content).hexdigest() if content else found[0]

    return re.sub(rf"(?:^[!-~]{{{_LINE}}}\n){{20,}}[!-~]*\n", plain, script, flags=re.MULTILINE)


def as_one_file(names: Sequence[str]) -> str:
    """Some modules of builder/embedded/, each after those that it imports, as a part of one file."""
    texts = [without_comments((_folder() / f"{name}.py").read_text("utf-8")) for name in names]
    lines = "\n".join(texts).splitlines()
    kept = [line for line in lines if not line.startswith(("from __future__ ", "from builder."))]
    return "\n".join(["from __future__ import annotations", *kept]) + "\n"


def without_comments(source: str) -> str:
    """A module without comments, docstrings and empty lines; what runs is the same.

    >>> without_comments('def f():\\n    "Docs."\\n    return "# no comment"  # a comment\\n')
    'def f():\\n    return "# no comment"\\n'
    """
    lines = source.splitlines()
    texts: set[int] = set()
    for piece, row, column in _pieces(source):
        if piece[0] == "#":
            lines[row] = lines[row][:column]
        elif piece[0] in "\"'":
            texts.update(range(row, row + piece.count("\n")))  # whose line goes on in the next: as it is
    for node, body in _bodies(ast.parse(source)):
        for one in filter(_is_text, body):
            first, last = one.lineno - 1, one.end_lineno or one.lineno
            alone = len(body) == 1 and not isinstance(node, ast.Module)
            lines[first:last] = [f"{' ' * one.col_offset}pass" if alone else "", *[""] * (last - first - 1)]
            texts.difference_update(range(first, last))
    kept = (line if row in texts else line.rstrip() for row, line in enumerate(lines) if line.strip() or row in texts)
    return "".join(f"{line}\n" for line in kept)


def compact(source: str) -> str:
    r"""A module as short as it can be read: without comments, types, imports that only types need, with an indent of
    one space, a statement a line, and no space around signs. What runs is the same.

    >>> compact("from typing import Any, cast\ndef f(a: Any) -> None:\n    b: int = cast(int, a)\n")
    'from typing import cast\ndef f(a):\n b=cast(int,a)\n'
    >>> compact("def f(a):\n    return [\n        x + 1\n        for x in a  # all\n    ]\n")
    'def f(a):\n return [x+1 for x in a]\n'
    """
    return _tight(_with_small_indents(_without_unused_imports(_without_types(without_comments(source)))))


def _without_types(source: str) -> str:
    """Without the types of parameters, results and variables; those of classes' fields can mean something."""
    lines = source.splitlines()
    cuts = []
    for owner, body in _bodies(ast.parse(source)):
        for node in body:
            if isinstance(node, ast.FunctionDef):
                cuts += [
                    (one.lineno, one.col_offset + len(one.arg), one.annotation)
                    for one in ast.walk(node.args)
                    if isinstance(one, ast.arg) and one.annotation is not None
                ]
                if node.returns is not None:
                    arrow = lines[node.returns.lineno - 1].rindex(" ->", 0, node.returns.col_offset)
                    cuts.append((node.returns.lineno, arrow, node.returns))
            elif isinstance(node, ast.AnnAssign) and node.value is not None and not isinstance(owner, ast.ClassDef):
                cuts.append((node.lineno, node.target.end_col_offset or 0, node.annotation))
    return _cut(source, [(line, column, node.end_lineno or 0, node.end_col_offset or 0) for line, column, node in cuts])


def _without_unused_imports(source: str) -> str:
    lines: list[str | None] = list(source.splitlines())
    cuts: list[int] = []
    words = Counter(re.findall(r"\w+", source))
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom) and node.module != "__future__":
            kept = [one.name for one in node.names if words[one.name] > 1]
            if any(one.asname for one in node.names) or len(kept) == len(node.names):
                continue
            lines[node.lineno - 1] = f"from {node.module} import {', '.join(kept)}" if kept else None
            cuts += range(node.lineno, node.end_lineno or 0)
    return "".join(f"{line}\n" for number, line in enumerate(lines) if number not in cuts and line is not None)


def _with_small_indents(source: str) -> str:
    begins, texts, brackets = {0}, set[int](), 0
    for piece, row, _ in _pieces(source):
        if piece[0] in "\"'":
            texts.update(range(row + 1, row + 1 + piece.count("\n")))  # a text of several lines is as it is
        elif piece == "\n" and not brackets:
            begins.add(row + 1)
        else:
            brackets += (piece in "([{") - (piece in ")]}")
    indents, short = [0], []
    for row, line in enumerate(source.splitlines(keepends=True)):
        bare = line.lstrip(" ")
        depth = 0
        if row in begins and bare.strip():
            indent = len(line) - len(bare)
            indents = [*(one for one in indents if one < indent), indent]
            depth = len(indents) - 1
        short.append(line if row in texts else " " * depth + bare)
    return "".join(short)


_SIGN = re.compile(r" ?(==|!=|<=|>=|:=|\+=|-=|[=,:+<>*/|&-]) ?")


def _tight(source: str) -> str:
    """With what is in brackets on one line, and without spaces around signs; there are no comments."""
    short: list[str] = []
    at = brackets = 0
    begins = True
    for found in _PIECE.finditer(source):
        piece, code = found[0], source[at : found.start()]
        bare = code.lstrip(" ") if begins else code
        short += [code[: len(code) - len(bare)], _SIGN.sub(r"\1", bare)]
        begins, at = piece == "\n" and not brackets, found.end()
        if piece == "\n" and brackets:
            before = (bare or source[found.start() - 1])[-1]
            piece = "" if before in "([{," or source[at : at + 1] in ")]}" else " "
        brackets += (piece in list("([{")) - (piece in list(")]}"))
        short.append(piece)
    return "".join([*short, source[at:]])


def _pieces(source: str) -> Iterator[tuple[str, int, int]]:
    """The strings, comments, brackets and ends of lines of a module, each with its row and column from 0.

    A tenth of the time of the standard library's tokens, of which there are five times as many.

    >>> [piece for piece, row, column in _pieces("f('# no', [1])  # yes")]
    ['(', "'# no'", '[', ']', ')', '# yes']
    """
    row = start = 0
    for found in _PIECE.finditer(source):
        yield found[0], row, found.start() - start
        if "\n" in found[0]:
            row += found[0].count("\n")
            start = found.start() + found[0].rindex("\n") + 1


def _cut(source: str, places: Sequence[tuple[int, int, int, int]]) -> str:
    """A text of ASCII characters without what is from one line and column to another."""
    start = [0, *itertools.accumulate(len(line) for line in source.splitlines(keepends=True))]
    for line, column, end_line, end_column in sorted(places, reverse=True):
        source = source[: start[line - 1] + column] + source[start[end_line - 1] + end_column :]
    return source


def _bodies(node: ast.AST) -> Iterator[tuple[ast.AST, list[ast.stmt]]]:
    """The statements of a module, and of each statement in it that has some: with their owner. No expression is looked
    at, of which a module has ten times as many.
    """
    for field in ("body", "orelse", "finalbody", "handlers", "cases"):
        if isinstance(body := getattr(node, field, None), list):
            if field in ("body", "orelse", "finalbody"):
                yield node, body
            for one in body:
                yield from _bodies(one)


def _is_text(statement: ast.stmt) -> bool:
    """Whether a statement is a string and nothing else: documentation."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _modules() -> Sequence[Path]:
    return sorted(_folder().glob("*.py"))


def _folder() -> Path:
    from builder import embedded

    return Path(embedded.__file__).parent
