"""The Python that the tests build on: a copy that nobody needs, whose files are compared afterwards.

A build that goes wrong in the worst way changes the Python that it was built on. So no test builds on one of this
machine: each uses a copy, which has packages in it that no lock names and no note that protects it (PEP 668).
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import shutil
import stat
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tests.support.wheels import make_wheel

# The folder of the copy, for all workers of a run: conftest.py makes it, and workers inherit the variable.
FOLDER = "DRYDOCK_TESTS_BASE"
# What a base Python of a user has besides, and no lock names; an older `anchor` would be replaced.
OUTSIDERS = (("outsider", "1.0"), ("other-outsider", "2.0"), ("anchor", "0.1"))

_LEFT_OUT = ("test", "tests", "idlelib", "turtledemo", "site-packages", "dist-packages", "EXTERNALLY-MANAGED")
_ASK = """\
import json, sys, sysconfig
paths = sysconfig.get_paths()
headers = sysconfig.get_config_var("INCLUDEPY") or ""
print(json.dumps([sys.base_prefix, paths["stdlib"], headers, "python%d.%d" % sys.version_info[:2]]))
"""

_ASK_COPY = "import site, sys; print(sys.prefix, site.getsitepackages()[0], sep='\\n')"

# What a file or a folder is known by: mode, size, and the times of its content and of its inode. No program can set
# the last one.
Snapshot = dict[str, tuple[int, int, int, int]]


@dataclass(frozen=True)
class Base:
    """A Python installation in the folder `prefix`, and how its files were when it was made."""

    prefix: Path
    files: Snapshot

    @property
    def python(self) -> str:
        return str(next((self.prefix / "bin").glob("python3.*")))

    @property
    def site(self) -> Path:
        """Where its packages are, which Debian has its own mind about."""
        return next(path.parent for path in self.prefix.rglob("outsider") if path.is_dir())

    def changes(self) -> list[str]:
        """The files that are not as they were."""
        return changes(self.prefix, self.files)


def snapshot(folder: Path) -> Snapshot:
    """Everything in a folder, and the folder itself."""
    found: Snapshot = {}
    left = [str(folder)]
    while left:
        path = left.pop()
        found[path] = _known_by(os.lstat(path))
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    left.append(entry.path)
                else:
                    found[entry.path] = _known_by(entry.stat(follow_symlinks=False))
    return found


def _known_by(state: os.stat_result) -> tuple[int, int, int, int]:
    return (state.st_mode, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


def changes(folder: Path, before: Snapshot) -> list[str]:
    """What was removed, altered or added in a folder; bytecode that an import added does not count."""
    try:
        now = snapshot(folder)
    except FileNotFoundError:
        return [f"{folder} is gone"]
    gone = [f"{path} is gone" for path in before.keys() - now.keys()]
    new = [f"{path} is new" for path in now.keys() - before.keys() if "/__pycache__" not in path]
    # Of a folder only the mode counts: what is in it is looked at itself.
    other = [
        f"{path} was changed"
        for path in before.keys() & now.keys()
        if (now[path][0] != before[path][0] if stat.S_ISDIR(before[path][0]) else now[path] != before[path])
    ]
    return sorted([*gone, *new, *other])


def copy_python(python: str, prefix: Path) -> Base:
    """Copy the standard library and the program of a Python to `prefix`, and install `OUTSIDERS` there."""
    asked = subprocess.run([python, "-I", "-c", _ASK], capture_output=True, text=True, check=True)
    base, stdlib, headers, name = json.loads(asked.stdout)
    program = Path(base, "bin", name).resolve()
    shutil.copytree(
        stdlib,
        prefix / Path(stdlib).relative_to(base),
        symlinks=True,
        ignore=shutil.ignore_patterns(*_LEFT_OUT, "*.a", "*.opt-?.pyc"),
    )
    if headers and Path(headers).is_dir():
        shutil.copytree(headers, prefix / "include" / name, symlinks=True)
    for library in Path(base, "lib").glob("libpython3*.so*"):
        shutil.copy2(library, prefix / "lib" / library.name, follow_symlinks=False)
    copied = prefix / "bin" / name
    copied.parent.mkdir(parents=True)
    # The folder that the program looks for its library in is the copy's own, so that any user can run it.
    old = f"\0{base}/lib\0".encode()
    new = b"\0$ORIGIN/../lib".ljust(len(old) - 1, b"\0") + b"\0"
    content = program.read_bytes()
    copied.write_bytes(content.replace(old, new) if len(new) == len(old) else content)
    copied.chmod(0o755)
    told = subprocess.run([copied, "-I", "-c", _ASK_COPY], capture_output=True, text=True, check=False)
    found, _, site = told.stdout.strip().partition("\n")
    assert found == str(prefix), f"a copy of {program} does not work: {told.stdout}{told.stderr}"
    install_outsiders(Path(site))
    return Base(prefix, snapshot(prefix))


def install_outsiders(site: Path) -> None:
    """Unpack `OUTSIDERS` in a folder of packages."""
    for name, version in OUTSIDERS:
        wheel = make_wheel(site, name, version)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
        wheel.unlink()


@functools.cache
def base_python() -> Base:
    """The copy that all tests of this run share: made by who asks first."""
    folder = Path(os.environ[FOLDER])
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = folder / "files.json"
        if not made.exists():
            base = copy_python(find_python(), folder / "python")
            made.write_text(json.dumps(base.files))
    return read_base(folder)


def read_base(folder: Path) -> Base:
    """The copy in the folder of a run."""
    files = json.loads((folder / "files.json").read_text())
    return Base(folder / "python", {path: tuple(known) for path, known in files.items()})


def find_python() -> str:
    """A Python 3.11 of this machine: what `uv python find` says. For looking and copying only."""
    from uv import find_uv_bin

    done = subprocess.run([find_uv_bin(), "python", "find", "3.11"], capture_output=True, text=True, check=True)
    return done.stdout.strip()
