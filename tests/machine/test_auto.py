"""What `auto` means on machines that are described, and in folders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from builder.machine import Gpu, Machine, OtherGpu, fit
from builder.profile.architectures import Kernels
from builder.project.auto import choices, pick
from builder.project.catalogue import Catalogue
from tests.conftest import ROOT
from tests.machine.described import MACHINES, linux, mac, nvidia, table

BUILT_IN = Catalogue([ROOT / "profiles"])
NEEDED = "hivemind_exp/gsm8k/train_single_gpu.py"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with what the trainer of rl-swarm v0.4 needs."""
    (tmp_path / NEEDED).parent.mkdir(parents=True)
    (tmp_path / NEEDED).touch()
    return tmp_path


def test_the_table_in_the_docs_is_what_auto_does(tmp_path: Path) -> None:
    _, _, rest = (ROOT / "docs/how-to/machine.md").read_text().partition("<!-- python -m tests.machine.described -->\n")
    assert rest.partition("\n\n")[0] + "\n" == table(tmp_path)


@pytest.mark.parametrize("name", MACHINES)
def test_every_machine_gets_a_profile_that_runs_there(name: str, tmp_path: Path) -> None:
    machine = MACHINES[name]
    picked = pick(machine, BUILT_IN, tmp_path)
    target = BUILT_IN.target(picked.name)
    assert target is not None
    assert target.platform == machine.platform
    assert BUILT_IN.profile(picked.name).trainer.needs is None
    if machine.gpus or machine.others:
        assert (target.accelerator == "cuda") != bool(picked.unused), "a GPU is used, or it is said that it is not"


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        (mac("Apple M4"), "m4"),
        (mac("Apple M2"), "m4-upstream"),
        (linux("aarch64"), "arm64"),
        (nvidia("NVIDIA A100", "8.0", "550.54.15", "12.4"), "cuda"),
        (nvidia("NVIDIA GeForce RTX 5090", "12.0"), "cuda"),
    ],
)
def test_in_a_checkout_auto_is_the_profile_for_it_where_that_runs(machine: Machine, name: str, checkout: Path) -> None:
    assert pick(machine, BUILT_IN, checkout).name == name


@pytest.mark.parametrize(
    ("machine", "name"), [(mac("Apple M4"), "mac-swarm-0-7"), (nvidia("NVIDIA A100", "8.0"), "cuda-swarm-0-7")]
)
def test_in_a_checkout_of_the_newest_rl_swarm_it_is_the_profile_for_that(
    machine: Machine, name: str, tmp_path: Path
) -> None:
    (tmp_path / "code_gen_exp/runner").mkdir(parents=True)
    (tmp_path / "code_gen_exp/runner/swarm_launcher.py").touch()
    assert pick(machine, BUILT_IN, tmp_path).name == name


def test_in_a_checkout_a_profile_for_processors_says_which_would_use_the_gpu(checkout: Path) -> None:
    picked = pick(MACHINES["DGX Spark GB10"], BUILT_IN, checkout)
    assert (picked.name, picked.unused) == ("arm64", "NVIDIA GB10 goes unused: cuda13-arm64 uses it")


@pytest.mark.parametrize(
    ("machine", "name", "unused"),
    [
        (nvidia("NVIDIA GeForce RTX 2080 Ti", "7.5"), "cuda13", ""),
        (nvidia("NVIDIA GeForce RTX 4090", "8.9", "535.183.01", "12.2"), "cuda12", ""),
        (nvidia("NVIDIA H200", "9.0", "550.90.07", "12.4"), "cuda12", ""),
        (nvidia("Tesla V100-SXM2-16GB", "7.0"), "cuda12", ""),
        (nvidia("NVIDIA GH200 480GB", "9.0", machine="aarch64"), "cuda13-arm64", ""),
        (nvidia("NVIDIA Thor", "11.0", machine="aarch64"), "cuda13-arm64", ""),
        (nvidia("NVIDIA GeForce GTX 1080", "6.1"), "cpu", "NVIDIA GeForce GTX 1080 has 6.1"),
        (nvidia("NVIDIA A100", "8.0", "470.82.01", "11.4"), "cpu", "the driver supports 11.4"),
        (nvidia("NVIDIA GH200", "9.0", "550.90.07", "12.4", "aarch64"), "cpu-arm64", "the driver supports 12.4"),
        (nvidia("Orin (nvgpu)", "8.7", "540.4.0", "12.6", "aarch64"), "cpu-arm64", "the driver supports 12.6"),
        (replace(linux(), gpus=None), "cpu", "nvidia-smi fails"),
        (linux(others=(OtherGpu("xpu", "Intel(R) Arc(TM) B580 Graphics"),)), "cpu", 'accelerator = "xpu"'),
        (linux(others=(OtherGpu("rocm", "Radeon 8060S Graphics", "gfx1151"),)), "cpu", "gfx1151) goes unused"),
    ],
)
def test_a_gpu_gets_kernels_that_run_on_it_or_the_reason_is_said(
    machine: Machine, name: str, unused: str, tmp_path: Path
) -> None:
    picked = pick(machine, BUILT_IN, tmp_path)
    assert picked.name == name
    assert unused in picked.unused
    assert bool(unused) == bool(picked.unused)


def test_a_project_is_not_left_for_the_trainer_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all that its own profile lacks is the trainer: running it says that."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profiles").mkdir()
    target = '[target]\nplatform = "linux-x86_64"\naccelerator = "cpu"\nglibc = "2.28"\nmatch = {}\n'
    trainer = '[trainer]\ncommand = ["python", "train.py"]\nneeds = "train.py"\n'
    (tmp_path / "profiles/own.toml").write_text(
        f'schema = 1\nname = "own"\n{target}[python]\nversion = "3.11"\n[packages]\nrequires = ["anchor"]\n{trainer}'
    )
    picked = pick(linux(), Catalogue(), tmp_path)
    assert picked.name == "own"
    assert "its trainer needs train.py, which is not in this folder" in picked.why
    (tmp_path / "train.py").touch()
    assert pick(linux(), Catalogue(), tmp_path).why.endswith("and train.py is here")


def test_of_two_unlike_gpus_one_that_runs_is_enough(tmp_path: Path) -> None:
    gpus = (Gpu("NVIDIA GeForce GTX 1080", None, "6.1"), Gpu("NVIDIA GeForce RTX 3090", None, "8.6"))
    picked = pick(replace(linux(cuda="13.0"), gpus=gpus), BUILT_IN, tmp_path)
    assert (picked.name, picked.why) == ("cuda13", "a GPU is NVIDIA GeForce RTX 3090 (8.6)")


def test_kernels_that_do_not_run_are_said_with_what_they_are_for(checkout: Path) -> None:
    found = choices(nvidia("NVIDIA GeForce GTX 1080", "6.1"), BUILT_IN, checkout)["cuda"]
    assert found.score is None
    assert found.why == (
        "torch 2.10.0 for CUDA 12.8 has kernels for compute capability 7.0, 7.5, 8.0, 8.6, 9.0, 10.0, 12.0, "
        "and NVIDIA GeForce GTX 1080 has 6.1"
    )


def test_a_card_that_does_not_say_its_capability_is_not_refused() -> None:
    target = BUILT_IN.target("cuda12")
    assert target is not None
    unknown = linux("x86_64", Gpu("NVIDIA Something", None), cuda="12.8")
    assert fit(target, unknown, Kernels("torch", ("sm_120",))).score is not None
