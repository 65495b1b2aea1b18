"""What is known to make two runs of one trainer differ, or runs on two machines: from its settings and its target."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from builder.profile.variables.check import Finding
from builder.profile.variables.known import KNOWN

_REPRODUCIBILITY = 'PyTorch documentation, "Reproducibility"'
_ACCURACY = 'PyTorch documentation, "Numerical accuracy"'
# cuBLAS documentation, "Results Reproducibility"
_WORKSPACES = (":4096:8", ":16:8")


def causes(
    env: Mapping[str, str],
    *,
    packages: Collection[str] = (),
    detected: Collection[str] = (),
    seeded: bool = False,
    accelerator: str | None = None,
) -> list[Finding]:
    """The causes that apply to a trainer with the environment `env`, the likely ones first.

    Those with the code `run` make runs differ on one machine, those with `machine` only on two. `packages` are those of
    its lock, `detected` the variables that the script makes for its machine. `seeded`: it was called with a seed.

    >>> [cause.name for cause in causes({"PYTHONHASHSEED": "0"}, packages=["torch"], detected=["OMP_NUM_THREADS"])]
    ['seed', 'OMP_NUM_THREADS']
    """
    found = [*_python(env, seeded=seeded)]
    if "torch" in packages:
        found += _cuda(env) if accelerator == "cuda" else _mps() if accelerator == "mps" else ()
        found += _threads(env, detected)
    return sorted(found, key=lambda cause: cause.code != "run")


def _python(env: Mapping[str, str], *, seeded: bool) -> Iterator[Finding]:
    if not seeded:
        yield Finding(
            "run",
            "seed",
            "no seed is among its arguments and variables: unless the trainer sets one itself, each run draws others",
            "call it with one, such as --seed 0",
            _REPRODUCIBILITY,
        )
    if env.get("PYTHONHASHSEED", "random") in ("", "random"):
        yield Finding(
            "run",
            "PYTHONHASHSEED",
            "not set: sets of texts are in another order in each run",
            'set it in [env] of the profile: PYTHONHASHSEED = "0"',
            KNOWN["PYTHONHASHSEED"].source,
        )


def _cuda(env: Mapping[str, str]) -> Iterator[Finding]:
    yield Finding(
        "run",
        "use_deterministic_algorithms",
        "off unless the trainer turns it on: operations that add with atomics add in another order each time",
        "call torch.use_deterministic_algorithms(True), which names those that cannot",
        _REPRODUCIBILITY,
    )
    yield Finding(
        "run",
        "cudnn.benchmark",
        "where the trainer turns it on, cuDNN chooses the quickest algorithm in each run anew",
        "leave torch.backends.cudnn.benchmark at False",
        _REPRODUCIBILITY,
    )
    if env.get("CUBLAS_WORKSPACE_CONFIG") not in _WORKSPACES:
        yield Finding(
            "run",
            "CUBLAS_WORKSPACE_CONFIG",
            f"not {' or '.join(_WORKSPACES)}: with several streams cuBLAS may add in another order",
            f'set it in [env] of the profile: CUBLAS_WORKSPACE_CONFIG = "{_WORKSPACES[0]}"',
            f'cuBLAS documentation, "Results Reproducibility"; {_REPRODUCIBILITY}',
        )
    yield Finding(
        "machine",
        "TF32",
        "convolutions, and where it is allowed products of matrices, have fewer bits on GPUs that have it",
        "torch.backends.cudnn.allow_tf32 = False, and TORCH_ALLOW_TF32_CUBLAS_OVERRIDE unset",
        'PyTorch documentation, "CUDA semantics"',
    )


def _mps() -> Iterator[Finding]:
    yield Finding(
        "run",
        "MPS",
        "for operations on MPS, PyTorch promises no order of additions",
        "to see whether it is that, run it on the processor",
        _REPRODUCIBILITY,
    )


def _threads(env: Mapping[str, str], detected: Collection[str]) -> Iterator[Finding]:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    if any(name in env and name not in detected for name in names):
        return
    name = next((name for name in names if name in detected), names[0])
    how = "is detected" if name in detected else "is not set, and is the number of cores"
    yield Finding(
        "machine",
        name,
        f"{how}: another number of threads adds in another order",
        f'set it in [env] of the profile to a number: {name} = "4"',
        f"{KNOWN[name].source}; {_ACCURACY}",
    )
