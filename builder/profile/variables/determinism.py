"""What is known to make two runs of one trainer differ, or runs on two machines: from its settings and its target."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from builder.profile.variables.check import Finding
from builder.profile.variables.known import KNOWN

_REPRODUCIBILITY = 'PyTorch documentation, "Reproducibility"'
_ACCURACY = 'PyTorch documentation, "Numerical accuracy"'
# cuBLAS documentation, "Results Reproducibility"
_WORKSPACES = (":4096:8", ":16:8")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_TF32 = "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"
_DEFAULT_THREADS = "4"  # what profiles of ours fall back to


def strict(env: Mapping[str, str | None], detected: Collection[str], accelerator: str) -> dict[str, str | None]:
    """What `determinism = "strict"` sets beside `env`, or instead; None for a variable that is removed.

    What the profile sets itself stays, but for a number of threads that is `detected`: it becomes its fallback.

    >>> strict({"OMP_NUM_THREADS": "8"}, [], "cpu")
    {'PYTHONHASHSEED': '0', 'OMP_NUM_THREADS': '8', 'MKL_NUM_THREADS': '8'}
    """
    threads = env.get(_THREADS[0]) or _DEFAULT_THREADS
    wanted: dict[str, str | None] = {"PYTHONHASHSEED": "0", **dict.fromkeys(_THREADS, threads)}
    if accelerator == "cuda":
        wanted |= {"CUBLAS_WORKSPACE_CONFIG": _WORKSPACES[0], _TF32: None}
    return {name: value if name in detected else env.get(name, value) for name, value in wanted.items()}


def contradictions(
    env: Mapping[str, str],
    *,
    packages: Collection[str],
    detected: Collection[str],
    arguments: str,
    code: str | None,
    accelerator: str,
) -> list[tuple[int | None, Finding]]:
    """What of a profile with `determinism = "strict"` contradicts it, each with the line of the code, if it is there.

    `arguments` are those of its trainer, `code` is the text of that where it is known. They are the causes that make
    runs differ on one machine, and what asks for less exact numbers.

    >>> found = contradictions({"PYTHONHASHSEED": "0"}, packages=["torch"], detected=[], arguments="--seed 1",
    ...     code="torch.backends.cudnn.benchmark = True", accelerator="cuda")
    >>> [(line, finding.name) for line, finding in found]
    [(None, 'use_deterministic_algorithms'), (None, 'CUBLAS_WORKSPACE_CONFIG'), (1, 'cudnn.benchmark')]
    """
    text = f"{arguments}\n{code or ''}"
    found: list[tuple[int | None, Finding]] = []
    for cause in causes(
        env, packages=packages, detected=detected, seeded=bool(re.search("seed", text, re.I)), accelerator=accelerator
    ):
        on = _TURNED_ON.get(cause.name)
        # What a trainer does itself is seen in its code, where that is known.
        if cause.code != "run" or (on is not None and on.search(text)) or (cause.name == _BENCHMARK and code):
            continue
        found.append((None, cause))
    found += [(None, finding) for finding in _workers(detected)]
    if accelerator == "cuda":
        found += [(None, finding) for finding in _tf32(env, arguments)]
        for number, line in enumerate((code or "").splitlines(), 1):
            found += [(number, finding) for pattern, finding in _IN_CODE if pattern.search(line.partition("#")[0])]
    return [(line, replace(finding, code="determinism")) for line, finding in found]


_BENCHMARK = "cudnn.benchmark"
_FULL = r"enable_full_determinism\(|full[-_]determinism\b(?!\s*[= ]\s*(?:False|false|0))"
_TURNED_ON = {"use_deterministic_algorithms": re.compile(rf"use_deterministic_algorithms\(\s*(?:mode=)?True|{_FULL}")}


def _tf32(env: Mapping[str, str], arguments: str) -> Iterator[Finding]:
    """What settings and arguments ask for."""
    if KNOWN[_TF32].read(env.get(_TF32) or "0").value:
        yield replace(_LESS_EXACT, name=_TF32)
    if re.search(r"--tf32(?![-_\w])(?!\s*[= ]\s*(?:False|false|0))", arguments):
        yield replace(_LESS_EXACT, name="--tf32", message=f"--tf32: {_LESS_EXACT.message}")


def _workers(detected: Collection[str]) -> Iterator[Finding]:
    for name in detected:
        if "worker" in name.lower():
            yield Finding(
                "run",
                name,
                f"{name} is detected: each worker of a data loader has its own seed, so their number decides the data",
                "set it to a number",
                f'{_REPRODUCIBILITY}, "DataLoader"',
            )


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
            f"{'random' if 'PYTHONHASHSEED' in env else 'not set'}: sets of texts are in another order in each run",
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
        _BENCHMARK,
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
        _CUDA_SEMANTICS,
    )


_CUDA_SEMANTICS = 'PyTorch documentation, "CUDA semantics"'
_LESS_EXACT = Finding(
    "machine",
    "TF32",
    "products of matrices have fewer bits on GPUs that have TF32, and others elsewhere",
    "leave it out",
    _CUDA_SEMANTICS,
)
_IN_CODE = (
    (
        re.compile(r"cudnn\.benchmark\s*=\s*True"),
        Finding(
            "run",
            _BENCHMARK,
            "cuDNN chooses the quickest algorithm in each run anew",
            "leave torch.backends.cudnn.benchmark at False",
            _REPRODUCIBILITY,
        ),
    ),
    (re.compile(r"allow_tf32\s*=\s*True"), _LESS_EXACT),
    (re.compile(r"set_float32_matmul_precision\(\s*[\"'](?:high|medium)"), _LESS_EXACT),
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
    names = _THREADS
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
