"""What `verify` computes on the accelerator, with the real frameworks on the processor."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from uv import find_uv_bin

from builder.embedded import accelerator
from builder.embedded.verify import run
from builder.profile import pytorch
from builder.uv import find_links
from tests.conftest import once
from tests.support.sandbox import python_3_11

REQUIREMENTS = {"torch": "torch==2.13.0+cpu", "mlx": "mlx[cpu]==0.32.4", "jax": "jax==0.10.2"}


@pytest.fixture(scope="session")
def frameworks(shared: Path) -> Path:
    """An environment with all of them; PyTorch's build from a folder of wheels, or from its own index."""
    folders = [word for folder in find_links() for word in ("--find-links", str(folder))]
    places = folders or ["--index", str(pytorch.url("pytorch-cpu")), "--index-strategy", "unsafe-best-match"]

    def make(folder: Path) -> None:
        install = ["pip", "install", "--python", str(folder), *places, *REQUIREMENTS.values()]
        for words in (["venv", str(folder), "--python", python_3_11()], install):
            subprocess.run([find_uv_bin(), *words], check=True, capture_output=True)

    return once(shared / "frameworks", make)


def test_a_framework_that_is_not_there_is_said_in_a_line() -> None:
    found = accelerator.compute("jax", "cuda", sys.executable, run)
    assert found == (False, "jax: ModuleNotFoundError: No module named 'jax'")


@pytest.mark.slow
@pytest.mark.parametrize("framework", accelerator.FRAMEWORKS)
def test_each_framework_computes_or_says_what_it_lacks(framework: str, frameworks: Path) -> None:
    python = str(frameworks / "bin/python")
    good, said = accelerator.compute(framework, "cpu", python, run)
    assert good
    assert "a product of matrices and its gradient on cpu are right" in said
    good, said = accelerator.compute(framework, "cuda", python, run)
    assert not good
    assert said.endswith("can use cpu; the profile wants cuda")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ("mx.square = lambda x, real=mx.square: 1.1 * real(x)", "the gradient of two matrices on cpu is not what"),
        (
            "mx.array = lambda x, real=mx.array: real(x) * float('nan')",
            "the product of two matrices on cpu is not what",
        ),
        ("mx.array = None", "mlx: TypeError: 'NoneType' object is not callable"),
    ],
)
def test_what_is_computed_wrong_is_found(wrong: str, what: str, frameworks: Path) -> None:
    def broken(command: list[str]) -> subprocess.CompletedProcess[str]:
        return run([*command[:2], f"import mlx.core as mx; {wrong}\n{command[2]}", *command[3:]])

    good, said = accelerator.compute("mlx", "cpu", str(frameworks / "bin/python"), broken)
    assert not good
    assert what in said
