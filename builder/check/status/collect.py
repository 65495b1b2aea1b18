"""What there is to see, in plain JSON types: read and never changed, and quick enough for every two seconds."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.embedded.state import parse_json
from builder.errors import DrydockError
from builder.report import span
from builder.resources import version
from builder.run.records import folder
from builder.store import generations
from builder.store.layout import Store

if TYPE_CHECKING:
    from builder.machine import Machine
    from builder.project.catalogue import Catalogue

_RUNS = 10
_SAMPLES = 200
_LOG = 64 * 1024  # bytes at the end of a log, of which a live loss is read
_START = re.compile(rb"^drydock: (\S+) the trainer is process \d+$", re.MULTILINE)  # builder/run/supervise/watch.py
_SAMPLE = {"time": float, "cores": float, "resident": int}


def collect(catalogue: Catalogue, machine: Machine) -> dict[str, Any]:
    """Profiles that are the project's own or built, the last runs, the machine and the store."""
    store = Store.here()
    return {
        "drydock": version(),
        "time": folder.timestamp(time.time()),
        "profiles": _profiles(catalogue),
        "runs": [_run_of(head) for head in folder.heads()[-_RUNS:]],
        "machine": [line for line in machine.lines() if not line.startswith("disk: ")],
        "store": {
            "home": str(store.home),
            "environments": len(store.names()),
            "free": _free(store.home),
        },
    }


def _profiles(catalogue: Catalogue) -> list[dict[str, Any]]:
    from builder.project.listing import summaries
    from builder.resources import shipped

    store = Store.here()
    built: dict[str, list[generations.Generation]] = {}
    for one in generations.every():
        built.setdefault(one.name, []).append(one)
    found = []
    known = {row.name: row for row in summaries(catalogue, lambda _: None) if row.platform}
    own = [name for name, row in known.items() if row.file.parent != shipped("profiles")]
    for name in dict.fromkeys([*own, *sorted(built)]):
        some, row = built.get(name, []), known.get(name)
        current = next((one for one in some if one.current), None)
        found.append(
            {
                "name": name,
                "target": f"{row.platform}, {row.accelerator}" if row else "",
                "generation": current.number if current else None,
                "generations": len(some),
                "built": current.created.isoformat(timespec="seconds") if current else "",
                "key": current.key if current else "",
                "there": current is not None and store.is_built(current.store_name),
            }
        )
    return found


def _free(place: Path) -> int | None:
    """Bytes that are free where a folder is, or would be."""
    there = next((one for one in (place, *place.parents) if one.is_dir()), None)
    with suppress(OSError):
        return shutil.disk_usage(there).free if there else None
    return None


def _run_of(head: folder.Head) -> dict[str, Any]:
    try:
        return run(head)
    except DrydockError:  # its record cannot be read
        return {"id": head.id, "name": head.name, "state": head.state}


def run(head: folder.Head) -> dict[str, Any]:
    """All that matters of a run, with its curves. Raises DrydockError where its record cannot be read."""
    record = folder.read(head.id)
    end = record["end"] or head.end or {}
    live = _live(record) if head.state == "running" else None
    shown = live or end
    return {
        "id": record["id"],
        "name": record["name"],
        "command": record["command"],
        "arguments": record["arguments"],
        "state": head.state,
        "started": record["started"],
        "ended": end.get("time"),
        "exit": end.get("exit"),
        "why": end.get("why", ""),
        "store-name": record["store-name"],
        "drydock": record.get("drydock", ""),
        "tags": record["tags"],
        "note": record["note"],
        "machine": record.get("machine") or {},
        "code": record.get("code") or {},
        "settings": (record.get("environment") or {}).get("set", {}),
        "seeds": record.get("seeds") or {},
        "losses": shown.get("losses") or {},
        "curves": shown.get("curves") or {},
        # One sample, at the start of the trainer, says nothing of what it used.
        "used": {} if (used := shown.get("used") or {}).get("samples") == 1 else used,
        "use": shown.get("use") or [],
    }


def duration(run: Mapping[str, Any]) -> str:
    """How long a run took, or has taken."""
    if run["state"] != "running" and not run["ended"]:
        return "its end was not seen"
    try:
        end = datetime.fromisoformat(run["ended"]) if run["ended"] else datetime.now().astimezone()
        return span(max(0.0, (end - datetime.fromisoformat(run["started"])).total_seconds()))
    except (TypeError, ValueError):
        return ""


def _live(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a supervised run that goes on has printed of late, and used; None where nobody supervises it."""
    if not record.get("supervised"):
        return None
    # Not above: they import psutil, 15 ms that the picture of an ended run does not need.
    from builder.run.records.summary import Summary
    from builder.run.supervise import runs

    where = runs.folder(record["name"])
    summary = Summary(runs.losses(record["name"]))
    began = datetime.fromisoformat(record["started"]).timestamp()
    with suppress(OSError):
        with (where / "log").open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _LOG))
            lines = file.read().rpartition(b"\n")[0]
        starts = list(_START.finditer(lines))
        if not starts or datetime.strptime(starts[-1][1].decode(), "%Y-%m-%dT%H:%M:%S%z").timestamp() >= began - 1:
            summary.read(lines[starts[-1].start() if starts else 0 :])
    found = summary.data()
    samples = [parse_json(line, _SAMPLE) for line in runs.last_lines(where / "samples.jsonl", _SAMPLES)]
    use = [[one["time"], one["cores"], one["resident"]] for one in samples if one and one["time"] >= began]
    found["use"] = use
    if use:
        cores = sum(row[1] for row in use) / len(use)
        found["used"] = {"cores": round(cores, 2), "resident": int(max(row[2] for row in use))}
    return found
