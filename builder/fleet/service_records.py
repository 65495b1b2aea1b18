"""What the services of a fleet ran, in the records of this desk: one for each start of a service on a host.

A service runs whether a desk is there or not, and keeps a history of its own (served.py). When a desk asks hosts for
their services it takes what is new into its records: `drydock runs` asks nobody, and shows what was known then.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from builder import log
from builder.embedded import state
from builder.errors import DrydockError
from builder.files import hash_of, write_atomically
from builder.project.catalogue import Catalogue
from builder.project.evaluate import Evaluation, evaluate
from builder.run.records import folder
from builder.run.records.begin import VARIABLE, keep_file
from builder.run.records.identity import is_id
from builder.run.records.words import STOPPED
from builder.store.layout import Store

_RUN = {
    "id": str,
    "began": float,
    "since": float,
    "phase": str,
    "store_name": str,
    "script": str,
    "supervisor": int,
    "restarts": int,
    "arguments": [str],
    "losses": {str: dict},
}
"""A run as a host reports it."""
_LOSS = {"count": int, "not-finite": int, **dict.fromkeys(("first", "last", "lowest"), (float, None))}


def record(fleet: str, profile: str, host: str, runs: Sequence[object], catalogue: Catalogue) -> None:
    """Take the runs of a host's service, oldest first, into the records. Nothing is raised, as of any record."""
    if os.environ.get(VARIABLE) == "0":
        return
    known = _seen(fleet)
    last = known.get(host, "")
    try:
        for run in runs:
            if not (isinstance(run, dict) and state.fits(run, _RUN) and is_id(run["id"])):
                continue  # it never trained, or a host says what it likes
            path = folder.path_of(run["id"])
            if run["id"] > last:
                last = run["id"]
                if not path.exists():
                    folder.put(path, _record(fleet, profile, host, run, catalogue))
            elif path.exists():  # one that was deleted stays so
                _complete(path, fleet, host, run)
        if last != known.get(host, ""):
            write_atomically(_memory(fleet), json.dumps({**known, host: last}, indent=1))
    except (OSError, DrydockError) as error:
        log.add(f"what {host} ran is not recorded: {error}")


def _record(fleet: str, profile: str, host: str, run: Mapping[str, Any], catalogue: Catalogue) -> folder.Record:
    script, lock = _made_of(profile, run, catalogue)
    return {
        "schema": folder.SCHEMA,
        "id": run["id"],
        "name": profile,
        "started": folder.timestamp(run["began"]),
        "command": "train",
        "arguments": run["arguments"],
        "key": run["store_name"].partition("-")[0],
        "store-name": run["store_name"],
        "generation": 0,
        "supervised": True,
        "fleet": {"name": fleet, "hosts": [host], "together": False, "service": True},
        # No machine is called so: only its host knows whether it lives.
        "process": {"pid": run["supervisor"], "host": f"{fleet}:{host}", "boot": "", "ticks": None, "service": host},
        "script": keep_file(script),
        "lock": keep_file(lock),
        "secrets": [],
        "tags": [],
        "note": "",
        "end": _end(run, host),
    }


def _made_of(profile: str, run: Mapping[str, Any], catalogue: Catalogue) -> tuple[Path | None, Path | None]:
    """Script and lock of a run, where they are what the desk would deploy now."""
    found: Evaluation | None = None
    with suppress(DrydockError):
        found = evaluate(profile, catalogue)
    if found is None or found.store_name != run["store_name"]:
        return None, None
    return (found.script if hash_of(found.script) == run["script"] else None), found.lock


def _end(run: Mapping[str, Any], host: str) -> dict[str, Any] | None:
    """How it ended, as far as that is known; None while it runs."""
    if run["phase"] not in ("ended", "killed"):
        return None
    losses = {f"{host} {name}": loss for name, loss in run["losses"].items() if state.fits(loss, _LOSS)}
    beside = {"restarts": run["restarts"], "losses": losses}
    code = run.get("last_exit")
    if run["phase"] == "killed":
        return {"time": None, "exit": None, "why": "its end was not seen", **beside}
    return {
        "time": folder.timestamp(run["since"]),
        "exit": code if isinstance(code, int) else None,
        "why": STOPPED if run.get("why") == "it was stopped" else str(run.get("why", ""))[:300],
        **beside,
    }


def _complete(path: Path, fleet: str, host: str, run: Mapping[str, Any]) -> None:
    """Write the end of a run that was recorded while it ran."""
    record = folder.read(path.stem)
    its = record.get("fleet") or {}
    if record["end"] is not None or its.get("name") != fleet or its.get("hosts") != [host] or _end(run, host) is None:
        return

    def close(record: folder.Record) -> None:
        record["end"] = record["end"] or _end(run, host)

    folder.change(path, close)


def _memory(fleet: str) -> Path:
    return Store.here().fleet / "desk" / f"{fleet}.recorded.json"


def _seen(fleet: str) -> dict[str, str]:
    """The newest run of each host that was recorded."""
    return state.read_json(_memory(fleet), {str: str}) or {}
