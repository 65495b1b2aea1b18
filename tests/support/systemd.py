"""A real systemd for a user, which needs no machine that was started by one: it gets control groups of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAM = "/usr/lib/systemd/systemd"
# In its mount namespace alone: what systemd looks for on a machine that it has started.
_START = """\
umount -l /sys/fs/cgroup/* 2>/dev/null
umount -l /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup && mount -t tmpfs none /run/systemd && mkdir /run/systemd/system || exit 77
exec env -i HOME="$1" XDG_RUNTIME_DIR="$2" PATH=/usr/bin:/bin "$0" --user
"""


@contextmanager
def user_instance(home: Path) -> Iterator[str]:
    """An instance for the user of a home; its XDG_RUNTIME_DIR."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or not os.access(PROGRAM, os.X_OK):
        pytest.skip("a systemd for a user needs root here")
    with tempfile.TemporaryDirectory(prefix="sd-", dir="/tmp") as runtime:  # a path of a socket is short
        process = subprocess.Popen(
            ["unshare", "-m", "-C", "sh", "-c", _START, PROGRAM, home, runtime],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            until = time.monotonic() + 20
            while ctl(runtime, "show-environment").returncode:
                if process.poll() is not None or time.monotonic() > until:
                    pytest.skip("systemd cannot be run here")
                time.sleep(0.05)
            yield runtime
        finally:
            ctl(runtime, "exit")
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def ctl(runtime: str, *words: str) -> subprocess.CompletedProcess[str]:
    """What `systemctl --user` says to an instance."""
    env = {**os.environ, "XDG_RUNTIME_DIR": runtime}
    return subprocess.run(["systemctl", "--user", *words], env=env, capture_output=True, text=True, timeout=60)
