"""What became of the hosts of a fleet: as data, in words, and remembered at the desk.

fleet/desk/NAME.json    of each host its state, its profile, and the generation that was current before
fleet/desk/NAME.lock    held by the command that works on the fleet
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from builder.embedded import state
from builder.embedded.words import plural
from builder.errors import DrydockError
from builder.files import make_folder, write_atomically
from builder.fleet.hosts import folded
from builder.store.layout import Store

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
