"""Delete what the hosts of a fleet do not need: generations before the last one but one, and what only those needed.

A host has no Drydock: the rooms that know the store are sent, and run by an environment's own Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from builder.embedded.words import plural
from builder.fleet.deploy import PROBE_SECONDS
from builder.fleet.facts import host_of
from builder.fleet.hosts import hosts_of
from builder.fleet.outcome import FAILED, GOOD, LOST, UNREACHABLE, Deployment, Outcome, locked
from builder.fleet.parcel import Parcel
from builder.fleet.ssh import Visit, visit
from builder.project.fleets import Fleet

_SECONDS = 1800.0
_ROOMS = ("embedded", "store")
_GROUND = ("__init__", "errors", "files", "log", "names", "process")
COLLECTED = GOOD[0]

_CODE = """\
import sys
if sys.version_info < (3, 11):
    sys.exit("drydock: error: this takes a Python 3.11, and the environments here have an older one")
sys.path.insert(0, ".")
from builder.store import gc, generations
for name in {one.name for one in generations.every()}:
    here = generations.current(name)
    before = [one.number for one in generations.generations(name) if here and one.number < here.number]
    generations.delete(name, [str(number) for number in before[:-1]])
done = gc.collect()
for one in done.kept:
    print(f"drydock: warning: {one.path}, of {one.owner}, cannot be deleted: {one.why}", file=sys.stderr)
print("@" + sys.argv[1], "collected", len(done.deleted), sum(one.size for one in done.deleted))
"""


class _Collection(Visit):
    """Asks a host, then has it collect."""

    def __init__(self, host: str, rows: dict[str, Outcome], house: Parcel) -> None:
        super().__init__(host, "probe", seconds=PROBE_SECONDS)
        self._rows, self._house = rows, house

    def follow(self) -> Sequence[Visit]:
        found = host_of(self.marked) if self.code == 0 else None
        if found is None:
            self._rows[self.host] = Outcome(UNREACHABLE if self.code == 255 else FAILED, self.failure())
            return ()
        environment = next((one.store_name for one in found.current.values() if one.files), None)
        if environment is None:
            self._rows[self.host] = Outcome(COLLECTED, profile="nothing is deployed there")
            return ()
        values: dict[str, str | int] = {"environment": environment, "size": self._house.size, "python": _CODE}
        return [_Collected(self.host, self._rows, values, self._house)]


class _Collected(Visit):
    def __init__(self, host: str, rows: dict[str, Outcome], values: dict[str, str | int], house: Parcel) -> None:
        super().__init__(host, "collect", values, seconds=_SECONDS, payload=house.chunks(), held=True)
        self._rows = rows

    def follow(self) -> Sequence[Visit]:
        words = next(iter(self.values("collected")), "").split()
        if self.code != 0 or len(words) != 2 or not all(word.isdecimal() for word in words):
            self._rows[self.host] = Outcome(LOST if self.code == 255 else FAILED, self.failure())
        else:
            count, size = int(words[0]), int(words[1])
            self._rows[self.host] = Outcome(COLLECTED, profile=f"{plural(count, 'path')} deleted, {size / 1e6:.1f} MB")
        return ()


def collect(fleet: Fleet) -> Deployment:
    """Collect on all hosts; returns what became of each, with what it deleted in `profile`."""
    hosts = hosts_of(fleet)
    rows = {host: Outcome() for host in hosts}
    house = _house()
    with locked(fleet.name):
        visit(map(partial(_Collection, rows=rows, house=house), hosts))
    return Deployment(fleet.name, rows, switched=False)


def _house() -> Parcel:
    """The rooms that know the store, with what they stand on."""
    top = Path(__file__).parent.parent
    found = [path for room in _ROOMS for path in sorted((top / room).rglob("*.py"))]
    found += [top / f"{name}.py" for name in _GROUND]
    return Parcel(
        [*((f"builder/{path.relative_to(top).as_posix()}", path.read_bytes()) for path in found), ("end", b"\n")]
    )
