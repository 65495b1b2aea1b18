"""Where a key stands in a TOML text."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from builder.profile.toml_lines import line_of

TEXT = """\
schema = 1
name = "m4"  # [env] is below
extends = [
    "base",
    "rl-swarm",
]

[target]
match = { chip = "Apple M4*" }

[ packages . build ]
"a.b" = ["setuptools"]

[env]
A = "1"
"B" = { value = "2" }
'C'= "3"
D.note = "x"
D.value = "4"

[env.E]
value = "5"

[[patches]]
package = "a"
[[patches]] # the second
package = "b"
why = \"\"\"
[env]
A = "not a key"
[[patches]]
\"\"\"
file = "x"

[[trainer.options]]
flag = "-a"
[[trainer.options]]
flag = "-b"
default = '''
flag = "-c"'''
from = "B"
[[trainer.options.inner]]
flag = "-d"
[trainer.options.table]
flag = "-e"
[[trainer.options]]
[[trainer.options.inner]]
flag = "-f"
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (["schema"], "schema = 1"),
        (["extends", 1], '    "rl-swarm",'),
        (["target"], "[target]"),
        (["target", "match", "chip"], "match = {"),
        (["target", "gone"], "[target]"),
        (["packages", "build", "a.b"], '"a.b" ='),
        (["packages", "build", "c", 0], "[ packages"),
        (["env", "A"], 'A = "1"'),
        (["env", "B", "value"], '"B" ='),
        (["env", "C"], "'C'="),
        (["env", "D", "value"], "D.value"),
        (["env", "E", "value"], 'value = "5"'),
        (["env", "F"], "[env]"),
        (["patches", 0, "package"], 'package = "a"'),
        (["patches", 1, "package"], 'package = "b"'),
        (["patches", 1, "file"], 'file = "x"'),
        (["patches", 1, "versions"], "[[patches]] #"),
        (["trainer", "options", 0, "flag"], 'flag = "-a"'),
        (["trainer", "options", 1, "flag"], 'flag = "-b"'),
        (["trainer", "options", 1, "from"], 'from = "B"'),
        (["trainer", "options", 1, "inner", 0, "flag"], 'flag = "-d"'),
        (["trainer", "options", 1, "table", "flag"], 'flag = "-e"'),
        (["trainer", "options", 2, "inner", 0, "flag"], 'flag = "-f"'),
    ],
)
def test_the_line_is_that_of_the_key_or_of_its_nearest_parent(path: list[str | int], line: str) -> None:
    tomllib.loads(TEXT)  # it is what it says it is
    found = line_of(TEXT, path)
    assert found is not None
    assert TEXT.split("\n")[found - 1].startswith(line)


def test_what_is_not_there_at_all_has_no_line() -> None:
    assert line_of(TEXT, ["python", "version"]) is None
    assert line_of("", ["a"]) is None
    assert line_of(TEXT, []) is None


@pytest.mark.parametrize("end", ["\u2028", "\u0085", "\x0c", "\x1c"])
def test_only_a_newline_ends_a_line(end: str) -> None:
    assert line_of(f'# a{end}b\nx = "1"\n', ["x"]) == 2


def test_windows_line_ends_count_once() -> None:
    assert line_of('[env]\r\nA = "1"\r\nB = "2"\r\n', ["env", "B"]) == 3


KEYS = st.from_regex(r"[a-z]{1,4}", fullmatch=True) | st.just("a.b") | st.just("a b")
VALUES = st.integers() | st.text(st.characters(exclude_categories=["Cs"]), max_size=9) | st.lists(st.integers())
TABLES = st.recursive(
    st.dictionaries(KEYS, VALUES, min_size=1, max_size=3),
    lambda inner: st.dictionaries(
        KEYS, VALUES | inner | st.lists(inner, min_size=1, max_size=3), min_size=1, max_size=3
    ),
    max_leaves=6,
)


def leaves(data: Any, path: tuple[str | int, ...] = ()) -> list[tuple[tuple[str | int, ...], Any]]:
    """The paths of all plain values that are not inside of another list."""
    if isinstance(data, dict):
        return [leaf for key, value in data.items() for leaf in leaves(value, (*path, key))]
    if isinstance(data, list) and data and isinstance(data[0], dict):
        return [leaf for number, value in enumerate(data) for leaf in leaves(value, (*path, number))]
    return [(path, data)]


@given(TABLES)
def test_every_key_of_any_document_is_found(data: dict[str, Any]) -> None:
    text = tomli_w.dumps(data)
    lines = text.split("\n")
    for path, _ in leaves(data):
        found = line_of(text, path)
        assert found is not None
        # What is written inline is found by the key that holds it.
        names = [part for part in path if isinstance(part, str)]
        line = lines[found - 1]
        named = [name for name in names if re.search(rf"""(^|[ {{."'\[]){re.escape(name)}["']? =""", line)]
        assert named
        assert names[-1] in named or line.endswith("= [")
