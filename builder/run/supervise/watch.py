"""The process that watches a trainer: starts it, reads it, samples it, stops it, restarts it.

`drydock run NAME --supervise` becomes this (builder/run/supervise/runs.py). Everything happens in one loop around
`select`: no thread, and nothing that could block but the disk.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import signal
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from builder import process, secrets
from builder.errors import EXIT_FAILED, ToolError
from builder.run.records import events
from builder.run.records.begin import finish
from builder.run.records.history import logged
from builder.run.records.summary import Summary
from builder.run.supervise import stop
from builder.run.supervise.gpu import Gpus
from builder.run.supervise.journal import MARK, RotatingFile, Tail, mark_of, read_state, write_state
from builder.run.supervise.policy import Decision, Done, GiveUp, Guard, History, Policy, Restart, decide
from builder.run.supervise.redact import Redactor
from builder.run.supervise.sample import Sample, Tree, began_at
from builder.run.supervise.streams import STUCK, Pipe, Screen, new_pipe

if TYPE_CHECKING:
    from subprocess import Popen

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_GUARDING = 1.0  # seconds between two looks at the memory of a trainer that is guarded
_SHARE = 0.004  # of one core, for samples: where there are very many processes they are taken less often
_PR_SET_CHILD_SUBREAPER = 36


class Supervisor:
    """One supervised run. `request` is what `builder.run.supervise.runs.Request` wrote."""

    def __init__(self, folder: Path, request: dict[str, Any]) -> None:
        self._folder = folder
        self._request = request
        self._policy = Policy.of(request["policy"])
        # A log must be read as it is written, and Python keeps to itself what it says into a pipe.
        self._environment = {"PYTHONUNBUFFERED": "1", **os.environ}
        self._secrets = {name: os.environ[name] for name in request["secrets"] if os.environ.get(name)}
        self._secrets |= secrets.argument_secrets(_arguments(request["command"]))
        self._screens = (Screen(1), Screen(2))
        self._log = RotatingFile(folder / "log", self._policy.log_size, self._policy.log_files, self._complain)
        self._samples = RotatingFile(folder / "samples.jsonl", self._policy.log_size, 1, self._complain)
        self._tail = Tail()
        self._summary = Summary(self._policy.losses)
        self._tree = Tree()
        self._pipes: list[Pipe] = []
        self._child: Popen[bytes] | None = None
        self._status: int | None = None  # of the trainer, once it has ended
        self._last_status = 0  # of whatever of its tree ended last
        self._signals: deque[int] = deque()  # those that came, and are not seen to yet
        self._stop = stop.Stop()
        self._look_at = 0.0
        self._sample_at = 0.0
        self._swap: int | None = None  # as it was when the trainer began
        self._history = History()
        self._state: dict[str, Any] = {
            "name": request["name"],
            "supervisor": os.getpid(),
            "began": time.time(),
            "restarts": 0,
        }
        self._environment[MARK] = mark_of(self._state)
        self._wake, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) if hasattr(os, "pipe2") else new_pipe()
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in _STOPPING:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup: what the caller ignores stays ignored
                signal.signal(number, lambda number, _: self._signals.append(number))
        self._adopts = _become_subreaper()
        self._gpus = Gpus(self._policy.sample_every) if request["gpus"] else None
        self._tree.others = {self._gpus.pid} if self._gpus and self._gpus.pid else set()

    # --- the way through ---------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run the trainer until it is done, or is not to be restarted; returns its exit status."""
        try:
            return self._run()
        except BaseException:  # a bug of ours must not leave a trainer that nobody watches
            if self._child is not None:
                self._tree.send(signal.SIGKILL, self._child.pid)
            if self._gpus is not None:
                self._gpus.close()
            raise

    def _run(self) -> int:
        while True:
            began = time.monotonic()
            code = self._attempt()
            ended = time.monotonic()
            self._note(f"{_describe_exit(code)}, after {ended - began:.1f} s")
            self._take_signals()
            if (verdict := self._stop.verdict(code)) is not None:
                return self._finish(*verdict)
            decision: Decision = decide(code, self._tail.lines(), ended - began, ended, self._history, self._policy)
            match decision:
                case Done():
                    return self._finish(code, "done")
                case GiveUp(why):
                    self._say(f"{_describe_exit(code)}, and is not restarted: {why}")
                    return self._finish(code, why)
                case Restart(after, why, history):
                    self._history = history
                    self._say(f"{_describe_exit(code)} ({why}); restarting it in {after:g} s")
                    self._enter("waiting", last_exit=code, why=why, next_start=time.time() + after)
                    self._wait(ended + after)
                    if self._is_told():
                        return self._finish(code, "stopped")
                    self._state["restarts"] += 1

    def _attempt(self) -> int:
        """Start the trainer and watch it until it, or its successor in the background, has ended."""
        self._forget()
        try:
            child = self._child = process.start(self._command(), env=self._environment)
        except ToolError as error:
            self._say(error.message)
            return 127
        screens = (None, None) if self._request["quiet"] else self._screens
        outputs = zip(cast("list[IO[bytes]]", [child.stdout, child.stderr]), screens, strict=True)
        self._pipes = [Pipe(output, Redactor(self._secrets), screen) for output, screen in outputs]
        self._enter("running", trainer=child.pid, trainer_began=began_at(child.pid))
        self._note(f"the trainer is process {child.pid}")
        self._pass_on(*stop.begun(self._stop, time.monotonic(), self._policy.grace))
        while self._status is None:
            self._turn()
        child.returncode = self._status  # for subprocess: we have waited for it
        self._take_signals()
        if self._status == 0 and not self._stop.is_over:
            self._stay_with_the_rest()
        if self._rest():
            self._tree.send(signal.SIGTERM, child.pid)
        self._hear(0)
        self._keep_begun()
        self._let_go(child.pid)
        return self._status

    def _command(self) -> list[str]:
        """The command of a start: with the newest whole checkpoint, where the profile says where those are."""
        command, resume = list(self._request["command"]), self._policy.resume
        if resume is None:
            return command
        found = resume.find(_arguments(command), Path.cwd())
        for path in found.passed_over:
            self._say(f"{path} is not whole, and is passed over")
        if found.path is not None:
            foreign = resume.is_foreign(resume.place(Path.cwd()) / found.path)
            older = ", which is older than this environment: one of another key may have written it" if foreign else ""
            self._say(f"going on from {found.path}{older}")
        return [*command, *found.arguments]

    def _forget(self) -> None:
        """Reset to the state before the first start: a signal must not go to a process id of the last one."""
        self._tail.clear()
        self._child, self._status, self._swap = None, None, None
        self._stop = replace(self._stop, kill_at=float("inf"))

    def _let_go(self, number: int) -> None:
        """Remove the gc root of a process: a collection would do it, but a thousand starts come before one."""
        with suppress(OSError):
            Path(f"{self._request['root']}.{number}").unlink()

    def _stay_with_the_rest(self) -> None:
        """Watch the processes that a successful trainer left: it went into the background."""
        if not self._rest():
            return
        # Not said of a child that it did not wait for, and that ends now.
        until = time.monotonic() + 1
        while self._goes_on() and time.monotonic() < until:
            self._turn(at_most=0.05)
        if rest := self._goes_on():
            self._say(f"the trainer went on in the background, as {_numbers(rest)}: watching that")
        while self._goes_on():
            self._turns(1.0)
        self._status = self._last_status if self._adopts else 0

    def _goes_on(self) -> list[int]:
        """The processes that a trainer left; none where they are to end."""
        return [] if self._is_told() or self._stop.is_over else self._rest()

    def _wait(self, until: float) -> None:
        """Wait for the next start, unless we are to stop; remaining processes of the last one may end until then."""
        while (left := until - time.monotonic()) > 0 and not self._is_told():
            self._turn(at_most=left)
        self._end_the_rest(until)

    def _end_the_rest(self, deadline: float) -> None:
        """Make sure that no process of the last start is left: they got a signal, and are killed at the deadline."""
        while self._child is not None and self._rest():
            if time.monotonic() >= deadline:
                self._tree.send(signal.SIGKILL, self._child.pid)
            self._turn(at_most=0.05)
        self._hear(0)
        for pipe in self._pipes:
            self._keep(pipe, pipe.close(), all_of_it=True)
        self._pipes = []

    def _finish(self, code: int, how: str) -> int:
        self._end_the_rest(min(self._stop.kill_at, time.monotonic() + self._policy.grace))
        for screen in self._screens:
            screen.push(patience=STUCK)
        if self._gpus is not None:
            self._gpus.close()
        self._enter("ended", last_exit=code, why=how)
        record = Path(self._request["record"]) if self._request.get("record") else None
        if record is not None and self._policy.resume is not None:
            resume = self._policy.resume
            self._summary.add_logged(logged(resume.place(Path.cwd()), resume.newest, self._state["began"]))
        if record is not None and self._summary.has_no_losses:
            self._summary.add_logged(events.logged(Path.cwd(), self._state["began"]))
        finish(record, exit=code, why=how, restarts=self._state["restarts"], **self._summary.data())
        self._let_go(os.getpid())
        self._log.close()
        self._samples.close()
        return code

    # --- one turn of the loop ----------------------------------------------------------------------------------

    def _turn(self, at_most: float = 60.0) -> None:
        """Wait for the next event, and handle it."""
        now = time.monotonic()
        timeout = min(at_most, self._stop.kill_at - now, self._look_at - now)
        if self._hear(max(0.0, timeout)):
            self._reap()
        self._take_signals()
        now = time.monotonic()
        if self._child is not None:
            self._stop, is_overdue = stop.overdue(self._stop, now)
            if is_overdue:
                self._say(f"not ended {self._policy.grace:g} s after the signal: killing it")
                self._tree.send(signal.SIGKILL, self._child.pid)
        if now >= self._look_at:
            self._look()

    def _turns(self, seconds: float) -> None:
        """Go on for so long, or until we are to stop."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._is_told():
            self._turn(at_most=left)

    def _hear(self, timeout: float) -> bool:
        """Wait for output of the trainer or a signal, at most `timeout` seconds; with 0, read all available output.

        Returns whether there was a signal: SIGCHLD is one.
        """
        woken = False
        for _ in range(1 if timeout else 8):
            now = time.monotonic()
            full = {pipe: pipe.screen.holds_up if pipe.screen else None for pipe in self._pipes}
            free = [pipe for pipe in self._pipes if full[pipe] is None]
            ready = [pipe for pipe in free if pipe.calm_until <= now or not timeout]
            gpus = self._gpus.number if self._gpus else None
            wait = min([timeout, *(pipe.calm_until - now for pipe in free if pipe not in ready)])
            screens = {number: pipe.screen for pipe, number in full.items() if number is not None and pipe.screen}
            readable, writable, _ = select.select(
                [self._wake, *(pipe.number for pipe in ready), *([] if gpus is None else [gpus])],
                list(screens),
                [],
                max(0.0, min(wait, 1.0) if screens else wait),
            )
            if self._wake in readable:
                with suppress(BlockingIOError):
                    woken = bool(os.read(self._wake, 512))
            if self._gpus is not None and gpus in readable:
                self._gpus.read()
            for number in writable:
                screens[number].push()
            heard = [pipe for pipe in ready if pipe.number in readable]
            for pipe in heard:
                data = pipe.read()
                if data is None:
                    self._pipes.remove(pipe)
                self._keep(pipe, pipe.close() if data is None else data, all_of_it=data is None)
            if not heard:
                break
        return woken

    def _reap(self) -> bool:
        """Take the exit status of every ended child: the trainer, or an orphan of its. Returns whether any lives."""
        while True:
            try:
                number, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if number == 0:
                return True
            code = os.waitstatus_to_exitcode(status)
            code = code if code >= 0 else 128 - code
            if self._child is not None and number == self._child.pid and self._status is None:
                self._status = code
            elif number not in self._tree.others:
                self._last_status = code

    def _renew(self) -> None:
        """Show those machines that share the store and do not see our processes that these roots are held."""
        for number in (os.getpid(), *([self._child.pid] if self._child is not None else [])):
            with suppress(OSError):
                os.utime(f"{self._request['root']}.{number}")

    def _look(self) -> None:
        """Sample the trainer's use of the machine, and check the limits of the guard."""
        before, now = time.process_time(), time.monotonic()
        self._reap()
        self._tree.others = {self._gpus.pid} if self._gpus and self._gpus.pid else set()
        if self._child is not None:
            sample = self._tree.sample()
            if now >= self._sample_at:
                self._sample_at = now + self._policy.sample_every
                self._renew()
                gpus = {"gpus": self._gpus.now()} if self._gpus else {}
                self._summary.sample(sample, gpus.get("gpus", []))
                self._samples.write(json.dumps({**asdict(sample), **gpus}).encode() + b"\n")
            if self._policy.guard is not None:
                self._protect(self._policy.guard, sample)
        self._keep_begun()
        cost = time.process_time() - before
        every = self._policy.sample_every
        interval = every if self._policy.guard is None else min(every, _GUARDING)
        self._look_at = now + max(interval, cost / _SHARE)

    def _protect(self, guard: Guard, sample: Sample) -> None:
        """Stop a trainer that uses too much memory, while there is enough left for it to end well."""
        self._swap = sample.swap if self._swap is None else self._swap
        # What processes share is counted for each of them, but they do not hold more than is in use at all.
        found = guard.exceeded(min(sample.resident, sample.used), sample.swap - self._swap)
        self._take_signals()
        after, number = stop.exceeded(self._stop, found, time.monotonic(), self._policy.grace)
        if number is not None:
            self._say(f"{found}: stopping it, before the system kills it")
            self._say(guard.advice)
        self._pass_on(after, number)

    # --- stopping ----------------------------------------------------------------------------------------------

    def _take_signals(self) -> None:
        """See to the signals that came. Not in their handler: what is half-done here would be lost, or theirs."""
        while self._signals:
            number = self._signals.popleft()
            self._pass_on(*stop.on_signal(self._stop, number, time.monotonic(), self._policy.grace))

    def _is_told(self) -> bool:
        """Return whether we are to stop."""
        self._take_signals()
        return self._stop.is_asked

    def _pass_on(self, after: stop.Stop, number: int | None) -> None:
        """Take over a step of stopping, and send its signal, where there is one, to the trainer's process group."""
        self._stop = after
        if number is not None and self._child is not None and self._status is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, number)

    def _rest(self) -> list[int]:
        """Return the process ids that the last start left."""
        for _ in range(5):
            lives = self._reap()
            found = sorted(one.pid for one in self._tree.processes())
            # A look at all processes takes time, and misses one whose parent ends meanwhile: the kernel does not.
            if found or not lives:
                break
            time.sleep(0.005)
        return found

    # --- what is said and written ------------------------------------------------------------------------------

    def _keep(self, pipe: Pipe, data: bytes, *, all_of_it: bool = False) -> None:
        """Write the output of the trainer to the screen as it is, and to the log as whole lines."""
        if pipe.screen is not None:
            pipe.screen.show(data)
        lines = pipe.lines(data, all_of_it=all_of_it)
        if lines:
            self._log.write(lines)
            self._tail.add(lines)
            self._summary.read(lines)

    def _keep_begun(self) -> None:
        """Log partial lines, too: "connecting ..." must be visible."""
        for pipe in self._pipes:
            self._keep(pipe, b"", all_of_it=True)

    def _note(self, text: str) -> None:
        """A line of ours in the log."""
        self._log.write(f"drydock: {time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}\n".encode())

    def _say(self, text: str) -> None:
        """A line of ours in the log and to the user."""
        self._note(text)
        self._complain(text)

    def _complain(self, text: str) -> None:
        self._screens[1].show(f"drydock: {text}\n".encode())

    def _enter(self, phase: str, **more: Any) -> None:
        self._state.update(phase=phase, since=time.time(), **more)
        try:
            write_state(self._folder / "state.json", self._state)
        except OSError as error:
            self._note(f"the state cannot be written: {error.strerror}")


def _become_subreaper() -> bool:
    """Ask the kernel for the orphans of our tree; returns False where that is impossible (macOS)."""
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def _describe_exit(code: int) -> str:
    """An exit status in words."""
    if code > 128 and code - 128 in set(signal.Signals):
        return f"the trainer was ended by {signal.Signals(code - 128).name}"
    return f"the trainer ended with exit status {code}"


def _numbers(pids: list[int]) -> str:
    return f"process {', '.join(map(str, pids[:5]))}{' and more' if len(pids) > 5 else ''}"


def main(arguments: list[str]) -> int:
    """Supervise: `arguments` are the folder of the run and the descriptor of its lock, which stays open."""
    folder, lock = Path(arguments[0]), int(arguments[1])
    fcntl.fcntl(lock, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    request = read_state(folder / "request.json")
    if not request:
        print(f"drydock: error: {folder / 'request.json'} is damaged", file=sys.stderr)
        return EXIT_FAILED
    try:
        _forget_secrets(folder, request)
        return Supervisor(folder, request).run()
    except OSError as error:
        print(f"drydock: error: {error.filename or folder}: {error.strerror}", file=sys.stderr)
        return EXIT_FAILED


def _arguments(command: list[str]) -> list[str]:
    """What the trainer is started with, in the command that starts it."""
    return command[command.index("--") + 1 :] if "--" in command else []


def _forget_secrets(folder: Path, request: dict[str, Any]) -> None:
    """Leave no argument that is a secret in the request, which stays after the run. Raises OSError."""
    arguments = _arguments(request["command"])
    if secrets.argument_secrets(arguments):
        before = request["command"][: -len(arguments)]
        shown = secrets.redacted_arguments(arguments, {}, ())
        write_state(folder / "request.json", {**request, "command": [*before, *shown]})
