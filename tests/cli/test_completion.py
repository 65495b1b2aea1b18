"""What Tab completes, asked as the shells ask, and in the shells themselves."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import pytest

from tests.support import Sandbox
from tests.support.waiting import LONG

BIN = Path(sys.executable).parent


def completed(desk: Sandbox, *words: str, **env: str) -> list[str]:
    """What is offered for the last of `words`, after `drydock`; no word is on stderr."""
    typed = {"COMP_WORDS": " ".join(["drydock", *words]), "COMP_CWORD": str(len(words)), **env}
    done = desk.run([str(BIN / "drydock")], env={"_DRYDOCK_COMPLETE": "bash_complete", **typed})
    assert (done.code, done.stderr) == (0, "")
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["bui"], ["build"]),
        (["--of"], ["--offline"]),
        (["build", "--cr"], ["--cross"]),
        (["profile", "sh"], ["show"]),
        (["build", "sm"], ["small"]),
        (["build", "au"], ["auto"]),
        (["run", "cp"], ["cpu", "cpu-arm64", "cpu-swarm"]),
        (["run", "--supervise", "cu"], ["cuda", "cuda-swarm-0-7", "cuda12", "cuda13", "cuda13-arm64"]),
        (["shell", "--scratch", "sm"], ["small"]),
        (["profile", "show", "au"], []),
        (["lock", "cpu", "cp"], ["cpu-arm64", "cpu-swarm"]),
        (["render", "--out", "there", "sm"], ["small"]),
        (["kernel", "install", "sm"], ["small"]),
        (["service", "install", "sm"], ["small"]),
        (["diff", "small", "cpu"], ["cpu", "cpu-arm64", "cpu-swarm"]),
        (["why", "small", ""], ["anchor"]),
        (["why", "m4", "accel"], ["accelerate"]),
        (["why", "nonsense", ""], []),
        (["generation", "switch", "small", ""], ["1"]),
        (["generation", "delete", "nonsense", ""], []),
        (["profile", "settings", "OMP_NUM"], ["OMP_NUM_THREADS"]),
        (["completions", "z"], ["zsh"]),
        (["run", "small", ""], ["train"]),
        (["run", "small", "--", "--config", "a"], ["a"]),  # for the shell to complete as a file
    ],
    ids=" ".join,
)
def test_what_is_completed(built: Sandbox, words: list[str], expected: list[str]) -> None:
    assert completed(built, *words) == expected


def test_keys_of_the_store_are_completed(built: Sandbox) -> None:
    assert completed(built, "store", "verify", "") == [name.partition("-")[0] for name in built.environments()]


def test_trouble_is_silent(locked: Sandbox) -> None:
    assert completed(locked, "generation", "switch", "small", "", HOME="") == []
    locked.file("small.lock.toml", "no TOML")
    assert completed(locked, "why", "small", "") == []
    locked.profile("broken", "no TOML either")
    assert completed(locked, "build", "br") == ["broken"]


def test_a_file_name_never_becomes_code(locked: Sandbox) -> None:
    for name in ("small-$(touch canary)", "small;touch canary", "small\ntouch canary", "small canary", "small-too"):
        (locked.work / f"profiles/{name}.toml").write_text("")
    assert completed(locked, "build", "smal") == ["small", "small-too"]


def test_names_are_known_without_pydantic_or_a_lock(locked: Sandbox) -> None:
    code = (
        "import sys, click; from builder.cli import cli; from click.shell_completion import ShellComplete as S;"
        "S(cli, {}, 'drydock', 'X').get_completions(['build'], 'sm') or sys.exit(3);"
        "sys.exit(bool({'pydantic', 'jinja2', 'packaging', 'plumbum'} & set(sys.modules)))"
    )
    (locked.work / "profiles/small.lock.toml").unlink()
    assert locked.run([sys.executable, "-c", code]).code == 0


SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(drydock completions bash)"'),
    "zsh": (["zsh", "-f", "-i"], 'autoload -U compinit && compinit -D; eval "$(drydock completions zsh)"'),
    "fish": (["fish", "--no-config", "-i"], "drydock completions fish | source"),
}


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS)
def test_tab_completes_in_the_shell_itself(built: Sandbox, shell: str) -> None:
    command, setup = SHELLS[shell]
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {shell} here")
    with Terminal(built, command) as terminal:
        terminal.type("echo rea''dy\n", until="ready")
        terminal.type(f"{setup}; echo set''up\n", until="setup")
        # Each word is completed, then the whole is run.
        terminal.type("drydock prof\t", until="ile")
        terminal.type("sho\t", until="w")
        terminal.type("sma\t", until="ll")
        told = terminal.type("\n", until="accelerator")
        assert 'name = "small"' in told


_ON_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """A shell on a terminal, at which somebody types."""

    def __init__(self, desk: Sandbox, command: list[str]) -> None:
        self.command = command
        self.desk = desk

    def __enter__(self) -> Self:
        self.ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _ON_A_TERMINAL, *self.command],
            env={**self.desk.environment, "TERM": "xterm", "PS1": "> "},
            cwd=self.desk.work,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)

    def type(self, text: str, *, until: str, seconds: float = LONG) -> str:
        """Type `text` and read until the terminal shows `until`, which comes after all of `text`; what it showed."""
        os.write(self.ours, text.encode())
        shown = ""
        deadline = time.monotonic() + seconds
        while until not in shown and time.monotonic() < deadline:
            if select.select([self.ours], [], [], 0.1)[0]:
                shown += os.read(self.ours, 65536).decode(errors="replace")
        assert until in shown, shown
        return shown
