"""Completes the record of a run that has started: its settings, its machine and its code.

In a process beside the trainer, which must not wait for git or for a probe. What it finds out late or not at all costs
the record that part, and the run nothing.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from builder import secrets
from builder.embedded import state
from builder.embedded.secrets import is_secret
from builder.errors import DrydockError
from builder.process import run_all
from builder.resources import version
from builder.run.records import code, folder

_TIME = 30.0  # seconds for what the script prints
_VOLATILE = ("memory_free", "disk_free")  # of a machine: they say nothing of it a minute later
_ASKED = {"asked": {"at": float, "print": [str], "code": str}, "secrets": [str]}


def gather(path: Path) -> None:
    """Complete the record at `path`, in the environment of its run. Raises nothing that stops more than a part."""
    os.nice(5)
    record = state.read_json(path, _ASKED, state.LARGE)
    if record is None:
        return
    asked, hidden = record["asked"], {one: os.environ.get(one, "") for one in record["secrets"]}
    # The code first: it is what changes.
    found: dict[str, Any] = {"code": code.code_of(Path(asked["code"]), asked["at"], hidden)}
    found["environment"] = _environment(asked["print"], hidden)
    found["machine"] = _machine()
    found["drydock"] = version()

    def complete(record: folder.Record) -> None:
        record.pop("asked", None)
        record.update(found)

    with suppress(OSError, DrydockError):
        folder.change(path, complete)


def _environment(command: list[str], hidden: Mapping[str, str]) -> dict[str, Any] | None:
    """What the script sets for the trainer; None where it cannot be asked. It builds nothing for that."""
    (done,) = run_all([command], timeout=_TIME, env=os.environ)
    return None if done is None or done.code else settings(done.stdout, hidden)


def settings(printed: str, hidden: Mapping[str, str]) -> dict[str, Any] | None:
    """The variables that `--print-env` has printed for a shell, without secrets; None where it is nothing such.

    >>> settings("unset A\\n# B: the default\\nexport B='x y'\\nexport HF_TOKEN='abc'\\n", {})
    {'set': {'B': 'x y', 'HF_TOKEN': '[HF_TOKEN]'}, 'unset': ['A']}
    """
    try:
        words = shlex.split(printed, comments=True)
    except ValueError:
        return None
    found: dict[str, str] = {}
    removed = []
    for verb, what in zip(words[::2], words[1::2], strict=False):
        name, _, value = what.partition("=")
        if verb == "unset":
            removed.append(name)
        elif name in hidden or is_secret(name):
            found[name] = f"[{name}]"
        else:
            found[name] = secrets.redacted(value, hidden, hidden)
    return {"set": found, "unset": sorted(removed)}


def _machine() -> dict[str, Any]:
    from builder.machine import detect

    machine = detect()
    facts = {key: value for key, value in asdict(machine).items() if key not in _VOLATILE}
    for gpu in facts["gpus"] or ():
        del gpu["in_use"]
    return {"host": os.uname().nodename, "kernel": os.uname().release, **facts, "detected": machine.detected}
