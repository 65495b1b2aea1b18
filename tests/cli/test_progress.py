"""What is seen while something takes long: on a terminal one line that counts, in a log a line now and then."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import subprocess
import sys
import time
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from builder.cli.tables import render
from builder.embedded import progress
from builder.files import remove_tree
from builder.report import Growth, Meter, PlainReporter
from tests.conftest import ROOT
from tests.project.test_direct import commit, git
from tests.support import Sandbox
from tests.support.homes import script_of
from tests.support.terminal import on_terminal
from tests.support.waiting import allowed, until

DRYDOCK = [sys.executable, "-m", "builder"]
# Drawn by uv 0.13 on a terminal; the names are shortened.
FRAMES = [
    b"\x1b[2mUsing CPython 3.11.7 interpreter at: bin/python\x1b[0m\r\n\x1b[37m\xe2\xa0\x8b\x1b[0m \x1b[2mResolving",
    b" dependencies...  \x1b[0m\r\x1b[2K\x1b[2mResolved \x1b[1m2 packages\x1b[0m \x1b[2min 130ms\x1b[0m\x1b[0m\r\n",
    b"\x1b[37m\xe2\xa0\x99\x1b[0m \x1b[2mPreparing packages...\x1b[0m (0/2)      \x1b[2mnumpy   \x1b[0m \x1b[32m----"
    b"\x1b[30m\x1b[2m----\x1b[0m\x1b[0m 10.00 MiB/20.00 MiB   \x1b[2mclick \x1b[0m \x1b[32m--\x1b[0m 1.00 KiB/2.00",
    b" KiB   \x1b[1A\r\x1b[2K\x1b[1B\r\x1b[2K",
    b"\x1b[37m\xe2\xa0\x99\x1b[0m \x1b[2mPreparing packages...\x1b[0m (2/2)   \r\x1b[2K",
    b"\x1b[1m\x1b[33mwarning\x1b[39m\x1b[0m\x1b[1m:\x1b[0m a wheel is slow\r\n"
    b" \x1b[32m+\x1b[39m \x1b[1mnumpy\x1b[0m\x1b[2m==2.0\x1b[0m\r\n",
]


@pytest.fixture
def slow(locked: Sandbox) -> Sandbox:
    """Its index takes some time for each file, and nothing is in a cache."""

    def late(name: str, content: bytes) -> bytes:
        if name.endswith(".whl"):
            time.sleep(2.5)
        return content

    locked.index.tamper = late
    return locked


def test_what_uv_draws_becomes_bytes_and_only_warnings_and_errors_are_passed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: list[tuple[object, ...]] = []
    monkeypatch.setattr(progress, "show", lambda *what: heard.append(what))
    listener = progress.Listener("packages")
    with redirect_stderr(io.StringIO()) as said:
        for frame in FRAMES:
            listener(frame)
    assert ("packages", 10 * 2**20 + 1024, 20 * 2**20 + 2048, 1) in heard
    assert heard[-1] == ("packages",), "nothing is on its way any more"
    assert said.getvalue() == "warning: a wheel is slow\n"


@pytest.mark.slow
def test_a_script_counts_on_a_terminal_in_one_line(slow: Sandbox) -> None:
    seen = on_terminal(script_of(slow), env={**slow.environment, "TERM": "xterm"}, cwd=slow.work)
    assert seen.code == 0, seen.text
    assert re.search(r"\r\x1b\[Kpackages: [12] s\r\x1b\[K", seen.text), seen.text
    assert seen.silent < allowed(2)
    assert re.search(r"drydock: \[4/4\] \S+, in \d+ s\r\n", seen.text)


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"TERM": "xterm", "CI": "true"}])
def test_a_script_draws_nothing_where_nothing_can_be_written_over(slow: Sandbox, environment: dict[str, str]) -> None:
    seen = on_terminal(script_of(slow), env={**slow.environment, **environment}, cwd=slow.work)
    assert seen.code == 0, seen.text
    assert "\x1b" not in seen.text
    assert "[4/4]" in seen.text


@pytest.mark.slow
def test_a_log_of_a_script_has_lines_only(slow: Sandbox) -> None:
    done = subprocess.run(script_of(slow), env=slow.environment, cwd=slow.work, capture_output=True, check=True)
    assert not {b"\r", b"\x1b"} & {done.stderr[at : at + 1] for at in range(len(done.stderr))}
    assert all(line.startswith(b"drydock: ") for line in done.stderr.splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("columns", [60, 120])
def test_a_build_shows_a_bar_that_fits_and_ends_with_what_there_is(slow: Sandbox, columns: int) -> None:
    seen = on_terminal(
        [*DRYDOCK, "build", "small"], env={**slow.environment, "TERM": "xterm"}, cwd=slow.work, columns=columns
    )
    assert seen.code == 0, seen.text
    assert re.search(r"packages: [12] s", seen.text)
    assert seen.silent < allowed(2)
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", seen.text)
    drawn = [line for line in re.split(r"[\r\n]+", plain) if line.startswith(tuple("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"))]
    assert drawn
    assert max(map(len, drawn)) <= columns
    assert re.search(r"[\r\n]small is ready: \d+ packages?, in \d+\.\d s\r\n", plain)


@pytest.mark.slow
def test_a_trainer_that_is_started_on_a_terminal_is_named(locked: Sandbox) -> None:
    environment = {**locked.environment, "TERM": "xterm"}
    seen = on_terminal([*DRYDOCK, "run", "small"], env=environment, cwd=locked.work)
    assert re.search(r"^drydock: starting \S", seen.text, re.MULTILINE), seen.text
    assert "starting" not in locked.drydock("run", "small").stderr, "not in a log, which has what the trainer says"


@pytest.fixture
def trickling(locked: Sandbox) -> Sandbox:
    """A desk with a source in a repository of 6 MB, of which git gets one every half a second."""
    team = locked.root / "team"
    (team / "profiles").mkdir(parents=True)
    (team / "profiles/noise.bin").write_bytes(os.urandom(6_000_000))
    text = (locked.work / "profiles/small.toml").read_text()
    (team / "profiles/harbour.toml").write_text(text.replace('name = "small"', 'name = "harbour"'))
    git(team, "init", "--quiet")
    commit(team, "v1")
    hook = locked.root / "trickle"
    hook.write_text(
        f'#!/bin/sh\n"$@" | {sys.executable} -c \'import sys, time\n'
        "while block := sys.stdin.buffer.read(1000000):\n"
        " sys.stdout.buffer.write(block); sys.stdout.buffer.flush(); time.sleep(0.5)'\n"
    )
    hook.chmod(0o755)
    Path(locked.environment["HOME"], ".gitconfig").write_text(f"[uploadpack]\n\tpackObjectsHook = {hook}\n")
    (locked.work / "drydock.toml").write_text(f'[sources.team]\ngit = "file://{team}"\n')
    return locked


@pytest.mark.slow
@pytest.mark.parametrize("command", [("sources", "lock"), ("profile", "show", "team:harbour")])
def test_what_git_fetches_is_counted_as_it_comes(trickling: Sandbox, command: tuple[str, ...]) -> None:
    environment = {**trickling.environment, "TERM": "xterm"}
    if command[0] == "profile":  # pinned, and not here any more
        trickling.drydock("sources", "lock").succeeded()
        remove_tree(trickling.store.parent / "sources")
    seen = on_terminal([*DRYDOCK, *command], env=environment, cwd=trickling.work)
    assert seen.code == 0, seen.text
    counted = [int(number) for number in re.findall(r"fetching team: (\d+) MB, \d+\.\d MB/s", seen.text)]
    assert counted == sorted(counted)
    assert len(set(counted)) > 2, seen.text
    assert seen.silent < allowed(2)


@pytest.mark.slow
def test_a_lock_says_for_how_long_its_steps_last(locked: Sandbox) -> None:
    def late(name: str, content: bytes) -> bytes:
        time.sleep(2.5)
        return content

    locked.index.tamper = late
    (locked.work / "profiles/small.lock.toml").unlink()
    seen = on_terminal([*DRYDOCK, "lock"], env={**locked.environment, "TERM": "xterm"}, cwd=locked.work)
    assert seen.code == 0, seen.text
    assert re.search(r"resolving small for linux-x86_64: [1-9] s", seen.text), seen.text
    assert seen.silent < allowed(2)


def test_only_what_is_being_made_in_a_full_folder_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store of sources may be large, and far away."""
    monkeypatch.setattr("builder.report._OFTEN", 0.01)
    report, seen = PlainReporter(io.StringIO()), set()
    monkeypatch.setattr(report, "progress", lambda progress: seen.add(progress.done))
    for name in ("kept", ".new-1"):
        (tmp_path / name).mkdir()
    with Growth(report, "fetching it", tmp_path, ".new-"):
        (tmp_path / "kept/file").write_bytes(b"by somebody else")
        (tmp_path / ".new-1/file").write_bytes(b"ours")
        until(lambda: seen - {0})
    assert seen - {0} == {4}


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    meter = Meter(PlainReporter(stream), "moving 3 files")
    for _ in range(50):
        now[0] += 0.5
        meter(int((now[0] - 100) * 1e6), 100_000_000)
    assert stream.getvalue().splitlines() == [
        "  moving 3 files: 11 of 100 MB, 1.0 MB/s, 89 s left",
        "  moving 3 files: 22 of 100 MB, 1.0 MB/s, 78 s left",
    ]


@pytest.mark.slow
def test_the_trainer_counts_the_seconds_of_an_import_on_a_terminal(tmp_path: Path) -> None:
    path = ROOT / "profiles/trainers/tiny_lm.py"
    spec = importlib.util.spec_from_file_location("tiny_lm", path)
    assert spec is not None
    code = (
        f"import sys, time; sys.path.insert(0, {str(path.parent)!r}); from tiny_lm import shown\n"
        "with shown('importing torch'): time.sleep(1.5)\nprint('done')"
    )
    command = [sys.executable, "-c", code]
    seen = on_terminal(command, env={**os.environ, "TERM": "xterm"}, cwd=tmp_path)
    assert seen.text == "\rimporting torch: 1 s\r\x1b[Kdone\r\n"
    seen = on_terminal(command, env={**os.environ, "TERM": "dumb"}, cwd=tmp_path)
    assert seen.text == "done\r\n"


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_line_of_a_table_is_wider_than_the_terminal(width: int) -> None:
    rows = [["20261126-131528-3f2a9c1e", "desk", "failed (1)", "41 min", "loss 1.92", "[lr] a note that is long " * 3]]
    lines = render(["RUN", "PROFILE", "STATE", "TOOK", "LOSS", "NOTE"], rows, width)
    assert max(map(len, lines)) < width
    assert " ".join(lines).count("note") == 3, "nothing is cut off"
