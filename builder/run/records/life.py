"""Whether the process of a run lives: by its id and its start, on this machine and since this start of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from builder.embedded import claim
from builder.store.roots import host


def of(number: int) -> dict[str, Any]:
    """What tells a process from all others; `ticks` is its start since that of the machine: no clock is in it."""
    found = _state(number)
    return {"pid": number, "host": host(), "boot": claim.boot(), "ticks": found[1] if found else None}


def of_job(job: str) -> dict[str, Any]:
    """What stands for the processes of a job of Slurm, of which only Slurm knows."""
    return {"pid": 0, "host": "", "boot": "", "ticks": None, "job": job}


def is_of_here(process: Mapping[str, Any]) -> bool:
    """Whether a process was one of this machine; of another nothing can be said."""
    return bool(process["host"] == host())


def has_ended(process: Mapping[str, Any]) -> bool:
    """Whether a process of this machine has ended; False where that cannot be known."""
    if not is_of_here(process):
        return False
    if process["boot"] != claim.boot():
        return True
    number, began = process["pid"], process.get("ticks")
    now = _state(number) if 0 < number < 2**31 else None
    return now is None or now[0] == "Z" or (began is not None and now[1] is not None and now[1] != began)


def _state(number: int) -> tuple[str, str | None] | None:
    """The state of a process (Z where it has ended, and its parent has not asked yet) and its start; None for none.

    On Linux the start is in ticks since that of the machine (proc(5), `starttime`), else psutil has it.
    """
    if os.uname().sysname == "Linux":
        try:
            with Path(f"/proc/{number}/stat").open("rb") as file:
                # The name may have anything in it, but nothing after it has a bracket.
                fields = file.read().rpartition(b")")[2].split()
            return fields[0].decode(), fields[19].decode()
        except (FileNotFoundError, ProcessLookupError):
            return None
        except (OSError, IndexError):
            return "?", None
    import psutil

    try:
        one = psutil.Process(number)
        return ("Z" if one.status() == psutil.STATUS_ZOMBIE else "?"), f"{one.create_time():.2f}"
    except psutil.NoSuchProcess:
        return None
    except psutil.Error:
        return "?", None
