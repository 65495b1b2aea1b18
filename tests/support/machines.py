"""A process that takes this machine for another one: its own name, start, processes, and no locks that travel.

What differs between two hosts on one store, where one machine has to do for two: in the folder that they share flock(2)
fails with ENOLCK, as on NFS without a lock manager, and a FIFO cannot be made, as both would see it open.
Needs root, and Linux on x86_64.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

from tests.support import seccomp

CONTAINER = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
"""The start of a command that sees no process of this machine but its own."""

_FLOCK, _MKNOD, _MKNODAT = 73, 133, 259  # linux, arch/x86/entry/syscalls/syscall_64.tbl


class Machine:
    """Another machine: a name and a start of its own. `command` begins a command that runs there."""

    def __init__(self, name: str, shared: Path, folder: Path) -> None:
        boot = folder / f"boot-{name}"
        boot.write_text(f"{uuid.uuid4()}\n")
        root = str(Path(__file__).parents[2])
        begin = f"import sys; sys.path.insert(0, {root!r}); from tests.support import machines; machines.be()"
        self.command = (
            *(*CONTAINER, "--uts", "--mount", sys.executable, "-c", begin),
            *(name, str(boot), str(shared)),
        )


def why_not() -> str | None:
    """Why there can be no other machine here; None where there can."""
    if os.geteuid():
        return "only root can make namespaces"
    with tempfile.TemporaryDirectory() as folder:
        command = [*Machine("trial", Path(folder), Path(folder)).command, "true"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr.strip().rpartition("\n")[2] or "unshare failed" if done.returncode else None


def be() -> None:
    """Be the machine that the arguments name, as long as the command runs that follows them, and end as it does."""
    name, boot, shared, *command = sys.argv[1:]
    socket.sethostname(name)
    subprocess.run(["mount", "--bind", boot, "/proc/sys/kernel/random/boot_id"], check=True)
    ours, theirs = socket.socketpair()
    calls = [(seccomp.EQUAL, 0, 1, number) for number in (_FLOCK, _MKNOD, _MKNODAT)]
    choice = [step for one in calls for step in (one, seccomp.NOTIFY)]
    process = subprocess.Popen(seccomp.command(choice, theirs.fileno(), *command), pass_fds=[theirs.fileno()])
    theirs.close()
    listener = seccomp.listener(ours)
    if listener is None:
        sys.exit(process.wait())
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while not any(event & select.POLLHUP for _, event in poll.poll()):
        if (asked := seccomp.receive(listener)) is not None:
            number, thread, call, arguments = asked
            seccomp.answer(listener, number, _refused(thread, call, arguments[0], shared))
    sys.exit(process.wait() % 256)


def _refused(thread: int, call: int, argument: int, shared: str) -> int:
    """The errno that a call ends with; 0 where it may happen."""
    if call != _FLOCK:
        return errno.EPERM
    try:
        held = str(Path(f"/proc/{thread}/fd/{argument & 0xFFFFFFFF}").readlink())
    except OSError:
        return 0
    return errno.ENOLCK if held.startswith(f"{shared}/") else 0
