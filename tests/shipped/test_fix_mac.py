"""fix_mac_accelerate.py on real releases of accelerate, in environments that Drydock did not make."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.mounts import remount, tmpfs

TOOL = ROOT / "generated/m4/fix_mac_accelerate.py"
PROOFS = ROOT / "profiles/proofs"
EMPTY, UNWRAP = PROOFS / "accelerate_empty_dataloader.py", PROOFS / "accelerate_unwrap_model.py"
LOADER = "accelerate/data_loader.py"


def listed(patch: str) -> list[str]:
    """The releases that a patch is pinned for."""
    text = (ROOT / f"profiles/patches/accelerate-{patch}.releases.toml").read_text()
    return [version for release in tomllib.loads(text)["releases"] for version in release["versions"]]


RELEASES = listed("empty-dataloader")


def run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A program in a terminal where nothing is active."""
    return subprocess.run(
        list(command), env={**quiet(), **variables}, capture_output=True, text=True, check=False, timeout=600
    )


def quiet() -> dict[str, str]:
    """The variables of this process without those that the tool asks for."""
    ours = ("PYTHON", "PYTORCH", "OMP", "TOKENIZERS", "VIRTUAL_ENV", "CONDA")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def uv(*arguments: str | Path) -> None:
    from uv import find_uv_bin

    done = run(find_uv_bin(), *arguments)
    assert done.returncode == 0, done.stderr


def tool(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """The tool, alone in the Python that runs the tests."""
    return run(sys.executable, "-I", TOOL, *arguments, **variables)


def installed(folder: Path, version: str) -> Path:
    """A virtual environment with accelerate and nothing else."""
    uv("venv", "-q", "-p", "3.11", folder)
    uv("pip", "install", "-q", "-p", folder, "--no-deps", f"accelerate=={version}")
    return folder


def site(venv: Path) -> Path:
    return venv / "lib/python3.11/site-packages"


def contents(venv: Path) -> dict[str, bytes]:
    """All files of accelerate, and of its RECORD."""
    root = site(venv)
    paths = [*root.glob("accelerate/**/*.py"), *root.glob("accelerate-*.dist-info/RECORD")]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def test_the_documents_version_is_among_those_of_both_lists() -> None:
    assert RELEASES[0] == "0.34.2"
    assert {"1.1.1", "1.8.0"} < set(RELEASES)
    assert RELEASES[-1] == "1.8.1"
    assert listed("unwrap-model") == [version for version in RELEASES if version < "1.3"]


def test_it_is_one_file_that_older_pythons_compile() -> None:
    """Apple's own python3 is 3.9."""
    import ast

    ast.parse(TOOL.read_text(), feature_version=(3, 9))
    assert "builder" not in {
        node.module for node in ast.walk(ast.parse(TOOL.read_text())) if isinstance(node, ast.ImportFrom)
    }


@pytest.mark.slow
@pytest.mark.parametrize("version", RELEASES)
def test_every_release_with_the_defect_is_patched_and_taken_back(tmp_path: Path, version: str) -> None:
    venv = installed(tmp_path / "venv", version)
    before = contents(venv)
    missing = tool("--check", "--python", venv)
    assert (missing.returncode, missing.stdout.count("MISSING")) == (1, 2 if version < "1.3" else 1)
    done = tool("--python", venv)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("applied:") == (2 if version < "1.3" else 1)
    assert b"_warn_empty" in contents(venv)[LOADER]
    compile(contents(venv)[LOADER], LOADER, "exec")
    assert tool("--check", "--python", venv / "bin/python").returncode == 0
    after = contents(venv)
    assert tool("--python", venv).stdout.count("nothing to do:") == (2 if version < "1.3" else 1)
    assert contents(venv) == after
    assert tool("--revert", "--python", venv).returncode == 0
    assert contents(venv) == before


@pytest.fixture(scope="module")
def torch_venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with PyTorch and what accelerate needs, for one release after the other."""
    folder = tmp_path_factory.mktemp("torch") / "venv"
    uv("venv", "-q", "-p", "3.11", folder)
    wheels = [word for path in os.environ.get("PIP_FIND_LINKS", "").split() for word in ("--find-links", path)]
    index = ["--extra-index-url", tomllib.loads((ROOT / "profiles/cpu.toml").read_text())["indexes"]["pytorch-cpu"]]
    uv("pip", "install", "-q", "-p", folder, *(wheels or index), "torch==2.13.0+cpu", "accelerate==1.8.0")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("version", ["0.34.2", "1.2.1", "1.8.0"])
def test_the_proofs_fail_before_and_pass_after(torch_venv: Path, version: str) -> None:
    """Empty loaders and full ones, batch by batch: in a process that was not there when the patch was applied."""
    uv("pip", "install", "-q", "-p", torch_venv, "--no-deps", f"accelerate=={version}")
    python = torch_venv / "bin/python"
    assert "UnboundLocalError" in run(python, "-I", EMPTY).stderr
    assert run(python, "-I", UNWRAP).returncode == int(version < "1.3")
    assert tool("--python", python).returncode == 0
    for proof in (EMPTY, UNWRAP):
        done = run(python, "-I", proof, DRYDOCK_PATCHED="1")
        assert (done.returncode, done.stdout[:4]) == (0, "ok: "), done.stderr


@pytest.mark.slow
def test_from_1_9_0_on_nothing_is_needed(tmp_path: Path) -> None:
    venv = installed(tmp_path / "venv", "1.9.0")
    before = contents(venv)
    for arguments in ((), ("--check",), ("--revert",)):
        done = tool("--python", venv, *arguments)
        assert (done.returncode, done.stdout.count("needs no patch: accelerate 1.9.0")) == (0, 2), done.stderr
    assert contents(venv) == before


@pytest.mark.slow
def test_a_version_that_is_not_known_gets_the_next_command_and_that_command_helps(tmp_path: Path) -> None:
    from uv import find_uv_bin

    venv = installed(tmp_path / "venv", "0.33.0")
    done = tool("--python", venv)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"accelerate 0.33.0 is installed in {site(venv)}" in done.stderr
    assert "is made for 0.34.2 to 1.8.1; nothing was changed" in done.stderr
    command = f"uv pip install --python {venv}/bin/python 'accelerate>=1.9.0'"
    assert f"  next: {command}\n" in done.stderr
    path = f"{Path(find_uv_bin()).parent}:{os.environ['PATH']}"
    assert run("sh", "-c", f"{command} --no-deps", PATH=path).returncode == 0
    assert tool("--python", venv).returncode == 0


@pytest.mark.slow
def test_a_changed_file_is_left_alone_and_the_next_command_brings_the_released_one(tmp_path: Path) -> None:
    from uv import find_uv_bin

    venv = installed(tmp_path / "venv", "1.1.1")
    other = site(venv) / "accelerate/utils/other.py"
    mine = other.read_bytes() + b"# mine\n"
    other.unlink()  # uv's cache shares it
    other.write_bytes(mine)
    before = contents(venv)
    done = tool("--python", venv)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{other} is not that of accelerate 1.1.1" in done.stderr
    assert contents(venv) == before, "the file of the other patch was written"
    command = next(line for line in done.stderr.splitlines() if "next:" in line).partition("next: ")[2]
    path = f"{Path(find_uv_bin()).parent}:{os.environ['PATH']}"
    assert run("sh", "-c", command, PATH=path).returncode == 0
    assert tool("--python", venv).returncode == 0


@pytest.mark.slow
def test_the_cache_that_files_are_linked_from_stays_as_it_is(tmp_path: Path) -> None:
    venv = installed(tmp_path / "venv", "1.8.0")
    other = tmp_path / "cache.py"
    other.hardlink_to(site(venv) / LOADER)
    before = other.read_bytes()
    assert tool("--python", venv).returncode == 0
    assert other.read_bytes() == before


@pytest.fixture
def working_copy(tmp_path: Path) -> Path:
    """accelerate 1.8.0 as somebody's own sources, installed from there."""
    venv = installed(tmp_path / "venv", "1.8.0")
    copy = tmp_path / "copy"
    shutil.copytree(site(venv) / "accelerate", copy / "src/accelerate")
    (copy / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "accelerate"\nversion = "1.8.0"\n[tool.setuptools.packages.find]\nwhere = ["src"]\n'
    )
    uv("pip", "install", "-q", "-p", venv, "--no-deps", "-e", copy)
    return copy


@pytest.mark.slow
def test_an_editable_installation_is_patched_where_its_sources_are(tmp_path: Path, working_copy: Path) -> None:
    venv, loader = tmp_path / "venv", working_copy / "src" / LOADER
    before = loader.read_bytes()
    assert tool("--check", "--python", venv).returncode == 1
    done = tool("--python", venv)
    assert done.returncode == 0, done.stderr
    assert f"{working_copy}/src is a working copy of yours; --revert takes this back" in done.stderr
    assert b"_warn_empty" in loader.read_bytes()
    assert tool("--check", "--python", venv).returncode == 0
    assert tool("--revert", "--python", venv).returncode == 0
    assert loader.read_bytes() == before
    loader.write_bytes(before + b"# mine\n")
    refused = tool("--python", venv)
    assert refused.returncode == 1
    assert f"next: git -C {working_copy}/src diff -- {LOADER}" in refused.stderr
    assert loader.read_bytes() == before + b"# mine\n"


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """An environment on a file system that nobody can write to."""
    with tmpfs(tmp_path / "disk", "64m") as disk:
        venv = installed(disk / "venv", "1.8.0")
        remount(disk, "ro")
        yield venv


@pytest.mark.slow
def test_a_read_only_installation_is_said_before_anything_is_written(read_only: Path) -> None:
    assert tool("--check", "--python", read_only).returncode == 1
    done = tool("--python", read_only)
    assert done.returncode == 1
    assert "applied" not in done.stdout
    assert "cannot be written to; nothing was changed" in done.stderr
    assert "next: uv venv && uv pip install accelerate==1.8.0" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_it_finds_the_environment_that_is_active_or_here(tmp_path: Path) -> None:
    active, here = installed(tmp_path / "active", "1.8.0"), installed(tmp_path / "here/.venv", "1.8.0")
    base = next(
        path for path in (Path(sys.base_prefix) / "bin/python3", Path(sys.base_prefix) / "bin/python") if path.exists()
    )

    def checked(python: Path, **variables: str) -> str:
        done = subprocess.run(
            [python, TOOL, "--check"],
            env={**quiet(), **variables},
            cwd=here.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    assert f"in {site(active)}" in checked(base, VIRTUAL_ENV=str(active))
    assert f"in {site(active)}" in checked(base, CONDA_PREFIX=str(active))
    assert f"in {site(here)}" in checked(base)
    assert f"in {site(active)}" in checked(active / "bin/python", VIRTUAL_ENV=str(here))
    assert "next: unset VIRTUAL_ENV" in checked(base, VIRTUAL_ENV=str(tmp_path / "gone"))


def test_it_prints_the_variables_for_a_shell_and_says_which_won() -> None:
    ours = tool("--print-env").stdout
    assert "export PYTORCH_ENABLE_MPS_FALLBACK=1\n" in ours
    assert "export TOKENIZERS_PARALLELISM=false\n" in ours
    theirs = tool("--print-env", PYTORCH_MPS_HIGH_WATERMARK_RATIO="0.7", OMP_NUM_THREADS="a b").stdout
    assert "# PYTORCH_MPS_HIGH_WATERMARK_RATIO: from your environment; the default here is " in theirs
    names = ("PYTORCH_MPS_HIGH_WATERMARK_RATIO", "PYTORCH_MPS_LOW_WATERMARK_RATIO", "OMP_NUM_THREADS")
    shell = f"{theirs}\nprintf '%s|' " + " ".join(f'"${name}"' for name in names)
    assert run("sh", "-c", shell).stdout == "0.7|0.7|a b|"
    unlimited = tool("--print-env", PYTORCH_MPS_HIGH_WATERMARK_RATIO="0.0").stdout
    assert "export PYTORCH_MPS_LOW" not in unlimited


def test_what_is_no_python_is_said(tmp_path: Path) -> None:
    for wrong in (tmp_path, tmp_path / "nothing"):
        done = tool("--python", wrong)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"--python {wrong}: not a program, and not the folder of a virtual environment" in done.stderr
