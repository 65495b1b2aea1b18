"""What each command shows on a terminal of 60, 80 and 120 columns, coloured and plain, compared with files.

The files in `snapshots/` are what a terminal would get, with ␛ for the escape character; plain output is the same
without it. To write them again after a change that is meant: `just snapshots`, and look at the difference. Plain files
and no library: a reviewer reads the screen itself, and the pinned tools of a developer stay as they are.

In the process of the tests, by the program's own way in, because a start of its own takes longer than all the rest.
"""

from __future__ import annotations

import gc
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest

import builder.cli
import builder.machine
from builder import log
from builder.cli import cli
from builder.machine.model import Gpu, Machine
from tests.conftest import desk
from tests.support import Sandbox, make_wheel

SNAPSHOTS = Path(__file__).parent / "snapshots"
WIDTHS = (60, 80, 120)
WRITES = os.environ.get("DRYDOCK_TESTS_SNAPSHOTS") == "write"
_SGR = re.compile("␛\\[[0-9;]*m")

# Each in a folder with a profile `small` that is built; nothing in them that another machine shows in another length.
SCENES = {
    "lists": [
        ["profile", "list"],
        ["generation", "list", "small"],
        ["sources", "list"],
        ["runs", "list"],
        ["store", "du"],
        ["cache", "size"],
        ["profile", "settings", "OMP_NUM_THREADS", "PYTORCH_ENABLE_MPS_FALLBACK"],
    ],
    "locks": [["tree", "small"], ["why", "small", "anchor"], ["lock", "small", "--check"], ["diff", "small", "mpi"]],
    "topics": [["help", "variables"], ["help", "exit-status"], ["help", "files"], ["self", "version"]],
    "errors": [
        ["bild"],
        ["install"],
        ["build", "smal"],
        ["build", "--crosss", "x"],
        ["generation", "switch", "small", "9"],
        ["why", "small", "ancor"],
        ["runs", "show", "last"],
        ["config", "set", "colour", "never"],
        ["cache", "clean", "wheels"],
        ["lock", "small", "--upgrade", "ancor"],
        ["help", "varibles"],
        ["sources", "update", "team"],
    ],
}


# Each in a home that is older: `small` has two generations and a run, `spare` is for another machine.
LATER = {
    "machine": [["profile", "detect"], ["profile", "check", "small", "spare"], ["doctor", "spare"], ["status"]],
    "packages": [
        ["generation", "list", "small"],
        ["diff", "small@1", "small@2"],
        ["why", "small", "humanize"],
        ["tree", "small"],
        ["outdated"],
        ["lock", "small", "--upgrade", "anchor", "--dry-run"],
    ],
    "kept": [
        ["build", "small"],
        ["runs", "list"],
        ["runs", "show", "last"],
        ["store", "du"],
        ["store", "gc", "--dry-run"],
        ["store", "verify"],
        ["verify", "small"],
        ["cache", "size"],
    ],
}
TRAINER = "for step in range(1, 6):\n    print('step', step, 'loss', 3 / step)\n"
DISK = type(shutil.disk_usage("/"))(10**12, 588 * 10**9, 412 * 10**9)
MACHINE = Machine(
    system="Linux",
    machine="x86_64",
    os="Ubuntu 24.04.3 LTS",
    glibc="2.39",
    chip="AMD Ryzen 9 7950X 16-Core Processor",
    performance_cores=16,
    efficiency_cores=0,
    usable_cores=32,
    memory=64 * 2**30,
    memory_free=51 * 2**30,
    disk_free=412 * 2**30,
    gpus=(Gpu("NVIDIA GeForce RTX 4090", 24 * 2**30, "8.9"), Gpu("NVIDIA GeForce RTX 4090", 24 * 2**30, "8.9")),
    driver="580.95.05",
    cuda="13.0",
)


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """This process as the program finds itself, and as it was afterwards."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr(log, "_programs", 0)  # other tests of this worker ran some in this process
    for name in list(os.environ):
        if name.startswith(("DRYDOCK_", "UV_", "XDG_", "NO_COLOR", "FORCE_COLOR")):
            monkeypatch.delenv(name)
    yield monkeypatch
    for number, handler in handlers.items():
        signal.signal(number, handler)


def seen(arguments: list[str], columns: int, patch: pytest.MonkeyPatch, *, is_coloured: bool) -> str:
    """What a command draws, and its exit status."""
    screen = Terminal()
    with patch.context() as now:
        now.setenv("COLUMNS", str(columns))
        now.setenv("TERM", "dumb")  # no spinner, whose frames depend on the time
        now.setenv("FORCE_COLOR" if is_coloured else "NO_COLOR", "1")
        now.setattr(log, "_programs", 0)  # of this command, not of another test
        now.setattr(sys, "argv", ["drydock", *arguments])
        now.setattr(sys, "stdout", screen)
        now.setattr(sys, "stderr", screen)
        with pytest.raises(SystemExit) as ended:
            builder.cli.main()
    text = screen.getvalue().replace("\x1b", "␛")
    return f"$ drydock {' '.join(arguments)}\n{_steady(text)}[{ended.value.code or 0}]\n"


def _steady(text: str) -> str:
    """Without what another run shows otherwise, in the same length."""
    text = re.sub(r"\n  log: \S+", "", text)
    text = re.sub(r"\b[0-9a-z]{32}\b", "k" * 32, text)
    # A bar: its length and its shares differ by file system.
    text = re.sub(r"(?m)(?<= )#{2,}\.*( *)$", "##", text)
    text = re.sub(r"(?<= )##[#.]*(?= )", lambda found: f"{'##':{len(found[0])}}", text)
    text = re.sub(r"\b20\d\d-\d\d-\d\d \d\d:\d\d:\d\d", "2026-01-02 03:04:05", text)
    text = re.sub(r"\b20\d{6}-\d{6}-[0-9a-f]{8}\b", "20260102-030405-00000000", text)
    text = re.sub(r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", "2026-01-02T03:04:05.000Z", text)
    text = re.sub(r"\b20\d\d-\d\d-\d\d \d\d:\d\d UTC", "2026-01-02 03:04 UTC", text)
    text = re.sub(r"/tmp/drydock-\w{8}\b", "/tmp/drydock-00000000", text)
    text = re.sub(r"(?m)^(  (?:machine|used):  +).*(?:\n {15}.*)*", r"\1...", text)  # of a record
    text = re.sub(r"(?<= machine: )Python \S+ on \w+ \w+", "Python 3.11.2 on Linux x86_64", text)  # of a verification
    text = re.sub(r"\b\d\.\d s\b", "0.0 s", text)
    text = re.sub(
        r"(?<=: )\d\d(?= files,)|(?<=MB     )\d\d(?=$|  )", "00", text, flags=re.MULTILINE
    )  # their order is the keys'
    text = re.sub(r"(?m)^(small .*) [0-9a-z]{12}\b", rf"\1 {'k' * 12}", text)
    text = re.sub(r"(?m)^(    )[0-9a-z]{12}$", rf"\1{'k' * 12}", text)
    return re.sub(r"\d+\.\d MB", lambda found: "0" * (len(found[0]) - 5) + ".0 MB", text)


def screens(commands: list[list[str]], patch: pytest.MonkeyPatch) -> str:
    """Some commands at each width, coloured; plain they are the same."""
    parts = []
    for columns in WIDTHS:
        parts.append(f"===== {columns} columns =====\n")
        for arguments in commands:
            coloured = seen(arguments, columns, patch, is_coloured=True)
            plain = _SGR.sub("", coloured)
            assert plain == seen(arguments, columns, patch, is_coloured=False)
            assert "␛" not in plain
            parts.append(f"{coloured}\n")
    return "".join(parts)


def check(name: str, text: str) -> None:
    """Compare with the file, or write it."""
    path = SNAPSHOTS / f"{name}.txt"
    if WRITES:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == (path.read_text() if path.exists() else ""), "if this is meant: just snapshots"


def commands_of(name: str) -> list[list[str]]:
    """A command of the program, with those below it, each asked for its help."""
    root = click.Context(cli)
    command = cli.get_command(root, name)
    below = command.list_commands(root) if isinstance(command, click.Group) else []
    return [[name, "--help"], *([name, one, "--help"] for one in below)]


NAMES = ["drydock", *cli.list_commands(click.Context(cli))]


@pytest.mark.parametrize("name", NAMES)
def test_the_help_of_a_command(name: str, here: pytest.MonkeyPatch) -> None:
    text = screens([["--help"]] if name == "drydock" else commands_of(name), here)
    for columns, part in zip(WIDTHS, text.split("===== ")[1:], strict=True):
        assert max(map(len, part.splitlines())) <= columns, f"a line is cut off at {columns} columns"
    check(f"help-{name}", text)


@pytest.mark.parametrize("scene", SCENES)
def test_what_commands_show(scene: str, built: Sandbox, here: pytest.MonkeyPatch) -> None:
    for name, value in built.environment.items():
        here.setenv(name, value)
    here.chdir(built.work)
    if scene == "locks":
        built.profile("mpi", tail="# another\n")
        built.drydock("lock", "mpi").succeeded()
    check(scene, screens(SCENES[scene], here))


@pytest.fixture(scope="module")
def home(uv_cache: Path) -> Iterator[Sandbox]:
    """A desk on which something was done, in a folder whose name is as long on each machine."""
    root = Path(tempfile.mkdtemp(prefix="drydock-", dir="/tmp"))
    with desk(root, uv_cache) as made:
        make_wheel(made.wheels, "humanize", "4.12.3", requires=["anchor"])
        make_wheel(made.wheels, "uv", version("uv"), tag="py3-none-macosx_11_0_arm64")
        made.profile("small")
        made.drydock("lock", "small").succeeded()
        made.drydock("build", "small").succeeded()
        made.trainer(TRAINER)
        path = made.work / "profiles/small.toml"
        path.write_text(path.read_text().replace('"anchor"', '"humanize"'))
        other = path.read_text().replace("linux-x86_64", "macos-arm64").replace('glibc = "2.17"', 'min-os = "14.0"')
        path.with_name("spare.toml").write_text(other.replace('name = "small"', 'name = "spare"'))
        made.drydock("lock").succeeded()
        made.drydock("build", "small").succeeded()
        made.drydock("run", "small", "--supervise", env={"DRYDOCK_RECORDS": "1"}).succeeded()
        make_wheel(made.wheels, "anchor", "2.0")
        yield made
    subprocess.run(["chmod", "-R", "u+w", str(root)], check=True)
    shutil.rmtree(root)


@pytest.mark.slow
@pytest.mark.parametrize("scene", LATER)
def test_what_commands_show_of_a_home_that_is_used(scene: str, home: Sandbox, here: pytest.MonkeyPatch) -> None:
    for name, value in home.environment.items():
        here.setenv(name, value)
    here.chdir(home.work)
    here.setattr(builder.machine, "detect", lambda **_: MACHINE)
    here.setattr(shutil, "disk_usage", lambda _: DISK)
    check(scene, screens(LATER[scene], here))


@pytest.mark.slow
def test_what_settings_show(home: Sandbox, here: pytest.MonkeyPatch) -> None:
    """Not plain and coloured alike: what colours this, or does not, is one of the settings."""
    for name, value in home.environment.items():
        here.setenv(name, value)
    here.chdir(home.work)
    home.drydock("config", "set", "caches.places", "/srv/wheels", "s3://team/wheels").succeeded()
    home.drydock("config", "set", "indexes.pytorch-cu128", "https://mirror.example/whl/cu128").succeeded()
    shown = [
        f"===== {columns} columns =====\n{seen(['config', 'list'], columns, here, is_coloured=True)}"
        for columns in WIDTHS
    ]
    home.drydock("config", "unset", "caches.places").succeeded()
    home.drydock("config", "unset", "indexes.pytorch-cu128").succeeded()
    check("settings", "\n".join(shown))


def test_every_file_is_of_a_test() -> None:
    known = {f"help-{name}" for name in NAMES} | SCENES.keys() | LATER.keys() | {"fleet", "settings"}
    assert {path.stem for path in SNAPSHOTS.iterdir()} == known
