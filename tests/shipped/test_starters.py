"""The starters: locked for their targets, and trained, verified and resumed for real on a processor."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from builder.lock.cuda import kernels_of
from builder.project.catalogue import Catalogue
from tests.conftest import ROOT, real_environment

BUILT_IN = Catalogue([ROOT / "profiles"])
STARTERS = ["mac", "mlx", "cpu-arm64", "cuda12", "cuda13", "cuda13-arm64"]
PROFILE = """\
schema = 1
name = "starter-here"
extends = ["starter"]

[target]
platform = "linux-x86_64"
accelerator = "cpu"
glibc = "2.28"

[packages]
requires = ["torch==2.13.0+cpu"]
index = { torch = "pytorch-cpu" }
"""


@pytest.mark.parametrize("name", STARTERS)
def test_a_starter_is_locked_from_the_default_index_and_needs_nothing(name: str) -> None:
    profile, lock = BUILT_IN.profile(name), BUILT_IN.lock(name)
    BUILT_IN.entry(name).check_fresh()
    assert {package.index for package in lock.packages} == {None}
    assert all(package.is_wheel for package in lock.packages)
    assert (profile.trainer.needs, profile.patches) == (None, [])
    assert bool(kernels_of(profile.target.machine, lock.packages)) == (profile.target.accelerator == "cuda")


def test_no_starter_has_a_torch_that_cannot_resume() -> None:
    """CVE-2025-32434, repaired in 2.6, and CVE-2026-24747, repaired in 2.10."""
    for name in STARTERS:
        torch = BUILT_IN.lock(name).versions().get("torch")
        assert torch is None or tuple(map(int, torch.split(".")[:2])) >= (2, 10)


@pytest.mark.slow
def test_for_machines_that_are_not_here_their_index_has_what_is_locked(tmp_path: Path) -> None:
    """Locked anew of the metadata of all wheels, as if there were no lock: for Macs, and for CUDA 13."""
    names = ["mac", "mlx", "cuda13-arm64"]
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    for name in names:
        (tmp_path / f"profiles/{name}.lock.toml").unlink()
    env = {**os.environ, "DRYDOCK_PROFILES": str(tmp_path / "profiles")}
    done = subprocess.run([sys.executable, "-m", "builder", "lock", *names], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in names:
        assert (tmp_path / f"profiles/{name}.lock.toml").read_text() == BUILT_IN.lock_path(name).read_text()


@pytest.mark.slow
def test_the_pins_of_the_starters_train_and_resume(tmp_path: Path, drydock_home: Path) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("the torch for processors that is at hand is for x86_64")
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/starter-here.toml").write_text(PROFILE)
    env = {**real_environment(), "DRYDOCK_HOME": str(drydock_home)}
    env.pop("DRYDOCK_PROFILES")

    def drydock(*words: str) -> str:
        command = [sys.executable, "-m", "builder", *words]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    drydock("lock", "starter-here")
    found = json.loads(drydock("run", "starter-here", "--", "--json").splitlines()[-1])
    assert found["last_loss"] < found["first_loss"] / 2
    verified = drydock("verify", "starter-here")
    assert "ok   resume_training.py: ok: killed in step 5, resumed at 4" in verified
    assert "ok   accelerator: torch 2.13.0+cpu: a product of matrices and its gradient on cpu are right" in verified
