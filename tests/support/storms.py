"""Who builds in an unruly way: people who kill a build and remove its store, and two users of one store."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
import time
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from builder.embedded.examine import examine
from tests.support.again import happening
from tests.support.alive import Mark
from tests.support.base import Base, snapshot
from tests.support.belongings import clone
from tests.support.homes import Home
from tests.support.sandbox import Result, Sandbox
from tests.support.waiting import allowed

# Numbers that no machine gives its people; they need no names.
GROUP, USERS = 61_000, (61_001, 61_002)


def remove_store(store: Path) -> None:
    """What a person does who wants to begin again."""
    subprocess.run(["chmod", "-R", "u+w", str(store)], check=False, stderr=subprocess.DEVNULL)
    subprocess.run(["rm", "-rf", str(store)], check=False, stderr=subprocess.DEVNULL)


def remove_in_any_order(folder: Path, chance: random.Random) -> None:
    """`rm -rf`, where a build may go on, in the order of some other file system: each lists its files in its own."""
    with suppress(OSError):
        folder.chmod(0o755)
        entries = list(folder.iterdir())
        chance.shuffle(entries)
        for path in entries:
            if path.is_dir() and not path.is_symlink():
                remove_in_any_order(path, chance)
            else:
                path.unlink(missing_ok=True)
        folder.rmdir()


def kill_and_remove(home: Home, chance: random.Random, *, after: float, pause: float) -> tuple[Result, dict[int, str]]:
    """As an impatient person: kill a build after some time, remove the store after a pause, and build again at once.

    Gives what the second build said, and what goes on of the first after 10 seconds.
    """
    mark = Mark()
    first = subprocess.Popen(
        home.command,
        env={**home.environment, **mark.environment},
        cwd=home.desk.work,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(after)
    first.kill()
    time.sleep(pause)
    remove_in_any_order(home.store(), chance)
    again = home.build()
    first.wait()
    return again, mark.gone(allowed(10))


def deleting_configurations(store: Path) -> AbstractContextManager[None]:
    """Delete each pyvenv.cfg of a stage as soon as it is there."""

    def delete() -> None:
        for stage in store.glob(".stage-*"):
            (stage / "pyvenv.cfg").unlink(missing_ok=True)

    return happening(delete, 0.001)


def why_no_members() -> str | None:
    """Why this process cannot start others as another user; None where it can."""
    if os.geteuid() != 0:
        return "only root can"
    try:
        subprocess.run(["true"], user=USERS[0], group=GROUP, extra_groups=[], check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return None if shutil.which("setpriv") else "there is no setpriv"


@dataclass(frozen=True)
class Member:
    """A user of a shared store: a number, a Python of their own, and an environment."""

    number: int
    base: Base
    command: list[str]
    environment: dict[str, str]

    def start(self) -> subprocess.Popen[bytes]:
        """Start the script as this user, and do not wait for it."""
        return subprocess.Popen(
            self.command,
            env=self.environment,
            cwd=self.environment["HOME"],
            user=self.number,
            group=GROUP,
            extra_groups=[],
            umask=0o002,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def command_as_root(self) -> list[str]:
        """The same as a command that root gives."""
        who = ["setpriv", f"--reuid={self.number}", f"--regid={GROUP}", "--clear-groups"]
        return ["sh", "-c", 'umask 002; cd "$HOME"; exec "$@"', "sh", *who, *self.command]


class Members:
    """Two users who share a store: its folders give their group to what is in them, and their umask is 002.

    All that they need is in a folder that both can read: `script`, uv, and a Python for each.
    """

    def __init__(self, desk: Sandbox, script: Path) -> None:
        self.desk = desk
        self.folder = Path(tempfile.mkdtemp(prefix="drydock-members-"))
        self.folder.chmod(0o755)
        shutil.copy(desk.environment["DRYDOCK_UV"], self.folder / "uv")
        shutil.copy(script, self.folder / "run.sh")
        self.home = self.folder / "shared"
        self.home.mkdir()
        os.chown(self.home, 0, GROUP)
        self.home.chmod(0o2775)
        self.members = [self._member(number) for number in USERS]

    def _member(self, number: int) -> Member:
        home = self.folder / f"home-{number}"
        home.mkdir()
        base = clone(home / "base")
        for path in (home, *home.rglob("*")):
            os.chown(path, number, GROUP, follow_symlinks=False)
        environment = {
            **self.desk.environment,
            "HOME": str(home),
            "PATH": f"{base.prefix}/bin:/usr/bin:/bin",
            "UV_CACHE_DIR": str(home / "cache"),
            "DRYDOCK_UV": str(self.folder / "uv"),
            "DRYDOCK_PYTHON": base.python,
            "DRYDOCK_HOME": str(self.home),
        }
        base = Base(base.prefix, snapshot(base.prefix))  # with their owner
        return Member(number, base, ["sh", str(self.folder / "run.sh"), "--build-only"], environment)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        remove_store(self.folder)

    def store(self) -> Path:
        return self.home / "store"

    def renew(self) -> None:
        """Begin again where a Python was changed."""
        for at, one in enumerate(self.members):
            if one.base.changes():
                remove_store(self.folder / f"home-{one.number}")
                self.members[at] = self._member(one.number)

    def changes(self) -> list[str]:
        """What is not as it was in the Pythons of both."""
        return [line for one in self.members for line in one.base.changes()]

    def check_sound(self) -> None:
        """One environment stands in the store, whole, and nothing else."""
        (env,) = self.store().iterdir()
        assert examine([env])[0].problems == []
