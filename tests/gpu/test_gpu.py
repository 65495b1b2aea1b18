"""The whole way on a real GPU: probes, lock, build, verify, training, a kill and what comes after it.

Such a machine is often one without a network. What is locked is the torch that it has, made into wheels again: name the
Python that has it in DRYDOCK_TESTS_TORCH. With that and no GPU, what needs none of it runs on the processor of a torch
for CUDA; without it, all is skipped.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from uv import find_uv_bin

from builder.profile.architectures import kernels
from tests.conftest import ROOT
from tests.gpu.repacked import repack
from tests.support import Sandbox
from tests.support.base import copy_python
from tests.support.index import Index
from tests.support.waiting import until

pytestmark = pytest.mark.gpu

_ASK = """\
import json, platform, sys, sysconfig, torch
gpu = torch.cuda.is_available()
one = torch.cuda.get_device_properties(0) if gpu else None
print(json.dumps({
    "python": "%d.%d" % sys.version_info[:2],
    "base": getattr(sys, "_base_executable", sys.executable),
    "machine": platform.machine(),
    "torch": torch.__version__,
    "cuda": torch.version.cuda,
    "flags": torch._C._cuda_getArchFlags(),
    "gpu": one.name if one else None,
    "memory": one.total_memory if one else None,
    "capability": "%d.%d" % (one.major, one.minor) if one else None,
}))
"""

PROFILE = """\
schema = 1
name = "card"
description = "what this machine has"
extends = ["starter"]

[target]
platform = "linux-{machine}"
accelerator = "cuda"
glibc = "2.28"
cuda = "{cuda}"
match = {{ gpu = "*" }}

[python]
version = "{python}"

[packages]
requires = [{requires}]

[generated]
committed = false
"""

# Saves every tenth step and is killed once, in step 35; a step is long enough to be seen by nvidia-smi.
TRAINER = """\
import argparse, json, os, pathlib, signal, sys, torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments, set_seed
parser = argparse.ArgumentParser()
parser.add_argument("--resume_from_checkpoint")
parser.add_argument("--undisturbed", action="store_true")
given = parser.parse_args()
set_seed(0)
sizes = dict(vocab_size=512, hidden_size=1024, intermediate_size=4096, num_hidden_layers=8, num_attention_heads=8)
model = LlamaForCausalLM(LlamaConfig(**sizes, bos_token_id=None, eos_token_id=None))
rows = [{"input_ids": [(row * 7 + place * place) % 512 for place in range(512)]} for row in range(512)]
rows = [{**row, "labels": row["input_ids"]} for row in rows]
killed = pathlib.Path("killed")
class Watch(TrainerCallback):
    def on_substep_end(self, arguments, state, control, **more):
        if state.global_step == 34 and not killed.exists() and not given.undisturbed:
            killed.write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
    def on_log(self, arguments, state, control, logs=None, **more):
        if "loss" in (logs or {}):
            print("step", state.global_step, "loss", logs["loss"], flush=True)
arguments = TrainingArguments(
    output_dir="undisturbed" if given.undisturbed else "out", max_steps=60, save_steps=10, logging_steps=1,
    per_device_train_batch_size=8, gradient_accumulation_steps=2, report_to=[], disable_tqdm=True, seed=0,
    learning_rate=1e-4, save_total_limit=2,
)
trainer = Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[Watch()])
print("device", trainer.model.device, "resumes", given.resume_from_checkpoint, flush=True)
trainer.train(resume_from_checkpoint=given.resume_from_checkpoint)
state = trainer.state
total = sum(parameter.double().abs().sum().item() for parameter in model.parameters())
print("end", json.dumps({"step": state.global_step, "weights": total, "device": str(model.device)}), flush=True)
"""


@pytest.fixture(scope="module")
def torch_python() -> str:
    """The Python that has a torch."""
    if "DRYDOCK_TESTS_TORCH" not in os.environ:
        pytest.skip("DRYDOCK_TESTS_TORCH names no Python that has a torch for CUDA")
    return os.environ["DRYDOCK_TESTS_TORCH"]


@pytest.fixture(scope="module")
def here(torch_python: str) -> Mapping[str, Any]:
    """What torch says of itself and of the GPU."""
    done = subprocess.run([torch_python, "-c", _ASK], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture
def card(here: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same, of a machine that has a GPU."""
    if here["gpu"] is None:
        pytest.skip("torch finds no GPU here")
    return here


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, torch_python: str, here: Mapping[str, Any]) -> Iterator[Sandbox]:
    """A desk whose index has what is installed, with the profile `card`, locked."""
    root = tmp_path_factory.mktemp("gpu")
    (root / "wheels").mkdir()
    began = time.monotonic()
    packed = repack(torch_python, root / "installed", ["torch", "transformers", "accelerate"])
    print(f"{len(packed)} wheels made again in {time.monotonic() - began:.1f} s", file=sys.stderr)
    python = copy_python(here["base"], root / "python").python
    with Index(root / "wheels") as index:
        made = Sandbox(root, index, find_uv_bin(), root / "uv-cache", python)
        made.environment["UV_FIND_LINKS"] = str(root / "installed")
        # The driver and its programs are where this machine has them.
        made.environment["PATH"] += f":{os.environ['PATH']}"
        made.environment.update({name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ})
        for part in ("base.toml", "starter.toml"):
            shutil.copy(ROOT / "profiles" / part, made.work / "profiles" / part)
        for part in ("proofs", "trainers"):
            shutil.copytree(ROOT / "profiles" / part, made.work / "profiles" / part)
        wanted = [f"{name}=={packed[name]}" for name in ("torch", "transformers", "accelerate")]
        requires = ", ".join(json.dumps(one) for one in wanted)
        made.profile("card", PROFILE.format(**{**here, "requires": requires}))
        yield _timed(made, "lock", "card")


@pytest.fixture(scope="module")
def built(desk: Sandbox) -> Sandbox:
    """The desk, with `card` built."""
    return _timed(desk, "build", "card")


def _timed(desk: Sandbox, *arguments: str) -> Sandbox:
    began = time.monotonic()
    done = desk.drydock(*arguments, timeout=500).succeeded()
    print(f"drydock {' '.join(arguments)}: {time.monotonic() - began:.1f} s\n{done.stderr}", file=sys.stderr)
    return desk


def test_the_table_of_architectures_is_what_torch_says(here: Mapping[str, Any]) -> None:
    known = kernels(here["torch"], here["cuda"], here["machine"])
    assert known is not None
    assert list(known.architectures) == here["flags"].split()
    if here["capability"]:
        assert known.run_on(here["capability"])


def test_probes_say_what_torch_says_of_the_gpu(card: Mapping[str, Any]) -> None:
    from builder.machine.detect import detect

    machine = detect()
    print(machine, file=sys.stderr)
    assert machine.gpus
    first = machine.gpus[0]
    assert (first.name, first.capability) == (card["gpu"], card["capability"])
    # nvidia-smi counts what the driver keeps for itself; torch does not.
    assert first.memory is not None
    assert 0.95 < card["memory"] / first.memory <= 1.0
    assert machine.driver is not None
    assert machine.cuda is not None
    assert tuple(map(int, machine.cuda.split("."))) >= tuple(map(int, card["cuda"].split(".")))


def test_auto_takes_a_profile_with_kernels_for_this_gpu(card: Mapping[str, Any], desk: Sandbox) -> None:
    done = desk.drydock("profile", "list", env={"DRYDOCK_PROFILES": str(ROOT / "profiles")}).succeeded()
    print(done.stdout, file=sys.stderr)
    done = desk.drydock("doctor", "auto", env={"DRYDOCK_PROFILES": str(ROOT / "profiles")})
    print(done.stdout, done.stderr, file=sys.stderr)
    assert f"cuda{card['cuda'].partition('.')[0]}" in done.stdout + done.stderr


def test_a_build_records_what_torch_says_it_was_built_for(here: Mapping[str, Any], built: Sandbox) -> None:
    folder = built.drydock("build", "card").succeeded().stdout.strip()
    record = (Path(folder) / ".drydock/architectures").read_text()
    print(record, file=sys.stderr)
    assert record.splitlines()[0] == here["flags"]


def test_doctor_knows_the_card_before_and_after_the_build(card: Mapping[str, Any], built: Sandbox) -> None:
    done = built.drydock("doctor", "card", "--full", timeout=400)
    print(done.stdout, done.stderr, file=sys.stderr)
    done.succeeded()
    assert card["gpu"] in done.stdout
    assert card["capability"] in done.stdout


def test_verify_computes_on_the_card(card: Mapping[str, Any], built: Sandbox) -> None:
    done = built.drydock("verify", "card", timeout=400)
    print(done.stdout, done.stderr, file=sys.stderr)
    done.succeeded()
    assert re.search(rf"{re.escape(card['gpu'])} \({card['capability']}\), .* free", done.stdout + done.stderr)
    assert "a product of matrices and its gradient on cuda are right" in done.stdout + done.stderr


def test_verify_and_the_script_miss_a_gpu_that_is_hidden(card: Mapping[str, Any], built: Sandbox) -> None:
    done = built.drydock("verify", "card", env={"CUDA_VISIBLE_DEVICES": "-1"}, timeout=400)
    print(done.stdout, done.stderr, file=sys.stderr)
    assert done.code == 1
    assert "can use cpu; the profile wants cuda" in done.stdout + done.stderr
    done = built.drydock("run", "card", env={"CUDA_VISIBLE_DEVICES": "-1"}, timeout=400)
    done.failed(1, "CUDA_VISIBLE_DEVICES hides every GPU")
    done = built.drydock("doctor", "card", env={"CUDA_VISIBLE_DEVICES": "-1"}, timeout=400)
    assert done.code == 1
    assert "FAIL visible GPUs" in done.stdout


def test_the_small_trainer_trains_on_the_card(card: Mapping[str, Any], built: Sandbox) -> None:
    began = time.monotonic()
    done = built.drydock("run", "card", "--", "--json", timeout=400).succeeded()
    print(f"{time.monotonic() - began:.1f} s", done.stdout, done.stderr, file=sys.stderr)
    said = json.loads(done.stdout.splitlines()[-1])
    print(said, file=sys.stderr)
    assert str(said["device"]).startswith("cuda")


def test_a_supervised_training_is_killed_and_goes_on_while_the_card_is_watched(
    card: Mapping[str, Any], built: Sandbox
) -> None:
    profile = built.work / "profiles/card.toml"
    path = built.work / "profiles/trainers/killed.py"
    path.write_text(TRAINER)
    before = profile.read_text()
    profile.write_text(
        before + '\n[trainer]\nfile = "trainers/killed.py"\n[supervise]\nbackoff = 0.2\nsample-every = 1\n'
        'resume = { flag = "--resume_from_checkpoint", newest = "out/checkpoint-*", has = ["trainer_state.json"] }\n'
    )
    try:
        _timed(built, "build", "card")
        done = built.drydock("run", "card", "--supervise", timeout=400)
        print(done.stdout[-6000:], done.stderr[-3000:], file=sys.stderr)
        done.succeeded()
        whole = built.drydock("run", "card", "--", "--undisturbed", timeout=400).succeeded()
    finally:
        profile.write_text(before)
    print(whole.stdout[-2000:], file=sys.stderr)
    text = done.stdout + done.stderr
    assert "resumes None" in text
    assert re.search(r"resumes .*out/checkpoint-30", text)
    ended, undisturbed = (json.loads(re.findall(r"end (\{.*\})", said)[-1]) for said in (text, whole.stdout))
    assert ended["step"] == undisturbed["step"] == 60
    assert ended["device"] == undisturbed["device"] == "cuda:0"
    assert ended["weights"] == pytest.approx(undisturbed["weights"], rel=1e-4)
    losses = dict(re.findall(r"step (\d+) loss (\S+)", text))
    right = dict(re.findall(r"step (\d+) loss (\S+)", whole.stdout))
    assert len(right) == 60
    most = max(abs(float(losses[step]) - float(right[step])) for step in right)
    print("greatest difference of a loss:", most, file=sys.stderr)
    assert most < 0.02
    samples = (built.store.parent / "runs/card/samples.jsonl").read_text().splitlines()
    busy = [gpu for line in samples for gpu in json.loads(line)["gpus"]]
    print("samples:", len(samples), busy[:3], max((gpu["busy"] for gpu in busy), default=None), file=sys.stderr)
    assert any((gpu["busy"] or 0) > 0.2 for gpu in busy)
    assert max(gpu["memory"] for gpu in busy) > 2**30
    assert not _on_the_card()


# With --atomics the rows are added in another order each time.
REPEATED = """\
import sys, torch
torch.manual_seed(0)
torch.use_deterministic_algorithms("--atomics" not in sys.argv)
rows = torch.randn(200_000, 64, device="cuda")
where = torch.randint(0, 64, (200_000,), device="cuda")
weights = torch.randn(64, 64, device="cuda", requires_grad=True)
for step in range(60):
    pooled = torch.zeros(64, 64, device="cuda").index_add(0, where, rows @ weights)
    loss = pooled.tanh().mean() + pooled.pow(2).mean() / 1e4
    (slope,) = torch.autograd.grad(loss, weights)
    with torch.no_grad():
        weights -= 0.1 * slope
    print("step", step, "loss", loss.item(), flush=True)
torch.save(weights.detach().cpu(), "weights.pt")
"""


@pytest.fixture
def strict(card: Mapping[str, Any], built: Sandbox) -> Iterator[Sandbox]:
    """`card` with strict determinism, and a trainer that repeats itself unless it is told not to."""
    profile = built.work / "profiles/card.toml"
    before = profile.read_text()
    (built.work / "profiles/trainers/repeated.py").write_text(REPEATED)
    strictly = before.replace("\nextends", '\ndeterminism = "strict"\nextends')
    assert strictly != before
    profile.write_text(f'{strictly}\n[trainer]\nfile = "trainers/repeated.py"\narguments = ["--seed", "0"]\n')
    try:
        yield _timed(built, "build", "card")
    finally:
        profile.write_text(before)


def test_training_repeats_itself_on_the_card_where_it_is_strict(strict: Sandbox) -> None:
    done = strict.drydock("verify", "card", timeout=400)
    print(done.stdout, done.stderr, file=sys.stderr)
    done.succeeded()
    assert "20 steps, twice on cuda, are the same bit by bit" in done.stdout + done.stderr
    done = strict.drydock("replay", "card", timeout=400)
    print(done.stdout, done.stderr, file=sys.stderr)
    assert done.stdout == "the same, bit by bit as printed: 60 lines with a loss and 1 file of weights\n"


def test_replay_names_the_step_from_which_the_card_adds_in_another_order(strict: Sandbox) -> None:
    done = strict.drydock("replay", "card", "--", "--atomics", timeout=400)
    print(done.stdout, done.stderr, file=sys.stderr)
    assert done.code == 1
    assert re.match(r"different from step \d+, line \d+ of 60 lines with a loss\n", done.stdout)
    assert "use_deterministic_algorithms: off unless" in done.stdout


def test_a_run_on_the_card_is_recorded_with_it_and_run_again(card: Mapping[str, Any], strict: Sandbox) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "profiles"], [*who, "commit", "-qm1"]):
        strict.run(["git", *words]).succeeded()
    recorded = {"DRYDOCK_RECORDS": "1"}
    first = strict.drydock("run", "card", env=recorded, timeout=400).succeeded()
    until(lambda: card["gpu"] in strict.drydock("runs", "show", "last", env=recorded).stdout)
    again = strict.drydock("rerun", "last", env=recorded, timeout=400).succeeded()
    print(again.stderr, file=sys.stderr)
    assert again.stdout == first.stdout


def test_a_benchmark_is_measured_on_the_card(card: Mapping[str, Any], built: Sandbox) -> None:
    done = built.drydock("bench", "card", "--pairs", "5", "--json", timeout=500).succeeded()
    print(done.stdout, done.stderr, file=sys.stderr)
    rows = {row["what"]: row for row in json.loads(done.stdout)["measures"]}
    assert all(len(rows[what]["ours"]) == 5 for what in ("start-up", "training", "peak memory"))


def _on_the_card() -> list[str]:
    """Processes of ours that still use the GPU."""
    query = ["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return [line for line in done.stdout.split() if line.isdigit() and Path(f"/proc/{line}").exists()]


JAX = """\
schema = 1
name = "card-jax"
description = "what this machine has of JAX"
[target]
platform = "linux-{machine}"
accelerator = "cuda"
glibc = "2.28"
cuda = "{cuda}"
[python]
version = "{python}"
[packages]
requires = [{requires}]
[trainer]
command = ["python", "-c", "import jax; print(jax.devices())"]
[generated]
committed = false
"""


def test_verify_computes_by_jax(card: Mapping[str, Any], desk: Sandbox, torch_python: str) -> None:
    major = card["cuda"].partition(".")[0]
    nvidia = "cublas cuda-cupti cuda-nvrtc cuda-runtime cuda-nvcc nvvm cudnn-cu{0} cufft cusolver cusparse nccl-cu{0} "
    nvidia += "nvjitlink nvshmem-cu{0}"
    # Of what its extra `with-cuda` names, what is there: the machine may have the rest in /usr/local/cuda.
    wanted = ["jax", f"jax-cuda{major}-plugin", f"jax-cuda{major}-pjrt"]
    wanted += [f"nvidia-{name}" for name in nvidia.format(major).split()]
    ask = "import sys; from importlib.metadata import distributions as d; print(*{i.name.lower() for i in d()})"
    asked = subprocess.run([torch_python, "-c", ask], check=True, capture_output=True, text=True)
    found = [name for name in wanted if name in asked.stdout.split()]
    if found[:3] != wanted[:3]:
        pytest.skip("that Python has no JAX for CUDA")
    packed = repack(torch_python, desk.root / "installed", found)
    requires = ", ".join(json.dumps(f"{name}=={version}") for name, version in packed.items())
    desk.profile("card-jax", JAX.format(**{**card, "requires": requires}))
    _timed(desk, "lock", "card-jax")
    _timed(desk, "build", "card-jax")
    done = desk.drydock("verify", "card-jax", env={"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}, timeout=400)
    print(done.stdout, done.stderr, file=sys.stderr)
    done.succeeded()
    assert "jax " in done.stdout + done.stderr
    assert "a product of matrices and its gradient on cuda are right" in done.stdout + done.stderr


def test_a_card_that_others_use_is_said(card: Mapping[str, Any], built: Sandbox) -> None:
    code = (
        "import torch, time; free = torch.cuda.mem_get_info()[0] - 2**28\n"
        "x = torch.empty(free, dtype=torch.uint8, device='cuda'); print('full', flush=True); time.sleep(300)"
    )
    with subprocess.Popen([os.environ["DRYDOCK_TESTS_TORCH"], "-c", code], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == b"full\n"
            done = built.drydock("verify", "card", timeout=400)
            assert done.code == 1
            assert "CUDA error: out of memory" in done.stdout + done.stderr
            done = built.drydock("doctor", "card", timeout=400).succeeded()
            print(done.stdout, file=sys.stderr)
            assert "warn GPU memory" in done.stdout
        finally:
            other.kill()


def test_the_script_alone_trains_on_the_card(card: Mapping[str, Any], built: Sandbox) -> None:
    done = built.run(["sh", str(built.script("card")), "--", "--json"], cwd=built.root, timeout=400).succeeded()
    assert json.loads(done.stdout.splitlines()[-1])["device"] == "cuda"
