"""The Python that scripts carry: builder/embedded/, without its comments, as a folder with a `__main__.py`.

Who knows the machinery of a version of Drydock need not read it again: its sha256 stands in the head of each script.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import itertools
import json
import re
import tokenize
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

_MAIN = "import sys\n\nfrom builder.embedded.__main__ import main\n\nsys.exit(main(sys.argv[1:]))\n"


_LINE = 115


@cache
def machinery() -> bytes:
    """All files of the folder, as JSON: relative path to text."""
    files = {
        f"builder/embedded/{path.name}": without_annotations(without_comments(path.read_text("utf-8")))
        for path in sorted(_modules(), key=_order)
    }
    return json.dumps({"__main__.py": _MAIN, "builder/__init__.py": "\n", **files}).encode("ascii")


# What is alike side by side: zlib looks back no further than 32 KB. Found by trying; any order is right.
_ALIKE = (
    "verify",
    "patches",
    "caches",
    "__init__",
    "__main__",
    "into",
    "manifest",
    "plan",
    "installer",
    "installed",
    "programs",
    "errors",
    "venv",
    "stage",
    "examine",
    "wheels",
    "claim",
    "bytecode",
    "hashes",
    "folders",
    "swap",
    "lifeline",
    "workers",
)


def _order(path: Path) -> tuple[int, str]:
    return (_ALIKE.index(path.stem) if path.stem in _ALIKE else -1, path.name)


def digest() -> str:
    """The sha256 of `machinery`, which names it."""
    return hashlib.sha256(machinery()).hexdigest()


def encoded() -> str:
    """`machinery`, compressed, as lines that a here-document can carry.

    Other builds of zlib may compress it to other bytes: `canonical` is for comparing scripts.
    """
    text = base64.b85encode(zlib.compress(machinery(), 9)).decode("ascii")
    return "".join(f"{text[at : at + _LINE]}\n" for at in range(0, len(text), _LINE))


def canonical(script: str) -> str:
    """The text of a script with its machinery as it is and not as it is compressed."""

    def plain(found: re.Match[str]) -> str:
        try:
            content = zlib.decompress(base64.b85decode(found[0].replace("\n", "")))
        except (ValueError, zlib.error):
            return found[0]
        return hashlib.sha256(content).hexdigest()

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
    for node in ast.walk(ast.parse(source)):
        bodies = [getattr(node, field, None) for field in ("body", "orelse", "finalbody")]
        for body in (body for body in bodies if isinstance(body, list)):
            for one in filter(_is_text, body):
                first, last = one.lineno - 1, one.end_lineno or one.lineno
                alone = len(body) == 1 and not isinstance(node, ast.Module)
                lines[first:last] = [f"{' ' * one.col_offset}pass" if alone else "", *[""] * (last - first - 1)]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and lines[token.start[0] - 1]:
            lines[token.start[0] - 1] = lines[token.start[0] - 1][: token.start[1]]
    return "".join(f"{line.rstrip()}\n" for line in lines if line.strip())


def without_annotations(source: str) -> str:
    """A module without the types of its functions' parameters and results, which nothing here looks at as it runs.

    >>> without_annotations("def f(a: int, *, b: str = '') -> None:\\n    c: int = a\\n")
    "def f(a, *, b = ''):\\n    c: int = a\\n"
    """
    lines = [line.encode() for line in source.splitlines(keepends=True)]
    start = [0, *itertools.accumulate(map(len, lines))]
    content = b"".join(lines)
    cuts = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.arg) and node.annotation is not None:
            begin = start[node.lineno - 1] + node.col_offset + len(node.arg.encode())
            cuts.append((begin, _end(node.annotation, start)))
        elif isinstance(node, ast.FunctionDef) and node.returns is not None:
            arrow = content.rindex(b" ->", 0, start[node.returns.lineno - 1] + node.returns.col_offset)
            cuts.append((arrow, _end(node.returns, start)))
    for begin, end in sorted(cuts, reverse=True):
        content = content[:begin] + content[end:]
    return content.decode()


def _end(node: ast.expr, start: Sequence[int]) -> int:
    return start[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)


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
