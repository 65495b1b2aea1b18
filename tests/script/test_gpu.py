"""What a script says of a driver and of GPUs that its wheels do not run on, before it downloads them."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from builder.check.doctor.hardware import hidden
from builder.profile.architectures import Kernels
from builder.project.catalogue import Catalogue
from tests.conftest import ROOT
from tests.support import SHELLS
from tests.support.scripts import Desk

NEEDED = "hivemind_exp/gsm8k/train_single_gpu.py"


def nvidia_smi(folder: Path, cuda: str, *capabilities: str) -> None:
    """An nvidia-smi with the head of a real one, for a driver that supports that CUDA."""
    head = (ROOT / "tests/captured/h100.summary").read_text().replace("12.4", cuda)
    (folder / "summary").write_text(head)
    (folder / "capabilities").write_text("".join(f"{one}\n" for one in capabilities))
    (folder / "gpus").write_text("".join("NVIDIA RTX A6000, 49140 MiB\n" for _ in capabilities))
    answers = {"*compute_cap*": "capabilities", "*memory.total*": "gpus", "*": "summary"}
    cases = " ".join(f'{question}) cat "{folder}/{file}" ;;' for question, file in answers.items())
    put(folder, f"case $* in {cases} esac")


def put(folder: Path, code: str) -> None:
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{code}\n")
    (folder / "nvidia-smi").chmod(0o755)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """The script of cuda in a checkout, its environment built, and a folder on the PATH for an nvidia-smi."""
    (tmp_path / NEEDED).parent.mkdir(parents=True)
    (tmp_path / NEEDED).touch()
    script = ROOT / "generated/cuda/run_rl_swarm_cuda.sh"
    plan = Catalogue([ROOT / "profiles"]).plan("cuda")
    return Desk(tmp_path, script.read_text(), script.name, plan.store_name).built()


def start(desk: Desk, shell: str = "dash", **env: str) -> tuple[int, str]:
    done = desk.run(shell, PATH=f"{desk.folder / 'smi'}:/usr/bin:/bin", **env)
    return done.returncode, done.stderr.decode()


@pytest.fixture
def smi(desk: Desk) -> Path:
    (desk.folder / "smi").mkdir()
    return desk.folder / "smi"


@pytest.mark.parametrize("shell", SHELLS)
def test_a_gpu_that_the_wheels_have_kernels_for_trains(desk: Desk, smi: Path, shell: str) -> None:
    nvidia_smi(smi, "12.4", "8.6")
    assert start(desk, shell)[0] == 0


@pytest.mark.parametrize("shell", SHELLS)
def test_a_gpu_without_kernels_is_refused_at_the_start(desk: Desk, smi: Path, shell: str) -> None:
    nvidia_smi(smi, "12.8", "6.1")
    code, said = start(desk, shell)
    assert code == 1
    assert "error: torch 2.10.0 for CUDA 12.8 has kernels for sm_70 sm_75 sm_80" in said
    assert "and this GPU has compute capability 6.1" in said
    assert start(desk, shell, DRYDOCK_ANY_GPU="1")[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles", "0", "1,0", "GPU-8932f937", "MIG-c7384736"])
def test_the_script_and_the_doctor_agree_on_what_hides_every_gpu(desk: Desk, smi: Path, visible: str) -> None:
    nvidia_smi(smi, "12.4", "8.6")
    target = Catalogue([ROOT / "profiles"]).entry("cuda").outline.target
    assert ("hides every GPU" in start(desk, CUDA_VISIBLE_DEVICES=visible)[1]) == bool(hidden(target, visible))


@pytest.mark.parametrize("visible", ["", "-1"])
def test_gpus_that_are_hidden_are_said_before_the_processor_trains(desk: Desk, smi: Path, visible: str) -> None:
    nvidia_smi(smi, "12.4", "8.6")
    code, said = start(desk, CUDA_VISIBLE_DEVICES=visible)
    assert (code, "error: CUDA_VISIBLE_DEVICES hides every GPU" in said) == (1, True), said
    assert start(desk, CUDA_VISIBLE_DEVICES=visible, DRYDOCK_ANY_GPU="1")[0] == 0
    assert start(desk, CUDA_VISIBLE_DEVICES="0")[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS)
def test_what_torch_said_when_it_was_installed_decides(desk: Desk, smi: Path, shell: str) -> None:
    record = desk.env / ".drydock/architectures"
    record.write_text("sm_90a sm_100 compute_100\n")
    for capability, expected in (("8.6", 1), ("9.1", 1), ("9.0", 0), ("12.1", 0)):
        nvidia_smi(smi, "12.8", capability)
        code, said = start(desk, shell)
        assert (code, "has kernels for sm_90a sm_100 compute_100, and this GPU" in said) == (
            expected,
            expected == 1,
        )


def test_the_script_and_the_program_know_the_same_rules(desk: Desk) -> None:
    names = [
        f"{kind}_{number}{of}"
        for kind in ("sm", "compute")
        for number in (72, 75, 80, 86, 87, 90, 100, 120, 150)
        for of in "af"
    ]
    names += [name[:-1] for name in names[::2]]
    capabilities = [f"{major}.{minor}" for major in (5, 7, 8, 9, 10, 12, 15, 20) for minor in (0, 2, 3, 5, 6, 7, 9)]
    function = re.search(r"^runs_on\(\) \{.*?^\}$", desk.script.read_text(), re.DOTALL | re.MULTILINE)
    assert function is not None
    asked = [(name, one) for name in names for one in capabilities]
    lines = [f"! runs_on {name} {one.replace('.', ' ')} || echo {name} {one}" for name, one in asked]
    done = subprocess.run(
        ["sh", "-e"], input="\n".join([function[0], *lines]), capture_output=True, text=True, check=True
    )
    expected = [f"{name} {one}" for name, one in asked if Kernels("", (name,)).run_on(one)]
    assert done.stdout.splitlines() == expected
    assert 0 < len(expected) < len(asked)


def test_one_of_two_unlike_gpus_is_enough(desk: Desk, smi: Path) -> None:
    nvidia_smi(smi, "12.8", "6.1", "8.6")
    assert start(desk)[0] == 0


def test_a_driver_that_is_too_old_is_refused(desk: Desk, smi: Path) -> None:
    nvidia_smi(smi, "11.4", "8.0")
    code, said = start(desk)
    assert (code, "error: cuda is for CUDA 12.8, and the driver supports 11.4" in said) == (1, True), said


def test_an_old_driver_that_does_not_know_the_question_is_not_refused_for_it(desk: Desk, smi: Path) -> None:
    nvidia_smi(smi, "12.4", 'Field "compute_cap" is not a valid field to query.')
    assert start(desk)[0] == 0


@pytest.mark.parametrize(
    "code", ["exit 9", "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18"]
)
def test_a_driver_that_fails_is_said(desk: Desk, smi: Path, code: str) -> None:
    put(smi, code)
    assert start(desk) == (1, start(desk)[1])
    assert "error: nvidia-smi fails, or does not answer" in start(desk)[1]


def test_an_answer_of_another_form_is_said_to_be_unknown(desk: Desk, smi: Path) -> None:
    put(smi, """echo '{"gpus": [{"name": "X", "cc": 8.6}]}'""")
    code, said = start(desk)
    assert (code, "note: nvidia-smi answers in a form that is not known" in said) == (0, True), said


@pytest.mark.slow
def test_a_driver_that_hangs_is_given_ten_seconds(desk: Desk, smi: Path) -> None:
    put(smi, "trap '' TERM\nwhile :; do sleep 1; done")
    began = time.monotonic()
    code, said = start(desk)
    assert (code, "does not answer" in said) == (1, True), said
    assert time.monotonic() - began < 30


def test_without_a_driver_nothing_is_downloaded_for_a_run(desk: Desk) -> None:
    shutil.rmtree(desk.folder / "home", ignore_errors=True)
    code, said = start(desk)
    assert code == 1
    assert "error: cuda needs a GPU of NVIDIA, and there is no nvidia-smi here" in said
    assert "building" not in said
