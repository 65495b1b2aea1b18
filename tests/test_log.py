"""What is kept of a command that fails, and what -v shows."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest

from builder import cli, log
from tests.support import Result, Sandbox

NOBODY = {"UV_DEFAULT_INDEX": "http://me:hunter22@127.0.0.1:9/simple", "HF_TOKEN": "hf_abcdefgh"}


def logs(desk: Sandbox) -> list[Path]:
    return sorted((desk.home / ".local/state/drydock/log").glob("*"))


def fail(desk: Sandbox, *options: str) -> Result:
    """A lock that nobody answers, whose words have a password and a token."""
    desk.profile("small", head="# hf_abcdefgh\n")
    return desk.drydock(*options, "lock", "small", env=NOBODY)


def test_a_failure_leaves_a_log_for_its_owner_and_says_where(sandbox: Sandbox) -> None:
    failed = fail(sandbox).failed(1, "error: ")
    (path,) = logs(sandbox)
    assert failed.stderr.endswith(f"  log: {path}\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert re.search(r"^Drydock [0-9.]+, Python 3\.[0-9.]+, \w+ ", text)
    assert "command: drydock lock small\n" in text
    assert re.search(r"^ +[0-9.]+ run: \S*uv pip compile .*\(status [12], [0-9.]+ s\)$", text, re.MULTILINE)
    assert "locking small" in text
    for secret in ("hunter22", "hf_abcdefgh"):
        assert secret not in text + failed.stderr


def test_a_secret_among_the_arguments_is_not_in_it(locked: Sandbox, tmp_path: Path) -> None:
    env = {**NOBODY, "UV_CACHE_DIR": str(tmp_path)}
    locked.drydock("run", "small", "--", "--lr=1", "--api-key=hushhush", env=env).failed(1)
    text = logs(locked)[0].read_text()
    assert "command: drydock run small -- --lr=1 '--api-key=***'\n" in text
    assert "hushhush" not in text


def test_a_mistake_that_its_message_explains_leaves_none(sandbox: Sandbox) -> None:
    assert "log:" not in sandbox.drydock("lock", "other").failed(1, 'no profile "other"').stderr
    assert "log:" not in sandbox.drydock("lock", "--other").failed(2).stderr
    assert logs(sandbox) == []


def test_the_newest_twenty_are_kept(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(sandbox.home))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    folder = log.folder()
    assert folder is not None
    folder.mkdir(parents=True)
    for day in range(30):
        (folder / f"202611{day + 1:02}T000000-1.log").touch()
    written = log.write(["head"], ["end"], str)
    assert written is not None
    assert written.read_text().startswith("head\n\n")
    assert len(logs(sandbox)) == 20
    assert log.files()[-1].name == "20261112T000000-1.log"


def test_a_folder_that_cannot_be_written_is_no_second_failure(sandbox: Sandbox) -> None:
    (sandbox.home / ".local/state").mkdir(parents=True)
    (sandbox.home / ".local/state/drydock").write_text("a file")
    assert "log:" not in fail(sandbox).failed(1).stderr


def test_v_shows_what_is_run_and_vv_what_it_says(sandbox: Sandbox) -> None:
    quiet, verbose, whole = (fail(sandbox, *options).stderr for options in ((), ("-v",), ("-vv",)))
    assert "run: " not in quiet
    assert re.search(r"^run: \S*uv pip compile ", verbose, re.MULTILINE)
    assert len(whole.splitlines()) > len(verbose.splitlines())
    assert "hunter22" not in verbose + whole


def test_what_vv_shows_of_others_has_no_secret_and_steers_no_terminal(sandbox: Sandbox) -> None:
    talker = sandbox.root / "uv"
    talker.write_text('#!/bin/sh\nprintf "with hf_abcdefgh \\033[2J\\n" >&2\nexec "$REAL" "$@"\n')
    talker.chmod(0o755)
    sandbox.profile("small")
    env = {"HF_TOKEN": "hf_abcdefgh", "DRYDOCK_UV": str(talker), "REAL": sandbox.environment["DRYDOCK_UV"]}
    said = sandbox.drydock("-vv", "lock", "small", env=env).succeeded().stderr
    assert "  with [HF_TOKEN] \\x1b[2J" in said
    assert "hf_abcdefgh" not in said
    assert "\x1b" not in said


def test_a_bug_is_said_to_be_one_and_its_traceback_is_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    def broken(**_: object) -> None:
        raise RuntimeError("of the test")

    monkeypatch.setattr(cli.cli, "main", broken)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert said.startswith("error: RuntimeError: of the test\n  hint: this is a bug in Drydock")
    assert "Traceback" not in said
    (path,) = (tmp_path / "drydock/log").iterdir()
    assert "Traceback (most recent call last):" in path.read_text()
