"""What a package of conda is called on PyPI, by kept data: conda_names.txt, which says where that comes from."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from packaging.utils import canonicalize_name

FILE = Path(__file__).with_name("conda_names.txt")
NOT_PYTHON = (
    r"(r|perl|ros|xorg|rb|go|gz|cuda|rust|airflow-with|soapysdr)-.*|lib.*|m2.*|gcc.*|gxx.*|gfortran.*|clang.*|sysroot.*"
    r"|terraform.*|.*-with-.*|.*-(64|aarch64|ppc64le|arm64|s390x|static|devel|dev)"
)
"""Names that no Python package has, but for those that the data names."""

# Of other channels than conda-forge, or no package of any language there and one on PyPI.
_MORE = {
    "opencv": "opencv-python",
    "pytorch-cpu": "torch",
    "pytorch-gpu": "torch",
    "tensorflow-base": "tensorflow",
    "tensorflow-gpu": "tensorflow",
    "numpy-base": "numpy",
    "matplotlib-base": "matplotlib",
    "ninja": "ninja",
    "cmake": "cmake",
}


def on_pypi(name: str) -> str | None:
    """The name on PyPI of what conda calls `name`; None for what is no Python package.

    What the data does not know has the same name there, as most packages have.

    >>> [on_pypi(one) for one in ("pytorch", "typing_extensions", "librosa", "libgcc-ng", "r-base", "_openmp_mutex")]
    ['torch', 'typing-extensions', 'librosa', None, None, None]
    """
    plain = canonicalize_name(name).strip("-")
    found = _MORE.get(plain) or _names().get(plain)
    if found is None:
        return None if name.startswith("_") or re.fullmatch(NOT_PYTHON, plain) else plain
    return None if found == "-" else found


@cache
def _names() -> dict[str, str]:
    lines = FILE.read_text(encoding="utf-8").splitlines()
    return dict(line.split() for line in lines if not line.startswith("#"))
