"""The trainer of the profile `mlx`, trained, killed and resumed for real: MLX runs on the processor of Linux too."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from builder.machine import linux
from builder.machine.fit import is_older
from tests.conftest import real_environment
from tests.support.waiting import LONG

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or is_older(linux.glibc(), "2.35"),
        reason="the wheels of mlx for Linux need glibc 2.35",
    ),
]
PROFILE = """\
schema = 1
name = "mlx-linux"

[target]
platform = "linux-{machine}"
accelerator = "cpu"
glibc = "2.35"

[python]
version = "3.11"

[packages]
requires = ["mlx[cpu]==0.32.4"]
exclude-newer = "2026-11-20"

[trainer]
file = "trainers/tiny_lm_mlx.py"
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, drydock_home: Path) -> tuple[Path, dict[str, str]]:
    """A project with a profile like `mlx` for this machine, locked and built."""
    work = tmp_path_factory.mktemp("mlx")
    (work / "profiles").mkdir()
    machine = {"x86_64": "x86_64", "aarch64": "arm64"}[os.uname().machine]
    (work / "profiles/mlx-linux.toml").write_text(PROFILE.format(machine=machine))
    env = {**real_environment(), "DRYDOCK_HOME": str(drydock_home)}
    env.pop("DRYDOCK_PROFILES")
    for words in (["lock", "mlx-linux"], ["build", "mlx-linux"]):
        done = subprocess.run(drydock(*words), cwd=work, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return work, env


def drydock(*words: str) -> list[str]:
    return [sys.executable, "-m", "builder", *words]


def train(desk: tuple[Path, dict[str, str]], *arguments: str) -> dict[str, Any]:
    """Trains to the end; returns the summary."""
    work, env = desk
    command = drydock("run", "mlx-linux", "--", *arguments, "--json")
    done = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_it_trains_and_after_sigkill_goes_on_with_the_losses_of_an_undisturbed_run(
    desk: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    whole = train(desk, "--steps", "40")
    assert whole["losses"][-1] < whole["losses"][0] / 2
    saves = tmp_path / "saves"
    work, env = desk
    command = drydock("run", "mlx-linux", "--", "--steps", "40", "--output", str(saves))
    killed = subprocess.Popen(command, cwd=work, env=env, stdout=subprocess.DEVNULL)
    limit = time.monotonic() + LONG
    while not (saves / "step-10.safetensors").exists():
        assert time.monotonic() < limit
        assert killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    (saves / ".step-99.1.safetensors").write_bytes(b"half")  # as a save that was killed leaves it
    rest = train(desk, "--steps", "40", "--output", str(saves), "--resume")
    assert 10 <= rest["begin"] < 40
    assert rest["losses"] == whole["losses"][rest["begin"] :]


def test_verify_computes_with_mlx(desk: tuple[Path, dict[str, str]]) -> None:
    work, env = desk
    done = subprocess.run(
        drydock("verify", "mlx-linux"), cwd=work, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "ok   accelerator: mlx 0.32.4: a product of matrices and its gradient on cpu are right" in done.stdout
