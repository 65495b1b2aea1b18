"""Programs whose every change to a disk is a step, and a test that decides what becomes of each.

Linux hands the system calls over (seccomp_unotify(2)): those that change a disk wait for an answer, in all processes
and threads of the program. The test lets one happen, makes it fail, or leaves it waiting while it does something else;
meanwhile every other process of the program waits at its own next step. Nothing is counted, so that nothing depends on
the order in which threads get their turn: a step is known by program, call and paths.
"""

from __future__ import annotations

import itertools
import os
import re
import select
import signal
import socket
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.support import seccomp

# Calls by number, of x86_64 (linux, arch/x86/entry/syscalls/syscall_64.tbl), and where their paths are: the number of
# an argument that is a path, a pair of such for a folder and a path below it, or `fd` and the number of a descriptor.
CALLS: dict[int, tuple[str, tuple[str, ...]]] = {
    1: ("write", ("fd 0",)),
    2: ("open", ("0",)),
    18: ("pwrite64", ("fd 0",)),
    20: ("writev", ("fd 0",)),
    40: ("sendfile", ("fd 0",)),
    74: ("fsync", ("fd 0",)),
    75: ("fdatasync", ("fd 0",)),
    76: ("truncate", ("0",)),
    77: ("ftruncate", ("fd 0",)),
    82: ("rename", ("0", "1")),
    83: ("mkdir", ("0",)),
    84: ("rmdir", ("0",)),
    85: ("creat", ("0",)),
    86: ("link", ("0", "1")),
    87: ("unlink", ("0",)),
    88: ("symlink", ("1",)),
    90: ("chmod", ("0",)),
    91: ("fchmod", ("fd 0",)),
    257: ("openat", ("0 1",)),
    258: ("mkdirat", ("0 1",)),
    263: ("unlinkat", ("0 1",)),
    264: ("renameat", ("0 1", "2 3")),
    265: ("linkat", ("0 1", "2 3")),
    266: ("symlinkat", ("1 2",)),
    268: ("fchmodat", ("0 1",)),
    280: ("utimensat", ("0 1",)),
    285: ("fallocate", ("fd 0",)),
    296: ("pwritev", ("fd 0",)),
    316: ("renameat2", ("0 1", "2 3")),
    326: ("copy_file_range", ("fd 2",)),
    452: ("fchmodat2", ("0 1",)),
}
# Of these only the ones that can change something: the argument that tells, and the bits to look for.
OPENS = {2: 1, 257: 2}
CREATES = os.O_CREAT | os.O_TRUNC

GO, NEVER = 0, -1

_AT_FDCWD = 0xFFFFFF9C


@dataclass(frozen=True)
class Step:
    """A change to the disk that a process is about to make: `pid` is the process, `paths` are below the folder."""

    pid: int
    program: str
    call: str
    paths: tuple[str, ...]

    def __str__(self) -> str:
        """The step, with what differs from one run to the next left out."""
        return f"{self.program}: {self.call} {' -> '.join(alike(path) for path in self.paths)}"


def some(steps: Iterable[str]) -> list[str]:
    """Every step; where DRYDOCK_TESTS_STEPS is a number N, every Nth: the commit decides which, so that all get a turn.

    CI sets it, as each step costs a build.
    """
    each = int(os.environ.get("DRYDOCK_TESTS_STEPS", "1"))
    found = list(steps)
    return found[zlib.crc32(_commit().encode()) % each :: each]


@cache
def _commit() -> str:
    head = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    return subprocess.run(head, capture_output=True, text=True, check=False).stdout


def alike(path: str) -> str:
    """A path below DRYDOCK_HOME without process numbers, keys and random names.

    >>> key = "0" * 32
    >>> alike(f"store/.stage-{key}-a.host-12/bin"), alike(f"store/.stage-{key}-s5XqZ_0k.old")
    ('store/.stage-KEY-RANDOM/bin', 'store/.stage-KEY-RANDOM.old')
    """
    path = re.sub(r"\.stage-[0-9a-z]{32}-([^/]*-\d+|\w+)", ".stage-KEY-RANDOM", path)
    path = re.sub(r"^tmp/drydock-\d+-\d/", "tmp/drydock-PID/", path)
    path = re.sub(r"\.new-[0-9a-f]{12}\b", ".new-RANDOM", path)
    path = re.sub(r"\b[0-9a-z]{32}-", "KEY-", path)
    path = re.sub(r"[0-9a-f]{16,}", "HASH", path)
    path = re.sub(r"\.tmp\w{6}", ".tmp", path)
    path = re.sub(r"small-\d+-", "small-N-", path)
    path = re.sub(r"/bin/(activate|deactivate|pydoc)[^/]*$", "/bin/activate", path)
    path = re.sub(r"\.pyc\.[0-9a-f]{8}$", ".pyc.RANDOM", path)
    path = re.sub(r"/\.HASH\.\d+\.json$", "/.HASH.PID.json", path)
    return re.sub(r"((?:^|/)\.[^/]*\.|\.pyc\.|/wheels/HASH\.|^gcroots/running/.*\.|\.new-.*-)\d+$", r"\1PID", path)


class Watched:
    """A program with its children, in a session of its own; `decide` is asked about each step below `folder`.

    `decide` gives an errno to make the step fail with, GO to let it happen, or NEVER where it killed who asks. It runs
    in a thread of its own.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        decide: Callable[[Watched, Step], int],
        *,
        env: Mapping[str, str],
        cwd: Path,
    ) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self.process = subprocess.Popen(
                seccomp.command(_choice(), theirs.fileno(), *command),
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                pass_fds=[theirs.fileno()],
            )
            theirs.close()
            listener = seccomp.listener(ours)
        if listener is None:
            raise RuntimeError(self.process.communicate()[1].decode())
        self._listener = listener
        self._folder = folder
        self._decide = decide
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def ended(self, timeout: float = 60) -> tuple[int, str, str]:
        """Wait for the end: exit status, stdout and stderr."""
        try:
            stdout, stderr = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self._thread.join(timeout)
        return self.process.returncode, stdout.decode(errors="replace"), stderr.decode(errors="replace")

    def kill(self) -> None:
        """End every process of the session at once, as a power cut does: none sees another one die."""
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in self._members():
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    def _members(self) -> list[int]:
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdecimal():
                try:
                    after = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                if int(after[3]) == self.process.pid:
                    found.append(int(entry))
        return found

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        while not any(event & select.POLLHUP for _, event in poll.poll()):
            if (asked := seccomp.receive(self._listener)) is None:
                continue
            number, pid, call, arguments = asked
            step = self._step(pid, call, arguments)
            error = GO if step is None else self._decide(self, step)
            if error == NEVER:
                continue
            seccomp.answer(self._listener, number, error)
        os.close(self._listener)

    def _step(self, thread: int, call: int, arguments: list[int]) -> Step | None:
        name, places = CALLS[call]
        try:
            paths = [_path(thread, place, arguments) for place in places]
            if not any(path.startswith(f"{self._folder}/") or path == str(self._folder) for path in paths):
                return None
            words = Path(f"/proc/{thread}/cmdline").read_bytes().decode().split("\0")
            status = Path(f"/proc/{thread}/status").read_text()
        except OSError:
            return None  # it is dead
        pid = int(status.partition("\nTgid:")[2].split()[0])
        inside = tuple(os.path.relpath(path, self._folder) for path in paths if path.startswith(str(self._folder)))
        return Step(pid, _program(words), name, inside)


def _path(thread: int, place: str, arguments: list[int]) -> str:
    *folder, at = place.split()
    if folder == ["fd"]:
        return _held(thread, f"fd/{arguments[int(at)] & 0xFFFFFFFF}")
    path = _string(thread, arguments[int(at)])
    if path.startswith("/"):
        return os.path.normpath(path)
    descriptor = arguments[int(folder[0])] & 0xFFFFFFFF if folder else _AT_FDCWD
    base = _held(thread, "cwd" if descriptor == _AT_FDCWD else f"fd/{descriptor}")
    return os.path.normpath(f"{base}/{path}")


def _held(thread: int, what: str) -> str:
    """Where the working directory or the descriptor of a process is now: its newest name, or the last that it had."""
    return str(Path(f"/proc/{thread}/{what}").readlink()).removesuffix(" (deleted)")


def _string(thread: int, address: int) -> str:
    memory = os.open(f"/proc/{thread}/mem", os.O_RDONLY)
    try:
        text = b""
        while b"\0" not in text:  # page by page: what is behind the next border may not be there
            text += os.pread(memory, 4096 - (address + len(text)) % 4096, address + len(text)) or b"\0"
    finally:
        os.close(memory)
    return os.fsdecode(text.partition(b"\0")[0])


def _program(words: list[str]) -> str:
    if "builder" in words:
        return "drydock"
    # What a script carries, wherever it is: BASE -I -S -B FOLDER COMMAND, or ... -c CODE FOLDER SHA256 COMMAND.
    options = len(list(itertools.takewhile(lambda word: word.startswith("-"), words[1:])))
    if {"-I", "-S"} <= set(words[1 : 1 + options]) and len(words) > options + 2:
        return f"embedded {words[options + (4 if words[options] == '-c' else 2)]}"
    first = Path(words[0]).name
    if first == "uv":
        return "uv venv" if "venv" in words else "uv pip"
    return first


def _choice() -> list[seccomp.Instruction]:
    """What chooses the calls."""
    code = []
    for number in CALLS:
        if number in OPENS:
            code += [(seccomp.EQUAL, 0, 4, number), (seccomp.LOAD, 0, 0, 16 + 8 * OPENS[number])]
            code += [(seccomp.ANY_BIT, 0, 1, CREATES), seccomp.NOTIFY, seccomp.ALLOW]
        else:
            code += [(seccomp.EQUAL, 0, 1, number), seccomp.NOTIFY]
    return code


def why_not() -> str | None:
    """Why system calls cannot be handed over here; None where they can."""
    done = subprocess.run(seccomp.command(_choice(), -1), capture_output=True, text=True, check=False)
    return done.stderr.strip().rpartition("\n")[2] if done.returncode else None
