"""Faults at every step of a build: power cuts, dead processes, failing writes, full disks; and races.

A step is a change to DRYDOCK_HOME that some process of a build makes: see tests/support/steps.py. Each is met once (in
CI every third one), in a home of its own, and then the next build has to succeed and leave what one without a fault
leaves.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from builder.embedded.claim import NOTE
from builder.embedded.stage import PREFIX
from tests.support import Result, Sandbox
from tests.support.homes import PLACES, PROGRAM, Frozen, Home, furnish, is_at, once, script_of
from tests.support.mounts import remount, tmpfs
from tests.support.steps import GO, NEVER, Step, Watched, some, why_not
from tests.support.storms import remove_store
from tests.support.waiting import LONG

# Seconds each: all of them are in `just test-all`.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="session", autouse=True)
def _possible() -> None:
    reason = why_not()
    if reason is not None:
        pytest.skip(f"system calls cannot be handed over here: {reason}")


@pytest.fixture
def desk(sandbox: Sandbox) -> Sandbox:
    return furnish(sandbox)


Fault = Callable[[Home, str], None]


def sweep(desk: Sandbox, command: list[str], steps: Iterable[str], meet: Fault) -> None:
    """Let each step meet its fault, and then the next build succeed; tells all steps where that is not so."""
    clean = Home(desk, command, "clean")
    clean.build().succeeded()
    files = clean.files()

    def one(numbered: tuple[int, str]) -> str | None:
        number, step = numbered
        home = Home(desk, command, str(number))
        try:
            meet(home, step)
            home.check_whole()
            home.check_next(files)
        except AssertionError as error:
            return f"--- at the step {step}\n{error}"
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        problems = [problem for problem in pool.map(one, enumerate(some(steps))) if problem]
    assert not problems, f"{len(problems)} steps\n" + "\n".join(problems)


def sweep_power_cuts(desk: Sandbox, command: list[str], steps: Iterable[str]) -> None:
    """As `sweep` with `power_cut`, but one build stands for many: before each step it waits, and the home is copied.

    That is what is left where all processes end there. That they do end is what `power_cut` itself shows.
    """
    clean = Home(desk, command, "clean")
    clean.build().succeeded()
    files = clean.files()
    wanted, cores = some(steps), os.cpu_count() or 1

    def share(number: int) -> list[str]:
        home = Home(desk, command, f"cut-{number}")
        problems = []
        copies = before_each(home, wanted[number::cores])
        for step, copy in copies.items():
            remove_store(home.path)
            if copy.exists():
                copy.rename(home.path)
            try:
                home.check_whole()
                home.check_next(files)
            except AssertionError as error:
                problems.append(f"--- at the step {step}\n{error}")
        return problems

    with ThreadPoolExecutor(cores) as pool:
        problems = [problem for found in pool.map(share, range(cores)) for problem in found]
    assert not problems, f"{len(problems)} steps\n" + "\n".join(problems)


def before_each(home: Home, steps: list[str]) -> dict[str, Path]:
    """Build, and copy the home before each of the steps is taken for the first time; there is no copy of no home."""
    copies: dict[str, Path] = {}

    def keep(_watched: Watched, step: Step) -> int:
        name = str(step)
        if name in steps and name not in copies:
            copies[name] = home.path.with_name(f"{home.path.name}-{len(copies)}")
            if home.path.exists():
                subprocess.run(["cp", "-a", str(home.path), str(copies[name])], check=True)
        return GO

    code, _, stderr = home.watch(keep).ended()
    assert code == 0, stderr
    assert set(copies) == set(steps), "the build never came to some"
    return copies


# --- faults --------------------------------------------------------------------------------------------------------


def power_cut(home: Home, step: str) -> None:
    """Every process of the build ends at once, before the step is done."""

    def cut(watched: Watched, _step: Step) -> int:
        watched.kill()
        return NEVER

    decide, met = once(step, cut)
    home.watch(decide).ended()
    assert met, "the build never came to it"


def one_dies(home: Home, step: str) -> None:
    """Only the process that takes the step dies: for want of memory, say."""

    def die(_watched: Watched, here: Step) -> int:
        os.kill(here.pid, signal.SIGKILL)
        return NEVER

    decide, met = once(step, die)
    result = Result(*home.watch(decide).ended())
    assert met, "the build never came to it"
    if result.code == -signal.SIGKILL:
        return  # it was the one that tells
    if result.code:
        check_words(result)
    assert not home.unfinished(), "the stage was left"


def fails(home: Home, step: str) -> None:
    """The step fails once."""
    number = (errno.ENOSPC, errno.EIO, errno.EDQUOT)[len(step) % 3]
    decide, met = once(step, lambda _watched, _step: number)
    result = Result(*home.watch(decide).ended())
    assert met, "the build never came to it"
    if result.code:
        check_words(result, number)


GROWS = ("open", "openat", "write", "mkdir", "mkdirat", "symlink", "symlinkat", "link", "linkat", "copy_file_range")


def disk_full(home: Home, step: str) -> None:
    """From this step on nothing more can be written."""
    full = False

    def decide(_watched: Watched, here: Step) -> int:
        nonlocal full
        full = full or str(here) == step
        return errno.ENOSPC if full and here.call in GROWS else GO

    result = Result(*home.watch(decide).ended())
    assert full, "the build never came to it"
    if result.code:
        check_words(result, errno.ENOSPC)
        assert not home.unfinished(), "the stage was left"


def check_words(result: Result, number: int = 0) -> None:
    """It failed, and said so, and of what; only uv does not always know."""
    result.failed(1, "error: ")
    assert "error: stdout" not in result.stderr
    known = "is not whole: was the disk full for a moment?" in result.stderr
    assert not number or known or os.strerror(number) in result.stderr, result.stderr


# --- the sweeps ----------------------------------------------------------------------------------------------------


def program(step: str) -> str:
    return step.partition(": ")[0]


def call(step: str) -> str:
    return " ".join(step.split(" -> ")[0].split(" ")[:-1])


def last_of_each(kind: Callable[[str], str], steps: Iterable[str]) -> list[str]:
    return list({kind(step): step for step in steps}.values())


@pytest.mark.parametrize("fault", [power_cut, one_dies, fails, disk_full])
def test_after_a_fault_in_any_program_of_a_build_the_next_succeeds(desk: Sandbox, fault: Fault) -> None:
    command = script_of(desk)
    steps = last_of_each(program, Home(desk, command, "first").steps())
    assert {program(step) for step in steps} >= {"sh", "uv pip", "embedded build"}
    sweep(desk, command, steps, fault)


@pytest.mark.parametrize(
    "step",
    [
        "uv venv: write tmp/drydock-PID/frame/pyvenv.cfg",
        "uv pip: write wheels/cpython-311/.new-RANDOM/lib/python3.11/site-packages/anchor-1.0.dist-info/RECORD",
    ],
)
def test_a_file_whose_failed_write_uv_does_not_notice_is_no_environment(desk: Sandbox, step: str) -> None:
    home = Home(desk, script_of(desk), "home")
    home.environment["TMPDIR"] = str(home.path / "tmp")
    (home.path / "tmp").mkdir(parents=True)
    decide, met = once(step, lambda *_: errno.ENOSPC)
    Result(*home.watch(decide).ended()).failed(1, f"{Path(step).name} is not whole: was the disk full for a moment?")
    assert met
    assert home.environments() == home.unfinished() == list((home.path / "tmp").iterdir()) == []


def test_where_there_are_no_hard_links_bytecode_is_copied_and_that_is_said(desk: Sandbox) -> None:
    home = Home(desk, script_of(desk), "home")

    def decide(_watched: Watched, here: Step) -> int:
        return errno.EPERM if here.call in ("link", "linkat") else GO

    result = Result(*home.watch(decide).ended()).succeeded()
    assert "bytecode: 1 copied, as this file system would not link them" in result.stderr
    [env] = home.environments()
    [cached] = env.rglob("anchor/__pycache__/*.pyc")
    assert cached.stat().st_nlink == 1
    home.check_whole()


def test_a_script_that_cannot_hold_its_root_open_builds_all_the_same(desk: Sandbox) -> None:
    """A redirection of `exec` that fails ends some shells."""
    home = Home(desk, script_of(desk), "home")
    met: list[Step] = []

    def decide(_watched: Watched, here: Step) -> int:
        if here.call != "openat" or met or not here.paths[0].startswith("gcroots/running/"):
            return GO
        met.append(here)
        return errno.ENFILE

    Result(*home.watch(decide).ended()).succeeded()
    assert met
    home.check_whole()


@pytest.mark.parametrize("fault", [power_cut, fails])
def test_after_a_fault_at_any_step_of_the_script_the_next_build_succeeds(desk: Sandbox, fault: Fault) -> None:
    command = script_of(desk)
    steps = Home(desk, command, "first").steps()
    assert len(steps) > 80
    if fault is power_cut:
        sweep_power_cuts(desk, command, steps)
    else:
        sweep(desk, command, steps, fault)


@pytest.mark.parametrize("fault", [one_dies, disk_full])
def test_after_a_fault_at_any_call_of_the_script_the_next_build_succeeds(desk: Sandbox, fault: Fault) -> None:
    command = script_of(desk)
    sweep(desk, command, last_of_each(call, Home(desk, command, "first").steps()), fault)


def test_after_a_full_disk_at_any_call_of_the_program_the_next_build_succeeds(desk: Sandbox) -> None:
    script_of(desk)
    steps = [step for step in Home(desk, PROGRAM, "first").steps() if program(step) == "drydock"]
    sweep(desk, PROGRAM, last_of_each(call, steps), disk_full)


@pytest.mark.parametrize("fault", [power_cut, fails])
def test_after_a_fault_at_any_step_of_the_program_the_next_build_succeeds(desk: Sandbox, fault: Fault) -> None:
    script_of(desk)
    steps = [step for step in Home(desk, PROGRAM, "first").steps() if program(step) == "drydock"]
    assert any("small-N-link" in step for step in steps)
    if fault is power_cut:
        sweep_power_cuts(desk, PROGRAM, steps)
    else:  # what evaluates a profile writes twice in the same way
        steps = sorted({*last_of_each(call, steps), *(step for step in steps if "profiles" in step)})
        sweep(desk, PROGRAM, steps, fault)


# --- real full disks -----------------------------------------------------------------------------------------------


def test_on_a_disk_of_any_size_a_build_succeeds_or_leaves_nothing(desk: Sandbox) -> None:
    ended = []
    with tmpfs(desk.root / "disk", "8k") as disk:
        home = Home(desk, PROGRAM, "full")
        home.path = disk / "drydock"
        home.environment["DRYDOCK_HOME"] = str(home.path)
        for pages in [*range(2, 64, 4), *range(64, 160, 16)]:
            remount(disk, f"size={pages * 4}k")
            result = home.build()
            home.check_whole()
            assert not home.unfinished(), f"at {pages * 4} KiB: {home.unfinished()}"
            ended.append(result.code)
            if result.code:
                check_words(result, errno.ENOSPC)
        remount(disk, "size=16m")
        home.build().succeeded()
    assert ended[0] == 1
    assert ended[-1] == 0
    assert ended == sorted(ended, reverse=True), "where there is room for a build, there is in a larger disk"


# --- races ---------------------------------------------------------------------------------------------------------


def grow_old(paths: Iterable[Path]) -> None:
    for path in paths:
        os.utime(path, (0, 0), follow_symlinks=False)


def build_older(home: Home) -> None:
    """Give `small` a generation of another key, to go back to."""
    profile = home.desk.work / "profiles/small.toml"
    text = profile.read_text()
    profile.write_text(text.replace('glibc = "2.17"', 'glibc = "2.16"'))
    home.desk.drydock("lock", "small").succeeded()
    home.build().succeeded()
    profile.write_text(text)
    home.desk.drydock("lock", "small").succeeded()


@pytest.mark.parametrize("place", PLACES)
def test_what_others_do_meanwhile_takes_nothing_from_a_build(desk: Sandbox, place: str) -> None:
    home = Home(desk, PROGRAM, "home")
    build_older(home)
    frozen = Frozen(home, is_at(place))
    others = [
        desk.start(*arguments, env=home.environment)
        for arguments in (
            ["store", "gc"],
            ["build", "small"],
            ["generation", "rollback", "small"],
            ["verify", "small"],
            ["run", "small"],
        )
    ]
    patience = time.monotonic() + 3  # those that wait for the lock that the frozen build holds go on with it
    while time.monotonic() < patience and any(other.poll() is None for other in others):
        time.sleep(0.05)
    result = frozen.thaw()
    told = [(other.communicate(timeout=LONG), other.returncode) for other in others]
    result.succeeded()
    for (_, stderr), code in told:
        assert b"Traceback" not in stderr, stderr.decode()
        # Nothing to go back to, another collection: words, and a status that says so.
        assert code in (0, 1, 2), stderr.decode()
    assert told[1][1] == 0, told[1]
    home.check_whole()
    home.build().succeeded()
    assert not home.unfinished()
    desk.drydock("store", "gc", env=home.environment).succeeded()
    home.check_whole()
    desk.drydock("verify", "small", env=home.environment).succeeded()
    assert desk.drydock("run", "small", env=home.environment).succeeded().stdout == "trained with 1.0\n"


# --- collections ---------------------------------------------------------------------------------------------------

COLLECTION = [*PROGRAM[:-2], "store", "gc"]


def littered(desk: Sandbox, name: str) -> Home:
    """A home with an environment that nothing needs, and the stage of a dead build; its command collects."""
    home = Home(desk, COLLECTION, name)
    home.path.mkdir(parents=True)
    # A script in the home is no root.
    script = shutil.copy(next(desk.root.glob("generated/small/run_*.sh")), home.path / "run.sh")
    desk.run(["sh", str(script), "--build-only"], env=home.environment).succeeded()
    (home.store() / f".stage-{'x' * 32}-{os.uname().nodename}-{2**22 + 1}/lib").mkdir(parents=True)
    return home


@pytest.mark.parametrize("fault", [power_cut, fails])
def test_after_a_fault_at_any_call_of_a_collection_the_next_succeeds(desk: Sandbox, fault: Fault) -> None:
    script_of(desk)
    steps = last_of_each(call, littered(desk, "first").steps())
    problems = []
    for number, step in enumerate(steps):
        home = littered(desk, str(number))
        try:
            fault(home, step)
            home.check_whole()
            home.build().succeeded()
            assert home.environments() == home.unfinished() == []
        except AssertionError as error:
            problems.append(f"--- at the step {step}\n{error}")
    assert len(steps) >= 8
    assert not problems, "\n".join(problems)


def test_a_stage_that_a_build_removes_while_it_is_collected_is_no_error(desk: Sandbox) -> None:
    script_of(desk)
    home = littered(desk, "home")
    frozen = Frozen(home, lambda step: str(step).startswith("drydock: rename store/.stage-"))
    (stage_left,) = home.store().glob(".stage-*")
    shutil.rmtree(stage_left)
    frozen.thaw().succeeded()
    assert home.environments() == home.unfinished() == []


def test_two_collections_may_delete_the_same_at_once(desk: Sandbox) -> None:
    script_of(desk)
    home = littered(desk, "home")
    frozen = Frozen(home, lambda step: str(step).startswith("drydock: fchmod store/.trash-"))
    home.build().succeeded()
    assert home.unfinished() == []
    frozen.thaw().succeeded()


# --- a storm -------------------------------------------------------------------------------------------------------


def test_a_storm_of_builds_collections_rollbacks_and_kills_harms_nothing(desk: Sandbox) -> None:
    home = Home(desk, PROGRAM, "home")
    text = (desk.work / "profiles/small.toml").read_text()
    for name, glibc in (("other", "2.17"), ("third", "2.18")):
        other = text.replace('name = "small"', f'name = "{name}"').replace('glibc = "2.17"', f'glibc = "{glibc}"')
        desk.profile(name, other)
    desk.drydock("lock", "other", "third").succeeded()
    build_older(home)
    home.build().succeeded()
    # A script in the home is no root: only those who run it need the environment, and each collection may take it.
    script = str(shutil.copy(desk.script("other"), home.path / "other.sh"))
    end = time.monotonic() + 15
    problems: list[str] = []
    ended: Counter[tuple[str, int]] = Counter()

    def command(arguments: str) -> list[str]:
        return ["sh", script] if arguments == "the script" else [*PROGRAM[:-2], *arguments.split()]

    def repeat(number: int, arguments: str, allowed: set[int], deadly: bool) -> None:
        chance = random.Random(number)
        while time.monotonic() < end:
            watched = Watched(command(arguments), home.path, lambda *_: GO, env=home.environment, cwd=desk.work)
            killed = deadly and chance.random() < 0.5
            if killed:
                time.sleep(chance.random())
                watched.kill()
            result = Result(*watched.ended())
            ended[arguments, result.code] += 1
            excused = result.code != 1 or "another collection is under way" in result.stderr
            if not killed and (result.code not in allowed or "Traceback" in result.stderr or not excused):
                problems.append(f"--- drydock {arguments}: exit status {result.code}\n{result.stderr}")

    storm = [
        ("build small", {0}, True),
        ("build small", {0}, False),
        ("build third", {0}, True),
        ("the script", {0}, False),
        ("the script", {0}, False),
        ("the script", {0}, True),
        ("store gc", {0, 1}, True),
        ("store gc", {0, 1}, False),
        ("generation rollback small", {0, 2}, True),  # 2: there is nothing to go back to
        ("generation switch small 1", {0}, False),
        ("generation delete third old", {0}, True),
        ("verify small", {0}, False),
        ("run small", {0}, False),
    ]
    threads = [threading.Thread(target=repeat, args=(number, *arguments)) for number, arguments in enumerate(storm)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(ended)
    assert not problems, f"{ended}\n" + "\n".join(problems)
    assert {arguments for arguments, code in ended if code >= 0} == {arguments for arguments, _, _ in storm}
    for name in ("small", "other", "third"):
        desk.drydock("build", name, env=home.environment).succeeded()
        desk.drydock("verify", name, env=home.environment).succeeded()
    # A stage whose builder was killed before it could say who it is may be another machine's: it stays for a while.
    stages = [path for path in home.unfinished() if path.name.startswith(PREFIX)]
    silent = [path for path in stages if not (path / NOTE).exists() or not (path / NOTE).stat().st_size]
    grow_old([*silent, *(path / NOTE for path in silent if (path / NOTE).exists())])
    desk.drydock("store", "gc", env=home.environment).succeeded()
    home.check_whole()
    assert not home.unfinished()
    # What a killed process had begun there goes with the first change after a minute: until then it may be at work.
    grow_old((home.path / "profiles").glob(".*.*"))
    desk.drydock("generation", "switch", "small", "1", env=home.environment).succeeded()
    assert [path.name for path in (home.path / "profiles").glob(".*")] == [".lock"]
