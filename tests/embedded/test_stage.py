"""What a build does beside installing: the plan that it was given, what is installed, bytecode. Without a build."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from builder.embedded import installed, interpreter, stage
from builder.embedded import plan as plans
from builder.embedded.__main__ import main
from builder.embedded.errors import StageError
from builder.embedded.hashes import record_hash, sha256
from builder.script import machinery
from tests.conftest import ROOT
from tests.support.compiled import link_bytecode
from tests.support.packages import BOTH, FILES, patch_of

# --- what is installed ---------------------------------------------------------------------------------------------


def pins(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"packages": [{"name": name, "version": version} for name, version in pairs]}


def test_exactly_the_packages_of_the_plan_are_installed(site: Path) -> None:
    both = [("anchor", "1.0"), ("other-thing", "2.0")]
    installed.check_distributions(site, pins(*both))
    installed.check_distributions(site, pins(both[0]), others=True)
    for plan, words in (
        (pins(both[0]), "installed, but not in the lock: other-thing"),
        (pins(*both, ("b", "1"), ("a", "1")), "in the lock, but not installed: a, b"),
        (pins(("anchor", "1.1"), both[1]), "anchor 1.0 is installed, and the lock wants 1.1"),
    ):
        with pytest.raises(StageError, match=words):
            installed.check_distributions(site, plan)


def test_a_version_may_be_written_otherwise_in_the_folders_name(site: Path) -> None:
    # A local version has its hyphen as an underscore there; METADATA has the version itself.
    info = site / "anchor-1.0.dist-info"
    (info / "METADATA").write_text("Name: anchor\nVersion: 2.13.0+cpu-x\n\nVersion: 9\n")
    info.rename(site / "anchor-2.13.0+cpu_x.dist-info")
    installed.check_distributions(site, pins(("anchor", "2.13.0+cpu-x"), ("other-thing", "2.0")))


def test_bytecode_is_shared_only_for_the_source_that_record_names(site: Path, tmp_path: Path) -> None:
    (site / "other/a.py").write_text("x = 'evil'\n")  # RECORD, which no installer checks, has the hash of "x = 1"
    link_bytecode(site, tmp_path / "bytecode")
    shared = {path.parent.name + path.stem for path in (tmp_path / "bytecode").rglob("*.pyc")}
    assert shared == {sha256(text.encode()) for path, text in FILES.items() if path.endswith(".py")}
    assert {path.name.partition(".")[0] for path in site.rglob("*.pyc")} == {"__init__", "a", "b, c"}
    assert not list((site / "other").rglob("*.pyc"))


@pytest.mark.parametrize("is_shared", [False, True])
def test_bytecode_that_a_wheel_brings_makes_room_for_ours(site: Path, tmp_path: Path, is_shared: bool) -> None:
    """As numpy 2.2.6 does, whether its source was met before or not."""
    if is_shared:
        link_bytecode(site, tmp_path / "bytecode")
    cached = site / "anchor/__pycache__" / f"__init__.{sys.implementation.cache_tag}.pyc"
    cached.parent.mkdir(exist_ok=True)
    cached.unlink(missing_ok=True)
    cached.write_bytes(b"the wheel's own")
    link_bytecode(site, tmp_path / "bytecode")
    assert cached.stat().st_ino in {path.stat().st_ino for path in (tmp_path / "bytecode").rglob("*.pyc")}


def test_a_record_that_leaves_its_folder_is_not_followed(site: Path, tmp_path: Path) -> None:
    text = "x = 1\n"
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil/a.py").write_text(text)
    record = site / "anchor-1.0.dist-info/RECORD"
    digest = record_hash(text.encode())
    rows = [f"anchor/../../evil/a.py,{digest},{len(text)}", f"{tmp_path}/evil/a.py,{digest},{len(text)}"]
    record.write_text("\n".join([*rows, record.read_text()]))
    link_bytecode(site, tmp_path / "bytecode")
    assert [path.name for path in (tmp_path / "evil").iterdir()] == ["a.py"]
    assert list(site.rglob("*.pyc"))


# --- the plan on disk, and what uv was given ------------------------------------------------------------------------


def package(name: str, digest: str = "a", version: str = "1.0") -> dict[str, str]:
    return {"name": name, "version": version, "file": f"{name}-{version}-py3-none-any.whl", "sha256": digest * 64}


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """The folder of a plan with two packages of the default index, one of another, one that builds."""
    folder = tmp_path / "parts"
    (folder / "proofs").mkdir(parents=True)
    (folder / "proofs/a.py").write_text("print('ok')\n")
    plan = {
        "packages": [package("anchor"), package("buoy", "b"), package("torch", "c", "2.13.0+cpu")],
        "build-requires": [package("setuptools", "d")],
        "patches": [],
        "files": [{"path": "proofs/a.py", "sha256": sha256(b"print('ok')\n")}],
        "verify": ["proofs/a.py"],
    }
    written = {"name": "small", "key": plans.key_of(plan), "index": {"torch": "pytorch-cpu"}, "plan": plan}
    (folder / "plan.json").write_text(json.dumps(written))
    return folder


def edited(parts: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    written = json.loads((parts / "plan.json").read_text())
    change(written)
    (parts / "plan.json").write_text(json.dumps(written))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda parts: edited(parts, lambda it: it["plan"]["packages"].pop()),
            "its plan does not have the key it says",
        ),
        (lambda parts: edited(parts, lambda it: it.update(key="0" * 32)), "its plan does not have the key"),
        (lambda parts: edited(parts, lambda it: it.pop("key")), "has no readable plan"),
        (lambda parts: (parts / "plan.json").write_text("[]"), "has no readable plan"),
        (lambda parts: (parts / "plan.json").write_text("{"), "has no readable plan"),
        (lambda parts: (parts / "plan.json").unlink(), "has no readable plan"),
        (lambda parts: (parts / "proofs/a.py").write_text("print('ok') \n"), "proofs/a.py is not the file"),
    ],
)
def test_parts_that_were_edited_are_refused(parts: Path, spoil: Callable[[Path], Any], words: str) -> None:
    assert plans.read_plan(parts)["name"] == "small"
    spoil(parts)
    with pytest.raises(StageError, match=words):
        plans.read_plan(parts)


# --- the way in for scripts ----------------------------------------------------------------------------------------


def test_the_command_line_says_what_is_wrong(parts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (parts / "proofs/a.py").unlink()
    arguments = ["into", "check", "venv", str(parts), "home", "", "work", "mirror", str(os.getpid()), "", ""]
    command = [sys.executable, "-c", f"from builder.embedded.__main__ import main; exit(main({arguments!r}))"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr[:26]) == (1, "drydock: error: [Errno 2] ")
    for arguments in ([], ["other"]):
        assert main(arguments) == 1
        assert (
            "the commands are build, sweep, verify, python, into, pip, trainer, data, list, not"
            in capsys.readouterr().err
        )


def test_a_folder_that_is_no_virtual_environment_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"is not a virtual environment: it has no lib/python3\.\*/site-packages"):
        installed.site_packages(tmp_path)
    (tmp_path / "lib/python3.11/site-packages").mkdir(parents=True)
    assert installed.site_packages(tmp_path) == tmp_path / "lib/python3.11/site-packages"


# --- every Python that it may meet ---------------------------------------------------------------------------------


def pythons() -> Sequence[Any]:
    """The interpreters that pyenv and uv have, from 3.9 on: one of each release."""
    of_uv = os.environ.get("UV_PYTHON_INSTALL_DIR") or Path.home() / ".local/share/uv/python"
    found = [*Path(of_uv).glob("cpython-3.*/bin/python3"), *Path.home().glob(".pyenv/versions/3.*/bin/python")]
    # uv: cpython-3.9.25-linux-x86_64-gnu, and a link cpython-3.9-...; pyenv: 3.9.18
    named = {path.parts[-3].removeprefix("cpython-").partition("-")[0]: path for path in found}
    numbers = {tuple(map(int, name.split("."))): name for name in named if re.fullmatch(r"3\.\d+\.\d+", name)}
    releases = [name for number, name in sorted(numbers.items()) if number >= (3, 9)]
    reason = pytest.mark.skip(reason="neither pyenv nor uv has a Python here: uv python install 3.9")
    return [pytest.param(named[name], id=name) for name in releases] or [pytest.param(None, marks=reason)]


PROGRAM = """
import json, sys, warnings
from pathlib import Path
warnings.simplefilter("error")
sys.path.insert(0, sys.argv[1])
from builder.embedded import examine, patches, plan, workers
sys.path.insert(0, sys.argv[6])
from compiled import link_bytecode
site, parts, patch, text = Path(sys.argv[2]), Path(sys.argv[3]), json.loads(sys.argv[4]), sys.argv[5]
plan.read_plan(parts)
print(patches.patch_package(site, patch, text), patches.patch_package(site, patch, text))
print(examine.check_records(site, {})[1:])
made = link_bytecode(site, site.parent / "bytecode")
print(len(list(site.rglob("*.pyc"))), made)
jobs = list(range(1000))
print(workers.on_all_cores(lambda job: job * 2 if job % 2 else None, jobs, jobs, grain=1)[:4])
"""

# Imports each module in a process of its own that has imported none of the others; a fork is quicker than a start.
EACH_ALONE = """
import importlib, os, sys
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    child = os.fork()
    if not child:
        importlib.import_module("builder.embedded" + ("" if name == "__init__" else "." + name))
        print(name)
        break
    if os.waitpid(child, 0)[1]:
        print(name, "failed")
"""


machinery_files = cache(machinery.machinery_files)


def unpacked(folder: Path) -> Path:
    """The machinery as a script has it: a folder."""
    for path, text in machinery_files().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("python", pythons())
def test_it_runs_on_every_python_from_3_9_on(python: Path, site: Path, parts: Path, tmp_path: Path) -> None:
    patch, text = patch_of(BOTH)
    folder = unpacked(tmp_path / "machinery")
    command = [str(python), "-I", "-S", "-B", "-c", PROGRAM]
    arguments = [str(folder), str(site), str(parts), json.dumps(patch), text, str(ROOT / "tests/support")]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    files = [path for path in site.rglob("*") if path.is_file() and path.suffix != ".pyc" and path.name != "RECORD"]
    size = sum(path.stat().st_size for path in files)
    told = ["True False", f"({len(FILES) + 5}, {size}, [])", "4 []", "[None, 2, None, 6]"]
    assert done.stdout.splitlines() == told
    # As scripts call it, and the program that carries a part of it.
    done = subprocess.run(
        [str(python), "-I", "-S", "-B", str(folder), "list"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (
        0,
        len(list(folder.glob("builder/embedded/*.py"))),
        "",
    )
    names = sorted(path.stem for path in folder.glob("builder/embedded/*.py"))
    command = [str(python), "-I", "-S", "-c", EACH_ALONE, str(folder), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "".join(f"{name}\n" for name in names), "")
    tool = ROOT / "generated/m4/fix_mac_accelerate.py"
    done = subprocess.run([str(python), "-I", "-B", str(tool), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "error: accelerate is not installed" in done.stderr
    assert "Traceback" not in done.stderr


# --- what a build looks at once -------------------------------------------------------------------------------------


def test_a_disk_and_a_python_are_looked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = {"key": "k", "plan": {"python": "3.11"}}

    def found(known: Sequence[str]) -> tuple[list[str], bool]:
        """What lacks nothing, and whether the disk was tried."""
        os.utime(tmp_path, ns=(0, 0))
        return stage.faultless(tmp_path, written, known), tmp_path.stat().st_mtime_ns != 0

    both, tried = found([])
    assert tried
    assert sys.version in both
    assert found(both) == (both, len(both) == 1)  # where the system names no start, a disk is tried each time
    monkeypatch.setattr(interpreter, "MODULES", ("no_such_module",))
    assert found(both)[0] == both
    assert capsys.readouterr().err == ""
    assert found([name for name in both if name != sys.version])[0] == both[: len(both) - 1]
    assert "warning: this Python lacks no_such_module" in capsys.readouterr().err
