"""Whether a second build has the same bytes (Nix: `nix-build --check`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from builder import uv
from builder.build.build import build
from builder.build.rebuild import built_beside
from builder.build.script import script_of
from builder.embedded.errors import StageError
from builder.embedded.examine import Problem, examine
from builder.embedded.manifest import read_manifest
from builder.embedded.workers import on_all_cores
from builder.errors import DrydockError

if TYPE_CHECKING:
    from builder.project.catalogue import Catalogue
    from builder.report import Reporter


@dataclass(frozen=True)
class Comparison:
    """Two builds of one key: how many files and bytes, and what differs, with the reason where it is known."""

    path: Path
    files: int
    size: int
    differences: list[Problem]


def check_build(name: str, catalogue: Catalogue, report: Reporter) -> Comparison:
    """Build the profile `name` a second time, beside the first, and compare every byte.

    Bytecode is compiled anew, and what is locked as source is built anew. Raises BuildError; DrydockError where the
    manifest of the first is damaged.
    """
    env = build(name, catalogue, report)
    script = script_of(name, catalogue)
    try:
        plan = read_manifest(env)["plan"]
    except StageError as error:
        raise DrydockError(
            f"the manifest of {env.name} is damaged: {error}", hint="drydock store verify --repair"
        ) from None
    sources = [package["name"] for package in plan["packages"] if not package["file"].endswith(".whl")]
    if sources and not os.environ.get("UV_OFFLINE"):
        uv.forget(sources)  # else the wheels of the first build would be installed again
    report.step(f"building {name} a second time, to compare")
    with built_beside(env.name, script, report, share_bytecode=False) as again:
        first, second = examine([env, again])
        wrong = {problem.path for problem in first.problems}
        differences = [*first.problems, *_differences(env, again, wrong)]
        differences += [problem for problem in second.problems if problem.path not in wrong]
    return Comparison(env, first.files, first.bytes, differences)


def _differences(env: Path, again: Path, known: set[str]) -> Iterator[Problem]:
    one, two = ({path.relative_to(root) for path in _files(root)} for root in (env, again))
    for path in sorted(one ^ two):
        if str(path) not in known:
            yield Problem(str(path), f"is only in the {'first' if path in one else 'second'} build")
    # A file that both link from uv's cache is one file; its bytes were compared with RECORD.
    pairs = [
        path for path in sorted(one & two) if not _is_one_file(env / path, again / path) and str(path) not in known
    ]
    costs = [(env / path).lstat().st_size + 10_000 for path in pairs]
    same = on_all_cores(lambda path: _is_same(env / path, again / path), pairs, costs, grain=8_000_000)
    other = {path for path, is_same in zip(pairs, same, strict=True) if not is_same}
    for path in sorted(other):
        if not _follows(path, other):
            yield Problem(str(path), f"differs: {_reason(env / path, again / path)}")


def _follows(path: Path, other: set[Path]) -> bool:
    """Whether a file differs only because another does: bytecode and its source, the manifest and what it names."""
    if path.suffix == ".pyc":
        return path.parent.parent / f"{path.name.partition('.')[0]}.py" in other
    return path.name == "manifest.json" and len(other) > 1


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        yield from (Path(folder) / name for name in (*files, *links))


def _is_one_file(one: Path, two: Path) -> bool:
    a, b = one.lstat(), two.lstat()
    return (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)


def _is_same(one: Path, two: Path) -> bool:
    if one.is_symlink() or two.is_symlink():
        return one.is_symlink() and two.is_symlink() and one.readlink() == two.readlink()
    return one.read_bytes() == two.read_bytes() and one.lstat().st_mode == two.lstat().st_mode


def _reason(one: Path, two: Path) -> str:
    if one.lstat().st_mode != two.lstat().st_mode:
        return f"mode {one.lstat().st_mode:o}, then {two.lstat().st_mode:o}"
    if one.suffix == ".pyc":
        return "the same source, compiled to other bytes: sets are not written alike (CPython issues 78274, 81777)"
    if one.is_symlink() and two.is_symlink():
        return f"{one.readlink()}, then {two.readlink()}: another Python was found"
    if one.name in ("pyvenv.cfg", "manifest.json"):
        return "another Python was found, or another release of it"
    return "for an unknown reason"
