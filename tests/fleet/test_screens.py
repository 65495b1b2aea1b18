"""What a fleet shows on a terminal of 60, 80 and 120 columns, compared with a file (tests/cli/test_snapshots.py)."""

from __future__ import annotations

import re

import pytest

from tests.cli.test_snapshots import WIDTHS, check, here, seen
from tests.fleet.conftest import Lab

__all__ = ["here"]  # a fixture


@pytest.mark.slow
def test_what_a_deployment_would_do(lab: Lab, here: pytest.MonkeyPatch) -> None:
    for name, value in lab.desk.environment.items():
        here.setenv(name, value)
    here.chdir(lab.desk.work)
    parts = []
    for columns in WIDTHS:
        text = seen(["deploy", "lab", "--dry-run"], columns, here, is_coloured=True)
        text = re.sub(r"\n  h\S+: would be built(?=\n)", "", text)  # folded as their answers come
        text = re.sub(r"(?<= small )[0-9a-z]{8}\b", "k" * 8, text)
        parts.append(f"===== {columns} columns =====\n{text}\n")
    check("fleet", "".join(parts))
