"""Fetch locked files, wherever they are: folders of wheels, caches, and the index."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from urllib.parse import unquote, urlsplit

from builder.download import download
from builder.embedded import data
from builder.embedded.caches import is_far, shown
from builder.embedded.words import plural
from builder.errors import DrydockError
from builder.project.caches import cache_places
from builder.project.catalogue import Catalogue
from builder.report import Reporter
from builder.share.mirror.locked import LockedFile, consent_to_build
from builder.share.mirror.place import LocalPlace, Place, copy_hashed, open_place
from builder.store.built import kept_wheel
from builder.store.layout import home


def local_mirror() -> LocalPlace:
    """The cache that `drydock pull` fills, and that every build looks into."""
    return LocalPlace(home() / "cache" / "mirror")


class Gatherer:
    """Finds the files of locks, checks them by hash, and names a place that sent something else."""

    def __init__(self, catalogue: Catalogue, report: Reporter) -> None:
        self._catalogue = catalogue
        self._report = report
        self._folders: list[Path] = []
        self._caches: list[tuple[Place, set[str]]] = []
        self._urls: dict[str, str] = {}
        self._asking = Lock()

    def prepare(self, files: Sequence[LockedFile]) -> None:
        """Ask the caches for their files, and the index for the places of the others. Raises DrydockError."""
        from builder import uv  # here, because where nothing is to be moved, its import takes half of the time

        self._folders = uv.find_links()
        for text in (str(local_mirror().root), *cache_places()):
            if is_far(text):
                continue
            try:
                place = open_place(text)
                self._caches.append((place, set(place.sizes())))
            except (OSError, DrydockError) as error:
                self._report.warn(f"the cache {shown(text)} cannot be used: {error}")
        rest = [file for file in files if not file.is_placed and not any(self._nearby(file))]
        if rest:
            with self._report.busy(f"asking the indexes where {plural(len(rest), 'file')} can be fetched"):
                self._urls.update(_urls(rest, self._catalogue))

    def fetch(self, file: LockedFile, target: Path) -> None:
        """Fetch a file to `target`, from the first place that has it. Raises DrydockError where none has."""
        tried = []
        for where, bring in self._ways(file):
            try:
                found = bring(target)
            except Exception as error:  # a back end of fsspec raises what it likes
                why = str(error) or type(error).__name__
            else:
                if found == file.sha256:
                    return
                why = (
                    f"it has another file under this name (sha256 {found[:12]}..., and {file.sha256[:12]}... is locked)"
                )
            tried.append(where)
            self._report.warn(f"{where} did not send {file.label}: {why}")
        raise DrydockError(
            f"{file.label} was not found in {', '.join(tried) or 'any place'}",
            hint=f"the lock of {file.profile} names it by hash: if the file is gone everywhere, lock again",
        )

    def _nearby(self, file: LockedFile) -> Iterator[str]:
        if (there := _local_copy(file)) is not None:
            yield str(there.parent)
        yield from (str(folder) for folder in self._folders if (folder / file.file).is_file())
        yield from (place.shown for place, has in self._caches if file.path in has)

    def _ways(self, file: LockedFile) -> Iterator[tuple[str, Callable[[Path], str]]]:
        """Each place that has a file, by its name, with a function that fetches it to a path and returns its sha256."""
        if (there := _local_copy(file)) is not None:
            yield str(there.parent), partial(copy_hashed, there)
        for folder in self._folders:
            if (folder / file.file).is_file():
                yield str(folder), partial(copy_hashed, folder / file.file)
        for place, has in self._caches:
            if file.path in has:
                yield place.shown, partial(place.fetch, file.path, size=file.size)
        with self._asking:
            if file.sha256 not in self._urls and not file.is_placed:
                self._urls.update(_urls([file], self._catalogue))
        if file.is_trainer:
            yield "its repository", partial(self._from_repository, file)
        if file.is_data:
            yield "where the profile has it from", partial(self._from_its_place, file)
        url = self._urls.get(file.sha256)
        if url and not is_far(url):
            yield _host(url), partial(_bring, url, size=file.size)

    def _from_repository(self, file: LockedFile, target: Path) -> str:
        """Make the archive of a trainer's own code. Raises DrydockError, also where nobody agreed to its profile."""
        from builder.project import trainer

        consent_to_build(file.profile, self._catalogue)
        entry = self._catalogue.entry(file.profile)
        if entry.lock.trainer is None:
            raise DrydockError(f"{file.profile} has no trainer.source any more")
        return copy_hashed(trainer.bring(entry.profile, entry.lock.trainer), target)

    def _from_its_place(self, file: LockedFile, target: Path) -> str:
        """Fetch a file of a model or data set. Raises DrydockError, also where nobody agreed to its profile."""
        from builder.project import data

        consent_to_build(file.profile, self._catalogue)
        return copy_hashed(data.bring(self._catalogue.entry(file.profile), file.sha256), target)


def _local_copy(file: LockedFile) -> Path | None:
    """What is kept here of a file that no index has."""
    if not file.is_data:
        return kept_wheel(file.file, file.sha256) if file.is_placed else None
    found = data.kept(home(), file.sha256)
    return found if found.is_file() else None


def _urls(files: Sequence[LockedFile], catalogue: Catalogue) -> dict[str, str]:
    """Where the index has files: sha256 to URL, as uv finds them. Raises ToolError."""
    from builder import uv

    found: dict[str, str] = {}
    for name in sorted({file.profile for file in files}):
        profile = catalogue.profile(name)
        found.update(
            (file.sha256, uv.python_url(file.version, file.file))
            for file in files
            if file.profile == name and file.is_python
        )
        of_it = [file for file in files if file.profile == name and not file.is_python]
        # Apart, because a build requirement may be another version of a package.
        for builds in (False, True):
            group = [file for file in of_it if file.builds == builds]
            if not group:
                continue
            sources = [file.name for file in group if file.is_source]
            named = {file.name: file.index for file in group if file.index is not None}
            index = {package: uv.index_url(at, profile.index_url(at)) for package, at in named.items()}
            universe = uv.Universe(
                profile.target,
                profile.python.version,
                sources=sources,
                builds=consent_to_build(name, catalogue) if sources else None,
                index=index,
            )
            pins = [uv.Pin(file.name, file.version, ()) for file in group]
            with tempfile.TemporaryDirectory(prefix="drydock-where-") as work:
                names = {f.file: f.sha256 for f in group}
                for row in (row for rows in uv.candidates(pins, universe, Path(work)).values() for row in rows):
                    # An index may say no sha256; what it sends is compared with the lock's in any case.
                    found[row.sha256 or names.get(row.file, row.file)] = row.url
    return found


def _bring(url: str, target: Path, size: int) -> str:
    parts = urlsplit(url)
    if parts.scheme == "file":
        return copy_hashed(Path(unquote(parts.path)), target)
    return download(url, target, size=size).hashes["sha256"]


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2] or shown(url)
