"""Losses that transformers logs and nobody printed: `log_history` of the newest `trainer_state.json`, read as data.

https://huggingface.co/docs/transformers/main_classes/callback#transformers.TrainerState
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from builder.embedded import state

FILE = "trainer_state.json"
"""Its name in transformers, in each checkpoint and, after `save_state`, beside them."""

_LIMIT = 16 << 20  # bytes of the file: about 100,000 rows
_FILES = 1000
_NAME = re.compile(r"[A-Za-z_]{0,20}loss")


class Logged(NamedTuple):
    """One loss of a row."""

    name: str
    value: float


def logged(folder: Path, newest: str, since: float) -> list[Logged]:
    """The losses of the newest state among the checkpoints that match `newest` in `folder`, and beside them.

    A state that was written before `since`, in seconds since 1970, is of another run, and is not read. Returns nothing
    for a file that is damaged or larger than the limit; raises nothing.
    """
    found = max(_states(folder, newest, since), default=None)
    content = None if found is None else state.read_bytes(found[1], _LIMIT)
    return [] if content is None else losses(content)


def _states(folder: Path, newest: str, since: float) -> Iterator[tuple[float, str]]:
    checkpoints = [path for path, _ in zip(folder.glob(newest), range(_FILES), strict=False)]
    for place in {*checkpoints, *(path.parent for path in checkpoints)}:
        path = place / FILE
        try:
            changed = os.lstat(path).st_mtime
        except OSError:
            continue
        if changed >= since:
            yield changed, str(path)


def losses(content: bytes) -> list[Logged]:
    """The losses in the text of a state, in order; nothing where it is none.

    >>> losses(b'{"log_history": [{"loss": 2.5, "step": 1}, {"eval_loss": 2, "step": 1}, {"lossless": 1}]}')
    [Logged(name='loss', value=2.5), Logged(name='eval_loss', value=2.0)]
    """
    try:
        found = json.loads(content)  # with NaN, which transformers writes
    except (ValueError, RecursionError):
        return []
    rows = found.get("log_history") if isinstance(found, dict) else None
    return [one for row in rows if isinstance(row, dict) for one in _of_row(row)] if isinstance(rows, list) else []


def _of_row(row: dict[str, Any]) -> Iterator[Logged]:
    for name, value in row.items():
        if _NAME.fullmatch(name) and isinstance(value, int | float) and not isinstance(value, bool):
            try:
                yield Logged(name, float(value))
            except OverflowError:
                continue
