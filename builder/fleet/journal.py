"""What a desk keeps of a run on a fleet: the lines of its hosts, what they use, and how it is.

They are log, samples.jsonl and state.json of fleet/runs/FLEET.NAME in the store.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from builder import secrets
from builder.fleet.members import Member
from builder.report import Reporter, sanitized
from builder.run.supervise.journal import RotatingFile, write_state
from builder.run.supervise.policy import Policy


class Journal:
    """Of one run, in `folder`. `hidden` are secrets by their names, which are in none of it."""

    def __init__(
        self,
        folder: Path,
        fleet: str,
        name: str,
        policy: Policy,
        hidden: Mapping[str, str],
        report: Reporter,
        *,
        quiet: bool,
    ) -> None:
        self._folder, self._hidden, self._report, self._quiet = folder, hidden, report, quiet
        self._log = RotatingFile(folder / "log", policy.log_size, policy.log_files, report.warn)
        self._samples = RotatingFile(folder / "samples.jsonl", policy.log_size, 1, report.warn)
        self._state: dict[str, Any] = {"fleet": fleet, "name": name, "desk": os.getpid(), "began": time.time()}
        self.members: Mapping[str, Member] = {}
        self.restarts = 0

    def line(self, host: str, text: str) -> None:
        """Keep a line of a host, and show it."""
        text = sanitized(secrets.redacted(text, self._hidden, self._hidden.keys()))
        self._log.write(f"{time.strftime('%H:%M:%S')} {host} | {text}\n".encode(errors="replace"))
        if not self._quiet:
            with suppress(OSError):
                print(f"{host} | {text}", flush=True)

    def step(self, text: str) -> None:
        """Report something of the desk's own, and keep it."""
        self._report.step(text)
        self._log.write(f"{time.strftime('%H:%M:%S')} desk | {sanitized(text)}\n".encode())

    def sample(self, member: Member, text: str) -> None:
        """Keep what a host's trainer uses."""
        try:
            found = json.loads(text)
            member.sample = {name: float(found[name]) for name in ("time", "processes", "memory", "load")}
        except (ValueError, KeyError, TypeError, RecursionError):
            return
        self._samples.write(json.dumps({"host": member.host, **member.sample}).encode() + b"\n")
        self.save()

    def save(self, **more: Any) -> None:
        """Write the state."""
        self._state |= {"phase": "running", "restarts": self.restarts, "since": time.time(), **more}
        rows = {
            host: {
                "state": member.state,
                "code": member.code,
                "store_name": member.store_name,
                "profile": member.profile,
            }
            | member.sample
            for host, member in self.members.items()
        }
        write_state(self._folder / "state.json", {**self._state, "hosts": rows})


def least_to_most(sizes: Sequence[float]) -> str:
    """The sizes of some trainers, in bytes, in a few words.

    >>> least_to_most([26_100_000, 52_000_000]), least_to_most([52_000_000])
    ('26 to 52 MB', '52 MB')
    """
    least, most = (f"{size / 1e6:.0f}" for size in (min(sizes), max(sizes)))
    return f"{most} MB" if least == most else f"{least} to {most} MB"
