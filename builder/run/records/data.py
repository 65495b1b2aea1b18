"""The models and data sets of a run, by revision and content, as its script names them (builder/script/data.py)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

_CARRIED = re.compile(r"""^  cat >"\$_work/data" <<'(\w+)'[^\n]*\n(.*?)^\1$""", re.DOTALL | re.MULTILINE)


def data_of(script: str) -> list[dict[str, Any]]:
    """What a run script has brought; nothing where it names none. Raises ValueError, KeyError for what is no script."""
    found = _CARRIED.search(script)
    return [_row(one) for one in json.loads(found[2])] if found else []


def _row(entry: Mapping[str, Any]) -> dict[str, Any]:
    # As LockedData.sha256 of builder/lock/model.py.
    content = json.dumps([[path, digest] for path, _, digest in entry["files"]], separators=(",", ":"))
    return {
        **{key: entry[key] for key in ("name", "hub", "type", "commit", "url", "folder") if key in entry},
        "sha256": hashlib.sha256(content.encode()).hexdigest(),
        "files": len(entry["files"]),
        "size": sum(size for _, size, _ in entry["files"]),
    }


def label(row: Mapping[str, Any]) -> str:
    """Which one it is: where it is from, its commit, and the beginning of its sha256."""
    commit = f", commit {str(row['commit'])[:12]}" if row.get("commit") else ""
    return f"{row.get('hub') or row.get('url') or row.get('folder')}{commit}, sha256 {str(row['sha256'])[:12]}"


def labels(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Those of several, by their names."""
    return {row["name"]: label(row) for row in rows}
