"""The folder of the records: one JSON file per run, what several share by content, and an index that lists quickly.

runs/.records/ID.json           a record; whoever changes one holds .lock, and renames the new one over it
runs/.records/objects/SHA256    a lock, a script, a difference of code: kept as long as a record names it
runs/.records/index.json        the heads of the records by size and time of change; made anew where it does not fit

A dot is in no name of a profile. A record of a newer schema is listed and shown, and never changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from builder.embedded import claim, state
from builder.errors import DrydockError, UsageError
from builder.files import age, beside, is_being_written, is_beside
from builder.run.records import life
from builder.run.records.identity import is_id
from builder.store.layout import Store

SCHEMA = 1
"""Of the records that this Drydock writes; a change that a reader has to know of raises it."""

Record = dict[str, Any]

_SHORT = re.compile(r"[0-9a-f]{4,8}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LIMIT = 16 << 20  # bytes of a record
_HEAD = {"schema": int, "id": str, "name": str, "started": str}
_END = {"time": (str, None), "exit": (int, None), "why": str}
_SHAPE = {
    1: {
        **_HEAD,
        "command": str,
        "store-name": str,
        "arguments": [str],
        "process": {"pid": int, "host": str, "boot": str},
        "tags": [str],
        "note": str,
        "end": (_END, None),
    }
}
_FILES = [{"path": str}]
_DATA = [{"name": str, "sha256": str, "files": int, "size": int}]
_LOSS = {"count": int, "not-finite": int, **dict.fromkeys(("first", "last", "lowest"), (float, None))}
_NAMED = [{"name": str}]
# What comes later, or is not known of every run.
_PARTS = {
    "fleet": {"name": str, "hosts": [str]},
    "script": {"object": str},
    "lock": {"object": str},
    "seeds": {str: str},
    "environment": {"set": {str: str}},
    "exported": {str: str},
    "machine": {
        **dict.fromkeys(("host", "os", "chip"), str),
        "memory": (int, None),
        "gpus": (_NAMED, None),
        "others": _NAMED,
    },
    "code": (
        {
            **dict.fromkeys(("commit", "branch"), (str, None)),
            "differs": bool,
            "changed": _FILES,
            "untracked": _FILES,
        },
        {"why": str},
    ),
    "submodules": [{"path": str, "commit": str, "remotes": {str: str}}],
    "remotes": {str: str},
    "difference": ({"object": str}, {"why": str}),
    "losses": {str: _LOSS},
    "data": (_DATA, None),
    "curves": {str: [[(int, float)]]},
    "use": [[(int, float)]],
    "used": {"resident": int, "cores": float},
}
_SHORTENED = 16  # characters of the name of a text, in the index
_COMPLETED = 5.0  # seconds within which that is done, and that somebody waits for it
_AHEAD = 60.0  # seconds that the clocks of hosts which share a store may be apart
_OBJECT_AGE = 3600.0  # seconds that an object without a record stays: that of one which is being written


class Head(NamedTuple):
    """What a list says of a record, in plain JSON types.

    `losses` are the last ones, `process` is that of a run that has not ended, `objects` are the beginnings of the names
    of the texts that it needs. `problem` says why nothing else is known of it.
    """

    id: str
    name: str = ""
    started: str = ""
    command: str = ""
    end: dict[str, Any] | None = None
    losses: dict[str, float] | None = None
    tags: Sequence[str] = ()
    note: str = ""
    process: dict[str, Any] | None = None
    objects: Sequence[str] = ()
    problem: str = ""

    @property
    def state(self) -> str:
        """How it is: running, ended, elsewhere (on another machine), or what is wrong with its record.

        Of a job of Slurm its word where it was asked, else submitted; of a service of a fleet its host.
        """
        if self.problem or self.end is not None:
            return self.problem or "ended"
        if self.job:
            return str((self.process or {}).get("state", "submitted"))
        if on := (self.process or {}).get("service"):
            return f"service on {on}"
        return "elsewhere" if self.process is None or not life.is_of_here(self.process) else "running"

    @property
    def job(self) -> str:
        """The number of the job of Slurm that has not ended, as far as is known; "" for any other run."""
        job = (self.process or {}).get("job", "")
        return job if isinstance(job, str) and job.isdecimal() else ""


def place() -> Path:
    """Where the records of the user are."""
    return Store.here().runs / ".records"


def looks_like_one(word: str) -> bool:
    """Whether a word has the form of the id of a run, or of its last part, or is `last`.

    >>> [looks_like_one(word) for word in ("20261126-131528-3f2a9c1e", "3f2a9c1e", "m4", "m4@2")]
    [True, True, False, False]
    """
    return word == "last" or is_id(word) or bool(_SHORT.fullmatch(word))


def timestamp(now: float) -> str:
    """A time as records have it: UTC, to the millisecond.

    >>> timestamp(0)
    '1970-01-01T00:00:00.000Z'
    """
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def path_of(identity: str) -> Path:
    """Where the record of an id is. Raises UsageError for what is no id: no path is ever made of it."""
    if not is_id(identity):
        raise UsageError(f'"{identity}" is not the id of a run', hint="drydock runs list has them")
    return place() / f"{identity}.json"


def put(path: Path, record: Record) -> None:
    """Write a record, whole or not at all, for its user alone. Raises OSError."""
    _private(path.parent)
    _replace(path, json.dumps(record, indent=1).encode() + b"\n")


def keep(content: bytes) -> str:
    """Keep a text that records share; returns its name, the sha256. Raises OSError."""
    name = hashlib.sha256(content).hexdigest()
    path = place() / "objects" / name
    _private(path.parent.parent)
    _private(path.parent)
    try:
        os.utime(path)  # one whose last record goes now is new again
    except FileNotFoundError:
        _replace(path, content)
    return name


def _private(path: Path) -> None:
    """Make a folder that nobody else looks into; those above it are as they are elsewhere. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)


def read_object(name: str) -> bytes | None:
    """A text that a record names, compared with its name; None where it is gone or damaged."""
    if _DIGEST.fullmatch(name) is None:
        return None
    content = state.read_bytes(place() / "objects" / name, state.LARGE)
    return content if content is not None and hashlib.sha256(content).hexdigest() == name else None


def _replace(path: Path, content: bytes) -> None:
    new = beside(path)
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        new.replace(path)
    except OSError as error:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None  # that of a write knows no file


def read(identity: str) -> Record:
    """The record of an id. Raises UsageError where there is none, DrydockError where it cannot be used."""
    path = path_of(identity)
    if not os.path.lexists(path):
        raise UsageError(f"there is no run {identity}", hint="drydock runs list has them")
    record, problem = _read(path)
    if record is None or problem:
        raise _unusable(identity, path, problem)
    return record


def completed(identity: str) -> Record:
    """The record of an id as `read` has it, after what its run has started to complete it, for a few seconds."""
    until = time.monotonic() + _COMPLETED
    while True:
        record = read(identity)
        is_begun = "asked" in record and age(path_of(identity)) < _COMPLETED
        if not is_begun or time.monotonic() > until:
            return record
        time.sleep(0.05)


def raw(identity: str) -> bytes:
    """A record as it is, also one that this Drydock cannot read. Raises as `read`."""
    path = path_of(identity)
    content = state.read_bytes(path, _LIMIT)
    if content is None:
        raise UsageError(f"there is no run {identity} that can be read", hint="drydock runs list has them")
    return content


def _unusable(identity: str, path: Path, problem: str) -> DrydockError:
    if problem == "newer":
        return DrydockError(
            f"run {identity} was recorded by a newer Drydock",
            hint=f"use that; as it is: drydock runs export {identity} DIR",
        )
    return DrydockError(f"the record of run {identity} is damaged: {path}", hint=f"drydock runs delete {identity}")


def _read(path: Path) -> tuple[Record | None, str]:
    """A record, and what is wrong with it: "", "damaged" or "newer"."""
    record = state.read_json(path, _HEAD, _LIMIT)
    if record is None or record["id"] != path.stem:
        return None, "damaged"
    shape = _SHAPE.get(record["schema"])
    if shape is None:
        return record, "newer" if record["schema"] > SCHEMA else "damaged"
    parts = (record, record.get("code"), record.get("environment"), record.get("end"))
    whole = state.fits(record, shape) and all(
        state.fits(part[name], (_PARTS[name], None))
        for part in parts
        if isinstance(part, dict)
        for name in part.keys() & _PARTS
    )
    return (record, "") if whole else (None, "damaged")


def change(path: Path, edit: Callable[[Record], None]) -> Record:
    """Change a record that is there; nobody else changes one meanwhile.

    Raises DrydockError where it cannot be used, and OSError.
    """
    with _locked():
        record, problem = _read(path)
        if record is None or problem:
            raise _unusable(path.stem, path, problem)
        edit(record)
        put(path, record)
    return record


@contextmanager
def _locked() -> Iterator[None]:
    """Hold the lock of the folder. Not for ever: who holds it for a second hangs, and a run must not wait for that."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(place() / ".lock", flags, 0o600)
    try:
        until = time.monotonic() + 1
        while claim.lock(descriptor) is False and time.monotonic() < until:
            time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def heads() -> list[Head]:
    """All records, oldest first. Those whose process has ended unseen are completed.

    Those of a time to come are before all: a clock was set back since, and the newest run is another.
    """
    known = _indexed()
    rows: dict[str, list[Any]] = {}
    changed = False
    for name, modified, size in _files(known):
        row = known.get(name)
        if row is None or row[0] != modified or row[1] != size:
            row, changed = [modified, size, *_head_of(place() / f"{name}.json")], True
        rows[name] = row
    if changed or len(rows) != len(known):
        text = json.dumps(rows, separators=(",", ":")).encode()
        with suppress(OSError):  # it is a help only
            _replace(place() / "index.json", _sum(text) + text)
    found = []
    for row in rows.values():
        head = Head(*row[2:])
        if head.process is not None and life.has_ended(head.process):
            head = _settled(head)
        found.append(head)
    now = timestamp(time.time() + _AHEAD)
    found.sort(key=lambda one: (one.started <= now, one.id[:15], one.started, one.id))
    return found


def _indexed() -> dict[str, list[Any]]:
    """The rows of the index as we wrote them, by its checksum; none where it was damaged."""
    content = state.read_bytes(place() / "index.json", state.LARGE) or b""
    begins = content[: len(_sum(b""))]
    text = content[len(begins) :]
    rows: dict[str, list[Any]] = json.loads(text) if begins == _sum(text) else {}
    return rows


def _sum(text: bytes) -> bytes:
    """What stands before the rows; another layout of them gets another word."""
    return hashlib.sha256(b"rows 1" + text).hexdigest().encode() + b"\n"


def _files(known: Mapping[str, object]) -> Iterator[tuple[str, int, int]]:
    """Id, time of change and size of each record; `known` are ids."""
    try:
        entries = os.scandir(place())
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            name = entry.name[:-5]
            if name not in known and not (entry.name.endswith(".json") and is_id(name)):
                continue
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError:  # it is deleted now
                continue
            yield name, found.st_mtime_ns, found.st_size


def _head_of(path: Path) -> Head:
    record, problem = _read(path)
    if record is None:
        return Head(path.stem, problem=problem)
    objects = [name[:_SHORTENED] for name in objects_of(record)]
    if problem:
        return Head(path.stem, record["name"], record["started"], objects=objects, problem=problem)
    end = record["end"]
    losses = (end or {}).get("losses") or {}
    return Head(
        record["id"],
        record["name"],
        record["started"],
        record["command"],
        None if end is None else {name: end[name] for name in _END},
        {name: one["last"] for name, one in losses.items() if one["last"] is not None},
        record["tags"],
        record["note"],
        record["process"] if end is None else None,
        objects,
    )


def objects_of(record: Mapping[str, Any]) -> list[str]:
    """The names of the texts that a record needs, whatever its schema: each is a value called `object`."""
    found = []
    for value in record.values():
        if isinstance(value, dict):
            name = value.get("object")
            found += [name] if isinstance(name, str) and _DIGEST.fullmatch(name) else []
            found += objects_of(value)
    return sorted(set(found))


def _settled(head: Head) -> Head:
    """Complete the record of a run whose end nobody saw."""
    end = {"time": None, "exit": None, "why": "its end was not seen", "noticed": timestamp(time.time())}

    def close(record: Record) -> None:
        record["end"] = record["end"] or end

    with suppress(OSError, DrydockError):  # a store that cannot be written to: it is the same when asked again
        end = change(path_of(head.id), close)["end"]
    return head._replace(end=end, process=None)


def find(word: str, known: list[Head] | None = None) -> Head:
    """The run that a word means: an id, the last part of one or its beginning, or `last`. Raises UsageError."""
    found = heads() if known is None else known
    if word == "last" and found:
        return found[-1]
    fitting = [one for one in found if word == one.id or (_SHORT.fullmatch(word) and one.id[16:].startswith(word))]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(one.id for one in fitting[:5])
        raise UsageError(f"{word} is the beginning of {len(fitting)} runs: {names}", hint="use a whole id")
    hint = "drydock runs list has them; last is the newest" if found else "drydock run NAME records one"
    raise UsageError(f"there is no run {word}", hint=hint)


def delete(chosen: list[Head]) -> int:
    """Delete records, and the texts that no record needs any more. Returns how many were there. Raises OSError."""
    count = 0
    for one in chosen:
        with suppress(FileNotFoundError):
            path_of(one.id).unlink()
            count += 1
    needed = {name for one in heads() for name in one.objects}
    objects = place() / "objects"
    for path in [*objects.iterdir()] if objects.is_dir() else []:
        is_old = _DIGEST.fullmatch(path.name) and path.name[:_SHORTENED] not in needed and age(path) > _OBJECT_AGE
        if is_old or (is_beside(path) and not is_being_written(path)):
            with suppress(OSError):
                path.unlink()
    return count
