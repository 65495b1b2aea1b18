"""From an edited folder to a patch of the profile: the patch file, the profile's entry for it, and the lock."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from builder.author.patching.assign import shares
from builder.author.patching.diff import Contents, head_of, patch_text, stat
from builder.author.patching.entry import with_entry
from builder.author.patching.ownership import check_same
from builder.author.patching.session import Desk
from builder.author.patching.transaction import write_all
from builder.author.patching.worktree import changed_files, close, package_files, read_mark, walk
from builder.errors import PatchError, UsageError
from builder.files import display
from builder.lock.finder import Artefacts
from builder.lock.model import Artefact, Change, changes, dump
from builder.project.catalogue import Catalogue
from builder.report import Reporter


@dataclass(frozen=True)
class Options:
    """The options of the user; None leaves a value as it is."""

    file: str | None = None
    why: str | None = None
    versions: str | None = None
    proof: Path | None = None


@dataclass(frozen=True)
class Committed:
    """The result of a commit: written files, and the numbers of added and removed lines of each patched file.

    `packages` are changes of the lock, `stale` other profiles that must be locked again, `left` the paths in the folder
    that Drydock did not make.
    """

    profile: str
    written: list[Path]
    changed: dict[str, tuple[int, int]]
    packages: list[Change]
    stale: list[str]
    left: list[str]


def commit(folder: Path, options: Options, catalogue: Catalogue, report: Reporter) -> Committed:
    """Make a patch of the changes in `folder`, add it to its profile, lock that again, and close the folder.

    Patch, profile and lock are all written, or none. Killed in between, the profile can be loaded, and committing
    again completes it. Raises UsageError, PatchError, ProfileError, LockError, ToolError.
    """
    mark = read_mark(folder)
    desk = Desk(mark.profile, catalogue)
    package = check_same(desk.lock, mark.package, mark.version, mark.sha256)
    with tempfile.TemporaryDirectory(prefix="drydock-patch-") as work, report.busy(f"comparing {package.name}"):
        pristine = package_files(Artefacts(desk.profile, Path(work), desk.builds).unpacked(package))
        edited = changed_files(pristine, walk(folder))
        standing = desk.standing(package.name, pristine)
    had = {patch.file: patch.changes for patch in standing if patch.fixed is None}
    file = _file(options.file, had) if options.file else None
    default = re.sub(r"[^A-Za-z0-9.]", "-", f"{package.name}-{package.version}")
    found, taker = shares(edited, standing, file, f"patches/{default}.patch")
    give_up = f"to discard it: drydock patch abort {display(folder)}"
    if not found:
        raise PatchError(f"nothing was changed in {display(folder)}", hint=give_up)
    entry, proof = _entry(desk, package, taker, taker not in had, options)
    texts = {
        one: desk.texts[one] if contents == had.get(one) else patch_text(_head(desk, one, package, options), contents)
        for one, contents in found.items()
    }
    for one, text in texts.items():
        if one not in had:
            desk.new_file(one, text, "--file")
    profile = with_entry(desk.source.text, entry) if entry else desk.source.text
    with report.busy(f"locking {desk.name}"):
        lock = desk.locked(profile, {**proof, **texts}, report)
    check_same(lock, mark.package, mark.version, mark.sha256)
    # In this order: at every moment what the profile names is there.
    wanted = {
        **{desk.path.parent / one: text for one, text in {**proof, **texts}.items()},
        desk.path: profile,
        desk.lock_path: dump(lock),
    }
    before = {path: desk.read(path) for path in wanted}
    written = {path: text for path, text in wanted.items() if text != before[path]}
    if not written:
        raise PatchError(f"{desk.name} has every change of {display(folder)} already", hint=give_up)
    stale = desk.stale()
    write_all(written, before)
    return Committed(
        profile=desk.name,
        written=list(written),
        changed={path: stat(*both) for contents in found.values() for path, both in contents.items()},
        packages=changes(desk.lock, lock),
        stale=[name for name in desk.stale() if name not in stale],
        left=close(folder.resolve(), mark),
    )


def _file(name: str, had: Mapping[str, Contents]) -> str:
    """The patch file that the user means: one that there is, or a new one in patches/."""
    patch = name if name.endswith(".patch") else f"{name}.patch"
    known = (one for one in (name, patch, f"patches/{patch}") if one in had)
    return next(known, f"patches/{patch.removeprefix('patches/')}")


def _head(desk: Desk, file: str, package: Artefact, options: Options) -> str:
    """Return the text before a patch: the existing one, or for a new patch its reason and release."""
    if file in desk.texts:
        return head_of(desk.texts[file])
    return f"{options.why}\n\nMade against {package.name} {package.version}.\n\n"


def _entry(
    desk: Desk, package: Artefact, file: str | None, new: bool, options: Options
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the new values of the entry of the patch `file`, and the text of its proof by its path.

    Both are empty where the options leave an existing patch as it is. Raises UsageError.
    """
    if file is None:
        if options != Options():
            raise UsageError("it is not clear which patch is meant", hint="name it: --file NAME")
        return {}, {}
    lacking = [f"--{name}" for name in ("why", "proof") if getattr(options, name) is None]
    if new and lacking:
        raise UsageError(
            f"a new patch needs {' and '.join(lacking)}",
            hint="--why TEXT says what goes wrong without it; --proof FILE is a program that fails without it only",
        )
    entry = {"package": package.name} if new else {}
    versions = options.versions or (f"=={package.version}" if new else None)
    if versions:
        entry["versions"] = _versions(versions, package)
    entry["file"] = file
    proof = _proof(desk, options.proof) if options.proof else {}
    for path in proof:
        entry["proof"] = path
    if options.why is not None:
        if not options.why.strip() or not options.why.isprintable():
            raise UsageError(
                "--why must be one line of text", hint="what goes wrong without the patch, in one sentence"
            )
        entry["why"] = options.why
    return (entry if len(entry) > 1 else {}), proof


def _versions(text: str, package: Artefact) -> str:
    try:
        fits = SpecifierSet(text).contains(package.version, prereleases=True)
    except InvalidSpecifier:
        raise UsageError(
            f"{text!r} is not a version range", hint='write for instance --versions ">=1.0,<1.9"'
        ) from None
    if not fits:
        raise UsageError(f"{package.version} is locked and is not among {text}", hint="give a range that it is in")
    return text


def _proof(desk: Desk, path: Path) -> dict[str, str]:
    """The text of a proof, by its path beside the profile: where it is, or in proofs/."""
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = "not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise UsageError(f"the proof {path} cannot be read: {why}", hint="--proof FILE is a Python program") from None
    folder = desk.path.parent.resolve()
    inside = path.resolve().is_relative_to(folder)
    place = str(path.resolve().relative_to(folder)) if inside else f"proofs/{path.name}"
    desk.new_file(place, text, "--proof")
    return {place: text}
