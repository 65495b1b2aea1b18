"""A trainer that each host of a fleet keeps running by itself: its own unit of systemd or agent of launchd, its own
folder, variables and identity, whatever becomes of the desk.

Installed on all hosts or on none, updated and restarted by the same command, taken back by one, seen in one status. A
host has no Drydock: what keeps the trainer running there (served.py) is sent as one file, with the code of [supervise].

    fleet/desk/FLEET.services.json    which profile was installed on which host, by the name that was asked for
"""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from builder import secrets
from builder.embedded import state
from builder.embedded.words import plural
from builder.errors import DrydockError, UsageError
from builder.files import write_atomically
from builder.fleet import brought, members, service_records, watch
from builder.fleet.facts import Host
from builder.fleet.hosts import folded, hosts_of, variables_of
from builder.fleet.journal import least_to_most
from builder.fleet.members import Member
from builder.fleet.outcome import CURRENT, SWITCHED, Deployment, locked
from builder.fleet.ssh import Visit, visit
from builder.names import stem
from builder.project.catalogue import Catalogue
from builder.project.evaluate import evaluate
from builder.project.fleets import Fleet
from builder.project.sources import consent
from builder.report import Reporter, sanitized
from builder.run import service
from builder.run.supervise.start import policy_of
from builder.store.layout import Store

_SECONDS = 60.0
_BESIDE = 90.0
"""Seconds for a host to stop a service and start it, beside the trainer's time of grace."""
_LINES = 200
_FEW = 10
"""Lines before those that are followed."""
_CARRIED = (
    "__init__",
    "embedded/__init__",
    "embedded/resume",
    "embedded/state",
    "fleet/__init__",
    "fleet/launcher",
    "fleet/served",
    "run/__init__",
    "run/records/__init__",
    "run/records/identity",
    "run/records/summary",
    "run/supervise/__init__",
    "run/supervise/journal",
    "run/supervise/policy",
)


@dataclass
class Row:
    """What a host says of its service: `found` as units.py has it; `why` where it says nothing, or refuses."""

    profile: str
    why: str = ""
    found: Mapping[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> Mapping[str, Any]:
        """What the service has written of itself; empty where it has not."""
        found = self.found.get("state")
        return found if isinstance(found, dict) else {}

    @property
    def is_good(self) -> bool:
        """Whether it runs, has done its work, or is away as it should be."""
        state = self.state
        if self.why or self.found.get("note"):
            return False
        return not self.found.get("installed") or state.get("phase") in ("running", "waiting") or _code(state) == 0


def _code(state: Mapping[str, Any]) -> int | None:
    code = state.get("last_exit")
    return code if state.get("phase") == "ended" and isinstance(code, int) else None


Rows = dict[str, Row]


class _Ask(Visit):
    """Has a host do something with a service."""

    def __init__(self, row: Row, host: str, asked: Mapping[str, Any], *, seconds: float = _SECONDS) -> None:
        header = json.dumps({**asked, "stem": stem(row.profile)}).encode() + b"\n"
        values = {"stem": stem(row.profile), "python": _units()}
        super().__init__(host, "service", values, seconds=seconds, payload=[header], held=True)
        self.row = row
        self.lines: list[str] = []

    def read_answer(self, text: str) -> None:
        word, _, rest = text.partition(" ")
        try:
            found = json.loads(rest)
        except (ValueError, RecursionError):
            return
        if word == "row" and isinstance(found, dict):
            # A host may say anything: what is a list of texts here is one.
            texts = {key: found.get(key) for key in ("identities", "warnings")}
            lists = {key: [str(one) for one in some] if isinstance(some, list) else [] for key, some in texts.items()}
            runs = found.get("runs")
            self.row.found = {**found, **lists, "runs": runs if isinstance(runs, list) else []}
        elif word == "line" and isinstance(found, str):
            self.lines.append(found)

    def follow(self) -> Sequence[Visit]:
        if self.code != 0 or not self.values("row"):
            self.row.why = self.failure()
        return ()


def _units() -> str:
    return files("builder.fleet").joinpath("units.py").read_text(encoding="utf-8")


@cache
def _carried() -> bytes:
    """What a host runs as its service: one file that Python starts, the same each time."""
    top = Path(__file__).parent.parent
    members = {f"builder/{name}.py": (top / f"{name}.py").read_bytes() for name in _CARRIED}
    members["__main__.py"] = b"import sys\nfrom builder.fleet.served import main\nsys.exit(main(sys.argv[1]))\n"
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(members.items()):
            archive.writestr(zipfile.ZipInfo(name), content)
    return made.getvalue()


# --- all of them ---------------------------------------------------------------------------------------------------


def install(
    fleet: Fleet, name: str, catalogue: Catalogue, report: Reporter, arguments: Sequence[str], fewest: int | None = None
) -> Rows:
    """Install the service of `name` on all hosts, and start it; on none where one host cannot have it.

    With `fewest` so many are enough. Raises DrydockError, and ConsentError.
    """
    hosts = hosts_of(fleet)
    secrets.environment(arguments)  # none is among them
    _check_can_be_one(fleet, name, catalogue, fewest)
    files = brought.chosen(fleet, report)
    with locked(fleet.name):
        found, wrong = members.members_of(fleet, name, catalogue)
        for profile in {member.profile for member, _ in found.values()}:
            consent.check(profile, evaluate(profile, catalogue).content)
        rows = {host: Row(found[host][0].profile if host in found else name) for host in hosts}
        for host, why in wrong.items():
            rows[host].why = why
        _check(fleet, rows, found)
        least = len(hosts) if fewest is None else fewest
        good = [host for host in hosts if not rows[host].why]
        if files is not None and len(good) >= least:
            for host, why in brought.bring(files, [found[host][0] for host in good], report).items():
                rows[host] = Row(rows[host].profile, why)
            good = [host for host in good if not rows[host].why]
        if len(good) < least:
            return rows
        _remember(fleet.name, name, {host: rows[host].profile for host in good})
        visits = []
        for host in good:
            member, answer = found[host]
            asked = _installation(fleet, member, answer, catalogue, arguments, files.digest if files else "")
            visits.append(_Ask(rows[host], host, asked, seconds=asked["grace"] + _BESIDE))
        visit(visits)
    _record(fleet, rows, catalogue)
    for host in good:
        for warning in rows[host].found.get("warnings", ()):
            report.warn(f"{host}: {warning}")
    return rows


def _check_can_be_one(fleet: Fleet, name: str, catalogue: Catalogue, fewest: int | None) -> None:
    """Raise UsageError for what no service is made of, DrydockError where it runs from here."""
    if fewest is not None and not 0 < fewest <= len(hosts_of(fleet)):
        raise UsageError(f"--fewest is between 1 and {len(hosts_of(fleet))}, the hosts of {fleet.name}")
    if name != "auto" and catalogue.profile(name).launch.by_torchrun:
        raise UsageError(
            f"{name} trains on all hosts together, and a service is each host's own",
            hint=f"drydock run {name} --on {fleet.name} --supervise",
        )
    if watch.desk_of(watch.folder_of(fleet.name, name)) is not None:
        raise DrydockError(
            f"{name} runs on {fleet.name} from here", hint=f"drydock run {name} --on {fleet.name} --stop"
        )


def _check(fleet: Fleet, rows: Rows, found: Mapping[str, tuple[Member, Host]]) -> None:
    """Ask each host what stands in the way, before any is changed. Raises DrydockError for two with one identity."""
    asked = {host: {"do": "check", "fleet": fleet.name, "folder": found[host][0].folder} for host in found}
    visit(_Ask(rows[host], host, asked[host]) for host in found)
    owners: dict[str, list[str]] = {}
    for host in found:
        for digest in rows[host].found.get("identities", ()):
            owners.setdefault(str(digest), []).append(host)
    for hosts in owners.values():
        if len(set(hosts)) > 1:
            raise members.one_identity(hosts)
    for host in found:
        rows[host].found = {} if rows[host].why else {"ready": True}


def _installation(
    fleet: Fleet, member: Member, answer: Host, catalogue: Catalogue, arguments: Sequence[str], code: str
) -> dict[str, Any]:
    """What a host is asked to install; `code` is the digest of what was brought for it."""
    name, here = member.profile, member.service
    policy = policy_of(catalogue.entry(name), machine=answer.machine)
    variables = variables_of(fleet, member.host)
    unit = service.rendered(
        name,
        "launchd" if answer.machine.system == "Darwin" else "systemd",
        folder=f"{answer.home}/{member.folder}",
        environment={"DRYDOCK_HOME": answer.store},
        command=[f"{answer.store}/profiles/{stem(name)}/bin/python", "-I", "-S", f"{here}/service.pyz", here],
        grace=policy.grace,
        log=f"{here}/service.log",
        fleet=fleet.name,
    )
    settings = {
        "name": name,
        "stem": stem(name),
        "fleet": fleet.name,
        "store": answer.store,
        "arguments": list(arguments),
        "environment": variables,
        "code": code,
        "policy": asdict(policy),
    }
    carried = base64.b64encode(_carried()).decode()
    return {
        "do": "install",
        "fleet": fleet.name,
        "folder": member.folder,
        "grace": policy.grace,
        "unit": unit,
        "pyz": carried,
        "settings": settings,
    }


def installed(fleet: Fleet, done: Deployment) -> dict[str, str]:
    """The hosts of a deployment that have a service of what they were to have, as far as this desk knows."""
    known = remembered(fleet.name).values()
    return {
        host: outcome.profile
        for host, outcome in done.hosts.items()
        if outcome.state in (CURRENT, SWITCHED) and any(some.get(host) == outcome.profile for some in known)
    }


def restart(fleet: Fleet, profiles: Mapping[str, str], catalogue: Catalogue) -> Rows:
    """Restart the services of these profiles, by their hosts, which do not run their current generation."""
    rows = {host: Row(profile) for host, profile in profiles.items()}
    graces = {name: catalogue.profile(name).supervise.grace for name in set(profiles.values())}
    visit(
        _Ask(
            row,
            host,
            {"do": "restart", "fleet": fleet.name, "grace": graces[row.profile]},
            seconds=graces[row.profile] + _BESIDE,
        )
        for host, row in rows.items()
    )
    _record(fleet, rows, catalogue)
    return rows


def _record(fleet: Fleet, rows: Rows, catalogue: Catalogue) -> None:
    """Take what hosts report of their runs into the records."""
    for host, row in rows.items():
        service_records.record(fleet.name, row.profile, host, row.found.get("runs", ()), catalogue)


def uninstall(fleet: Fleet, name: str, catalogue: Catalogue) -> Rows:
    """Stop and remove the service of `name` on all hosts; logs, checkpoints and identities stay."""
    hosts = hosts_of(fleet)
    with locked(fleet.name):
        known = _profiles(fleet, name)
        rows = {host: Row(known[host]) for host in hosts if host in known}
        visit(_Ask(row, host, {"do": "remove"}, seconds=600) for host, row in rows.items())
        left = {host: row.profile for host, row in rows.items() if row.why}
        _remember(fleet.name, name, left)
    _record(fleet, rows, catalogue)
    return rows


def _profiles(fleet: Fleet, name: str) -> Mapping[str, str]:
    """The profile of each host that a name stands for. Raises UsageError for auto where it was never installed."""
    known = remembered(fleet.name).get(name)
    if known is None and name == "auto":
        raise UsageError(f"auto was not installed on {fleet.name} from here", hint="name the profile of the service")
    return dict.fromkeys(hosts_of(fleet), name) if name != "auto" else known or {}


# --- what the desk remembers ---------------------------------------------------------------------------------------


def _memory(fleet: str) -> Path:
    return Store.here().fleet / "desk" / f"{fleet}.services.json"


def remembered(fleet: str) -> dict[str, dict[str, str]]:
    """What was installed on a fleet from here: by the name that was asked for, the profile of each host."""
    found = state.read_json(_memory(fleet), {str: {str: str}}, state.LARGE)
    return found or {}


def _remember(fleet: str, name: str, hosts: Mapping[str, str]) -> None:
    known = {**remembered(fleet), name: dict(hosts)}
    write_atomically(_memory(fleet), json.dumps({key: one for key, one in known.items() if one}, indent=1))


def is_service(fleet: Fleet, name: str) -> bool:
    """Whether what is known here of `name` on a fleet is a service; without any knowledge, its hosts are asked."""
    folder = watch.folder_of(fleet.name, name)
    if watch.desk_of(folder) is not None:
        return False
    return name in remembered(fleet.name) or (name != "auto" and not watch.read_state_of(folder))


# --- how they are --------------------------------------------------------------------------------------------------


def status(fleet: Fleet, name: str, catalogue: Catalogue) -> dict[str, Any]:
    """How the service of `name` is on each host. Raises UsageError where no host has it."""
    rows = _asked(fleet, name, catalogue)
    return {"fleet": fleet.name, "name": name, "services": {host: _as_json(row) for host, row in rows.items()}}


def _asked(fleet: Fleet, name: str, catalogue: Catalogue) -> Rows:
    rows = {host: Row(profile) for host, profile in _profiles(fleet, name).items()}
    visit(_Ask(row, host, {"do": "status", "fleet": fleet.name}) for host, row in rows.items())
    _record(fleet, rows, catalogue)
    known = name in remembered(fleet.name)
    installed = any(row.found.get("installed") for row in rows.values())
    if not installed and any(row.found.get("runs") for row in rows.values()):
        raise UsageError(
            f"{name} is not a service of {fleet.name} any more; what it ran: drydock runs list {name}",
            hint=f"drydock service install {name} --on {fleet.name}",
        )
    if not known and not installed:
        raise UsageError(f"{name} never ran on {fleet.name}", hint=f"drydock run {name} --on {fleet.name}")
    return rows


def _as_json(row: Row) -> dict[str, Any]:
    return {"profile": row.profile, "why": row.why, **row.found}


def describe(status: Mapping[str, Any]) -> Iterator[str]:
    """Describe a status."""
    rows = {
        host: Row(one["profile"], one["why"], {key: one[key] for key in one if key not in ("profile", "why")})
        for host, one in status["services"].items()
    }
    running = sum(row.state.get("phase") == "running" for row in rows.values())
    yield f"{status['name']} is a service of {status['fleet']}: it runs on {running} of {plural(len(rows), 'host')}"
    yield from (f"  {sanitized(line)}" for line in described(rows))


def described(rows: Rows) -> Iterator[str]:
    """How services are, a line for hosts that are alike."""
    groups: dict[str, list[str]] = {}
    for host, row in rows.items():
        groups.setdefault(_words(row), []).append(host)
    for words, hosts in groups.items():
        used = [_memory_of(rows[host].state) for host in hosts]
        memory = f", {least_to_most(used)}" if all(used) else ""
        yield f"{folded(hosts)}: {words}{memory}"


def _memory_of(state: Mapping[str, Any]) -> float:
    sample = state.get("sample") if state.get("phase") == "running" else None
    size = sample.get("memory", 0) if isinstance(sample, dict) else 0
    return size if isinstance(size, int | float) else 0


def _words(row: Row) -> str:
    if row.why or row.found.get("note"):
        return f"{row.profile}: {row.why or row.found['note']}"
    if row.found.get("ready"):
        return f"{row.profile} can be a service"
    if not row.found.get("installed"):
        return f"{row.profile} is removed" if row.found.get("removed") else f"{row.profile} is not a service"
    state, current = row.state, str(row.found.get("current", ""))
    what = f"{row.profile} {str(state.get('store_name', current))[:8]}"
    again = f", restarts: {state['restarts']}" if state.get("restarts") else ""
    match state.get("phase"):
        case "running":
            old = f", and {current[:8]} is current" if current != state.get("store_name") else ""
            return f"{what} runs{again}{old}"
        case "waiting":
            return (
                f"{what} failed with exit status {state.get('last_exit')} ({state.get('why')}), and starts again{again}"
            )
        case "ended":
            lines = state.get("last_lines")
            last = f": {lines[-1]}" if isinstance(lines, list) and lines else ""
            return f"{what} has ended, exit status {state.get('last_exit')}, {state.get('why')}{again}{last}"
        case "killed":
            return f"{what} was killed, and its service manager has not started it again ({row.found.get('manager')})"
    return f"{what} is installed, and does not run ({row.found.get('manager') or 'not loaded'})"


class _Follow(_Ask):
    """Shows each line of a host's log as it comes."""

    def __init__(self, row: Row, host: str) -> None:
        super().__init__(row, host, {"do": "log", "lines": _FEW, "follow": True}, seconds=0)
        self.endless = True

    def read_answer(self, text: str) -> None:
        super().read_answer(text)
        if self.lines:
            self.marked.clear()
            print(f"{self.host} | {sanitized(self.lines.pop())}", flush=True)

    def follow(self) -> Sequence[Visit]:
        following = super().follow()
        print(f"{self.host} | drydock: {sanitized(self.row.why) or 'the service has ended'}", flush=True)
        return following


def log(fleet: Fleet, name: str, *, follow: bool) -> Iterator[bytes]:
    """The last lines of each host's log; with `follow` these are printed, and then each new one."""
    if follow:
        visit((_Follow(Row(profile), host) for host, profile in _profiles(fleet, name).items()), beats=True)
        return
    visits = [
        _Ask(Row(profile), host, {"do": "log", "lines": _LINES}) for host, profile in _profiles(fleet, name).items()
    ]
    visit(visits)
    for one in visits:
        for line in [f"drydock: {one.row.why}"] if one.row.why else one.lines:
            yield f"{one.host} | {sanitized(line)}\n".encode(errors="replace")


def stop(fleet: Fleet, name: str, say: Callable[[str], None]) -> None:  # noqa: ARG001 # as that of a run
    """Refuse: what starts with the machine is not stopped, but removed."""
    raise UsageError(
        f"{name} is a service of {fleet.name}, which starts with each host",
        hint=f"drydock service uninstall {name} --on {fleet.name}",
    )
