"""The program as a user runs it: a home, a folder of profiles, an index, and nothing of the host's settings."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from tests.support import warm
from tests.support.base import base_python
from tests.support.index import Index
from tests.support.wheels import make_wheel

MINIMAL_PROFILE = """\
schema = 1
name = "{name}"
description = "a small one"
{head}
[target]
platform = "linux-x86_64"
accelerator = "cpu"
glibc = "2.17"

[python]
version = "3.11"

[packages]
requires = ["anchor"]

[trainer]
command = ["python", "-c", "import anchor; print('trained with', anchor.version)"]
{tail}"""


@dataclass(frozen=True)
class Result:
    """A program that has ended."""

    code: int
    stdout: str
    stderr: str

    def succeeded(self) -> Result:
        """This result, if its status is 0."""
        assert self.code == 0, f"exit status {self.code}\n{self.stdout}\n{self.stderr}"
        return self

    def failed(self, code: int, *words: str) -> Result:
        """This result, if its status is `code` and its stderr has each of `words`, and no traceback."""
        assert self.code == code, f"exit status {self.code}, not {code}\n{self.stdout}\n{self.stderr}"
        assert "Traceback" not in self.stderr, self.stderr
        assert "this is a bug in Drydock" not in self.stderr, self.stderr
        for word in words:
            assert word in self.stderr, f"{word!r} is not in:\n{self.stderr}"
        return self


class Sandbox:
    """A user's desk in a temporary folder.

    `work` is the working directory with `profiles/`, `home` the home, `store` the store. `index` serves the wheels in
    `wheels`, which has `anchor` 1.0 from the start. `python` is what it builds on, by default a Python 3.11.
    """

    def __init__(self, root: Path, index: Index, uv: str, cache: Path, python: str = "") -> None:
        self.root = root
        self.index = index
        self.wheels = index.folder
        self.work = root / "work"
        self.home = root / "home"
        self.store = self.home / ".local/share/drydock/store"
        for folder in (self.work / "profiles", self.home):
            folder.mkdir(parents=True)
        python = python or python_3_11()
        self.environment = {
            "HOME": str(self.home),
            "PATH": f"{Path(python).parent}:{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "UV_DEFAULT_INDEX": index.url,
            "UV_CACHE_DIR": str(cache),
            "UV_HTTP_RETRIES": "0",
            "UV_PYTHON_DOWNLOADS": "never",
            "DRYDOCK_UV": uv,
            "DRYDOCK_PYTHON": python,
            # A process more for each run; tests/run/test_records.py has them.
            "DRYDOCK_RECORDS": "0",
            # `just coverage`: its settings for the processes below.
            **{name: value for name, value in os.environ.items() if name.startswith("COVERAGE_PROCESS_")},
        }
        make_wheel(self.wheels, "anchor", "1.0")
        # The lock pins the uv that scripts fetch where there is none; here it is never fetched.
        make_wheel(self.wheels, "uv", _uv_version(), tag="py3-none-manylinux_2_17_x86_64")

    def profile(self, name: str, text: str | None = None, *, head: str = "", tail: str = "") -> Path:
        """Write profiles/NAME.toml: `text`, or a minimal profile with `head` in it and `tail` after it."""
        path = self.work / "profiles" / f"{name}.toml"
        path.write_text(text if text is not None else MINIMAL_PROFILE.format(name=name, head=head, tail=tail))
        return path

    def trainer(self, code: str, name: str = "small") -> None:
        """Give the minimal profile `name` another trainer: Python code. Its lock and its key stay as they are."""
        path = self.profile(name)
        head, _, _ = path.read_text().partition("[trainer]")
        path.write_text(f'{head}[trainer]\ncommand = ["python", "-c", {json.dumps(code)}]\n')

    def file(self, name: str, text: str) -> Path:
        """Write a file beside the profiles."""
        path = self.work / "profiles" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def drydock(
        self, *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None, timeout: float = 120
    ) -> Result:
        """Run `drydock ARGUMENTS` in `work` or `cwd`, in a process that has imported it (tests/support/warm.py)."""
        environment = {**self.environment, **(env or {})}
        if warm.is_possible(arguments, environment):
            return _result(*warm.run(arguments, environment, cwd or self.work, timeout))
        return self.run([sys.executable, "-m", "builder", *arguments], env=env, cwd=cwd, timeout=timeout)

    def script(self, name: str) -> Path:
        """The run script of a profile, rendered by the program."""
        self.drydock("render", name, "--out", str(self.root / "generated" / name)).succeeded()
        return next((self.root / "generated" / name).glob("run_*.sh"))

    def start(
        self, *arguments: str, env: Mapping[str, str] | None = None, stderr: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start `drydock ARGUMENTS` and do not wait for it; its stderr is a pipe, or the file `stderr`.

        The script that `run` runs is rendered before, warm.
        """
        if arguments[:1] == ("run",):
            self.drydock("build", arguments[1], "--dry-run", env=env)
        with stderr.open("wb") if stderr is not None else nullcontext(subprocess.PIPE) as place:
            return subprocess.Popen(
                [sys.executable, "-m", "builder", *arguments],
                env={**self.environment, **(env or {})},
                cwd=self.work,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=place,
            )

    def run(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 120,
    ) -> Result:
        """Run any program in this desk's environment, with `env` on top of it."""
        done = subprocess.run(
            list(command),
            env={**self.environment, **(env or {})},
            cwd=cwd or self.work,
            capture_output=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return _result(done.returncode, done.stdout, done.stderr)

    def remove(self, name: str) -> None:
        """Remove something from the store, read-only as it may be."""
        subprocess.run(["chmod", "-R", "u+w", str(self.store / name)], check=True)
        shutil.rmtree(self.store / name)

    def environments(self) -> list[str]:
        """What is in the store, stages too."""
        return sorted(path.name for path in self.store.iterdir()) if self.store.is_dir() else []


def _result(code: int, stdout: bytes, stderr: bytes) -> Result:
    return Result(code, stdout.decode(errors="replace"), stderr.decode(errors="replace"))


def python_3_11() -> str:
    """A Python 3.11 to build on: the copy that all tests of a run share, see tests/support/base.py."""
    return base_python().python


def _uv_version() -> str:
    from importlib.metadata import version

    return version("uv")


def tool(requirement: str) -> list[str]:
    """The start of a command that runs a program of a package of PyPI, in an environment of its own: for slow tests."""
    from uv import find_uv_bin

    return [find_uv_bin(), "tool", "run", "--quiet", "--from", requirement]
