"""Builds in homes of their own, and builds that wait at a step: for tests of faults, kills and races."""

from __future__ import annotations

import difflib
import os
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from builder.embedded.examine import examine
from tests.support.sandbox import Result, Sandbox
from tests.support.steps import GO, Step, Watched, alike
from tests.support.wheels import make_wheel

_DRYDOCK = [sys.executable, "-m", "builder"]
PROGRAM = [*_DRYDOCK, "build", "small"]

Decide = Callable[[Watched, Step], int]


def furnish(sandbox: Sandbox) -> Sandbox:
    """Lock a `small` that has everything that a build can meet: a patch, a proof, and a module to compile."""
    text = "".join(f"line {number}\n" for number in range(1, 10))
    files = {"anchor/__init__.py": "version = '1.0'\n", "anchor/lines.txt": text}
    make_wheel(sandbox.wheels, "anchor", "1.0", files=files)
    lines = difflib.unified_diff(
        text.splitlines(True),
        text.replace("line 5", "line five").splitlines(True),
        "a/anchor/lines.txt",
        "b/anchor/lines.txt",
    )
    sandbox.file("patches/fix.patch", "".join(lines))
    sandbox.file("proofs/fix.py", "import anchor\n")
    sandbox.profile(
        "small",
        tail='[[patches]]\npackage = "anchor"\nversions = ">=1"\nfile = "patches/fix.patch"\n'
        'proof = "proofs/fix.py"\nwhy = "line 5 is wrong"\n',
    )
    sandbox.drydock("lock", "small").succeeded()
    return sandbox


def require(desk: Sandbox, requirements: str) -> None:
    """Let `small` ask for other packages, as TOML, and lock it."""
    path = desk.work / "profiles/small.toml"
    path.write_text(path.read_text().replace('["anchor"]', requirements))
    desk.drydock("lock", "small").succeeded()


def script_of(desk: Sandbox) -> list[str]:
    return ["sh", str(desk.script("small")), "--build-only"]


class Home:
    """A DRYDOCK_HOME of its own on a desk, and a build in it: of the `command`, the program's or the script's."""

    def __init__(self, desk: Sandbox, command: list[str], name: str) -> None:
        self.desk = desk
        self.command = command
        self.path = desk.root / "homes" / name
        self.environment = {**desk.environment, "DRYDOCK_HOME": str(self.path)}

    def build(self) -> Result:
        if self.command[: len(_DRYDOCK)] == _DRYDOCK:  # warm; what is watched is started anew
            return self.desk.drydock(*self.command[len(_DRYDOCK) :], env=self.environment)
        return self.desk.run(self.command, env=self.environment)

    def watch(self, decide: Decide) -> Watched:
        return Watched(self.command, self.path, decide, env=self.environment, cwd=self.desk.work)

    def steps(self) -> list[str]:
        """Build without a fault: its steps, each once."""
        seen: dict[str, None] = {}

        def note(_watched: Watched, step: Step) -> int:
            seen.setdefault(str(step))
            return GO

        code, _, stderr = self.watch(note).ended()
        assert code == 0, stderr
        return list(seen)

    def files(self) -> set[str]:
        """What is there, with the sizes of files, but for marks of processes, uv's own lock, and notes of wheels."""
        found = set()
        for path in self.path.rglob("*"):
            name = alike(str(path.relative_to(self.path)))
            # Notes of wheels only save time, and are written where that can be.
            if not name.startswith("gcroots/running/") and path.name != ".lock" and "/wheels" not in name:
                small = path.is_file() and not path.is_symlink() and name.startswith("store/")
                found.add(f"{name} {path.stat().st_size}" if small else name)
        return found

    def environments(self) -> list[Path]:
        """What stands under its own name in the store."""
        return [path for path in self.store().glob("*") if not path.name.startswith(".")]

    def store(self) -> Path:
        return self.path / "store"

    def unfinished(self) -> list[Path]:
        """Stages, and what else is hidden in the store."""
        return list(self.store().glob(".*"))

    def check_whole(self) -> None:
        """Nothing half-made stands under a name of its own, and nothing half-made is current."""
        for env in self.environments():
            bad = examine([env])[0].problems
            assert not bad, f"half-made in the store: {bad}"
        for path in (self.path / "profiles").glob("*"):
            if path.is_symlink() and not path.name.startswith("."):
                assert path.resolve() in self.environments(), f"{path.name} is a link to {path.resolve()}"
        for path in (self.path / "profiles").glob("*-link"):
            script = path.with_name(path.name.replace("-link", "-run.sh"))
            assert script.read_text().endswith('\ngo "$@"\n'), f"{script.name} is half-written"

    def check_next(self, clean: set[str]) -> None:
        """The next build succeeds and leaves what a build without a fault leaves; its trainer runs."""
        self.build().succeeded()
        self.check_whole()
        assert len(self.environments()) == 1
        if self.files() != clean:  # what only takes up room is left to a collection, of the next day
            for path in self.path.rglob("*"):
                os.utime(path, (0, 0), follow_symlinks=False)
            self.desk.drydock("store", "gc", env=self.environment).succeeded()
        assert self.files() ^ clean == set()
        script = next(self.desk.root.glob("generated/small/run_*.sh"))
        trained = self.desk.run(["sh", str(script)], env=self.environment).succeeded()
        assert trained.stdout == "trained with 1.0\n"


def once(step: str, fault: Decide) -> tuple[Decide, list[Step]]:
    """The fault at the first step of that name, and a list that has the step when it was met."""
    met: list[Step] = []

    def decide(watched: Watched, here: Step) -> int:
        if str(here) != step or met:
            return GO
        met.append(here)
        return fault(watched, here)

    return decide, met


class Frozen:
    """A build that waits before a step, until `thaw`; `step` is that step."""

    def __init__(self, home: Home, at: Callable[[Step], bool]) -> None:
        self._reached = threading.Event()
        self._go_on = threading.Event()
        self._at = at
        self.watched = home.watch(self._decide)
        while not self._reached.wait(0.05):
            assert self.watched.process.poll() is None, f"the build never came to it: {self.watched.ended()}"

    def _decide(self, _watched: Watched, step: Step) -> int:
        if not self._reached.is_set() and self._at(step):
            self.step = step
            self._reached.set()
            self._go_on.wait(120)
        return GO

    def thaw(self) -> Result:
        self._go_on.set()
        return Result(*self.watched.ended())


# Where a build waits: what a step looks like, whoever takes it. The first ones are in this order in every build.
PLACES = {
    "before the stage": r"mkdir(at)? store/\.stage-KEY-RANDOM$",
    "in the stage": r"open(at)? store/\.stage-KEY-RANDOM/\.drydock/proofs/fix\.py$",
    "before the packages": r"mkdir(at)? store/\.stage-KEY-RANDOM/lib/python3\.11/site-packages/anchor$",
    "before the bytecode": r"link(at)? wheels/.*\.pyc -> store/\.stage-KEY-RANDOM/",
    "before the rename": r"rename(at2?)? store/\.stage-KEY-RANDOM -> store/KEY-small$",
    "after the rename": r"f?chmod(at2?)? store/KEY-small$",
    "before the generation": r"drydock: (mkdir profiles|openat profiles/\.small-N-run\.sh\.PID)$",
    "in the generation": r"drydock: symlink profiles/\.small-N-link\.PID$",
    "before it is current": r"drydock: rename profiles/\.small\.PID -> profiles/small$",
}


def is_at(place: str) -> Callable[[Step], bool]:
    """What tells the steps at one of the `PLACES` from others."""
    return lambda step: re.search(PLACES[place], str(step)) is not None
