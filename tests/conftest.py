"""Fixtures: a sandbox for fast tests, and for the slow ones the environment `cpu`, built by its own script."""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

from builder.files import remove_tree
from tests.support import Index, Sandbox, kept, python_3_11, warm
from tests.support.base import FOLDER, read_base
from tests.support.belongings import Belongings
from tests.support.original import Original
from tests.support.packages import installed

# Python looks for garbage often while thousands of objects are made that stay: a sixth of the time to find the tests.
gc.set_threshold(50_000)

# Programs that run in the environments that the tests build.
collect_ignore = ["programs"]

ROOT = Path(__file__).resolve().parent.parent

# A busy machine is no bug; and what CI finds, the next run of CI finds again. Who develops tries a few examples at each
# run, others each time; HYPOTHESIS_PROFILE=ci tries as many as CI.
settings.register_profile("dev", deadline=None, max_examples=10)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))

# Where the fast tests write: they make and delete small files by the hundred thousand, which in memory costs a third
# less of the kernel's time. What the slow ones build is gigabytes, and is linked from caches on a disk.
MEMORY = Path("/dev/shm")

# What takes a minute and more: how the names of these tests begin.
LONGEST = (
    "tests/shipped/test_arm64.py::",
    "tests/shipped/test_docs.py::test_a_reader_who_does_what_a_page_says_sees_what_it_says",
    "tests/check/test_reproduce.py::test_the_profiles_of_this_machine_are_reproducible",
    "tests/shipped/test_starters.py::test_the_pins_of_the_starters_train_and_resume",
    "tests/build/test_faults.py::test_after_a_fault_at_any_step_of_the_script_the_next_build_succeeds",
    "tests/author/test_patching.py::test_the_patches_of_accelerate_are_needless_from_the_releases_that_repaired_it",
    "tests/check/test_bisect.py::test_the_seeds_own_faults_are_found",
    "tests/run/test_slurm.py::test_after_a_plug_is_pulled_it_goes_on_from_the_newest_checkpoint",
    "tests/shipped/test_site.py::",
    "tests/build/test_faults.py::test_a_storm_of_builds_collections_rollbacks_and_kills_harms_nothing",
    "tests/build/test_faults.py::test_after_a_fault_at_any_step_of_the_program_the_next_build_succeeds",
)

_CHANGED = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """What one run has shown, another one need not show again: `.ci/run` has two, on two Pythons."""
    group = parser.getgroup("drydock")
    group.addoption("--write-passed", type=Path, metavar="FILE", help="write the names of the tests that pass to FILE")
    group.addoption("--leave-out", type=Path, metavar="FILE", help="leave out the tests named in FILE, if it is there")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what `--leave-out` names, and begin with what takes longest."""
    listed: Path | None = config.getoption("--leave-out")
    if listed is not None and listed.is_file():
        known = set(listed.read_text().splitlines())
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in known])
        items[:] = [item for item in items if item.nodeid not in known]
    if hasattr(config, "workerinput"):
        order = longest_first([item.nodeid for item in items], config.workerinput["workercount"])
        by_name = {item.nodeid: item for item in items}
        items[:] = [by_name[name] for name in order]


def longest_first(names: Sequence[str], workers: int) -> list[str]:
    """The names of tests in an order in which each worker begins with some of the `LONGEST`.

    xdist cuts the order into equal parts, and a worker that has nothing left takes from the ends of the others
    (`--dist worksteal`): one long test at an end would leave the other workers without work.

    >>> longest_first(["a", "b", "c", LONGEST[0], LONGEST[1], "d"], 2) == [LONGEST[0], "a", "b", LONGEST[1], "c", "d"]
    True
    """
    heads: list[list[str]] = [[] for _ in range(workers)]
    for number, long in enumerate(LONGEST):
        heads[number % workers] += [name for name in names if name.startswith(long)]
    rest = [name for name in names if not name.startswith(LONGEST)]
    order: list[str] = []
    for number, head in enumerate(heads):
        room = max(0, (len(names) - len(order)) // (workers - number) - len(head))
        order += [*head, *rest[:room]]
        del rest[:room]
    return order + rest


def pytest_collection_finish() -> None:
    """Nothing that is there before the first test is garbage later."""
    gc.collect()
    gc.freeze()


def has_room(memory: Path) -> bool:
    """Whether the fast tests may write into this folder in memory, and start programs there."""
    if not memory.is_dir():
        return False
    room = os.statvfs(memory)
    free = min(room.f_bavail * room.f_frsize, psutil.virtual_memory().available // 2)
    return not room.f_flag & os.ST_NOEXEC and free > 2 * 2**30 and os.access(memory, os.W_OK | os.X_OK)


class _Passed:
    """Keeps the names of the tests that pass: neither of those that are skipped, nor where a fixture fails."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._called: set[str] = set()
        self._spoilt: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self._spoilt.add(report.nodeid)
        elif report.when == "call":
            self._called.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        self._file.write_text("".join(f"{name}\n" for name in sorted(self._called - self._spoilt)))


def pytest_configure(config: pytest.Config) -> None:
    """Name the folder of the Python that all tests build on; the first to need it makes it."""
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            # By `&` in a script, as in .ci/run, or by nohup: what the tests start would ignore it too.
            signal.signal(number, usual)
    if not hasattr(config, "workerinput"):
        fast = "not slow" in config.option.markexpr
        if fast and config.option.basetemp is None and "TMPDIR" not in os.environ and has_room(MEMORY):
            os.environ["TMPDIR"] = str(MEMORY)
            tempfile.tempdir = None  # it is asked for again
        os.environ[FOLDER] = tempfile.mkdtemp(prefix="drydock-tests-")
        Path(os.environ[FOLDER]).chmod(0o755)
        passed: Path | None = config.getoption("--write-passed")
        if passed is not None:
            config.pluginmanager.register(_Passed(passed.absolute()))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where a test has changed that Python, none has passed."""
    folder = Path(os.environ[FOLDER])
    if not hasattr(session.config, "workerinput") and (folder / "files.json").exists():
        session.config.stash[_CHANGED] = read_base(folder).changes()
        if session.config.stash[_CHANGED]:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was changed."""
    if changed := config.stash.get(_CHANGED, []):
        terminalreporter.section("a build has changed the Python that it was built on", red=True)
        for line in changed[:20]:
            terminalreporter.line(line)
        terminalreporter.line(f"{len(changed)} in all; to find which test does it, run the tests of one file at a time")


def pytest_unconfigure(config: pytest.Config) -> None:
    warm.stop()
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(FOLDER), ignore_errors=True)


@pytest.fixture(scope="session")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory where there is room, for thousands of small builds; else one on the disk."""
    if not has_room(MEMORY):
        yield tmp_path_factory.mktemp("memory")
        return
    folder = Path(tempfile.mkdtemp(prefix="drydock-tests-", dir=MEMORY))
    folder.chmod(0o755)
    yield folder
    remove_tree(folder)


@pytest.fixture
def tmp_path(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder for the test: in memory where it has a desk, which is small, and on the disk where it may have torch."""
    if "sandbox" not in request.fixturenames or tmp_path.is_relative_to(MEMORY):
        yield tmp_path
        return
    folder: Path = request.getfixturevalue("memory") / tmp_path.name
    folder.mkdir(0o700)
    yield folder
    remove_tree(folder)


@pytest.fixture
def sandbox(tmp_path: Path, uv_cache: Path) -> Iterator[Sandbox]:
    """A user's desk with a loopback index."""
    with desk(tmp_path, uv_cache) as made:
        yield made


@pytest.fixture(scope="session")
def users() -> list[Belongings]:
    """What users have, the one of the last test last. Two Pythons are 130 MB, and two seconds to copy."""
    return []


@pytest.fixture
def belongings(users: list[Belongings], memory: Path) -> Belongings:
    """What a user has: that of the test before, if nothing has changed it, as the next test would see no difference."""
    if not users or users[-1].changes():
        users.append(Belongings(Path(tempfile.mkdtemp(dir=memory)) / "user"))
    return users[-1]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site-packages folder with `anchor` 1.0 and `Other_Thing` 2.0 installed."""
    return installed(tmp_path)


@pytest.fixture
def locked(sandbox: Sandbox, small_lock: str) -> Sandbox:
    """A desk with the profile `small` and its lock."""
    sandbox.profile("small")
    sandbox.file("small.lock.toml", small_lock)
    return sandbox


@pytest.fixture(scope="session")
def small_lock(memory: Path, uv_cache: Path) -> str:
    """The lock of the minimal profile: the same on every desk, as the same wheels are on every index."""
    with desk(Path(tempfile.mkdtemp(dir=memory)), uv_cache) as made:
        path = made.profile("small").with_name("small.lock.toml")
        made.drydock("lock", "small").succeeded()
        return path.read_text()


@pytest.fixture
def built(built_desk: tuple[Sandbox, Original]) -> Sandbox:
    """A desk where `small` is locked and built. The tests of a worker share it, each as if it were the first."""
    desk, original = built_desk
    original.restore()
    return desk


@pytest.fixture(scope="session")
def built_desk(memory: Path, uv_cache: Path, small_lock: str) -> Iterator[tuple[Sandbox, Original]]:
    """The desk behind `built`."""
    with desk(Path(tempfile.mkdtemp(dir=memory)), uv_cache) as made:
        made.profile("small")
        made.file("small.lock.toml", small_lock)
        made.drydock("build", "small").succeeded()
        yield made, Original(made)


@contextmanager
def desk(root: Path, cache: Path) -> Iterator[Sandbox]:
    """A sandbox in the folder `root`, with its index running."""
    from uv import find_uv_bin

    folder = root / "wheels"
    folder.mkdir()
    with Index(folder) as index:
        yield Sandbox(root, index, find_uv_bin(), cache)


@pytest.fixture(scope="session")
def uv_cache(memory: Path) -> Path:
    """A cache of uv's for small wheels: empty at first, so that a test never meets another project's files."""
    folder = memory / "uv-cache"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this run share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def drydock_home(shared: Path) -> Iterator[Path]:
    """The DRYDOCK_HOME of the real environments; two workers may build one key at once, which must work.

    It has the bytecode of the runs before: half a minute of processor.
    """

    def make(folder: Path) -> None:
        folder.mkdir()
        kept.bring(folder / "bytecode")

    home = once(shared / "drydock", make)
    yield home
    kept.keep(home / "bytecode")


@pytest.fixture(scope="session")
def cpu_env(drydock_home: Path) -> Path:
    """The environment of the profile `cpu`, with its patches."""
    return build(drydock_home, "cpu")


@pytest.fixture(scope="session")
def swarm_env(drydock_home: Path) -> Path:
    """The environment of the profile `cpu-swarm`: all of rl-swarm's packages."""
    return build(drydock_home, "cpu-swarm")


@pytest.fixture(scope="session")
def unpatched_env(shared: Path, cpu_env: Path, drydock_home: Path) -> Path:
    """The very packages of `cpu`, without its patches, and with the bytecode of those of `cpu`."""
    from builder import uv
    from builder.project.catalogue import Catalogue
    from builder.project.install import install

    def make(folder: Path) -> None:
        plan = Catalogue([ROOT / "profiles"]).plan("cpu")
        install(plan, folder, uv.create_venv(folder, python_3_11()), None)
        code = (
            "import sys; sys.path[:0] = sys.argv[1:3]; from pathlib import Path; from compiled import link_bytecode; "
        )
        code += "link_bytecode(*map(Path, sys.argv[3:]))"
        places = [ROOT, ROOT / "tests/support", folder / "lib/python3.11/site-packages", drydock_home / "bytecode"]
        subprocess.run([folder / "bin/python", "-I", "-B", "-c", code, *places], check=True)

    assert cpu_env.is_dir()
    return once(shared / "unpatched", make)


@pytest.fixture(scope="session")
def compiled(drydock_home: Path, swarm_env: Path) -> Path:
    """Bytecode of torch and what is used with it, by the hash of its source."""
    assert swarm_env.is_dir()
    return drydock_home / "bytecode"


def once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return a folder that the first of a run's workers to ask for it lets `make` fill; it is for looking only.

    A fixture that takes long would be made by each worker that has one of its tests.
    """
    made = folder.with_name(f"{folder.name}.made")
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            make(folder)
            made.touch()
    return folder


def real_environment() -> dict[str, str]:
    """For a build of a built-in profile: this machine's settings, but for the Python that is built on."""
    python = python_3_11()
    path = f"{Path(python).parent}:{os.environ['PATH']}"
    return {**os.environ, "DRYDOCK_PROFILES": str(ROOT / "profiles"), "DRYDOCK_PYTHON": python, "PATH": path}


def build(home: Path, name: str) -> Path:
    """Build a built-in profile through the program, in the store of `home`."""
    done = subprocess.run(
        [sys.executable, "-m", "builder", "build", name],
        env={**real_environment(), "DRYDOCK_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())
