"""Two users, in containers and on other machines or not, who build, run, collect and repair in one store at once."""

from __future__ import annotations

import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

from builder.embedded.examine import examine
from tests.support.alive import Mark
from tests.support.machines import CONTAINER, Machine
from tests.support.members import PYTHON, Member, Pair
from tests.support.waiting import LONG, allowed

TRAINER = """\
import anchor, pathlib, sys, time
here = pathlib.Path(anchor.__file__).parent
end = time.monotonic() + 1.5
while time.monotonic() < end:
    assert (here / "__init__.py").stat().st_size, here
    time.sleep(0.01)
import json
print("trained to the end")
"""

DRYDOCK = (PYTHON, "-m", "builder")

ALLOWED = {
    "build": (),
    "run": (),
    "gc": ("cannot be deleted", "another collection is under way"),
    "repair": (
        "cannot be built again: no generation and no script has this key",
        "cannot be exchanged by anybody else",
    ),
}
"""What somebody does, and the words with which it may end otherwise than well."""


@dataclass(frozen=True)
class Act:
    """Something that a user does somewhere, under way."""

    what: str
    where: str
    member: Member
    process: subprocess.Popen[bytes]

    def ended(self) -> str | None:
        """Wait for it; what went wrong, None where nothing did."""
        try:
            stdout, stderr = self.process.communicate(timeout=LONG)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return f"{self}: it hangs"
        told = stderr.decode(errors="replace")
        well = self.process.returncode == 0 and (self.what != "run" or stdout.endswith(b"trained to the end\n"))
        if "Traceback" not in told and (well or any(words in told for words in ALLOWED[self.what])):
            return None
        return f"{self}: exit status {self.process.returncode}: {told}"

    def __str__(self) -> str:
        return f"{self.what} by user {self.member.number} on {self.where}"


class Crowd:
    """What two members do in the store that they share."""

    def __init__(self, pair: Pair, folder: Path) -> None:
        self._pair = pair
        self.home = Path(pair[0].desk.environment["DRYDOCK_HOME"])
        self._places = {
            "this machine": (),
            "a container": CONTAINER,
            **{name: Machine(name, self.home, folder).command for name in ("machine-one", "machine-two")},
        }
        self._scripts = {}
        for member in pair:
            member.desk.trainer(TRAINER)
            self._scripts[member.number] = str(member.desk.script("small"))
            member.own()
        self._mark = Mark()

    def start(self, chance: random.Random, what: str) -> Act:
        """Let one of them begin something somewhere."""
        member = chance.choice(self._pair)
        where = chance.choice(list(self._places))
        script = self._scripts[member.number]
        command = {
            "build": chance.choice((("sh", script, "--build-only"), (*DRYDOCK, "build", "small"))),
            "run": chance.choice((("sh", script), (*DRYDOCK, "run", "small"))),
            "gc": (*DRYDOCK, "store", "gc"),
            "repair": (*DRYDOCK, "store", "verify", "--repair"),
        }[what]
        process = subprocess.Popen(
            [*self._places[where], *member.become, *command],
            env={**member.desk.environment, **self._mark.environment},
            cwd=member.desk.work,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        return Act(what, where, member, process)

    def forget(self) -> None:
        """Take away what would keep an environment that nobody uses, so that a collection has something to take."""
        for path in [*self.home.glob("gcroots/scripts/*"), *self.home.glob("profiles/small*")]:
            path.unlink(missing_ok=True)

    def damage(self) -> None:
        """Write into a module of an environment that is there; root may."""
        for path in self.home.glob("store/*/lib/python3.11/site-packages/anchor/__init__.py"):
            with path.open("a") as file:
                file.write("# changed\n")

    def wrong(self) -> list[str]:
        """What is half-made or lost now that all have ended, after a last repair."""
        member = self._pair[0]
        told = []
        for path in self.home.glob("store/[0-9a-z]*"):
            # Not of the files that `damage` wrote into: those are repaired where nothing has forgotten how.
            told += [f"{path.name}: {one}" for one in examine([path])[0].problems if "anchor/__init__" not in str(one)]
        built = member.run(*("sh", self._scripts[member.number]))
        if built.code or not built.stdout.endswith("trained to the end\n"):
            told.append(f"the next run: {built.stderr}")
        told += [f"left: {path.name}" for path in self.home.glob("store/.stage-*")]
        return told

    def left(self) -> dict[int, str]:
        """What still runs, 10 seconds after."""
        return self._mark.gone(allowed(10))
