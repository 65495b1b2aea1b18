"""The files that the locks of profiles name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from builder.consent import Consent
from builder.names import DATA_END
from builder.project.catalogue import Catalogue
from builder.project.evaluate import evaluate
from builder.project.sources import consent
from builder.share.mirror.pages import is_apart, is_python, path_of


@dataclass(frozen=True, order=True)
class LockedFile:
    """A file that a lock names. `size` in bytes, 0 where the lock does not know it; `index` as in the lock."""

    file: str
    sha256: str
    name: str
    version: str
    size: int
    profile: str
    index: str | None = None
    builds: bool = False
    """Whether it is a build requirement."""
    is_placed: bool = False
    """Whether it was made of what is at a place, and no index has it."""
    is_told: bool = False
    """Whether it is a source that does not declare all that builds it."""

    @property
    def is_source(self) -> bool:
        """Whether it is a source distribution that is built here or there."""
        return not (self.builds or self.file.endswith(".whl") or is_apart(self.file))

    @property
    def is_python(self) -> bool:
        """Whether it is an archive of a Python, which no index has."""
        return is_python(self.file)

    @property
    def is_trainer(self) -> bool:
        """Whether it is the archive of a trainer's own code."""
        return is_apart(self.file) and not (self.is_python or self.is_data)

    @property
    def is_data(self) -> bool:
        """Whether it is a file of a model or data set; its `version` is its path there."""
        return self.file.endswith(DATA_END)

    @property
    def label(self) -> str:
        """What it is called in messages."""
        return f"{self.name}/{self.version}" if self.is_data else self.file

    @property
    def path(self) -> str:
        """Where it is in a mirror."""
        return path_of(self.sha256, self.file)


def locked_files(names: Iterable[str], catalogue: Catalogue, *, data: bool = True) -> list[LockedFile]:
    """What builds of these profiles need: packages, build requirements, uv, a Python, `data`; each file once.

    Raises ProfileError or LockError.
    """
    found: dict[str, LockedFile] = {}
    for name in names:
        # A lock that evaluates is one that pydantic has checked: it takes 0.2 s to import, and is not needed again.
        lock: dict[str, Any] = evaluate(name, catalogue).locked
        pythons = [lock["python"]] if "python" in lock else []
        trainers = [_of_trainer(lock["trainer"])] if "trainer" in lock else []
        placed = [*trainers, *(_of_data(lock.get("data", ())) if data else ())]
        for row in (lock["uv"], *pythons, *placed, *lock.get("build-requires", ()), *lock["packages"]):
            one = LockedFile(
                file=row["file"],
                sha256=row["sha256"],
                name=row["name"],
                version=row["version"],
                size=row.get("size", 0),
                profile=name,
                index=row.get("index"),
                builds=row in lock.get("build-requires", ()),
                is_placed="origin" in row,
                is_told="build" in row,
            )
            found.setdefault(one.path, one)
    return sorted(found.values())


def _of_trainer(row: dict[str, Any]) -> dict[str, Any]:
    """The row of a trainer's own code as that of a package made of a place."""
    return {**row, "name": "trainer.source", "version": row["commit"][:12], "origin": row["place"]}


def _of_data(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows of the files of models and data sets, in the same way."""
    for row in rows:
        for file in row["files"]:
            name = f"{file['sha256'][:16]}{DATA_END}"
            yield {**file, "file": name, "name": f"data.{row['name']}", "version": file["path"], "origin": row["place"]}


def consent_to_build(name: str, catalogue: Catalogue) -> Consent:
    """The consent to build what the profile `name` has locked as source. Raises ConsentError."""
    return consent.check(name, evaluate(name, catalogue).content)
