"""What changed from one generation to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from builder.embedded.errors import StageError
from builder.embedded.words import plural
from builder.store.generations import Generation
from builder.store.layout import Store

HEADINGS = ("NUMBER", "MADE", "KEY", "", "CHANGES")


@dataclass(frozen=True)
class Row:
    """A generation and what changed since the one before it."""

    generation: Generation
    changes: str

    def cells(self) -> tuple[str, ...]:
        """What stands below `HEADINGS`."""
        one = self.generation
        mark = "(current)" if one.current else ""
        return str(one.number), f"{one.created:%Y-%m-%d %H:%M:%S}", one.key, mark, self.changes

    def as_json(self) -> dict[str, Any]:
        """The row in plain JSON types; `created` is RFC 3339."""
        one = self.generation
        return {
            "number": one.number,
            "created": one.created.isoformat(),
            "key": one.key,
            "current": one.current,
            "changes": self.changes,
        }


def rows(generations: Sequence[Generation]) -> list[Row]:
    """The generations with what changed in each."""
    found = []
    before: dict[str, Any] | None = None
    first: dict[str, int] = {}
    for one in generations:
        plan = _plan(one)
        same = first.setdefault(one.store_name, one.number)
        found.append(Row(one, _changes(before, plan) if same == one.number else f"as generation {same}"))
        before = plan
    return found


def _plan(one: Generation) -> dict[str, Any] | None:
    try:
        plan: dict[str, Any] = Store.here().manifest(one.store_name)["plan"]
    except StageError:
        return None  # collected by hand, or damaged
    return plan


def _changes(before: dict[str, Any] | None, after: dict[str, Any] | None) -> str:
    if after is None:
        return "its environment is missing or damaged: drydock store verify"
    if before is None:
        return plural(len(after["packages"]), "package")
    old = {package["name"]: package["version"] for package in before["packages"]}
    new = {package["name"]: package["version"] for package in after["packages"]}
    words = [f"+{name} {new[name]}" for name in sorted(new.keys() - old.keys())]
    words += [f"-{name}" for name in sorted(old.keys() - new.keys())]
    words += [
        f"{name} {old[name]} -> {new[name]}" for name in sorted(old.keys() & new.keys()) if old[name] != new[name]
    ]
    words += [key for key in ("patches", "files", "python", "target") if before[key] != after[key]]
    return (
        ", ".join(words[:6]) + (f" and {len(words) - 6} more" if len(words) > 6 else "") or "files of the same versions"
    )
