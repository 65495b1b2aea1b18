"""The profile arm64, built and run for real by its own generated script, on an emulated bare aarch64 machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from builder import uv
from builder.embedded.installer import SEARCHES
from builder.project.catalogue import Catalogue
from tests.conftest import ROOT, once
from tests.emulation.aarch64 import Machine, available, machine
from tests.support import python_3_11

pytestmark = pytest.mark.emulation

SCRIPT = ROOT / "generated/arm64/run_rl_swarm_arm64.sh"


@pytest.fixture(scope="module")
def bare() -> Machine:
    """A bare aarch64 machine: python3 with venv, and no uv."""
    if reason := available():
        pytest.skip(reason)
    return machine(Path.home() / ".cache/drydock-tests/aarch64")


@pytest.fixture(scope="module")
def work(bare: Machine, shared: Path) -> Path:
    """The machine's /work: a cache that the host's uv has filled with the wheels of the lock, and their bytecode.

    Both are what the machine would make itself, in 1 and 3 minutes more: bytecode is the same on every processor.
    """
    return once(shared / "arm64", _fill)


def _fill(folder: Path) -> None:
    folder.mkdir()
    (folder / "script.sh").write_bytes(SCRIPT.read_bytes())
    profile = Catalogue([ROOT / "profiles"]).profile("arm64")
    lock = Catalogue([ROOT / "profiles"]).lock("arm64")
    wheels = [package for package in lock.packages if package.is_wheel]
    (folder / "wheels.txt").write_text("".join(f"{p.name}=={p.version} --hash=sha256:{p.sha256}\n" for p in wheels))
    arguments = [*SEARCHES, "--require-hashes", "--cache-dir", str(folder / "cache"), "--target", "."]
    (folder / "thrown-away").mkdir()
    arguments += ["-r", str(folder / "wheels.txt")]
    uv.install(arguments, folder / "thrown-away", profile.target, profile.python.version, builds=None)
    program = (
        "import sys; from pathlib import Path; sys.path.append('tests/support'); "
        "from compiled import link_bytecode; "
        "link_bytecode(*map(Path, sys.argv[1:]))"
    )
    subprocess.run(
        [python_3_11(), "-c", program, str(folder / "thrown-away"), str(folder / "drydock/bytecode")],
        cwd=ROOT,
        check=True,
    )


def run(bare: Machine, work: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command on the machine, with /work as its store and cache."""
    env = {"DRYDOCK_HOME": "/work/drydock", "UV_CACHE_DIR": "/work/cache"}
    return bare.run(command, env=env, binds={work: "/work"}, timeout=1200)


@pytest.fixture(scope="module")
def built(bare: Machine, work: Path) -> str:
    """The store path, as the script prints it."""
    done = run(bare, work, "sh", "/work/script.sh", "--build-only")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_script_builds_on_a_machine_without_uv(built: str, work: Path) -> None:
    assert built.startswith("/work/drydock/store/")
    assert built.endswith("-arm64")
    assert (work / built.removeprefix("/work/") / ".drydock/manifest.json").is_file()
    assert list((work / "drydock/tools").glob("uv-*/bin/uv"))


def test_the_second_build_does_nothing(bare: Machine, work: Path, built: str) -> None:
    done = run(bare, work, "sh", "/work/script.sh", "--build-only")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, built, "")


def test_the_environment_is_verified_there_with_its_proofs_and_a_training(
    bare: Machine, work: Path, built: str
) -> None:
    done = run(bare, work, "sh", "/work/script.sh", "--verify")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert all(line.startswith("ok   ") for line in lines)
    assert any("on Linux aarch64" in line for line in lines)
    assert sum(".py: ok:" in line for line in lines) == 1


def test_the_trainer_cannot_be_brought_without_git(bare: Machine, work: Path, built: str) -> None:
    done = run(bare, work, "sh", "/work/script.sh")
    assert done.returncode == 1
    assert "the trainer's code: git is not there" in done.stderr
