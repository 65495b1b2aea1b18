"""Wheels of source distributions: built as a lock says, the same bytes on every host, for those who use the mirror's
index by themselves. Builds of Drydock's own take the source, which is what a lock names.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from builder.consent import Consent
from builder.errors import DrydockError
from builder.files import hash_of
from builder.lock.placed import normalise
from builder.project.catalogue import Catalogue
from builder.report import Reporter
from builder.share.mirror import pages
from builder.share.mirror.locked import LockedFile, locked_files
from builder.share.mirror.place import Place

NO_WHEEL = ".no-wheel"
"""The note beside a source distribution without a usable wheel; it says why, and stops further tries."""


def unbuilt(files: Sequence[LockedFile], there: Mapping[str, int | None]) -> list[LockedFile]:
    """The source distributions of which a mirror has no wheel for every machine."""
    built = {
        (file.project, file.file.split("-")[1]) for file in pages.stored(there) if file.file.endswith("-none-any.whl")
    }
    sources = (file for file in files if file.is_source)
    return [file for file in sources if (file.name, file.version) not in built and file.path + NO_WHEEL not in there]


def put_built(file: LockedFile, place: Place, catalogue: Catalogue, consent: Consent, report: Reporter) -> None:
    """Build the wheel of a source distribution that is in a mirror, and put it there.

    Only where it is for every machine, and two builds of it are the same: everybody gets the same files of a mirror.
    Raises DrydockError where it cannot be built.
    """
    from builder import uv

    with tempfile.TemporaryDirectory(prefix="drydock-wheel-") as work, place.scratch() as scratch:
        folder = Path(work)
        (folder / "links").mkdir()
        builds = [one for one in locked_files([file.profile], catalogue) if one.builds]
        for one in (file, *builds):
            target = folder / "links" / one.file
            if place.fetch(one.path, target) != one.sha256:
                raise DrydockError(f"{place.shown} has another file under the name {one.file}")
        constraints = folder / "constraints.txt"
        constraints.write_text("".join(f"{one.name}=={one.version} --hash=sha256:{one.sha256}\n" for one in builds))
        with report.busy(f"building {file.file}"):
            wheels = [
                uv.build_wheel(folder / "links" / file.file, constraints, folder / out, consent, complete=file.is_told)
                for out in ("first", "second")
            ]
        if not wheels[0].name.endswith("-none-any.whl"):
            _left_out(file, "for this machine only", place, report)
            return
        contents = [scratch / f"{number}.whl" for number in (1, 2)]
        for wheel, content in zip(wheels, contents, strict=True):
            normalise(wheel, content)
        digests = [hash_of(content) for content in contents]
        if digests[0] != digests[1]:
            _left_out(file, "that differs each time", place, report)
            return
        path = pages.path_of(digests[0], wheels[0].name)
        with zipfile.ZipFile(contents[0]) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            place.write(path + pages.METADATA, archive.read(name))
        place.put(contents[0], path)


def _left_out(file: LockedFile, why: str, place: Place, report: Reporter) -> None:
    report.step(f"{file.file} builds to a wheel {why}: the mirror has only its source")
    place.write(file.path + NO_WHEEL, f"It builds to a wheel {why}.\n".encode())
