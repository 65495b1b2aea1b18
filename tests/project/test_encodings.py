"""Files as editors of other systems save them: what they are is said, and what to do."""

from __future__ import annotations

import pytest

from tests.support import Sandbox
from tests.support.homes import furnish


@pytest.mark.parametrize("file", ["profiles/small.toml", "drydock.toml"])
@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("utf-8-sig", "it begins with a byte order mark (BOM)"),
        ("utf-16", "it is UTF-16, and not UTF-8"),
        ("utf-16-le", "UTF-16"),
        ("latin-1", "not UTF-8"),
    ],
)
def test_another_encoding_is_named(sandbox: Sandbox, file: str, encoding: str, words: str) -> None:
    path = sandbox.profile("small")
    if file == "drydock.toml":
        path = sandbox.work / file
        path.write_text("[sources]\n")
    text = f"# \u00e9\u00e9\u00e9\n{path.read_text()}"
    path.write_bytes(text.encode(encoding))
    done = sandbox.drydock(*(["lock", "small"] if file.startswith("profiles") else ["profile", "list"]))
    if encoding == "utf-16-le":  # without its mark it is valid UTF-8, with NULs in it
        assert done.code
        return
    done.failed(1, file, words)


def test_line_ends_that_git_turned_are_no_stale_lock(sandbox: Sandbox) -> None:
    desk = furnish(sandbox)
    desk.drydock("build", "small").succeeded()
    lock = (desk.work / "profiles/small.lock.toml").read_bytes()
    patch = desk.work / "profiles/patches/fix.patch"
    patch.write_bytes(patch.read_bytes().replace(b"\n", b"\r\n"))
    desk.drydock("build", "small").failed(
        1, "patches/fix.patch: its line ends are CRLF here, and LF where small was locked", "'*.patch -text'"
    )
    assert (desk.work / "profiles/small.lock.toml").read_bytes() == lock
    patch.write_bytes(patch.read_bytes().replace(b"line five", b"line 5.0"))
    desk.drydock("build", "small").failed(1, "the lock is stale")
    # A profile and a lock with such line ends say the same as before.
    patch.write_bytes(patch.read_bytes().replace(b"line 5.0", b"line five").replace(b"\r\n", b"\n"))
    for name in ("small.toml", "small.lock.toml"):
        path = desk.work / "profiles" / name
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    desk.drydock("build", "small").succeeded()


def test_what_changes_where_modules_are_found_reaches_no_trainer(sandbox: Sandbox) -> None:
    sandbox.trainer("import os; print(sorted(name for name in os.environ if name.startswith('PYTHON')))")
    sandbox.drydock("lock", "small").succeeded()
    leaks = {"PYTHONSAFEPATH": "1", "PYTHONCASEOK": "1", "PYTHONINSPECT": "1", "PYTHONPATH": "/x", "PYTHONUTF8": "1"}
    done = sandbox.run(["sh", str(sandbox.script("small"))], env=leaks).succeeded()
    assert done.stdout == "['PYTHONNOUSERSITE', 'PYTHONUTF8']\n"
