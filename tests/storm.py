"""`just storm`: many kills, races and deletions; counts what they change outside of the store. It has to be nothing.

Four kinds: a build is killed at a random moment, its store removed at once or a moment later, and built again; two
users of a group build one key at once in a shared store; two users build, run, collect and repair at once in one, here,
in containers and on what stands for other machines; each pyvenv.cfg of a stage is deleted as soon as it is there.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import Index, Result, Sandbox, make_wheel
from tests.support.base import FOLDER, Base
from tests.support.belongings import clone
from tests.support.crowds import Crowd
from tests.support.homes import PROGRAM, Home, furnish, require, script_of
from tests.support.machines import why_not as why_no_machine
from tests.support.members import two_members
from tests.support.storms import Members, deleting_configurations, kill_and_remove, remove_store, why_no_members
from tests.support.waiting import LONG

# At a time: a kill hits other moments where the machine is busy.
WORKERS = 2


OUTSIDE = "changed files outside of the store"
CHANGED = {"crowds": "paths lost or half-made"}
"""What a kind counts as changed."""


@dataclass
class Count:
    """What came of the tries of one kind; `failed` is what was said by what had to succeed."""

    kind: str
    tries: int = 0
    harmful: int = 0
    changed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    left: int = 0
    seconds: float = 0.0

    def add(self, changed: list[str], failed: list[str], left: int = 0) -> None:
        self.tries += 1
        self.harmful += bool(changed)
        self.changed += changed
        self.failed += failed
        self.left += left

    def __str__(self) -> str:
        return (
            f"{self.kind}: {self.tries} tries, {len(self.changed)} {CHANGED.get(self.kind, OUTSIDE)} "
            f"(by {self.harmful}), {len(self.failed)} failed, {self.left} processes left, {self.seconds:.0f} s"
        )


class Place:
    """A home and a Python of its own on a desk; `command` is what is killed or disturbed."""

    def __init__(self, desk: Sandbox, command: list[str], name: str) -> None:
        self.home = Home(desk, command, name)
        self.prefix = desk.root / f"base-{name}"
        self._renew()

    def _renew(self) -> None:
        shutil.rmtree(self.prefix, ignore_errors=True)
        self.base: Base = clone(self.prefix)
        self.home.environment["DRYDOCK_PYTHON"] = self.base.python

    def changed(self) -> list[str]:
        """What was changed since it was asked last; the next try begins with a Python that is whole."""
        found = self.base.changes()
        if found:
            self._renew()
        return found


def kills(desk: Sandbox, count: Count, tries: int, seed: int) -> None:
    """The program and the script in turn."""

    def work(number: int) -> None:
        chance = random.Random(seed + number)
        places = [Place(desk, command, f"{number}-{at}") for at, command in enumerate((PROGRAM, script_of(desk)))]
        took = []
        for place in places:
            began = time.monotonic()
            place.home.build().succeeded()
            took.append(time.monotonic() - began)
            remove_store(place.home.store())
        for at in range(number, tries, WORKERS):
            place = places[at // WORKERS % 2]
            after = took[at // WORKERS % 2] * chance.uniform(0, 1.1)
            pause = chance.choice((0, 0, chance.uniform(0, 0.5)))
            again, left = kill_and_remove(place.home, chance, after=after, pause=pause)
            count.add(place.changed(), said(again), len(left))
            remove_store(place.home.store())

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(work, range(WORKERS)))


def races(desk: Sandbox, count: Count, tries: int, seed: int) -> None:
    chance = random.Random(seed)
    with Members(desk, Path(script_of(desk)[1])) as members:
        for _ in range(tries):
            first, second = chance.sample(members.members, 2)
            one = first.start()
            time.sleep(chance.choice((0, chance.uniform(0, 0.5))))
            other = second.start()
            told = [process.communicate(timeout=LONG)[1].decode(errors="replace") for process in (one, other)]
            failed = [text for process, text in zip((one, other), told, strict=True) if process.returncode]
            count.add(members.changes(), failed)
            members.renew()
            remove_store(members.store())


def crowds(_desk: Sandbox, count: Count, tries: int, seed: int) -> None:
    """What is lost or half-made counts as changed."""
    chance = random.Random(seed)
    with two_members() as pair, tempfile.TemporaryDirectory() as folder:
        crowd = Crowd(pair, Path(folder))
        for _ in range(tries):
            if chance.random() < 0.3:
                crowd.damage()
            acts = [crowd.start(chance, what) for what in chance.choices(["build", "run"], k=2)]
            for what in chance.choices(["build", "run", "gc", "gc", "repair"], k=3):
                time.sleep(chance.uniform(0, 0.7))
                if chance.random() < 0.5:
                    crowd.forget()
                acts.append(crowd.start(chance, what))
            failed = [told for act in acts if (told := act.ended()) is not None]
            count.add(crowd.wrong(), failed, len(crowd.left()))


def loops(desk: Sandbox, count: Count, tries: int, _seed: int) -> None:
    """A build may fail here; the one after it, undisturbed, may not."""
    place = Place(desk, script_of(desk), "loop")
    for _ in range(tries):
        with deleting_configurations(place.home.store()):
            place.home.build()
        changed = place.changed()
        count.add(changed, said(place.home.build()))
        remove_store(place.home.store())


def said(result: Result) -> list[str]:
    return [f"exit status {result.code}: {result.stderr}"] if result.code else []


@contextmanager
def furnished() -> Iterator[Sandbox]:
    from uv import find_uv_bin

    root = Path(tempfile.mkdtemp(prefix="drydock-storm-"))
    root.chmod(0o755)
    os.environ[FOLDER] = str(root / "python")
    for name in ("python", "wheels", "desk"):
        (root / name).mkdir()
    try:
        with Index(root / "wheels") as index:
            desk = furnish(Sandbox(root / "desk", index, find_uv_bin(), root / "cache"))
            # So that a removal of the store takes its time, as that of a real one does.
            make_wheel(desk.wheels, "ballast", "1.0", files={f"ballast/{number}.txt": "" for number in range(300)})
            require(desk, '["anchor", "ballast"]')
            yield desk
    finally:
        remove_store(root)


def main() -> int:
    parser = argparse.ArgumentParser(prog="just storm", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="kills with a removal of the store (%(default)s)")
    parser.add_argument("--races", type=int, default=200, help="races of two users (%(default)s)")
    parser.add_argument("--crowds", type=int, default=200, help="crowds of users and machines (%(default)s)")
    parser.add_argument("--loops", type=int, default=100, help="builds whose pyvenv.cfg is deleted (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments (%(default)s)")
    asked = parser.parse_args()
    bad = False
    with furnished() as desk:
        for storm, tries in (
            (kills, asked.kills),
            (races, asked.races),
            (crowds, asked.crowds),
            (loops, asked.loops),
        ):
            if storm in (races, crowds) and (reason := why_no_members() or (storm is crowds and why_no_machine())):
                print(f"{storm.__name__}: not run: {reason}", flush=True)
                continue
            count = Count(storm.__name__)
            began = time.monotonic()
            if tries:
                storm(desk, count, tries, asked.seed)
            count.seconds = time.monotonic() - began
            print(count, flush=True)
            for line in [*count.changed[:5], *count.failed[:2]]:
                print(f"  {line.strip()}", file=sys.stderr, flush=True)
            bad = bad or bool(count.changed or count.failed or count.left)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
