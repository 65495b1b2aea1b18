"""Completes the record of a run that has started: its settings, its machine and its code.

In a process beside the trainer, which must not wait for git or for a probe. What it finds out late or not at all costs
the record that part, and the run nothing.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any

from builder import secrets
from builder.embedded import state
from builder.embedded.secrets import is_secret
from builder.errors import DrydockError
from builder.process import run_all
from builder.resources import version
from builder.run.records import code, folder
from builder.run.records.caller import exported
from builder.run.records.data import data_of

_TIME = 30.0  # seconds for what the script prints
_ASKED = {"asked": {"at": float, "print": [str], "code": str}, "secrets": [str], "arguments": [str]}


def gather(path: Path) -> None:
    """Complete the record at `path`, in the environment of its run. Raises nothing that stops more than a part."""
    os.nice(5)
    record = state.read_json(path, _ASKED, state.LARGE)
    if record is None:
        return
    asked, hidden = record["asked"], {one: os.environ.get(one, "") for one in record["secrets"]}
    found: dict[str, Any] = {}

    def seeds_here() -> dict[str, str]:
        return seeds(record["arguments"], {**os.environ, **(found.get("environment") or {"set": {}})["set"]})

    # The code first: it is what changes.
    for part, find in (
        ("code", lambda: code.code_of(Path(asked["code"]), asked["at"], hidden)),
        ("environment", lambda: _environment(asked["print"], hidden)),
        ("machine", _machine if asked["print"] else lambda: None),  # a job is not run here
        ("data", lambda: _data((record.get("script") or {}).get("object", ""))),
        ("drydock", version),
        ("seeds", seeds_here),
    ):
        try:
            found[part] = find()
        except Exception as error:  # nobody sees this process: what stops one part is said in the record
            found.setdefault("lost", {})[part] = f"{type(error).__name__}: {error}"

    def complete(record: folder.Record) -> None:
        record.pop("asked", None)
        record.update(found)

    with suppress(OSError, DrydockError):
        folder.change(path, complete)


def _environment(command: list[str], hidden: Mapping[str, str]) -> dict[str, Any] | None:
    """What the script sets for the trainer, and what else was exported; None where the script cannot be asked.

    It builds nothing for that.
    """
    if not command:
        return None
    (done,) = run_all([command], timeout=_TIME, env=os.environ)
    made = None if done is None or done.code else settings(done.stdout, hidden)
    return None if made is None else {**made, "exported": exported(os.environ, made, hidden)}


def _data(script: str) -> list[dict[str, Any]] | None:
    """The models and data sets that the script has brought; None where it was not kept."""
    content = folder.read_object(script)
    return None if content is None else data_of(content.decode("utf-8", "replace"))


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


def seeds(arguments: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """The seeds among the arguments and the variables of a trainer, by their names.

    >>> seeds([], {}), seeds(["--seed"], {})
    ({}, {})
    >>> seeds(["--seed", "3", "--data-seed=4", "data.seed=5", "--seeds-of", "x"], {"PYTHONHASHSEED": "0", "SEEDS": "a"})
    {'PYTHONHASHSEED': '0', '--seed': '3', '--data-seed': '4', 'data.seed': '5'}
    """
    found = {name: value for name, value in environ.items() if re.fullmatch(r"\w*SEED", name) and value.isdigit()}
    for one, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        name, equals, value = one.partition("=")
        if name.lower().endswith("seed") and (value if equals else following).isdigit():
            found[name] = value if equals else following
    return found


def _machine() -> dict[str, Any]:
    from builder.machine import detect

    machine = detect()
    here = {"host": os.uname().nodename, "kernel": os.uname().release}
    return {**here, **machine.lasting(), "detected": machine.detected}
