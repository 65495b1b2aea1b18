"""The one gateway to other programs, and the only importer of plumbum.

Arguments always travel as a list; no shell ever parses them.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn, cast

from builder import log
from builder.errors import ToolError

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import Popen

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Done:
    """A program that has ended."""

    code: int
    stdout: str
    stderr: str


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    folder: int | None = None,
    timeout: float | None = None,
) -> Done:
    """Run a program to its end and hold what it said.

    `env` is the whole environment; None passes ours on. `cwd` is where it runs, else where we do; an open `folder`
    instead stays the same one, whatever becomes of its name. Raises ToolError
    where it cannot be started, or does not end within `timeout` seconds. Then, and where we are interrupted, it and
    what it started end too.
    """
    from subprocess import PIPE, TimeoutExpired

    process: Any = None
    began = time.monotonic()
    try:
        stand = {} if folder is None else {"preexec_fn": lambda: os.fchdir(folder)}
        process = _start(command, env, stdout=PIPE, stderr=PIPE, cwd=cwd, **stand)
        stdout, stderr = process.communicate(timeout=timeout)
    except OSError as error:
        raise ToolError(f"{command[0]} cannot be run: {error.strerror or error}") from None
    except BaseException as error:
        # Alone, it would go on writing into folders that we remove now.
        if process is not None:
            _send(process, signal.SIGKILL)
            process.wait()
        log.ran(command, None, began)
        if isinstance(error, TimeoutExpired):
            raise ToolError(f"{command[0]} did not end within {timeout:g} seconds") from None
        raise
    finally:
        if process is not None:
            _watch(process, "-")
    done = Done(process.returncode, stdout.decode(errors="replace"), stderr.decode(errors="replace"))
    log.ran(command, done.code, began, done.stderr)
    return done


def call(command: Sequence[str]) -> int:
    """Run a program that may talk with the user: it has our terminal, and stderr for its stdout. Gives its status.

    Raises ToolError where it cannot be started.
    """
    from subprocess import Popen

    began = time.monotonic()
    try:
        code = Popen(command, stdout=sys.stderr.fileno()).wait()
    except OSError as error:
        raise ToolError(f"{command[0]} cannot be run: {error.strerror or error}") from None
    log.ran(command, code, began)
    return code


def run_all(commands: Sequence[Sequence[str]], *, timeout: float, env: Mapping[str, str]) -> list[Done | None]:
    """Run programs side by side, each to its end, and hold what they said; `timeout` is for all of them, in seconds.

    None stands for one that cannot be started or did not end in time; it is killed with all that it started.
    """
    if not commands:
        return []
    # Without plumbum, whose import takes longer than the probes that come here.
    from subprocess import TimeoutExpired

    began = time.monotonic()
    deadline = began + timeout
    running: list[Popen[bytes] | None] = []
    done: list[Done | None] = []
    try:
        running.extend(_begin(command, env) for command in commands)
        for one in running:
            try:
                limit = max(0.05, deadline - time.monotonic())
                stdout, stderr = one.communicate(timeout=limit) if one else (b"", b"")
            except TimeoutExpired:
                done.append(None)
            else:
                texts = [text.decode(errors="replace") for text in (stdout, stderr)]
                done.append(Done(one.returncode, *texts) if one else None)
    finally:
        for one in (one for one in running if one is not None):
            if one.returncode is None:
                _send(one, signal.SIGKILL)
                with suppress(TimeoutExpired):  # one that waits for a broken device cannot even be killed
                    one.wait(0.2)
                for stream in filter(None, (one.stdout, one.stderr)):
                    stream.close()
            _watch(one, "-")
    for command, ended in zip(commands, done, strict=True):
        log.ran(command, ended.code if ended else None, began, ended.stderr if ended else "")
    return done


def _begin(command: Sequence[str], env: Mapping[str, str]) -> Popen[bytes] | None:
    """A program in a group of its own, what it says is held; None where it cannot be started."""
    from subprocess import DEVNULL, PIPE, Popen

    try:
        program = Popen(command, env=env, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, process_group=0)
    except OSError:
        return None
    _watch(program, "+")
    return program


@contextmanager
def beside(command: Sequence[str], *, env: Mapping[str, str]) -> Iterator[Callable[[], Done]]:
    """Run a program beside us; what it hands out waits for its end, as `run` does.

    Where nobody waits for it, because we stop, it is killed. Raises ToolError where it cannot be started.
    """
    began = time.monotonic()
    program = _begin(command, env)
    if program is None:
        raise ToolError(f"{command[0]} cannot be run")

    def ended() -> Done:
        stdout, stderr = (text.decode(errors="replace") for text in program.communicate())
        log.ran(command, program.returncode, began, stderr)
        return Done(program.returncode, stdout, stderr)

    try:
        yield ended
    finally:
        if program.returncode is None:
            _send(program, signal.SIGKILL)
            program.wait()
            for stream in filter(None, (program.stdout, program.stderr)):
                stream.close()
        _watch(program, "-")


def has_living_maker(name: str) -> bool:
    """Whether the process of this machine lives whose id the name of its folder ends with: `.stage-KEY-HOST-PID`.

    >>> has_living_maker(f".new-here-{os.getpid()}"), has_living_maker(".new-here-x")
    (True, False)
    """
    from builder.embedded.lifeline import is_alive

    number = name.rpartition("-")[2]
    return number.isdecimal() and is_alive(int(number))


def start(command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Popen[bytes]:
    """Start a program and do not wait for it: in a session of its own, without a terminal, stdout and stderr in pipes.

    Raises ToolError where it cannot be started.
    """
    from subprocess import DEVNULL, PIPE, Popen

    try:
        return Popen(
            command, env=env, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, bufsize=0, start_new_session=True, cwd=cwd
        )
    except OSError as error:
        raise ToolError(f"{command[0]} cannot be run: {error.strerror or error}") from None


def detach(command: Sequence[str], *, env: Mapping[str, str] | None = None) -> None:
    """Start a program that is nobody's child: in a session of its own, it reads and says nothing, and nobody waits.

    What we become neither has it as a child nor shares a file with it. Raises ToolError where no process can be made.
    """
    # Two forks, as daemon(7) has it: the import of subprocess alone takes longer.
    try:
        child = os.fork()
    except OSError as error:
        raise ToolError(f"{command[0]} cannot be run: {error.strerror or error}") from None
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if os.fork() == 0:
            nothing = os.open(os.devnull, os.O_RDWR)
            for number in range(3):
                os.dup2(nothing, number)
            os.closerange(3, 1024)
            os.execve(command[0], list(command), dict(os.environ if env is None else env))
    finally:
        os._exit(0)


def _start(command: Sequence[str], env: Mapping[str, str] | None, **pipes: Any) -> Any:
    """Start a program in a process group of its own, with `env`, or ours, as its whole environment."""
    from subprocess import DEVNULL

    from plumbum import local
    from plumbum.commands.processes import CommandNotFound

    try:
        program = local[command[0]][list(command[1:])]
    except CommandNotFound:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), command[0]) from None
    whole = dict(os.environ if env is None else env)
    # plumbum only ever adds to its own environment (plumbum.machines.local, _popen).
    with local.env():
        local.env.clear()
        process = program.popen(stdin=DEVNULL, env=whole, process_group=0, **pipes)
    _watch(process, "+")
    return process


# It hears of each process group that we start and of its end; when we die, however, it ends those that are left.
_GUARD = """
trap '' HUP INT TERM
groups=
while read -r sign group; do
  rest=
  for one in $groups; do [ "$one" = "$group" ] || rest="$rest $one"; done
  [ "$sign" = - ] || rest="$rest $group"
  groups=$rest
done
[ -n "$groups" ] || exit 0
for one in $groups; do kill -s TERM -- "-$one"; done
sleep 1
for one in $groups; do kill -s KILL -- "-$one"; done
"""


@cache
def _guard() -> Any:
    """The guard of this process, begun with the first program: nobody works on alone when we are killed."""
    from subprocess import DEVNULL, PIPE, Popen

    return Popen(["/bin/sh", "-c", _GUARD], stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True)


def _watch(process: Any, sign: str) -> None:
    """Tell the guard of a process group that began (`+`) or ended (`-`)."""
    with suppress(OSError):  # one that cannot be started, or is dead, is not missed
        os.write(_guard().stdin.fileno(), f"{sign} {process.pid}\n".encode())


def _send(process: Any, number: int) -> None:
    """Send a signal to a program that `_start` started, and to what it started itself."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def stream(command: Sequence[str], line: Callable[[str], None], *, env: Mapping[str, str] | None = None) -> int:
    """Run a program and hand each line of its stderr to `line` as it comes; its stdout is dropped.

    Gives the exit status as a shell would: 128 + N for signal N. The program leads a process group of its own. An
    interrupt, termination or hang-up of ours goes to all of that group, so that what the program waits for ends too,
    and is waited for, so that it can clean up. Raises KeyboardInterrupt after an interrupt.
    """
    process: Any = None
    received: list[int] = []
    began = time.monotonic()

    def forward(number: int, _frame: object) -> None:
        received.append(number)
        if process is not None:
            _send(process, number)

    from subprocess import DEVNULL, PIPE

    # What our caller ignores (nohup, a job in the background) stays ignored.
    heard = [number for number in _FORWARDED if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, forward) for number in heard}
    try:
        process = _start(command, env, stdout=DEVNULL, stderr=PIPE)
        for number in received:  # one that came before there was a process to send it to
            _send(process, number)
        # plumbum's pipes are of bytes, whatever their type says
        for raw in cast("Iterable[bytes]", process.stderr):
            line(raw.decode(errors="replace").rstrip("\n"))
        code: int = process.wait()
        log.ran(command, code, began)
    except BaseException:
        # Nobody listens any more (a closed terminal): what is half-done must not go on alone.
        if process is not None:
            _send(process, signal.SIGTERM)
            process.stderr.close()
            process.wait()
        raise
    finally:
        if process is not None:
            _watch(process, "-")
        for number, handler in previous.items():
            signal.signal(number, handler)
    if signal.SIGINT in received:
        raise KeyboardInterrupt
    return code if code >= 0 else 128 - code


def run_into(
    command: Sequence[str], *, env: Mapping[str, str], cwd: Path, stdout: Path, stderr: Path, grace: float = 10.0
) -> int:
    """Run a program in `cwd`, to its end, with its output in two new files; returns its status as a shell would.

    It has no terminal, and leads a process group of its own, of which nothing is left afterwards. Where we are stopped,
    it is interrupted, and killed after `grace` seconds. Raises ToolError where it cannot be started, and OSError.
    """
    from subprocess import TimeoutExpired

    process: Any = None
    began = time.monotonic()
    with stdout.open("xb") as out, stderr.open("xb") as err:
        try:
            process = _start(command, env, stdout=out, stderr=err, cwd=cwd)
            code: int = process.wait()
        except OSError as error:
            raise ToolError(f"{command[0]} cannot be run: {error.strerror or error}") from None
        except BaseException:
            if process is not None:
                _send(process, signal.SIGINT)
                with suppress(TimeoutExpired):
                    process.wait(grace)
            raise
        finally:
            if process is not None:
                _send(process, signal.SIGKILL)
                process.wait()
                _watch(process, "-")
    log.ran(command, code, began)
    return code if code >= 0 else 128 - code


@contextmanager
def running(
    command: Sequence[str], *, env: Mapping[str, str], cwd: Path, output: Path
) -> Iterator[Callable[[], int | None]]:
    """Run a program in `cwd` with its output in a new file, for as long as the context lasts.

    What it hands out returns the exit status, as a shell would, or None while it runs. At the end it is killed where it
    still runs, with all that it has started. Raises ToolError where it cannot be started, and OSError.
    """
    began = time.monotonic()
    with output.open("xb") as out:
        try:
            program = _start(command, env, stdout=out, stderr=out, cwd=cwd)
        except OSError as error:
            raise ToolError(f"{command[0]} cannot be run: {error.strerror or error}") from None

        def code() -> int | None:
            status: int | None = program.poll()
            return status if status is None or status >= 0 else 128 - status

        try:
            yield code
        finally:
            _send(program, signal.SIGKILL)
            program.wait()
            _watch(program, "-")
            log.ran(command, program.returncode, began)


def replace(command: Sequence[str], env: Mapping[str, str] | None = None) -> NoReturn:
    """Become another program: its signals, its exit status and its terminal are then its own."""
    sys.stdout.flush()
    os.execve(command[0], list(command), dict(env or os.environ))
