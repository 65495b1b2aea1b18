"""What every script carries, remembered: making the machinery compact takes longer than the rest of rendering."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from builder import embedded, script
from builder.embedded import state
from builder.errors import DrydockError
from builder.files import states, write_atomically
from builder.script.render import Carried
from builder.script.templates import make_carried
from builder.store.layout import home


def carried(*, remember: bool = False) -> Carried:
    """What scripts carry: as it is remembered of this very code, or made anew, and remembered where that is wanted."""
    memory = _memory()
    record = memory and state.read_json(memory, {**dict.fromkeys(Carried._fields, str), "machinery": {str: [str]}})
    if record and record.pop("sha256", "") == _digest(record):
        return Carried(**{name: record[name] for name in Carried._fields})
    new = make_carried()
    if remember and memory:
        with suppress(OSError):  # it is made anew the next time
            write_atomically(memory, json.dumps({**new._asdict(), "sha256": _digest(new._asdict())}))
    return new


def _digest(record: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _memory() -> Path | None:
    code = [one for package in (embedded, script) for one in sorted(states(Path(package.__path__[0])))]
    try:
        return home() / "cache" / "carried" / f"{hashlib.sha256(json.dumps(code).encode()).hexdigest()}.json"
    except DrydockError:  # there is no home
        return None
