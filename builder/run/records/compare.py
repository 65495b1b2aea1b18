"""What differs between two runs: `drydock diff RUN RUN`. The environment is compared as `builder.lock.diff` does it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from builder.embedded.errors import StageError
from builder.errors import DrydockError
from builder.lock.diff import Block, Change, Difference, Row, Side, compare, row, side_of_lock, side_of_manifest
from builder.lock.model import parse
from builder.run.records.data import labels
from builder.run.records.folder import Record, read_object
from builder.store.layout import Store


@dataclass(frozen=True)
class Runs:
    """All that differs between two runs; `environment` is None where one has no lock any more.

    `parts` has the changes of settings, code, data, arguments, machine and end; None for one that a record does not
    have.
    """

    before: str
    after: str
    environment: Difference | None
    parts: Mapping[str, Sequence[Change] | None]

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        parts = {
            name: None if changes is None else [one.as_json() for one in changes]
            for name, changes in self.parts.items()
        }
        environment = None if self.environment is None else self.environment.as_json()
        return {"before": self.before, "after": self.after, "environment": environment, **parts}

    def lines(self) -> Iterator[str]:
        """The difference as text."""
        yield self.head
        for block in self.blocks():
            yield from block.lines()

    @property
    def head(self) -> str:
        """What was compared, and whether anything differs."""
        differs = next(self.blocks(), None) is not None
        return f"{self.before} -> {self.after}" if differs else f"{self.before} and {self.after}: no difference"

    def blocks(self) -> Iterator[Block]:
        """A block for each part in which something differs."""
        if self.environment is not None:
            yield from self.environment.blocks()
        for name, changes in self.parts.items():
            if changes:
                yield Block(f"{name}:", [_row(one) for one in changes])

    @property
    def unknown(self) -> list[str]:
        """The parts that could not be compared."""
        found = [name for name, changes in self.parts.items() if changes is None]
        return ["environment", *found] if self.environment is None else found


def compare_runs(before: Record, after: Record) -> Runs:
    """What differs from one run to another."""
    sides = [side(one) for one in (before, after)]
    known = [one for one in sides if one is not None]
    environment = compare(*known) if len(known) == 2 else None
    parts = {}
    for name, facts in _PARTS.items():
        old, new = facts(before), facts(after)
        parts[name] = None if old is None or new is None else changes(old, new)
    return Runs(before["id"], after["id"], environment, parts)


def side(record: Record) -> Side | None:
    """The environment of a run: by the lock that it keeps, else by what the store has; None where both are gone."""
    content = read_object((record.get("lock") or {}).get("object", ""))
    try:
        if content is not None:
            lock = parse(content.decode("utf-8"), f"the lock of run {record['id']}", record["name"].rpartition(":")[2])
            found = side_of_lock(record["id"], "run", lock)
            # The record has the data itself, also where it has no lock.
            return replace(found, parts={name: one for name, one in found.parts.items() if name != "data"})
        return side_of_manifest(record["id"], Store.here().manifest(record["store-name"]))
    except (DrydockError, StageError, ValueError, KeyError, TypeError, AttributeError):
        return None


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """What differs between two mappings.

    >>> [one.as_json()["change"] for one in changes({"a": 1, "b": 1, "c": 1}, {"a": 1, "b": 2, "d": 1})]
    ['changed', 'removed', 'added']
    """
    names = sorted(old.keys() | new.keys())
    return [Change(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)]


def _settings(record: Record) -> dict[str, Any] | None:
    found = record.get("environment")
    if not isinstance(found, dict):
        return None
    # Where the environment is differs with its key, which is compared already.
    own = str(record["store-name"])
    values = {**(found.get("exported") or {}), **found["set"]}
    return {name: value for name, value in values.items() if own not in str(value)}


def _code(record: Record) -> dict[str, Any] | None:
    found = record.get("code")
    if not isinstance(found, dict) or "commit" not in found:
        return None
    files = [*found.get("changed", ()), *(one for one in found.get("untracked", ()) if not one.get("late"))]
    facts = {"commit": found["commit"], "branch": found["branch"], "under way": found.get("under-way")}
    rows = {one["path"]: one.get("sha256") or one.get("commit") or one.get("why") or one.get("how") for one in files}
    return {**{name: value for name, value in facts.items() if value is not None}, **rows}


def _data(record: Record) -> dict[str, Any] | None:
    found = record.get("data")
    return labels(found) if isinstance(found, list) else None


def _arguments(record: Record) -> dict[str, Any]:
    return {
        "profile": record["name"],
        "command": record["command"],
        "arguments": shlex.join(record["arguments"]),
        "folder": record.get("folder"),
        **{f"seed {name}": value for name, value in (record.get("seeds") or {}).items()},
        "Drydock": record.get("drydock"),
    }


def _machine(record: Record) -> dict[str, Any] | None:
    found = record.get("machine")
    return {name: value for name, value in found.items() if value is not None} if isinstance(found, dict) else None


def _end(record: Record) -> dict[str, Any] | None:
    found = record["end"]
    if found is None:
        return None
    losses = {f"last {name}": one["last"] for name, one in (found.get("losses") or {}).items()}
    facts = {"exit status": found["exit"], "why": found["why"], "restarts": found.get("restarts"), **losses}
    return {name: value for name, value in facts.items() if value is not None}


_PARTS = {
    "settings": _settings,
    "code": _code,
    "data": _data,
    "arguments": _arguments,
    "machine": _machine,
    "end": _end,
}


def _row(change: Change) -> Row:
    words = [_word(value) for value in (change.before, change.after) if value is not None]
    return row(change.kind, _word(change.name), " -> ".join(words))


def _word(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", value):
        return value[:12]  # a commit, or a sha256
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value)
