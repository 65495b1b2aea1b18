"""Every value of a profile arrives in the trainer byte for byte, under every shell, and runs nothing."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.lock import Artefact, Lock, LockedPatch, PatchedFile
from builder.plan import Plan, make_plan
from builder.profile import Profile
from builder.render import comment, delimiter, dotenv_quote, fold, python_literal, sh_quote
from builder.templates import rendered
from tests.support import SHELLS

SHA = "0" * 64
PATCH = "--- a/anchor/__init__.py\n+++ b/anchor/__init__.py\n@@ -1 +1 @@\n-a\n+b\n"

PATCHES = {"package": "anchor", "versions": ">=1", "file": "patches/a.patch", "proof": "proofs/a.py", "why": "it is"}

# What shells, here-documents, comments and printf stumble over, between arbitrary text.
HOSTILE = [
    "'", '"', "\\", "$(touch canary)", "`touch canary`", "${HOME}", "$HOME", "\n", "\r\n", "\n\n", "%s", "%n", "!!",
    "~",     "*", " ", "\t", "-n", "--", ";", "&", "|", "#", "DRYDOCK_END", "\nUSAGE\n", "'; touch canary; '", "\u00e9",
    "\u4e2d\u6587",    "\U0001f680", "\x7f", "\x01", "\x1b[31m", "{{ 7 * 7 }}", "{% raw %}", "#}",
]  # fmt: skip
TEXT = st.lists(
    st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
    max_size=6,
).map("".join)
WORD = TEXT.filter(bool)


def make(**changes: Any) -> Plan:
    """A plan of a small profile with `changes`, and a lock of one package with one patch."""
    data = {
        "schema": 1,
        "name": "small",
        "target": {"platform": "linux-x86_64", "accelerator": "cpu", "glibc": "2.17"},
        "python": {"version": "3.11"},
        "packages": {"requires": ["anchor"]},
        "trainer": {"command": ["python"]},
        "patches": [PATCHES],
        **changes,
    }
    anchor = Artefact(name="anchor", version="1.0", file="anchor-1.0-py3-none-any.whl", size=1, sha256=SHA)
    tool = anchor.model_copy(update={"name": "uv", "file": "uv-1.0-py3-none-any.whl"})
    file = PatchedFile(path="anchor/__init__.py", preimage=SHA, postimage=SHA)
    patch = LockedPatch(package="anchor", file="patches/a.patch", sha256=SHA, files=[file])
    lock = Lock(schema_=1, profile="small", digest="", uv=tool, patches=[patch], packages=[anchor])
    profile = Profile.model_validate(data)
    return make_plan(profile, lock, {**dict.fromkeys(profile.carried_files, "pass\n"), "patches/a.patch": PATCH})


def place(folder: Path, plan: Plan) -> Path:
    """Write the run script, and a store path that needs no build, whose python says what it was given."""
    env = folder / "home" / ".local/share/drydock/store" / plan.store_name
    (env / ".drydock").mkdir(parents=True, exist_ok=True)
    (env / ".drydock/manifest.json").write_text("{}")
    (env / "bin").mkdir(exist_ok=True)
    python = env / "bin/python"
    # env -0 is not in busybox; /proc shows what exec passed, to the byte
    python.write_text(
        '#!/bin/sh\ncat /proc/$$/environ\nprintf "\\0ARGV\\0"\nfor word do printf "%s\\0" "$word"; done\n'
    )
    python.chmod(0o755)
    script = folder / plan.profile.run_script
    script.write_text(rendered(plan)[plan.profile.run_script])
    return script


def run(folder: Path, shell: str, script: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    """Run a script under one of the shells, in `folder`, with a home there."""
    whole = {"HOME": str(folder / "home"), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", **env}
    return subprocess.run(
        [*SHELLS[shell], str(script), *arguments], env=whole, cwd=folder, capture_output=True, check=False
    )


def trained(folder: Path, shell: str, script: Path, *arguments: str, **env: str) -> tuple[dict[str, str], list[str]]:
    """The environment and the arguments that the trainer got."""
    done = run(folder, shell, script, "--", *arguments, **env)
    assert done.returncode == 0, (shell, done.stderr)
    variables, _, words = done.stdout.partition(b"\0ARGV\0")
    pairs = (pair.split(b"=", 1) for pair in variables.split(b"\0") if b"=" in pair)
    got = {name.decode(): value.decode() for name, value in pairs}
    return got, [word.decode() for word in words.split(b"\0")[:-1]]


hostile = functools.partial(
    settings,
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)


@hostile()
@given(value=TEXT, default=TEXT, note=TEXT, word=WORD, option=WORD, flag=WORD, text=TEXT, given_value=TEXT)
def test_any_text_in_any_field_arrives_and_runs_nothing(
    tmp_path: Path, value: str, default: str, note: str, word: str, option: str, flag: str, text: str, given_value: str
) -> None:
    plan = make(
        description=text,
        env={
            "VALUE": {"value": value, "note": note},
            "UNSET_BY_CALLER": {"default": default, "note": note},
            "SET_BY_CALLER": {"default": default},
            "GONE": {"unset": True},
        },
        trainer={
            "command": ["python", word],
            "arguments": [text],
            "needs": ".",
            "needs-hint": text,
            "options": [
                {"flag": flag, "from": "FROM_DEFAULT", "default": option},
                {"flag": flag, "from": "FROM_CALLER"},
            ],
        },
    )
    script = place(tmp_path, plan)
    caller = {"SET_BY_CALLER": given_value, "GONE": "still here", "FROM_CALLER": option}
    for shell in SHELLS:
        got, words = trained(tmp_path, shell, script, text, **caller)
        assert got["VALUE"] == value, shell
        assert got["UNSET_BY_CALLER"] == default, shell
        assert got["SET_BY_CALLER"] == given_value, shell
        assert "GONE" not in got, shell
        assert words == [word, text, flag, option, flag, option, text], shell
        assert not (tmp_path / "canary").exists(), shell


@hostile()
@given(value=TEXT, default=TEXT)
def test_the_printed_environment_reads_back_as_it_was(tmp_path: Path, value: str, default: str) -> None:
    plan = make(env={"VALUE": value, "DEFAULT": {"default": default}, "GONE": {"unset": True}})
    script = place(tmp_path, plan)
    reader = 'eval "$(sh "$1" --print-env)"; printf "%s\\0%s\\0%s\\0" "$VALUE" "$DEFAULT" "${GONE-gone}"'
    for shell in SHELLS:
        program = tmp_path / "reader.sh"
        program.write_text(reader)
        done = run(tmp_path, shell, program, str(script), GONE="here")
        assert done.stdout.decode().split("\0")[:3] == [value, default, "gone"], (shell, done.stderr)
    assert not (tmp_path / "canary").exists()


@hostile()
@given(value=TEXT)
def test_the_env_file_reads_back_in_a_shell_when_it_is_one_line(tmp_path: Path, value: str) -> None:
    (tmp_path / "x.env").write_text(f"VALUE={dotenv_quote(value)}\n")
    program = tmp_path / "reader.sh"
    program.write_text('set -a; . ./x.env; printf "%s\\0" "$VALUE"')
    for shell in SHELLS:
        done = run(tmp_path, shell, program)
        assert done.stdout.decode().split("\0")[0] == value, (shell, done.stderr)
    assert not (tmp_path / "canary").exists()


@given(TEXT)
def test_a_comment_is_one_line_of_printable_ascii(text: str) -> None:
    told = comment(text)
    assert told.isascii()
    assert "\n" not in told
    assert "\r" not in told
    assert told == "" or told.isprintable() or "\x1b" in text or any(ord(char) < 32 for char in text)


@given(st.lists(st.sampled_from(["DRYDOCK_END", "x", ""])).map("\n".join))
def test_a_here_document_never_ends_early(text: str) -> None:
    assert delimiter(text) not in text.splitlines()


@given(st.recursive(TEXT, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)))
def test_a_python_literal_is_what_it_was(value: Any) -> None:
    import ast

    assert ast.literal_eval(python_literal(value)) == value
    assert python_literal(value).isascii() or not isinstance(value, str)


def test_quoting_by_example() -> None:
    assert sh_quote("it's") == "'it'\\''s'"
    assert fold("a b") == "a b"
    assert dotenv_quote("0.0") == "0.0"


def test_an_option_is_left_out_when_empty_and_follows_its_conditions(tmp_path: Path) -> None:
    options = [
        {"flag": "--id", "from": "ID", "default": "me"},
        {"flag": "--org", "from": "ORG"},
        {"flag": "--contract", "from": "CONTRACT", "default": "0x1", "when": "ORG"},
        {"flag": "--peers", "from": "PEERS", "default": "p", "unless": "ORG"},
    ]
    script = place(tmp_path, make(trainer={"command": ["python"], "options": options}))
    for shell in SHELLS:
        assert trained(tmp_path, shell, script)[1] == ["--id", "me", "--peers", "p"]
        assert trained(tmp_path, shell, script, ID="")[1] == ["--peers", "p"]
        assert trained(tmp_path, shell, script, ORG="o")[1] == ["--id", "me", "--org", "o", "--contract", "0x1"]


def test_a_trainer_file_is_run_from_the_store_path(tmp_path: Path) -> None:
    script = place(tmp_path, make(trainer={"file": "trainers/a.py", "arguments": ["--x"]}))
    for shell in SHELLS:
        words = trained(tmp_path, shell, script, "--y")[1]
        assert words[0].endswith("-small/.drydock/trainers/a.py")
        assert words[1:] == ["--x", "--y"]


def test_what_would_let_another_python_in_is_removed(tmp_path: Path) -> None:
    script = place(tmp_path, make())
    leaks = {
        "PYTHONPATH": "x",
        "PYTHONHOME": "x",
        "PYTHONUSERBASE": "x",
        "__PYVENV_LAUNCHER__": "x",
        "VIRTUAL_ENV": "x",
    }
    for shell in SHELLS:
        got, _ = trained(tmp_path, shell, script, **leaks)
        assert not {"PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "__PYVENV_LAUNCHER__"} & got.keys()
        assert got["PYTHONNOUSERSITE"] == "1"
        assert got["VIRTUAL_ENV"].endswith("-small")
        assert got["PATH"].split(":")[0] == got["VIRTUAL_ENV"] + "/bin"


def test_a_missing_path_stops_the_trainer_with_its_hint(tmp_path: Path) -> None:
    trainer = {"command": ["python"], "needs": "it's/not there", "needs-hint": "go $(touch canary) `there`"}
    script = place(tmp_path, make(trainer=trainer))
    for shell in SHELLS:
        done = run(tmp_path, shell, script)
        assert done.returncode == 1
        assert "hint: go $(touch canary) `there`" in done.stderr.decode()
    assert not (tmp_path / "canary").exists()


def test_a_file_that_a_script_cannot_carry_is_refused() -> None:
    from builder.errors import ProfileError

    plan = make(trainer={"file": "trainers/a.py"})
    for text, words in (
        ("no newline", "does not end with a newline"),
        ("caf\u00e9\n", "line 1"),
        ("a\n\0\n", "line 2"),
    ):
        broken = Plan(plan.profile, plan.lock, plan.content, plan.index, {**plan.texts, "trainers/a.py": text})
        with pytest.raises(ProfileError, match=words):
            rendered(broken)


def test_the_patch_tool_compiles_whatever_a_patch_says() -> None:
    plan = make()
    hostile_patch = "'''\n\"\"\"\n\\ {{ }} {% x %}\n" + PATCH
    odd = Plan(plan.profile, plan.lock, plan.content, plan.index, {**plan.texts, "patches/a.patch": hostile_patch})
    names: dict[str, Any] = {"__name__": "read"}
    exec(compile(rendered(odd)["fix_small_patches.py"], "fix", "exec"), names)
    assert names["TEXTS"] == {"patches/a.patch": hostile_patch}


def test_all_shells_that_ci_installs_are_here() -> None:
    if os.environ.get("CI"):
        assert set(SHELLS) == {"dash", "bash", "bash-posix", "busybox", "mksh", "yash", "zsh"}
