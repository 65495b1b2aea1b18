"""Nothing outside of the store is ever changed by a build, whatever becomes of its stage; and nobody builds on alone.

What a build stands on here are copies that a user could have (tests/support/belongings.py), with packages that no lock
names: an installer that is led astray shows.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from builder.embedded.examine import examine
from tests.check.test_reproduce import BACKEND, PYPROJECT
from tests.support import Sandbox, make_sdist, make_wheel
from tests.support.alive import Mark
from tests.support.base import OUTSIDERS
from tests.support.belongings import DEEDS, SITE, Belongings
from tests.support.homes import PROGRAM, Frozen, Home, furnish, is_at, require, script_of
from tests.support.machines import CONTAINER
from tests.support.steps import why_not
from tests.support.storms import (
    GROUP,
    Members,
    deleting_configurations,
    kill_and_remove,
    remove_store,
    why_no_members,
)
from tests.support.waiting import LONG, allowed, until

DRYDOCK = PROGRAM[:-2]

# What a build says whose stage was taken away, replaced or changed.
TAKEN = re.compile(r"error: .*\b(taken away|changed|replaced|removed|moved)\b")

needs_steps = pytest.mark.skipif((_reason := why_not()) is not None, reason=f"steps cannot be watched here: {_reason}")


@pytest.fixture
def desk(sandbox: Sandbox) -> Sandbox:
    return furnish(sandbox)


@pytest.fixture
def user(desk: Sandbox, belongings: Belongings) -> Belongings:
    """What the user of the desk has; the Python that is built on is theirs."""
    desk.environment["DRYDOCK_PYTHON"] = belongings.base.python
    return belongings


def check_sound(home: Home, user: Belongings) -> None:
    """One environment stands in the store, it is whole and its own, and the trainer runs in it."""
    (env,) = home.environments()
    assert not env.is_symlink()
    assert (env / SITE).resolve() == env.resolve() / SITE
    home.check_whole()
    code = (
        "import importlib.util, sys; print(sys.prefix, sys.base_prefix, importlib.util.find_spec('outsider') is None)"
    )
    told = home.desk.run([str(env / "bin/python"), "-c", code]).succeeded()
    assert told.stdout == f"{env} {user.base.prefix} True\n"
    trained = home.desk.run([*script_of(home.desk)[:2]], env=home.environment).succeeded()
    assert trained.stdout == "trained with 1.0\n"


def check_next(home: Home, user: Belongings) -> None:
    """The next build succeeds, a collection takes what is left, and the user's things are as they were all the time."""
    home.build().succeeded()
    assert user.changes() == []
    check_sound(home, user)
    for path in home.path.rglob("*"):
        os.utime(path, (0, 0), follow_symlinks=False)
    home.desk.drydock("store", "gc", env=home.environment).succeeded()
    assert user.changes() == []


# --- what others do to the stage of a build ------------------------------------------------------------------------

IN_STAGE = ("in the stage", "before the packages", "before the bytecode", "before the rename")


@needs_steps
@pytest.mark.slow
@pytest.mark.parametrize("place", IN_STAGE)
@pytest.mark.parametrize("deed", DEEDS)
def test_whatever_is_done_to_a_stage_nothing_of_the_users_is_changed(
    desk: Sandbox, user: Belongings, deed: str, place: str
) -> None:
    home = Home(desk, script_of(desk), "home")
    frozen = Frozen(home, is_at(place))
    (stage,) = home.store().glob(".stage-*")
    DEEDS[deed](stage, user)
    result = frozen.thaw()
    assert user.changes() == []
    if result.code:
        result.failed(1, "error: ")
        assert TAKEN.search(result.stderr), result.stderr
        assert home.environments() == []
    elif place == "before the rename" and examine(home.environments())[0].problems:
        remove_store(home.store())  # too late for the build to see it, but `drydock verify` does
    else:
        check_sound(home, user)
    check_next(home, user)


@needs_steps
@pytest.mark.slow
@pytest.mark.parametrize("deed", ["become_venv", "become_base"])
def test_a_stage_is_never_made_through_a_link_that_is_there(desk: Sandbox, user: Belongings, deed: str) -> None:
    home = Home(desk, script_of(desk), "home")
    frozen = Frozen(home, is_at("before the stage"))
    DEEDS[deed](home.path / frozen.step.paths[0], user)
    result = frozen.thaw()
    assert user.changes() == []
    assert "Traceback" not in result.stderr
    if result.code == 0:
        check_sound(home, user)
    check_next(home, user)


@needs_steps
@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "deed"),
    [
        *(("after the rename", deed) for deed in DEEDS if deed.startswith(("become_", "share_", "lose_bin"))),
        *((place, "become_venv") for place in ("before the generation", "in the generation", "before it is current")),
    ],
)
def test_whatever_is_done_to_what_was_just_built_nothing_of_the_users_is_changed(
    desk: Sandbox, user: Belongings, place: str, deed: str
) -> None:
    home = Home(desk, PROGRAM, "home")
    frozen = Frozen(home, is_at(place))
    (env,) = home.environments()
    env.chmod(0o755)
    DEEDS[deed](env, user)
    result = frozen.thaw()
    assert user.changes() == []
    assert "Traceback" not in result.stderr
    again = home.build()
    assert user.changes() == []
    assert "Traceback" not in again.stderr
    env.unlink() if env.is_symlink() else remove_store(home.store())
    check_next(home, user)


# --- the four ways in which it happened ----------------------------------------------------------------------------


@pytest.mark.slow
def test_kills_and_removals_at_any_moment_harm_nothing(desk: Sandbox, user: Belongings) -> None:
    home = Home(desk, PROGRAM, "home")
    began = time.monotonic()
    home.build().succeeded()
    took = time.monotonic() - began
    remove_store(home.store())
    chance = random.Random(0)
    for part in range(4, 16):
        again, left = kill_and_remove(home, chance, after=took * part / 16, pause=0)
        assert user.changes() == []
        assert left == {}
        again.succeeded()
        check_sound(home, user)
        remove_store(home.store())


@pytest.fixture
def members(desk: Sandbox) -> Iterator[Members]:
    """Two users of one group, who share a store."""
    if (reason := why_no_members()) is not None:
        pytest.skip(f"nobody can be another user here: {reason}")
    with Members(desk, Path(script_of(desk)[1])) as made:
        yield made


@needs_steps
@pytest.mark.slow
@pytest.mark.parametrize("place", IN_STAGE)
def test_a_second_user_takes_nothing_from_the_first(members: Members, place: str) -> None:
    first, second = members.members
    home = Home(members.desk, first.command_as_root(), "unused")
    home.path, home.environment = members.home, first.environment
    frozen = Frozen(home, is_at(place))
    other = second.start()
    with suppress(subprocess.TimeoutExpired):  # it waits for the first, who waits for us
        other.wait(3)
    frozen.thaw().succeeded()
    _, stderr = other.communicate(timeout=LONG)
    assert other.returncode == 0, stderr.decode()
    assert members.changes() == []
    members.check_sound()


@pytest.mark.slow
def test_two_users_who_build_one_key_at_once_both_succeed(members: Members) -> None:
    for _ in range(6):
        building = [one.start() for one in members.members]
        told = [one.communicate(timeout=LONG)[1].decode() for one in building]
        assert members.changes() == []
        assert [one.returncode for one in building] == [0, 0], "\n".join(told)
        assert {path.stat().st_gid for path in members.store().iterdir()} == {GROUP}
        members.check_sound()
        remove_store(members.store())


@needs_steps
@pytest.mark.slow
@pytest.mark.parametrize("place", IN_STAGE)
def test_a_collection_in_another_container_takes_nothing_from_a_build(
    desk: Sandbox, user: Belongings, place: str
) -> None:
    """There the processes of the build have no number."""
    tried = subprocess.run([*CONTAINER, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no process namespace here: {tried.stderr.strip()}")
    home = Home(desk, script_of(desk), "home")
    frozen = Frozen(home, is_at(place))
    desk.run([*CONTAINER, *DRYDOCK, "store", "gc"], env=home.environment, timeout=30).succeeded()
    result = frozen.thaw()
    assert user.changes() == []
    result.succeeded()
    check_sound(home, user)


@pytest.mark.slow
def test_who_deletes_the_configuration_as_soon_as_it_is_there_harms_nothing(desk: Sandbox, user: Belongings) -> None:
    home = Home(desk, script_of(desk), "home")
    with deleting_configurations(home.store()):
        for _ in range(5):
            result = home.build()
            assert user.changes() == []
            if result.code:
                assert TAKEN.search(result.failed(1).stderr), result.stderr
            else:
                check_sound(home, user)
                remove_store(home.store())
    check_next(home, user)


# --- nobody builds on alone ----------------------------------------------------------------------------------------

# A module that takes seconds to compile, and what makes the first build of a source distribution take a minute.
GIANT = "".join(f"def f{n}(a, b=[{n}, ()]):\n    return {{a: b, {n}: a + b}}\n" for n in range(90_000))
LINGERS = """\
import os, time
reached = os.environ.get("TESTS_REACHED")
if reached and not os.path.exists(reached):
    open(reached, "w").close()
    time.sleep(60)
"""


class Moment:
    """A desk whose build of `small` lingers somewhere, and how to know that it does."""

    def __init__(self, desk: Sandbox) -> None:
        self.desk = desk
        self.held = threading.Event()
        self.open = threading.Event()
        self.environment = {"UV_CACHE_DIR": str(desk.root / "cold-cache")}

    def reached(self) -> bool:
        return self.held.is_set()

    def hold(self, name: str) -> None:
        """Give a file of the index only when all is over."""

        def tamper(file: str, content: bytes) -> bytes:
            if file.startswith(name):
                self.held.set()
                self.open.wait(LONG)
            return content

        self.desk.index.tamper = tamper


def fetching(desk: Sandbox) -> Moment:
    """While uv is fetched, where there is none."""
    moment = Moment(desk)
    moment.hold("uv-")
    programs = desk.root / "programs"
    programs.mkdir()
    pip = programs / "python3"
    pip.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    pip.chmod(0o755)
    moment.environment |= {
        "DRYDOCK_UV": "",
        "PATH": f"{programs}:/usr/bin:/bin",
        "PIP_INDEX_URL": desk.index.url,
        "PIP_NO_CACHE_DIR": "1",
    }
    return moment


def installing(desk: Sandbox) -> Moment:
    """While uv installs, from an index that is slow."""
    moment = Moment(desk)
    moment.hold("anchor-")
    return moment


def compiling(desk: Sandbox) -> Moment:
    """While bytecode is compiled."""
    make_wheel(desk.wheels, "giant", "1.0", files={"giant/__init__.py": GIANT})
    require(desk, '["anchor", "giant"]')
    moment = Moment(desk)

    def reached() -> bool:  # it is there, wherever a build unpacks a wheel
        return any(folder.endswith("/giant") and "__init__.py" in files for folder, _, files in os.walk(desk.home))

    moment.reached = reached  # type: ignore[method-assign]
    return moment


def building(desk: Sandbox) -> Moment:
    """While a source distribution is built."""
    make_sdist(desk.wheels, "odd", "1.0", {"pyproject.toml": PYPROJECT, "backend.py": f"{LINGERS}\n{BACKEND}"})
    require(desk, '["anchor", "odd"]\n[packages.build]\nodd = []')
    moment = Moment(desk)
    moment.environment["TESTS_REACHED"] = str(desk.root / "reached")
    moment.reached = (desk.root / "reached").exists  # type: ignore[method-assign]
    return moment


def by_build(_desk: Sandbox) -> list[str]:
    return PROGRAM


def by_run(_desk: Sandbox) -> list[str]:
    return [*DRYDOCK, "run", "small"]


def by_script(desk: Sandbox) -> list[str]:
    return script_of(desk)[:2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "when"),
    [
        (by_script, fetching),  # the program brings its own uv
        *((way, when) for way in (by_build, by_run, by_script) for when in (installing, compiling, building)),
    ],
)
def test_when_it_is_killed_all_that_it_started_ends_within_two_seconds(
    desk: Sandbox, user: Belongings, way: Callable[[Sandbox], list[str]], when: Callable[[Sandbox], Moment]
) -> None:
    moment = when(desk)
    mark = Mark()
    environment = {**desk.environment, **moment.environment, **mark.environment}
    with (desk.root / "said").open("w") as said:
        process = subprocess.Popen(way(desk), env=environment, cwd=desk.work, stdout=said, stderr=said)
    try:
        assert until(lambda: moment.reached() or process.poll() is not None)
        assert process.poll() is None, (desk.root / "said").read_text()
        time.sleep(0.3)
        assert len(mark.alive()) > 1, "it works alone: the moment is over"
        process.kill()
        process.wait()
        left = mark.gone(allowed(2))
        assert left == {}, f"these go on: {left}"
    finally:
        for pid in mark.alive():
            os.kill(pid, signal.SIGKILL)
        moment.open.set()
    assert user.changes() == []
    assert [name for name in desk.environments() if not name.startswith(".")] == []
    desk.index.tamper = lambda _name, content: content
    desk.run(way(desk)).succeeded()
    assert user.changes() == []


# --- the guard itself ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_guard_sees_an_uninstall_an_edit_and_a_new_file(desk: Sandbox, tmp_path: Path) -> None:
    user = Belongings(tmp_path / "user")
    assert [name for name, _ in OUTSIDERS if not (user.base.site / name.replace("-", "_")).is_dir()] == []
    assert user.changes() == []
    subprocess.run([user.base.python, "-c", "import outsider, email.mime.text"], check=True)
    assert user.changes() == [], "bytecode that a Python writes is no change"
    module = user.base.site / "outsider/__init__.py"
    before = module.stat()
    module.write_text("version = '1.1'\n")
    os.utime(module, ns=(before.st_atime_ns, before.st_mtime_ns))
    (user.base.site / "other_outsider/__init__.py").unlink()
    (user.venv / SITE / "new.py").touch()
    user.project.chmod(0o700)
    changed = [line.removeprefix(f"{user.folder}/") for line in user.changes()]
    site = user.base.site.relative_to(user.folder)
    assert changed == [
        f"{site}/other_outsider/__init__.py is gone",
        f"{site}/outsider/__init__.py was changed",
        "project was changed",
        f"venv/{SITE}/new.py is new",
    ]
    shutil.rmtree(user.folder)
    assert user.changes() == [f"{user.folder} is gone"]
