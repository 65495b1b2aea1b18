"""A Python of python-build-standalone in a lock: one archive by its sha256, as uv's own list of downloads has it.

It has the logical index `python-build-standalone`, and its version is that of Python and the day of the build:
"3.11.13+20251007". Where the archive is, says the uv of whoever builds, or a mirror; the lock says which it is. Pure;
`builder.lock.python` finds one.
"""

from __future__ import annotations

import re

from builder.lock.model import Artefact
from builder.profile.model import Profile
from builder.profile.target import Target

PYTHON = "python"
INDEX = "python-build-standalone"
FILE = re.compile(r"cpython-(3\.[0-9]+\.[0-9]+\+[0-9]{8})-([a-z0-9_-]+)-install_only(?:_stripped)?\.tar\.gz")


def system_of(target: Target) -> tuple[str, str, str]:
    """How uv calls the operating system, processor and C library of a target."""
    system, libc = ("macos", "none") if target.system == "Darwin" else ("linux", "gnu")
    return system, "aarch64" if target.machine in ("arm64", "aarch64") else target.machine, libc


def key_of(python: Artefact, target: Target) -> str:
    """How uv calls a locked Python: the name of its folder."""
    return "-".join(["cpython", python.version.partition("+")[0], *system_of(target)])


def fits(python: Artefact, profile: Profile) -> bool:
    """Whether a locked Python is one that the profile wants."""
    found = FILE.fullmatch(python.file)
    if found is None or found[1] != python.version or found[2] != _triple(profile.target):
        return False
    return f"{python.version.partition('+')[0]}.".startswith(f"{profile.python.version}.")


def _triple(target: Target) -> str:
    system, machine, _ = system_of(target)
    return f"{machine}-{'apple-darwin' if system == 'macos' else 'unknown-linux-gnu'}"
