"""Deploy profiles to a fleet: ask every host, build on all that lack something, and only then switch all.

The script builds, as everywhere; what a host lacks of the locked files comes over the same connection. A deployment
that fails has built here and there, and changes nothing that runs. What became of it is remembered
(builder/fleet/outcome.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from builder.errors import ConsentError, DrydockError, UsageError
from builder.fleet import copies, parcel
from builder.fleet.choice import Choice
from builder.fleet.facts import Host, host_of, known_again
from builder.fleet.hosts import hosts_of
from builder.fleet.outcome import (
    BUILT,
    CURRENT,
    FAILED,
    LOST,
    SWITCHED,
    UNDONE,
    UNREACHABLE,
    WOULD,
    WOULD_SWITCH,
    Deployment,
    Outcome,
    locked,
    remember,
    remembered,
)
from builder.fleet.parcel import Subject
from builder.fleet.screen import Screen
from builder.fleet.ssh import Visit, visit
from builder.project.catalogue import Catalogue
from builder.project.fleets import Fleet
from builder.report import Reporter
from builder.share.mirror.locked import LockedFile

PROBE_SECONDS = 30.0
SWITCH_SECONDS = 60.0
_WRONG_CLOCK = 300.0  # seconds: certificates and logs begin to be wrong


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
        return WorkVisit(self, host, "probe", {}, seconds=PROBE_SECONDS, then=partial(self._probed, host))

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
        return WorkVisit(
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
            WorkVisit(self, host, "switch", self._to(host), seconds=SWITCH_SECONDS, then=partial(self._switched, host))
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


class WorkVisit(Visit):
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

    def read_answer(self, text: str) -> None:
        if text == "step building" and self._work is not None:
            self._work.screen.now(self.host, "builds")

    def follow(self) -> Sequence[Visit]:
        return self._then(self)


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
