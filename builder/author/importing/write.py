"""The text of a profile for what was imported."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import tomli_w

from builder.project.requirements.model import Imported

PLACEHOLDER = "train.py"


def profile_text(
    name: str,
    description: str,
    imported: Imported,
    target: Mapping[str, Any],
    *,
    extends: Sequence[str] = (),
    project: str | None = None,
    requires_from: Mapping[str, Any] | None = None,
    with_trainer: bool = True,
) -> str:
    """Return the TOML of a profile, with the path of the `project` whose code it imports; without a target, of a part.

    With `requires_from`, its requirements are those of that file. Without a trainer of its own it starts `train.py`,
    which must exist; a part need not have one, `with_trainer`.
    """
    packages: dict[str, Any] = {"requires": imported.requires}
    if requires_from is not None:
        packages = {"requires-from": dict(requires_from)}
    if imported.index and requires_from is None:
        packages["index"] = dict(sorted(imported.index.items()))
    if imported.overrides and requires_from is None:
        packages["overrides"] = [{"requirement": text, "reason": why} for text, why in imported.overrides]
    if imported.exclude_newer is not None and requires_from is None:
        packages["exclude-newer"] = imported.exclude_newer
    if imported.exclude_newer_package and requires_from is None:
        packages["exclude-newer-package"] = dict(sorted(imported.exclude_newer_package.items()))
    data: dict[str, Any] = {
        "schema": 1,
        "name": name,
        "description": description,
        **({"extends": list(extends)} if extends else {}),
        **({"target": dict(target)} if target else {}),
        "python": {"version": imported.python or f"{sys.version_info.major}.{sys.version_info.minor}"},
        **({"project": {"path": project}} if project is not None else {}),
        "packages": packages,
        **({"indexes": imported.indexes} if imported.indexes and requires_from is None else {}),
        **({"env": imported.env} if imported.env else {}),
        **(trainer_tables(name, imported) if with_trainer else {}),
    }
    return tomli_w.dumps(data)


def trainer_tables(name: str, imported: Imported) -> dict[str, Any]:
    """The tables of a profile with what it starts: `train.py`, which must exist, where that is not known."""
    trainer: dict[str, Any] = {"command": imported.command or ["python", PLACEHOLDER]}
    if not imported.command:
        trainer |= {
            "needs": PLACEHOLDER,
            "needs-hint": f"set [trainer] command in profiles/{name}.toml",
        }
    if imported.options:
        trainer["options"] = imported.options
    return {"trainer": trainer, **({"commands": imported.commands} if imported.commands else {})}
