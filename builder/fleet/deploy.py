"""Deploy profiles to a fleet: ask every host, build on all that lack something, and only then switch all.

The script builds, as everywhere; what a host lacks of the locked files comes over the same connection. A deployment
that fails has built here and there, and changes nothing that runs. What became of it is remembered at the desk:

    fleet/desk/NAME.json    of each host its state, its profile, and the generation that was current before
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from builder.embedded import state
from builder.embedded.words import plural
from builder.errors import ConsentError, DrydockError, UsageError
from builder.files import make_folder, write_atomically
from builder.fleet import copies, parcel
from builder.fleet.choice import Choice
from builder.fleet.facts import Host, host_of, known_again
from builder.fleet.hosts import folded, hosts_of
from builder.fleet.parcel import Subject
from builder.fleet.screen import Screen
from builder.fleet.ssh import Visit, visit
from builder.project.catalogue import Catalogue
from builder.project.fleets import Fleet
from builder.report import Reporter
from builder.share.mirror.locked import LockedFile
from builder.store.layout import Store

PROBE_SECONDS = 30.0
SWITCH_SECONDS = 60.0
_WRONG_CLOCK = 300.0  # seconds: certificates and logs begin to be wrong

# What can become of a host. The first five are good.
CURRENT, SWITCHED, BUILT, WOULD, WOULD_SWITCH = "current", "switched", "built", "would be built", "would be switched"
UNREACHABLE, FAILED, LOST, UNDONE = "unreachable", "failed", "lost", "undone"
GOOD = (CURRENT, SWITCHED, BUILT, WOULD, WOULD_SWITCH)


@dataclass
class Outcome:
    """What became of a host; `why` is for one that is not good. `sent` in bytes; `was` is its generation before."""

    state: str = ""
    why: str = ""
    profile: str = ""
    store_name: str = ""
    python: str = ""
    files: str = ""
    was: int = 0
    sent: int = 0

    @property
    def is_good(self) -> bool:
        """Whether nothing went wrong."""
        return self.state in GOOD


@dataclass(frozen=True)
class Deployment:
    """What became of each host, and whether the fleet was switched."""

    fleet: str
    hosts: Mapping[str, Outcome]
    switched: bool

    @property
    def failed(self) -> list[str]:
        """The hosts on which something went wrong."""
        return [host for host, outcome in self.hosts.items() if not outcome.is_good]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        hosts = {host: asdict(outcome) for host, outcome in self.hosts.items()}
        return {"fleet": self.fleet, "switched": self.switched, "hosts": hosts}


@dataclass
class Options:
    """What is asked of a deployment; `fewest` hosts must be built, None for all."""

    dry_run: bool = False
    only_failed: bool = False
    verify: bool = False
    fewest: int | None = None


class Work:
    """One deployment that is under way."""

    def __init__(self, fleet: Fleet, profile: str, catalogue: Catalogue, report: Reporter, options: Options) -> None:
        self.fleet, self.profile, self.catalogue, self.report = fleet, profile, catalogue, report
        self.options = options
        self.outcomes: dict[str, Outcome] = {}
        self.hosts: dict[str, Host] = {}
        self.screen = Screen(report, 0)
        self._subjects: dict[str, Subject] = {}
        self._choice = Choice(profile, catalogue)
        self._deferred: list[str] = []
        self._absent: dict[str, LockedFile] = {}
        self._sent: dict[str, frozenset[LockedFile]] = {}
        self._repeated: set[str] = set()
        self._parcels: dict[object, parcel.Parcel] = {}

    # --- what each host is to have ---

    def subject(self, host: Host) -> Subject:
        """What a host is to have. Raises DrydockError where nothing is for it."""
        name = self._choice.of(host.machine)
        if name not in self._subjects:
            self._subjects[name] = parcel.subject(name, self.catalogue)
        target = self.catalogue.target(name) or self.catalogue.profile(name).target
        if target.platform != host.machine.platform:
            raise UsageError(f"{name} is for {target.platform}, and this is {host.machine}")
        return self._subjects[name]

    def needed(self, what: Subject, host: Host) -> tuple[list[LockedFile], bool]:
        """The files that a host lacks, and whether it lacks the script or anything else."""
        here = host.current.get(what.stem)
        is_there = here is not None and here.store_name == what.store_name and here.files != ""
        is_current = is_there and here is not None and here.script == what.sha256
        if is_current:
            return [], False
        # Data and the trainer's own code are not in the key: an environment that is there says nothing of them.
        return [file for file in what.lacking(host) if not is_there or file.is_data or file.is_trainer], True

    # --- the phases ---

    def probe(self, host: str) -> Visit:
        """Ask a host what it is; what it lacks follows at once, where the desk has it."""
        return _Visit(self, host, "probe", {}, seconds=PROBE_SECONDS, then=partial(self._probed, host))

    def _probed(self, host: str, done: Visit) -> Sequence[Visit]:
        outcome = self.outcomes[host]
        found = host_of(done.marked) if done.code == 0 else None
        if found is None:
            self.fails(host, done, UNREACHABLE if done.code == 255 and not done.marked else FAILED)
            return ()
        self.hosts[host] = found
        if abs(found.clock) > _WRONG_CLOCK:
            self.report.warn(
                f"the clock of {host} is {abs(found.clock):.0f} s {'ahead' if found.clock > 0 else 'behind'}"
            )
        try:
            what = self.subject(found)
        except ConsentError:
            raise
        except DrydockError as error:
            self.ends(host, FAILED, error.message)
            return ()
        files, lacks = self.needed(what, found)
        here = found.current.get(what.stem)
        outcome.profile, outcome.store_name = what.name, what.store_name
        outcome.was = here.number if here else 0
        if not lacks and here is not None:
            outcome.python, outcome.files = here.python, here.files
            if not self.options.verify:
                self.ends(host, CURRENT)
                return ()
        if self.options.dry_run:
            outcome.sent = sum(file.size for file in files)
            had = what.store_name in found.generations.get(what.stem, {}).values()
            self.ends(host, CURRENT if not lacks else WOULD_SWITCH if had else WOULD)
            return ()
        return self._send(host, what, files)

    def _send(self, host: str, what: Subject, files: Sequence[LockedFile]) -> Sequence[Visit]:
        """The build of a host; nothing yet where the desk must fetch something first."""
        missing = parcel.absent(files)
        if missing:
            self._absent.update((file.path, file) for file in missing)
            self._deferred.append(host)
            self.screen.now(host, "waits for the desk")
            return ()
        return [self._build(host, what, files)]

    def _build(self, host: str, what: Subject, files: Sequence[LockedFile]) -> Visit:
        sends_script = what.sha256 not in self.hosts[host].scripts
        found = self.hosts[host], self.fleet.send, len(self.outcomes)
        copied = {} if host in self._repeated else copies.copies(what, files, *found)
        packed = self._parcel(what, files, copied, script=sends_script)
        values: dict[str, str | int] = {
            "size": packed.size,
            "sha256": what.sha256,
            "file": what.file,
            "environment": what.store_name,
            "uv": what.uv_version,
            "verify": "yes" if self.options.verify else "no",
            "series": what.series,
            "python": copies.code() if copied else "",
        }
        self._sent[host] = frozenset(files) - copied.keys()
        self.outcomes[host].sent += packed.total
        self.screen.now(host, f"receives {packed.total / 1e6:.1f} MB{' unpacked' if copied else ''}")
        return _Visit(
            self, host, "build", values, seconds=0, payload=packed.chunks(), held=True, then=partial(self._built, host)
        )

    def _parcel(
        self, what: Subject, files: Sequence[LockedFile], copied: Mapping[LockedFile, copies.Copy], *, script: bool
    ) -> parcel.Parcel:
        """What a host is sent; hosts that lack the same share one."""
        key = (what.name, frozenset(files), frozenset(copied), script)
        if key not in self._parcels:
            more, raw = copies.members(list(copied.values()), what.tag) if copied else ([], [])
            rest = [file for file in files if file not in copied]
            self._parcels[key] = parcel.parcel(what, rest, self.work, script=script, more=more, raw=raw)
        return self._parcels[key]

    def _built(self, host: str, done: Visit) -> Sequence[Visit]:
        outcome = self.outcomes[host]
        if done.code != 0 or not done.values("built"):
            if (again := self._again(host, done)) is not None:
                return again
            self.fails(host, done, LOST if done.code == 255 else FAILED)
            return ()
        for word in ("python", "files"):
            row = next((row.partition(" ") for row in done.values(word)), None)
            if row is not None and row[0] == outcome.store_name:
                setattr(outcome, word, row[2][:200])
        here = self.hosts[host].current.get(self._subjects[outcome.profile].stem)
        same = here is not None and here.store_name == outcome.store_name
        settled = same and here is not None and here.script == self._subjects[outcome.profile].sha256
        self.ends(host, CURRENT if settled else BUILT)
        return ()

    def _again(self, host: str, done: Visit) -> Sequence[Visit] | None:
        """What follows a failed build that found something damaged on its host, and has deleted it: it comes again.

        None where the host lacks nothing more than it was sent.
        """
        if done.code == 255 or not done.values("known") or host in self._repeated:
            return None
        self.hosts[host] = found = known_again(self.hosts[host], done.marked)
        what = self._subjects[self.outcomes[host].profile]
        sent, files = self._sent[host], self.needed(what, found)[0]
        missing = sorted({file.name for file in files if file not in sent})
        if not missing:
            return None
        self._repeated.add(host)
        if done.values("refused"):
            self.report.warn(f"{host}: what is unpacked here cannot be used there, so it builds: {done.failure()}")
        else:
            self.report.warn(f"{host}: {', '.join(missing)} was damaged there, and comes again")
        return self._send(host, what, files)

    def fails(self, host: str, done: Visit, state_: str) -> None:
        self.ends(host, state_, done.failure())

    def ends(self, host: str, state_: str, why: str = "") -> None:
        self.outcomes[host].state, self.outcomes[host].why = state_, why[:500]
        self.screen.now(host, state_)

    def run(self, hosts: Sequence[str], before: Mapping[str, Outcome]) -> Deployment:
        """Do it all on some hosts; `before` is what the last deployment came to, of the others too."""
        self.outcomes = {host: Outcome() for host in hosts}
        with parcel.scratch() as work, self.screen.shown():
            self.work = Path(work)
            visit(map(self.probe, hosts), tick=self.screen.tick)
            while self._deferred:
                parcel.gather(list(self._absent.values()), self.catalogue, self.report)
                waiting, self._deferred = self._deferred, []
                visit(map(self._build_deferred, waiting), tick=self.screen.tick)
        if self.options.dry_run:
            return Deployment(self.fleet.name, self.outcomes, False)
        self.outcomes = {**{host: old for host, old in before.items() if host not in self.outcomes}, **self.outcomes}
        good = [host for host, outcome in self.outcomes.items() if outcome.is_good]
        wanted = len(self.outcomes) if self.options.fewest is None else self.options.fewest
        if len(good) < wanted:
            return Deployment(self.fleet.name, self.outcomes, False)
        return Deployment(self.fleet.name, self.outcomes, self._switch())

    def _build_deferred(self, host: str) -> Visit:
        what = self.subject(self.hosts[host])
        return self._build(host, what, self.needed(what, self.hosts[host])[0])

    def _switch(self) -> bool:
        """Switch all hosts that are built; where one of them fails, those that were switched go back."""
        built = [host for host, outcome in self.outcomes.items() if outcome.state == BUILT]
        visits = [
            _Visit(self, host, "switch", self._to(host), seconds=SWITCH_SECONDS, then=partial(self._switched, host))
            for host in built
        ]
        visit(visits)
        switched = [host for host in built if self.outcomes[host].state == SWITCHED]
        wanted = len(built) if self.options.fewest is None else self.options.fewest - self._count(CURRENT)
        if len(switched) >= wanted:
            return True
        self._undo(switched)
        return False

    def _count(self, state_: str) -> int:
        return sum(outcome.state == state_ for outcome in self.outcomes.values())

    def _to(self, host: str) -> dict[str, str | int]:
        outcome = self.outcomes[host]
        if outcome.profile not in self._subjects:  # built by an earlier deployment
            self._subjects[outcome.profile] = parcel.subject(outcome.profile, self.catalogue)
        what = self._subjects[outcome.profile]
        return switch_values(what.stem, outcome.was, 0, outcome.store_name, what.sha256, what.file)

    def _switched(self, host: str, done: Visit) -> Sequence[Visit]:
        if done.code == 0 and done.values("switched"):
            self.ends(host, SWITCHED)
        else:
            self.fails(host, done, LOST if done.code == 255 else FAILED)
        return ()

    def _undo(self, hosts: Sequence[str]) -> None:
        rows = {host: self.outcomes[host] for host in hosts}
        wrong = go_back(rows, {host: outcome.was or -1 for host, outcome in rows.items()})
        for host in hosts:
            if host in wrong:
                self.report.warn(f"{host} was switched, and cannot be switched back: {wrong[host]}")
            else:
                self.ends(host, UNDONE, "it was switched back, as another host could not be switched")


def switch_values(stem: str, was: int, number: int, store_name: str, sha256: str, file: str) -> dict[str, str | int]:
    """The variables of `switch` in host.sh."""
    from importlib.resources import files

    code = files("builder.fleet").joinpath("switch.py").read_text(encoding="utf-8")
    return {
        "stem": stem,
        "was": was,
        "number": number,
        "environment": store_name,
        "sha256": sha256,
        "file": file,
        "python": code,
    }


class _Visit(Visit):
    """A visit of a deployment, which hears of its end, and of its steps."""

    def __init__(
        self,
        work: Work | None,
        host: str,
        name: str,
        values: Mapping[str, str | int],
        *,
        seconds: float,
        then: Callable[[Visit], Sequence[Visit]],
        payload: Iterable[bytes] = (),
        held: bool = False,
    ) -> None:
        super().__init__(host, name, values, seconds=seconds, payload=payload, held=held)
        self._work, self._then = work, then

    def told(self, text: str) -> None:
        if text == "step building" and self._work is not None:
            self._work.screen.now(self.host, "builds")

    def follow(self) -> Sequence[Visit]:
        return self._then(self)


# --- the whole of it -----------------------------------------------------------------------------------------------


def deploy(fleet: Fleet, profile: str | None, catalogue: Catalogue, report: Reporter, options: Options) -> Deployment:
    """Deploy to a fleet; returns what became of its hosts. Raises DrydockError, and ConsentError."""
    hosts = hosts_of(fleet)
    if options.fewest is not None and not 0 < options.fewest <= len(hosts):
        raise UsageError(f"--fewest is between 1 and {len(hosts)}, the hosts of {fleet.name}")
    work = Work(fleet, profile or fleet.profile, catalogue, report, options)
    if work.profile != "auto":  # what is wrong with it is said before anybody is asked
        parcel.subject(work.profile, catalogue)
    with locked(fleet.name):
        before = {host: outcome for host, outcome in remembered(fleet.name).items() if host in hosts}
        chosen = hosts
        if options.only_failed:
            chosen = [host for host in hosts if host not in before or not before[host].is_good]
            if not chosen and all(before[host].state in (CURRENT, SWITCHED) for host in hosts):
                report.step(f"nothing of {fleet.name} has failed")
                return Deployment(fleet.name, before, False)
        else:
            before = {}
        done = work.run(chosen, before)
        if not options.dry_run:
            remember(done)
    return done


@contextmanager
def locked(name: str) -> Iterator[None]:
    """One deployment of a fleet at a time, from this desk. Raises DrydockError where another one goes on."""
    path = Store.here().fleet / "desk" / f"{name}.lock"
    make_folder(Store.here().home / "fleet")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise DrydockError(
            f"another command works on the fleet {name}", hint="wait for its end, then try again"
        ) from None
    finally:
        os.close(descriptor)


def _memory(name: str) -> Path:
    return Store.here().fleet / "desk" / f"{name}.json"


_ROW = dict.fromkeys(("state", "why", "profile", "store_name", "python", "files"), str) | {"was": int, "sent": int}


def remembered(name: str) -> dict[str, Outcome]:
    """What the last deployment of a fleet came to; nothing where there was none."""
    found = state.read_json(_memory(name), {"hosts": {str: _ROW}}, state.LARGE)
    return {host: Outcome(**{key: row[key] for key in _ROW}) for host, row in (found or {"hosts": {}})["hosts"].items()}


def remember(done: Deployment) -> None:
    """Keep what a deployment came to, for the next."""
    write_atomically(_memory(done.fleet), json.dumps(done.as_json(), indent=1))


# --- and back ------------------------------------------------------------------------------------------------------


def rollback(fleet: Fleet, profile: str | None, catalogue: Catalogue, report: Reporter) -> Deployment:
    """Go back to the generation before the current one, on all hosts or on none. Raises DrydockError."""
    from builder.names import stem

    hosts = hosts_of(fleet)
    with locked(fleet.name):
        before = remembered(fleet.name)
        outcomes = {host: Outcome() for host in hosts}
        found: dict[str, Host] = {}
        work = Work(fleet, profile or fleet.profile, catalogue, report, Options())
        work.outcomes = outcomes

        def probed(host: str, done: Visit) -> Sequence[Visit]:
            answer = host_of(done.marked) if done.code == 0 else None
            if answer is None:
                work.fails(host, done, UNREACHABLE if done.code == 255 else FAILED)
            else:
                found[host] = answer
            return ()

        visit(_Visit(None, h, "probe", {}, seconds=PROBE_SECONDS, then=partial(probed, h)) for h in hosts)
        targets: dict[str, int] = {}
        for host, answer in found.items():
            last = before[host].profile if host in before else ""
            name = next(word for word in (profile, last, fleet.profile) if word)
            here = answer.current.get(stem(name))
            known = answer.generations.get(stem(name), {})
            earlier = [number for number in known if here is not None and number < here.number]
            if here is None or not earlier:
                work.ends(host, FAILED, f"it has no generation of {name} before the current one")
                continue
            outcomes[host].profile, outcomes[host].was = name, max(earlier)
            outcomes[host].store_name = known[max(earlier)]
            targets[host] = here.number
        if len(targets) < len(hosts):
            return Deployment(fleet.name, outcomes, False)
        wrong = go_back(outcomes, {host: outcome.was for host, outcome in outcomes.items()}, targets)
        for host in hosts:
            if host in wrong:
                work.ends(host, FAILED, wrong[host])
            else:
                work.ends(host, SWITCHED)
        done = Deployment(fleet.name, outcomes, not wrong)
        remember(done)
        return done


def go_back(
    rows: Mapping[str, Outcome], numbers: Mapping[str, int], current: Mapping[str, int] | None = None
) -> dict[str, str]:
    """Make generations current again, -1 for none; returns the hosts where that failed, and why.

    `current` are the numbers that are current now; without them, whatever was just made.
    """
    from builder.names import stem

    visits = {}
    for host, row in rows.items():
        values = switch_values(
            stem(row.profile), (current or {}).get(host, -1), numbers[host], row.store_name, "-", "-"
        )
        visits[host] = Visit(host, "switch", values, seconds=SWITCH_SECONDS)
    visit(visits.values())
    return {host: done.failure() for host, done in visits.items() if done.code != 0 or not done.values("switched")}


# --- in words ------------------------------------------------------------------------------------------------------


def described(done: Deployment) -> list[str]:
    """What became of the hosts, those alike in a line."""
    groups: dict[str, list[str]] = {}
    for host, outcome in done.hosts.items():
        groups.setdefault(_words(outcome), []).append(host)
    return [f"{folded(hosts)}: {words}" for words, hosts in groups.items()]


def _words(outcome: Outcome) -> str:
    if not outcome.is_good:
        return f"{outcome.state}: {outcome.why}" if outcome.state else "not asked"
    if not outcome.store_name:
        return outcome.profile
    what = f"{outcome.profile} {outcome.store_name[:8]}"
    if outcome.state in (WOULD, WOULD_SWITCH):
        return f"{what} {outcome.state}, {outcome.sent / 1e6:.1f} MB to send"
    words = f"{what} is {outcome.state}"
    same = [
        part
        for part in (
            f"Python {outcome.python.split()[0]}" if outcome.python else "",
            f"files {outcome.files[:8]}" if outcome.files else "",
        )
        if part
    ]
    return f"{words} ({', '.join(same)})" if same else words


def differences(done: Deployment) -> list[str]:
    """What is not the same where it should be: hosts with one profile whose environments differ."""
    found: dict[str, dict[tuple[str, str, str], list[str]]] = {}
    for host, outcome in done.hosts.items():
        if outcome.is_good and outcome.files:
            kinds = found.setdefault(outcome.profile, {})
            kinds.setdefault((outcome.store_name, outcome.python, outcome.files), []).append(host)
    return [
        f"{name} is not the same everywhere: "
        + "; ".join(
            f"{folded(hosts)} {key[:8]}, {python or 'no Python'}, files {digest[:8]}"
            for (key, python, digest), hosts in kinds.items()
        )
        for name, kinds in found.items()
        if len(kinds) > 1
    ]


def summary(done: Deployment) -> str:
    """How many of how many."""
    good = len(done.hosts) - len(done.failed)
    return f"{done.fleet}: {good} of {plural(len(done.hosts), 'host')}"
