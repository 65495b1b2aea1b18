"""The connection on which a host trains: its ssh is the host's heartbeat, and its input the trainer's lifeline."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from builder.fleet.connection import LauncherVisit
from builder.fleet.journal import Journal
from builder.fleet.members import Member
from builder.fleet.ssh import Visit
from builder.run.supervise.journal import Tail

AWAITED = 600.0
"""Seconds for which hosts that do not answer are asked again, where a run is supervised."""
ASKED_EVERY = 5.0


class Owner(Protocol):
    """The training that a session belongs to."""

    journal: Journal
    stopping: str

    def read(self, member: Member, text: str) -> None:
        """Take a line of a trainer."""

    def is_awaited(self, host: str) -> bool:
        """Whether it was reported already that a host does not answer."""

    def answers(self, host: str) -> None:
        """A host answers."""

    def ended(self, session: Session) -> Sequence[Visit]:
        """A session has ended; returns what follows it."""


class Session(LauncherVisit):
    """A trainer on one host, from its start to its end."""

    def __init__(self, owner: Owner, member: Member, request: Mapping[str, Any]) -> None:
        super().__init__(member, request, seconds=0)
        self.endless = True
        self.tail = Tail()
        self.began = time.monotonic()
        self.has_begun = False
        self._owner = owner

    def is_wanted(self) -> bool:
        return not self._owner.stopping

    def read_answer(self, text: str) -> None:
        word, _, rest = text.partition(" ")
        if word == "began":
            self.member.state, self.member.code, self.began = "running", None, time.monotonic()
            self.has_begun = True
            self._owner.answers(self.host)
            self._owner.journal.save()
        elif word == "sample":
            self._owner.journal.sample(self.member, rest)
        elif word == "ended" and rest.isdecimal():
            self.member.code = int(rest)

    def read_line(self, text: str) -> None:
        self.tail.add(text.encode(errors="replace") + b"\n")
        if self.has_begun or not self._owner.is_awaited(self.host):
            self._owner.journal.line(self.host, text)
        self._owner.read(self.member, text)

    def follow(self) -> Sequence[Visit]:
        lost = self.member.code is None
        self.member.state = "lost" if lost else "ended"
        if lost and not self._owner.is_awaited(self.host):
            self._owner.journal.line(self.host, f"drydock: lost: {self.failure()}")
        return self._owner.ended(self)
