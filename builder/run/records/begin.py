"""The record of a run that starts: its head at once, the rest by a process beside. A run never fails for its record."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from builder import log, process, secrets
from builder.embedded import state
from builder.errors import DrydockError
from builder.run.records import folder, life
from builder.run.records.identity import new_id

VARIABLE = "DRYDOCK_RECORDS"
"""With the value 0, runs are not recorded."""


def begin(
    name: str,
    command: str,
    arguments: Sequence[str],
    *,
    store_name: str,
    generation: int,
    script: Sequence[str],
    script_path: Path | None,
    lock: Path | None,
    project: Path | None,
    environment: Mapping[str, str],
    names: Sequence[str],
    supervised: bool = False,
    of: str = "",
    job: str = "",
    fleet: Mapping[str, Any] | None = None,
    warn: Callable[[str], None] = log.add,
) -> Path | None:
    """Record a run that this process becomes: the path of the record, None where there is none.

    `script` is what runs the script, `lock` the one it was made of, where that is known; `names` are the secrets of
    the trainer's `environment`, `of` is the run that this one repeats. Where it is a `job` of Slurm, its number, or is
    on hosts of a `fleet`, it runs elsewhere. Nothing is raised: `warn` gets why it cannot be recorded.
    """
    if environment.get(VARIABLE) == "0":
        return None
    now = time.time()
    try:
        record: folder.Record = {
            "schema": folder.SCHEMA,
            "id": new_id(now),
            "name": name,
            "started": folder.timestamp(now),
            "command": command,
            "arguments": secrets.redacted_arguments(arguments, environment, names),
            "folder": str(Path.cwd()),
            "key": store_name.partition("-")[0],
            "store-name": store_name,
            "generation": generation,
            "supervised": supervised,
            **({"of": of} if of else {}),
            **({"fleet": fleet} if fleet else {}),
            "process": life.of_job(job) if job else life.of(os.getpid()),
            "script": keep_file(script_path),
            "lock": keep_file(lock),
            "secrets": list(names),
            "tags": [],
            "note": "",
            "end": None,
            "asked": {"at": now, "print": list(script), "code": str(project or Path.cwd())},
        }
        path = folder.path_of(record["id"])
        folder.put(path, record)
        # -P: a folder called `builder` where we are is not ours.
        process.detach([sys.executable, "-P", "-m", "builder.run.records", str(path)], env=environment)
    except (OSError, DrydockError) as error:
        why = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error.message
        warn(f"the run is not recorded: {why}")
        return None
    return path


def keep_file(path: Path | None) -> dict[str, Any] | None:
    """Keep a file that runs share: its digest; None where it cannot be read."""
    content = None if path is None else state.read_bytes(path, state.LARGE, follow=True)
    return None if content is None else {"object": folder.keep(content)}


def finish(path: Path | None, **end: Any) -> None:
    """Complete the record of a run whose end was seen: `exit`, `why` and what else is known of it. Raises nothing."""
    if path is None:
        return

    def close(record: folder.Record) -> None:
        record["end"] = {"time": folder.timestamp(time.time()), **end}

    with suppress(OSError, DrydockError):
        folder.change(path, close)
