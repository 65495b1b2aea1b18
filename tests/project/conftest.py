"""What several tests of projects build with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def setuptools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real wheel of setuptools, downloaded once."""
    folder = tmp_path_factory.mktemp("setuptools")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), "setuptools==80.9.0"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"setuptools cannot be downloaded: {done.stderr.strip().splitlines()[-1]}")
    return next(folder.iterdir())
