"""[launch] in a script: how torchrun is started, under every shell, and with torch itself."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from builder.errors import ProfileError
from builder.lock.model import Artefact
from builder.profile.launch import Launch
from builder.profile.model import Setting, Trainer
from builder.project.catalogue import Catalogue
from builder.script.plan import Plan
from builder.script.templates import rendered
from tests.conftest import ROOT
from tests.script.test_render import SHA, make
from tests.support import SHELLS
from tests.support.scripts import TELLER, Desk, Told

TORCH = Artefact(name="torch", version="2.13.0", file="torch-2.13.0-py3-none-any.whl", size=1, sha256=SHA)
CUDA = {"platform": "linux-x86_64", "accelerator": "cuda", "cuda": "12.8", "glibc": "2.28"}
ELSEWHERE = {"PET_NNODES": "3", "PET_NODE_RANK": "1", "PET_MASTER_ADDR": "h1", "PET_MASTER_PORT": "29500"}
NVIDIA_SMI = """\
#!/bin/sh
case "$*" in
  -L) printf 'GPU 0: a\\nGPU 1: b\\nGPU 2: c\\nGPU 3: d\\n' ;;
  *compute_cap*) printf '9.0\\n' ;;
  *) printf '| NVIDIA-SMI 570 Driver Version: 570 CUDA Version: 12.8 |\\n' ;;
esac
"""


def plan(launch: Mapping[str, Any] | None = None, **changes: Any) -> Plan:
    """A plan with torch in its lock that torchrun starts."""
    return make(TORCH, launch={"with": "torchrun", **(launch or {})}, **changes)


def desk(folder: Path, one: Plan) -> Desk:
    """A desk whose torchrun tells what it was given."""
    made = Desk.of(folder, one).built()
    made.program("torchrun", TELLER)
    return made


def same(one: Desk, *arguments: str, **env: str) -> Told:
    """What torchrun is given, which is the same under every shell."""
    found = {shell: one.train(shell, *arguments, **env) for shell in SHELLS}
    first = next(iter(found.values()))
    for shell, told in found.items():
        assert (told.arguments, told.stderr) == (first.arguments, first.stderr), shell
        for name in ("OMP_NUM_THREADS", *(word for word in first.environment if word.startswith("PET_"))):
            assert told.environment.get(name) == first.environment.get(name), (shell, name)
    return first


def test_one_host_that_nobody_told_of_others_is_by_itself(tmp_path: Path) -> None:
    one = desk(tmp_path, plan({"processes": 2}, trainer={"command": ["python", "-m", "it"], "arguments": ["-v"]}))
    told = same(one, "--steps", "it's 3", PET_MAX_RESTARTS="1")
    assert told.arguments == ["--standalone", "--no-python", "python", "-m", "it", "-v", "--steps", "it's 3"]
    assert told.environment["PET_NPROC_PER_NODE"] == "2"
    assert told.environment["PET_MAX_RESTARTS"] == "1"
    assert "OMP_NUM_THREADS" not in told.environment


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ELSEWHERE, "PET_RDZV_ENDPOINT", "PET_RDZV_BACKEND", "PET_STANDALONE"])
def test_what_says_where_others_are_is_left_to_torchrun(tmp_path: Path, name: str) -> None:
    told = same(desk(tmp_path, plan()), **{name: "1", "PET_NPROC_PER_NODE": "5"})
    alone = name == "PET_MASTER_PORT"
    assert told.arguments == [*(["--standalone"] if alone else []), "--no-python", "python"]
    assert told.environment["PET_NPROC_PER_NODE"] == "5"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "env", "expected"),
    [
        (2, {}, "4"),
        (3, {}, "2"),
        (100, {}, "1"),
        (1, {}, "8"),
        (2, {"OMP_NUM_THREADS": "8"}, "8"),
        (2, {"PET_NPROC_PER_NODE": "4"}, "2"),
        (2, {"PET_NPROC_PER_NODE": "gpu"}, None),
        (2, {"PET_NPROC_PER_NODE": "0"}, None),
        (2, {"PET_NPROC_PER_NODE": "a[$(touch canary)]"}, None),
    ],
)
def test_the_processes_of_a_host_share_the_threads_of_the_profile(
    tmp_path: Path, processes: int, env: dict[str, str], expected: str | None
) -> None:
    one = desk(tmp_path, plan({"processes": processes}, env={"OMP_NUM_THREADS": {"default": "8"}}))
    told = same(one, **env)
    assert told.environment.get("OMP_NUM_THREADS") == expected
    assert ("each with OMP_NUM_THREADS" in told.stderr) == (expected not in (None, "8"))
    assert not (tmp_path / "canary").exists()


def test_a_value_that_always_holds_is_shared_too(tmp_path: Path) -> None:
    one = desk(tmp_path, plan({"processes": 2}, env={"OMP_NUM_THREADS": "6"}))
    assert same(one, OMP_NUM_THREADS="50").environment["OMP_NUM_THREADS"] == "3"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("visible", "expected"), [(None, "4"), ("", None), ("0", "1"), ("2,3", "2"), ("GPU-a,GPU-b,GPU-c", "3")]
)
def test_there_is_a_process_for_each_gpu_that_is_visible(
    tmp_path: Path, visible: str | None, expected: str | None
) -> None:
    one = desk(tmp_path, plan(target=CUDA))
    one.program("nvidia-smi", NVIDIA_SMI)
    env = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    for shell in SHELLS:
        done = one.run(shell, PATH=f"{one.env}/bin:/usr/bin:/bin", **env)
        if expected is None:
            assert b"CUDA_VISIBLE_DEVICES hides every GPU" in done.stderr, shell
        else:
            assert f"PET_NPROC_PER_NODE={expected}\0".encode() in done.stdout, (shell, done)


def test_where_there_are_no_gpus_there_is_one_process(tmp_path: Path) -> None:
    assert same(desk(tmp_path, plan())).environment["PET_NPROC_PER_NODE"] == "1"


def test_a_hidden_argument_stays_hidden_behind_torchrun(tmp_path: Path) -> None:
    trainer = {
        "command": ["python", "-m", "it"],
        "options": [{"flag": "--token", "from": "HF_TOKEN", "when": "PUSH", "hidden": True}],
    }
    told = same(desk(tmp_path, plan(trainer=trainer)), PUSH="1", HF_TOKEN="not-for-all")
    assert told.arguments[:4] == ["--standalone", "--no-python", "python", "-c"]
    assert "not-for-all" not in "".join(told.arguments)


def test_only_a_script_whose_profile_asks_for_it_grows(tmp_path: Path) -> None:
    plain, none = make(TORCH), make(TORCH, launch={"with": "none", "processes": 4, "slurm": ["--nodes=2"]})
    assert rendered(plain) == rendered(none)
    text = rendered(plain)[plain.profile.run_script]
    assert not re.search(r"torchrun|PET_", text)
    assert plan().key == plain.key  # and it is in no key
    assert Desk.of(tmp_path, none).built().train("dash").arguments == []


def test_torchrun_without_torch_is_refused() -> None:
    with pytest.raises(ProfileError, match="torchrun"):
        make(launch={"with": "torchrun"})


@pytest.mark.parametrize(
    "option",
    [
        "-N 3", "--nodes 3", "nodes=3", "--Nodes=3", "--", "--nodes=", "--comment=a b", "--comment='a'",
        '--comment="a"', "--comment=a#b", "--comment=$(id)", "--comment=`id`", "--comment=a\\",
        "--nodes=3\n--wrap=id", "--nodes=3\n",
        "--comment=\x1b[31m", "--comment=\u00e9",
        "--wrap=id", "--export=ALL", "--array=1-3", "--ntasks=4", "--signal=USR1@3", "--no-requeue", "--job-name=x",
    ],
)  # fmt: skip
def test_an_option_of_sbatch_that_is_more_than_one_word_or_ours_is_refused(option: str) -> None:
    with pytest.raises(ValidationError):
        Launch.model_validate({"slurm": [option]})


@pytest.mark.parametrize(
    "option",
    ["--exclusive", "--nodes=2-3", "--time=1-12:00:00", "--gres=gpu:a100:4", "--constraint=[rack1|rack2]&fast",
     "--mail-user=me@localhost", "--output=logs/%x-%j.log", "--licenses=foo:4,bar", "--partition=gpu"],
)  # fmt: skip
def test_an_option_of_sbatch_is_taken_as_it_is(option: str) -> None:
    assert Launch.model_validate({"slurm": [option]}).slurm == [option]


@pytest.mark.parametrize(
    "launch",
    [{"with": "mpirun"}, {"processes": 0}, {"processes": "2"}, {"processes": "gpus"}, {"fewest": 0}, {"hosts": 2}],
)
def test_nonsense_is_refused(launch: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Launch.model_validate(launch)


PROBE = """\
import os
import torch
from accelerate import Accelerator

accelerator = Accelerator(cpu=True)
ones = accelerator.gather(torch.ones(1))
if accelerator.is_main_process:
    print("TOLD", accelerator.num_processes, int(ones.sum()), os.environ["OMP_NUM_THREADS"], flush=True)
"""


@pytest.mark.slow
def test_accelerate_finds_the_processes_that_torchrun_has_started(
    tmp_path: Path, cpu_env: Path, drydock_home: Path
) -> None:
    """One host of two processes; several hosts: tests/run/test_slurm.py."""
    entry = Catalogue([ROOT / "profiles"]).entry("cpu")
    changed = {
        "launch": Launch.model_validate({"with": "torchrun", "processes": 2}),
        "trainer": Trainer(command=["python", "probe.py"]),
        "env": {"OMP_NUM_THREADS": Setting(default="6")},
    }
    one = dataclasses.replace(entry.plan, profile=entry.profile.model_copy(update=changed))
    assert one.store_name == cpu_env.name
    script = tmp_path / "run.sh"
    script.write_text(rendered(one)[one.profile.run_script])
    (tmp_path / "probe.py").write_text(PROBE)
    env = {**os.environ, "DRYDOCK_HOME": str(drydock_home)}
    done = subprocess.run(["sh", str(script)], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert "TOLD 2 2 3\n" in done.stdout, done
