"""Whether training repeats itself, found out by training: with torch, in two processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.embedded import determinism

# After eight steps the last layer is another one in each process.
ANEW = "    if len(steps) == 7:\n        torch.seed()\n        model.out.reset_parameters()\n"


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that `determinism = "strict"` sets on a processor."""
    for name, value in {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.slow
@pytest.mark.usefixtures("strict")
def test_training_repeats_itself_on_a_processor(cpu_env: Path) -> None:
    good, words = determinism.repeats("cpu", str(cpu_env / "bin/python"), torch=True)
    assert good, words
    assert ", 2 threads, PYTHONHASHSEED=0: 20 steps, twice on cpu, are the same bit by bit; of this machine" in words


@pytest.mark.slow
@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize(
    ("line", "other", "words"),
    [
        ("torch.manual_seed(0)\n", "torch.seed()\n", "differs from step 1 on"),
        ("    optimizer.step()\n", f"    optimizer.step()\n{ANEW}", "differs from step 9 on"),
        ("weights = hash", "torch.seed(); model.out.reset_parameters(); weights = hash", "differs from the weights on"),
        ("said = ", "raise SystemExit('no such device')\nsaid = ", "no such device"),
    ],
)
def test_what_differs_is_found(
    cpu_env: Path, monkeypatch: pytest.MonkeyPatch, line: str, other: str, words: str
) -> None:
    assert line in determinism._PROGRAM
    monkeypatch.setattr(determinism, "_PROGRAM", determinism._PROGRAM.replace(line, other))
    _, said = determinism.repeats("cpu", str(cpu_env / "bin/python"), torch=True)
    assert words in said


def test_a_seed_of_hashes_that_is_none_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "random")
    assert not determinism.repeats("cpu", "python", torch=False)[0]
