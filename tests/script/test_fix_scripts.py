"""The repair tools: fix_*_patches.py and fix_*_dependencies.sh, on virtual environments that Drydock did not make."""

from __future__ import annotations

import fcntl
import os
import pty
import shutil
import signal
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support import SHELLS, Result, Sandbox, make_wheel
from tests.support.belongings import DEEDS, SITE, Belongings
from tests.support.steps import GO, NEVER, Step, Watched, alike, some, why_not
from tests.support.waiting import LONG

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

[generated]
fix-patches = "fix_mended_patches.py"
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


@pytest.mark.slow
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
    assert list(next(venv.glob(".drydock-before-*")).rglob("anchor-0.9.dist-info")), "what was there is kept"
    desk.run(["sh", dependencies_tool(desk), "--revert", str(venv)]).succeeded()
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
    desk.run(["sh", dependencies_tool(desk), "--check", "--revert"]).failed(2, "--revert is not an option")


# --- what is changed, and back -------------------------------------------------------------------------------------

Tree = dict[str, tuple[int, bytes]]


def tree(folder: Path) -> Tree:
    """Every file, link and folder: its mode, and what is in it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        content = str(path.readlink()).encode() if path.is_symlink() else b"" if path.is_dir() else path.read_bytes()
        found[str(path.relative_to(folder))] = (path.lstat().st_mode, content)
    return found


def without_bytecode(found: Tree) -> Tree:
    return {path: what for path, what in found.items() if not path.endswith((".pyc", "__pycache__"))}


def run_script(desk: Sandbox) -> str:
    return str(next((desk.root / "generated/mended").glob("run_*.sh")))


def into(
    desk: Sandbox, *options: str, shell: str = "dash", venv: str = "", env: dict[str, str] | None = None
) -> Result:
    command = [*SHELLS.get(shell, ["sh"]), run_script(desk), "--into", venv or str(desk.root / "venv"), *options]
    return desk.run(command, env=env)


@pytest.fixture
def wide(sandbox: Sandbox) -> Sandbox:
    """As `desk`, and the lock has a second package, buoy 2.0, with a program."""
    make_wheel(sandbox.wheels, "anchor", "1.0", files={"anchor/__init__.py": BROKEN, "anchor/only_new.py": "new = 1\n"})
    old = {"anchor/__init__.py": "version = '0.9'\n", "anchor/gone/only_old.py": "old = 1\n", "single.py": "x = 1\n"}
    make_wheel(sandbox.wheels, "anchor", "0.9", files=old, entry_points="[console_scripts]\nanchor = single:x\n")
    make_wheel(sandbox.wheels, "buoy", "2.0", entry_points="[console_scripts]\nbuoy = buoy:print\n")
    make_wheel(sandbox.wheels, "bystander", "3.0")
    sandbox.file("patches/total.patch", PATCH)
    sandbox.file("proofs/total.py", PROOF)
    path = sandbox.profile("mended", tail=TAIL)
    path.write_text(path.read_text().replace('requires = ["anchor"]', 'requires = ["anchor", "buoy"]'))
    sandbox.drydock("lock", "mended").succeeded()
    sandbox.script("mended")
    sandbox.environment["TMPDIR"] = str(sandbox.root / "tmp")  # where a script that is killed leaves something
    (sandbox.root / "tmp").mkdir()
    return sandbox


def old_venv(desk: Sandbox, *packages: str) -> Path:
    """A virtual environment with anchor 0.9 and a bystander, as its user has it: bytecode, a read-only file."""
    venv = installed(desk, "0.9")
    uv = desk.environment["DRYDOCK_UV"]
    desk.run([uv, "pip", "install", "-q", "--python", str(venv), "bystander", *packages]).succeeded()
    desk.run([str(venv / "bin/python"), "-c", "import anchor, anchor.gone.only_old, single, bystander"]).succeeded()
    (venv / SITE / "anchor/gone/only_old.py").chmod(0o444)
    return venv


@pytest.mark.slow
@pytest.mark.parametrize("shell", [shell for shell in ("dash", "bash") if shell in SHELLS])
def test_all_of_it_is_said_before_and_can_be_taken_back(wide: Sandbox, shell: str) -> None:
    venv = old_venv(wide)
    before = tree(venv)
    done = into(wide, shell=shell).succeeded()
    for words in ("replace anchor 0.9 -> 1.0", "install buoy 2.0", "2 of the 2 packages", "nothing else is changed or"):
        assert words in done.stderr
    assert "--revert" in done.stderr.splitlines()[-1]
    assert source(venv).read_text() == MENDED
    assert not (venv / "bin/anchor").exists()
    assert not (venv / SITE / "single.py").exists()
    assert not (venv / SITE / "anchor/gone").exists(), "an empty folder would still be imported"
    assert not list((venv / SITE / "buoy").rglob("*.pyc")), "ours is never compared with its source"
    program = (venv / "bin/buoy").read_text()
    assert "dirname" in program or str(venv) in program
    # What was not named is not touched; neither --check nor --revert needs uv.
    nowhere = {"DRYDOCK_UV": "/nonexistent/uv", "PATH": "/usr/bin:/bin"}
    assert into(wide, "--check", shell=shell, env=nowhere).succeeded().stdout.startswith("ok   packages: 2 as locked")
    wide.run([str(venv / "bin/python"), "-c", "import anchor, anchor.only_new, buoy, bystander"]).succeeded()
    back = into(wide, "--revert", shell=shell, env=nowhere).succeeded()
    assert "taken back: replace anchor 0.9 -> 1.0" in back.stderr
    assert tree(venv) == before
    assert "nothing to take back" in into(wide, "--revert", shell=shell).succeeded().stderr
    check = into(wide, "--check", shell=shell)
    assert (check.code, check.stdout.splitlines()[:2]) == (
        1,
        [
            "FAIL packages: anchor 0.9 is installed, and the lock wants 1.0",
            "FAIL packages: buoy is not installed, and the lock wants 2.0",
        ],
    )


@pytest.mark.slow
def test_done_twice_it_goes_back_to_the_first_state(wide: Sandbox) -> None:
    venv = old_venv(wide)
    before = tree(venv)
    into(wide).succeeded()
    assert "of the 2 packages" not in into(wide).succeeded().stderr, "there was nothing to do"
    assert len(list(venv.glob(".drydock-before-*"))) == 1
    # Its user changes their mind in between, and adds something.
    make_wheel(wide.wheels, "buoy", "3.0")
    uv = wide.environment["DRYDOCK_UV"]
    wide.run([uv, "pip", "install", "-q", "--python", str(venv), "buoy==3.0"]).succeeded()
    again = into(wide).succeeded()
    assert "replace buoy 3.0 -> 2.0" in again.stderr
    assert "1 of the 2 packages" in again.stderr
    done = into(wide, "--revert").succeeded()
    (changed,) = venv.glob(".drydock-changed-*")
    assert str(changed) in done.stderr
    assert list(changed.rglob("buoy-3.0.dist-info")), "what the user had in between is not lost"
    shutil.rmtree(changed)
    assert without_bytecode(tree(venv)) == without_bytecode(before)


@pytest.mark.slow
def test_what_was_edited_is_kept_and_comes_back(wide: Sandbox) -> None:
    venv = old_venv(wide)
    into(wide).succeeded()
    edited = venv / SITE / "buoy/__init__.py"
    text = edited.read_text() + "# mine\n"
    edited.unlink()
    edited.write_text(text)
    check = into(wide, "--check")
    assert (check.code, "FAIL packages: buoy buoy/__init__.py was changed" in check.stdout) == (1, True), check.stdout
    assert "replace buoy 2.0: buoy/__init__.py was changed" in into(wide).succeeded().stderr
    (kept,) = (path for path in venv.glob(".drydock-before-*/files/lib/python3.11/site-packages/buoy/__init__.py"))
    assert kept.read_text() == text
    assert into(wide, "--revert").succeeded().stderr.count("taken back") == 3


@pytest.mark.slow
def test_what_it_newly_breaks_is_named_and_its_own_command_takes_it_back(wide: Sandbox) -> None:
    make_wheel(wide.wheels, "rope", "1.0", requires=["anchor<1"])
    make_wheel(wide.wheels, "wreck", "1.0", requires=["nowhere-to-be-found"])
    venv = old_venv(wide, "rope")
    wide.run(
        [wide.environment["DRYDOCK_UV"], "pip", "install", "-q", "--no-deps", "--python", str(venv), "wreck"]
    ).succeeded()
    before = tree(venv)
    done = into(wide).failed(1, "error: newly broken: The package `rope` requires `anchor<1`, but `1.0` is installed")
    assert "newly broken: The package `wreck`" not in done.stderr
    assert "before any change: The package `wreck`" in done.stderr
    assert source(venv).read_text() == MENDED, "the change is kept"
    command = done.stderr.splitlines()[-1].partition("take all of it back: ")[2]
    wide.run(["sh", "-c", command]).succeeded()
    assert tree(venv) == before


BACKEND = """\
import base64, hashlib, zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "{name}-{version}-py3-none-any.whl"
    info = "{name}-{version}.dist-info"
    contents = {{
        "{name}_here.pth": {path!r},
        f"{{info}}/METADATA": "Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n{requires}",
        f"{{info}}/WHEEL": "Wheel-Version: 1.0\\nGenerator: tests\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }}
    with zipfile.ZipFile(f"{{folder}}/{{name}}", "w") as archive:
        rows = [f"{{info}}/RECORD,,"]
        for path, text in contents.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            rows.append(f"{{path}},sha256={{digest}},{{len(text)}}")
            archive.writestr(path, text)
        archive.writestr(f"{{info}}/RECORD", "\\n".join(rows) + "\\n")
    return name
"""


def editable(desk: Sandbox, venv: Path, name: str, version: str, requires: str = "") -> Path:
    """Install a project of the user's to be edited; gives its folder."""
    project = desk.root / name
    (project / name).mkdir(parents=True)
    (project / name / "__init__.py").write_text("version = 'mine'\n")
    path = f"{project}\n"
    requires = f"Requires-Dist: {requires}\\n" if requires else ""
    (project / "backend.py").write_text(BACKEND.format(name=name, version=version, path=path, requires=requires))
    (project / "pyproject.toml").write_text(
        f'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        f'[project]\nname = "{name}"\nversion = "{version}"\n'
    )
    uv = desk.environment["DRYDOCK_UV"]
    desk.run([uv, "pip", "install", "-q", "--no-deps", "--python", str(venv), "-e", str(project)]).succeeded()
    return project


def test_an_editable_package_that_it_breaks_is_named(wide: Sandbox) -> None:
    venv = old_venv(wide)
    project = editable(wide, venv, "mine", "1.0", "anchor<1")
    theirs = tree(project)
    into(wide).failed(1, "newly broken: The package `mine` requires `anchor<1`")
    assert tree(project) == theirs


@pytest.mark.slow
def test_an_editable_package_that_the_lock_names_is_replaced_and_comes_back(wide: Sandbox) -> None:
    venv = old_venv(wide)
    project = editable(wide, venv, "buoy", "2.0")
    before, theirs = tree(venv), tree(project)
    done = into(wide).succeeded()
    assert f"replace buoy 2.0 (editable, file://{project}) -> 2.0" in done.stderr
    told = wide.run([str(venv / "bin/python"), "-c", "import buoy; print(buoy.version)"]).succeeded()
    assert told.stdout == "2.0\n"
    into(wide, "--revert").succeeded()
    assert without_bytecode(tree(venv)) == without_bytecode(before)
    assert tree(project) == theirs


@pytest.mark.slow
def test_files_that_are_links_into_a_cache_are_not_written_through(wide: Sandbox) -> None:
    venv = old_venv(wide)
    twins = {}
    for number, path in enumerate(path for path in (venv / SITE).rglob("*") if path.is_file()):
        twin = wide.root / "cache-twins" / str(number)
        twin.parent.mkdir(exist_ok=True)
        os.link(path, twin)
        twins[twin] = (path.read_bytes(), path.stat().st_mode)
    into(wide).succeeded()
    into(wide, "--revert").succeeded()
    assert {twin: (twin.read_bytes(), twin.stat().st_mode) for twin in twins} == twins
    wheels = [path for path in (wide.store.parent / "wheels").rglob("__init__.py") if path.parent.name == "anchor"]
    assert [path.read_text() for path in wheels] == [BROKEN], "a patch has changed what is unpacked for all"


# --- what is refused -----------------------------------------------------------------------------------------------


def lose_record(venv: Path) -> str:
    (venv / SITE / "anchor-0.9.dist-info/RECORD").unlink()
    return "anchor 0.9's: lib/python3.11/site-packages/anchor-0.9.dist-info has no RECORD"


def lead_out(venv: Path) -> str:
    record = venv / SITE / "anchor-0.9.dist-info/RECORD"
    text = record.read_text()
    record.unlink()
    record.write_text(f"{text}../../../../outside.txt,,\n")
    (venv.parent / "outside.txt").write_text("mine\n")
    return "has no RECORD that stays in there"


def be_of_setup_py(venv: Path) -> str:
    (venv / SITE / "buoy-1.0-py3.11.egg-info").write_text("Metadata-Version: 1.1\nName: buoy\nVersion: 1.0\n")
    return "buoy 1.0's: lib/python3.11/site-packages/buoy-1.0-py3.11.egg-info has no RECORD"


def be_developed(venv: Path) -> str:
    (venv / SITE / "buoy.egg-link").write_text("/src/buoy\n.\n")
    return "buoy of setup.py's"


def be_linked(venv: Path) -> str:
    package = venv / SITE / "anchor"
    package.rename(venv.parent / "elsewhere")
    package.symlink_to(venv.parent / "elsewhere")
    return "lib/python3.11/site-packages/anchor is a link, and nothing is changed through one; nothing was changed"


def be_in_the_way(venv: Path) -> str:
    (venv / SITE / "buoy/__init__.py").mkdir(parents=True)
    return "site-packages/buoy/__init__.py is a folder, where a package has a file; nothing was changed"


def be_a_file(venv: Path) -> str:
    (venv / SITE / "buoy").write_text("mine\n")
    return "site-packages/buoy is a file, where a package has a folder; nothing was changed"


@pytest.mark.slow
def test_what_cannot_be_taken_back_is_not_begun(wide: Sandbox) -> None:
    old = old_venv(wide)
    for deed in (lose_record, lead_out, be_of_setup_py, be_developed, be_linked, be_in_the_way, be_a_file):
        venv = Path(shutil.copytree(old, wide.root / deed.__name__ / "venv", symlinks=True))
        words = deed(venv)
        before = tree(venv.parent)
        into(wide, venv=str(venv)).failed(1, words)
        assert tree(venv.parent) == before, deed


def of_conda(venv: Path) -> str:
    (venv / "conda-meta").mkdir()
    return "it is an environment of conda"


def without_home(venv: Path) -> str:
    (venv / "pyvenv.cfg").write_text("include-system-site-packages = false\n")
    return "its pyvenv.cfg is not a file that names a home"


def with_a_link(venv: Path) -> str:
    (venv / "pyvenv.cfg").rename(venv.parent / "real.cfg")
    (venv / "pyvenv.cfg").symlink_to(venv.parent / "real.cfg")
    return "its pyvenv.cfg is not a file that names a home"


def of_another(venv: Path) -> str:
    """A Python that works for another folder: a program that runs it, where the link was."""
    python = venv / "bin/python"
    python.rename(venv.parent / "aside")
    other = venv.parent / "other"
    shutil.copytree(venv, other, symlinks=True)
    (venv.parent / "aside").rename(other / "bin/python")
    python.write_text(f'#!/bin/sh\nexec {other}/bin/python "$@"\n')
    python.chmod(0o755)
    return f"its Python works for {other}"


def with_packages_elsewhere(venv: Path) -> str:
    (venv / "lib").rename(venv.parent / "lib")
    (venv / "lib").symlink_to(venv.parent / "lib")
    return f"its packages are in {venv.parent}/lib/python3.11/site-packages"


@pytest.mark.slow
def test_what_only_looks_like_a_virtual_environment_is_refused(wide: Sandbox) -> None:
    old = installed(wide, "0.9")
    for deed in (of_conda, without_home, with_a_link, of_another, with_packages_elsewhere):
        venv = Path(shutil.copytree(old, wide.root / deed.__name__ / "venv", symlinks=True))
        words = deed(venv)
        before = tree(venv.parent)
        for option in ("--yes", "--revert"):
            into(wide, option, venv=str(venv)).failed(1, f"{venv} is not a virtual environment of yours: {words}")
        assert without_bytecode(tree(venv.parent)) == without_bytecode(before)


def test_what_is_not_the_users_to_change_is_refused(wide: Sandbox) -> None:
    base = Path(wide.environment["DRYDOCK_PYTHON"]).parent.parent
    link = wide.root / "link"
    link.symlink_to("/usr")
    for folder in (str(base), "/usr", str(link), "/nonexistent", str(wide.work)):
        into(wide, venv=folder).failed(
            1, f"{folder} is not a virtual environment", "name one, or make it: python3.11 -m"
        )
    wide.run(["sh", run_script(wide), "--build-only"]).succeeded()
    (env,) = wide.store.glob("[!.]*")
    before = tree(env)
    link.unlink()
    link.symlink_to(env)
    for store_path in (env, link):
        into(wide, venv=str(store_path)).failed(1, "it is a store path of Drydock, which never changes")
    assert tree(env) == before


@pytest.mark.slow
def test_the_hint_never_names_a_folder_that_is_there(wide: Sandbox) -> None:
    venv = installed(wide, "0.9")
    other = wide.root / "venv-3.11"
    (venv / "bin/python").unlink()
    (venv / "bin/python").write_text("#!/bin/sh\nprintf '3.9\\n'\n")
    (venv / "bin/python").chmod(0o755)
    words = ("has a Python 3.9, and the locked wheels are for 3.11", f"make another: python3.11 -m venv '{other}'")
    into(wide).failed(1, *words)
    other.symlink_to("nowhere")
    into(wide).failed(1, f"python3.11 -m venv '{other}-3.11'")


def test_options_that_go_with_it_alone_are_wrong_use(wide: Sandbox) -> None:
    for arguments in (["--check"], ["--revert"], ["--yes"], ["--build-only", "--yes"]):
        wide.run(["sh", run_script(wide), *arguments]).failed(2, "go with --into VENV")
    for arguments in (["--into"], ["--into", ""], ["--into", "a", "--", "b"]):
        wide.run(["sh", run_script(wide), *arguments]).failed(2, "--into takes a virtual environment")


def test_the_platform_comes_before_all_else() -> None:
    tool = ROOT / "generated/m4/fix_mac_dependencies.sh"
    done = subprocess.run(["sh", str(tool), "/nonexistent"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "m4 is for macos-arm64, and this is Linux" in done.stderr


@pytest.mark.slow
def test_the_tool_needs_the_run_script_or_is_made_whole(wide: Sandbox) -> None:
    venv = old_venv(wide)
    before = tree(venv)
    alone = wide.root / "alone/fix_mended_dependencies.sh"
    alone.parent.mkdir()
    shutil.copy(dependencies_tool(wide), alone)
    wide.run(["sh", str(alone), str(venv)]).failed(1, "there is no ", "drydock render mended --standalone")
    out = ["--out", str(wide.root / "generated/mended"), "--standalone"]
    wide.drydock("render", "mended", *out, "--check").failed(1, "fix_mended_dependencies.sh")
    changed = wide.drydock("render", "mended", *out).succeeded().stdout.split()
    assert [Path(path).name for path in changed] == ["fix_mended_dependencies.sh"]
    wide.drydock("render", "mended", *out, "--check").succeeded()
    shutil.copy(dependencies_tool(wide), alone)
    assert "--check    only say" in wide.run(["sh", str(alone), "--help"]).succeeded().stdout
    wide.run(["sh", str(alone), "--nonsense"]).failed(2, "--nonsense is not an option")
    wide.run(["sh", str(alone)], env={"VIRTUAL_ENV": str(venv)}).succeeded()
    assert source(venv).read_text() == MENDED
    wide.run(["sh", str(alone), "--revert", str(venv)]).succeeded()
    assert tree(venv) == before


# --- a person at a terminal ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("\n", 1), ("\x03", 130)])
def test_a_person_is_asked(wide: Sandbox, answer: str, code: int) -> None:
    venv = old_venv(wide)
    before = tree(venv)
    ours, theirs = pty.openpty()

    def own_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        ["sh", run_script(wide), "--into", str(venv)],
        env=wide.environment,
        cwd=wide.work,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=own_terminal,
    )
    os.close(theirs)
    said = ""
    while "go on? [y/N]" not in said:
        said += os.read(ours, 4096).decode()
    assert "replace anchor 0.9 -> 1.0" in said
    assert without_bytecode(tree(venv)) == without_bytecode(before), "nothing is changed before the answer"
    os.write(ours, answer.encode())
    try:
        while part := os.read(ours, 4096).decode():
            said += part
    except OSError:  # the terminal's other end was closed
        pass
    os.close(ours)
    assert process.wait(LONG) == code, said
    assert (source(venv).read_text() == MENDED) == (code == 0)
    if code:
        assert tree(venv) == before


# --- ends before its time, and what others do meanwhile ------------------------------------------------------------

needs_steps = pytest.mark.skipif((_reason := why_not()) is not None, reason=f"steps cannot be watched here: {_reason}")


def watched(desk: Sandbox, venv: Path, decide: Callable[[Watched, Step], int]) -> Watched:
    """The script, with every step below the environment."""
    return Watched(["sh", run_script(desk), "--into", str(venv)], venv, decide, env=desk.environment, cwd=desk.work)


def steps_of(desk: Sandbox, venv: Path) -> list[str]:
    """All steps of a run, each once."""
    seen: list[str] = []

    def note(_: Watched, step: Step) -> int:
        seen.append(known_as(step))
        return GO

    code, _, stderr = watched(desk, venv, note).ended()
    assert code == 0, stderr
    return list(dict.fromkeys(seen))


def known_as(step: Step) -> str:
    return alike(str(step)).replace(next(iter(step.paths), "").partition("/")[0] or "?", "BEFORE", 1)


def first_time(wanted: str, what: Callable[[Watched], int]) -> Callable[[Watched, Step], int]:
    """At the first step of this name, do something; all others go on."""
    done: list[str] = []

    def decide(running: Watched, step: Step) -> int:
        if done or known_as(step) != wanted:
            return GO
        done.append(wanted)
        return what(running)

    return decide


def cut(running: Watched) -> int:
    running.kill()
    return NEVER


@needs_steps
@pytest.mark.slow
def test_a_kill_at_any_step_can_be_taken_back_and_done_again(wide: Sandbox) -> None:
    venv = old_venv(wide)
    before = tree(venv)
    steps = steps_of(wide, venv)
    assert len(steps) > 20, steps
    after = without_bytecode({path: what for path, what in tree(venv).items() if ".drydock-before" not in path})
    into(wide, "--revert").succeeded()
    assert tree(venv) == before
    for number, step in enumerate(some(steps)):
        running = watched(wide, venv, first_time(step, cut))
        running.ended()
        if number % 2:
            into(wide, "--revert").succeeded()
            assert tree(venv) == before, step
        into(wide).succeeded()
        found = without_bytecode({path: what for path, what in tree(venv).items() if ".drydock-before" not in path})
        assert found == after, step
        into(wide, "--revert").succeeded()
        assert tree(venv) == before, step


@needs_steps
@pytest.mark.slow
def test_a_kill_while_it_is_taken_back_loses_nothing(wide: Sandbox) -> None:
    venv = old_venv(wide)
    before = tree(venv)
    seen: list[str] = []

    def note(_: Watched, step: Step) -> int:
        seen.append(known_as(step))
        return GO

    def revert(decide: Callable[[Watched, Step], int]) -> Watched:
        command = ["sh", run_script(wide), "--into", str(venv), "--revert"]
        return Watched(command, venv, decide, env=wide.environment, cwd=wide.work)

    into(wide).succeeded()
    assert revert(note).ended()[0] == 0
    for step in some(dict.fromkeys(seen)):
        into(wide).succeeded()
        revert(first_time(step, cut)).ended()
        into(wide, "--revert").succeeded()
        assert tree(venv) == before, step


@needs_steps
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_in_the_middle_leaves_what_was_there(wide: Sandbox, number: signal.Signals) -> None:
    venv = old_venv(wide)
    before = tree(venv)
    moves = [step for step in steps_of(wide, venv) if "rename" in step]
    into(wide, "--revert").succeeded()

    def ask_to_end(running: Watched) -> int:
        os.kill(running.process.pid, number)
        time.sleep(0.5)
        return GO

    running = watched(wide, venv, first_time(moves[len(moves) // 2], ask_to_end))
    code, _, _ = running.ended()
    assert code == 128 + number
    assert tree(venv) == before


@needs_steps
@pytest.mark.slow
@pytest.mark.parametrize("deed", DEEDS)
def test_whatever_is_done_to_it_meanwhile_nothing_else_is_changed(
    wide: Sandbox, belongings: Belongings, deed: str
) -> None:
    root, user = wide.root, belongings
    wide.environment["DRYDOCK_PYTHON"] = user.base.python
    folder = root / "moved/theirs"
    folder.mkdir(parents=True)
    shutil.copytree(root / "generated", folder / "generated")
    wide.root = folder  # what is moved out of the way goes no further than root
    venv = old_venv(wide)
    whole = tree(venv)
    steps = steps_of(wide, venv)
    into(wide, "--revert").succeeded()
    moves = [number for number, step in enumerate(steps) if "rename" in step]
    for number in (0, moves[0], moves[len(moves) // 2], moves[-1]):

        def do(_: Watched) -> int:
            DEEDS[deed](venv, user)
            return GO

        code, _, stderr = watched(wide, venv, first_time(steps[number], do)).ended()
        assert user.changes() == [], steps[number]
        assert "Traceback" not in stderr, stderr
        assert code in (0, 1), stderr
        shutil.rmtree(folder)
        shutil.rmtree(root / "taken", ignore_errors=True)
        folder.mkdir()
        shutil.copytree(root / "generated", folder / "generated")
        assert whole.keys() <= tree(old_venv(wide)).keys()
