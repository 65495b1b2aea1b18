"""A connection to launcher.py on a host, which works for the desk as long as that holds the connection."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from typing import Any

from builder.fleet.members import Member
from builder.fleet.ssh import Visit


class LauncherVisit(Visit):
    """Has the launcher of a host do what a request says, in a member's environment; it reads `content` after that."""

    def __init__(
        self, member: Member, request: Mapping[str, Any], content: Iterable[bytes] = (), *, seconds: float
    ) -> None:
        code = files("builder.fleet").joinpath("launcher.py").read_text(encoding="utf-8")
        values = {"environment": member.store_name, "python": code}
        super().__init__(
            member.host, "launch", values, seconds=seconds, payload=_after(encoded(request), content), held=True
        )
        self.member = member


def encoded(request: Mapping[str, Any]) -> bytes:
    """A request as the line that the launcher reads first."""
    return json.dumps(request).encode() + b"\n"


def _after(first: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
