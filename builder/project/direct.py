"""What requirements name by a place: fetched, known by its content, and kept as a wheel (builder/store/built.py).

A place is where a git repository, a file or a folder is. The lock names the wheel by its sha256, and what it is made of
by content, so that a machine that does not have the wheel makes it again, and compares.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from builder import process
from builder.consent import Consent
from builder.embedded import caches
from builder.embedded.git import PLACES
from builder.embedded.hashes import sha256
from builder.errors import DrydockError, LockError, SourceError, ToolError
from builder.files import hash_of
from builder.lock import placed, sdist
from builder.lock.model import Artefact, Lock, Origin
from builder.lock.placed import Fetched
from builder.profile.places import Place, place_of
from builder.project import folders
from builder.project.caches import cache_places, is_read_by_scripts
from builder.project.folders import files_of
from builder.project.sources import git
from builder.project.sources.download import download
from builder.project.sources.tree import content_hash
from builder.store import built
from builder.store.layout import home

if TYPE_CHECKING:
    from builder.profile.model import Profile
    from builder.project.catalogue import Entry

_MOST = 1 << 30  # bytes of a source, unpacked


def fetch(
    entry: Entry, previous: Lock | None, upgrade: Sequence[str], work: Path, step: Callable[[str], None]
) -> list[Fetched]:
    """What the requirements of a profile name by a place, in the folder `work`.

    What the `previous` lock has of the same place stays, except packages in `upgrade`. Raises LockError.
    """
    found = []
    for name, requirement in placed.placed(entry.profile).items():
        place = _place(requirement)
        known = _locked_before(previous, name, place) if name not in upgrade else None
        if known is not None and place.path is None and (kept := _kept_wheel(known)) is not None:
            found.append(Fetched(name, _origin_of(known), kept, build_requires=built.requires(known.sha256)))
            continue
        folder = work / name
        folder.mkdir()
        origin = known.origin if known is not None and place.path is None else None
        found.append(_fetched(name, place, entry, folder, origin, step))
    return found


def check_fresh(entry: Entry, lock: Lock) -> None:
    """Raise LockError where a file or folder of this machine is not what was locked."""
    requirements = placed.placed(entry.profile)
    for package in lock.packages:
        requirement = requirements.get(package.name)
        place = _place(requirement) if requirement is not None else None
        if package.origin is None or place is None or place.path is None:
            continue
        path = _path(place, entry.project_folder)
        if path.exists() and content_of(path, _not_its(entry, path)) != package.origin.sha256:
            raise LockError(
                f"the lock is stale: {place.path}, which {package.name} is built from, has changed since it was made",
                hint=f"drydock lock {entry.name}",
            )


def states(entry: Entry) -> list[list[str]]:
    """What requirements name of this machine, as it is: rows of a path, its state, and what is not its.

    Raises LockError. Asked before `check_fresh` reads it, so that what is changed in between is another state later.
    """
    found = []
    for place in map(_place, placed.placed(entry.profile).values()):
        if place.path is not None:
            path = _path(place, entry.project_folder).absolute()
            not_its = _not_its(entry, path)
            try:
                found.append([str(path), folders.state(path, not_its), *not_its])
            except OSError as error:
                raise LockError(f"{error.filename}: {error.strerror}") from None
    return found


def provide(entry: Entry, consent: Consent, step: Callable[[str], None], *, lock: Lock | None = None) -> None:
    """Make the wheels of places that no cache has, and keep them: those of `lock`, else of the entry's own.

    Raises LockError where they are not those locked.
    """
    lock, profile = lock or entry.lock, entry.profile
    missing = [
        one for one in lock.packages if one.origin is not None and _kept_wheel(one) is None and not _unpacked(one)
    ]
    if not missing:
        return
    near = [str(home() / "cache" / "mirror"), *filter(is_read_by_scripts, cache_places())]
    there = {digest for place in near for digest in caches.known(place)}
    requirements = placed.placed(profile)
    for package in missing:
        if package.sha256 not in there and package.name in requirements:
            place = _place(requirements[package.name])
            with tempfile.TemporaryDirectory(prefix="drydock-place-") as work:
                _provide(package, place, entry, lock.build_requires, consent, Path(work), step)


def _provide(
    package: Artefact,
    place: Place,
    entry: Entry,
    tools: Sequence[Artefact],
    consent: Consent,
    work: Path,
    step: Callable[[str], None],
) -> None:
    indexes = _indexes(entry.profile)
    (work / "fetched").mkdir()
    one = _fetched(package.name, place, entry, work / "fetched", _origin_of(package), step)
    wheel = one.wheel
    if wheel is None:
        step(f"building {package.name} from {place}")
        raw = placed.build(one, tools, entry.profile, consent, work / "build", indexes)
        wheel = work / raw.name
        placed.normalise(raw, wheel)
    if hash_of(wheel) != package.sha256:
        raise LockError(
            f"{package.file}, built here from the same source, is not the locked file: builds differ by machine",
            hint="get it from where it was locked: drydock push there, and drydock pull here; or lock it again",
        )
    built.keep(wheel, one.build_requires, entry.lock_path)


def _indexes(profile: Profile) -> dict[str, str]:
    from builder import uv

    return {name: uv.index_url(index, profile.index_url(index)) for name, index in profile.packages.index.items()}


# --- fetching ------------------------------------------------------------------------------------------------------


def _fetched(
    name: str, place: Place, entry: Entry, work: Path, pinned: Origin | None, step: Callable[[str], None]
) -> Fetched:
    """What is at a place; with `pinned` only what was locked. Raises LockError."""
    try:
        if place.git is not None:
            return _from_git(name, place, work, pinned, step)
        return _from_file(name, place, entry, work, pinned, step)
    except (SourceError, ToolError, OSError) as error:
        said = error.message if isinstance(error, DrydockError) else f"{error.filename}: {error.strerror}"
        hint = error.hint if isinstance(error, DrydockError) else None
        raise LockError(f"{name} @ {place}: {said}", hint=hint) from None


def _from_git(name: str, place: Place, work: Path, pinned: Origin | None, step: Callable[[str], None]) -> Fetched:
    where = str(place.git)
    if not where.startswith("file://"):
        _online()
    step(f"fetching {name}: {place}")
    ref = git.resolve(where, place.rev)
    if pinned is not None and ref.kind == "tag" and ref.commit != pinned.commit:
        raise SourceError(
            f"the tag {place.rev} was moved: locked is commit {pinned.commit}, and there is {ref.commit}",
            hint=f"if that is meant: drydock lock --upgrade {name}",
        )
    commit = pinned.commit if pinned is not None and pinned.commit else ref.commit

    def leave_out(path: str) -> None:
        step(f"left out, because it is a link: {path!a}")

    root = git.fetch(where, ref, commit, work, leave_out, most=_MOST)
    git.add_submodules(where, commit, work, root, leave_out, most=_MOST)
    content = content_hash(root)
    _compare(content, pinned, name)
    version = _version(place.rev if ref.kind == "tag" else None, commit)
    return _source(
        name, root / (place.subfolder or "."), Origin(sha256=content, commit=commit, place=_digest(place)), version
    )


def _from_file(
    name: str, place: Place, entry: Entry, work: Path, pinned: Origin | None, step: Callable[[str], None]
) -> Fetched:
    if place.url is not None:
        _online()
        step(f"fetching {name}: {place}")
        path = work / place.file
        download(place.url, path, limit=_LARGEST_FILE)
    else:
        if entry.sources:
            raise SourceError(
                "a profile that has a part of a source may name repositories and URLs, and no path of this machine",
                hint="a source is read everywhere: push what it needs into a repository",
            )
        path = _path(place, entry.project_folder)
        if path.is_dir():
            return _from_folder(name, place, path, work, _not_its(entry, path))
        if not path.is_file():
            raise SourceError(f"{path} does not exist")
        if not path.name.endswith((".whl", ".tar.gz", ".zip")):
            raise SourceError(f"{path} is neither a folder, nor a .whl, .tar.gz or .zip")
    content = hash_of(path)
    if place.sha256 is not None and content != place.sha256:
        raise SourceError(f"its sha256 is {content}, and the requirement says {place.sha256}")
    _compare(content, pinned, name)
    origin = Origin(sha256=content, place=_digest(place))
    if path.name.endswith(".whl"):
        return Fetched(name, origin, path)
    found = sdist.read(path)
    copy = work / "source" / path.name
    copy.parent.mkdir()
    shutil.copyfile(path, copy)
    return Fetched(name, origin, None, copy, (*found.build_requires, *found.undeclared))


_LARGEST_FILE = 1 << 33


def _from_folder(name: str, place: Place, path: Path, work: Path, not_its: Collection[str]) -> Fetched:
    root = work / "source"
    for relative in files_of(path, not_its):
        target = root / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path / relative, target)
    if not root.is_dir():
        raise SourceError(f"{path} is empty")
    origin = Origin(sha256=content_hash(root), place=_digest(place))
    return _source(name, root / (place.subfolder or "."), origin, _version_here(path))


def _source(name: str, root: Path, origin: Origin, version: str | None) -> Fetched:
    """A source in a folder, with what builds it."""
    if not ((root / "pyproject.toml").is_file() or (root / "setup.py").is_file()):
        raise SourceError("it has neither pyproject.toml nor setup.py, so nothing can be built from it")
    texts = {
        one: (root / one).read_text(encoding="utf-8", errors="replace")
        for one in ("pyproject.toml", "setup.py")
        if (root / one).is_file()
    }
    found = sdist.of([f"x/{path.relative_to(root).as_posix()}" for path in root.rglob("*") if path.is_file()], texts)
    return Fetched(name, origin, None, root, (*found.build_requires, *found.undeclared), version)


def content_of(path: Path, not_its: Collection[str] = ()) -> str:
    """The content of a file or a folder here, as locks have it. Raises LockError."""
    try:
        return hash_of(path) if path.is_file() else content_hash(path, files_of(path, not_its))
    except OSError as error:
        raise LockError(f"{error.filename}: {error.strerror}") from None


def _not_its(entry: Entry, path: Path) -> Collection[str]:
    """What is Drydock's in the folder of the project: it changes with each lock."""
    if os.path.realpath(path) != os.path.realpath(entry.project_folder):
        return ()
    return (entry.path.parent.name, "generated", "drydock.toml", "drydock.lock.toml")


def _compare(content: str, pinned: Origin | None, name: str) -> None:
    if pinned is not None and content != pinned.sha256:
        raise SourceError(
            f"it has changed: locked is content {pinned.sha256[:12]}, and there is {content[:12]}",
            hint=f"if that is meant: drydock lock --upgrade {name}",
        )


def _version(rev: str | None, commit: str) -> str:
    """What a package is told that asks its repository for its version."""
    try:
        return str(Version(rev.removeprefix("v"))) if rev else f"0.0.0+g{commit[:12]}"
    except InvalidVersion:
        return f"0.0.0+g{commit[:12]}"


def _version_here(folder: Path) -> str | None:
    """The same for a folder that git knows; None where it does not."""
    environment = {key: value for key, value in os.environ.items() if key not in PLACES}
    ask = ["git", "-C", str(folder)]
    try:
        commit = process.run([*ask, "rev-parse", "HEAD"], env=environment)
        tag = process.run([*ask, "describe", "--tags", "--exact-match"], env=environment)
    except ToolError:
        return None
    return _version(tag.stdout.strip() or None, commit.stdout.strip()) if commit.code == 0 else None


def _online() -> None:
    if os.environ.get("UV_OFFLINE", "").lower() not in ("", "0", "false"):
        raise SourceError("it is not here yet, and --offline forbids fetching it")


# --- what is here --------------------------------------------------------------------------------------------------


def _place(requirement: Requirement) -> Place:
    found = place_of(requirement)
    if found is None:
        raise ValueError(f"{requirement} names no place")
    return found


def _path(place: Place, top: Path) -> Path:
    return top / str(place.path)


def _digest(place: Place) -> str:
    return sha256(repr(place).encode())


def _locked_before(lock: Lock | None, name: str, place: Place) -> Artefact | None:
    """What a lock has of the same place."""
    for package in lock.packages if lock is not None else ():
        if package.name == name and package.origin is not None and package.origin.place == _digest(place):
            return package
    return None


def _origin_of(package: Artefact) -> Origin:
    if package.origin is None:
        raise ValueError(f"{package.name} is from an index")
    return package.origin


def _kept_wheel(package: Artefact) -> Path | None:
    return built.kept_wheel(package.file, package.sha256)


def _unpacked(package: Artefact) -> bool:
    return any((home() / "wheels").glob(f"*/{package.sha256}"))
