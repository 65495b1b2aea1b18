"""Run on a host, by an environment's Python, with the desk at the other end of standard input: MARK STORE FLEET.

Installs, removes and looks at the service of a profile: a user unit of systemd, or an agent of launchd. The first line
of the input is JSON; `do` is one of

    check      what stands in the way of a service, and who this host is
    install    files and unit written, the service started where it does not run so already
    restart    started again where it runs, and not as the current generation
    remove     stopped, the unit and what it starts deleted; the log and the trainer's folder stay
    status     how it is
    log        the last lines of its log; with `follow` each new one, as long as the service lives and the desk is there

A unit has the sha256 of its own text in it: one that was changed by hand is left alone. What it has to say to the desk
are lines of stdout that begin with @MARK. It needs the standard library, Python 3.9.

Sources: systemctl(1), loginctl(1); launchctl(1).
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import re
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE = 20.0  # seconds in which a service that was started says how it is
SILENCE = 30.0  # seconds without a sign of life after which a desk that follows a log is gone
AWAY = 12.0  # seconds after which a service is over, as far as its log goes; systemd starts a killed one after ten
BESIDE = 30.0  # seconds for a service manager, beside the trainer's time of grace
_STAMP = re.compile(rb"(drydock-unit )([0-9a-f]{64})")


class RefusedError(Exception):
    """What stands in the way, in words for the user."""


def answer(mark: str, word: str, rest: Any) -> None:
    """Answer the desk."""
    text = f"@{mark} {word} {json.dumps(rest)}\n".encode()
    while text:
        text = text[os.write(1, text) :]


def call(*words: str, seconds: float = BESIDE) -> tuple[int, str]:
    """Exit status and output of a program, both of its outputs; 127 where it is missing."""
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError:
        return 127, f"{words[0]} is missing"
    except subprocess.TimeoutExpired:
        return 124, f"{words[0]} did not answer within {seconds:.0f} s"
    return done.returncode, done.stdout.decode(errors="replace").strip()


def last(text: str) -> str:
    """The last line of what a program said."""
    return (text.splitlines() or ["it says nothing"])[-1][:300]


class Systemd:
    """The user's own instance of systemd."""

    kind = "systemd"

    def __init__(self, stem: str) -> None:
        self.name = f"drydock-{stem}.service"
        config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
        self.file = Path(config) / "systemd/user" / self.name
        usual = f"/run/user/{os.getuid()}"
        if "XDG_RUNTIME_DIR" not in os.environ and os.path.isdir(usual):  # ssh without pam_systemd sets none
            os.environ["XDG_RUNTIME_DIR"] = usual

    def _ctl(self, *words: str, seconds: float = BESIDE) -> tuple[int, str]:
        return call("systemctl", "--user", *words, seconds=seconds)

    def _must(self, *words: str, seconds: float = BESIDE) -> None:
        code, said = self._ctl(*words, seconds=seconds)
        if code:
            raise RefusedError(f"systemctl --user {' '.join(words)} failed: {last(said)}")

    def check(self) -> None:
        """Raise RefusedError where there is no service manager, or another unit has the name."""
        code, said = self._ctl("show-environment")
        if code:
            raise RefusedError(
                f"no service manager answers here, neither systemd for this user nor launchd: {last(said)}"
            )
        _, where = self._ctl("show", "--property=FragmentPath", "--value", self.name)
        if where.startswith("/") and os.path.realpath(where) != os.path.realpath(self.file):
            raise RefusedError(f"{where} is a unit of this name already, and is not ours: rename it, or remove it")

    def start(self, grace: float, *, again: bool) -> list[str]:
        """Load the unit, have it start with the machine, and start it; returns warnings."""
        self._must("daemon-reload")
        self._must("enable", self.name)
        if again:
            self._ctl("reset-failed", self.name)
            self._must("restart", self.name, seconds=grace + BESIDE)
        return self._linger()

    def _linger(self) -> list[str]:
        """Have it run without a login, where that is allowed."""
        user = str(os.getuid())
        if call("loginctl", "show-user", user, "--property=Linger", "--value")[1] == "yes":
            return []
        if call("loginctl", "--no-ask-password", "enable-linger")[0] == 0:
            return []
        return ["it ends with the last session of its user: sudo loginctl enable-linger USER"]

    def remove(self, grace: float) -> None:
        """Stop it and forget it."""
        self._ctl("disable", "--now", self.name, seconds=grace + BESIDE)
        self._ctl("stop", self.name, seconds=grace + BESIDE)  # also one whose file is gone already
        if self.is_active():
            raise RefusedError(f"systemctl --user stop {self.name} does not stop it")
        self.file.unlink(missing_ok=True)
        self._ctl("daemon-reload")
        self._ctl("reset-failed", self.name)

    def is_active(self) -> bool:
        """Whether it runs, or is about to."""
        return self.state() in ("active", "activating", "reloading", "deactivating")

    def state(self) -> str:
        """The word of the service manager for how it is."""
        code, said = self._ctl("show", "--property=ActiveState", "--value", self.name)
        return last(said) if code == 0 else ""


class Launchd:
    """The agents of the user who is logged in at the screen."""

    kind = "launchd"

    def __init__(self, stem: str) -> None:
        self.name = f"drydock.{stem}"
        self.file = Path.home() / "Library/LaunchAgents" / f"{self.name}.plist"
        self._domain = f"gui/{os.getuid()}"

    def check(self) -> None:
        """Raise RefusedError where there is no service manager, or another agent has the label."""
        code, said = call("launchctl", "print", self._domain)
        if code == 127:
            raise RefusedError("no service manager answers here: launchctl is missing")
        if code:
            raise RefusedError(
                "launchd has no session of this user: log in at the screen of this Mac, "
                f"and turn on automatic login there ({last(said)})"
            )
        where = re.search(r"^\s*path = (/.*)$", self._print(), re.MULTILINE)
        if where is not None and os.path.realpath(where[1]) != os.path.realpath(self.file):
            raise RefusedError(
                f"{where[1]} is an agent of this label already, and is not ours: rename it, or remove it"
            )

    def _print(self) -> str:
        code, said = call("launchctl", "print", f"{self._domain}/{self.name}")
        return said if code == 0 else ""

    def start(self, grace: float, *, again: bool) -> list[str]:
        """Load the agent, which starts it, now and at every login."""
        if not again:
            return []
        self._out(grace)
        call("launchctl", "enable", f"{self._domain}/{self.name}")
        for _try in range(5):  # a domain may still be busy with the end of the one before
            code, said = call("launchctl", "bootstrap", self._domain, str(self.file))
            if code == 0:
                break
            time.sleep(1)
        else:
            raise RefusedError(f"launchctl bootstrap {self._domain} {self.file} failed: {last(said)}")
        return []

    def _out(self, grace: float) -> None:
        if self._print():
            call("launchctl", "bootout", f"{self._domain}/{self.name}", seconds=grace + BESIDE)
            until = time.monotonic() + grace + BESIDE  # it answers before the process has ended
            while self._print():
                if time.monotonic() > until:
                    raise RefusedError(f"launchctl bootout {self._domain}/{self.name} does not stop it")
                time.sleep(0.25)

    def remove(self, grace: float) -> None:
        """Stop it and forget it."""
        self._out(grace)
        self.file.unlink(missing_ok=True)

    def is_active(self) -> bool:
        """Whether it runs."""
        return self.state() == "running"

    def state(self) -> str:
        """The word of the service manager for how it is."""
        found = re.search(r"^\s*state = (.+)$", self._print(), re.MULTILINE)
        return found[1] if found else ""


# --- files ---------------------------------------------------------------------------------------------------------


def stamp(text: bytes) -> bytes:
    """The sha256 of a unit's text, without the stamp that is in it."""
    return hashlib.sha256(_STAMP.sub(rb"\1", text)).hexdigest().encode()


def own_text(file: Path) -> bytes | None:
    """The text of a unit of ours as we wrote it; None where there is none. Raises RefusedError for any other file."""
    try:
        found = file.lstat()
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise RefusedError(f"{file} is not a regular file, and not ours: move it away")
    if found.st_uid != os.geteuid():
        raise RefusedError(f"{file} is of another user (uid {found.st_uid}), and not ours: move it away")
    text = file.read_bytes()
    there = _STAMP.search(text)
    if there is None:
        raise RefusedError(f"{file} was not made by drydock service install --on: move it away")
    if there[2] != stamp(text):
        beside = f", and put what you need into {file}.d/own.conf" if file.suffix == ".service" else ""
        raise RefusedError(f"{file} was changed by hand, and is left alone: remove it{beside}")
    return text


def write(file: Path, content: bytes) -> None:
    """Write a file whole or not at all, for its user alone."""
    new = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        os.replace(new, file)
    finally:
        if new.exists():
            new.unlink()


def read_json(path: Path) -> dict[str, Any]:
    """A file of ours; empty where it is not one."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


# --- what is done --------------------------------------------------------------------------------------------------


class Host:
    """The service of one profile on this host."""

    def __init__(self, asked: dict[str, Any], store: Path, fleet: Path) -> None:
        self.asked, self.store, self.stem = asked, store, asked["stem"]
        self.folder = fleet / "services" / self.stem
        self.manager = Launchd(self.stem) if sys.platform == "darwin" else Systemd(self.stem)

    def check(self) -> dict[str, Any]:
        """Refuse what must not be changed; returns who this host is, and the secrets that its services have."""
        if sys.version_info < (3, 10):  # noqa: UP036 # an environment's Python is its profile's
            raise RefusedError("a service takes an environment with Python 3.10 or newer")
        self.manager.check()
        if own_text(self.manager.file) is not None:
            fleet = read_json(self.folder / "service.json").get("fleet", self.asked["fleet"])
            if fleet != self.asked["fleet"]:
                raise RefusedError(f"{self.stem} is a service of the fleet {fleet} here: uninstall that first")
        home = Path.home() / self.asked["folder"]
        keys = sorted([*home.glob("swarm.pem"), *home.glob("*/swarm.pem"), *home.glob("*/*/swarm.pem")])
        return {"identities": [hashlib.sha256(key.read_bytes()).hexdigest() for key in keys], "kind": self.manager.kind}

    def install(self) -> dict[str, Any]:
        """Write it all, and start it where it does not run so already."""
        self.check()
        os.makedirs(Path.home() / self.asked["folder"], exist_ok=True)
        pyz, settings = base64.b64decode(self.asked["pyz"]), json.dumps(self.asked["settings"], sort_keys=True).encode()
        unit = self.asked["unit"].encode()
        unit = _STAMP.sub(rb"\g<1>" + stamp(unit), unit)
        self.manager.file.parent.mkdir(parents=True, exist_ok=True)
        for path, content in (
            (self.folder / "service.pyz", pyz),
            (self.folder / "service.json", settings),
            (self.manager.file, unit),
        ):
            if not path.is_file() or path.read_bytes() != content:
                write(path, content)
        again = not self.is_current()
        began = time.time()
        warnings = self.manager.start(self.asked["grace"], again=again)
        if again:
            self.wait(began)
        return {**self.status(), "started": again, "warnings": warnings}

    def is_current(self) -> bool:
        """Whether it runs, from the files that are here now, and the current generation."""
        state = read_json(self.folder / "state.json")
        try:
            version = hashlib.sha256(
                (self.folder / "service.pyz").read_bytes() + (self.folder / "service.json").read_bytes()
            ).hexdigest()
            current = os.readlink(self.store / "profiles" / self.stem)
            script = (self.store / "profiles" / f"{current[: -len('-link')]}-run.sh").read_bytes()
        except OSError:
            return False
        lives = self.is_held() and state.get("phase") in ("running", "waiting")
        wanted = {"version": version, "generation": current, "script": hashlib.sha256(script).hexdigest()}
        return lives and all(state.get(name) == value for name, value in wanted.items())

    def is_held(self) -> bool:
        """Whether the service's process lives; where the file system has no locks, its state says so alone."""
        try:
            with (self.folder / "lock").open("rb") as lock:
                return is_free(lock.fileno(), shared=True) is not True
        except FileNotFoundError:
            return False
        except OSError:
            return True

    def wait(self, began: float) -> None:
        """Wait until it says how it is."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            state = read_json(self.folder / "state.json")
            if state.get("began", 0) >= began and "phase" in state:
                return
            time.sleep(0.1)
        raise RefusedError(f"{self.manager.name} was started, and does not say how it is: {self.manager.state()}")

    def restart(self) -> dict[str, Any]:
        """Start it again where another generation is current than the one that runs."""
        if own_text(self.manager.file) is None or self.is_current():
            return {**self.status(), "started": False}
        began = time.time()
        self.manager.start(self.asked["grace"], again=True)
        self.wait(began)
        return {**self.status(), "started": True}

    def remove(self) -> dict[str, Any]:
        """Stop it and delete it; the log and the trainer's folder stay."""
        was = own_text(self.manager.file) is not None
        state = read_json(self.folder / "state.json")
        if was or self.is_held():
            self.manager.remove(float(read_json(self.folder / "service.json").get("policy", {}).get("grace", 30)))
        self.end_orphan()
        for name in ("service.pyz", "service.json", "state.json", "lock", "trainer.lock"):
            (self.folder / name).unlink(missing_ok=True)
        return {"installed": False, "removed": was or bool(state), "runs": self.runs()}

    def end_orphan(self) -> None:
        """Kill what a service that was killed has left: the group of the process that holds the trainer's lock."""
        try:
            with (self.folder / "trainer.lock").open("rb") as lock:
                group = int(lock.readline() or b"0")
                for _try in range(50):
                    if is_free(lock.fileno()) is not False:  # else its number may be somebody else's by now
                        return
                    if group > 1:
                        os.killpg(group, signal.SIGKILL)
                    time.sleep(0.1)
        except (OSError, ValueError):
            return

    def status(self) -> dict[str, Any]:
        """How it is, in words of the service and of its manager."""
        try:
            installed, why = own_text(self.manager.file) is not None, ""
        except RefusedError as refused:
            installed, why = True, str(refused)
        state = read_json(self.folder / "state.json")
        if state.get("phase") not in (None, "ended") and not self.is_held():
            state["phase"] = "killed"
        try:
            current = os.path.basename(
                os.readlink(self.store / "profiles" / os.readlink(self.store / "profiles" / self.stem))
            )
        except OSError:
            current = ""
        row = {
            "installed": installed,
            "note": why,
            "current": current,
            "manager": self.manager.state(),
            "now": time.time(),
            "runs": self.runs(),
        }
        return {**row, "state": state} if installed or state else row

    def runs(self) -> list[dict[str, Any]]:
        """What ran here, the newest last; of one that was killed nobody has written the end."""
        found = read_json(self.folder / "history.json").get("runs")
        runs = [run for run in found if isinstance(run, dict)] if isinstance(found, list) else []
        over = runs if not self.is_held() else runs[:-1]
        for run in over:
            if run.get("phase") != "ended":
                run["phase"] = "killed"
        return runs

    def log(self) -> list[str]:
        """The last lines of the log."""
        try:
            with (self.folder / "log").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - (1 << 17)))
                lines: list[str] = file.read().decode(errors="replace").splitlines()
                return lines[-int(self.asked["lines"]) :]
        except OSError:
            return []

    def follow(self, say: Callable[[str], None]) -> None:
        """Say each new line of the log, until the service has ended or the desk is gone."""
        path = self.folder / "log"
        file, rest = open_at_end(path), b""
        heard = lived = time.monotonic()
        while time.monotonic() - heard < SILENCE:
            piece = b"" if file is None else os.read(file, 1 << 16)
            if piece:
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    say(line.decode(errors="replace"))
                continue
            if file is None or is_rotated(file, path):
                if file is not None:
                    os.close(file)
                file = open_at_end(path, at_end=False)
            elif self.is_held():
                lived = time.monotonic()
            elif time.monotonic() - lived > AWAY or read_json(self.folder / "state.json").get("phase") == "ended":
                return
            if select.select([0], [], [], 0.3)[0]:
                heard = time.monotonic()
                if not os.read(0, 1 << 10):
                    return


def open_at_end(path: Path, *, at_end: bool = True) -> int | None:
    """A log for reading; None where there is none now."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    if at_end:
        os.lseek(file, 0, os.SEEK_END)
    return file


def is_rotated(file: int, path: Path) -> bool:
    """Whether another file has the name of a log now."""
    try:
        return os.stat(path).st_ino != os.fstat(file).st_ino
    except OSError:
        return False


def locked(folder: Path) -> int:
    """Hold the lock of those who change services of this host. Raises RefusedError where another desk keeps it."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    lock = os.open(folder.parent / "change.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    until = time.monotonic() + PATIENCE
    while is_free(lock) is False:
        if time.monotonic() > until:
            raise RefusedError("another desk changes the services of this host: try again")
        time.sleep(0.2)
    return lock


def is_free(lock: int, *, shared: bool = False) -> bool | None:
    """Whether nobody else has a lock; then we do, `shared` with who asks so. As lock of builder/embedded/claim.py.

    None where the file system has no locks (ENOLCK): nobody is known to have it, and we go on.
    """
    try:
        fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def main(mark: str, store: str, fleet: str) -> int:
    """Do what the first line asks; returns the exit status."""
    asked = json.loads(sys.stdin.buffer.readline())
    do = asked["do"]
    host = Host(asked, Path(store), Path(fleet))
    try:
        if do in ("install", "restart", "remove"):
            lock = locked(host.folder)
            answer(mark, "row", getattr(host, do)())
            os.close(lock)
        elif do == "log":
            for line in host.log():
                answer(mark, "line", line)
            if asked.get("follow"):
                host.follow(lambda line: answer(mark, "line", line))
            answer(mark, "row", {})
        else:
            answer(mark, "row", host.check() if do == "check" else host.status())
    except (RefusedError, OSError) as error:
        print(f"drydock: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
