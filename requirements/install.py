"""Installs the tools of ./drydockw: `python3 install.py ROOT run|dev` makes ROOT/.venv from requirements/*.txt.

pip fetches one wheel by hash, that of uv, where no uv of the pinned version is there; uv installs the rest by hash.
What installs writes below the folder that it stands in (`--prefix .`), which we made. So no Python's own packages are
changed, whatever is deleted, renamed or replaced meanwhile: with `uv pip sync --python .venv/bin/python` those of the
Python below are, where .venv/pyvenv.cfg is gone. Standard library only; Python 3.11.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # the checkout in place of our folder: it has the one reader of the user's settings
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from builder.embedded import caller, network, network_settings

_QUIET = 1.5  # seconds, after which a line of our own says that something still happens
_WORK = ".venv-drydockw-"
_MARK = ".drydockw"
_UNSAID = re.compile(rb"\s+[+-] \S+==|Using CPython ")  # uv ends with a list of all packages
_IS_VENV = "import sys; sys.exit(sys.prefix == sys.base_prefix)"
# These would let another Python, or its packages, into ours (builder/isolation.py has them too), or another Python be
# chosen.
_OTHERS = re.compile(
    r"PYTHON(?!IOENCODING|UTF8|UNBUFFERED)\w*|UV_\w*PYTHON\w*|__PYVENV_LAUNCHER__|VIRTUAL_ENV|CONDA_PREFIX"
)
_EDITABLE = "import sys; from hatchling.build import build_editable; build_editable(sys.argv[1])"


class InstallError(Exception):
    """What happened, and what to do now."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Pin:
    """The uv that requirements/run.txt pins: its version, and its lines there, with the hashes."""

    version: str
    lines: str


@dataclass(frozen=True)
class Place:
    """The checkout, a folder of ours beside .venv to work in, and the lock, which what we start holds too."""

    root: Path
    work: Path
    lock: int

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    @property
    def wheels(self) -> Path:
        return self.work / "wheels"


def main() -> int:
    """The program: 0, or 1 with words that say why."""
    root, tools = Path(sys.argv[1]), sys.argv[2]
    caller.remember_folder()  # we shall stand in what we make
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        with locked(root) as lock:
            if not is_ready(root, tools):
                install(root, tools, lock)
    except InstallError as error:
        say(f"error: {error}\n  hint: {error.hint}")
        return 1
    except (OSError, ValueError) as error:
        say(f"error: the tools are not installed: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def say(text: str) -> None:
    """Print lines for the user."""
    print("\n".join(f"drydockw: {line}" for line in text.splitlines()), file=sys.stderr, flush=True)


def _end(number: int, _frame: object) -> None:
    sys.exit(128 + number)


@contextmanager
def locked(root: Path) -> Iterator[int]:
    """One call at a time. The kernel takes the lock back however a call ends; what it started holds it as well."""
    try:
        lock = os.open(root / ".venv.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InstallError(
            f"{root} cannot be written ({error.strerror}), and the tools are installed into it",
            "copy the checkout to where you may write",
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("waiting for another call, which installs the tools")
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield lock
    finally:
        os.close(lock)


def is_ready(root: Path, tools: str) -> bool:
    """Whether ./drydockw would install nothing; it alone knows the rule."""
    return subprocess.run(["/bin/sh", str(root / "drydockw"), "--is-ready", tools], check=False).returncode == 0


def install(root: Path, tools: str, lock: int) -> None:
    """Make .venv anew. Where that fails, what was there before stays. Raises InstallError, OSError and ValueError."""
    say("installing the tools into .venv (once)")
    for note in network_settings.read(os.environ).notes:
        say(f"note: {note}")
    for left in root.glob(f"{_WORK}*"):  # of a call that was killed
        shutil.rmtree(left, ignore_errors=True)
    place = Place(root, Path(tempfile.mkdtemp(prefix=_WORK, dir=root)), lock)
    try:
        requirements = root / "requirements" / f"{tools}.txt"
        installed = {
            "pyproject.toml": (root / "pyproject.toml").read_bytes(),
            f"{tools}.txt": requirements.read_bytes(),
        }
        for name, content in installed.items():
            (place.work / name).write_bytes(content)
        began = time.monotonic()
        uv = Uv(place, find_uv(place, read_pin(root / "requirements/run.txt")))
        say("making .venv")
        os.chdir(uv.new_venv())
        with in_place(place):
            if place.wheels.is_dir():  # uv itself need not be downloaded twice
                uv.install(place.work / "uv.txt", "--quiet", "--no-index", "--find-links", place.wheels.as_uri())
            uv.install(place.work / f"{tools}.txt")
            say("installing Drydock itself")
            uv.install(editable(place), "--quiet")
            check(place)
        # Last what says that it is ready: a call that is killed before is made again, and removes what this one left.
        shutil.rmtree(place.work, ignore_errors=True)
        for name, content in installed.items():
            Path(f"installed-{name}").write_bytes(content)
        say(f"ready in {time.monotonic() - began:.0f} s; to begin again: remove .venv")
    finally:
        os.chdir(root)
        shutil.rmtree(place.work, ignore_errors=True)


def isolated(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment without what would let another Python in; not even bytecode is written beside one."""
    kept = {name: value for name, value in environ.items() if not _OTHERS.fullmatch(name)}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1"}


def read_pin(path: Path) -> Pin:
    """The pin of uv in a requirements file. Raises InstallError."""
    found = re.search(r"^uv==([\w.]+)(?:\s*\\\n\s+--hash=\S+)+$", path.read_text(encoding="utf-8"), re.MULTILINE)
    if not found:
        raise InstallError(f"{path} does not pin uv by hash", "git checkout requirements")
    return Pin(found[1], found[0] + "\n")


def find_uv(place: Place, pin: Pin) -> Path:
    """A uv of the pinned version: DRYDOCK_UV, the old .venv's, the one on PATH, or fetched. Raises InstallError."""
    named = os.environ.get("DRYDOCK_UV")
    path = [part for part in os.get_exec_path() if Path(part) != place.venv / "bin"]
    for candidate in (named, place.venv / "bin/uv", shutil.which("uv", path=os.pathsep.join(path))):
        if candidate and _version(candidate) == pin.version:
            if candidate != place.venv / "bin/uv":
                return Path(candidate).absolute()
            return Path(shutil.copy2(candidate, place.work / "uv"))  # the old .venv is moved away
    if named:
        say(f"note: DRYDOCK_UV is not uv {pin.version}, which is pinned here; it is not used")
    return fetch_uv(place, pin)


def _version(uv: str | Path) -> str | None:
    """What a uv says that it is."""
    try:
        done = subprocess.run([uv, "--version"], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = done.stdout.split()
    return words[1] if done.returncode == 0 and words[:1] == ["uv"] and len(words) > 1 else None


def fetch_uv(place: Place, pin: Pin) -> Path:
    """The program out of uv's wheel, which pip downloads and checks by hash. Raises InstallError."""
    place.wheels.mkdir()
    (place.work / "uv.txt").write_text(pin.lines, encoding="utf-8")
    command = [*find_pip(pin), "download", "--quiet", "--progress-bar", "off", "--no-deps", "--only-binary", ":all:"]
    command += ["--require-hashes", "--dest", str(place.wheels), "--requirement", str(place.work / "uv.txt")]
    environment = isolated(network.pip_environment(os.environ))
    if follow(command, environment, f"fetching uv {pin.version}", place, terminal=False):
        raise InstallError(
            f"pip could not fetch uv {pin.version}, it says above why",
            f"is the network there? PIP_INDEX_URL names a mirror; or put uv {pin.version} on PATH",
        )
    (wheel,) = place.wheels.glob("uv-*.whl")
    program = place.work / "uv"
    with zipfile.ZipFile(wheel) as archive:
        program.write_bytes(archive.read(f"uv-{pin.version}.data/scripts/uv"))
    program.chmod(0o755)
    return program


def find_pip(pin: Pin) -> list[str]:
    """A command that is pip: of our Python, of another one, or the one that Python carries for `python -m venv`.

    It only downloads, so an externally managed Python will do. Raises InstallError.
    """
    own = importlib.util.find_spec("pip")
    if own and own.origin:  # without, it is an empty folder
        return [sys.executable, "-m", "pip"]
    others = (shutil.which(f"python3{minor}") for minor in ("", ".14", ".13", ".12", ".11"))
    for python in (sys.executable, *filter(None, others)):  # one below the user's home is not found from here
        command = [python, "-m", "pip"]
        asked = subprocess.run(
            [*command, "--version"],
            env=isolated(network.pip_environment(os.environ)),
            capture_output=True,
            check=False,
            timeout=300,
        )
        if asked.returncode == 0:
            return command
    for wheel in _wheels_of_pip():
        return [sys.executable, str(wheel / "pip")]  # a wheel with pip in it can be run as it is
    raise InstallError(
        f"there is neither uv {pin.version} nor a pip to fetch it with",
        f"Debian: apt-get install python3-pip (or python3-venv); or name a uv {pin.version}: DRYDOCK_UV, PATH",
    )


def _wheels_of_pip() -> Iterator[Path]:
    """Where CPython, and Debian in its place, keep the wheel that ensurepip installs."""
    spec = importlib.util.find_spec("ensurepip")
    if spec and spec.origin:
        for folder in (sysconfig.get_config_var("WHEEL_PKG_DIR"), Path(spec.origin).parent / "_bundled"):
            yield from sorted(Path(folder).glob("pip-*.whl")) if folder else ()


@dataclass(frozen=True)
class Uv:
    """uv, with the user's mirrors and nothing else of their settings."""

    place: Place
    program: Path

    def new_venv(self) -> Path:
        """An empty virtual environment in our folder, which knows that it will be .venv. Raises InstallError."""
        folder = self.place.work / "venv"
        self._run("venv", "--quiet", "--no-project", "--python", sys.executable, str(folder))
        here, there = (str(path.relative_to(self.place.root)).encode() for path in (folder, self.place.venv))
        for script in (folder / "bin").glob("activate*"):
            script.write_bytes(script.read_bytes().replace(here, there))
        (folder / _MARK).touch()
        return folder

    def install(self, what: Path, *options: str) -> None:
        """Install a file of requirements by hash, or a wheel, below the working directory. Raises InstallError.

        The interpreter is asked for its version, and is the first line of scripts; its own folders are not touched.
        """
        arguments = ["pip", "install", "--python", str(self.place.venv / "bin/python"), "--prefix", ".", "--no-deps"]
        if what.suffix == ".txt":
            # A hash decides, wherever the file comes from.
            arguments += ["--require-hashes", "--only-binary", ":all:", "--index-strategy", "unsafe-best-match", "-r"]
        self._run(*arguments, str(what), *options)

    def _run(self, *arguments: str) -> None:
        environment = {**isolated(network.environment(os.environ)), "UV_PYTHON_DOWNLOADS": "never"}
        command = [str(self.program), "--project", "/", *arguments]
        if follow(command, environment, "installing", self.place, terminal=True):
            raise InstallError(
                "uv could not install the tools, it says above why",
                "is the network there? UV_DEFAULT_INDEX names a mirror; the next call begins again",
            )


@contextmanager
def in_place(place: Place) -> Iterator[None]:
    """The working directory as .venv. What was there is removed in the end; where the block fails, it comes back."""
    old = set_aside(place)
    (place.work / "venv").rename(place.venv)
    try:
        yield
    except BaseException:
        if _is_here(place.venv):
            place.venv.rename(place.work / "failed")
        if old and not os.path.lexists(place.venv):
            old.rename(place.venv)
        raise


def set_aside(place: Place) -> Path | None:
    """Move what is at .venv away: one that ./drydockw made into our folder, another one beside it, where it is kept."""
    if not os.path.lexists(place.venv):
        return None
    ours = (place.venv / _MARK).exists() or any(place.venv.glob("installed-*.txt"))
    kept = (place.root / f".venv-before{number or ''}" for number in range(1000))
    old = place.work / "old" if ours else next(path for path in kept if not os.path.lexists(path))
    if not ours:
        say(f"note: .venv was not made by ./drydockw; it is now {old.name}")
    place.venv.rename(old)
    return old


def editable(place: Place) -> Path:
    """The wheel that makes Drydock itself importable (PEP 660), by hatchling from .venv. Raises InstallError."""
    command = [str(place.venv / "bin/python"), "-I", "-B", "-c", _EDITABLE, str(place.work)]
    done = subprocess.run(command, cwd=place.root, capture_output=True, text=True, check=False, pass_fds=[place.lock])
    wheels = sorted(place.work.glob("drydock_env-*.whl"))
    if done.returncode or not wheels:
        check(place)
        raise InstallError(f"Drydock itself cannot be installed: {done.stderr.strip()}", "the next call begins again")
    return wheels[0]


def check(place: Place) -> None:
    """Whether .venv is still the folder that we made, and a virtual environment. Raises InstallError."""
    python = place.venv / "bin/python"
    if not _is_here(place.venv) or subprocess.run([python, "-I", "-B", "-c", _IS_VENV], check=False).returncode:
        raise InstallError(".venv was changed while the tools were installed", "the next call begins again")


def _is_here(folder: Path) -> bool:
    """Whether a folder is the working directory."""
    try:
        return os.path.samestat(folder.lstat(), Path().stat())
    except OSError:
        return False


def follow(command: Sequence[str], env: Mapping[str, str], what: str, place: Place, *, terminal: bool) -> int:
    """Run a command and return its status. With `terminal` it shows its own progress where there is one; else its lines
    are passed on as they come, and where none comes for a while, we say `what` goes on.
    """
    if terminal and sys.stderr.isatty():
        with _running(command, env, place, stdout=2) as process:
            return process.wait()
    with _running(command, env, place, stdout=subprocess.PIPE) as process:
        if process.stdout:
            _pass_on(process.stdout.fileno(), what)
        return process.wait()


@contextmanager
def _running(
    command: Sequence[str], env: Mapping[str, str], place: Place, stdout: int
) -> Iterator[subprocess.Popen[bytes]]:
    stderr = subprocess.STDOUT if stdout == subprocess.PIPE else None
    with subprocess.Popen(
        command, env=env, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, pass_fds=[place.lock]
    ) as process:
        try:
            yield process
        except BaseException:
            process.terminate()
            raise


def _pass_on(pipe: int, what: str) -> None:
    """Print the lines that come through a pipe until it is closed, without uv's list of packages."""
    begin = spoken = time.monotonic()
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, spoken + _QUIET - time.monotonic())):
                spoken = time.monotonic()
                say(f"{what}: {spoken - begin:.0f} s")
                continue
            chunk = os.read(pipe, 65536)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in [*lines, rest] if not chunk else lines:
                if line and not _UNSAID.match(line):
                    sys.stderr.buffer.write(line + b"\n")
                    sys.stderr.flush()
                    spoken = time.monotonic()
            if not chunk:
                return


if __name__ == "__main__":
    sys.exit(main())
