"""Run on a host, by an environment's Python, with the desk at the other end of standard input: MARK.

The first line of the input is JSON; each line after it is a sign of life. `do` is one of

    look    newest whole checkpoint, and the identity of this host, then the end
    give    a checkpoint as a tar, in lines of base64
    take    lines of such a tar, a line with a dot, then the end: the checkpoint is put in place
    compare which of some files this host does not have as the desk has them
    bring   lines of a tar with those, a line with a dot, then the end: they are put in place
    run     the script, with its arguments and variables, for as long as the desk holds the connection

What it has to say to the desk are lines of stdout that begin with @MARK. It needs the standard library, Python 3.9.
"""

from __future__ import annotations

import base64
import ctypes
import fcntl
import hashlib
import json
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import types
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

SILENCE = 15.0  # seconds without a sign of life after which the desk is gone
ORPHANED = 5.0  # seconds of grace where the desk is gone
LOOK = 2.0
SAMPLE = 5.0
STALLED = 300.0  # seconds without a byte of what the desk sends after which it is gone; fifty hosts share its network
SHORTEST = 8  # characters of a secret, as in builder/secrets.py
_PR_SET_CHILD_SUBREAPER = 36


class Line:
    """Standard input, by lines; nothing is read too much or too late."""

    def __init__(self) -> None:
        self._rest = b""
        self.heard = time.monotonic()
        self.is_open = True

    def read(self, is_wanted: Callable[[], bool] = lambda: True) -> bytes:
        """The next line, waited for as long as it is wanted; what is left at the end. Raises OSError."""
        while b"\n" not in self._rest and self.is_open:
            while not select.select([0], [], [], 1.0)[0]:
                if not is_wanted():
                    raise OSError("nobody waits for this any more")
                if time.monotonic() - self.heard > STALLED:
                    raise OSError(f"nothing came for {STALLED:.0f} s")
            self.take()
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def take(self) -> None:
        """Read what there is."""
        block = os.read(0, 1 << 16)
        self.heard = time.monotonic()
        self.is_open = bool(block)
        self._rest += block

    def says_stop(self) -> bool:
        """Whether the desk asks for the end, in what came and was not read."""
        found = b"stop\n" in self._rest
        self._rest = self._rest[-5:]
        return found


def answer(mark: str, word: str, *rest: object) -> None:
    """Answer the desk. Where that is gone the input ends, too, and whoever is to end all by that must live."""
    with suppress(OSError):
        os.write(1, f"@{mark} {' '.join(map(str, (word, *rest)))}\n".encode())


# --- processes -----------------------------------------------------------------------------------------------------


def parents() -> dict[int, int]:
    """Each process of this machine, and the one above it."""
    found: dict[int, int] = {}
    if os.path.isdir("/proc/self"):
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    with open(f"/proc/{name}/stat", "rb") as file:
                        # The name of a program may have anything in it, but the last parenthesis ends it.
                        state, parent = file.read().rpartition(b")")[2].split()[:2]
                except (OSError, ValueError):
                    continue
                if state != b"Z":
                    found[int(name)] = int(parent)
        return found
    done = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], stdout=subprocess.PIPE, check=False)
    for row in done.stdout.decode(errors="replace").splitlines():
        words = row.split()
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit():
            found[int(words[0])] = int(words[1])
    return found


class Tree:
    """All that a process has started, also what has left its group: torchrun's workers lead sessions of their own."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._seen = {top}

    def look(self) -> set[int]:
        """The processes that live."""
        above = parents()
        ours = os.getpid()
        more = True
        while more:
            new = {one for one, parent in above.items() if one not in self._seen and parent in self._seen | {ours}}
            new.discard(ours)
            self._seen |= new
            more = bool(new)
        self._seen &= above.keys()
        return set(self._seen)

    def send(self, number: int) -> None:
        """Send a signal to all of them."""
        for one in self.look():
            try:
                os.kill(one, number)
            except OSError:
                pass


def adopt() -> None:
    """Have orphans of ours become our children, where the system knows that (prctl(2))."""
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        except (OSError, AttributeError):
            pass


def memory_of(tree: set[int]) -> int:
    """Resident bytes of some processes."""
    if not os.path.isdir("/proc/self"):
        done = subprocess.run(["ps", "-A", "-o", "pid=,rss="], stdout=subprocess.PIPE, check=False)
        rows = [row.split() for row in done.stdout.decode(errors="replace").splitlines()]
        return sum(int(row[1]) for row in rows if len(row) == 2 and row[0].isdigit() and int(row[0]) in tree) * 1024
    size, page = 0, os.sysconf("SC_PAGE_SIZE")
    for one in tree:
        try:
            with open(f"/proc/{one}/statm", encoding="ascii") as file:
                size += int(file.read().split()[1]) * page
        except (OSError, ValueError, IndexError):
            pass
    return size


# --- what is done --------------------------------------------------------------------------------------------------


def run(asked: dict[str, Any], mark: str, line: Line) -> int:
    """Run the script until it ends, or the desk does; returns its exit status, as a shell has it."""
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda number, _: signals.append(number))
    adopt()
    until = time.monotonic() + asked.get("after", 0.0)
    while time.monotonic() < until:
        if signals or is_over(line, 0.25):
            return 143
    refuse_service(asked)
    lock = hold()  # until we end
    held = time.monotonic() + SILENCE + ORPHANED + LOOK
    while lock is not None and is_free(lock) is False and time.monotonic() < held:
        if signals or is_over(line, 0.25):
            return 143
    if asked.get("resume"):
        asked["arguments"] += resume_of(asked).find(asked["arguments"], Path.cwd()).arguments

    own = own_secrets()
    # What only this host knows, the desk cannot leave out of its log.
    output = subprocess.PIPE if own else None
    child = subprocess.Popen(
        ["sh", asked["script"], "--", *asked["arguments"]],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **asked["environment"], **own},
        start_new_session=True,
    )
    readers = [redact(pipe, number, own) for number, pipe in ((1, child.stdout), (2, child.stderr)) if pipe is not None]
    tree = Tree(child.pid)
    answer(mark, "began", child.pid)
    watch(child, tree, mark, lambda: bool(signals) or is_over(line, 0.25))
    code = end(child, tree, asked["grace"], lambda: is_silent(line, 0.1))
    for reader in readers:
        reader.join(2.0)
    if select.select([], [1], [], 2.0)[1]:
        answer(mark, "ended", code)
    return code


def hold() -> int | None:
    """A file that stands for training in this folder, on this host: what the desk lost may not have ended yet.

    None where there can be none.
    """
    name = hashlib.sha256(os.getcwd().encode(errors="surrogateescape")).hexdigest()[:16]
    try:
        path = os.path.join(tempfile.gettempdir(), f"drydock-{os.getuid()}-{name}.lock")
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        state = os.fstat(lock)
        return lock if state.st_uid == os.getuid() and stat.S_ISREG(state.st_mode) else None
    except OSError:
        return None


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


def refuse_service(asked: dict[str, Any]) -> None:
    """End where a service of this host runs the same: two would have one identity."""
    path = Path(asked["service"]) / "lock"
    try:
        with path.open("rb") as lock:
            runs = is_free(lock.fileno(), shared=True) is False
    except FileNotFoundError:
        return
    except OSError:
        runs = True
    if runs:
        sys.exit(f"drydock: error: {path.parent.name} runs here as a service already: drydock service uninstall")


def watch(child: subprocess.Popen[bytes], tree: Tree, mark: str, is_ending: Callable[[], bool]) -> None:
    """Wait for the end of a trainer, or until it is to end; report what it uses meanwhile."""
    look_at = sample_at = 0.0
    while child.poll() is None and not is_ending():
        now = time.monotonic()
        if now < look_at:
            continue
        look_at = now + LOOK
        living = tree.look()
        # Where the pipe is full we would wait for a desk that may be gone.
        if now >= sample_at and select.select([], [1], [], 0)[1]:
            sample_at = now + SAMPLE
            sample = {"time": round(time.time(), 1), "processes": len(living), "memory": memory_of(living)}
            answer(mark, "sample", json.dumps({**sample, "load": os.getloadavg()[0]}))


def redact(pipe: IO[bytes], number: int, own: dict[str, str]) -> threading.Thread:
    """Pass on what comes from a pipe, without secrets of this host's own."""

    def write(text: bytes) -> None:
        while text:
            text = text[os.write(number, text) :]

    return pass_lines(pipe, own, write)


def pass_lines(pipe: IO[bytes], own: dict[str, str], write: Callable[[bytes], object]) -> threading.Thread:
    """Have a thread `write` each line of a pipe, with the names of secrets in their places."""
    values: dict[bytes, bytes] = {}
    for name, value in own.items():
        if len(value) >= SHORTEST:
            forms = (
                value,
                json.dumps(value)[1:-1],
                quote(value),
                base64.b64encode(value.encode()).decode().rstrip("="),
            )
            values.update((form.encode(), f"[{name}]".encode()) for form in forms)

    def pass_on() -> None:
        for text in iter(lambda: pipe.readline(1 << 16), b""):
            for value in sorted(values, key=len, reverse=True):
                text = text.replace(value, values[value])
            try:
                write(text)
            except OSError:
                return

    thread = threading.Thread(target=pass_on, daemon=True)
    thread.start()
    return thread


def is_over(line: Line, seconds: float) -> bool:
    """Wait a moment; returns whether the desk is gone, or asks for the end."""
    if line.is_open and select.select([0], [], [], seconds)[0]:
        line.take()
    return not line.is_open or line.says_stop() or time.monotonic() - line.heard > SILENCE


def is_silent(line: Line, seconds: float) -> bool:
    """Wait a moment; returns whether the desk is gone."""
    if line.is_open:
        is_over(line, seconds)
    else:
        time.sleep(seconds)
    return not line.is_open or time.monotonic() - line.heard > SILENCE


def end(child: subprocess.Popen[bytes], tree: Tree, grace: float, is_gone: Callable[[], bool]) -> int:
    """End all that was started, killing what has not ended after the time of grace; returns the exit status.

    Where the desk is gone, that time is short: nobody waits for what is written now. `is_gone` waits a moment.
    """
    if child.poll() is None or tree.look():
        tree.send(signal.SIGTERM)
    began = time.monotonic()
    while child.poll() is None or tree.look():
        gone = is_gone()
        reap(child)
        if time.monotonic() - began > (min(grace, ORPHANED) if gone else grace):
            break
    while tree.look():
        tree.send(signal.SIGKILL)
        reap(child)
        time.sleep(0.05)
    code = child.wait()
    return code if code >= 0 else 128 - code


def reap(child: subprocess.Popen[bytes]) -> None:
    """Take the exit status of orphans that became ours, and of the child last."""
    child.poll()
    for one in [one for one, parent in parents().items() if parent == os.getpid() and one != child.pid]:
        try:
            os.waitpid(one, os.WNOHANG)
        except OSError:
            pass


def own_secrets() -> dict[str, str]:
    """What this user's own file of secrets says, where only its owner can read it (builder/secrets.py)."""
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    path = os.environ.get("DRYDOCK_SECRETS") or os.path.join(config, "drydock/secrets")
    found = {}
    try:
        with open(path, encoding="utf-8") as file:
            state = os.fstat(file.fileno())
            if state.st_uid != os.geteuid() or state.st_mode & 0o077:
                return {}
            for text in file:
                name, equals, value = text.strip().removeprefix("export ").partition("=")
                if equals and name.isidentifier():
                    found[name] = value.strip("\"'")
    except (OSError, UnicodeDecodeError):
        pass
    return found


def resume_of(asked: dict[str, Any]) -> Any:
    """The Resume of the desk, by its own code, which it has sent."""
    module = types.ModuleType("drydock_resume")
    sys.modules["drydock_resume"] = module
    exec(compile(asked["code"], "resume.py", "exec"), module.__dict__)  # noqa: S102 # the desk's, as this is
    return module.Resume.of(asked["resume"])


def look(asked: dict[str, Any], mark: str) -> None:
    """Say which checkpoint is the newest, and who this host is."""
    if asked["resume"]:
        resume = resume_of(asked)
        found = resume.find(asked["arguments"], Path.cwd()).path
        if found is not None:
            path = resume.place(Path.cwd()) / found
            step, changed = sys.modules["drydock_resume"]._age(path)
            answer(mark, "newest", json.dumps([step, round(changed, 3), str(found), str(path.relative_to(Path.cwd()))]))
    for key in sorted(
        [*Path.cwd().glob("swarm.pem"), *Path.cwd().glob("*/swarm.pem"), *Path.cwd().glob("*/*/swarm.pem")]
    ):
        answer(mark, "identity", hashlib.sha256(key.read_bytes()).hexdigest())
    # What the desk has, and would be looked for here.
    for name in asked.get("needs", ()):
        if not os.path.exists(name):
            answer(mark, "absent", name)
    answer(mark, "looked")


class Lines:
    """A file that prints what is written to it in lines of base64."""

    def __init__(self) -> None:
        self._rest = b""

    def write(self, content: bytes) -> int:
        """Print what fills whole lines."""
        self._rest += content
        while len(self._rest) >= 48_000:
            self._print(self._rest[:48_000])
            self._rest = self._rest[48_000:]
        return len(content)

    def close(self) -> None:
        """Print what is left."""
        if self._rest:
            self._print(self._rest)

    def _print(self, content: bytes) -> None:
        line = base64.b64encode(content) + b"\n"
        while line:
            line = line[os.write(1, line) :]


def inside(path: str) -> Path:
    """A path below the working directory. Raises ValueError."""
    found = Path(path)
    if found.is_absolute() or ".." in found.parts or not found.parts:
        raise ValueError(path)
    return found


def give(path: Path, mark: str) -> None:
    """Print a checkpoint as a tar."""
    lines = Lines()
    with tarfile.open(fileobj=lines, mode="w|") as archive:  # type: ignore[call-overload]
        archive.add(path, arcname="it")
    lines.close()
    answer(mark, "given")


class Content:
    """What comes as lines of base64, up to a line with a dot: a file that is read once, into the folder `into`.

    Reading raises OSError where the connection breaks, or where the next one has removed the folder.
    """

    def __init__(self, line: Line, into: Path) -> None:
        self._line, self._into = line, into
        self._rest = b""
        self._is_whole = False

    def read(self, size: int) -> bytes:
        """So many bytes; fewer at the end."""
        while len(self._rest) < size and not self._is_whole:
            text = self._line.read(self._into.is_dir)
            if text == b".":
                self._is_whole = True
            elif not self._line.is_open:
                raise OSError("the connection broke")
            else:
                self._rest += base64.b64decode(text)
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    def finish(self) -> None:
        """Read what is left. Raises OSError also where the desk has gone meanwhile: nobody wants it any more."""
        while self.read(1 << 16):
            pass
        if select.select([0], [], [], 0)[0]:
            self._line.take()
        if not self._line.is_open:
            raise OSError("the connection broke")


def stage(folder: Path, command: str) -> Path:
    """A new folder for what a command brings, in an existing one, without what those of others have left there."""
    remove_stages(folder, command)
    return Path(tempfile.mkdtemp(prefix=f"{STAGE}{command}.", dir=folder))


def remove_stages(folder: Path, command: str) -> None:
    """Remove what was half brought by another command, which was killed, or fails by that: the newest wins.

    What is of this one another host fills now, which shares this folder.
    """
    for left in folder.glob(f"{STAGE}*"):
        if not left.name.startswith(f"{STAGE}{command}."):
            shutil.rmtree(left, ignore_errors=True)


def take(path: Path, command: str, mark: str, line: Line) -> None:
    """Put a checkpoint in place that comes as lines; whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = stage(path.parent, command)
    try:
        content = Content(line, new)
        with tarfile.open(fileobj=content, mode="r|") as archive:  # type: ignore[call-overload]
            for member in archive:
                name = inside(member.name)
                if member.isdir():
                    (new / name).mkdir(exist_ok=True)
                elif member.isfile():
                    with (new / name).open("wb") as target:
                        shutil.copyfileobj(archive.extractfile(member), target)
                    os.utime(new / name, (member.mtime, member.mtime))
        content.finish()
        if not path.exists():
            os.rename(new / "it", path)
        answer(mark, "taken")
    finally:
        shutil.rmtree(new, ignore_errors=True)


STAGE = ".drydock-bring."
BROUGHT = ".drydock-brought.json"
"""What the desk brought last, with the sha256 of each; relative to the folder of the trainer."""


def sha256_of(path: str) -> str | None:
    """That of a regular file; None where there is none."""
    digest = hashlib.sha256()
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            for piece in iter(lambda: file.read(1 << 20), b""):
                digest.update(piece)
    except OSError:
        return None
    return digest.hexdigest()


def brought_before() -> dict[str, str]:
    """The files that the desk brought last, with the sha256 of each."""
    try:
        with open(BROUGHT, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def unwanted(files: list[list[Any]]) -> list[str]:
    """What was brought before, is not brought any more, and is as it came."""
    now = {path for path, *_ in files}
    rows = brought_before().items()
    return [path for path, digest in rows if path not in now and sha256_of(str(inside(path))) == digest]


def compare(files: list[list[Any]], command: str, mark: str) -> None:
    """Say which files are not here as the desk has them; -1 where some are to be deleted."""
    remove_stages(Path(), command)
    lacking = [number for number, (path, _, digest, _) in enumerate(files) if sha256_of(str(inside(path))) != digest]
    lacking += [-1] if unwanted(files) else []
    for at in range(0, len(lacking), 1000):
        answer(mark, "lacks", *lacking[at : at + 1000])
    answer(mark, "compared")


def bring(asked: dict[str, Any], mark: str, line: Line) -> None:
    """Put files in place that come as lines; each is whole or not there, and all are before the first is replaced."""
    remove_stages(Path(), asked["command"])  # what else fills one has the lock, and ends by that
    lock = refuse_trainer()
    wanted = {path: (digest, is_program) for path, _, digest, is_program in asked["files"]}
    new = stage(Path(), asked["command"])
    try:
        content = Content(line, new)
        came: list[tuple[Path, str]] = []
        with tarfile.open(fileobj=content, mode="r|") as archive:  # type: ignore[call-overload]
            for member in archive:
                path = str(inside(member.name))
                beside = new / str(len(came))
                with beside.open("wb") as target:
                    shutil.copyfileobj(archive.extractfile(member), target)
                digest, is_program = wanted[path]
                if sha256_of(str(beside)) != digest:
                    sys.exit(f"drydock: error: {path} came damaged, or changed while it was sent")
                beside.chmod(0o755 if is_program else 0o644)
                came.append((beside, path))
        content.finish()
        now = {path: digest for path, (digest, _) in wanted.items()}
        # Where we are killed after some, the next one knows what is to be deleted.
        for name, listed in (("first", {**brought_before(), **now}), ("last", now)):
            with (new / name).open("w", encoding="utf-8") as file:
                json.dump(listed, file)
        gone = unwanted(asked["files"])
        os.replace(new / "first", BROUGHT)
        for path in gone:
            os.unlink(path)
        for beside, path in came:
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            os.replace(beside, path)
        os.replace(new / "last", BROUGHT)
        answer(mark, "brought")
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def refuse_trainer() -> int | None:
    """The lock of this folder, as hold has it; ends where something trains here: its code would change under it.

    What was lost may still be ending.
    """
    lock = hold()
    until = time.monotonic() + SILENCE + ORPHANED + LOOK
    while lock is not None and is_free(lock) is False:
        if time.monotonic() > until:
            sys.exit("drydock: error: something trains in this folder already")
        time.sleep(0.25)
    return lock


def main(mark: str) -> int:
    """Do what the first line asks; returns the exit status."""
    line = Line()
    asked = json.loads(line.read())
    folder = os.path.join(os.path.expanduser("~"), asked["folder"])
    try:
        os.makedirs(folder, exist_ok=True)
        os.chdir(folder)
        return work(asked, mark, line)
    except (OSError, tarfile.TarError) as error:
        words = getattr(error, "strerror", None) or error
        sys.exit(f"drydock: error: {getattr(error, 'filename', None) or folder}: {words}")


def work(asked: dict[str, Any], mark: str, line: Line) -> int:
    """Do what is asked in the working directory; returns the exit status."""
    if asked["do"] == "run":
        return run(asked, mark, line)
    if asked["do"] == "look":
        look(asked, mark)
    elif asked["do"] == "compare":
        compare(asked["files"], asked["command"], mark)
    elif asked["do"] == "bring":
        bring(asked, mark, line)
    elif asked["do"] == "give":
        give(inside(asked["path"]), mark)
    else:
        take(inside(asked["path"]), asked["command"], mark, line)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
