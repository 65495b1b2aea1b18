"""The command line as a user meets it: what it prints where, and with which status it ends."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from builder.cli import cli
from builder.cli.examples import EXAMPLES
from builder.cli.help import INTERNAL, VARIABLES
from tests.conftest import ROOT
from tests.support import Sandbox
from tests.support.waiting import LONG
from tests.support.wheels import make_wheel

DRYDOCK = [sys.executable, "-m", "builder"]
COMMANDS = [
    "add",
    "audit",
    "bench",
    "bisect",
    "build",
    "bundle",
    "cache",
    "completions",
    "config",
    "deploy",
    "diff",
    "doctor",
    "env",
    "export",
    "generation",
    "help",
    "image",
    "import",
    "init",
    "kernel",
    "link",
    "lock",
    "outdated",
    "patch",
    "profile",
    "pull",
    "push",
    "remove",
    "render",
    "replay",
    "report",
    "rerun",
    "run",
    "runs",
    "self",
    "service",
    "shell",
    "sources",
    "status",
    "store",
    "tree",
    "undo",
    "update",
    "verify",
    "why",
]


# --- help, version, wrong use --------------------------------------------------------------------------------------


def test_help_names_every_command_and_goes_to_stdout(built: Sandbox) -> None:
    helped = built.drydock("--help").succeeded()
    assert helped.stderr == ""
    assert helped.stdout.startswith("Usage: drydock ")
    listed = re.findall(r"^  ([a-z]+) ", helped.stdout.partition("Environments:")[2], re.MULTILINE)
    assert sorted(listed) == COMMANDS


def test_the_overviews_are_whole_sentences_at_80_columns() -> None:
    groups = [[], *([name] for name in COMMANDS if isinstance(cli.get_command(click.Context(cli), name), click.Group))]
    assert len(groups) > 6
    for group in groups:
        helped = CliRunner(env={"COLUMNS": "80"}).invoke(cli, [*group, "--help"])
        listed = re.findall(r"^  ([a-z]+) +(\S.*)$", helped.stdout.partition("-h, --help")[2], re.MULTILINE)
        assert listed
        assert [line for line in listed if not line[1].endswith(".") or line[1].endswith("...")] == []


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(built: Sandbox, command: str) -> None:
    """Started as a user does: most other tests start the program warm."""
    helped = built.run([*DRYDOCK, command, "-h"]).succeeded()
    assert helped.stdout.startswith(f"Usage: drydock {command} ")
    assert helped.stderr == ""


def test_the_installed_command_tells_its_version(built: Sandbox) -> None:
    command = shutil.which("drydock", path=str(Path(sys.executable).parent))
    assert command is not None
    assert built.run([command, "--version"]).succeeded().stdout == f"drydock, version {version('drydock-env')}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "nonsense"),
        (["--nonsense"], "--nonsense"),
        (["build", "--nonsense"], "--nonsense"),
        (["build", "small", "more"], "more"),
        (["build", "small", "--cross", "there", "--dry-run"], "do not go together"),
        (["lock", "small", "--upgrade"], "--upgrade"),
        (["profile", "show"], "NAME"),
        (["render", "small", "cpu", "--out", "there"], "--out goes with exactly one profile"),
    ],
)
def test_wrong_use_is_status_2_and_does_nothing(built: Sandbox, arguments: list[str], words: str) -> None:
    before = sorted(built.work.rglob("*"))
    refused = built.drydock(*arguments).failed(2, words)
    assert refused.stdout == ""
    assert sorted(built.work.rglob("*")) == before


def test_no_command_at_all_is_wrong_use_and_shows_the_help(built: Sandbox) -> None:
    refused = built.drydock().failed(2, "Usage: drydock", "Environments:")
    assert refused.stdout == ""


# --- profiles ------------------------------------------------------------------------------------------------------


def test_the_list_has_the_users_profiles_beside_the_built_in_ones(built: Sandbox) -> None:
    listed = built.drydock("profile", "list", env={"COLUMNS": "60"}).succeeded()
    assert listed.stderr == ""
    rows = {line.split()[0]: line for line in listed.stdout.splitlines()}
    assert {"base", "rl-swarm", "m4", "m4-upstream", "arm64", "cuda", "cpu", "cpu-swarm", "small"} <= set(rows)
    assert "to extend" in rows["base"]
    assert re.fullmatch(r"small +linux-x86_64, cpu +a small one", rows["small"])


def test_the_list_fits_a_terminal(built: Sandbox) -> None:
    ours, theirs = pty.openpty()
    for columns in (60, 80, 120):
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        env = {**built.environment, "TERM": "xterm", "NO_COLOR": "1"}
        command = [*DRYDOCK, "profile", "list"]
        with subprocess.Popen(command, env=env, cwd=built.work, stdout=theirs, stderr=subprocess.PIPE) as process:
            seen = b""
            while process.poll() is None or select.select([ours], [], [], 0)[0]:
                if select.select([ours], [], [], 0.05)[0]:  # which holds a few kilobytes
                    seen += os.read(ours, 65536)
            assert process.stderr is not None
            said = process.stderr.read()
        lines = seen.decode().splitlines()
        assert lines[0].split()[:2] == ["PROFILE", "FOR"]
        assert next(line for line in lines[1:] if line[0] != " ").split()[0] == "small", "one's own comes first"
        assert max(map(len, lines)) < columns
        assert lines.index(next(line for line in lines if line.startswith("base "))) > lines.index(
            next(line for line in lines if line.startswith("mlx "))
        ), "what is only to extend comes last"
        assert b"drydock profile detect says which one is for this machine" in said
    os.close(ours)
    os.close(theirs)


def test_the_list_is_also_json(built: Sandbox) -> None:
    rows = json.loads(built.drydock("profile", "list", "--json").succeeded().stdout)
    by_name = {row["name"]: row for row in rows}
    assert by_name["small"] == {
        "name": "small",
        "description": "a small one",
        "platform": "linux-x86_64",
        "accelerator": "cpu",
        "file": str(built.work / "profiles/small.toml"),
    }
    assert by_name["base"]["platform"] is None
    assert all(Path(row["file"]).is_file() for row in rows)


def test_a_profile_is_shown_whole_as_toml_and_as_json(sandbox: Sandbox) -> None:
    sandbox.file("common.toml", 'schema = 1\nname = "common"\n[env]\nCOLOUR = "grün"\n')
    sandbox.profile("child", head='extends = ["common"]')
    shown = tomllib.loads(sandbox.drydock("profile", "show", "child").succeeded().stdout)
    assert shown["env"]["COLOUR"]["value"] == "grün"
    assert shown["packages"]["requires"] == ["anchor"]
    assert "extends" not in shown
    assert json.loads(sandbox.drydock("profile", "show", "child", "--json").succeeded().stdout) == shown


def test_check_tells_good_profiles_from_those_without_a_fresh_lock(locked: Sandbox) -> None:
    good = locked.drydock("profile", "check", "small", "base").succeeded()
    assert good.stdout == ""
    assert re.search(r"^small: good, [0-9a-z]{32}$", good.stderr, re.MULTILINE)
    assert "base: good, to extend" in good.stderr
    locked.profile("fresh")
    locked.drydock("profile", "check", "small", "fresh").failed(
        1, '"fresh" has no lock', "where: profiles/fresh.lock.toml", "hint: drydock lock fresh"
    )


@pytest.mark.slow
def test_auto_is_the_profile_that_fits_this_machine_best(sandbox: Sandbox) -> None:
    machine = json.loads(sandbox.drydock("profile", "detect", "--json").succeeded().stdout)
    assert (machine["system"], machine["machine"]) == (os.uname().sysname, os.uname().machine)
    chip = machine["chip"]
    if not chip:
        pytest.skip("this machine's processor has no name to match")
    sandbox.trainer("import sys; print(sys.argv[1:])", name="mine")
    mine = sandbox.work / "profiles/mine.toml"
    mine.write_text(mine.read_text().replace("[python]", f"match = {{ chip = {json.dumps(chip)} }}\n\n[python]"))
    told = sandbox.drydock("profile", "detect").succeeded()
    assert f'auto: mine (the chip is "{chip}")' in told.stdout
    assert chip in told.stdout
    sandbox.drydock("lock", "mine").succeeded()
    assert "auto: mine" in sandbox.drydock("build").succeeded().stderr
    assert sandbox.drydock("run", "--", "--steps", "5").succeeded().stdout == "['--steps', '5']\n"


@pytest.mark.parametrize(
    ("words", "code", "meant"),
    [
        (["lock", "small", "--upgrade", "ancor"], 1, "anchor"),
        (["profile", "settings", "OMP_NUM_THREAD"], 2, "OMP_NUM_THREADS"),
        (["help", "varibles"], 2, "variables"),
        (["help", "generation", "lst"], 2, "list"),
        (["generation", "list", "smal"], 1, "small"),
    ],
)
def test_what_is_misspelt_is_answered_with_the_nearest(built: Sandbox, words: list[str], code: int, meant: str) -> None:
    built.drydock(*words).failed(code, f'hint: did you mean "{meant}"?')


@pytest.mark.parametrize(
    ("command", "given", "meant"),
    [("build", "smal", "small"), ("run", "cpu-swam", "cpu-swarm"), ("lock", "M4", "m4"), ("render", "cud", "cuda")],
)
def test_an_unknown_profile_is_answered_with_the_nearest_name(
    built: Sandbox, command: str, given: str, meant: str
) -> None:
    built.drydock(command, given).failed(1, f'error: no profile "{given}"', f'hint: did you mean "{meant}"?')


def test_a_name_like_no_other_is_answered_with_all_names(built: Sandbox) -> None:
    built.drydock("build", "../../etc/passwd").failed(1, 'no profile "../../etc/passwd"', "known profiles: ", "small")


def test_a_profile_that_is_not_toml_is_named_with_its_line(sandbox: Sandbox) -> None:
    sandbox.profile("broken", 'schema = 1\nname = "broken"\n[target\n')
    sandbox.drydock("build", "broken").failed(1, "not TOML", "where: profiles/broken.toml")


def test_a_profile_that_is_not_utf8_is_named_with_its_line(sandbox: Sandbox) -> None:
    (sandbox.work / "profiles/latin.toml").write_bytes(b'schema = 1\nname = "latin"\ndescription = "gr\xfcn"\n')
    sandbox.drydock("profile", "show", "latin").failed(1, "not UTF-8", "where: profiles/latin.toml:3", "hint: save")


def test_a_cycle_in_extends_is_shown_as_the_way_round(sandbox: Sandbox) -> None:
    sandbox.profile("one", head='extends = ["two"]')
    sandbox.profile("two", head='extends = ["one"]')
    sandbox.drydock("build", "one").failed(1, "one -> two -> one", "where: profiles/", "hint: remove one of them")


def test_parents_that_disagree_need_a_word_from_the_child(sandbox: Sandbox) -> None:
    for name, pin in (("left", "anchor==1.0"), ("right", "anchor==2.0")):
        sandbox.file(f"{name}.toml", f'schema = 1\nname = "{name}"\n[packages]\nrequires = ["{pin}"]\n')
    child = sandbox.profile("child", head='extends = ["left", "right"]')
    whole = child.read_text()
    child.write_text(whole.replace('requires = ["anchor"]\n', ""))
    sandbox.drydock("lock", "child").failed(
        1,
        'the requirement on anchor is "anchor==1.0" in left and "anchor==2.0" in right',
        "where: profiles/child.toml:4: extends",
        "hint: set it in profiles/child.toml",
    )
    assert not (sandbox.work / "profiles/child.lock.toml").exists()
    child.write_text(whole)
    assert sandbox.drydock("lock", "child").succeeded().stdout == "child: + anchor 1.0\n"


def test_a_profile_that_appears_later_is_not_overlooked(built: Sandbox, tmp_path: Path) -> None:
    here = tmp_path / "a project"
    here.mkdir()
    first = built.drydock("build", "cpu", "--dry-run", cwd=here).succeeded()
    assert first.stdout.endswith("-cpu\n")
    (here / "profiles").mkdir()
    (here / "profiles/cpu.toml").write_text((built.work / "profiles/small.toml").read_text().replace("small", "cpu"))
    built.drydock("build", "cpu", "--dry-run", cwd=here).failed(1, '"cpu" has no lock', "profiles/cpu.lock.toml")


def test_profiles_are_also_found_where_the_variable_says(built: Sandbox, tmp_path: Path) -> None:
    profiles = f"{tmp_path / 'empty'}{os.pathsep}{built.work / 'profiles'}"
    found = built.drydock("build", "small", cwd=tmp_path, env={"DRYDOCK_PROFILES": profiles}).succeeded()
    assert found.stdout.strip() == str(built.store / built.environments()[0])


# --- stdout is data, stderr is talk --------------------------------------------------------------------------------


@pytest.mark.slow
def test_build_prints_the_folder_and_nothing_else_on_stdout(locked: Sandbox) -> None:
    done = locked.drydock("build", "small").succeeded()
    assert done.stdout == f"{locked.store / locked.environments()[0]}\n"
    assert "[1/4] Python 3.11" in done.stderr
    assert re.search(r"^small is ready: \d+ packages?, in \d+\.\d s$", done.stderr, re.MULTILINE)
    assert "+ anchor==1.0" not in done.stderr, "what uv has installed is in the lock"


def test_quiet_says_nothing_when_all_is_well(locked: Sandbox) -> None:
    done = locked.drydock("--quiet", "build", "small").succeeded()
    assert done.stderr == ""
    assert done.stdout == f"{locked.store / locked.environments()[0]}\n"


def test_quiet_still_tells_why_a_build_failed(locked: Sandbox) -> None:
    locked.index.tamper = lambda _name, content: content[:200]
    failed = locked.drydock("--quiet", "build", "small").failed(1, "error: the packages could not be installed")
    assert "Failed to download `anchor==1.0`" in failed.stderr
    assert "[1/4]" not in failed.stderr
    assert failed.stdout == ""


def test_dry_run_says_what_would_be_built_and_builds_nothing(locked: Sandbox) -> None:
    would = locked.drydock("build", "small", "--dry-run").succeeded()
    assert "small would be built" in would.stderr
    assert locked.environments() == []
    done = locked.drydock("build", "small").succeeded()
    assert would.stdout == done.stdout
    again = locked.drydock("build", "small", "-n").succeeded()
    assert "small is built" in again.stderr


@pytest.mark.slow
def test_offline_builds_from_the_cache_and_asks_no_index(built: Sandbox, tmp_path: Path) -> None:
    # A cache of its own: what another test damages goes out of the one that they share.
    cache = {"UV_CACHE_DIR": str(tmp_path / "cache")}
    built.drydock("build", "small", env={"DRYDOCK_HOME": str(tmp_path / "first"), **cache}).succeeded()
    before = list(built.index.requests)
    built.drydock("--offline", "build", "small", env={"DRYDOCK_HOME": str(tmp_path / "second"), **cache}).succeeded()
    assert built.index.requests == before
    missing = built.drydock(
        "--offline",
        "build",
        "small",
        env={"DRYDOCK_HOME": str(tmp_path / "third"), "UV_CACHE_DIR": str(tmp_path / "c")},
    )
    missing.failed(1, "the packages could not be installed", "nothing was left in the store")
    assert built.index.requests == before
    assert list((tmp_path / "third/store").iterdir()) == []


def test_offline_locking_says_what_it_misses(locked: Sandbox, tmp_path: Path) -> None:
    before = (locked.work / "profiles/small.lock.toml").read_bytes()
    locked.drydock("--offline", "lock", "small", "-U", env={"UV_CACHE_DIR": str(tmp_path / "empty")}).failed(
        1, '"small" cannot be locked', "where: profiles/small.toml", "hint: "
    )
    assert locked.index.requests == []
    assert (locked.work / "profiles/small.lock.toml").read_bytes() == before


def test_a_reader_that_goes_away_causes_no_noise(built: Sandbox) -> None:
    line = f"{sys.executable} -m builder profile show cpu | true"
    assert built.run(["sh", "-c", line]).succeeded().stderr == ""


def test_a_full_disk_behind_stdout_is_an_error(built: Sandbox) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    done = built.run(["sh", "-c", f"{sys.executable} -m builder profile list >/dev/full"])
    assert done.failed(1).stderr == "error: stdout: No space left on device\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_as_one_that_goes_nowhere(built: Sandbox, closed: str) -> None:
    command = [sys.executable, "-m", "builder", "profile", "list"]
    done = built.run(["sh", "-c", f'exec "$@" {closed}', "sh", *command]).succeeded()
    assert ("small" in done.stdout, done.stderr) == (">&-" not in closed.split(), "")


def test_a_folder_that_cannot_be_written_is_an_error_in_words(built: Sandbox) -> None:
    built.drydock("render", "small", "--out", "/proc/there").failed(1, "error: /proc/there: No such file or directory")


def _on_a_terminal(desk: Sandbox, *arguments: str, **env: str) -> str:
    """What `drydock ARGUMENTS` writes to a terminal, which its stderr is."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*DRYDOCK, *arguments],
        env={**desk.environment, "TERM": "xterm-256color", **env},
        cwd=desk.work,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            block = os.read(ours, 65536)
        except OSError:  # Linux's way to say that the other end was closed
            break
        if not block:
            break
        seen += block
    os.close(ours)
    assert process.wait() == 0, seen
    process.communicate()
    return seen.decode()


@pytest.mark.slow
def test_a_terminal_sees_progress_in_colour_unless_it_asks_for_none(locked: Sandbox, tmp_path: Path) -> None:
    def build(number: int, **env: str) -> str:
        env["DRYDOCK_HOME"] = str(tmp_path / f"store{number}")
        locked.drydock("build", "small", "--dry-run", env=env).succeeded()  # rendered, and not on the terminal
        return _on_a_terminal(locked, "build", "small", **env)

    colours = re.compile(r"\x1b\[(?:\d+;)*[39][0-7]m")
    coloured, plain = build(1), build(2, NO_COLOR="1")
    assert colours.search(coloured)
    assert not colours.search(plain)
    for seen in (coloured, plain):
        assert "[1/4] Python 3.11" in seen
        assert "building small" in seen
    # A path is never broken over two lines, so that it can be copied.
    assert f"[4/4] {tmp_path}/store1/store/" in coloured
    assert build(2, TERM="dumb") == "small is built\r\n"


# --- run, shell, verify --------------------------------------------------------------------------------------------


def test_arguments_after_the_dashes_reach_the_trainer_as_they_are(built: Sandbox) -> None:
    built.trainer("import json, sys; print(json.dumps(sys.argv[1:]))")
    words = ["--steps", "5", "two words", "", "$(id)", "*", "-h", "--", "grün\n"]
    assert json.loads(built.drydock("run", "small", "--", *words).succeeded().stdout) == words
    assert json.loads(built.drydock("run", "small").succeeded().stdout) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "small", "--steps", "5"], "go after --: drydock run NAME -- --steps"),
        (["run", "--steps", "small"], "go after --: drydock run NAME -- --steps"),
        (["run", "small", "--supervize"], "did you mean --supervise?"),
        (["run", "small", "5"], "5 is not an argument of drydock run"),
        (["run", "small", "--", "--steps", "5", "--status"], "['--steps', '5', '--status']"),
        (["shell", "small", "python"], "goes after --: drydock shell NAME -- python"),
        (["shell", "small", "--scrath", "--", "python"], "did you mean --scratch?"),
    ],
)
def test_before_the_dashes_all_is_drydocks(built: Sandbox, words: list[str], said: str) -> None:
    built.trainer("import sys; print(sys.argv[1:])")
    done = built.drydock(*words)
    assert done.code == (0 if said.startswith("[") else 2)
    assert said in done.stdout + done.stderr


def test_help_before_the_dashes_is_drydocks(sandbox: Sandbox) -> None:
    helped = sandbox.drydock("run", "--help").succeeded().stdout
    assert helped.startswith("Usage: drydock run [OPTIONS] [NAME] [COMMAND] [-- ARGUMENTS]...")
    for words in (["small", "--help"], ["small", "-h", "--", "--steps"], ["--supervise", "nowhere", "--help"]):
        assert sandbox.drydock("run", *words).succeeded().stdout == helped


def test_the_trainers_exit_status_is_passed_on(built: Sandbox) -> None:
    built.trainer("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)")
    done = built.drydock("run", "small")
    assert (done.code, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_the_trainer_reads_the_users_stdin(built: Sandbox) -> None:
    built.trainer("print(input()[::-1])")
    built.drydock("build", "small", "--dry-run").succeeded()
    assert built.run(["sh", "-c", f"echo abc | {sys.executable} -m builder run small"]).succeeded().stdout == "cba\n"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signals_reach_the_trainer_which_is_the_very_process_that_was_started(
    built: Sandbox, number: signal.Signals
) -> None:
    built.trainer(
        "import os, signal, sys\n"
        "for number in (2, 10, 15): signal.signal(number, lambda *given: sys.exit(40 + given[0]))\n"
        "print(os.getpid(), flush=True)\n"
        "signal.pause()\n"
    )
    process = built.start("run", "small")
    assert process.stdout is not None
    assert int(process.stdout.readline()) == process.pid
    process.send_signal(number)
    assert process.wait(LONG) == 40 + number
    process.communicate()


def test_a_trainer_that_a_signal_killed_is_seen_to_be(built: Sandbox) -> None:
    built.trainer("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert built.drydock("run", "small").code == -signal.SIGKILL


def test_a_shell_opens_in_the_environment(built: Sandbox, tmp_path: Path) -> None:
    shell = tmp_path / "shell"
    shell.write_text('#!/bin/sh\nprintf "%s\\n" "$VIRTUAL_ENV"; command -v python; exit 3\n')
    shell.chmod(0o755)
    opened = built.drydock("shell", "small", env={"SHELL": str(shell)}).failed(3)
    env = built.store / built.environments()[0]
    assert opened.stdout == f"{env}\n{env}/bin/python\n"


def test_verify_has_a_line_for_every_promise(built: Sandbox) -> None:
    verified = built.drydock("verify", "small").succeeded()
    assert re.findall(r"^(ok  |FAIL) (\w+):", verified.stdout, re.MULTILINE) == [
        ("ok  ", "manifest"),
        ("ok  ", "packages"),
        ("ok  ", "files"),
        ("ok  ", "machine"),
        ("ok  ", "accelerator"),
    ]
    assert "ok   accelerator: no torch, mlx, jax is locked, so nothing was computed on cpu\n" in verified.stdout


def test_verify_finds_a_file_that_was_changed(locked: Sandbox) -> None:
    env = Path(locked.drydock("build", "small").succeeded().stdout.strip())
    module = env / "lib/python3.11/site-packages/anchor/__init__.py"
    text = module.read_text()
    module.parent.chmod(0o755)
    module.unlink()  # it may be a hard link into uv's cache
    module.write_text(text + "# changed\n")
    verified = locked.drydock("verify", "small").failed(1)
    assert "FAIL files: lib/python3.11/site-packages/anchor/__init__.py was changed" in verified.stdout


def leaves(context: click.Context, path: str = "") -> Iterator[str]:
    """Each command that does something: `profile list`, not `profile`."""
    group = context.command
    assert isinstance(group, click.Group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from leaves(click.Context(command, info_name=name, parent=context), f"{path}{name} ")
        else:
            yield f"{path}{name}"


def test_each_command_has_an_example_that_it_understands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    root = click.Context(cli, info_name="drydock", **cli.context_settings)  # a command keeps its first help option
    assert sorted(EXAMPLES) == sorted(leaves(root))
    for path, example in EXAMPLES.items():
        assert len(example) <= 47, "it stands in one line of 60 columns"
        words = shlex.split(example.removeprefix('eval "$(').removesuffix(')"'))
        context, arguments = root, words[1:]
        for name in path.split():
            assert arguments.pop(0) == name
            assert isinstance(context.command, click.Group)
            command = context.command.get_command(context, name)
            assert command is not None
            context = click.Context(command, info_name=name, parent=context)
        made = context.command.make_context(context.info_name, arguments, parent=context.parent)
        assert made.params is not None
        assert context.command.get_help(context).endswith(f"Example: {example}"), path


@pytest.mark.parametrize("command", ["lock", "render", "update", "outdated", "audit"])
def test_without_a_project_here_nothing_is_done_for_the_built_in_profiles(sandbox: Sandbox, command: str) -> None:
    """In a folder of the project below its top, which most likely was meant."""
    sandbox.profile("small")
    inner = sandbox.work / "src"
    inner.mkdir()
    done = sandbox.drydock(command, cwd=inner).failed(2, "there is no profile of a project here")
    assert f"hint: a project is above: cd {sandbox.work}\n" in done.stderr
    sandbox.drydock("build", "small", cwd=inner).failed(1, f"hint: the project above has it: cd {sandbox.work}\n")
    (sandbox.work / "profiles/small.toml").unlink()
    sandbox.drydock(command, cwd=inner).failed(2, "hint: drydock init begins one; or name a profile\n")
    assert list(inner.iterdir()) == []


def test_a_file_or_a_folder_in_the_wrong_place_is_named(locked: Sandbox) -> None:
    (locked.work / "generated").touch()
    locked.drydock("render", "small").failed(1, f"hint: {locked.work}/generated is a file where a folder is wanted")
    lock = locked.work / "profiles/small.lock.toml"
    lock.unlink()
    lock.mkdir()
    locked.drydock("lock", "small").failed(1, "hint: a file is wanted there: move the folder away")
    locked.drydock("build", "profiles/small.toml").failed(1, 'did you mean "small"?')


def test_verify_of_what_is_not_built_says_how_to_build_it(locked: Sandbox) -> None:
    locked.drydock("verify", "small").failed(1, "small is not built", "hint: drydock build small\n")
    assert locked.environments() == []


def test_a_message_shows_no_secret_in_any_form_and_steers_no_terminal(sandbox: Sandbox) -> None:
    token = "hf_abc+def/ghi"
    for form in ("hf_abc+def/ghi", "hf_abc%2Bdef%2Fghi", "aGZfYWJjK2RlZi9naGk"):
        done = sandbox.drydock("build", form, env={"HF_TOKEN": token}).failed(1, "[HF_TOKEN]")
        assert form not in done.stderr
    done = sandbox.drydock("build", "x\x1b[2J\u202e").failed(1, "x\\x1b[2J\\u202e")
    assert "\x1b" not in done.stderr


# --- What people type, and colours ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "meant"), [("biuld", "build"), ("sync", "build"), ("train", "run"), ("ls", "profile list")]
)
def test_a_command_that_there_is_not_names_the_one_that_was_meant(sandbox: Sandbox, typed: str, meant: str) -> None:
    failed = sandbox.drydock(typed).failed(2, f'error: no command "{typed}"\n')
    assert f'hint: did you mean "drydock {meant}"? drydock --help lists them' in failed.stderr


def test_all_errors_have_one_form(sandbox: Sandbox) -> None:
    told = sandbox.drydock("build", "cpu", "--dryrun").failed(2).stderr
    assert told == "error: no such option '--dryrun'. Did you mean '--dry-run'?\n  hint: drydock build --help\n"
    told = sandbox.drydock("store", "gcc").failed(2).stderr
    assert told == "error: no such command 'gcc'. Did you mean 'gc'?\n  hint: drydock store --help\n"
    assert sandbox.drydock("diff", "m4").failed(2).stderr.startswith("error: missing argument")


def test_colour_is_for_who_wants_it(built: Sandbox) -> None:
    plain = built.drydock("doctor", "small").stdout
    assert "\x1b" not in plain
    for option, env in ((["--color", "always"], {}), ([], {"FORCE_COLOR": "1"})):
        coloured = built.drydock(*option, "doctor", "small", env=env).stdout
        assert "\x1b[32mok\x1b[0m   platform: " in coloured
    for option, env in ((["--color", "never"], {"FORCE_COLOR": "1"}), ([], {"FORCE_COLOR": "1", "NO_COLOR": "1"})):
        assert "\x1b" not in built.drydock(*option, "doctor", "small", env=env).stdout
    failed = built.drydock("--color", "always", "run", "smal").failed(1)
    assert "\x1b[1;31merror:\x1b[0m no profile" in failed.stderr
    assert "\x1b[36mhint:\x1b[0m did you mean" in failed.stderr


# --- About this program --------------------------------------------------------------------------------------------


def test_self_version_asks_the_index_for_a_newer_one(sandbox: Sandbox) -> None:
    here = version("drydock-env")
    assert sandbox.drydock("self", "version").succeeded().stdout == f"drydock-env {here}\n"
    make_wheel(sandbox.wheels, "drydock-env", here)
    assert "the index has no newer one" in sandbox.drydock("self", "version", "--check").succeeded().stderr
    make_wheel(sandbox.wheels, "drydock-env", "99.1")
    failed = sandbox.drydock("self", "version", "--check").failed(1, "there is 99.1; to upgrade: ")
    assert failed.stdout == f"drydock-env {here}\n"
    nobody = {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple"}
    sandbox.drydock("self", "version", "--check", env=nobody).failed(1, "error: ")


def test_a_report_has_what_is_asked_for_and_nothing_private(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.profile("small")
    env = {"HF_TOKEN": "hf_abcdefgh", "UV_INDEX_OURS_PASSWORD": "hunter22", "XDG_STATE_HOME": str(tmp_path)}
    sandbox.drydock("lock", "small", env={**env, "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple"}).failed(1)
    text = sandbox.drydock("report", "small", "--out", str(tmp_path / "report.md"), env=env).succeeded()
    assert text.stdout == ""
    told = (tmp_path / "report.md").read_text()
    for words in (
        f"drydock-env {version('drydock-env')}",
        "\nuv 0.",
        "## Machine",
        "FAIL lock: ",
        "DRYDOCK_UV=",
    ):
        assert words in told, words
    assert "command: drydock lock small" in told, "the log of the last failure"
    for private in ("hf_abcdefgh", "hunter22", str(sandbox.home), os.uname().nodename):
        assert private not in told, private
    sandbox.drydock("report", "small", "--out", str(tmp_path / "report.md"), env=env).failed(2)


def test_help_has_topics_and_the_help_of_commands(sandbox: Sandbox) -> None:
    assert sandbox.drydock("help", "store", "gc").stdout == sandbox.drydock("store", "gc", "--help").stdout
    whole = sandbox.drydock("help").succeeded().stdout
    assert whole.endswith("\nTopics of drydock help: variables, exit-status, files.\n")
    assert "DRYDOCK_HOME" in sandbox.drydock("help", "variables").succeeded().stdout
    assert re.search(r"^130 +interrupted", sandbox.drydock("help", "exit-status").succeeded().stdout, re.MULTILINE)
    sandbox.drydock("help", "stor").failed(2, 'no command and no topic "stor"', 'did you mean "store"?')


def test_the_topic_of_variables_has_all_that_the_program_and_its_scripts_read() -> None:
    texts = [
        path.read_text()
        for folder in ("builder", "templates")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".j2")
    ]
    read = set(re.findall(r"\bDRYDOCK_[A-Z][A-Z_]*[A-Z]\b", "\n".join(texts)))
    assert read == VARIABLES.keys() | INTERNAL
