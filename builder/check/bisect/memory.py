"""What a search has found out so far, kept so that one that was killed goes on.

    cache/bisect/SHA256.json    the answers of one search; named by the digest of all that decides them, deleted at its
                                end, and after a month by another search

It holds answers only: where it is lost, tests run again.
"""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from builder.embedded import state
from builder.files import write_atomically
from builder.store.layout import home

_MONTH = 30 * 86400.0
_SHAPE = {"builds": int, "runs": int, "answers": {str: {"outcome": frozenset(("pass", "fail", "skip")), "words": str}}}


@dataclass(frozen=True)
class Answer:
    """The outcome of a test: pass, fail, or skip where there is none, and its last line."""

    outcome: Any
    words: str


@dataclass
class Memory:
    """The answers by the changes that were taken, how many environments were built for them and how often a test ran.

    The two locks themselves are not among the `builds`.
    """

    path: Path
    answers: dict[str, Answer] = field(default_factory=dict)
    builds: int = 0
    runs: int = 0

    def save(self) -> None:
        """Write it. Raises OSError."""
        data = {"builds": self.builds, "runs": self.runs}
        answers = {key: asdict(one) for key, one in self.answers.items()}
        write_atomically(self.path, json.dumps({**data, "answers": answers}, indent=1))

    def forget(self) -> None:
        """Delete it."""
        self.path.unlink(missing_ok=True)


def recall(deciding: list[str]) -> Memory:
    """What is known of the search that `deciding` decides; nothing, at first."""
    folder = home() / "cache" / "bisect"
    for one in folder.glob("*.json"):
        with suppress(OSError):
            if one.stat().st_mtime < time.time() - _MONTH:
                one.unlink()
    path = folder / f"{hashlib.sha256(json.dumps(deciding).encode()).hexdigest()}.json"
    known = state.read_json(path, _SHAPE)
    if known is None:
        return Memory(path)
    answers = {key: Answer(one["outcome"], one["words"]) for key, one in known["answers"].items()}
    return Memory(path, answers, known["builds"], known["runs"])
