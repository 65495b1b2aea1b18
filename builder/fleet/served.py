"""Run on a host by its service manager, with an environment's Python: FOLDER.

Keeps a trainer running as [supervise] of its profile says: what `drydock run NAME --supervise` does where there is a
Drydock. FOLDER is fleet/services/STEM of the store there, in that of a
group fleet/UID/services/STEM, and only its user's:

    service.pyz     this, with what it stands on
    service.json    what the desk asks for
    lock            held by this process as long as it lives
    trainer.lock    held by the trainer, whose process id is in it: what a killed one of us left is found by it
    state.json      its state
    history.json    what ran, the newest last: for the records of a desk
    log, log.1 ...  the trainer's output, without secrets

It needs the standard library, Python 3.10.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from builder.embedded.state import read_json
from builder.fleet import launcher
from builder.run.records.identity import new_id
from builder.run.records.summary import Summary
from builder.run.supervise.journal import RotatingFile, Tail, write_state
from builder.run.supervise.policy import Done, GiveUp, History, Policy, decide

_RUNS = 30  # of which something is kept
_GUARDING = 1.0  # seconds between two looks at the memory of a trainer that is guarded
# It becomes the trainer; its process id is written before that, in the file that it holds.
_BECOME = 'printf "%s\\n" "$$" >"$0"; exec sh "$@"'


class Service:
    """The service whose files are in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        asked = (folder / "service.json").read_bytes()
        self.asked: dict[str, Any] = json.loads(asked)
        self.policy = Policy.of(self.asked["policy"])
        self.signals: list[int] = []
        self.too_much = ""
        """What exceeds the limits of the memory guard."""
        self.log = RotatingFile(folder / "log", self.policy.log_size, self.policy.log_files, _complain)
        self.tail = Tail()
        self._printed = threading.Lock()  # of the summary, which a thread adds to
        self._summary = Summary(self.policy.losses)
        began = time.time()
        self._ran: dict[str, Any] = {"id": new_id(began), "arguments": list(self.asked["arguments"])}
        before = read_json(folder / "history.json", {"runs": [dict]}) or {"runs": []}
        self._runs = [*before["runs"][1 - _RUNS :], self._ran]
        self.state: dict[str, Any] = {
            "name": self.asked["name"],
            "supervisor": os.getpid(),
            "began": began,
            "restarts": 0,
            "version": hashlib.sha256((folder / "service.pyz").read_bytes() + asked).hexdigest(),
        }

    def run(self) -> int:
        """Keep the trainer running; returns the exit status: 0 where it has done its work, or is to end."""
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, lambda number, _: self.signals.append(number))
        launcher.adopt()
        _keep_awake()
        history = History()
        while True:
            began = time.monotonic()
            self.tail.clear()
            code = self._attempt()
            ended = time.monotonic()
            if self.signals:
                self._save("ended", last_exit=code, why="it was stopped")
                return 0
            if self.too_much:
                self._save("ended", last_exit=code or 1, why=self.too_much)
                return code or 1
            decision = decide(code, self.tail.lines(), ended - began, ended, history, self.policy)
            if isinstance(decision, Done):
                self._save("ended", last_exit=0, why="done")
                return 0
            if isinstance(decision, GiveUp):
                self._say(f"the trainer ended with exit status {code}: {decision.why}")
                self._save("ended", last_exit=code, why=decision.why)
                return code
            history = decision.history
            self._say(f"the trainer ended with exit status {code} ({decision.why}); again in {decision.after:g} s")
            self.state["restarts"] += 1
            self._save("waiting", last_exit=code, why=decision.why)
            if not self._waits(decision.after):
                self._save("ended", last_exit=code, why="it was stopped")
                return 0

    def _waits(self, seconds: float) -> bool:
        """Wait; returns whether nobody has stopped us meanwhile."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.signals:
            time.sleep(0.25)
        return not self.signals

    def _attempt(self) -> int:
        """One start of the trainer, of the generation that is current now, to its end; returns its exit status."""
        self._end_orphan()
        profiles, stem = Path(self.asked["store"]) / "profiles", self.asked["stem"]
        try:
            numbered = os.readlink(profiles / stem)
            environment = os.readlink(profiles / numbered)
            script = profiles / f"{numbered.removesuffix('-link')}-run.sh"
            digest = hashlib.sha256(script.read_bytes()).hexdigest()
        except OSError as error:
            self._say(f"{stem} is not built here any more: {error}")
            return 1
        arguments = list(self.asked["arguments"])
        if self.policy.resume is not None:
            found = self.policy.resume.find(arguments, Path.cwd())
            for path in found.passed_over:
                self._say(f"{path} is not whole, and is passed over")
            arguments += found.arguments
        held = self.folder / "trainer.lock"
        lock = os.open(held, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        own = launcher.own_secrets()
        try:
            if launcher.is_free(lock) is False:
                self._say("another trainer of this service lives")
                return 1
            child = subprocess.Popen(
                ["sh", "-c", _BECOME, str(held), str(script), "--", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **self.asked["environment"], **own},
                start_new_session=True,
                pass_fds=[lock],
            )
        finally:
            os.close(lock)
        reader = launcher.pass_lines(child.stdout, own, self._line) if child.stdout is not None else None
        began = {"trainer": child.pid, "store_name": Path(environment).name, "generation": numbered, "script": digest}
        self._save("running", **began)
        tree = launcher.Tree(child.pid)
        self._watch(child, tree, began)
        code = launcher.end(child, tree, self.policy.grace, _moment)
        if reader is not None:
            reader.join(2.0)
        return code

    def _watch(self, child: subprocess.Popen[bytes], tree: launcher.Tree, began: dict[str, Any]) -> None:
        since, look_at, sample_at, guard = time.time(), 0.0, 0.0, self.policy.guard
        swap = in_use()[0]
        while child.poll() is None and not self.signals and not self.too_much:
            time.sleep(0.25)
            now = time.monotonic()
            if now < look_at:
                continue
            look_at = now + (launcher.LOOK if guard is None else _GUARDING)
            living = tree.look()
            if guard is not None:
                swap_now, used = in_use()
                # What processes share is counted for each of them, but they do not hold more than is in use at all.
                self.too_much = guard.exceeded(min(launcher.memory_of(living), used), swap_now - swap) or ""
            if self.too_much and guard is not None:
                self._say(f"{self.too_much}: stopping it, before the system kills it")
                self._say(guard.advice)
            elif now >= sample_at:
                sample_at = now + max(self.policy.sample_every, launcher.SAMPLE)
                sample = {"time": time.time(), "processes": len(living), "memory": launcher.memory_of(living)}
                self._save("running", since=since, sample=sample, **began)

    def _end_orphan(self) -> None:
        """End what a killed one of us left, or the last trainer. Ends us where it does not end."""
        lock = os.open(self.folder / "trainer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            for number in (signal.SIGTERM, signal.SIGKILL):
                until = time.monotonic() + (self.policy.grace if number == signal.SIGTERM else 10)
                sent = False
                while launcher.is_free(lock) is False:
                    words = os.pread(lock, 32, 0).split()
                    group = int(words[0]) if words and words[0].isdigit() else 0
                    if group > 1 and not sent:
                        sent = True
                        with suppress(OSError):
                            os.killpg(group, number)
                    if time.monotonic() > until:
                        break
                    time.sleep(0.1)
                else:
                    return
        finally:
            os.close(lock)
        sys.exit(f"drydock: error: what a killed service of {self.asked['name']} left does not end")

    def _line(self, text: bytes) -> None:
        with self._printed:
            self._summary.read(text)
        self.tail.add(text)
        self.log.write(text)

    def _say(self, text: str) -> None:
        print(f"drydock: {text}", file=sys.stderr, flush=True)
        self.log.write(f"drydock: {text}\n".encode(errors="replace"))

    def _save(self, phase: str, **more: Any) -> None:
        kept = {name: self.state[name] for name in ("name", "supervisor", "began", "restarts", "version")}
        known = ("store_name", "generation", "script")
        last: dict[str, Any] = {name: self.state[name] for name in known if name in self.state}
        self.state = {**kept, **last, "phase": phase, "since": time.time(), **more}
        if phase == "ended" and more.get("last_exit"):
            self.state["last_lines"] = [line[:300] for line in self.tail.lines()[-3:]]
        self._ran |= {name: value for name, value in self.state.items() if name not in ("sample", "version")}
        with self._printed:
            self._ran["losses"] = json.loads(json.dumps(self._summary.data()["losses"]))
        with suppress(OSError):  # a full disk does not stop the trainer
            write_state(self.folder / "state.json", self.state)
            write_state(self.folder / "history.json", {"runs": self._runs})


def _moment() -> bool:
    time.sleep(0.1)
    return False


def _complain(text: str) -> None:
    print(f"drydock: warning: {text}", file=sys.stderr, flush=True)


def in_use() -> tuple[int, int]:
    """Swap and memory of this machine that are in use, in bytes; of memory that is not known, more than there is.

    Sources: proc_meminfo(5); sysctl(8) of macOS, vm.swapusage.
    """
    if sys.platform == "darwin":
        done = subprocess.run(["sysctl", "-n", "vm.swapusage"], stdout=subprocess.PIPE, check=False)
        found = re.search(rb"used = ([0-9.]+)M", done.stdout)
        return (round(float(found[1]) * (1 << 20)) if found else 0), 1 << 62
    try:
        rows = dict(row.split(":", 1) for row in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        size = {name: int(row.split()[0]) * 1024 for name, row in rows.items()}
        return size["SwapTotal"] - size["SwapFree"], size["MemTotal"] - size["MemAvailable"]
    except (OSError, ValueError, KeyError, IndexError):
        return 0, 1 << 62


def _keep_awake() -> None:
    """Hold off the sleep of an idle Mac, as builder/run/supervise/awake.py does; nobody's child."""
    if sys.platform == "darwin":
        words = ["sh", "-c", 'caffeinate -i -w "$0" >/dev/null 2>&1 &', str(os.getpid())]
        subprocess.run(words, check=False, stdin=subprocess.DEVNULL)


def main(folder: str) -> int:
    """Be the service of this folder; returns the exit status."""
    lock = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if launcher.is_free(lock) is False:
        print("drydock: error: this service runs already", file=sys.stderr)
        return 1
    return Service(Path(folder)).run()
