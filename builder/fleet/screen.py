"""What many hosts do, on one screen: a line of a terminal that changes; where there is none, a line for each change."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from builder.fleet.hosts import folded
from builder.report import Reporter, sanitized

_SHOWN = 4


class Screen:
    """Hears what hosts do, and shows it folded: `h[1-5] build, h6 receives 12 MB`."""

    def __init__(self, report: Reporter, hosts: int) -> None:
        self._report = report
        self._count = hosts
        self._now: dict[str, str] = {}
        self._changed: list[tuple[str, str]] = []
        self._status: Any = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """While this lasts, it is shown."""
        if not (sys.stderr.isatty() and os.environ.get("TERM") != "dumb"):
            yield
            self.tick()
            return
        from rich.console import Console

        with Console(stderr=True, highlight=False).status("") as self._status:
            yield
        self._status = None

    def now(self, host: str, doing: str) -> None:
        """A host does something else."""
        if self._now.get(host) != doing:
            self._now[host] = doing
            self._changed.append((host, doing))

    def tick(self) -> None:
        """Show what has changed."""
        if not self._changed:
            return
        if self._status is not None:
            from rich.markup import escape

            self._status.update(escape(sanitized(self._line())))
        else:
            for doing, hosts in _grouped(self._changed).items():
                self._report.detail(f"{folded(hosts)}: {doing}")
        self._changed = []

    def _line(self) -> str:
        groups = sorted(_grouped(self._now.items()).items(), key=lambda group: -len(group[1]))
        parts = [f"{folded(hosts)} {doing}" for doing, hosts in groups[:_SHOWN]]
        return ", ".join(parts) + (f", and {len(groups) - _SHOWN} other states" if len(groups) > _SHOWN else "")


def _grouped(doing: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for host, text in doing:
        groups.setdefault(text, []).append(host)
    return groups
