"""What a source distribution says of itself, read as data: nothing of it is run.

Sources: PEP 517 and 518 (what builds it), the core metadata specification, and what setuptools leaves in *.egg-info.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from builder.archives import ArchiveError, Limits, members
from builder.errors import LockError

_LARGEST = 1 << 20  # of a file that is read
_CODE = 1 << 18  # of one that is parsed
_LINE = 1 << 13  # of one of its lines: tomllib takes the square of the parts of a key
_TEXTS = 20  # files that are read
_REQUIRES = 2000  # packages that it may require
_NAMES = 1 << 24  # characters of all names
_LIMITS = Limits(members=100_000, unpacked=1 << 29)
_READ = re.compile(r"[^/]+/(pyproject\.toml|setup\.py|PKG-INFO|([^/]+/)?[^/]+\.egg-info/requires\.txt)")
DEFAULT = ("setuptools",)
"""What builds a project whose pyproject.toml does not say it (PEP 517)."""

# What is imported by a setup.py, and not always declared: module to package.
_IMPORTED = {
    "torch": "torch",
    "numpy": "numpy",
    "Cython": "cython",
    "pybind11": "pybind11",
    "packaging": "packaging",
    "psutil": "psutil",
    "skbuild": "scikit-build",
}
_COMPILERS = {
    *("cython", "pybind11", "nanobind", "cffi", "scikit-build", "scikit-build-core", "meson-python", "cmake", "ninja"),
}
_RUST = {"setuptools-rust", "maturin"}
_NOT_BUILT = {"test", "tests", "testing", "doc", "docs", "example", "examples", "benchmark", "benchmarks"}
_COMPILED = (".c", ".cc", ".cpp", ".cxx", ".pyx", ".m", ".mm", ".f", ".f90")


@dataclass(frozen=True)
class Sdist:
    """A source distribution: its `build_requires`, as it declares them, and what its setup.py imports beside that; what
    it `needs` of the system, as far as its files show; what it `requires` once it is installed.
    """

    build_requires: tuple[str, ...]
    undeclared: tuple[str, ...]
    needs: tuple[str, ...]
    requires: tuple[str, ...]


def read(path: Path) -> Sdist:
    """What is said in an archive. Raises LockError where it is none, broken, or too much."""
    names: list[str] = []
    texts: dict[str, str] = {}
    long = 0
    try:
        for member in members(path, path.name, _LIMITS):
            if member.content is None:
                continue
            long += len(member.name)
            if long > _NAMES:
                raise LockError(f"{path.name}: its names are too long")
            names.append(member.name)
            if _READ.fullmatch(member.name) and member.size <= _LARGEST:
                # Not more of it than that, whatever it says of its size.
                texts[member.name.partition("/")[2]] = member.content.read(_LARGEST).decode("utf-8", "replace")
            if len(texts) > _TEXTS:
                raise LockError(f"{path.name} has more than {_TEXTS} files that say what it is")
    except (ArchiveError, OSError) as error:
        said = error.message if isinstance(error, ArchiveError) else error.strerror
        raise LockError(f"{path.name} cannot be read: {said}") from None
    if not names:
        raise LockError(f"{path.name} has no files in it")
    return of(names, texts)


def of(names: list[str], texts: Mapping[str, str]) -> Sdist:
    """What the files called `names` say; `texts` are some of them, by their path below the top folder."""
    project = _toml(texts.get("pyproject.toml", ""))
    declared = _declared(project)
    setup = texts.get("setup.py", "")
    known = {_name(text) for text in declared or DEFAULT}
    undeclared = tuple(package for package in _imported(setup) if package not in known)
    return Sdist(
        declared if declared is not None else DEFAULT,
        undeclared,
        tuple(_needs({*known, *undeclared}, names, setup)),
        _requires(project, texts),
    )


def _toml(text: str) -> Mapping[str, Any]:
    try:
        return {} if _is_long(text) else tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return {}


def _is_long(text: str) -> bool:
    """Whether a text is nothing that a person wrote, so that a parser may take for ever."""
    return len(text) > _CODE or any(len(line) > _LINE for line in text.splitlines())


def _declared(project: Mapping[str, Any]) -> tuple[str, ...] | None:
    """build-system.requires; None where there is no such table."""
    table = project.get("build-system")
    wanted = table.get("requires") if isinstance(table, dict) else None
    if not isinstance(wanted, list):
        return None
    return tuple(text for text in wanted[:_REQUIRES] if isinstance(text, str) and _name(text))


def _name(text: str) -> str:
    """The package of a requirement; "" where it is none, or one by URL, which an index does not have."""
    try:
        found = Requirement(text[:_LINE])
    except (InvalidRequirement, RecursionError):
        return ""
    return "" if found.url else str(canonicalize_name(found.name))


def _imported(setup: str) -> list[str]:
    """Packages that a setup.py cannot begin without."""
    try:
        body = [] if _is_long(setup) else ast.parse(setup).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    modules: list[str] = []
    for one in body:
        if isinstance(one, ast.Import):
            modules += [alias.name for alias in one.names]
        elif isinstance(one, ast.ImportFrom) and one.module and not one.level:
            modules.append(one.module)
    tops = (module.partition(".")[0] for module in modules)
    return list(dict.fromkeys(_IMPORTED[top] for top in tops if top in _IMPORTED))


def _needs(built_by: set[str], names: list[str], setup: str) -> Iterator[str]:
    files = [name for name in names if not _NOT_BUILT.intersection(name.casefold().split("/"))]
    cuda = "CUDAExtension" in setup or any(name.endswith(".cu") for name in files)
    if cuda or built_by & _COMPILERS or any(name.endswith(_COMPILED) for name in files):
        yield "a compiler"
    if cuda or "torch" in built_by:
        yield "CUDA, for a GPU"
    if built_by & _RUST or any(re.fullmatch(r"[^/]+/Cargo\.toml", name) for name in files):
        yield "Rust"


def _requires(project: Mapping[str, Any], texts: Mapping[str, str]) -> tuple[str, ...]:
    """What it requires, where that stands somewhere; a build may know better."""
    from packaging.metadata import parse_email  # here, as most locks read no source

    metadata, _ = parse_email(texts.get("PKG-INFO", ""))
    found = metadata.get("requires_dist", [])
    if not found:
        egg = next((text for path, text in texts.items() if path.endswith("requires.txt")), None)
        own = project.get("project")
        static = own.get("dependencies", []) if isinstance(own, dict) else []
        found = list(_of_egg(egg)) if egg is not None else static if isinstance(static, list) else []
    if len(found) > _REQUIRES:
        return ()  # a build says it
    return tuple(text for text in found if isinstance(text, str) and _name(text))


def _of_egg(text: str) -> Iterator[str]:
    """The requirements of a requires.txt, whose sections are [extra], [:marker] or [extra:marker]."""
    conditions: list[str] = []
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            extra, _, marker = line.strip("[]").partition(":")
            conditions = [f'extra == "{extra}"'] * bool(extra) + [f"({marker})"] * bool(marker)
        elif line:
            yield f"{line} ; {' and '.join(conditions)}" if conditions else line
