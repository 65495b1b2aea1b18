"""Materialise an environment for a target that is not this machine: its real wheels, its patches, checked.

What comes out holds the target's files only: no interpreter, and nothing of the host's paths.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from builder import uv
from builder.consent import Consent
from builder.embedded import architectures
from builder.embedded.errors import StageError
from builder.embedded.examine import check_records
from builder.embedded.installed import check_distributions, site_packages
from builder.embedded.manifest import read_sealed, sealed
from builder.embedded.patches import apply_patches
from builder.embedded.words import plural
from builder.errors import DrydockError, UsageError
from builder.files import display, write_files
from builder.project.catalogue import Catalogue
from builder.project.install import install
from builder.project.sources import consent
from builder.report import Reporter
from builder.script.parts import plan_json
from builder.script.plan import Plan

# What `uv venv` makes that belongs to the host.
_OF_THE_HOST = ("pyvenv.cfg", "lib64", ".gitignore", ".lock", "CACHEDIR.TAG")
_NATIVE = {"Darwin": (b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe"), "Linux": (b"\x7fELF",)}
_ELF_MACHINE = {"aarch64": 183, "x86_64": 62}
_MACHO_ARM64 = 0x0100000C


def cross_build(name: str, folder: Path, catalogue: Catalogue, report: Reporter) -> Path:
    """Put bin/ and lib/pythonX.Y/site-packages of the profile `name` into `folder`, for its target.

    `folder` must be absent or empty, or hold this very environment. Raises UsageError, or DrydockError where a file
    is not for the target; nothing is left behind then.
    """
    entry = catalogue.entry(name)
    plan = entry.plan
    agreed = consent.check(name, entry.content)
    if _is_there(folder, plan):
        report.step(f"{display(folder)} already has {name}")
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{display(folder)} is not empty", hint="use a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = folder.parent / f".stage-{plan.key}-{os.getpid()}"
    try:
        with report.busy(f"materialising {name} for {plan.profile.target.platform}"):
            _materialise(plan, staged, agreed, report)
        if folder.exists():
            folder.rmdir()
        staged.rename(folder)
    except StageError as error:
        raise DrydockError(str(error)) from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return folder


def _materialise(plan: Plan, staged: Path, agreed: Consent, report: Reporter) -> None:
    target, python = plan.profile.target, plan.profile.python.series
    report.step(f"[1/4] Python {python} of this host, as a scaffold")
    base = uv.create_venv(staged, python)
    scaffold = {str(path) for path in (staged / "bin").iterdir()}
    parts = staged / ".drydock"
    parts.mkdir()
    write_files(parts, plan.texts)
    report.step(f"[2/4] {plural(len(plan.lock.packages), 'package')} for {target.platform}")
    install(plan, staged, base, agreed)
    report.step(f"[3/4] {plural(len(plan.lock.patches), 'patch')}, manifest")
    site = site_packages(staged)
    check_distributions(site, dict(plan.content))
    built_for = architectures.of_torch(site) if target.accelerator == "cuda" else ""
    if built_for:
        (staged / architectures.RECORD).write_text(f"{built_for}\n", encoding="utf-8")
    apply_patches(staged, parts, dict(plan.content))
    for text in scaffold | {str(staged / name) for name in _OF_THE_HOST}:
        _remove(Path(text))
    written = json.loads(plan_json(plan))
    manifest = {name: written[name] for name in ("name", "key", "index", "plan")} | {"format": plan.content["format"]}
    text = json.dumps(sealed(manifest), indent=1, sort_keys=True)
    (parts / "manifest.json").write_text(f"{text}\n", encoding="utf-8")
    report.step("[4/4] every file against RECORD, machine and host paths")
    _check(plan, staged, site)


def _check(plan: Plan, staged: Path, site: Path) -> None:
    problems = [str(problem) for problem in check_records(site, plan.content).problems]
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
            yield f"{path.relative_to(staged)} is not native code for {plan.profile.target.platform}"
        told = path.parent == staged / "bin" or path.parent.suffix == ".dist-info"
        if told and os.fsencode(staged) in head + file.read():
            yield f"{path.relative_to(staged)} contains a path of this host"


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
        return bool(read_sealed(folder / ".drydock" / "manifest.json")["key"] == plan.key)
    except StageError:
        return False


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)
