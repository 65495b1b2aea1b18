"""Damaged files of every kind, briefly; `just fuzz 1000000` takes longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.__main__ import failure, fuzz
from tests.fuzz.targets import TARGETS, Target

SEEDS = Path(__file__).parent / "seeds"


@pytest.fixture(autouse=True)
def own_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DRYDOCK_HOME", str(tmp_path))  # and back, whatever a target sets


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_whole_is_read(name: str, tmp_path: Path) -> None:
    for seed in TARGETS[name].seeds:
        assert failure(TARGETS[name], seed, tmp_path) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_what_is_damaged_is_an_error_in_words_or_none_and_takes_no_time(name: str) -> None:
    assert fuzz(name, 40, seed=1) == []


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("format", b"\xff"),
        ("drydock.toml", b'[caches]\nplaces = ["s3://[a/b"]\n'),
        ("gcroots", b"x.99999999999999999999"),
        *((name, b"[" * 100_000) for name in ("manifest", "evaluation", "profile", "lock", "wheel", "note", "plan")),
        ("state.json", b'{"phase": 1}'),
        ("state.json", b'{"phase": "running"}'),
        ("state.json", b'{"phase":' * 100_000),
        ("state.json", TARGETS["state.json"].seeds[0].replace(b'"trainer": ', b'"trainer": -')),
        ("wheel", TARGETS["wheel"].seeds[0].replace(b'"lib"', b'"' + b"x" * 300 + b'"')),
        ("lock of a run", b"\xff\xff"),
        ("samples.jsonl", b'{"time": "now"}\n'),
        ("archive.zip", (SEEDS / "nameless.zip").read_bytes()),
        ("pylock", (SEEDS / "pylock.toml").read_bytes().replace(b"==", b"===")),
        ("uv.lock", (SEEDS / "uv.lock").read_bytes().replace(b"3.11", b"3" * 5000)),
    ],
)
def test_what_was_a_traceback(name: str, data: bytes, tmp_path: Path) -> None:
    assert failure(TARGETS[name], data, tmp_path) is None


def test_a_failure_is_one(tmp_path: Path) -> None:
    def broken(data: bytes, folder: Path) -> None:
        raise KeyError(data)

    assert "KeyError" in str(failure(Target(broken, []), b"", tmp_path))
