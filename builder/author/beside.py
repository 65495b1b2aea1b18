"""The files of a folder that say what its code requires: the one that a project begins with, and those beside it."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from builder.author.importing import Options
from builder.author.importing.readers import read
from builder.author.importing.target import Chosen
from builder.errors import DrydockError
from builder.project.requirements.model import Imported
from builder.project.requirements.pyproject import PYPROJECT

_NAMES = (
    *("requirements.txt", PYPROJECT, "setup.cfg", "setup.py", "environment.yml", "environment.yaml"),
    *("pixi.toml", "Dockerfile", "dockerfile"),
)
_SAYS = {
    PYPROJECT: r"^\[\s*(project|tool\.poetry)\b",  # it may only configure tools, and so may a setup.cfg
    "setup.cfg": r"^install_requires\b",
    "Dockerfile": r"\b(pip[0-9.]*|conda|mamba)\b.*\binstall\b",
}
_IMPORT = re.compile(  # of a script, or of a notebook, where it is a string of JSON
    r"""^\s*"?\s*(?:from\s+([A-Za-z]\w*)[\w.]*\s+import\b|import\s+([A-Za-z]\w*)[\w.]*(?:\s+as\s+\w+)?\s*(?:[,;#"\\]|$))""",
    re.MULTILINE,
)
FRAMEWORKS = frozenset({"jax", "mlx", "tensorflow", "torch"})
_MOST = 4
_FILES = 200
_LARGEST = 4 << 20
_OTHER_NAMES = {
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "dotenv": "python-dotenv",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
"""Packages whose module is called otherwise, of those that trainers import most."""


def sources(folder: Path) -> list[Path]:
    """Return the files of a folder that say what is required, the best first; a Dockerfile only where it is alone."""
    found: list[Path] = []
    for path in (folder / name for name in _NAMES):
        is_dockerfile = path.name.title() == "Dockerfile"
        if (
            not path.is_file()
            or (is_dockerfile and found)
            or not _requires(path, "Dockerfile" if is_dockerfile else path.name)
        ):
            continue
        found.append(path)
    return found


def _requires(path: Path, kind: str) -> bool:
    with path.open("rb") as file:
        text = file.read(_LARGEST).decode("utf-8", "replace")
    return kind not in _SAYS or re.search(_SAYS[kind], text, re.MULTILINE) is not None


def unread(source: Path, others: Sequence[Path], imported: Imported, chosen: Chosen) -> list[str]:
    """Return a note on each other file that requires packages which `source` does not."""
    known = {*_required(imported), canonicalize_name(imported.name or "")}
    found = []
    for other in others:
        with suppress(DrydockError):
            beside = read(other, chosen, Options())
            more = sorted(_required(beside) - known - {canonicalize_name(beside.name or "")})
            if more:
                rest = f" and {len(more) - _MOST} more" if len(more) > _MOST else ""
                found.append(
                    f"{other} also requires {', '.join(more[:_MOST])}{rest}, and was not read: "
                    f"{source} was; for a profile of it: drydock import {other} --name NAME"
                )
    return found


def _required(imported: Imported) -> set[str]:
    names = [Requirement(text).name for text in imported.requires]
    lost = [one.package for one in imported.left_out if one.package]
    return {canonicalize_name(name) for name in (*names, *lost)}


def folders_with_sources(folder: Path) -> list[str]:
    """Return the names of the folders in a folder that say by themselves what is required, as of a set of examples."""
    return [path.name for path in sorted(folder.glob("[!.]*")) if path.is_dir() and sources(path)]


def missing_framework(folder: Path, locked: Collection[str]) -> str | None:
    """Return a note on a framework that the code imports, where no framework is locked."""
    if not FRAMEWORKS.isdisjoint(locked):
        return None
    names = [name for name in imported_packages(folder) if name in FRAMEWORKS]
    if not names:
        return None
    return f"the code imports {', '.join(names)}, and nothing that is locked is that: drydock add {' '.join(names)}"


def imported_packages(folder: Path) -> list[str]:
    """Return the packages that the scripts and notebooks of a folder import, as they are most likely called."""
    modules: set[str] = set()
    own: set[str] = set()
    for path in islice(_code(folder), _FILES):
        own |= {path.stem, *path.relative_to(folder).parts[:-1]}
        with suppress(OSError), path.open("rb") as file:
            text = file.read(_LARGEST).decode("utf-8", "replace")
            modules |= {one[1] or one[2] for one in _IMPORT.finditer(text)}
    left = modules - own - set(sys.stdlib_module_names)
    return sorted({_OTHER_NAMES.get(one, canonicalize_name(one)) for one in left if not (folder / one).exists()})


def _code(folder: Path) -> Iterator[Path]:
    for pattern in ("*.py", "*.ipynb", "*/*.py", "*/*.ipynb", "*/*/*.ipynb"):
        for path in sorted(folder.glob(pattern)):
            inner = path.relative_to(folder).parts[:-1]
            if path.is_file() and not any(part.startswith(".") or part in ("venv", "node_modules") for part in inner):
                yield path
