"""Many connections at once: OpenSSH, as the user's ssh_config has it, fanned out by ClusterShell in one process.

A host is never asked for anything that its ssh_config does not allow, and ssh never asks the user: what would need a
password, or meets a host key that is new or another one, fails at once, in ssh's own words.
"""

from __future__ import annotations

import secrets
import shlex
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

HEARTBEAT = 4
"""Seconds between signs of life, of ssh's and of ours; three that are missed are a lost host."""

_OPTIONS = f"-T -oConnectTimeout=10 -oServerAliveInterval={HEARTBEAT} -oServerAliveCountMax=2"
_LONGEST = 1 << 17
"""Bytes of a line; what comes without an end is cut there."""
_MOST = 1 << 20
"""Bytes that a host may say while it answers; more is a flood."""
_KEPT = 40
"""Lines of a host's own words that are kept: the last ones."""

# Its standard input begins with the program. By dd, which reads no byte too many, in words that every login shell
# understands (also csh, fish).
_START = """exec sh -c 'eval "$(dd bs=1 count={size} 2>/dev/null)"'"""


class Visit:
    """One connection to one host: what is sent, and what the host says. Its results are there when it has ended.

    `code` is the exit status, None where there was none; `words` are the last lines that came, of the host or of ssh.
    """

    def __init__(
        self,
        host: str,
        work: str,
        values: Mapping[str, str | int] | None = None,
        *,
        seconds: float = 60.0,
        payload: Iterable[bytes] = (),
        held: bool = False,
    ) -> None:
        """`work` is a function of host.sh, with its variables' `values`; `payload` is what it reads after that.

        `held` keeps the host's input open until the work is done: where we go away, it hears of that. A payload of more
        than a pipe takes needs it: ClusterShell (1.10) may use the descriptor once more that it closes after a write.
        """
        self.host = host
        self.mark = secrets.token_hex(8)
        self.marked: list[str] = []
        self.words: deque[str] = deque(maxlen=_KEPT)
        self.code: int | None = None
        self.timed_out = False
        self.flooded = False
        self.seconds = seconds
        self.sent = 0
        self.held = held
        self.ended = False
        self.endless = False
        """Whether it may say as much as it likes, as a trainer does."""
        self.worker: Any = None
        self.delay = 0.0
        """Seconds to wait before the connection is made, where it follows another one."""
        self._bytes = 0
        assignments = [f"_mark={self.mark}"]
        assignments += [f"_{name}={shlex.quote(str(value))}" for name, value in (values or {}).items()]
        self.program = "\n".join([*assignments, program(), work, "exit 0", ""]).encode()
        self.payload: Iterator[bytes] = iter(payload)

    def count(self, size: int) -> bool:
        """Whether another `size` bytes may come."""
        self._bytes += size
        return self.endless or self._bytes <= _MOST

    def read(self, text: str, *, is_error: bool) -> None:
        """Take a line that came."""
        start = f"@{self.mark} "
        if not is_error and text.startswith(start):
            self.marked.append(text[len(start) :])
            self.read_answer(text[len(start) :])
        elif text.strip():
            self.words.append(text)
            self.read_line(text)

    def ask_to_stop(self) -> None:
        """Have the host end what it does for us, in its time of grace."""
        if self.worker is not None and not self.ended:
            self.worker.write(b"stop\n")

    def give_up(self) -> None:
        """End the connection at our end, whatever becomes of the other."""
        if self.worker is not None and not self.ended:
            self.worker.abort()

    def is_wanted(self) -> bool:
        """Whether it is still to be made, after its delay."""
        return True

    def started(self) -> None:
        """The connection begins; for those who listen."""

    def read_answer(self, text: str) -> None:
        """Take an answer of the program; for those who listen."""

    def follow(self) -> Sequence[Visit]:
        """What comes after it has ended, at once."""
        return ()

    def read_line(self, text: str) -> None:
        """Take a line of the host's own; for those who listen."""

    def values(self, word: str) -> list[str]:
        """What the program answered under a word."""
        return [text[len(word) + 1 :] for text in self.marked if text == word or text.startswith(f"{word} ")]

    def failure(self) -> str:
        """Why there is no result, in the host's words or in ssh's."""
        if self.flooded:
            return f"it says more than {_MOST // 2**20} MiB, and was stopped"
        if self.timed_out:
            return f"it did not answer within {self.seconds:.0f} s"
        errors = [line.removeprefix("drydock: error: ") for line in self.words if line.startswith("drydock: error: ")]
        if errors:
            return "; ".join(errors[-3:])
        if any("REMOTE HOST IDENTIFICATION HAS CHANGED" in line for line in self.words):
            return "its host key has changed: ask who keeps it, then ssh-keygen -R, and connect once with ssh"
        if any("Host key verification failed" in line for line in self.words):
            return "its host key is not known here: connect once with ssh, to see and accept it"
        lines = [line for line in self.words if not line.startswith(("debug1:", "Warning: Permanently added"))]
        last = lines[-1].strip() if lines else f"exit status {self.code}" if self.code is not None else "it was lost"
        if "Permission denied (" in last:
            return f"{last} ssh may not ask for a password here: use a key that an agent holds, or ControlMaster"
        return last


def program() -> str:
    """The functions that a host is sent."""
    return files("builder.fleet").joinpath("host.sh").read_text(encoding="utf-8")


def visit(
    visits: Iterable[Visit], *, tick: Callable[[], None] | None = None, at_once: int = 64, beats: bool = False
) -> None:
    """Make all connections, `at_once` of them at the same time, and what follows each, and return when all have ended.

    `tick` is called about twice a second. `beats` has every host hear from us as long as we live.
    """
    import logging

    from ClusterShell.Task import task_self

    logging.getLogger("ClusterShell").setLevel(logging.CRITICAL)  # a connection that breaks is said by its Visit
    task = task_self()
    task.set_default("stdout_msgtree", False)
    task.set_default("stderr_msgtree", False)
    task.set_info("ssh_options", _OPTIONS)
    task.set_info("fanout", at_once)
    workers: list[tuple[Visit, Any]] = []

    def begin(one: Visit) -> None:
        if one.delay and one.is_wanted():
            _later(task, one, begin)
            return
        if not one.is_wanted():
            one.ended = True
            return
        one.worker = _worker(one, begin)
        workers.append((one, one.worker))
        task.schedule(one.worker)

    for one in visits:
        begin(one)
    if not workers:
        return
    timer = _timer(task, workers, tick, beats=beats) if tick is not None or beats else None
    try:
        task.resume()
    except BaseException:
        task.abort()
        raise
    finally:
        if timer is not None:
            timer.invalidate()


def _later(task: Any, one: Visit, begin: Callable[[Visit], None]) -> None:
    """Begin a connection after its delay, looking every moment whether it is still wanted."""
    from ClusterShell.Event import EventHandler

    class Later(EventHandler):  # type: ignore[misc] # ClusterShell has no types
        def ev_timer(self, timer: Any) -> None:
            one.delay = max(0.0, one.delay - 0.5)
            if not one.delay or not one.is_wanted():
                timer.invalidate()
                begin(one)

    task.timer(0.5, handler=Later(), interval=0.5)


def _timer(task: Any, workers: Sequence[tuple[Visit, Any]], tick: Callable[[], None] | None, *, beats: bool) -> Any:
    from ClusterShell.Event import EventHandler

    class Timer(EventHandler):  # type: ignore[misc] # ClusterShell has no types
        beat = time.monotonic()

        def ev_timer(self, timer: Any) -> None:  # noqa: ARG002
            if tick is not None:
                tick()
            if beats and time.monotonic() - self.beat >= HEARTBEAT:
                self.beat = time.monotonic()
                for one, worker in workers:
                    if one.held and worker.fed and not one.ended:
                        worker.write(b"\n")

    # It does not keep the task alive, so that this ends with the last connection.
    return task.timer(0.5, handler=Timer(), interval=0.5, autoclose=True)


def _worker(one: Visit, begin: Callable[[Visit], None]) -> Any:
    """A worker of ClusterShell's for a connection; `begin` starts another one."""
    command = _START.format(size=len(one.program))
    timeout = one.seconds or None
    return _worker_class(one)(one.host, handler=_handler(one, begin), timeout=timeout, command=command, stderr=True)


def _client_class() -> Any:
    from ClusterShell.Worker.Ssh import SshClient

    class Client(SshClient):  # type: ignore[misc] # ClusterShell has no types
        def _readlines(self, sname: str) -> Iterator[bytes]:
            yield from super()._readlines(sname)
            stream = self.streams.get(sname)
            if stream is not None and len(stream.rbuf) > _LONGEST:
                line, stream.rbuf = stream.rbuf, b""
                yield line

    return Client


def _worker_class(one: Visit) -> Any:
    from ClusterShell.Worker.Ssh import WorkerSsh

    class Ssh(WorkerSsh):  # type: ignore[misc] # ClusterShell has no types
        SHELL_CLASS = _client_class()
        fed = False
        feeding = False

        def is_full(self) -> bool:
            return any(client.streams["stdin"].wbuf for client in self._clients if "stdin" in client.streams)

        def feed(self) -> None:
            """Send on, no more than the pipe takes: what waits for fifty hosts would fill the memory."""
            if self.fed or self.feeding:
                return
            self.feeding = True
            while not self.is_full():
                chunk = next(one.payload, None)
                if chunk is None:
                    self.fed = True
                    if not one.held:
                        self.set_write_eof()
                    break
                one.sent += len(chunk)
                self.write(chunk)
            self.feeding = False

    return Ssh


def _handler(one: Visit, begin: Callable[[Visit], None]) -> Any:
    from ClusterShell.Event import EventHandler

    class Handler(EventHandler):  # type: ignore[misc] # ClusterShell has no types
        def ev_start(self, worker: Any) -> None:
            one.started()
            worker.write(one.program)
            worker.feed()

        def ev_written(self, worker: Any, node: str, sname: str, size: int) -> None:  # noqa: ARG002
            worker.feed()

        def ev_read(self, worker: Any, node: str, sname: str, msg: bytes) -> None:  # noqa: ARG002
            if one.count(len(msg)):
                one.read(msg.decode("utf-8", "replace"), is_error=sname == "stderr")
            else:
                one.flooded = True
                worker.abort()

        def ev_hup(self, worker: Any, node: str, rc: int) -> None:  # noqa: ARG002
            one.code = rc

        def ev_close(self, worker: Any, timedout: bool) -> None:  # noqa: ARG002
            one.timed_out = timedout
            one.ended = True
            for following in one.follow():
                begin(following)

    return Handler()
