"""Pin the sources of a project, anew where asked, and say how they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from builder.errors import LockError, Where
from builder.files import write_atomically
from builder.project.sources.fetch import BEGUN, fetch, folder_of, is_there
from builder.project.sources.pins import Pin, Project, find, written
from builder.report import Growth, Reporter, waiting
from builder.store.layout import home
from builder.store.roots import mark_source


@dataclass(frozen=True)
class State:
    """How a source is: where it comes from, what it is pinned to, and whether the store has that.

    `state` is `fetched`, `not fetched`, `not pinned` (a path never is), or `changed` in drydock.toml since it was.
    """

    name: str
    kind: str
    place: str
    rev: str | None
    commit: str | None
    version: str | None
    sha256: str | None
    state: str

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def states() -> list[State]:
    """The sources of the project, in the order of drydock.toml. Raises ProfileError and LockError."""
    project = find()
    _ = project.lock_file  # raises where there is no project
    rows = []
    for name, declared in project.declared.items():
        pin = project.pins.get(name)
        if pin is None or declared.path is not None:
            state = "not pinned"
        elif pin.declared != declared:
            state = "changed"
        else:
            state = "fetched" if is_there(pin.sha256) else "not fetched"
        commit, version, sha256 = (pin.commit, pin.version, pin.sha256) if pin is not None else (None, None, None)
        rows.append(State(name, declared.kind, declared.place, declared.rev, commit, version, sha256, state))
    return rows


def lock(report: Reporter) -> list[str]:
    """Pin what is not pinned, or was named otherwise then, and fetch what is not there; the rest stays as it is.

    Gives what changed. Raises ProfileError, LockError, SourceError, ToolError; the lock is then as it was.
    """
    project = find()
    fresh = {}
    for name, declared in project.declared.items():
        if declared.path is not None:
            continue
        pin = project.pins.get(name)
        if pin is not None and pin.declared == declared:
            folder_of(project, name, report.step, partial(under_way, report))
            fresh[name] = pin
        else:
            fresh[name] = _fetched(project, name, report)
    return _write(project, fresh)


def check() -> int:
    """How many pins there are, where each is of what drydock.toml names now. Raises LockError where one is not."""
    project = find()
    file = project.lock_file
    for name in project.declared:
        if project.declared[name].path is None:
            project.pin(name)
    if extra := sorted(project.pins.keys() - project.declared.keys()):
        message = f'"{extra[0]}" is pinned, and no source any more'
        raise LockError(message, hint="drydock sources lock", where=Where(str(file)))
    return len(project.pins)


def update(names: Sequence[str], report: Reporter) -> list[str]:
    """Pin sources, all by default, to what is there now; gives what changed. Raises as `lock` does."""
    project = find()
    pins = {name: pin for name, pin in project.pins.items() if name in project.declared}
    for name in names or project.declared:
        declared = project.source(name)
        if declared.path is not None:
            if names:
                report.step(f"{name} is a path, which is not pinned: it is used as it is")
            continue
        pins[name] = _fetched(project, name, report)
    return _write(project, pins)


def _fetched(project: Project, name: str, report: Reporter) -> Pin:
    with under_way(report, name):
        return fetch(project, name, report.step)


@contextmanager
def under_way(report: Reporter, name: str) -> Iterator[None]:
    """A context in which a source is fetched: what has come of it is seen."""
    what = f"fetching {name}"
    with waiting(report, what), Growth(report, what, home() / "sources", BEGUN):
        yield


def _write(project: Project, pins: dict[str, Pin]) -> list[str]:
    file = project.lock_file
    if pins != dict(project.pins) or not file.exists():
        try:
            write_atomically(file, written(pins))
        except OSError as error:
            raise LockError(f"cannot be written: {error.strerror}", where=Where(str(file))) from None
    for pin in pins.values():
        mark_source(pin.sha256, file)
    return list(_changes(project.pins, pins))


def _changes(before: Any, after: dict[str, Pin]) -> list[str]:
    found = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if new is None:
            found.append(f"- {name}")
        elif old is None:
            found.append(f"+ {name} {new.revision}")
        elif old != new:
            found.append(f"~ {name} {old.revision} -> {new.revision}")
    return found
