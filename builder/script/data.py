"""The models and data sets of a plan, as a run script has them. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from builder.embedded.data import place
from builder.lock.model import LockedData
from builder.script.plan import Plan

# Other names of caches, which transformers prefers to huggingface_hub's (utils/hub.py).
_REMOVED = ("TRANSFORMERS_CACHE", "PYTORCH_TRANSFORMERS_CACHE", "PYTORCH_PRETRAINED_BERT_CACHE")
_OFFLINE = {"HF_HUB_CACHE": '"$_data/hub"', "HF_HUB_OFFLINE": "1"}


def data_of(plan: Plan) -> dict[str, Any] | None:
    """What templates need of the data; None where the profile names none.

    `text` is what builder/embedded/data.py reads, and `view` the name of the folder that it makes of it; `paths` are
    variables and where in that they lead.
    """
    locked = plan.lock.data
    if not locked:
        return None
    refs = _refs(locked)
    rows = [_row(one, plan, refs.get(one.name, ())) for one in locked]
    has_hub = any(one.hub for one in locked)
    return {
        "view": f"{_digest(rows)}-{plan.profile.name}",
        "text": _text(rows),
        "paths": {variable(one.name): _path(one, row) for one, row in zip(locked, rows, strict=True)},
        "removed": _REMOVED if has_hub else (),
        "plain": _OFFLINE if has_hub else {},
        "has_folders": any("folder" in row for row in rows),
    }


def variable(name: str) -> str:
    """The variable that leads a trainer to a model or data set.

    >>> variable("tiny-gpt2")
    'DRYDOCK_DATA_TINY_GPT2'
    """
    return f"DRYDOCK_DATA_{name.upper().replace('-', '_')}"


def _path(locked: LockedData, row: Mapping[str, Any]) -> str:
    folder = place(row)
    return f"{folder}/{locked.files[0].path}" if "url" in row else folder


def _refs(locked: list[LockedData]) -> dict[str, list[str]]:
    """The names of revisions, by the data that each is a commit of: also "main", which is what who names none means."""
    found: dict[str, list[str]] = {}
    taken: set[tuple[str | None, ...]] = set()
    asked = [(one, one.revision or "") for one in locked if one.hub]
    for one, revision in [*asked, *((one, "main") for one, _ in asked)]:
        if (one.type, one.hub, revision) not in taken:
            taken.add((one.type, one.hub, revision))
            found.setdefault(one.name, []).append(revision)
    return found


def _row(locked: LockedData, plan: Plan, refs: list[str] | tuple[()]) -> dict[str, Any]:
    said = plan.profile.data[locked.name]
    files = [[file.path, file.size, file.sha256] for file in locked.files]
    if locked.hub is not None:
        where = {"hub": locked.hub, "type": locked.type, "commit": locked.commit, "revisions": list(refs)}
    else:
        where = {"url": said.url} if said.url is not None else {"folder": said.folder}
    return {"name": locked.name, **where, "files": files}


def _digest(rows: list[dict[str, Any]]) -> str:
    """The same for the same files in the same places, wherever they come from."""
    kept = [{key: value for key, value in row.items() if key not in ("url", "folder")} for row in rows]
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _text(rows: list[dict[str, Any]]) -> str:
    """The rows as JSON with a line per file, to be read in a review."""
    texts = []
    for row in rows:
        head = json.dumps({key: value for key, value in row.items() if key != "files"})[:-1]
        texts.append(f'{head}, "files": [\n' + ",\n".join(f"  {json.dumps(file)}" for file in row["files"]) + "\n ]}")
    return "[\n " + ",\n ".join(texts) + "\n]\n"
