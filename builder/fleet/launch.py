"""Run a trainer on the hosts of a fleet, from here: by torchrun as one training, or on each host for itself.

Each host's ssh is its heartbeat, and the standard input of it its lifeline: a host that is lost is noticed within some
twelve seconds, and where we are gone, all that was started ends. Of a training over several hosts one that is lost, or
fails, ends all; what goes on, goes on from the newest checkpoint that any of them has, which the others get.

    fleet/runs/FLEET.NAME/lock, state.json, log, samples.jsonl
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from builder import process, secrets
from builder.embedded import claim as kernel
from builder.embedded.folders import is_below
from builder.embedded.words import plural
from builder.errors import EXIT_FAILED, DrydockError, UsageError
from builder.files import make_folder
from builder.fleet import brought
from builder.fleet.choice import Choice
from builder.fleet.deploy import PROBE_SECONDS
from builder.fleet.facts import Host, host_of
from builder.fleet.hosts import folded, hosts_of, variables_of
from builder.fleet.recorded import Recorded
from builder.fleet.ssh import Visit, visit
from builder.lock import sizes
from builder.names import stem
from builder.project.catalogue import Catalogue
from builder.project.evaluate import evaluate
from builder.project.fleets import Fleet
from builder.project.sources import consent
from builder.report import Reporter, sanitized
from builder.run.supervise import runs
from builder.run.supervise.journal import RotatingFile, Tail, write_state
from builder.run.supervise.policy import Done, GiveUp, History, Policy, Restart, decide
from builder.run.supervise.start import policy_of
from builder.store.layout import Store

_LOOK_SECONDS = 60.0
_COPY_SECONDS = 3600.0
_LOST = 255  # ssh(1): the exit status where ssh itself fails
_BESIDE = 15.0  # seconds for a host's launcher, beside the trainer's time of grace
_AWAITED = 600.0  # seconds for which hosts that do not answer are asked again, where a run is supervised
_ASKED_EVERY = 5.0


@dataclass
class Member:
    """A host that takes part: its `script`, its environment, and what is known of its trainer."""

    host: str
    script: str
    store_name: str
    folder: str
    profile: str
    service: str
    """The folder of its service there (units.py)."""
    digest: str
    """The sha256 of the script."""
    state: str = "ready"
    code: int | None = None
    sample: dict[str, Any] = field(default_factory=dict)
    newest: tuple[list[float], str, str] | None = None
    """Of its newest checkpoint: step and time, the argument for the trainer, the path below the folder."""


class _Session(Visit):
    """A connection on which a trainer runs."""

    def __init__(self, run: Run, member: Member, asked: Mapping[str, Any], *, seconds: float = 0) -> None:
        header = json.dumps(asked).encode() + b"\n"
        values = {"environment": member.store_name, "python": _launcher()}
        super().__init__(member.host, "launch", values, seconds=seconds, payload=[header], held=True)
        self.endless = True
        self.run, self.member = run, member
        self.tail = Tail()
        self.began = time.monotonic()
        self.has_begun = False

    def is_wanted(self) -> bool:
        return not self.run.stopping

    def told(self, text: str) -> None:
        word, _, rest = text.partition(" ")
        if word == "began":
            self.member.state, self.member.code, self.began = "running", None, time.monotonic()
            self.has_begun = True
            self.run.answers(self.host)
            self.run.save()
        elif word == "sample":
            self.run.sample(self.member, rest)
        elif word == "ended" and rest.isdecimal():
            self.member.code = int(rest)

    def said(self, text: str) -> None:
        self.tail.add(text.encode(errors="replace") + b"\n")
        if self.has_begun or not self.run.is_awaited(self.host):
            self.run.line(self.host, text)
        self.run.read(self.member, text)

    def follow(self) -> Sequence[Visit]:
        lost = self.member.code is None
        self.member.state = "lost" if lost else "ended"
        if lost and not self.run.is_awaited(self.host):
            self.run.line(self.host, f"drydock: lost: {self.failure()}")
        return self.run.ended(self)


class Run:
    """A training on a fleet."""

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
        self.arguments, self.supervised, self.quiet = list(arguments), supervised, quiet
        # Of auto they are known once the hosts have answered.
        self.together = False
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
        self.members: dict[str, Member] = {}
        self.sessions: list[_Session] = []
        self.histories: dict[str, History] = {}
        self._silent: dict[str, float] = {}
        self._waited_for = False  # whether it was said already that hosts do not answer
        self.restarts = 0
        self.stopping = ""
        self._stop_at = 0.0
        self._log = RotatingFile(self.folder / "log", self.policy.log_size, self.policy.log_files, report.warn)
        self._samples = RotatingFile(self.folder / "samples.jsonl", self.policy.log_size, 1, report.warn)
        self._began = time.time()
        self._state: dict[str, Any] = {}
        self._records: dict[str, Recorded] = {}
        self._first_host = ""

    # --- what is kept ---

    def line(self, host: str, text: str) -> None:
        """Keep a line of a host, and show it."""
        text = secrets.redacted(sanitized(text), self.secrets, self.secrets.keys())
        self._log.write(f"{time.strftime('%H:%M:%S')} {host} | {text}\n".encode(errors="replace"))
        if not self.quiet:
            with suppress(OSError):
                print(f"{host} | {text}", flush=True)

    def read(self, member: Member, text: str) -> None:
        """Take a line of a trainer for the record."""
        if member.profile in self._records:
            self._records[member.profile].read(member.host, text, is_first=member.host == self._first_host)

    def say(self, text: str) -> None:
        """Say something ourselves, and keep it."""
        self.report.step(text)
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
        self._state |= {"fleet": self.fleet.name, "name": self.name, "desk": os.getpid(), "began": self._began}
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
        write_state(self.folder / "state.json", {**self._state, "hosts": rows})

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
        self.together = any(profile.launch.by_torchrun for profile in profiles.values())

    def find(self) -> None:
        """Ask all hosts, and take those that have the profile. Raises DrydockError where that is not enough."""
        hosts = hosts_of(self.fleet)
        found, wrong = members_of(self.fleet, self.name, self.catalogue)
        self.members = {host: found[host][0] for host in hosts if host in found}
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
        if self.together and len(kinds) > 1:
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

    def answering(self, least: int) -> list[Member]:
        """Those that answer. Where they are fewer than `least` and this is supervised, all are asked again for a
        while: it may be our own network that is gone.
        """
        members = self.look()
        until = time.monotonic() + _AWAITED
        while len(members) < least and self.supervised and not self.stopping and time.monotonic() < until:
            if not self._waited_for:
                few = f"{len(members)} of {plural(len(self.members), 'host')} answer, and {least} are needed"
                self.say(f"{few}; asking again for {_AWAITED / 60:.0f} minutes")
                self._waited_for = True
                self.save(phase="waiting")
            if self._waits(_ASKED_EVERY):
                members = self.look()
        self._waited_for = False
        return members

    def look(self) -> list[Member]:
        """Ask those that take part for their newest checkpoints, and who they are; those that answer."""
        looks = []
        for member in self.members.values():
            member.newest = None
            asked = {**self._asked(member, "look"), "code": _resume_code(), "resume": self._resume(member)}
            asked["needs"] = needed(member.profile, self.fleet, self.catalogue)
            looks.append(_Look(self, member, asked, seconds=_LOOK_SECONDS))
        visit(looks)
        for look in looks:
            look.member.state = "ready" if look.code == 0 else "lost"
            if look.code != 0 and not self._waited_for:
                self.line(look.host, f"drydock: {look.failure()}")
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

    def _check_identities(self, looks: Sequence[_Look]) -> None:
        owners: dict[str, list[str]] = {}
        for look in looks:
            for digest in look.values("identity"):
                owners.setdefault(digest, []).append(look.host)
        for hosts in owners.values():
            if len(set(hosts)) > 1:
                raise one_identity(hosts)

    def share(self, members: Sequence[Member]) -> list[str]:
        """Bring the newest checkpoint that a host has to the others; returns the arguments to go on from it."""
        if self.policy.resume is None or not self.together:
            return []
        having = [(member.newest, member) for member in members if member.newest is not None]
        if not having:
            return []
        (age, argument, path), best = max(having, key=lambda one: one[0][0])
        lacking = [m for m in members if m.newest is None or (m.newest[0][0], m.newest[2]) != (age[0], path)]
        if lacking:
            self.say(f"{path} of {best.host} is the newest checkpoint; {folded(m.host for m in lacking)} get it")
            self._copy(best, lacking, path)
        self.say(f"going on from {path}")
        return [self.policy.resume.flag, argument]

    def _copy(self, best: Member, others: Sequence[Member], path: str) -> None:
        import tempfile

        with tempfile.TemporaryFile(prefix="drydock-fleet-") as kept:
            given = _Given(self, best, {**self._asked(best, "give"), "path": path}, kept.write)
            visit([given])
            if given.code != 0:
                raise DrydockError(f"{path} cannot be read on {best.host}: {given.failure()}")
            kept.flush()
            size = kept.tell()
            number = kept.fileno()

            def content() -> Iterator[bytes]:
                for start in range(0, size, 1 << 17):
                    yield os.pread(number, 1 << 17, start)
                yield b".\n"

            taken = [_Taken(self, m, {**self._asked(m, "take"), "path": path}, content()) for m in others]
            visit(taken)
        for one in taken:
            if one.code != 0:
                raise DrydockError(f"{path} cannot be written on {one.host}: {one.failure()}")

    def _resume(self, member: Member) -> dict[str, Any] | None:
        resume = self.policies[member.profile].resume
        return None if resume is None else asdict(resume)

    def _asked(self, member: Member, do: str) -> dict[str, Any]:
        grace = self.policies[member.profile].grace
        asked = {"do": do, "folder": member.folder, "arguments": self.arguments, "grace": grace}
        return {**asked, "service": member.service}

    # --- training ---

    def train(self) -> int:
        """Run it to its end; returns the exit status."""
        files = brought.chosen(self.fleet, self.report)
        self.find()
        if files is not None:
            bring(files, list(self.members.values()), self.report)
        self._record()
        handlers = {
            number: signal.signal(number, lambda number, _: self.stop(f"by {signal.Signals(number).name}"))
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            if signal.getsignal(number) is not signal.SIG_IGN
        }
        try:
            code, why = self._train_together() if self.together else self._train_apart()
        except DrydockError as error:
            self.save(phase="ended", code=error.exit_code, why=error.message)
            for record in self._records.values():
                record.finish(error.exit_code, error.message, self.restarts)
            raise
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        self.save(phase="ended", code=code, why=why)
        for record in self._records.values():
            record.finish(code, why, self.restarts)
        self.say(f"{self.name} on {self.fleet.name} ended: {why}")
        return code

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
                together=self.together,
                supervised=self.supervised,
            )

    def _train_together(self) -> tuple[int, str]:
        history = History()
        first = True
        while True:
            least = self.least(len(self.members))
            members = self.answering(least)
            if len(members) < least:
                return self._too_few(members, least)
            more = self.share(members) if self.supervised or not first else []
            began = time.monotonic()
            self._attempt(members, more)
            code, why, tail = self._outcome(members)
            if self.stopping:
                return 128 + signal.SIGTERM, f"stopped {self.stopping}"
            if not self.supervised:
                return code, why
            first = False
            ended = time.monotonic()
            lost = [member.host for member in members if member.state == "lost"]
            if code and lost:
                # What a host takes with it is no failure of the trainer's: it goes on at once, but not for ever.
                history = History(history.failures, (*history.restarts, ended))
                if len(history.restarts) > self.policy.budget:
                    return code, f"{why}, and the budget of {self.policy.budget} restarts is used up"
                self.say(f"{why}; going on without waiting")
            else:
                decision = decide(code, tail, ended - began, ended, history, self.policy)
                if isinstance(decision, Done):
                    return code, why
                if isinstance(decision, GiveUp):
                    return code, f"{why}; {decision.why}"
                history = decision.history
                self.say(f"{why} ({decision.why}); again in {decision.after:g} s")
                if not self._waits(decision.after):
                    return 128 + signal.SIGTERM, f"stopped {self.stopping}"
            self.restarts += 1

    def _too_few(self, members: Sequence[Member], least: int) -> tuple[int, str]:
        if self.stopping:
            return 128 + signal.SIGTERM, f"stopped {self.stopping}"
        return EXIT_FAILED, f"{len(members)} of {plural(len(self.members), 'host')} are left, and {least} are needed"

    def _waits(self, seconds: float) -> bool:
        """Wait; returns whether nobody has stopped us meanwhile."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.stopping:
            time.sleep(0.1)
        return not self.stopping

    def _attempt(self, members: Sequence[Member], more: Sequence[str]) -> None:
        """One start on some hosts, to its end."""
        address = self.fleet.meet.get(members[0].host) or _address(members[0].host)
        port = 20_000 + (os.getpid() + 37 * self.restarts) % 20_000
        self.say(f"{self.name} on {folded(m.host for m in members)}, which meet at {address}:{port}")
        self.sessions = []
        self._first_host = members[0].host
        for rank, member in enumerate(members):
            environment = {
                **self.secrets,
                **variables_of(self.fleet, member.host),
                "PET_NNODES": str(len(members)),
                "PET_NODE_RANK": str(rank),
                "PET_MASTER_ADDR": address,
                "PET_MASTER_PORT": str(port),
                "PET_MAX_RESTARTS": "0",
            }
            asked = {**self._asked(member, "run"), "script": member.script, "environment": environment}
            self.sessions.append(_Session(self, member, {**asked, "arguments": [*self.arguments, *more]}))
        self._stop_at = 0.0
        visit(self.sessions, tick=self.tick, at_once=len(self.sessions), beats=True)

    def _outcome(self, members: Sequence[Member]) -> tuple[int, str, list[str]]:
        """The exit status of it all, in words, and the last lines of the host that decided it."""
        lost = [member.host for member in members if member.state == "lost"]
        if lost:
            return EXIT_FAILED, f"{folded(lost)} {'was' if len(lost) == 1 else 'were'} lost", []
        failed = [session for session in self.sessions if session.member.code]
        if not failed:
            return 0, "done", []
        first = next((session for session in failed if session.host == self._first), failed[0])
        code = first.member.code or EXIT_FAILED
        return code, f"{first.host} ended with exit status {code}", first.tail.lines()

    _first = ""
    """The host that ended first, of those that failed."""

    def _train_apart(self) -> tuple[int, str]:
        """Each host for itself."""
        members = self.look()
        if not members:
            return EXIT_FAILED, "no host answers"
        self.sessions = [_Session(self, member, self._alone(member)) for member in members]
        visit(self.sessions, tick=self.tick, at_once=len(self.sessions), beats=True)
        if self.stopping:
            return 128 + signal.SIGTERM, f"stopped {self.stopping}"
        bad = [m.host for m in self.members.values() if m.code != 0]
        return (EXIT_FAILED, f"{folded(bad)} failed") if bad else (0, "done")

    def _alone(self, member: Member, after: float = 0.0) -> dict[str, Any]:
        environment = {**self.secrets, **variables_of(self.fleet, member.host)}
        asked = {**self._asked(member, "run"), "script": member.script, "environment": environment, "after": after}
        resume = self._resume(member)
        if resume is not None:  # each start of it looks for the newest there is by then
            asked |= {"code": _resume_code(), "resume": resume}
        return asked

    def ended(self, session: _Session) -> Sequence[Visit]:
        """A session has ended: that of a training over several hosts ends all; returns what follows it."""
        self.save()
        code = session.member.code
        if self.together:
            if code != 0 and not self._stop_at:
                self._first = session.host
                self._end_all()
            return ()
        if self.stopping or not self.supervised or code == 0:
            return ()
        now = time.monotonic()
        if code is None and not session.has_begun and session.code == _LOST:
            return self._asked_again(session, now)
        history = self.histories.get(session.host, History())
        # One that is lost was killed, as its trainer is once it hears nothing of us.
        lines = [] if code is None else session.tail.lines()
        policy = self.policies[session.member.profile]
        decision = decide(137 if code is None else code, lines, now - session.began, now, history, policy)
        if not isinstance(decision, Restart):
            return ()
        self.histories[session.host] = decision.history
        self.restarts += 1
        what = "lost" if code is None else f"exit status {code}"
        self.say(f"{session.host}: {what} ({decision.why}); again in {decision.after:g} s")
        return self._following(session, decision.after, 0.0)

    def _following(self, session: _Session, after: float, delay: float) -> Sequence[Visit]:
        session.member.state = "waiting"
        following = _Session(self, session.member, self._alone(session.member, after))
        following.delay = delay
        self.sessions.append(following)
        return [following]

    def _asked_again(self, session: _Session, now: float) -> Sequence[Visit]:
        """A host that does not answer is no failure of its trainer: it is asked again for a while."""
        since = self._silent.setdefault(session.host, now)
        if now - since > _AWAITED:
            return ()
        if since == now:
            self.say(f"{session.host} does not answer; asking again for {_AWAITED / 60:.0f} minutes")
        return self._following(session, 0.0, _ASKED_EVERY)

    def is_awaited(self, host: str) -> bool:
        """Whether it was said already that a host does not answer."""
        return host in self._silent

    def answers(self, host: str) -> None:
        """A host answers."""
        self._silent.pop(host, None)

    # --- and its end ---

    def stop(self, how: str) -> None:
        """End it all: a second time, at once."""
        if self.stopping:
            for session in self.sessions:
                session.give_up()
        self.stopping = how

    def tick(self) -> None:
        """Look after the ends of sessions."""
        if self.stopping and not self._stop_at:
            self._end_all()
        if self._stop_at and time.monotonic() > self._stop_at:
            for session in self.sessions:
                session.give_up()

    def _end_all(self) -> None:
        self._stop_at = time.monotonic() + self.policy.grace + _BESIDE
        for session in self.sessions:
            session.ask_to_stop()


class _Asked(Visit):
    """A visit whose end is heard of."""

    def __init__(
        self, host: str, work: str, values: Mapping[str, str | int], then: Callable[[Visit], None], *, seconds: float
    ) -> None:
        super().__init__(host, work, values, seconds=seconds)
        self._then = then

    def follow(self) -> Sequence[Visit]:
        self._then(self)
        return ()


class _Look(Visit):
    """Asks a host for its newest checkpoint."""

    def __init__(self, run: Run, member: Member, asked: Mapping[str, Any], *, seconds: float) -> None:
        header = json.dumps(asked).encode() + b"\n"
        values = {"environment": member.store_name, "python": _launcher()}
        super().__init__(member.host, "launch", values, seconds=seconds, payload=[header], held=True)
        self.run, self.member = run, member

    def told(self, text: str) -> None:
        word, _, rest = text.partition(" ")
        if word == "newest":
            with suppress(ValueError, TypeError, RecursionError):
                step, changed, argument, path = json.loads(rest)
                if _is_below(path) and isinstance(argument, str) and argument.isprintable():
                    self.member.newest = ([float(step), float(changed)], argument, path)


class _Given(_Look):
    """Reads a checkpoint, in lines."""

    def __init__(self, run: Run, member: Member, asked: Mapping[str, Any], write: Callable[[bytes], Any]) -> None:
        super().__init__(run, member, asked, seconds=_COPY_SECONDS)
        self.endless = True
        self._write = write

    def said(self, text: str) -> None:
        self.words.clear()
        self._write(text.encode("ascii", "replace") + b"\n")


class _Taken(_Look):
    """Writes one."""

    def __init__(self, run: Run, member: Member, asked: Mapping[str, Any], content: Iterable[bytes]) -> None:
        super().__init__(run, member, asked, seconds=_COPY_SECONDS)
        header = next(self.payload)
        self.payload = _after(header, content)


def needed(name: str, fleet: Fleet, catalogue: Catalogue) -> list[str]:
    """The files of the project here that the command of a trainer names, where nothing else brings them."""
    trainer = catalogue.profile(name).trainer
    if trainer.source is not None or not fleet.root.is_absolute():
        return []
    words = [word for word in trainer.command or () if word.endswith((".py", ".sh")) and not word.startswith("/")]
    return [word for word in words if (fleet.root / word).is_file()]


def bring(files: brought.Files, members: Sequence[Member], report: Reporter) -> None:
    """Have the files of the project on some hosts, as they are now. Raises DrydockError."""

    def now(host: str, size: int) -> None:
        report.step(f"{host} gets {sizes.size(size)} of {plural(len(files.rows), 'file')} from here")

    visits = [
        brought.Brought(
            member.host,
            {"environment": member.store_name, "python": _launcher()},
            {"folder": member.folder},
            files,
            now,
        )
        for member in members
    ]
    visit(visits)
    brought.check(visits)


def one_identity(hosts: Iterable[str]) -> DrydockError:
    """The error of hosts that are the same to others."""
    return DrydockError(
        f"{folded(hosts)} have one identity: the same swarm.pem",
        hint="each host has its own: move it away on all but one, and the trainer makes another",
    )


def members_of(fleet: Fleet, name: str, catalogue: Catalogue) -> tuple[dict[str, tuple[Member, Host]], dict[str, str]]:
    """Ask all hosts of a fleet; returns those on which `name` is built, and why the others cannot run it."""
    choice = Choice(name, catalogue)
    found: dict[str, tuple[Member, Host]] = {}
    wrong: dict[str, str] = {}

    def probed(host: str, done: Visit) -> None:
        answer = host_of(done.marked) if done.code == 0 else None
        if answer is None:
            wrong[host] = done.failure()
            return
        try:
            chosen = choice.of(answer.machine)
        except DrydockError as error:
            wrong[host] = error.message
            return
        here = answer.current.get(stem(chosen))
        if here is None or not here.files:
            wrong[host] = f"{chosen} is not built there"
            return
        script = f"{answer.store}/profiles/{stem(chosen)}-{here.number}-run.sh"
        folder = fleet.folder or f"drydock/{stem(chosen)}"
        service = f"{answer.fleet}/services/{stem(chosen)}"
        found[host] = Member(host, script, here.store_name, folder, chosen, service, here.script), answer

    visit([_Asked(host, "probe", {}, partial(probed, host), seconds=PROBE_SECONDS) for host in hosts_of(fleet)])
    return found, wrong


def _after(first: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _is_below(path: object) -> bool:
    return isinstance(path, str) and path.isprintable() and not path.startswith("-") and is_below(path)


def _launcher() -> str:
    return files("builder.fleet").joinpath("launcher.py").read_text(encoding="utf-8")


def _resume_code() -> str:
    return files("builder.embedded").joinpath("resume.py").read_text(encoding="utf-8")


def _address(host: str) -> str:
    """Where ssh finds a host, by its configuration. Raises ToolError."""
    done = process.run(["ssh", "-G", host], timeout=20)
    rows = dict(row.partition(" ")[::2] for row in done.stdout.splitlines())
    return rows.get("hostname", host)


# --- from another terminal -----------------------------------------------------------------------------------------


def folder_of(fleet: str, name: str) -> Path:
    """Where what is known of a run is kept."""
    return Store.here().fleet / "runs" / f"{fleet}.{stem(name)}"


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


def desk_of(folder: Path) -> int | None:
    """The process that runs it now; None where none does."""
    try:
        lock = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        words = os.pread(lock, 32, 0).split()
        return int(words[0]) if words and words[0].isdigit() else None
    else:
        return None
    finally:
        os.close(lock)


def status(fleet: Fleet, name: str) -> dict[str, Any]:
    """The state of the run. Raises UsageError where there was none."""
    folder = folder_of(fleet.name, name)
    found = read_state_of(folder)
    if not found:
        raise UsageError(f"{name} never ran on {fleet.name}", hint=f"drydock run {name} --on {fleet.name}")
    if found.get("phase") != "ended" and desk_of(folder) is None:
        found["phase"] = "abandoned"
        for row in found["hosts"].values():
            row["state"] = "ended" if row.get("state") in ("running", "waiting") else row.get("state")
    return found


def read_state_of(folder: Path) -> dict[str, Any]:
    """What a run has written of itself; empty where there is nothing to read."""
    from builder.embedded.state import read_json

    shape = {"fleet": str, "name": str, "desk": int, "restarts": int, "phase": str, "hosts": {str: dict}}
    return read_json(folder / "state.json", shape) or {}


def told(state: Mapping[str, Any]) -> Iterator[str]:
    """A status in words: hosts that are alike share a line."""
    phases = {
        "running": f"{state['name']} runs on {state['fleet']}, from process {state['desk']}",
        "waiting": f"{state['name']} on {state['fleet']} waits for hosts that do not answer, process {state['desk']}",
        "abandoned": f"{state['name']} on {state['fleet']}: the desk's process was killed, and with it all ended",
    }
    ended = f"{state['name']} on {state['fleet']} ended: {state.get('why', '')}"
    yield f"{phases.get(state['phase'], ended)}; restarts: {state['restarts']}"
    groups: dict[str, list[str]] = {}
    for host, row in state["hosts"].items():
        code = f", exit status {row['code']}" if row.get("code") is not None else ""
        what = f"{row.get('profile')} " if state["name"] == "auto" else ""
        groups.setdefault(f"{what}{row.get('state')}{code}", []).append(host)
    for words, hosts in groups.items():
        used = [state["hosts"][host].get("memory", 0) for host in hosts]
        memory = f", {min(used) / 1e6:.0f} to {max(used) / 1e6:.0f} MB" if any(used) else ""
        yield f"  {folded(hosts)}: {words}{memory}"


def log(fleet: Fleet, name: str, *, follow: bool) -> Iterator[bytes]:
    """The log. Raises UsageError where there is none."""
    folder = folder_of(fleet.name, name)
    if not (folder / "log").is_file():
        raise UsageError(f"{name} has no log of {fleet.name}", hint=f"drydock run {name} --on {fleet.name}")
    yield from runs.read_log(folder / "log", lambda: desk_of(folder) is not None, follow=follow)


def stop(fleet: Fleet, name: str, say: Callable[[str], None]) -> None:
    """Stop it, and wait for its end."""
    folder = folder_of(fleet.name, name)
    number = desk_of(folder)
    if number is None:
        say(f"{name} does not run on {fleet.name}")
        return
    with suppress(ProcessLookupError):
        os.kill(number, signal.SIGTERM)
    while desk_of(folder) is not None:
        time.sleep(0.1)
    say(f"{name} has ended on {fleet.name}")
