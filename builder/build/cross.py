"""Materialise an environment for a target that is not this machine: its real wheels, its patches, checked.

What comes out holds the target's files only: no interpreter, and nothing of the host's paths.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from builder import integrity, render, stage, uv
from builder.errors import DrydockError, UsageError
from builder.files import write_files
from builder.patch import StageError
from builder.project.catalogue import Catalogue, display
from builder.project.sources import consent
from builder.report import Reporter
from builder.script.plan import Plan

# What `uv venv` makes that belongs to the host.
_OF_THE_HOST = ("pyvenv.cfg", "lib64", ".gitignore", ".lock", "CACHEDIR.TAG")
_NATIVE = {"Darwin": (b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe"), "Linux": (b"\x7fELF",)}
_ELF_MACHINE = {"aarch64": 183, "x86_64": 62}
_MACHO_ARM64 = 0x0100000C


def cross_build(name: str, folder: Path, report: Reporter) -> Path:
    """Put bin/ and lib/pythonX.Y/site-packages of the profile `name` into `folder`, for its target.

    `folder` must be absent or empty, or hold this very environment. Raises UsageError, or DrydockError where a file
    is not for the target; nothing is left behind then.
    """
    catalogue = Catalogue(step=report.step)
    plan = catalogue.plan(name)
    consent.check(name, consent.digest(catalogue.from_sources()))
    if _is_there(folder, plan):
        report.step(f"{display(folder)} has {name} already")
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{display(folder)} is not empty", hint="name a folder that is not there yet")
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = folder.parent / f".stage-{plan.key}-{os.getpid()}"
    try:
        with report.busy(f"materialising {name} for {plan.profile.target.platform}"):
            _materialise(plan, staged, report)
        if folder.exists():
            folder.rmdir()
        staged.rename(folder)
    except StageError as error:
        raise DrydockError(str(error)) from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return folder


def _materialise(plan: Plan, staged: Path, report: Reporter) -> None:
    target, python = plan.profile.target, plan.profile.python.version
    report.step(f"[1/4] Python {python} of this host, as a scaffold")
    uv.create_venv(staged, python)
    scaffold = {str(path) for path in (staged / "bin").iterdir()}
    parts = staged / ".drydock"
    write_files(parts, render.parts(plan))
    report.step(f"[2/4] {len(plan.lock.packages)} packages for {target.platform}")
    for arguments in installs(plan, staged / "bin" / "python", parts):
        uv.install(arguments, target, python)
    report.step(f"[3/4] {len(plan.lock.patches)} patches, manifest")
    site = stage.site_packages(staged)
    stage.check_distributions(site, dict(plan.content))
    stage.apply_patches(staged, parts, dict(plan.content))
    for text in scaffold | {str(staged / name) for name in _OF_THE_HOST}:
        _remove(Path(text))
    for name in stage.transient(parts):
        (parts / name).unlink()
    manifest = {**json.loads(render.plan_json(plan)), "format": plan.content["format"]}
    (parts / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    report.step("[4/4] every file against RECORD, machine and host paths")
    _check(plan, staged, site)


def installs(plan: Plan, python: Path, parts: Path) -> Iterator[Sequence[str]]:
    """The arguments of each `uv pip install` that brings the packages of a plan, by hash, into the venv of `python`.

    `parts` holds the files of `render.parts`. The generated scripts have the same rule (templates/_uv.sh.j2).
    """
    common = ["--python", str(python), "--require-hashes", "--only-binary", ":all:"]
    sources = [package.name for package in plan.lock.packages if not package.is_wheel]
    for name in sources:
        common += ["--no-binary", name]
    if sources:
        common += ["--require-build-hashes"]
    if plan.lock.build_requires:
        common += ["--build-constraints", str(parts / "build-requirements.txt")]
    folders = uv.find_links()
    for folder in folders:
        common += ["--find-links", str(folder)]
    if (parts / "requirements.txt").is_file():
        yield [*common, "-r", str(parts / "requirements.txt")]
    for index in sorted(set(plan.index.values())):
        files = [package.file for package in plan.lock.packages if plan.index.get(package.name) == index]
        # Where a folder has the wheels of an index, nobody is asked for them.
        local = all(any((folder / file).is_file() for folder in folders) for file in files)
        place = [] if local else ["--default-index", uv.index_url(index, plan.profile.indexes[index])]
        yield [*common, *place, "-r", str(parts / f"requirements-{index}.txt")]


def _check(plan: Plan, staged: Path, site: Path) -> None:
    problems = [str(problem) for problem in integrity.check_records(site).problems]
    problems += [problem for path in _files(staged) for problem in _foreign(plan, path, staged)]
    if problems:
        raise DrydockError("the result is not what the lock says: " + "; ".join(problems[:5]))


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _foreign(plan: Plan, path: Path, staged: Path) -> Iterator[str]:
    """What in a file is not the target's: native code of another machine, or a path of this host."""
    with path.open("rb") as file:
        head = file.read(20)
        if path.suffix in (".so", ".dylib") and not _is_native(plan, head):
            yield f"{path.relative_to(staged)} is not native code of {plan.profile.target.platform}"
        told = path.parent == staged / "bin" or path.parent.suffix == ".dist-info"
        if told and os.fsencode(staged) in head + file.read():
            yield f"{path.relative_to(staged)} has a path of this host"


def _is_native(plan: Plan, head: bytes) -> bool:
    target = plan.profile.target
    if not head.startswith(_NATIVE[target.system]):
        return False
    if target.system == "Linux":
        return int.from_bytes(head[18:20], "little") == _ELF_MACHINE[target.machine]
    # A universal binary has several machines; a plain Mach-O names its one.
    return head.startswith(b"\xca\xfe\xba\xbe") or int.from_bytes(head[4:8], "little") == _MACHO_ARM64


def _is_there(folder: Path, plan: Plan) -> bool:
    try:
        manifest = json.loads((folder / ".drydock" / "manifest.json").read_text(encoding="utf-8"))
        return bool(manifest["key"] == plan.key)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)
