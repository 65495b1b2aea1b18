"""Each host of a fleet trains for itself: one that fails starts again by itself, where the run is supervised."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from builder.errors import EXIT_FAILED
from builder.fleet.checkpoints import resume_code
from builder.fleet.hosts import folded, variables_of
from builder.fleet.members import Member
from builder.fleet.session import ASKED_EVERY, AWAITED, Session
from builder.fleet.ssh import Visit
from builder.run.supervise.policy import History, Restart, decide

if TYPE_CHECKING:
    from builder.fleet.launch import Run

_LOST = 255  # ssh(1): the exit status where ssh itself fails


class Apart:
    """The trainings of a run, one on each host."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._histories: dict[str, History] = {}

    def train(self) -> tuple[int, str]:
        """Train to the end of all; returns the exit status, and why."""
        run = self._run
        members = run.look()
        if not members:
            return EXIT_FAILED, "no host answers"
        run.hold([Session(run, member, self._request(member)) for member in members])
        if run.stopping:
            return run.stopped()
        bad = [m.host for m in run.members.values() if m.code != 0]
        return (EXIT_FAILED, f"{folded(bad)} failed") if bad else (0, "done")

    def _request(self, member: Member, after: float = 0.0) -> dict[str, Any]:
        run = self._run
        environment = {**run.secrets, **variables_of(run.fleet, member.host)}
        request = {**run.request(member, "run"), "script": member.script, "environment": environment, "after": after}
        resume = run.resume(member)
        if resume is not None:  # each start of it looks for the newest there is by then
            request |= {"code": resume_code(), "resume": resume}
        return request

    def ended(self, session: Session) -> Sequence[Visit]:
        """A session has ended; returns the next one of its host, if there is to be one."""
        run, code = self._run, session.member.code
        if run.stopping or not run.supervised or code == 0:
            return ()
        now = time.monotonic()
        if code is None and not session.has_begun and session.code == _LOST:
            return self._asked_again(session, now)
        history = self._histories.get(session.host, History())
        # One that is lost was killed, as its trainer is once it hears nothing of us.
        lines = [] if code is None else session.tail.lines()
        policy = run.policies[session.member.profile]
        decision = decide(137 if code is None else code, lines, now - session.began, now, history, policy)
        if not isinstance(decision, Restart):
            return ()
        self._histories[session.host] = decision.history
        run.journal.restarts += 1
        what = "lost" if code is None else f"exit status {code}"
        run.journal.step(f"{session.host}: {what} ({decision.why}); again in {decision.after:g} s")
        return self._following(session, decision.after, 0.0)

    def _following(self, session: Session, after: float, delay: float) -> Sequence[Visit]:
        session.member.state = "waiting"
        following = Session(self._run, session.member, self._request(session.member, after))
        following.delay = delay
        self._run.sessions.append(following)
        return [following]

    def _asked_again(self, session: Session, now: float) -> Sequence[Visit]:
        """A host that does not answer is no failure of its trainer: it is asked again for a while."""
        since = self._run.silent.setdefault(session.host, now)
        if now - since > AWAITED:
            return ()
        if since == now:
            self._run.journal.step(f"{session.host} does not answer; asking again for {AWAITED / 60:.0f} minutes")
        return self._following(session, 0.0, ASKED_EVERY)
