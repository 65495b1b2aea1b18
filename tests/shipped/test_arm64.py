"""The profile arm64, built and run for real by its own generated script, on an emulated bare aarch64 machine.

uv is there, by the hash of the lock: that a script fetches it on a machine without, whose Python has no pip, is shown
where it takes seconds (tests/build/test_build.py, "without_uv_and_drydock"), and here by `just emulate-arm64`.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT, once
from tests.emulation.aarch64 import Machine, available, machine
from tests.emulation.filled import bring_uv, fill

pytestmark = pytest.mark.emulation

SCRIPT = ROOT / "generated/arm64/run_rl_swarm_arm64.sh"


@pytest.fixture(scope="module")
def bare() -> Machine:
    """A bare aarch64 machine: python3 with venv."""
    if reason := available():
        pytest.skip(reason)
    return machine(Path.home() / ".cache/drydock-tests/aarch64")


@pytest.fixture(scope="module")
def work(bare: Machine, shared: Path, compiled: Path) -> Path:
    """The machine's /work: uv, and the lock's wheels, most of them unpacked and with their bytecode."""

    def make(folder: Path) -> None:
        fill(folder, "arm64", SCRIPT.read_text(encoding="utf-8"), compiled)
        bring_uv(folder, "arm64")

    return once(shared / "arm64", make)


def run(bare: Machine, work: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command on the machine, with /work as its store and cache."""
    env = {"DRYDOCK_HOME": "/work/drydock", "UV_CACHE_DIR": "/work/cache"}
    return bare.run(command, env=env, binds={work: "/work"}, timeout=1200)


@pytest.fixture(scope="module")
def built(bare: Machine, work: Path) -> str:
    """The store path, as the script prints it."""
    done = run(bare, work, "sh", "/work/script.sh", "--build-only")
    if "qemu: uncaught target signal" in done.stderr:  # the emulator aborts uv, once in many runs; it leaves nothing
        done = run(bare, work, "sh", "/work/script.sh", "--build-only")
    assert done.returncode == 0, done.stderr
    assert "fetching uv" not in done.stderr
    return done.stdout.strip()


def test_the_script_builds_there_with_the_uv_of_its_lock(built: str, work: Path) -> None:
    assert built.startswith("/work/drydock/store/")
    assert built.endswith("-arm64")
    assert (work / built.removeprefix("/work/") / ".drydock/manifest.json").is_file()
    [machine] = {path.read_bytes()[18] for path in (work / "drydock/tools").glob("uv-*/bin/uv")}
    assert machine == 183, "ELF's number for aarch64"


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
