"""What a command imports before it does anything: each import is time that a person waits."""

from __future__ import annotations

import sys

import pytest

from tests.support import Sandbox

# What takes longest of all that Drydock may import; hashlib loads OpenSSL, shutil what packs archives.
SLOW = {
    *("pydantic", "packaging", "jinja2", "plumbum", "rich", "hashlib", "dataclasses", "tempfile", "subprocess"),
    *("tomllib", "socket", "shutil", "importlib.metadata"),
}
RUN = """
import sys
before = set(sys.modules)
from builder.cli import main
try:
    main()
finally:
    print(*set(sys.modules) - before, file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("words", "own", "needed"),
    [
        ("--help", 36, set()),  # the files of all commands, for their first lines
        ("build small", 37, set()),
        ("runs list", 34, {"hashlib"}),
        ("generation list small", 30, {"hashlib", "dataclasses"}),
        (
            "doctor small",
            76,
            SLOW - {"pydantic", "packaging", "jinja2", "rich"},
        ),  # no models
    ],
)
def test_a_plain_command_imports_little(built: Sandbox, words: str, own: int, needed: set[str]) -> None:
    built.drydock("build", "small").succeeded()  # a test before may have changed the profile: it is evaluated here
    done = built.run([sys.executable, "-c", RUN, *words.split()]).succeeded()
    modules = set(done.stderr.splitlines()[-1].split())
    assert modules & SLOW <= needed
    assert len([one for one in modules if one.startswith("builder")]) <= own
