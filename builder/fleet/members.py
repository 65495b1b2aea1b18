"""The hosts of a fleet on which a profile is built, and what each of them would run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from builder.errors import DrydockError
from builder.fleet.choice import Choice
from builder.fleet.deploy import PROBE_SECONDS
from builder.fleet.facts import Host, host_of
from builder.fleet.hosts import folded, hosts_of
from builder.fleet.ssh import Visit, visit
from builder.names import stem
from builder.project.catalogue import Catalogue
from builder.project.fleets import Fleet


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


class _Probe(Visit):
    """Asks a host for its facts; `then` is called with the visit when it has ended."""

    def __init__(self, host: str, then: Callable[[Visit], None]) -> None:
        super().__init__(host, "probe", {}, seconds=PROBE_SECONDS)
        self._then = then

    def follow(self) -> Sequence[Visit]:
        self._then(self)
        return ()


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

    visit([_Probe(host, partial(probed, host)) for host in hosts_of(fleet)])
    return found, wrong


def one_identity(hosts: Iterable[str]) -> DrydockError:
    """The error of hosts that are the same to others."""
    return DrydockError(
        f"{folded(hosts)} have one identity: the same swarm.pem",
        hint="each host has its own: move it away on all but one, and the trainer makes another",
    )
