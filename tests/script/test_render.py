"""Every value of a profile arrives in the trainer byte for byte, under every shell, and runs nothing."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from builder.embedded import installer
from builder.embedded.hashes import sha256
from builder.embedded.patches import parse_patch
from builder.errors import ProfileError
from builder.isolation import LEAKS
from builder.lock.model import Artefact, Lock, LockedPatch, PatchedFile
from builder.profile.model import Generated, Profile
from builder.script import machinery
from builder.script.parts import parts, plan_json
from builder.script.plan import Plan, make_plan
from builder.script.quoting import comment, delimiter, dotenv_quote, fold, python_literal, sh_quote
from builder.script.templates import rendered
from tests.support import SHELLS
from tests.support.scripts import Desk

SHA = "0" * 64
PATCH = "--- a/anchor/__init__.py\n+++ b/anchor/__init__.py\n@@ -1 +1 @@\n-a\n+b\n"
PATCHES = {"package": "anchor", "versions": ">=1", "file": "patches/a.patch", "proof": "proofs/a.py", "why": "it is"}

# What shells, here-documents, comments and printf stumble over, between arbitrary text.
HOSTILE = [
    "'", '"', "\\", "$(touch canary)", "`touch canary`", "${HOME}", "$HOME", "\n", "\r\n", "\n\n", "%s", "%n", "!!",
    "~", "*", " ", "\t", "-n", "--", ";", "&", "|", "#", "DRYDOCK_END", "\nUSAGE\n", "'; touch canary; '", "\u00e9",
    "\u4e2d\u6587", "\U0001f680", "\x7f", "\x01", "\x1b[31m", "{{ 7 * 7 }}", "{% raw %}", "#}", "a[$(touch canary)]",
    "\\\n", "\\'", "$'\\x41'", "\ufeff", "\u2028", "\x80", "=", "(", ")", "<", ">", "\\0", "\\c", "^", "{a,b}", "$(",
]  # fmt: skip
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXT = st.lists(st.sampled_from(HOSTILE) | st.text(CHARACTERS, max_size=8), max_size=6).map("".join)
WORD = TEXT.filter(bool)


def hostile(examples: int) -> settings:
    """Settings of a test that runs each example under all shells."""
    health = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=examples, deadline=None, suppress_health_check=health, derandomize=True)


def here() -> str:
    """The platform of this machine, for scripts that are to build."""
    return {"x86_64": "linux-x86_64", "aarch64": "linux-arm64"}.get(os.uname().machine, "linux-x86_64")


def make(*packages: Artefact, texts: dict[str, str] | None = None, **changes: Any) -> Plan:
    """A plan of a small profile with `changes`, and a lock of `packages` (or one) with one patch."""
    data = {
        "schema": 1,
        "name": "small",
        "target": {"platform": here(), "accelerator": "cpu", "glibc": "2.17"},
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
    lock = Lock(schema_=1, profile="small", digest="", uv=tool, patches=[patch], packages=[anchor, *packages])
    profile = Profile.model_validate(data)
    carried = {**dict.fromkeys(profile.carried_files, "pass\n"), "patches/a.patch": PATCH}
    return make_plan(profile, lock, {**carried, **(texts or {})})


def isolated(desk: Desk) -> dict[str, str]:
    """What a trainer's environment has besides its settings; variables that a shell adds are not counted."""
    return {
        **desk.environment,
        "PYTHONNOUSERSITE": "1",
        "VIRTUAL_ENV": str(desk.env),
        "PATH": f"{desk.env}/bin:{desk.environment['PATH']}",
    }


OF_THE_SHELL = {"_", "PWD", "OLDPWD", "SHLVL", "LOGNAME"}


def without_the_shells(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in OF_THE_SHELL}


# --- any text in any field -----------------------------------------------------------------------------------------


@pytest.mark.slow
@hostile(20)
@given(st.lists(TEXT, min_size=6, max_size=6), st.lists(WORD, min_size=7, max_size=7), TEXT)
@example(
    values=["a\n", "\n", "'", "\\", "", "$(touch canary)"], words=["-n", "--", "a\n", "'", "\\", "!", "("], needs="-e"
)
def test_any_text_in_any_field_arrives_and_runs_nothing(
    tmp_path: Path, values: list[str], words: list[str], needs: str
) -> None:
    fixed, default, mine, note, description, hint = values
    command, argument, flag, first, second, third, added = words
    there = needs.replace("/", "").strip(".").encode()[:200].decode(errors="ignore") or "."
    shutil.rmtree(tmp_path / "w", ignore_errors=True)
    plan = make(
        description=description,
        env={
            "FIXED": {"value": fixed, "note": note},
            "BY_DEFAULT": {"default": default, "note": note},
            "BY_CALLER": {"default": default, "note": note},
            "GONE": {"unset": True},
        },
        trainer={
            "command": ["python", command],
            "arguments": [argument],
            "needs": there,
            "needs-hint": hint,
            "options": [
                {"flag": flag, "from": "FROM_DEFAULT", "default": first},
                {"flag": flag, "from": "FROM_CALLER", "default": first},
                {"flag": second, "from": "EMPTY", "default": first},
            ],
        },
    )
    desk = Desk.of(tmp_path / "w", plan).built()
    if there != ".":
        (desk.folder / there).touch()
    caller = {"BY_CALLER": mine, "GONE": "still here", "FROM_CALLER": third, "EMPTY": ""}
    environment = {**isolated(desk), **caller, "FIXED": fixed, "BY_DEFAULT": default}
    del environment["GONE"]
    notes = [("FIXED", fixed), ("BY_DEFAULT", default), *([("BY_CALLER", default)] if mine == default else [])]
    for shell in SHELLS:
        told = desk.train(shell, added, **caller)
        assert without_the_shells(told.environment) == environment, shell
        assert told.arguments == [command, argument, flag, first, flag, third, added], shell
        said = "".join(f"drydock: note: {name}={value}: {note}\n" for name, value in notes) if note else ""
        assert told.stderr == said, shell
        helped = desk.run(shell, "--help")
        assert (helped.returncode, helped.stderr) == (0, b""), shell
        assert helped.stdout.decode("ascii").endswith("to build with\n"), shell
    assert not list(tmp_path.rglob("canary"))


@pytest.mark.slow
@hostile(12)
@given(values=st.lists(TEXT, min_size=4, max_size=4))
@example(values=["a\n", "\n", "'", "\\"])
def test_the_printed_environment_reads_back_as_it_was(tmp_path: Path, values: list[str]) -> None:
    fixed, default, mine, before = values
    shutil.rmtree(tmp_path / "w", ignore_errors=True)
    env = {
        "FIXED": fixed,
        "BY_DEFAULT": {"default": default},
        "BY_CALLER": {"default": default},
        "GONE": {"unset": True},
    }
    desk = Desk.of(tmp_path / "w", make(env=env))
    desk.program("python", "#!/bin/sh\ncat /proc/$$/environ\n")
    caller = {"BY_CALLER": mine, "FIXED": before, "GONE": "still here", "PYTHONPATH": "x"}
    expected = {**isolated(desk), "FIXED": fixed, "BY_DEFAULT": default, "BY_CALLER": mine}
    printed = set()
    for shell in SHELLS:
        done = desk.run(shell, "--print-env", **caller)
        assert (done.returncode, done.stderr) == (0, b"")
        printed.add(done.stdout)
        # Read back by a shell of the same kind, in which nothing is as it should be.
        reader = f'eval "$({" ".join(SHELLS[shell])} "$0" --print-env)"; exec python'
        read = desk.shell(shell, "-c", reader, str(desk.script), **caller)
        pairs = dict(pair.split("=", 1) for pair in read.stdout.decode().split("\0") if pair)
        assert without_the_shells(pairs) == expected, (shell, read.stderr)
    assert len(printed) == 1
    assert not list(tmp_path.rglob("canary"))


@hostile(20)
@given(values=st.lists(TEXT, min_size=1, max_size=5), note=TEXT)
@example(values=["a\n", "\n\n", "'\n", "it's\\", ""], note="\nCANARY=1")
def test_the_env_file_reads_back_in_a_shell(tmp_path: Path, values: list[str], note: str) -> None:
    env: dict[str, Any] = {f"V{number}": {"value": value, "note": note} for number, value in enumerate(values)}
    plan = make(env={**env, "BY_DEFAULT": {"default": values[0]}, "GONE": {"unset": True}})
    (tmp_path / "small.env").write_text(rendered(plan)["small.env"], encoding="utf-8")
    names = [*(f"V{number}" for number in range(len(values))), "BY_DEFAULT"]
    shown = " ".join(f'"${name}"' for name in names)
    (tmp_path / "reader.sh").write_text(f'set -eua; . ./small.env; printf "%s\\0" {shown} "${{CANARY-none}}"')
    desk = Desk(tmp_path, "", "unused.sh", "unused")
    for shell in SHELLS:
        done = desk.shell(shell, "reader.sh")
        assert done.stdout.decode().split("\0") == [*values, values[0], "none", ""], (shell, done.stderr)
    assert not list(tmp_path.rglob("canary"))


ASCII = st.lists(
    st.sampled_from([text for text in HOSTILE if text.isascii()])
    | st.text(st.characters(max_codepoint=127, exclude_characters="\0"), max_size=8),
    max_size=8,
).map(lambda texts: "".join(texts) + "\n")
IN_URLS = ["'", '"', "$(touch${IFS}canary)", "`touch`", "\\", "$HOME", "*", "?", "~", "!", "#", ";", "|", "(", "%41"]
URLS = st.lists(st.sampled_from(IN_URLS), max_size=6).map("".join)


@pytest.mark.slow
@hostile(4)
@given(carried=ASCII, second=ASCII, url=URLS)
@example(carried="DRYDOCK_END\n", second="\n", url="'")
@example(carried="\\\n\r\n\x01\x7f\t \n", second="DRYDOCK_END_0\n$(touch canary)\n", url="$(touch${IFS}canary)")
def test_whatever_a_script_carries_is_unpacked_to_the_byte(tmp_path: Path, carried: str, second: str, url: str) -> None:
    special = Artefact(name="special", version="1", file="special-1.tar.gz", size=1, sha256=SHA, index="own-index")
    texts = {"proofs/a.py": carried, "trainers/deep/b.py": second}
    plan = make(
        special,
        texts=texts,
        indexes={"own-index": f"https://example.org/{url}"},
        packages={"requires": ["anchor"], "index": {"special": "own-index"}},
        trainer={"file": "trainers/deep/b.py"},
    )
    shutil.rmtree(tmp_path / "w", ignore_errors=True)
    for shell in SHELLS:
        # A home in which nothing is simple; the trainer is the last thing that a path is quoted for.
        desk = Desk.of(tmp_path / "w" / shell / "it's $(touch canary) \u00e9*", plan)
        (call,) = desk.build(shell)
        assert call[call.index("venv") + 1 :][:2] == ["--quiet", "--no-project"], shell
        unpacked = desk.env / ".drydock"
        assert {name: (unpacked / name).read_bytes().decode() for name in plan.texts} == plan.texts, shell
        assert json.loads((unpacked / "plan.json").read_text()) == json.loads(plan_json(plan))
        content = machinery.decoded((unpacked / "machinery").read_text())
        assert content == machinery.machinery(()), shell
        assert (unpacked / "machinery.sha256").read_text() == sha256(content), shell
        written = json.loads((unpacked / "plan.json").read_text())
        one, two = installer.requests(written, written["plan"]["packages"], {})
        common = ["--prefix", ".", "--python", "/py", "--require-hashes", "--only-binary", ":all:"]
        common += ["--index-strategy", "unsafe-best-match"]
        builds = ["--no-binary", "special", "--require-build-hashes"]
        for request, lines, more in ((one, "anchor==1.0", []), (two, "special==1", builds)):
            arguments = installer.arguments(written, request, "/py", tmp_path)
            assert arguments == [*common, *more, "-r", f"{tmp_path}/requirements.txt"], shell
            assert (tmp_path / "requirements.txt").read_text().startswith(f"{lines} --hash=sha256:"), shell
        environment = installer.environment(two, {"A": "b"})
        assert (environment["A"], environment["UV_DEFAULT_INDEX"]) == ("b", f"https://example.org/{url}")
        assert [path.name for path in desk.store.iterdir()] == [plan.store_name]
    assert not list(tmp_path.rglob("canary"))


def own_index(tmp_path: Path) -> tuple[Artefact, Mapping[str, Any]]:
    """A package of another index, and what a script carries of a plan with it."""
    special = Artefact(name="special", version="1", file="special-1-py3-none-any.whl", size=1, sha256=SHA, index="own")
    plan = make(special, indexes={"own": "https://example.org/"}, packages={"index": {"special": "own"}})
    return special, json.loads(parts(plan)["plan.json"])


def test_folders_of_wheels_and_mirrors_reach_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, written = own_index(tmp_path)
    wheels = [tmp_path / "one", tmp_path / "two"]
    for folder in wheels:
        folder.mkdir()
    links = f"{wheels[0]} file://{wheels[1]} {tmp_path}/gone https://example.org/wheels"
    monkeypatch.delenv("UV_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_FIND_LINKS", links)
    monkeypatch.setenv("DRYDOCK_INDEX_OWN", "http://127.0.0.1:1/it's/")
    one, two = installer.requests(written, written["plan"]["packages"], os.environ)
    given = installer.environment(one, os.environ)["UV_FIND_LINKS"].split(",")
    assert given == [str(wheels[0]), f"file://{wheels[1]}", "https://example.org/wheels"]
    assert two.url == "http://127.0.0.1:1/it's/"


@pytest.mark.parametrize("variable", ["UV_FIND_LINKS", "PIP_FIND_LINKS"])
@pytest.mark.parametrize("form", ["{}", "file://{}", "/nowhere {} https://example.org/wheels"])
def test_a_folder_that_has_the_wheels_stands_in_for_their_index(tmp_path: Path, variable: str, form: str) -> None:
    special, written = own_index(tmp_path)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    links = {variable: form.replace(" ", "," if variable[0] == "U" else " ").format(wheels)}
    asked = list(installer.requests(written, written["plan"]["packages"], links))
    assert [request.url for request in asked] == ["", "https://example.org/"]
    (wheels / special.file).touch()
    (only,) = installer.requests(written, written["plan"]["packages"], links)
    assert only.url == ""
    assert only.packages[-1]["name"] == "special"


def test_each_index_is_asked_for_its_own_packages_with_every_hash(tmp_path: Path) -> None:
    _, written = own_index(tmp_path)
    one, two = installer.requests(written, written["plan"]["packages"], {})
    assert [package["name"] for package in two.packages] == ["special"]
    assert "special" not in [package["name"] for package in one.packages]
    installer.arguments(written, two, "/py", tmp_path)
    assert (tmp_path / "requirements.txt").read_text() == f"special==1 --hash=sha256:{SHA}\n"
    assert not (tmp_path / "build-requirements.txt").exists()


# --- names ---------------------------------------------------------------------------------------------------------

# What one shell or another treats in its own way (their manuals, "Shell Variables", "Parameters").
SPECIAL = """
    ARGC BASHOPTS BASHPID BASH_ALIASES BASH_ARGC BASH_ARGV BASH_ARGV0 BASH_CMDS BASH_COMMAND BASH_COMPAT BASH_ENV
    BASH_LINENO BASH_SOURCE BASH_SUBSHELL BASH_VERSINFO BASH_VERSION BASH_XTRACEFD BAUD CDPATH CHILD_MAX COLUMNS
    COPROC CPUTYPE DIRSTACK DIRSTACKSIZE EDITOR EGID EMACS ENV EPOCHREALTIME EPOCHSECONDS ERRNO EUID EXECIGNORE
    FCEDIT FIGNORE FPATH FUNCNAME FUNCNEST GID GLOBIGNORE GROUPS HISTCHARS HISTCMD HISTCONTROL HISTFILE HISTFILESIZE
    HISTIGNORE HISTSIZE HOME HOSTNAME HOSTTYPE IFS IGNOREEOF INPUTRC KEYBOARD_HACK KEYTIMEOUT KSHEGID KSHGID KSHUID
    KSH_VERSION LANG LC_ALL LC_COLLATE LC_CTYPE LC_MESSAGES LC_NUMERIC LC_TIME LINENO LINES LISTMAX LOGCHECK LOGNAME
    MACHTYPE MAIL MAILCHECK MAILPATH MANPATH MAPFILE MODULE_PATH NLSPATH NULLCMD OLDPWD OPTARG OPTERR OPTIND OSTYPE
    PATHSEP PGRP PIPESTATUS POSIXLY_CORRECT POSTEDIT PPID PROMPT PROMPT_COMMAND PS1 PS2 PS3 PS4 PSVAR PWD RANDOM
    READNULLCMD REPLY REPORTTIME RPROMPT RPS1 SAVEHIST SECONDS SHELL SHELLOPTS SHLVL SPROMPT SRANDOM STTY TERM
    TERMINFO TIMEFMT TIMEFORMAT TMOUT TMPDIR TRY_BLOCK_ERROR TTY TTYIDLE UID USER USERNAME USER_ID VENDOR WATCH
    WORDCHARS YASH_LOADPATH ZDOTDIR ZSH_ARGZERO ZSH_EVAL_CONTEXT ZSH_SUBSHELL _ aliases argv cdpath commands fignore
    fpath functions histchars jobtexts mailpath manpath mapfile module_path modules options parameters path
    pipestatus prompt psvar signals status watch
""".split()  # noqa: SIM905 # a page of names


def refusal(**tables: Any) -> str | None:
    """Why a profile is refused; None where it is not."""
    try:
        make(**tables)
    except ValidationError as error:
        return str(error)
    return None


@pytest.mark.slow
def test_a_variable_of_any_name_arrives_or_is_refused(tmp_path: Path) -> None:
    free = [name for name in SPECIAL if refusal(env={name: "x"}) is None]
    assert len(free) > 60
    # In an arithmetic context this runs a command; a locale is left alone, or the shells speak of that only.
    env = {name: "C.UTF-8" if name.startswith(("LC_", "LANG")) else "a[$(touch canary)] 1" for name in free}
    desk = Desk.of(tmp_path, make(env=env)).built()
    for shell in SHELLS:
        told = desk.train(shell)
        assert {name: told.environment.get(name) for name in free} == env, shell
        done = desk.run(shell, "--print-env")
        assert (done.returncode, done.stderr) == (0, b""), shell
    assert not (tmp_path / "canary").exists()


def test_the_names_that_scripts_use_themselves_are_refused() -> None:
    index = Artefact(name="special", version="1", file="special-1.tar.gz", size=1, sha256=SHA, index="own")
    mac = {"platform": "macos-arm64", "accelerator": "mps", "min-os": "14.0"}
    tables: dict[str, Any] = {
        "indexes": {"own": "https://example.org/"},
        "packages": {"index": {"special": "own"}},
        "trainer": {"command": ["python"], "options": [{"flag": "-a", "from": "A", "when": "B", "unless": "C"}]},
    }
    scripts = [rendered(make(index, **tables, **target))["run_small.sh"] for target in ({}, {"target": mac})]
    # Without what is in here-documents and comments.
    text = "".join(re.sub(r"<<'(\w+)'(.*?\n).*?\n\1\n", r"\2", script, flags=re.DOTALL) for script in scripts)
    text = re.sub(r"^ *#.*", "", text, flags=re.MULTILINE)
    text = re.sub(r"-c '.*?'", "", text, flags=re.DOTALL)  # and of Python
    assigned = re.findall(r"(?:^|[\s;&|({])([A-Za-z_]\w*)=", text, re.MULTILINE)
    names = {*assigned, *re.findall(r"\bfor (\w+) in", text), *re.findall(r"\bread -r (\w+)", text)}
    settings_of_programs = {name for name in names if name.isupper()}
    allowed = {"IFS", "PATH", "PYTHONNOUSERSITE", "VIRTUAL_ENV", "DRYDOCK_HOME", "DRYDOCK_PYTHON", "DRYDOCK_IMAGE"}
    allowed |= {"UV_NO_CONFIG", "UV_PYTHON_DOWNLOADS", "LC_ALL"}  # for one command
    assert settings_of_programs <= allowed
    own = names - settings_of_programs
    assert {"_name", "_key", "_env", "_value", "_found", "_candidate", "_collector", "_line"} <= own
    assert all(re.fullmatch("_[a-z0-9_]+", name) for name in own)
    for name in sorted(own):
        assert refusal(env={name: "x"}) is not None, name
        options = [{"flag": "-a", "from": name}]
        assert refusal(trainer={"command": ["python"], "options": options}) is not None, name


def test_what_the_caller_exported_reaches_the_trainer_unchanged(tmp_path: Path) -> None:
    words = "name key env store stage python uv found value line host action roots rest quoted parts index_url"
    exported = {word: f"the caller's {word}" for word in words.split()}
    for shell in SHELLS:
        desk = Desk.of(tmp_path / shell, make()).built()
        told = desk.train(shell, **exported).environment
        assert {word: told.get(word) for word in exported} == exported, shell


@pytest.mark.slow
def test_a_program_of_any_name_is_started(tmp_path: Path) -> None:
    for number, name in enumerate(["my trainer", "it's", "$(touch canary)", "*", "\u00e9", "a=b", "~", "%s", "\\"]):
        desk = Desk.of(tmp_path / str(number), make(trainer={"command": [name]})).built()
        shutil.copy(desk.env / "bin/python", desk.env / "bin" / name)
        for shell in SHELLS:
            assert desk.train(shell, "x").arguments == ["x"], (shell, name)
    assert not list(tmp_path.rglob("canary"))


# --- the trainer ---------------------------------------------------------------------------------------------------


def test_an_option_is_left_out_when_empty_and_follows_its_conditions(tmp_path: Path) -> None:
    options = [
        {"flag": "--id", "from": "ID", "default": "me"},
        {"flag": "--org", "from": "ORG"},
        {"flag": "--contract", "from": "CONTRACT", "default": "0x1", "when": "ORG"},
        {"flag": "--peers", "from": "PEERS", "default": "p", "unless": "ORG"},
    ]
    desk = Desk.of(tmp_path, make(trainer={"command": ["python"], "options": options})).built()
    for shell in SHELLS:
        assert desk.train(shell).arguments == ["--id", "me", "--peers", "p"]
        assert desk.train(shell, ID="").arguments == ["--peers", "p"]
        assert desk.train(shell, ORG="o").arguments == ["--id", "me", "--org", "o", "--contract", "0x1"]
        assert desk.train(shell, ORG="o", CONTRACT="").arguments == ["--id", "me", "--org", "o"]
        assert desk.train(shell, ORG="", PEERS="a b", CONTRACT="c").arguments == ["--id", "me", "--peers", "a b"]


def test_a_trainer_file_is_run_from_the_store_path(tmp_path: Path) -> None:
    desk = Desk.of(tmp_path, make(trainer={"file": "trainers/a.py", "arguments": ["--x"]})).built()
    for shell in SHELLS:
        assert desk.train(shell, "--y").arguments == [f"{desk.env}/.drydock/trainers/a.py", "--x", "--y"]


def test_arguments_of_the_caller_arrive_as_they_are(tmp_path: Path) -> None:
    desk = Desk.of(tmp_path, make()).built()
    for shell in SHELLS:
        for arguments in ([], [""], ["", " ", "--", "--help", "-n", "*"], HOSTILE):
            assert desk.train(shell, *arguments).arguments == arguments, shell


def test_what_would_let_another_python_in_is_removed(tmp_path: Path) -> None:
    desk = Desk.of(tmp_path, make()).built()
    for shell in SHELLS:
        told = desk.train(shell, **dict.fromkeys([*LEAKS, "VIRTUAL_ENV", "PYTHONNOUSERSITE"], "x"))
        assert without_the_shells(told.environment) == isolated(desk), shell


def test_a_missing_path_stops_the_trainer_with_its_hint(tmp_path: Path) -> None:
    trainer = {"command": ["python"], "needs": "it's/not there", "needs-hint": "go $(touch canary) `there`"}
    desk = Desk.of(tmp_path, make(trainer=trainer)).built()
    for shell in SHELLS:
        done = desk.run(shell)
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr.decode() == (
            f"drydock: error: there is no it's/not there in {tmp_path}\ndrydock:   hint: go $(touch canary) `there`\n"
        )
    assert not (tmp_path / "canary").exists()


# --- what cannot travel --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no newline", "trainers/a.py does not end with a newline"),
        ("", "trainers/a.py does not end with a newline"),
        ("caf\u00e9\n", "trainers/a.py, line 1: only ASCII"),
        ("a\n\0\n", "trainers/a.py, line 2: only ASCII"),
    ],
)
def test_a_file_that_a_script_cannot_carry_is_refused(text: str, words: str) -> None:
    plan = make(trainer={"file": "trainers/a.py"}, texts={"trainers/a.py": text})
    with pytest.raises(ProfileError, match=words):
        rendered(plan)


# --- the filters ---------------------------------------------------------------------------------------------------


@given(TEXT)
def test_a_comment_is_one_line_of_printable_ascii(text: str) -> None:
    told = comment(text)
    assert told.isascii()
    assert told.isprintable()
    assert not text.isascii() or not text.isprintable() or told.split() == text.split()


def test_a_comment_says_what_it_can() -> None:
    assert comment(" two\nlines\x1b[31m and \u00e9\x7f ") == "two lines\\x1b[31m and \\xe9\\x7f"


@given(st.lists(st.sampled_from(["DRYDOCK_END", "x", "", "\r", "DRYDOCK_END_"])).map("\n".join))
def test_a_here_document_never_ends_early(text: str) -> None:
    once = delimiter(text)
    assert once not in text.split("\n")
    assert delimiter(f"{text}\n{once}\n") not in [*text.split("\n"), once]
    assert re.fullmatch(r"\w+", once)


@given(st.recursive(TEXT, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)))
def test_a_python_literal_is_what_it_was(value: Any) -> None:
    assert ast.literal_eval(python_literal(value)) == value


@given(st.lists(st.from_regex(r"[A-Z_]{1,40}", fullmatch=True)))
def test_folding_keeps_the_words(words: list[str]) -> None:
    folded = fold(" ".join(words))
    assert folded.replace(" \\\n", " ").split() == words
    assert all(len(line) < 150 for line in folded.split("\n"))


def test_quoting_by_example() -> None:
    assert (sh_quote("it's"), sh_quote("")) == ("'it'\\''s'", "''")
    assert [dotenv_quote(text) for text in ("0.0", "a b", "", "it's $5")] == ["0.0", "'a b'", "''", '"it\'s \\$5"']
    # In single quotes, systemd and python-dotenv take a backslash for something else than sh does.
    assert dotenv_quote("a\\b") == '"a\\\\b"'
    assert fold("a b") == "a b"


# --- fix_*_patches.py ----------------------------------------------------------------------------------------------


@settings(max_examples=20, derandomize=True)
@given(ASCII, st.sampled_from(["'''\n", '"""\n', "\\\n", "{{ }} {% x %}\n"]))
def test_the_patch_tool_has_the_text_of_any_patch(before: str, odd: str) -> None:
    text = before + odd + PATCH
    tool = rendered(make(texts={"patches/a.patch": text}), standalone=True)["fix_small_patches.py"]
    names: dict[str, Any] = {"__name__": "read"}
    exec(compile(tool, "fix_small_patches.py", "exec"), names)
    assert names["TEXTS"] == {"patches/a.patch": text}
    assert [patch["file"] for patch in names["PATCHES"]] == ["patches/a.patch"]
    assert [file.path for file in parse_patch(PATCH)] == [
        file["path"] for file in names["PATCHES"][0]["releases"][0]["files"]
    ]


def test_the_patch_tool_is_there_where_something_is_patched_and_it_is_asked_for() -> None:
    plan = make()
    bare = Plan(plan.profile, plan.lock.model_copy(update={"patches": []}), plan.content, plan.index, plan.texts)
    assert set(rendered(bare)) == {"run_small.sh", "small.env", "fix_small_dependencies.sh"}
    assert set(rendered(plan)) == set(rendered(bare)) == set(rendered(bare, standalone=True))
    assert set(rendered(plan, standalone=True)) == {*rendered(bare), "fix_small_patches.py"}
    named = plan.profile.model_copy(update={"generated": Generated.model_validate({"fix-patches": "fix_it.py"})})
    assert set(rendered(dataclasses.replace(plan, profile=named))) == {*rendered(bare), "fix_it.py"}


def test_all_shells_that_ci_installs_are_here() -> None:
    if os.environ.get("CI"):
        assert set(SHELLS) == {"dash", "bash", "bash-posix", "busybox", "mksh", "yash", "zsh", "zsh-sh"}
