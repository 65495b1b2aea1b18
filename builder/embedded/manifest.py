"""The manifest of an environment: what it promises, sealed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from builder.embedded.errors import StageError
from builder.embedded.hashes import record_hash, sha256
from builder.embedded.plan import canonical, key_of
from builder.embedded.state import LARGE, read_json


def sealed(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest with the sha256 of all the rest of it."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return {**rest, "sha256": sha256(canonical(rest))}


def promise_of(env: Path, path: str) -> str:
    """What a manifest says of a file: its hash as RECORD writes one, or where it links to, after an arrow."""
    whole = env / path
    return f"-> {os.readlink(whole)}" if whole.is_symlink() else record_hash(whole.read_bytes())


def is_usable(env: Path) -> bool:
    """Whether an environment is finished, and its Python still there; as is_usable of templates/run.sh.j2."""
    return (env / ".drydock" / "manifest.json").is_file() and os.access(env / "bin" / "python", os.X_OK)


def read_manifest(env: Path) -> dict[str, Any]:
    """The manifest of an environment, checked against its own seal, its key and its folder. Raises StageError."""
    manifest = read_sealed(env / ".drydock" / "manifest.json")
    if env.name != f"{manifest['key']}-{manifest['name']}":
        raise StageError(f"the folder was renamed: it is {manifest['key']}-{manifest['name']}")
    return manifest


def read_sealed(path: Path) -> dict[str, Any]:
    """The manifest in a file, checked against its own seal and its key. Raises StageError."""
    try:
        manifest: dict[str, Any] | None = read_json(path, {"plan": dict, "key": str, "name": str}, LARGE)
        if manifest is None:
            raise ValueError("it is not there, or no manifest")
        if sealed(manifest) != manifest or key_of(manifest["plan"]) != manifest["key"]:
            raise StageError("it was edited")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StageError(f"unreadable: {error}") from None
    return manifest
