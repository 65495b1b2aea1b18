"""The trainer of the profile `cpu`, as its first user meets it: real training in a built environment."""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.support.preloaded import Preloaded
from tests.support.waiting import LONG, until

pytestmark = pytest.mark.slow

TRAINER = ROOT / "profiles" / "trainers" / "tiny_lm.py"
SHORT = ("--cpu", "--steps", "6")


@pytest.fixture(scope="module")
def warm(cpu_env: Path) -> Iterator[Preloaded]:
    """The environment's Python with what the trainer imports, and with the variables that are read then."""
    modules = ["torch", "transformers.trainer", "transformers.models.llama.modeling_llama"]
    variables = runpy.run_path(str(TRAINER))["ENVIRONMENT"]
    with Preloaded(cpu_env / "bin/python", modules, env={**os.environ, **variables}, isolated=False) as made:
        yield made


def trainer(env: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs the trainer to its end."""
    command: list[str | Path] = [env / "bin" / "python", TRAINER, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def summary(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What --json ended with, less the time it took."""
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    del found["seconds"]
    return found


def test_the_loss_falls_and_the_empty_round_is_survived_and_named(cpu_env: Path) -> None:
    done = trainer(cpu_env, "--cpu", "--json")
    found = summary(done)
    assert found["last_loss"] < found["first_loss"] / 2
    assert (found["rounds"], found["empty_rounds"], found["steps"], found["device"]) == (3, [2], 60, "cpu")
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"round 1 of 3: step   1  loss \d\.\d{3}  [\d.]+ steps/s", lines[0])
    gap = lines.index("round 2 of 3: no data, nothing trained")
    assert lines[gap - 1].startswith("round 1 of 3: step  30 ")
    assert lines[gap + 1].startswith("round 3 of 3: step   1 ")
    assert re.fullmatch(r"60 steps on cpu in [\d.]+ s: the loss fell, \d\.\d{3} -> \d\.\d{3}", lines[-2])


def test_nothing_but_the_warning_of_the_patch_is_on_stderr(cpu_env: Path) -> None:
    done = trainer(cpu_env, *SHORT)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("No batch came from this DataLoader")
    assert "dataset length 7, batch_size 4, drop_last False, sampler WholeSteps." in line


@pytest.mark.parametrize(
    ("given", "seen"), [({}, "0"), ({"LOCAL_RANK": "1"}, None), ({"CUDA_VISIBLE_DEVICES": "3"}, "3")]
)
def test_processes_of_torchrun_do_not_share_the_first_gpu(given: dict[str, str], seen: str | None) -> None:
    code = "import os, runpy, sys; main = runpy.run_path(sys.argv.pop(1))['main']; "
    code += "main.__globals__['run'] = lambda _: print([os.environ.get('CUDA_VISIBLE_DEVICES')]); main()"
    env = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "CUDA_VISIBLE_DEVICES")}
    done = subprocess.run([sys.executable, "-c", code, TRAINER], env={**env, **given}, capture_output=True, text=True)
    assert done.stdout == f"{[seen]}\n", done.stderr


def test_the_same_seed_gives_the_same_losses(cpu_env: Path, warm: Preloaded) -> None:
    """Also where Python's own hashes have another seed: of two that are forked they have the same."""
    first = summary(trainer(cpu_env, *SHORT, "--json", "--seed", "4"))
    second, other = (summary(warm.run(TRAINER, *SHORT, "--json", "--seed", seed)) for seed in "45")
    assert first == second
    assert first["last_loss"] != other["last_loss"]


def test_output_keeps_a_model_that_loads_again(warm: Preloaded, tmp_path: Path) -> None:
    done = warm.run(TRAINER, *SHORT, "--rounds", "1", "--output", tmp_path / "model")
    assert done.returncode == 0, done.stderr
    assert f"the model is in {tmp_path / 'model'}" in done.stdout
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names


def test_by_default_nothing_is_kept(warm: Preloaded, tmp_path: Path) -> None:
    done = warm.run(TRAINER, *SHORT, "--rounds", "1", env={"TMPDIR": str(tmp_path)}, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("tiny-lm-")] == []


def test_a_loss_that_does_not_fall_is_a_failure(warm: Preloaded) -> None:
    """A learning rate far too high stands for a training that does not work."""
    script = (
        "import runpy, sys\n"
        "from transformers import TrainingArguments\n"
        "begin = TrainingArguments.__post_init__\n"
        "def post_init(self):\n"
        "    self.learning_rate = 9.0\n"
        "    begin(self)\n"
        "TrainingArguments.__post_init__ = post_init\n"
        "del sys.argv[0]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    done = warm.run("-c", script, TRAINER, *SHORT)
    assert done.returncode == 1, done.stderr
    assert "the loss did not fall" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "1"], "--steps must be at least 2, not 1"),
        (["--rounds", "0"], "--rounds must be at least 1, not 0"),
        (["--batch-size", "0"], "--batch-size must be at least 1, not 0"),
        (["--steps", "many"], "invalid int value: 'many'"),
    ],
)
def test_wrong_use_ends_with_2(cpu_env: Path, arguments: list[str], message: str) -> None:
    done = trainer(cpu_env, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


@pytest.mark.parametrize("when", ["importing", "training"])
def test_an_interrupt_ends_with_130_and_no_traceback(cpu_env: Path, tmp_path: Path, when: str) -> None:
    command: list[str | Path] = [cpu_env / "bin" / "python", TRAINER, "--cpu", "--steps", "2000"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None
    if when == "training":
        assert process.stdout.readline().startswith("round 1 of 3: step   1 ")
    else:
        until(lambda: "libtorch" in Path(f"/proc/{process.pid}/maps").read_text())
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=LONG)
    assert (process.returncode, stderr) == (130, "interrupted\n")
    assert not list(tmp_path.glob("tiny-lm-*"))


def test_without_the_patches_it_fails_with_the_very_error(unpatched_env: Path) -> None:
    done = trainer(unpatched_env, *SHORT)
    assert done.returncode == 1
    assert "unwrap_model() got an unexpected keyword argument 'keep_torch_compile'" in done.stderr
