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

from tests.support.waiting import LONG

PROGRAM = "/usr/lib/systemd/systemd"
# In its mount namespace alone: what systemd looks for on a machine that it has started. It moves every process of the
# control group that it finds at the top, so it gets one with itself alone.
_START = """\
umount -l /sys/fs/cgroup/* 2>/dev/null
umount -l /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup || exit 77
group=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/$1
mkdir "$group" && echo $$ >"$group/cgroup.procs" || exit 77
exec unshare -C sh -c '
umount /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup || exit 77
mount -t tmpfs none /run/systemd && mkdir /run/systemd/system || exit 77
exec env -i HOME="$2" XDG_RUNTIME_DIR="$3" PATH=/usr/bin:/bin "$0" --user' "$0" "$@"
"""
_END = """\
mount -t cgroup2 none /mnt || exit 0
find "/mnt$(sed -n 's/^0:://p' /proc/self/cgroup)/$1" -depth -type d -exec rmdir {} +
"""


@contextmanager
def user_instance(home: Path) -> Iterator[str]:
    """An instance for the user of a home; its XDG_RUNTIME_DIR."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or not os.access(PROGRAM, os.X_OK):
        pytest.skip("a systemd for a user needs root here")
    group = Path("/proc/self/cgroup").read_text()
    with tempfile.TemporaryDirectory(prefix="sd-", dir="/tmp") as runtime:  # a path of a socket is short
        process = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", _START, PROGRAM, Path(runtime).name, home, runtime],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            until = time.monotonic() + LONG
            while ctl(runtime, "show-environment").returncode:
                if process.poll() is not None or time.monotonic() > until:
                    pytest.skip("systemd cannot be run here")
                time.sleep(0.05)
            assert Path("/proc/self/cgroup").read_text() == group, "it has moved what is not its own"
            yield runtime
        finally:
            ctl(runtime, "exit")
            try:
                process.wait(LONG)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            subprocess.run(["unshare", "-m", "sh", "-c", _END, "sh", Path(runtime).name], check=False)


def ctl(runtime: str, *words: str) -> subprocess.CompletedProcess[str]:
    """What `systemctl --user` says to an instance."""
    env = {**os.environ, "XDG_RUNTIME_DIR": runtime}
    return subprocess.run(["systemctl", "--user", *words], env=env, capture_output=True, text=True, timeout=60)
