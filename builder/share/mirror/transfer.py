"""Transfer the locked files of profiles to a mirror, or back: existing files are not transferred again."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from builder.embedded.words import plural
from builder.errors import DrydockError, UsageError
from builder.project.catalogue import Catalogue
from builder.report import Meter, Reporter, waiting
from builder.share.mirror import pages, wheels
from builder.share.mirror.fetch import Gatherer, local_mirror
from builder.share.mirror.locked import LockedFile, consent_to_build, locked_files
from builder.share.mirror.place import Place, explained, open_place

AT_ONCE = 8
"""Files on their way at a time."""

_OFTEN = 0.25  # seconds between two looks at what has come


@dataclass(frozen=True)
class Pushed:
    """The result of a push or a pull: its place, the number of files, and the transferred ones; sizes in bytes."""

    place: str
    files: int
    size: int
    moved: tuple[str, ...]
    moved_size: int


def push(
    names: Sequence[str],
    destination: str,
    catalogue: Catalogue,
    report: Reporter,
    *,
    dry_run: bool = False,
    data: bool = True,
) -> Pushed:
    """Transfer the files of these profiles, with their `data`, to the mirror `destination`, and update its index.

    Raises ProfileError or LockError, and DrydockError where a file is not found or the place cannot be written.
    """
    with waiting(report, "reading what is locked"):
        files = locked_files(names, catalogue, data=data)
    say_data(files, report)
    # Before anything is moved: wheels are built of these.
    sources = {file.profile for file in files if file.is_source} if not dry_run else ()
    consents = {name: consent_to_build(name, catalogue) for name in sources}
    gatherer = Gatherer(catalogue, report)
    place = open_place(destination)

    def build(source: LockedFile) -> None:
        wheels.put_built(source, place, catalogue, consents[source.profile], report)

    build_them = build if consents else None
    return bring(files, place, gatherer.fetch, report, before=gatherer.prepare, build=build_them, dry_run=dry_run)


def pull(
    names: Sequence[str],
    source: str,
    catalogue: Catalogue,
    report: Reporter,
    *,
    dry_run: bool = False,
    data: bool = True,
) -> Pushed:
    """Transfer the files of these profiles from the mirror `source` to the cache that every build looks into.

    Raises DrydockError where the mirror does not have all files, or has others; the transferred files are kept.
    """
    with waiting(report, "reading what is locked"):
        files = locked_files(names, catalogue, data=data)
    say_data(files, report)
    place = open_place(source)

    def check(missing: Sequence[LockedFile]) -> None:
        with explained(place.shown):
            there = place.sizes()
        absent = [file.label for file in missing if file.path not in there]
        if absent:
            listed = ", ".join(absent[:3]) + (f" and {len(absent) - 3} more" if len(absent) > 3 else "")
            raise DrydockError(
                f"{place.shown} does not have {listed}", hint=f"drydock push {' '.join(names)} {place.shown}"
            )

    def fetch(file: LockedFile, target: Path) -> None:
        with explained(place.shown):
            found = place.fetch(file.path, target, file.size)
        if found != file.sha256:
            raise DrydockError(f"{place.shown} has another file under the name {file.label} than the lock names")

    return bring(files, local_mirror(), fetch, report, before=check, dry_run=dry_run)


def say_data(files: Sequence[LockedFile], report: Reporter) -> None:
    """Report how much of it is data, as that may be much more than the rest."""
    found = [file for file in files if file.is_data]
    if found:
        size = sum(file.size for file in found) / 1e6
        report.step(f"data: {plural(len(found), 'file')}, {size:,.1f} MB; without: --without-data")


def bring(
    files: Sequence[LockedFile],
    place: Place,
    fetch: Callable[[LockedFile, Path], None],
    report: Reporter,
    *,
    before: Callable[[Sequence[LockedFile]], None] = lambda _: None,
    build: Callable[[LockedFile], None] | None = None,
    dry_run: bool = False,
) -> Pushed:
    """Bring files to a place by `fetch`, after `before` has heard which are not there yet, and index them.

    With `build`, which brings one, wheels of the source distributions among them too.
    """
    with explained(place.shown):
        there = place.sizes()
    missing = [file for file in files if not _is_whole(file, there)]
    moved = Pushed(
        place.shown,
        len(files),
        sum(file.size for file in files),
        tuple(file.label for file in missing),
        sum(file.size for file in missing),
    )
    if dry_run:
        return moved
    if missing:
        with explained(place.shown):
            _check_ours(place)
        before(missing)
        _move(missing, place, fetch, report)
    sources = wheels.unbuilt(files, there) if build is not None else []
    if build is not None:
        _build(sources, place, build, report)
    with explained(place.shown):
        write_index(place, None if missing or sources else there)
    return moved


def _build(sources: Sequence[LockedFile], place: Place, build: Callable[[LockedFile], None], report: Reporter) -> None:
    for source in sources:
        try:
            with explained(place.shown):
                build(source)
        except DrydockError as error:
            report.warn(f"the mirror has no wheel of {source.file}, only its source: {error.message}")


def _check_ours(place: Place) -> None:
    """Raise UsageError where there is an index that Drydock did not write, which would be overwritten."""
    page, sums = place.read(pages.ROOT), place.read(pages.SUMS)
    theirs = page is not None and pages.OURS.encode() not in page
    if theirs or (sums and not pages.parse_sums(sums.decode("ascii", "replace"))):
        raise UsageError(
            f"{place.shown} has {pages.ROOT if theirs else pages.SUMS}, which drydock push did not write",
            hint="use a folder of its own for the mirror",
        )


def _is_whole(file: LockedFile, there: Mapping[str, int | None]) -> bool:
    if file.path not in there:
        return False
    size = there[file.path]
    return size is None or not file.size or size == file.size


def _move(
    files: Sequence[LockedFile], place: Place, fetch: Callable[[LockedFile, Path], None], report: Reporter
) -> None:
    from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

    total = sum(file.size for file in files)
    done = 0

    def move(file: LockedFile) -> LockedFile:
        way = scratch / file.sha256
        fetch(file, way)
        with explained(place.shown):
            if (metadata := metadata_of(way)) is not None:
                # Before the wheel: where that is, its metadata is too.
                place.write(file.path + pages.METADATA, metadata)
            place.put(way, file.path)
        way.unlink(missing_ok=True)
        return file

    meter = Meter(report, f"moving {plural(len(files), 'file')}")
    with (
        report.busy(meter.what),
        explained(place.shown),
        place.scratch() as scratch,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        # The big ones first, so that none is left to go alone at the end.
        waiting = {pool.submit(move, file) for file in sorted(files, key=lambda file: -file.size)}
        try:
            while waiting:
                ended, waiting = wait(waiting, _OFTEN, FIRST_COMPLETED)
                done += sum(future.result().size for future in ended)
                meter(min(done + _size_of_files(scratch), total), total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    report.detail(f"{plural(len(files), 'file')}, {total / 1e6:.1f} MB")


def _size_of_files(folder: Path) -> int:
    """Bytes of the files in a folder, which come and go."""
    size = 0
    for path in folder.iterdir():
        with suppress(OSError):
            size += path.stat().st_size
    return size


def metadata_of(wheel: Path) -> bytes | None:
    """The METADATA of a wheel (PEP 658); None where the file is not a wheel."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [
                name for name in archive.namelist() if name.count("/") == 1 and name.endswith(".dist-info/METADATA")
            ]
            return archive.read(names[0]) if len(names) == 1 else None
    except (zipfile.BadZipFile, NotImplementedError, OSError):
        return None


def write_index(place: Place, there: Mapping[str, int | None] | None = None) -> bool:
    """Update the index to the files in the mirror, listed now or in `there`; returns whether it has changed.

    Two that push at once each write what they see, and look again afterwards: the one that is last sees all.
    """
    from concurrent.futures import ThreadPoolExecutor

    known = {
        (file.sha256, file.file)
        for file in pages.parse_sums((place.read(pages.SUMS) or b"").decode("ascii", "replace"))
    }
    wrote = False
    while True:
        files = pages.stored(place.sizes() if there is None else there)
        now = {(file.sha256, file.file) for file in files}
        if now == known:
            return wrote
        changed = {pages.project_of(file) for _, file in now ^ known if not pages.is_apart(file)}
        projects: dict[str, list[pages.Stored]] = {project: [] for project in changed}
        for file in (file for file in files if not pages.is_apart(file.file)):
            projects.setdefault(file.project, []).append(file)
        texts = {path: text for name in changed for path, text in pages.project_pages(name, projects[name]).items()}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(place.write, texts, (text.encode() for text in texts.values())))
        for path, text in pages.root_pages(name for name, rows in projects.items() if rows).items():
            place.write(path, text.encode())
        place.write(pages.SUMS, pages.sums(files).encode())
        known, there, wrote = now, None, True
