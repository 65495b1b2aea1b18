"""The JSON Schema of profiles: what editors accept and what the program accepts."""

from __future__ import annotations

import copy
import json
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomli_w

from builder.errors import ProfileError
from builder.profile import schema
from builder.profile.load import read_part
from builder.profile.source import Source
from tests.conftest import ROOT
from tests.support import Sandbox, tool

if TYPE_CHECKING:
    from jsonschema import Draft7Validator

PROFILES = sorted(path for path in (ROOT / "profiles").glob("*.toml") if "." not in path.stem)


@cache
def validator() -> Draft7Validator:
    # Imported here: jsonschema, as CycloneDX asks for it, compiles 39 grammars when it is imported (2.5 s).
    from jsonschema import Draft7Validator

    return Draft7Validator(json.loads(schema.text()))


WHOLE = """\
schema = 1
name = "desk"
extends = ["base"]
[target]
platform = "linux-x86_64"
accelerator = "cpu"
glibc = "2.28"
match = { chip = "AMD*" }
[packages]
requires = ["torch>=2"]
exclude-newer = 2025-07-01
exclude-newer-package = { torch = "2025-08-01" }
index = { torch = "here" }
build = { hivemind = ["setuptools"] }
[indexes]
here = "https://localhost/simple"
[env]
PLAIN = "1"
OMP_NUM_THREADS = { detect = "usable-cores", fallback = 4, fraction = 0.5, note = "so many" }
CALLERS = { default = "1", acknowledge = ["nothing-reads-it"] }
GONE = { unset = true }
[trainer]
command = ["python", "-m", "it"]
arguments = ["-v", { detect = "gpu-count", fallback = 0 }]
[[trainer.options]]
flag = "--config"
from = "CONFIG"
[supervise]
backoff = 5
memory-guard = { resident = 0.8 }
[supervise.restart.peers]
codes = [75]
patterns = ["lost"]
[[patches]]
package = "torch"
versions = "<3"
file = "patches/it.patch"
proof = "proofs/it.py"
why = "it is wrong"
"""

WRONG = {  # in the whole one, this -> that
    "a key that nobody knows": ("[target]", "tragte = 1\n[target]"),
    "another version": ("schema = 1", "schema = 2"),
    "no name": ('name = "desk"', ""),
    "a name that is a path": ('name = "desk"', 'name = "../desk"'),
    "one parent without a list": ('extends = ["base"]', 'extends = "base"'),
    "a platform that there is not": ("linux-x86_64", "linux-x86"),
    "an accelerator of another system": ('accelerator = "cpu"', 'accelerator = "mps"'),
    "cuda without its release": ('accelerator = "cpu"', 'accelerator = "cuda"'),
    "a release of cuda without cuda": ("[target]", '[target]\ncuda = "12.4"'),
    "no glibc": ('glibc = "2.28"', ""),
    "a glibc that is a number": ('"2.28"', "2.28"),
    "a macOS on Linux": ("[target]", '[target]\nmin-os = "14.0"'),
    "a target that is none": ("[target]", "[target]\nplatfrom = 1"),
    "a day that is none": ("2025-07-01", '"yesterday"'),
    "an index without a scheme": ("https://", ""),
    "an index name with a space": ("here =", '"over here" ='),
    "a variable that is a number": ('PLAIN = "1"', "PLAIN = 1"),
    "a variable of no shell": ("PLAIN", "PL-AIN"),
    "a variable that the script sets": ("PLAIN", "PATH"),
    "a variable that is two things": ('default = "1"', 'default = "1", value = "2"'),
    "a variable that is nothing": ("unset = true", 'note = "?"'),
    "a variable not unset": ("unset = true", "unset = false"),
    "something that is not detected": ("usable-cores", "cores"),
    "detection without a fallback": ("fallback = 4, ", ""),
    "more than all of it": ("fraction = 0.5", "fraction = 1.5"),
    "an unknown acknowledgement": ('"nothing-reads-it"', '"whatever"'),
    "no acknowledgement": ('["nothing-reads-it"]', "[]"),
    "an empty command": ('["python", "-m", "it"]', "[]"),
    "a command and a file": ("command =", 'file = "it.py"\ncommand ='),
    "an option without a variable": ('from = "CONFIG"', ""),
    "an option without a flag": ('flag = "--config"', 'flag = ""'),
    "a patch outside": ("patches/it.patch", "../it.patch"),
    "an absolute proof": ("proofs/it.py", "/proofs/it.py"),
    "a patch without a reason": ('why = "it is wrong"', ""),
    "a status that is none": ("75", "256"),
    "seconds in quotes": ("backoff = 5", 'backoff = "5"'),
    "more memory than there is": ("resident = 0.8", "resident = 1.8"),
}


@pytest.mark.slow
@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_the_built_in_profiles_fit_and_name_the_schema(path: Path) -> None:
    assert path.read_text().splitlines()[0] == f"#:schema ./{schema.FILE}"
    assert _problems(path.read_text()) == []


@pytest.mark.slow
def test_the_committed_schema_is_that_of_this_drydock() -> None:
    assert (ROOT / "profiles" / schema.FILE).read_text() == schema.text()
    validator().check_schema(json.loads(schema.text()))


def test_a_profile_with_everything_in_it_fits() -> None:
    assert _accepted(WHOLE)
    assert _problems(WHOLE) == []


@pytest.mark.slow
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_wrong_for_both(wrong: str) -> None:
    text = _changed(*WRONG[wrong])
    assert not _accepted(text)
    assert _problems(text)


@pytest.mark.slow
def test_the_schema_refuses_nothing_that_the_program_accepts() -> None:
    seen = 0
    for text in _mutants(tomllib.loads(WHOLE)):
        if _accepted(text):
            assert _problems(text) == [], text
            seen += 1
    assert seen > 100  # a mutant that both accept is what this is about


def test_every_key_is_explained() -> None:
    whole = json.loads(schema.text())
    silent = [
        f"{name}.{key}"
        for name, table in {"profile": whole, **whole["definitions"]}.items()
        for key, one in table.get("properties", {}).items()
        if "description" not in one and "description" not in whole["definitions"].get(_referred(one), {})
    ]
    assert silent == []


@pytest.mark.slow
def test_the_command_prints_writes_and_checks_it(sandbox: Sandbox) -> None:
    assert sandbox.drydock("profile", "schema").succeeded().stdout == schema.text()
    where = ["-o", "profiles/profile.schema.json"]
    sandbox.drydock("profile", "schema", "--check", *where).failed(1, f"hint: drydock profile schema {' '.join(where)}")
    assert sandbox.drydock("profile", "schema", *where).succeeded().stdout == "profiles/profile.schema.json\n"
    assert sandbox.drydock("profile", "schema", *where).succeeded().stdout == ""
    sandbox.drydock("profile", "schema", "--check", *where).succeeded()
    mine = sandbox.file("mine.json", "{}")
    sandbox.drydock("profile", "schema", "-o", "profiles/mine.json").failed(2, "was not made by Drydock")
    assert mine.read_text() == "{}"


@pytest.mark.slow
def test_taplo_agrees(tmp_path: Path) -> None:
    """taplo is what Even Better TOML asks; it follows the first line of a profile."""
    taplo = [*tool("taplo==0.9.3"), "taplo", "lint", "--no-auto-config"]
    (tmp_path / schema.FILE).write_text(schema.text())
    for path in PROFILES:
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "desk.toml").write_text(_directive(WHOLE))
    good = _run([*taplo, *map(str, tmp_path.glob("*.toml"))])
    assert good.returncode == 0, good.stderr
    for number, (this, that) in enumerate(WRONG.values()):
        (tmp_path / f"wrong-{number}.toml").write_text(_directive(_changed(this, that)))
    bad = _run([*taplo, *map(str, tmp_path.glob("wrong-*.toml"))])
    accepted = [name for number, name in enumerate(WRONG) if f"/wrong-{number}.toml" not in bad.stderr]
    assert accepted == [], bad.stderr


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def _directive(text: str) -> str:
    return f"#:schema ./{schema.FILE}\n{text}"


def _changed(this: str, that: str) -> str:
    assert WHOLE.count(this) >= 1
    return WHOLE.replace(this, that, 1)


def _accepted(text: str, name: str = "desk") -> bool:
    try:
        read_part(name, Source(f"{name}.toml", text))
    except ProfileError:
        return False
    return True


def _problems(text: str) -> list[str]:
    data = json.loads(json.dumps(tomllib.loads(text), default=lambda day: day.isoformat()))
    return [error.message for error in validator().iter_errors(data)]


def _referred(one: dict[str, Any]) -> str:
    return str(one.get("$ref", "")).rpartition("/")[2]


def _mutants(data: dict[str, Any]) -> Iterator[str]:
    """Profiles that differ from `data` in one place: another value, or nothing."""
    values = [
        "",
        "1",
        "cpu",
        "a b",
        "a-1",
        "../a",
        "2.28",
        "<2",
        "A",
        0,
        1,
        300,
        0.5,
        True,
        [],
        ["a"],
        {},
        {"unset": True},
    ]

    def places(table: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
        for key, value in table.items() if isinstance(table, dict) else enumerate(table):
            yield (*path, key)
            if isinstance(value, dict | list):
                yield from places(value, (*path, key))

    for path in places(data, ()):
        for value in [None, *values]:
            mutant = copy.deepcopy(data)
            parent: Any = mutant
            for key in path[:-1]:
                parent = parent[key]
            if value is None:
                del parent[path[-1]]
            else:
                parent[path[-1]] = value
            if mutant != data:  # true is 1, for Python and pydantic alike
                yield tomli_w.dumps(mutant)
