"""What a command does before it does anything, and after: each import, and each object that is freed, is time that a
person waits.
"""

from __future__ import annotations

import sys
from pathlib import Path

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
        ("build small", 36, set()),
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


ENDING = """
import atexit, threading, time
from builder.cli import run_program

atexit.register(print, "at exit")
def work():
    time.sleep(0.2)
    print("thread ended", flush=True)
{thread}
print("begun")
run_program()
"""


def _ending(thread: str = "") -> list[str]:
    return [sys.executable, "-v", "-c", ENDING.format(thread=thread), "no-command"]


def test_the_program_ends_at_once_with_all_that_is_promised_for_its_end(sandbox: Sandbox) -> None:
    done = sandbox.run(_ending())
    assert (done.code, done.stdout) == (2, "begun\nat exit\n")
    assert "# cleanup" not in done.stderr


def test_the_program_waits_for_a_thread_as_python_does(sandbox: Sandbox) -> None:
    done = sandbox.run(_ending("threading.Thread(target=work).start()"))
    assert (done.code, done.stdout) == (2, "begun\nthread ended\nat exit\n")


def test_what_cannot_be_written_at_the_end_fails_the_program(sandbox: Sandbox) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    done = sandbox.run(["sh", "-c", 'exec "$@" >/dev/full', "sh", *_ending()])
    assert done.code == 120  # Python's own, of a failed flush
    assert "No space left on device" in done.stderr
