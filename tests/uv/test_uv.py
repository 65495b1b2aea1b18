"""What Drydock takes from uv's and pip's own settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder import uv


def test_folders_of_wheels_are_those_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    monkeypatch.setenv("UV_FIND_LINKS", f"{tmp_path}/a,{tmp_path}/gone,https://example.org/")
    monkeypatch.setenv("PIP_FIND_LINKS", f" {tmp_path}/b\n file://{tmp_path}/c\t{tmp_path}/file ")
    assert uv.find_links() == [tmp_path / name for name in "abc"]
    monkeypatch.delenv("UV_FIND_LINKS")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    assert uv.find_links() == []
