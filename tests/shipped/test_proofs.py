"""The proofs of the bundled patches: each fails without its patch with the very error, and passes with it."""

from __future__ import annotations

import os
import runpy
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.preloaded import Preloaded

pytestmark = pytest.mark.slow

PROOFS = ROOT / "profiles" / "proofs"
EMPTY = PROOFS / "accelerate_empty_dataloader.py"
UNWRAP = PROOFS / "accelerate_unwrap_model.py"
TRAIN = PROOFS / "train_tiny_model.py"
RESUME = PROOFS / "resume_training.py"

UNBOUND = "UnboundLocalError: cannot access local variable 'current_batch'"
UNEXPECTED = "TypeError: Accelerator.unwrap_model() got an unexpected keyword argument 'keep_torch_compile'"

# Loads a proof as a module, so that a test can change accelerate in the process before it asks the proof.
LOAD = """
import importlib.util, sys
sys.dont_write_bytecode = True
import accelerate.data_loader
from accelerate import Accelerator
from accelerate.data_loader import DataLoaderShard

spec = importlib.util.spec_from_file_location("proof", sys.argv[1])
proof = importlib.util.module_from_spec(spec)
spec.loader.exec_module(proof)
"""

# The monkey patch known in the wild: `yield` makes it a generator, so its `return` gives no batch to anyone.
BOGUS = """
original_iter = DataLoaderShard.__iter__

def patched_iter(self):
    try:
        return original_iter(self)
    except UnboundLocalError:
        yield

DataLoaderShard.__iter__ = patched_iter
"""

# Silences the TypeError of unwrap_model and ignores what was asked for.
SWALLOW = """
original_unwrap = Accelerator.unwrap_model

def patched_unwrap(self, model, keep_fp32_wrapper=True, keep_torch_compile=True):
    return original_unwrap(self, model, keep_fp32_wrapper)

Accelerator.unwrap_model = patched_unwrap
"""


def python(env: Path, *arguments: str | Path, patched: bool = False) -> subprocess.CompletedProcess[str]:
    """Runs an environment's Python in isolation, as a build runs a proof."""
    variables = {name: value for name, value in os.environ.items() if name != "DRYDOCK_PATCHED"}
    variables |= {"DRYDOCK_PATCHED": "1"} if patched else {}
    command: list[str | Path] = [env / "bin" / "python", "-I", *arguments]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def warm(cpu_env: Path) -> Iterator[Preloaded]:
    """The Python of `cpu` with what proofs import, for all but the proofs themselves; with their variables."""
    variables = {name: value for name, value in os.environ.items() if name != "DRYDOCK_PATCHED"}
    quiet = runpy.run_path(str(RESUME))["QUIET"]
    modules = ["torch", "accelerate", "transformers.trainer", "transformers.models.llama.modeling_llama"]
    with Preloaded(cpu_env / "bin/python", modules, env={**variables, **quiet}) as made:
        yield made


@pytest.mark.parametrize("proof", [EMPTY, UNWRAP, TRAIN], ids=lambda path: path.stem)
def test_a_proof_passes_with_the_patches(cpu_env: Path, proof: Path) -> None:
    done = python(cpu_env, proof, patched=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ok: ")
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("proof", "error"),
    [(EMPTY, UNBOUND), (UNWRAP, UNEXPECTED), (TRAIN, UNEXPECTED)],
    ids=lambda part: Path(part).stem,
)
def test_a_proof_fails_without_the_patches_with_the_very_error(unpatched_env: Path, proof: Path, error: str) -> None:
    done = python(unpatched_env, proof)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback (most recent call last):" in done.stderr
    assert error in done.stderr


def test_batches_are_those_of_the_plain_loader_one_by_one(warm: Preloaded) -> None:
    """Seen from outside the proof: the same numbers, written down here."""
    done = warm.run(
        "-c",
        "from accelerate import Accelerator\n"
        "from torch.utils.data import DataLoader\n"
        "for drop_last in (False, True):\n"
        "    plain = DataLoader(range(5), batch_size=2, drop_last=drop_last)\n"
        "    loader = Accelerator(cpu=True).prepare(plain)\n"
        "    print([batch.tolist() for batch in loader], [batch.tolist() for batch in loader])\n",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "[[0, 1], [2, 3], [4]] [[0, 1], [2, 3], [4]]",
        "[[0, 1], [2, 3]] [[0, 1], [2, 3]]",
    ]


@pytest.mark.parametrize("which", ["cpu_env", "unpatched_env"])
def test_the_monkey_patch_that_yields_nothing_is_caught(which: str, request: pytest.FixtureRequest) -> None:
    """It ends the crash of an empty loader and gives no batch of a full one: only the second tells."""
    env: Path = request.getfixturevalue(which)
    checks = "proof.check_all_empty(); print('no crash'); proof.check_all_full()"
    done = python(env, "-c", f"{LOAD}{BOGUS}\n{checks}", EMPTY)
    assert done.stdout == "no crash\n", done.stderr
    assert done.returncode == 1
    assert "AssertionError: 1 rows, batch_size 1, drop_last False, epoch 1: 0 batches from acc" in done.stderr


def test_swallowing_the_argument_is_caught(unpatched_env: Path) -> None:
    done = python(unpatched_env, "-c", f"{LOAD}{SWALLOW}\nproof.main()", UNWRAP)
    assert done.returncode == 1
    assert "AssertionError: compiled, False: still compiled" in done.stderr


def test_a_repair_without_a_warning_is_caught_where_ours_is_expected(warm: Preloaded) -> None:
    """Upstream's repair is silent: it passes where nothing else is promised, and fails as Drydock's."""
    silent = "DataLoaderShard._warn_empty = lambda self: None\nproof.main()"
    assert warm.run("-c", LOAD + silent, EMPTY).returncode == 0
    done = warm.run("-c", LOAD + silent, EMPTY, env={"DRYDOCK_PATCHED": "1"})
    assert done.returncode == 1
    assert "AssertionError: no rows: 0 warnings instead of one: []" in done.stderr


def test_the_warning_is_visible_once_for_each_loader_and_names_the_numbers(warm: Preloaded) -> None:
    """By default, on stderr; a second epoch is silent, a second loader is not, a full one is."""
    done = warm.run(
        "-c",
        "from accelerate import Accelerator\n"
        "from torch.utils.data import DataLoader\n"
        "for rows in (3, 3, 9):\n"
        "    loader = DataLoader(range(rows), batch_size=4, drop_last=True, shuffle=True)\n"
        "    prepared = Accelerator(cpu=True).prepare(loader)\n"
        "    print(len(list(prepared)) + len(list(prepared)))\n",
    )
    assert (done.returncode, done.stdout) == (0, "0\n0\n4\n"), done.stderr
    first, second = done.stderr.splitlines()
    assert first == second
    assert first.startswith("No batch came from this DataLoader, so nothing will be trained from it.")
    assert "dataset length 3, batch_size 4, drop_last True, sampler RandomSampler." in first
    assert "per_device_train_batch_size * gradient_accumulation_steps / num_generations" in first
    assert "lower gradient_accumulation_steps" in first


def test_a_loader_without_an_accelerator_warns_too(warm: Preloaded) -> None:
    """accelerate's logger raises before its state exists; the warning must not become that error."""
    done = warm.run(
        "-c",
        "from accelerate.data_loader import DataLoaderShard\n"
        "from accelerate.state import PartialState\n"
        "print(list(DataLoaderShard([], batch_size=2)), PartialState._shared_state)\n",
    )
    assert (done.returncode, done.stdout) == (0, "[] {}\n"), done.stderr
    assert done.stderr.count("No batch came") == 1


def test_a_killed_training_resumes_with_the_pins_of_cpu(cpu_env: Path) -> None:
    """The starters have this as a check; with torch 2.5.1 no checkpoint can be loaded at all (CVE-2025-32434)."""
    done = subprocess.run([cpu_env / "bin/python", "-I", RESUME], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(
        "ok: killed in step 5, resumed at 4, and step, losses, weights and optimizer are the sa"
    )


def test_a_resume_that_loses_the_optimizer_is_found(
    warm: Preloaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgetful = tmp_path / "resume_training.py"
    kept = "trainer.train(resume_from_checkpoint"
    lost = "trainer._load_optimizer_and_scheduler = lambda *_: None\n    trainer.train(resume_from_checkpoint"
    assert kept in RESUME.read_text()
    forgetful.write_text(RESUME.read_text().replace(kept, lost))
    main = runpy.run_path(str(forgetful))["main"]
    monkeypatch.setitem(main.__globals__, "child", lambda output, what: warm.run(forgetful, output, what))
    different = "after a resume at step 4 these are not those of an undisturbed run: losses, weights, optimizer"
    with pytest.raises(SystemExit, match=f"^{different}$"):
        main()
