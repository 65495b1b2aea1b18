"""Proof that ``Accelerator.unwrap_model`` takes ``keep_torch_compile`` and means what accelerate 1.3.0 means.

Run as ``ENV/bin/python -I accelerate_unwrap_model.py``: exit 0 and one line ``ok: ...``, or a traceback and
exit 1. Before huggingface/accelerate pull request 3282 (first released in 1.3.0) the traceback ends with
``TypeError: Accelerator.unwrap_model() got an unexpected keyword argument 'keep_torch_compile'``, and so does
every ``Trainer.train()`` of transformers 4.52, which calls it so and yet allows accelerate from 0.26 on.

Why the results are compared: to swallow the argument would silence the TypeError as well, and would hand a
compiled model to a caller that asked for the model inside.
"""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import extract_model_from_parallel


def must(holds: bool, what: str) -> None:
    """Raises AssertionError with ``what`` unless it holds; ``assert`` would vanish under ``python -O``."""
    if not holds:
        raise AssertionError(what)


def model() -> Any:
    """The smallest module there is. Any: mypy runs without torch here."""
    return torch.nn.Linear(2, 2)


def check_plain(accelerator: Accelerator) -> None:
    """A model that was never wrapped is returned as it is, however one asks."""
    plain = model()
    for keep in (False, True):
        found = accelerator.unwrap_model(plain, keep_torch_compile=keep)
        must(found is plain, f"a plain model, keep_torch_compile={keep}: got {type(found).__name__}")
    must(accelerator.unwrap_model(plain) is plain, "a plain model, no argument: another object")
    must(accelerator.unwrap_model(plain, True, False) is plain, "a plain model, by position: another object")


def check_compiled(accelerator: Accelerator) -> None:
    """False gives the model inside; True, the default and the behaviour of 1.1.1, the compiled one."""
    plain = model()
    compiled = torch.compile(plain)  # lazy: nothing is compiled before the first call
    must(
        accelerator.unwrap_model(compiled, keep_torch_compile=False) is plain,
        "compiled, False: still compiled",
    )
    must(accelerator.unwrap_model(compiled, keep_torch_compile=True) is compiled, "compiled, True: taken apart")
    must(accelerator.unwrap_model(compiled) is compiled, "compiled: the default is not True")
    must(compiled._orig_mod is plain, "compiled: the model inside was exchanged")


def check_parallel(accelerator: Accelerator) -> None:
    """The container inside a compiled model goes in both cases."""
    for keep in (False, True):
        plain = model()
        found = accelerator.unwrap_model(torch.compile(torch.nn.DataParallel(plain)), keep_torch_compile=keep)
        inside = found._orig_mod if keep else found
        must(
            inside is plain,
            f"compiled and parallel, keep_torch_compile={keep}: {type(inside).__name__} inside",
        )


def check_hooks(accelerator: Accelerator) -> None:
    """``keep_fp32_wrapper`` still means what it meant, beside the new argument."""
    for keep_fp32 in (True, False):
        prepared = accelerator.prepare(model())  # mixed precision wraps its forward
        found = accelerator.unwrap_model(prepared, keep_fp32_wrapper=keep_fp32, keep_torch_compile=False)
        must(found is prepared, f"keep_fp32_wrapper={keep_fp32}: another model")
        kept = "_original_forward" in vars(found)
        must(kept is keep_fp32, f"keep_fp32_wrapper={keep_fp32}: the hook was {'kept' if kept else 'removed'}")


def check_function() -> None:
    """The function behind the method, as others call it: by name, in the order of 1.3.0."""
    plain = model()
    wrapped = torch.nn.DataParallel(plain)
    must(extract_model_from_parallel(wrapped, recursive=True) is plain, "recursive: not taken apart")
    compiled = torch.compile(wrapped)
    must(extract_model_from_parallel(compiled, True, False) is plain, "the third is not keep_torch_compile")


def main() -> None:
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    check_plain(accelerator)
    check_compiled(accelerator)
    check_parallel(accelerator)
    check_hooks(accelerator)
    check_function()
    print("ok: unwrap_model(keep_torch_compile=...) gives the model inside for False, the compiled one for True")


if __name__ == "__main__":
    main()
