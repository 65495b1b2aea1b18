"""An archive of a Python as python-build-standalone lays one out, and a list of downloads that has it, as uv's own.

It is a copy of a Python of this machine that is made once for all tests of a run: small, as each store of a test
unpacks, compiles and hashes it anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from tests.support.base import FOLDER, copy_python, find_python

DAY = "20251007"

# What nothing of a build needs.
_LEFT_OUT = {
    "asyncio", "curses", "dbm", "distutils", "ensurepip", "include", "lib2to3", "pydoc_data", "tkinter", "unittest",
    "wsgiref", "xmlrpc",
}  # fmt: skip


@dataclass(frozen=True)
class Standalone:
    """The archive at `path`, its `release` such as "3.11.7", and its sha256."""

    path: Path
    release: str
    sha256: str

    @property
    def key(self) -> str:
        return f"cpython-{self.release}-linux-x86_64-gnu"

    @property
    def file(self) -> str:
        return self.path.name

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def row(self, url: str, **others: object) -> dict[str, object]:
        """What uv's list has of it: at a `url`, which is not the archive's but the folder's."""
        major, minor, patch = map(int, self.release.split("."))
        return {
            "name": "cpython",
            "arch": {"family": "x86_64", "variant": None},
            "os": "linux",
            "libc": "gnu",
            "major": major,
            "minor": minor,
            "patch": patch,
            "prerelease": "",
            "url": f"{url}/{DAY}/{self.file.replace('+', '%2B')}",
            "sha256": self.sha256,
            "variant": None,
            "build": DAY,
            **others,
        }


def standalone() -> Standalone:
    """The archive that all tests of this run share: made by who asks first."""
    folder = Path(os.environ[FOLDER], "standalone")
    folder.mkdir(exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = folder / "made.json"
        if not made.exists():
            base = copy_python(find_python(), folder / "python")
            question = "import platform; print(platform.python_version())"
            asked = subprocess.run([base.python, "-I", "-c", question], capture_output=True, text=True, check=True)
            release = asked.stdout.strip()
            path = folder / f"cpython-{release}+{DAY}-x86_64-unknown-linux-gnu-install_only_stripped.tar.gz"
            for name in ("python", "python3"):
                (base.prefix / "bin" / name).unlink(missing_ok=True)
                (base.prefix / "bin" / name).symlink_to("python3.11")
            if strip := shutil.which("strip"):
                for library in (path for path in base.prefix.rglob("*.so*") if not path.is_symlink()):
                    subprocess.run([strip, library], check=False, stderr=subprocess.DEVNULL)
            with tarfile.open(path, "w:gz", compresslevel=1) as archive:
                archive.add(base.prefix, "python", filter=_plain)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            made.write_text(json.dumps([str(path), release, digest]))
        path_text, release, digest = json.loads(made.read_text())
    return Standalone(Path(path_text), release, digest)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """As upstream's: without bytecode and links that lead out of it (Debian's sitecustomize), and of nobody."""
    parts = Path(member.name).parts
    if (
        "__pycache__" in parts
        or _LEFT_OUT & {*parts[1:2], *parts[3:4]}
        or (member.issym() and member.linkname.startswith("/"))
    ):
        return None
    member.uid = member.gid = 0
    return member
