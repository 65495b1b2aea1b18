"""The repair tools: fix_*_patches.py and fix_*_dependencies.sh, on virtual environments that Drydock did not make."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import Sandbox, make_wheel

BROKEN = 'def total(numbers):\n    return sum(numbers) + 1\n\n\nversion = "1.0"\n'
MENDED = BROKEN.replace(" + 1", "")
PATCH = """\
total() counted one too many.

--- a/anchor/__init__.py
+++ b/anchor/__init__.py
@@ -1,5 +1,5 @@
 def total(numbers):
-    return sum(numbers) + 1
+    return sum(numbers)


 version = "1.0"
"""
PROOF = "import anchor\n\nassert anchor.total([1, 2]) == 3, 'one too many'\nprint('ok: the total is right')\n"
TAIL = """
[[patches]]
package = "anchor"
versions = ">=1,<2"
file = "patches/total.patch"
proof = "proofs/total.py"
why = "total() counted one too many"
"""


@pytest.fixture
def desk(sandbox: Sandbox) -> Sandbox:
    """A sandbox whose profile `mended` patches anchor, with its generated files in root/generated/mended."""
    make_wheel(sandbox.wheels, "anchor", "1.0", files={"anchor/__init__.py": BROKEN})
    sandbox.file("patches/total.patch", PATCH)
    sandbox.file("proofs/total.py", PROOF)
    sandbox.profile("mended", tail=TAIL)
    sandbox.drydock("lock", "mended").succeeded()
    sandbox.script("mended")
    return sandbox


def installed(desk: Sandbox, version: str = "1.0") -> Path:
    """A plain virtual environment with anchor in it, made by uv."""
    uv, venv = desk.environment["DRYDOCK_UV"], desk.root / "venv"
    desk.run([uv, "venv", "-q", "--python", desk.environment["DRYDOCK_PYTHON"], str(venv)]).succeeded()
    desk.run([uv, "pip", "install", "-q", "--python", str(venv), f"anchor=={version}"]).succeeded()
    return venv


def source(venv: Path) -> Path:
    return next(venv.glob("lib/python*/site-packages/anchor/__init__.py"))


def patches_tool(desk: Sandbox) -> str:
    return str(desk.root / "generated/mended/fix_mended_patches.py")


def dependencies_tool(desk: Sandbox) -> str:
    return str(desk.root / "generated/mended/fix_mended_dependencies.sh")


def test_the_patch_tool_mends_an_installation_and_takes_it_back(desk: Sandbox) -> None:
    venv = installed(desk)
    python, tool = str(venv / "bin/python"), patches_tool(desk)
    missing = desk.run([python, tool, "--check"])
    assert (missing.code, missing.stdout.split(":")[0]) == (1, "MISSING")
    assert desk.run([python, tool]).succeeded().stdout.startswith("applied: patches/total.patch")
    assert source(venv).read_text() == MENDED
    assert desk.run([python, tool, "--check"]).succeeded().stdout.startswith("applied")
    assert desk.run([python, tool]).succeeded().stdout.startswith("nothing to do")
    assert desk.run([python, tool, "--revert"]).succeeded().stdout.startswith("taken back")
    assert source(venv).read_text() == BROKEN
    record = next(venv.glob("lib/python*/site-packages/anchor-1.0.dist-info/RECORD")).read_text()
    assert f",{len(BROKEN)}\n" in record


def test_the_patch_tool_leaves_a_file_that_somebody_changed(desk: Sandbox) -> None:
    venv = installed(desk)
    changed = BROKEN + "# mine\n"
    source(venv).unlink()
    source_path = next(venv.glob("lib/python*/site-packages/anchor")) / "__init__.py"
    source_path.write_text(changed)
    result = desk.run([str(venv / "bin/python"), patches_tool(desk)])
    result.failed(1, "does not apply", "Somebody changed the file")
    assert source_path.read_text() == changed


def test_the_patch_tool_does_not_reach_through_a_hard_link(desk: Sandbox) -> None:
    venv = installed(desk)
    os.link(source(venv), desk.root / "in-the-cache.py")
    desk.run([str(venv / "bin/python"), patches_tool(desk)]).succeeded()
    assert (desk.root / "in-the-cache.py").read_text() == BROKEN


def test_the_patch_tool_says_when_the_package_is_not_there(desk: Sandbox) -> None:
    venv = desk.root / "empty"
    desk.run([desk.environment["DRYDOCK_UV"], "venv", "-q", "--python", "3.11", str(venv)]).succeeded()
    desk.run([str(venv / "bin/python"), patches_tool(desk)]).failed(1, "anchor is not installed")


@pytest.mark.slow
def test_the_dependency_tool_brings_a_venv_to_the_locked_versions(desk: Sandbox) -> None:
    make_wheel(desk.wheels, "anchor", "0.9")
    make_wheel(desk.wheels, "bystander", "3.0")
    venv = installed(desk, "0.9")
    uv = desk.environment["DRYDOCK_UV"]
    desk.run([uv, "pip", "install", "-q", "--python", str(venv), "bystander"]).succeeded()
    before = desk.run(["sh", dependencies_tool(desk), "--check", str(venv)])
    assert before.code == 1
    assert "FAIL packages: anchor 0.9 is installed, and the lock wants 1.0" in before.stdout
    done = desk.run(["sh", dependencies_tool(desk), str(venv)]).succeeded()
    assert "ok   packages: 1 as locked" in done.stdout
    assert "ok   total.py: ok: the total is right" in done.stdout
    assert source(venv).read_text() == MENDED
    assert list(venv.glob("lib/python*/site-packages/bystander")), "a package that the lock does not name was removed"
    saved = next(venv.glob("packages-before-*.txt")).read_text()
    assert "anchor==0.9" in saved
    desk.run([uv, "pip", "install", "-q", "--python", str(venv), "-r", str(next(venv.glob("packages-before-*.txt")))])
    assert next(venv.glob("lib/python*/site-packages/anchor-0.9.dist-info"))


@pytest.mark.slow
def test_the_dependency_tool_finds_the_active_venv_and_can_be_run_twice(desk: Sandbox) -> None:
    venv = installed(desk)
    for _ in range(2):
        desk.run(["sh", dependencies_tool(desk)], env={"VIRTUAL_ENV": str(venv)}).succeeded()
    assert source(venv).read_text() == MENDED


def test_the_dependency_tool_refuses_what_is_no_venv(desk: Sandbox) -> None:
    desk.run(["sh", dependencies_tool(desk), str(desk.work)]).failed(1, "is not a virtual environment")
    desk.run(["sh", dependencies_tool(desk), "--nonsense"]).failed(2, "--nonsense is not an option")
