"""Which architectures of NVIDIA's GPUs a PyTorch was built for, read in it without importing it."""

from __future__ import annotations

import re
from pathlib import Path

# What was read, a line: builder/store/layout.py and templates/_gpu.sh.j2 take it.
RECORD = ".drydock/architectures"
# What torch._C._cuda_getArchFlags() returns, a constant of this library (torch/csrc/cuda/Module.cpp); only a build for
# CUDA has one.
_LIBRARY = "torch/lib/libtorch_python.so"
_LIST = rb"\0(sm_[0-9]+[af]?(?: (?:sm|compute)_[0-9]+[af]?)*)(?=\0)"


def of_torch(site: Path) -> str:
    """The architectures that the torch in a site-packages folder was built for, "" where it does not say.

    As torch has them: "sm_80 sm_90a compute_90".
    """
    try:
        found = set(re.findall(_LIST, (site / _LIBRARY).read_bytes()))
    except OSError:
        return ""
    return found.pop().decode() if len(found) == 1 else ""
