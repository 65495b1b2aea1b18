"""The plan: everything that decides an environment, and the key that names it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from builder.embedded.errors import StageError
from builder.embedded.hashes import sha256

_BASE32 = "0123456789abcdfghijklmnpqrsvwxyz"


def key_of(plan: dict[str, Any]) -> str:
    """The key of a plan: the sha256 of its canonical JSON, folded to 160 bits, in Nix's base32 (32 characters).

    Folding and alphabet are those of Nix's store paths (nix, libutil/hash.cc, compressHash and printHash32).
    """
    digest = hashlib.sha256(canonical(plan)).digest()
    folded = bytearray(20)
    for index, byte in enumerate(digest):
        folded[index % 20] ^= byte
    number = int.from_bytes(folded, "little")
    return "".join(_BASE32[(number >> (5 * place)) & 31] for place in reversed(range(32)))


def canonical(data: Any) -> bytes:
    """Plain data as JSON in its one canonical form."""
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()


def read_plan(parts: Path) -> dict[str, Any]:
    """The plan beside the files that it names, checked: its key, its requirements, the sha256 of every carried file."""
    try:
        written: dict[str, Any] = json.loads((parts / "plan.json").read_text(encoding="utf-8"))
        if key_of(written["plan"]) != written["key"]:
            raise StageError("this script was edited: its plan does not have the key it says. Render it again.")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StageError(f"{parts} has no readable plan: {error}") from None
    for file in written["plan"]["files"]:
        content = (parts / file["path"]).read_bytes()
        if sha256(content) != file["sha256"]:
            raise StageError(
                f"{file['path']} is not the file that the plan names: the script was edited. Render it again."
            )
    return written


def pinned(package: dict[str, Any]) -> str:
    """A package of a plan as a line of a requirement file."""
    return f"{package['name']}=={package['version']} --hash=sha256:{package['sha256']}"
