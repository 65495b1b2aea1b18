"""Nobody builds on alone: what a process started ends with it, however it ends, and it ends with who started it.

A guard is a small fork that does nothing but listen: at a pipe that only the process itself holds open, and at the
process that started it. Pipes and process descriptors are the kernel's, so that SIGKILL is noticed too.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from builder.embedded.errors import StageError

_GRACE = 1.0
"""Seconds between SIGTERM and SIGKILL."""

SIGN = 10.0
"""Seconds between two signs of life."""

_HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Guard:
    """Watches over this process from now on, and over its parent, whose process id is `parent`.

    When the parent dies, this process gets SIGTERM, and a second later SIGKILL. When this process dies, all that it
    named to `add` is killed, with its process group where it leads one.
    """

    def __init__(self, parent: int) -> None:
        global _guard
        reader, self._writer = os.pipe()
        guarded = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            try:
                os.close(self._writer)
                _watch(reader, guarded, parent)
            finally:
                os._exit(0)
        os.close(reader)
        self._child = child
        _guard = self
        os.register_at_fork(after_in_child=self._forget)

    def send(self, line: bytes) -> None:
        """Tell the guard something; a guard that is dead is not missed."""
        if self._writer >= 0:
            try:
                os.write(self._writer, line)
            except OSError:
                pass

    def end(self) -> None:
        """The guard is not needed any more; what has not ended yet is killed."""
        self.send(b"0\n")
        self._forget()
        os.waitpid(self._child, 0)

    def _forget(self) -> None:
        """Close the pipe, in a child too: only who is guarded holds it open."""
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1


_guard: Guard | None = None


def add(pid: int) -> None:
    """Have this one killed too when we die, where there is a guard."""
    if _guard is not None:
        _guard.send(b"+%d\n" % pid)


def drop(pid: int) -> None:
    """It has ended."""
    if _guard is not None:
        _guard.send(b"-%d\n" % pid)


def touch(path: Path) -> None:
    """Give a sign of life: have the time of this file renewed now and then, where there is a guard."""
    if _guard is not None:
        _guard.send(b"=%s\n" % os.fsencode(path))


class _Listener:
    """What a guard has heard: processes to kill, and files to give a sign of life at."""

    def __init__(self) -> None:
        self.processes: set[int] = set()
        self.signs: list[bytes] = []
        self._rest = b""

    def hear(self, content: bytes) -> bool:
        """Take in what came; False where the guard is not needed any more."""
        *lines, self._rest = (self._rest + content).split(b"\n")
        for line in lines:
            kind, rest = line[:1], line[1:]
            if kind == b"0":
                return False
            if kind == b"=":
                self.signs.append(rest)
            elif kind == b"+":
                self.processes.add(int(rest))
            else:
                self.processes.discard(int(rest))
        return True


def _watch(reader: int, guarded: int, parent: int) -> None:
    """The guard's life; returns when there is nobody to watch any more."""
    os.setpgid(0, 0)  # what a terminal sends is for those who work
    for number in _HEARD:
        signal.signal(number, signal.SIG_IGN)
    _let_go(reader)
    listener = _Listener()
    ended = _end_of(parent)
    signed = time.monotonic()
    orphaned = 0.0
    while True:
        heard = select.select([reader, *ended], [], [], 0.25)[0]
        if reader in heard:
            content = os.read(reader, 4096)
            if not content:
                break
            if not listener.hear(content):
                break
        now = time.monotonic()
        if not orphaned and (any(one in heard for one in ended) or not is_alive(parent)):
            ended, orphaned = [], now
            _send(guarded, signal.SIGTERM)
        if orphaned and now - orphaned > _GRACE:
            _send(guarded, signal.SIGKILL)
        if now - signed >= SIGN:
            signed = now
            _sign(listener.signs)
    for pid in listener.processes:
        kill(pid)


def _sign(paths: Sequence[bytes]) -> None:
    for path in paths:
        try:
            os.utime(path, follow_symlinks=False)
        except OSError:
            pass


def _let_go(kept: int) -> None:
    """Close what was inherited, but for stderr: who reads our streams must not wait for the guard."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.closerange(3, kept)
    os.closerange(kept + 1, max(kept + 64, 256))


def _end_of(pid: int) -> list[int]:
    """A descriptor that can be read once a process has ended, reaped or not; none where the system has none."""
    try:
        if hasattr(os, "pidfd_open"):
            return [os.pidfd_open(pid)]
        system: Any = select
        if hasattr(system, "kqueue"):
            queue = system.kqueue()
            end = system.kevent(pid, system.KQ_FILTER_PROC, system.KQ_EV_ADD, system.KQ_NOTE_EXIT)
            queue.control([end], 0)
            return [os.dup(queue.fileno())]
    except OSError:
        pass
    return []


def is_alive(pid: int) -> bool:
    """Whether there is a process of that id, whoever's it is."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError:
        pass


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a process, and to its group where it leads one."""
    try:
        if os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
    except OSError:
        pass


def _pass_over(_number: int, _frame: Any) -> None:
    pass


def leave_on_signals() -> None:
    """Let the signals that end a process raise SystemExit, so that what it holds is put away.

    Also where who started us ignores them (a shell, for what it runs in the background).
    """

    def leave(number: int, _frame: Any) -> NoReturn:
        # Not SIG_IGN: of one that is on its way then, Python says that it was "ignored due to race condition".
        for other in _HEARD:
            signal.signal(other, _pass_over)
        raise SystemExit(128 + number)

    for number in _HEARD:
        signal.signal(number, leave)


def run(
    command: Sequence[str], *, folder: int, env: Mapping[str, str], heard: Callable[[bytes], None] | None = None
) -> int:
    """Run a program that stands in an open folder and leads a group of its own; returns its exit status, as a shell.

    What it says goes to `heard`, as it would be drawn on a terminal; that is called every half a second at least.
    Ended by a signal of ours, it is killed with its group. Raises StageError where it cannot be
    started.
    """
    import subprocess

    pipe = terminal = -1
    try:
        if heard:
            pipe, terminal = os.openpty()
    except OSError:  # none are left, or there is no /dev/pts
        pass

    def stand() -> None:
        os.setpgid(0, 0)
        os.fchdir(folder)

    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=terminal if pipe >= 0 else None,
            env=dict(env),
            preexec_fn=stand,
        )
    except OSError as error:
        raise StageError(f"{command[0]} cannot be run: {error.strerror or error}") from None
    add(process.pid)
    try:
        if heard and pipe >= 0:
            os.close(terminal)
            _listen(pipe, process, heard)
        code = process.wait()
    except BaseException:
        kill(process.pid, signal.SIGTERM)
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            kill(process.pid)
            process.wait()
        raise
    finally:
        drop(process.pid)
        if pipe >= 0:
            os.close(pipe)
    return code if code >= 0 else 128 - code


def _listen(pipe: int, process: Any, heard: Callable[[bytes], None]) -> None:
    """Hear a process until it closes its terminal, or has ended: what it started may hold that open."""
    while True:
        ended = process.poll() is not None
        ready = select.select([pipe], [], [], 0 if ended else 0.5)[0]
        try:
            content = os.read(pipe, 1 << 16) if ready else b""
        except OSError:  # EIO, which is how Linux says that it was closed
            content = b""
        heard(content)
        if not content and (ready or ended):
            break
    heard(b"\n")
