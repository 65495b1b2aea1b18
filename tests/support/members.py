"""Two users of a group who share a store, each with a home and a desk."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.index import Index
from tests.support.sandbox import Result, Sandbox

GROUP = 54320
PYTHON = "/usr/bin/python3.11"


class NoMembersError(Exception):
    """Why there can be no other users here."""


class Member:
    """A user of the group, without a name, with a home and a desk of its own, on the store of all."""

    def __init__(self, root: Path, number: int, index: Index, uv: str) -> None:
        self.number = number
        self.desk = Sandbox(root / f"user{number}", index, uv, root / f"user{number}/cache")
        code = Path(__file__).parents[2]
        packages = next(Path(sys.prefix).glob("lib/python3.11/site-packages"))
        self.desk.environment |= {
            "DRYDOCK_HOME": str(root / "store"),
            "DRYDOCK_PYTHON": PYTHON,
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": f"{code}:{packages}",
            "TMPDIR": str(root / f"user{number}"),
        }
        self.desk.profile("small")

    @property
    def become(self) -> list[str]:
        """The start of a command of root's that is run as this user."""
        return ["setpriv", "--reuid", str(self.number), "--regid", str(self.number), "--groups", str(GROUP)]

    def own(self) -> None:
        """Give the desk to its user, who lets nobody else read what they make."""
        subprocess.run(["chown", "-R", f"{self.number}:{self.number}", str(self.desk.root)], check=True)

    def run(self, *command: str, umask: str = "077") -> Result:
        return self.desk.run([*self.become, "sh", "-c", f'umask {umask}; exec "$@"', "sh", *command])

    def drydock(self, *arguments: str, umask: str = "077") -> Result:
        return self.run(PYTHON, "-m", "builder", *arguments, umask=umask)


Pair = tuple[Member, Member]


@contextmanager
def two_members() -> Iterator[Pair]:
    """Two users of a group, with a lock each, and a store that the first has made for it. Raises NoMembersError."""
    from uv import find_uv_bin

    with tempfile.TemporaryDirectory(prefix="drydock-members-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        try:
            uv = Path(shutil.copy2(find_uv_bin(), root / "uv"))
        except OSError as error:
            raise NoMembersError(str(error)) from None
        (root / "wheels").mkdir()
        (root / "store").mkdir(mode=0o777)
        (root / "store").chmod(0o777)
        with Index(root / "wheels") as index:
            pair = Member(root, 54321, index, str(uv)), Member(root, 54322, index, str(uv))
            for member in pair:
                member.own()
            probe = pair[0].run(PYTHON, "-c", "import click, pydantic, builder") if not os.geteuid() else None
            if probe is None or probe.code:
                raise NoMembersError(
                    "other users need root, setpriv, and a Python 3.11 and a checkout that they can read"
                )
            os.chown(root / "store", pair[0].number, GROUP)
            pair[0].drydock("store", "init", "--shared", "--group", str(GROUP)).succeeded()
            for member in pair:
                member.drydock("lock", "small").succeeded()
            yield pair
