"""One training over several hosts, by torchrun.

A host that is lost, or fails, ends it on all. What goes on, goes on from the newest checkpoint that any of them has,
which the others get.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from builder import process
from builder.embedded.words import plural
from builder.errors import EXIT_FAILED
from builder.fleet import checkpoints
from builder.fleet.hosts import folded, variables_of
from builder.fleet.members import Member
from builder.fleet.session import ASKED_EVERY, AWAITED, Session
from builder.fleet.ssh import Visit
from builder.run.supervise.policy import Done, GiveUp, History, decide

if TYPE_CHECKING:
    from builder.fleet.launch import Run


class Together:
    """The training of a run on all its hosts at once."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._first = ""  # the host that ended first, of those that failed

    def train(self) -> tuple[int, str]:
        """Train to the end; returns the exit status, and why."""
        run = self._run
        history = History()
        first = True
        while True:
            least = run.least(len(run.members))
            members = self._answering(least)
            if len(members) < least:
                return self._too_few(members, least)
            more = self._share(members) if run.supervised or not first else []
            began = time.monotonic()
            self._attempt(members, more)
            code, why, tail = self._outcome(members)
            if run.stopping:
                return run.stopped()
            if not run.supervised:
                return code, why
            first = False
            ended = time.monotonic()
            lost = [member.host for member in members if member.state == "lost"]
            if code and lost:
                # What a host takes with it is no failure of the trainer's: it goes on at once, but not for ever.
                history = History(history.failures, (*history.restarts, ended))
                if len(history.restarts) > run.policy.budget:
                    return code, f"{why}, and the budget of {run.policy.budget} restarts is used up"
                run.journal.step(f"{why}; going on without waiting")
            else:
                decision = decide(code, tail, ended - began, ended, history, run.policy)
                if isinstance(decision, Done):
                    return code, why
                if isinstance(decision, GiveUp):
                    return code, f"{why}; {decision.why}"
                history = decision.history
                run.journal.step(f"{why} ({decision.why}); again in {decision.after:g} s")
                if not run.waits(decision.after):
                    return run.stopped()
            run.journal.restarts += 1

    def ended(self, session: Session) -> Sequence[Visit]:
        """A session has ended: one that failed ends all; returns what follows it."""
        if session.member.code != 0 and not self._run.is_ending:
            self._first = session.host
            self._run.end_all()
        return ()

    def _answering(self, least: int) -> list[Member]:
        """Those that answer. Where they are fewer than `least` and this is supervised, all are asked again for a
        while: it may be our own network that is gone.
        """
        run = self._run
        members = run.look()
        until = time.monotonic() + AWAITED
        while len(members) < least and run.supervised and not run.stopping and time.monotonic() < until:
            if not run.is_waiting:
                few = f"{len(members)} of {plural(len(run.members), 'host')} answer, and {least} are needed"
                run.journal.step(f"{few}; asking again for {AWAITED / 60:.0f} minutes")
                run.is_waiting = True
                run.journal.save(phase="waiting")
            if run.waits(ASKED_EVERY):
                members = run.look()
        run.is_waiting = False
        return members

    def _too_few(self, members: Sequence[Member], least: int) -> tuple[int, str]:
        run = self._run
        if run.stopping:
            return run.stopped()
        return EXIT_FAILED, f"{len(members)} of {plural(len(run.members), 'host')} are left, and {least} are needed"

    def _share(self, members: Sequence[Member]) -> list[str]:
        """Bring the newest checkpoint that a host has to the others; returns the arguments to go on from it."""
        run = self._run
        found = None if run.policy.resume is None else checkpoints.newest(members)
        if run.policy.resume is None or found is None:
            return []
        best, lacking = found
        assert best.newest is not None  # noqa: S101 # it is by that the best
        _, argument, path = best.newest
        if lacking:
            run.journal.step(
                f"{path} of {best.host} is the newest checkpoint; {folded(m.host for m in lacking)} get it"
            )
            checkpoints.copy(best, lacking, path, run.request)
        run.journal.step(f"going on from {path}")
        return run.policy.resume.arguments(argument)

    def _attempt(self, members: Sequence[Member], more: Sequence[str]) -> None:
        """One start on some hosts, to its end."""
        run = self._run
        address = run.fleet.meet.get(members[0].host) or _address(members[0].host)
        port = 20_000 + (os.getpid() + 37 * run.journal.restarts) % 20_000
        run.journal.step(f"{run.name} on {folded(m.host for m in members)}, which meet at {address}:{port}")
        run.first_host = members[0].host
        sessions = []
        for rank, member in enumerate(members):
            environment = {
                **run.secrets,
                **variables_of(run.fleet, member.host),
                "PET_NNODES": str(len(members)),
                "PET_NODE_RANK": str(rank),
                "PET_MASTER_ADDR": address,
                "PET_MASTER_PORT": str(port),
                "PET_MAX_RESTARTS": "0",
            }
            request = {**run.request(member, "run"), "script": member.script, "environment": environment}
            sessions.append(Session(run, member, {**request, "arguments": [*run.arguments, *more]}))
        run.hold(sessions)

    def _outcome(self, members: Sequence[Member]) -> tuple[int, str, list[str]]:
        """The exit status of it all, in words, and the last lines of the host that decided it."""
        lost = [member.host for member in members if member.state == "lost"]
        if lost:
            return EXIT_FAILED, f"{folded(lost)} {'was' if len(lost) == 1 else 'were'} lost", []
        failed = [session for session in self._run.sessions if session.member.code]
        if not failed:
            return 0, "done", []
        first = next((session for session in failed if session.host == self._first), failed[0])
        code = first.member.code or EXIT_FAILED
        return code, f"{first.host} ended with exit status {code}", first.tail.lines()


def _address(host: str) -> str:
    """Where ssh finds a host, by its configuration. Raises ToolError."""
    done = process.run(["ssh", "-G", host], timeout=20)
    rows = dict(row.partition(" ")[::2] for row in done.stdout.splitlines())
    return rows.get("hostname", host)
