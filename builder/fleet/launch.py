"""Run a trainer on the hosts of a fleet, from here: by torchrun as one training, or on each host for itself.

Each host's ssh is its heartbeat, and the standard input of it its lifeline: a host that is lost is noticed within some
twelve seconds, and where we are gone, all that was started ends.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from builder import secrets
from builder.embedded import claim as kernel
from builder.embedded.words import plural
from builder.errors import DrydockError
from builder.files import make_folder
from builder.fleet import brought
from builder.fleet.apart import Apart
from builder.fleet.checkpoints import Look
from builder.fleet.hosts import folded, hosts_of
from builder.fleet.journal import Journal
from builder.fleet.members import Member, members_of, one_identity
from builder.fleet.recorded import Recorded
from builder.fleet.session import Session
from builder.fleet.ssh import Visit, visit
from builder.fleet.together import Together
from builder.fleet.watch import folder_of
from builder.project.catalogue import Catalogue
from builder.project.evaluate import evaluate
from builder.project.fleets import Fleet
from builder.project.sources import consent
from builder.report import Reporter, sanitized
from builder.run.supervise.policy import Policy
from builder.run.supervise.start import policy_of
from builder.store.layout import Store

_BESIDE = 15.0  # seconds for a host's launcher, beside the trainer's time of grace


class Run:
    """A run of a profile on a fleet."""

    def __init__(
        self,
        fleet: Fleet,
        name: str,
        catalogue: Catalogue,
        report: Reporter,
        arguments: Sequence[str],
        *,
        supervised: bool = False,
        quiet: bool = False,
    ) -> None:
        self.fleet, self.name, self.catalogue, self.report = fleet, name, catalogue, report
        self.arguments, self.supervised = list(arguments), supervised
        # Of auto they are known once the hosts have answered.
        self.way: Together | Apart = Apart(self)
        self.fewest: int | None = None
        self.policy = Policy()
        self.policies: dict[str, Policy] = {}
        if name != "auto":
            self._take([name])
        # A file of the user's own names what trainers need; what else this desk has in its environment stays here.
        secrets.environment(arguments)
        self.secrets = secrets.read()
        self.folder = folder_of(fleet.name, name)
        make_folder(Store.here().home / "fleet")
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.journal = Journal(self.folder, fleet.name, name, self.policy, self.secrets, report, quiet=quiet)
        self.members: dict[str, Member] = {}
        self.sessions: list[Session] = []
        self.silent: dict[str, float] = {}
        """Since when hosts do not answer that are asked again."""
        self.is_waiting = False
        """Whether it was reported already that too few hosts answer."""
        self.first_host = ""
        """The one of which the losses of a training over several hosts are recorded."""
        self.stopping = ""
        self._stop_at = 0.0
        self._records: dict[str, Recorded] = {}

    # --- who takes part ---

    def _take(self, names: Sequence[str]) -> None:
        """Know the profiles that hosts run. Raises ProfileError."""
        profiles = {name: self.catalogue.profile(name) for name in names}
        self.policies = {name: policy_of(self.catalogue.entry(name)) for name in names}
        if len(names) == 1:
            self.policy = self.policies[names[0]]
            self.fewest = profiles[names[0]].launch.fewest
        else:
            self.policy = replace(Policy(), grace=max(policy.grace for policy in self.policies.values()))
        together = any(profile.launch.by_torchrun for profile in profiles.values())
        self.way = Together(self) if together else Apart(self)

    @property
    def _together(self) -> bool:
        return isinstance(self.way, Together)

    def find(self) -> None:
        """Ask all hosts, and take those that have the profile. Raises DrydockError where that is not enough."""
        hosts = hosts_of(self.fleet)
        found, wrong = members_of(self.fleet, self.name, self.catalogue)
        self.members = {host: found[host][0] for host in hosts if host in found}
        self.journal.members = self.members
        self._check(hosts, wrong)

    def _check(self, hosts: Sequence[str], wrong: Mapping[str, str]) -> None:
        for host, why in wrong.items():
            self.report.warn(f"{host}: {why}")
        least = self.least(len(hosts))
        if len(self.members) < least:
            raise DrydockError(
                f"{len(self.members)} of {plural(len(hosts), 'host')} of {self.fleet.name} can run {self.name}",
                hint=f"drydock deploy {self.fleet.name} {self.name}",
            )
        names = list(dict.fromkeys(member.profile for member in self.members.values()))
        if self.name == "auto":
            for name in names:
                consent.check(name, evaluate(name, self.catalogue).content)
                some = folded(member.host for member in self.members.values() if member.profile == name)
                self.report.step(f"auto: {name} on {some}")
            self._take(names)
        kinds: dict[str, list[str]] = {}
        for member in self.members.values():
            kinds.setdefault(member.store_name, []).append(member.host)
        if self._together and len(kinds) > 1:
            raise DrydockError(
                "one training needs one environment: "
                + "; ".join(f"{folded(some)} have {key[:8]}" for key, some in kinds.items()),
                hint=f"drydock deploy {self.fleet.name} {self.name}",
            )
        for name in names:
            if evaluate(name, self.catalogue).store_name not in kinds:
                self.report.warn(f"{name} has changed since it was deployed; it runs as it was")

    def least(self, count: int) -> int:
        """How many of so many hosts must take part."""
        return count if self.fewest is None else min(self.fewest, count)

    def look(self) -> list[Member]:
        """Ask those that take part for their newest checkpoints, and who they are; those that answer."""
        looks = []
        for member in self.members.values():
            member.newest = None
            needs = brought.needed(member.profile, self.fleet, self.catalogue)
            request = {**self.request(member, "look"), "resume": self.resume(member), "needs": needs}
            looks.append(Look(member, request))
        visit(looks)
        for look in looks:
            look.member.state = "ready" if look.code == 0 else "lost"
            if look.code != 0 and not self.is_waiting:
                self.journal.line(look.host, f"drydock: {look.failure()}")
        self._check_identities(looks)
        for look in looks:
            for name in look.values("absent"):
                raise DrydockError(
                    f"the trainer of {look.member.profile} is {sanitized(name)}, which is here, and not in "
                    f"{look.member.folder} of {look.host}",
                    hint=f"have it come along: [fleets.{self.fleet.name}] "
                    f'bring = ["{sanitized(name)}"], with what it needs',
                )
        return [look.member for look in looks if look.code == 0]

    def _check_identities(self, looks: Sequence[Look]) -> None:
        owners: dict[str, list[str]] = {}
        for look in looks:
            for digest in look.values("identity"):
                owners.setdefault(digest, []).append(look.host)
        for hosts in owners.values():
            if len(set(hosts)) > 1:
                raise one_identity(hosts)

    def resume(self, member: Member) -> dict[str, Any] | None:
        """How a member's trainer goes on from a checkpoint; None where it does not."""
        resume = self.policies[member.profile].resume
        return None if resume is None else asdict(resume)

    def request(self, member: Member, do: str) -> dict[str, Any]:
        """What the launcher of a member is asked, whatever it is to do."""
        grace = self.policies[member.profile].grace
        request = {"do": do, "folder": member.folder, "arguments": self.arguments, "grace": grace}
        return {**request, "service": member.service}

    # --- training ---

    def train(self) -> int:
        """Run it to its end; returns the exit status."""
        files = brought.chosen(self.fleet, self.report)
        self.find()
        if files is not None:
            self._bring(files)
        self._record()
        handlers = {
            number: signal.signal(number, lambda number, _: self.stop(f"by {signal.Signals(number).name}"))
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            if signal.getsignal(number) is not signal.SIG_IGN
        }
        try:
            code, why = self.way.train()
        except DrydockError as error:
            self.journal.save(phase="ended", code=error.exit_code, why=error.message)
            for record in self._records.values():
                record.finish(error.exit_code, error.message, self.journal.restarts)
            raise
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        self.journal.save(phase="ended", code=code, why=why)
        for record in self._records.values():
            record.finish(code, why, self.journal.restarts)
        self.journal.step(f"{self.name} on {self.fleet.name} ended: {why}")
        return code

    def _bring(self, files: brought.Files) -> None:
        """Bring files to all that take part. Raises DrydockError where too few hosts have them then."""
        count = len(self.members)
        wrong = brought.bring(files, list(self.members.values()), self.report)
        for host, why in wrong.items():
            self.report.warn(f"{host}: {why}")
            del self.members[host]
        if len(self.members) < self.least(count):
            raise DrydockError(
                f"{len(self.members)} of {plural(count, 'host')} of {self.fleet.name} have the code of {self.name}",
                hint=f"once that is fixed, again: drydock run {self.name} --on {self.fleet.name}",
            )

    def _record(self) -> None:
        """Begin a record for each profile that runs."""
        for name in dict.fromkeys(member.profile for member in self.members.values()):
            some = [member for member in self.members.values() if member.profile == name]
            self._records[name] = Recorded(
                name,
                [member.host for member in some],
                some[0].digest,
                some[0].store_name,
                self.fleet,
                self.catalogue,
                self.arguments,
                self.policies[name],
                together=self._together,
                supervised=self.supervised,
            )

    def hold(self, sessions: list[Session]) -> None:
        """Train in some sessions, and in what follows them, until all have ended."""
        self.sessions = sessions
        self._stop_at = 0.0
        visit(self.sessions, tick=self._tick, at_once=len(self.sessions), beats=True)

    def waits(self, seconds: float) -> bool:
        """Wait; returns whether nobody has stopped us meanwhile."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.stopping:
            time.sleep(0.1)
        return not self.stopping

    # --- what its sessions report ---

    def read(self, member: Member, text: str) -> None:
        """Take a line of a trainer for the record."""
        if member.profile in self._records:
            self._records[member.profile].read(member.host, text, is_first=member.host == self.first_host)

    def ended(self, session: Session) -> Sequence[Visit]:
        """A session has ended; returns what follows it."""
        self.journal.save()
        return self.way.ended(session)

    def is_awaited(self, host: str) -> bool:
        """Whether it was reported already that a host does not answer."""
        return host in self.silent

    def answers(self, host: str) -> None:
        """A host answers."""
        self.silent.pop(host, None)

    # --- its end ---

    def stop(self, how: str) -> None:
        """End it all: a second time, at once."""
        if self.stopping:
            for session in self.sessions:
                session.give_up()
        self.stopping = how

    def stopped(self) -> tuple[int, str]:
        """The exit status of a run that was stopped, and why."""
        return 128 + signal.SIGTERM, f"stopped {self.stopping}"

    def _tick(self) -> None:
        if self.stopping and not self.is_ending:
            self.end_all()
        if self._stop_at and time.monotonic() > self._stop_at:
            for session in self.sessions:
                session.give_up()

    @property
    def is_ending(self) -> bool:
        """Whether all sessions were asked to end."""
        return bool(self._stop_at)

    def end_all(self) -> None:
        """Ask all sessions to end; what does not is given up."""
        self._stop_at = time.monotonic() + self.policy.grace + _BESIDE
        for session in self.sessions:
            session.ask_to_stop()


def start(run: Run) -> int:
    """Run it; returns the exit status. Raises DrydockError where it runs already."""
    if run.name != "auto":
        consent.check(run.name, evaluate(run.name, run.catalogue).content)
    lock = os.open(run.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not kernel.lock(lock):
            raise DrydockError(
                f"{run.name} runs on {run.fleet.name} already",
                hint=f"drydock run {run.name} --on {run.fleet.name} --status, or --stop",
            )
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        return run.train()
    finally:
        os.close(lock)
