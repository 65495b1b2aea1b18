"""`determinism = "strict"`: what it sets, what contradicts it, and what `drydock verify` says of it."""

from __future__ import annotations

import shlex

import pytest

from builder.profile.variables.determinism import contradictions
from tests.support import SHELLS, Sandbox

HEAD = 'determinism = "strict"\n'


def settings(desk: Sandbox) -> dict[str, str | None]:
    """What the script sets and removes, by name."""
    done = desk.run(["sh", str(desk.script("small")), "--print-env"], env={"MKL_NUM_THREADS": "7"}).succeeded()
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    found: dict[str, str | None] = {words[1]: None for words in lines if words[0] == "unset"}
    return found | dict(words[1].split("=", 1) for words in lines if words[0] == "export")


def check(desk: Sandbox) -> list[str]:
    """The findings of the linter, without their sources."""
    said = desk.drydock("profile", "check", "small").succeeded().stderr.splitlines()
    return [line.removeprefix("warning: profiles/").partition(";")[0] for line in said if "[determinism]" in line]


def test_it_sets_what_makes_runs_repeat_themselves_whatever_the_caller_exports(locked: Sandbox) -> None:
    locked.profile("small", head=HEAD, tail='[env]\nOMP_NUM_THREADS = { detect = "usable-cores", fallback = 3 }\n')
    found = settings(locked)
    assert (found["PYTHONHASHSEED"], found["OMP_NUM_THREADS"], found["MKL_NUM_THREADS"]) == ("0", "3", "3")
    assert "CUBLAS_WORKSPACE_CONFIG" not in found
    locked.profile("small", head=HEAD, tail='[env]\nOMP_NUM_THREADS = "2"\nPYTHONHASHSEED = "7"\n')
    found = settings(locked)
    assert (found["PYTHONHASHSEED"], found["OMP_NUM_THREADS"], found["MKL_NUM_THREADS"]) == ("7", "2", "2")
    locked.drydock("lock", "small", "--check").succeeded()
    locked.profile("small")
    assert "PYTHONHASHSEED" not in settings(locked)


def test_on_cuda_it_sets_cublas_and_removes_what_allows_tf32(locked: Sandbox) -> None:
    path = locked.profile("small", head=HEAD)
    path.write_text(path.read_text().replace('accelerator = "cpu"', 'accelerator = "cuda"\ncuda = "12.8"'))
    locked.drydock("lock", "small").succeeded()
    shown = locked.script("small").read_text()
    assert "export CUBLAS_WORKSPACE_CONFIG=':4096:8'" in shown
    assert "unset TORCH_ALLOW_TF32_CUBLAS_OVERRIDE" in shown


def test_the_key_is_the_same(locked: Sandbox) -> None:
    before = locked.drydock("build", "small", "--dry-run").succeeded().stdout
    locked.profile("small", head=HEAD)
    assert locked.drydock("build", "small", "--dry-run").succeeded().stdout == before


TRAINER = """\
import torch

torch.backends.cudnn.benchmark = True
torch.backends.cuda.matmul.allow_tf32 = True  # faster
# torch.backends.cudnn.allow_tf32 = True
"""
TAIL = """\
arguments = ["--tf32", "True", "--dataloader_num_workers", { detect = "usable-cores", fallback = 2 }]
[env]
PYTHONHASHSEED = "random"
"""


def test_what_contradicts_it_is_named_with_its_place(locked: Sandbox) -> None:
    locked.file("trainer.py", TRAINER)
    path = locked.profile("small", head=HEAD, tail=TAIL)
    command = 'command = ["python", "-c", "import anchor; print(\'trained with\', anchor.version)"]'
    text = path.read_text().replace(command, 'file = "trainer.py"')
    path.write_text(text.replace('accelerator = "cpu"', 'accelerator = "cuda"\ncuda = "12.8"'))
    locked.drydock("lock", "small").succeeded()
    assert check(locked) == [
        "small.toml:4: determinism: no seed is among its arguments and variables: unless the trainer sets one itself, "
        "each run draws others",
        "small.toml:22: env.PYTHONHASHSEED: random: sets of texts are in another order in each run",
        "small.toml:4: determinism: --dataloader_num_workers is detected: each worker of a data loader has its own "
        "seed, so their number decides the data",
        "small.toml:4: determinism: --tf32: products of matrices have fewer bits on GPUs that have TF32, and others "
        "elsewhere",
        "trainer.py:3: cuDNN chooses the quickest algorithm in each run anew",
        "trainer.py:4: products of matrices have fewer bits on GPUs that have TF32, and others elsewhere",
    ]
    doctor = locked.drydock("doctor", "small").stdout
    assert "warn settings: cudnn.benchmark: cuDNN chooses" in doctor
    path.write_text(path.read_text().replace(HEAD, ""))
    assert not check(locked)


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        ('["--seed", "1"]', ["use_deterministic_algorithms", "cudnn.benchmark"]),
        ('["--seed", "1", "--full_determinism"]', ["cudnn.benchmark"]),
        ('["--seed", "1", "--full_determinism=False"]', ["use_deterministic_algorithms", "cudnn.benchmark"]),
    ],
)
def test_what_a_trainer_turns_on_itself_is_no_finding(locked: Sandbox, arguments: str, left: list[str]) -> None:
    path = locked.profile("small", head=HEAD, tail=f"arguments = {arguments}\n")
    text = path.read_text().replace('accelerator = "cpu"', 'accelerator = "cuda"\ncuda = "12.8"')
    path.write_text(text.replace('requires = ["anchor"]', 'requires = ["anchor", "torch"]'))
    (locked.work / "profiles/small.lock.toml").unlink()
    done = locked.drydock("doctor", "small")
    lines = [line for line in done.stdout.splitlines() if line.startswith("warn settings: ")]
    assert [line.split(": ")[1] for line in lines] == left


@pytest.mark.slow
def test_verify_says_what_holds_on_this_machine(locked: Sandbox) -> None:
    locked.profile("small", head=HEAD)
    locked.drydock("build", "small").succeeded()
    said = locked.drydock("verify", "small").succeeded().stdout.splitlines()
    line = "ok   determinism: PYTHONHASHSEED=0; there is no torch, so nothing was computed"
    assert line in said
    script = str(locked.script("small"))
    for shell in SHELLS.values():
        assert line in locked.run([*shell, script, "--verify"]).succeeded().stdout.splitlines()
    locked.profile("small", head=HEAD, tail='[env]\nPYTHONHASHSEED = "random"\n')
    locked.drydock("build", "small").succeeded()
    done = locked.drydock("verify", "small")
    assert done.code == 1
    assert "FAIL determinism: PYTHONHASHSEED is not a number" in done.stdout
    locked.profile("small")
    locked.drydock("build", "small").succeeded()
    assert "determinism" not in locked.drydock("verify", "small").succeeded().stdout


@pytest.mark.parametrize(
    ("accelerator", "env", "names"),
    [
        ("mps", {}, ["MPS"]),
        ("cpu", {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}, []),
        (
            "cuda",
            {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:2"},
            ["use_deterministic_algorithms", "CUBLAS_WORKSPACE_CONFIG", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"],
        ),
    ],
)
def test_each_accelerator_has_its_own(accelerator: str, env: dict[str, str], names: list[str]) -> None:
    whole = {"PYTHONHASHSEED": "0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8", **env}
    found = contradictions(
        whole, packages=["torch"], detected=[], arguments="--seed 1", code="pass", accelerator=accelerator
    )
    assert [finding.name for _, finding in found] == names
    assert {finding.code for _, finding in found} <= {"determinism"}
