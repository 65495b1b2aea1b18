"""Every value of a profile reaches a script through one of these filters, each of which makes it a literal of its
language: a value can never become code.
"""

from __future__ import annotations

import hashlib
import re
import textwrap
from collections.abc import Sequence
from typing import Any

from jinja2 import BaseLoader, Environment, StrictUndefined

from builder.profile.detect import Choice, Detect


def sh_quote(value: str) -> str:
    """A word of POSIX sh that stands for exactly `value`; as quote of templates/_words.sh.j2.

    >>> print(sh_quote("it's $HOME"))
    'it'\\''s $HOME'
    """
    return "'" + value.replace("'", "'\\''") + "'"


def sh_word(value: str | Detect | Choice) -> str:
    """A word of sh for a value: the text itself, or what the script finds out (templates/_detect.sh.j2)."""
    if isinstance(value, str):
        return sh_quote(value)
    if isinstance(value, Choice):
        return f'"$(chosen {value.detect} {value.at_least} {sh_quote(value.then)} {sh_quote(value.otherwise)})"'
    words = [value.detect, value.fallback, value.percent, value.minus, value.least]
    return f'"$(detected {" ".join(map(str, [*words, *([] if value.max is None else [value.max])]))})"'


def or_else(name: str, default: str | Detect | Choice) -> str:
    r"""What stands behind `_value=` for a variable, or for `default` where it is not set at all.

    >>> or_else("A", "b/c.yaml"), or_else("A", "it is")
    ('${A-b/c.yaml}', '\'it is\'; [ -z "${A+set}" ] || _value=$A')
    """
    if isinstance(default, str) and re.fullmatch(r"[\w./:,=+@%-]*", default, re.ASCII):
        return f"${{{name}-{default}}}"
    # Shells disagree on quotes within braces.
    return f'{sh_word(default)}; [ -z "${{{name}+set}}" ] || _value=${name}'


def comment(value: str | Detect | Choice) -> str:
    """`value` as part of a comment or of a usage text: one line of printable ASCII."""
    line = " ".join(str(value).split())
    return "".join(char if " " <= char <= "~" else char.encode("unicode_escape").decode() for char in line)


def dotenv_quote(value: str | Detect | Choice) -> str:
    """`value` for a dotenv file, as direnv, systemd and python-dotenv read it. Such a file finds nothing out."""
    if not isinstance(value, str):
        return dotenv_quote(str(value.fallback))
    if value and all(char.isalnum() or char in "_./:,=+-" for char in value) and value.isascii():
        return value
    if "'" not in value and "\\" not in value:
        return f"'{value}'"
    for char in ("\\", '"', "$", "`"):
        value = value.replace(char, "\\" + char)
    return f'"{value}"'


def systemd_quote(value: str) -> str:
    """A string for `Environment=` of systemd and the program of `ExecStart=` (systemd.syntax(7), "Quoting").

    >>> print(systemd_quote('A=50% of "it"'))
    "A=50%% of \\"it\\""
    """
    if "\0" in value:
        raise ValueError("a NUL byte")
    for char, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("%", "%%")):
        value = value.replace(char, escaped)
    return f'"{value}"'


def systemd_word(value: str) -> str:
    """An argument of `ExecStart=`, where systemd would replace `$NAME`."""
    return systemd_quote(value).replace("$", "$$")


def systemd_path(value: str) -> str:
    """A path as a whole setting of systemd, which knows no quotes there."""
    if any(char < " " for char in value) or value != value.strip() or value.endswith("\\"):
        raise ValueError(f"the path {value!r}")
    return value.replace("%", "%%")


def python_literal(value: Any, indent: int = 0) -> str:
    """A Python expression for plain data: what does not fit into a line is in several, one space further in each.

    >>> python_literal({"a": [1, "b"]})
    "{'a': [1, 'b']}"
    """
    whole = ascii(value)
    if indent + len(whole) <= 115 or not isinstance(value, dict | list):
        return whole
    rows = [f"{key!a}: " if isinstance(value, dict) else "" for key in value]
    parts = value.values() if isinstance(value, dict) else value
    lines = [
        f"{' ' * (indent + 1)}{row}{python_literal(part, indent + 1)},\n" for row, part in zip(rows, parts, strict=True)
    ]
    start, end = "{}" if isinstance(value, dict) else "[]"
    return f"{start}\n{''.join(lines)}{' ' * indent}{end}"


def python_text(text: str) -> str:
    """A Python expression for a text of several lines, to be read as it is."""
    if "'''" in text or set("\\\r") & set(text) or not text.endswith("\n"):
        return "(\n" + "".join(f"    {line!a}\n" for line in text.splitlines(keepends=True)) + ")"
    return f"'''\\\n{text}'''"


def delimiter(text: str) -> str:
    """The word that ends a here-document of `text`: one that is no line of it."""
    word, lines = "DRYDOCK_END", set(text.splitlines())
    while word in lines:
        word += "_" + hashlib.sha256(text.encode()).hexdigest()[:8].upper()
    return word


def fold(words: str) -> str:
    """A long list of words over several lines of sh."""
    lines, line = [], ""
    for word in words.split():
        if len(line) + len(word) > 100:
            lines.append(line)
            line = ""
        line += f" {word}" if line else word
    return " \\\n    ".join([*lines, line])


def wrapped(text: str) -> str:
    """A help text with no line above 80 columns but for words that are longer. A line goes on below its second column.

    >>> wrapped(f"  --where    {'word ' * 15}\\n").splitlines()[1]
    '             word word'
    """
    lines = []
    for line in text.splitlines():
        column = re.match(r" +\S.*?  +(?=\S)", line)
        indent = column[0] if column else "    " if line.startswith(" ") else ""
        folded = textwrap.wrap(
            line, 80, subsequent_indent=" " * len(indent), break_long_words=False, break_on_hyphens=False
        )
        lines += folded or [""]
    return "".join(f"{line}\n" for line in lines)


def rows(words: Sequence[str], width: int = 116) -> list[str]:
    """Words in lines of at most `width` characters, two spaces between them.

    >>> rows(["a 1", "bb 2", "c 3"], 10)
    ['a 1  bb 2', 'c 3']
    """
    found = [""]
    for word in words:
        if found[-1] and len(found[-1]) + 2 + len(word) > width:
            found.append("")
        found[-1] += f"  {word}" if found[-1] else word
    return found


def environment(loader: BaseLoader) -> Environment:
    """Jinja as the templates expect it: an undefined name is an error, and the quoting filters are there."""
    # Autoescaping is for HTML; here each value is quoted for the language that it goes into.
    templates = Environment(
        loader=loader,
        autoescape=False,  # noqa: S701
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {
        "sh": sh_word,
        "or_else": or_else,
        "comment": comment,
        "delimiter": delimiter,
        "dotenv": dotenv_quote,
        "python": python_literal,
        "python_text": python_text,
        "fold": fold,
        "wrapped": wrapped,
        "rows": rows,
        "systemd": systemd_quote,
        "systemd_word": systemd_word,
        "systemd_path": systemd_path,
    }
    return templates
