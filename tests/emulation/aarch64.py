"""A bare aarch64 Linux machine under qemu: Debian 12, glibc 2.36, Python 3.11, for real runs.

    if reason := available():
        pytest.skip(reason)
    bare = machine(Path("~/.cache/drydock-tests/aarch64").expanduser())
    bare.run(["uname", "-m"]).stdout                        # 'aarch64\\n'
    bare.run(["sh", "/work/script.sh"], binds={tmp_path: "/work"}, env={"DRYDOCK_HOME": "/work/store"})

What a run writes outside its binds is gone when it ends, so every run meets the same bare machine. The work
is done by `sysroot.sh` and `run.sh` beside this file; they serve without Python too.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
RUN = HERE / "run.sh"
SYSROOT = HERE / "sysroot.sh"
REFUSED = 96
"""The exit status with which `run.sh` says that it could not make the namespace."""
NO_SUCH_PROGRAM = 127

PASSED_ON = (
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
    "PIP_INDEX_URL", "PIP_DEFAULT_TIMEOUT", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_HTTP_TIMEOUT",
)  # fmt: skip
"""What the machine has of this one's environment: how the network is reached, nothing else."""


def available() -> str | None:
    """Return why no aarch64 machine can be emulated here, or None where one can."""
    if sys.platform != "linux":
        return f"aarch64 emulation needs Linux, this is {sys.platform}"
    for program, package in {"qemu-aarch64-static": "qemu-user-static", "unshare": "util-linux",
                             "apt-get": "apt", "dpkg-deb": "dpkg"}.items():  # fmt: skip
        if shutil.which(program) is None:
            return f"aarch64 emulation needs {program} (apt-get install {package})"
    release = os.uname().release
    if tuple(int(part) for part in release.split("-")[0].split(".")[:2]) < (6, 7):
        return f"aarch64 emulation needs Linux 6.7 (binfmt_misc per user namespace), this is {release}"
    with tempfile.TemporaryDirectory() as empty:
        # A root without programs: 127, from its chroot, says that every step before it was allowed.
        Path(empty, "tmp").mkdir()
        tried = _run(Machine(Path(empty)).command(["true"]), timeout=60)
    if tried.returncode != NO_SUCH_PROGRAM:
        return f"aarch64 emulation is refused here: {tried.stderr.strip() or tried.returncode}"
    return None


@dataclass(frozen=True)
class Machine:
    """A bare aarch64 machine whose files are those of `root`, a folder that `sysroot.sh` made."""

    root: Path

    def command(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        binds: Mapping[Path, str] | None = None,
    ) -> list[str]:
        """Return the command of this machine that runs `argv` on the emulated one, for a Popen of one's own.

        `binds` are folders of this machine and where the emulated one has them; `env` is added to the little
        that it sets itself. A signal to the process reaches the emulated program: they are one process.
        """
        bound = [f"--bind={host.resolve()}:{inside}" for host, inside in (binds or {}).items()]
        passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ} | dict(env or {})
        given = [f"{name}={value}" for name, value in passed.items()]
        return ["sh", str(RUN), "--chroot", str(self.root), *bound, "env", *given, *argv]

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        binds: Mapping[Path, str] | None = None,
        timeout: float | None = 600,
    ) -> subprocess.CompletedProcess[str]:
        """Run `argv` to its end, and return its status and what it said.

        Raises `subprocess.TimeoutExpired` after `timeout` seconds, the program and its children killed.
        """
        done = _run(self.command(argv, env=env, binds=binds), timeout=timeout)
        if done.returncode == REFUSED and "run.sh: " in done.stderr:
            raise RuntimeError(f"the emulated machine did not start: {done.stderr.strip()}")
        return done


def machine(cache_dir: Path) -> Machine:
    """Return the machine, its root made under `cache_dir` where it is not there yet (10 seconds, 145 MB).

    The root is named by the hash of `sysroot.sh`. Two makers at once end with one root.
    Raises RuntimeError with what `sysroot.sh` said where it failed.
    """
    root = cache_dir / f"debian-12-{hashlib.sha256(SYSROOT.read_bytes()).hexdigest()[:16]}"
    if not root.is_dir():
        made = _run(["sh", str(SYSROOT), str(root)], timeout=600)
        if not root.is_dir():
            raise RuntimeError(f"no aarch64 root: {made.stderr.strip()}")
    return Machine(root)


def _run(argv: Sequence[str], *, timeout: float | None) -> subprocess.CompletedProcess[str]:
    """`subprocess.run` in a session of its own, so that a timeout ends the children as well."""
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return subprocess.CompletedProcess(argv, process.returncode, out, err)
