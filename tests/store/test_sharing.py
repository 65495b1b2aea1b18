"""Who is alive in a store that several users, containers and machines share, and what is somebody else's there."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from builder.embedded import claim
from builder.embedded.lifeline import SIGN
from builder.store import roots
from tests.support import Sandbox, machines, make_wheel
from tests.support.hub import Hub, Repo
from tests.support.machines import CONTAINER
from tests.support.members import GROUP, PYTHON, Member, NoMembersError, Pair, two_members
from tests.support.waiting import LONG, until

DAY = 86400
SLEEPER = "import anchor, time; print('up', flush=True); time.sleep(60)"


@pytest.fixture
def desk(locked: Sandbox) -> Sandbox:
    """A desk where `small` is built, and no generation needs it any more."""
    locked.drydock("build", "small").succeeded()
    forget(locked)
    return locked


def home(desk: Sandbox) -> Path:
    return desk.store.parent


def forget(desk: Sandbox) -> None:
    for path in (home(desk) / "profiles").glob("small*"):
        path.unlink()
    for path in (home(desk) / "gcroots/scripts").iterdir():
        path.unlink()


def age(path: Path, days: float) -> None:
    when = time.time() - days * DAY
    os.utime(path, (when, when), follow_symlinks=False)


@pytest.fixture
def other_processes() -> tuple[str, ...]:
    """The start of a command that sees no process of this machine but its own, as one in a container."""
    if os.geteuid() or subprocess.run([*CONTAINER, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a new process namespace needs root, and a kernel that allows it")
    return CONTAINER


@pytest.mark.slow
@pytest.mark.parametrize("inside", ["trainer", "collector"])
def test_a_trainer_is_a_root_also_for_those_who_do_not_see_it(
    desk: Sandbox, other_processes: tuple[str, ...], inside: str
) -> None:
    desk.trainer(SLEEPER)
    script = desk.script("small")
    command = [*(other_processes if inside == "trainer" else ()), "sh", str(script)]
    collect = [*(other_processes if inside == "collector" else ()), sys.executable, "-m", "builder", "store", "gc"]
    with subprocess.Popen(command, env=desk.environment, cwd=desk.work, stdout=subprocess.PIPE) as trainer:
        assert trainer.stdout is not None
        assert trainer.stdout.readline() == b"up\n"
        script.unlink()
        desk.run(collect).succeeded()
        (env,) = desk.environments()
        (mark,) = (home(desk) / "gcroots/running").iterdir()
        trainer.kill()
        trainer.wait()
    until(lambda: not roots._is_open(mark))
    desk.run(collect).succeeded()
    assert desk.environments() == [], env


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["running/{}.888888", "running/{}.elsewhere.0a0b.1", "running/{}." + os.uname().nodename.split(".")[0] + ".0a0b.1"],
)
def test_the_process_of_another_machine_or_start_is_a_root_until_its_lease_is_over(desk: Sandbox, name: str) -> None:
    (env,) = desk.environments()
    mark = home(desk) / "gcroots" / name.format(env)
    mark.touch()
    age(mark, 13)
    desk.drydock("store", "gc").succeeded()
    assert desk.environments() == [env]
    age(mark, 15)
    desk.drydock("store", "gc").succeeded()
    assert desk.environments() == []
    assert not mark.exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["{}", "{}.elsewhere"])
def test_a_script_that_another_machine_ran_is_a_root_until_its_lease_is_over(desk: Sandbox, name: str) -> None:
    (env,) = desk.environments()
    mark = home(desk) / "gcroots/scripts" / name.format(env)
    mark.write_text("/elsewhere/run.sh\n")
    desk.drydock("store", "gc").succeeded()
    assert desk.environments() == [env]
    age(mark, 15)
    desk.drydock("store", "gc").succeeded()
    assert desk.environments() == []


def test_a_script_that_is_still_there_renews_its_root(desk: Sandbox) -> None:
    script = desk.script("small")
    desk.run(["sh", str(script), "--build-only"]).succeeded()
    (mark,) = (home(desk) / "gcroots/scripts").iterdir()
    assert mark.read_text() == f"{script}\n"
    age(mark, 30)
    desk.drydock("store", "gc").succeeded()
    assert time.time() - mark.stat().st_mtime < DAY
    script.unlink()
    desk.drydock("store", "gc").succeeded()
    assert desk.environments() == []


def stray(folder: Path) -> list[Path]:
    """What desktops, editors and accidents leave in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "notes.txt~").write_text("of an editor")
    (folder / "dangling").symlink_to("/nowhere")
    (folder / "x.99999999999999999999").touch()
    os.mkfifo(folder / "fifo")
    (folder / "a folder").mkdir()
    return [folder / name for name in ("notes.txt~", "dangling", "x.99999999999999999999", "fifo", "a folder")]


def test_what_is_not_ours_disturbs_nothing_is_named_and_stays(locked: Sandbox) -> None:
    locked.drydock("build", "small").succeeded()
    (env,) = locked.environments()
    folders = ["store", "profiles", "gcroots/running", "gcroots/scripts", "gcroots/sources"]
    strays = [path for name in folders for path in stray(home(locked) / name)]
    for name in ("wheels", "bytecode", "cache", "sources", "tools", "gcroots"):
        stray(home(locked) / name)
    os.mkfifo(home(locked) / f"gcroots/running/{env}.{roots.host()}.{roots.boot()}.99999999999999999999")
    os.mkfifo(home(locked) / f"gcroots/scripts/{'0' * 32}-x.{roots.host()}")
    (home(locked) / f"profiles/{'9' * 40}-link").symlink_to("/nowhere")
    for words in (["generation", "list", "small"], ["store", "du"], ["build", "small"], ["run", "small"]):
        locked.drydock(*words, timeout=30).succeeded()
    done = locked.drydock("store", "gc", timeout=30).succeeded()
    for path in strays:
        if path.parent.name != "profiles" or path.name != "dangling":  # a name that a generation's link may have
            assert f"{path} is not Drydock's, and stays" in done.stderr
        assert os.path.lexists(path)
    assert "DS_Store" not in done.stderr
    assert env in locked.environments()
    locked.drydock("store", "verify", timeout=30).succeeded()


def test_a_folder_in_the_place_of_a_generation_is_an_error_that_makes_no_generation(locked: Sandbox) -> None:
    (home(locked) / "profiles/small").mkdir(parents=True)
    for _ in range(2):
        locked.drydock("build", "small").failed(1, "is a folder", "move it away")
    assert sorted(path.name for path in (home(locked) / "profiles").glob("small*")) == ["small"]


@pytest.mark.slow
def test_a_second_collection_is_an_error_whoever_does_it(
    desk: Sandbox, other_processes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRYDOCK_HOME", str(home(desk)))
    with roots.collecting():
        for prefix in ((), other_processes):
            done = desk.run([*prefix, sys.executable, "-m", "builder", "store", "gc"])
            done.failed(1, "another collection is under way")
    desk.drydock("store", "gc").succeeded()


# --- several users ---------------------------------------------------------------------------------------------------


@pytest.fixture
def members(uv_cache: Path) -> Iterator[Pair]:
    try:
        with two_members() as pair:
            yield pair
    except NoMembersError as why:
        pytest.skip(str(why))


@pytest.mark.slow
def test_a_store_of_a_group_is_made_by_one_command_and_only_for_a_group(members: Pair) -> None:
    store = Path(members[0].desk.environment["DRYDOCK_HOME"])
    for name in ("", "store", "wheels", "gcroots/running", "profiles"):
        state = (store / name).stat()
        assert (state.st_gid, state.st_mode & 0o7777) == (GROUP, 0o2775), name
    members[0].drydock("store", "init", "--group", str(GROUP)).failed(2, "--group goes with --shared")
    members[0].drydock("store", "init", "--shared", "--group", "no-such-group").failed(2, "there is no group")
    members[1].drydock("store", "init", "--shared", "--group", "54399").failed(1, "cannot be given to group 54399")


@pytest.mark.slow
def test_members_build_run_and_collect_whatever_their_umask(members: Pair) -> None:
    one, two = members
    store = Path(one.desk.environment["DRYDOCK_HOME"])
    env = Path(one.drydock("build", "small").succeeded().stdout.strip())
    assert two.drydock("build", "small").succeeded().stdout.strip() == str(env)
    assert two.drydock("run", "small").succeeded().stdout == "trained with 1.0\n"
    script = two.desk.script("small")
    two.own()
    assert two.run("sh", str(script)).succeeded().stdout == "trained with 1.0\n"
    # What the second builds stands on what the first has begun.
    two.desk.profile("other")
    two.own()
    two.drydock("lock", "other").succeeded()
    other = Path(two.drydock("build", "other").succeeded().stdout.strip())
    assert one.drydock("build", "small").succeeded().stdout.strip() == str(env)
    # What is damaged is put in order by whose it is.
    module = env / "lib/python3.11/site-packages/anchor/__init__.py"
    with module.open("a") as file:
        file.write("# changed\n")
    two.drydock("store", "verify", "--repair").failed(1, f"{env.name} belongs to user {one.number}")
    one.drydock("store", "verify", "--repair").succeeded()
    two.drydock("store", "verify").succeeded()
    # A dead build of the first is deleted by the second, and its environment is not: it is named.
    dead = store / "store" / f".stage-{'0' * 32}-{'0' * 12}"
    one.run("sh", "-c", f"umask 002; mkdir -p {dead}/lib/deep; touch {dead}/lib/deep/file").succeeded()
    age(dead, 1)
    for path in (store / "profiles").iterdir():
        if not path.name.startswith("."):
            path.unlink()
    for path in (store / "gcroots/scripts").iterdir():
        path.unlink()
    done = two.drydock("store", "gc")
    done.failed(1, f"{env} belongs to user {one.number}, and cannot be deleted", "store gc")
    assert sorted(path.name for path in (store / "store").iterdir()) == [env.name]
    assert not other.exists()
    one.drydock("store", "gc").succeeded()
    assert list((store / "store").iterdir()) == []


@pytest.mark.slow
def test_what_one_member_has_fetched_of_the_data_serves_the_other(members: Pair) -> None:
    one, two = members
    store = Path(one.desk.environment["DRYDOCK_HOME"])
    weights = os.urandom(3_000_000)
    with Hub() as hub:
        hub.repos["models/org/tiny"] = Repo({"config.json": b"{}", "weights.bin": weights})
        for member in members:
            member.desk.environment["HF_ENDPOINT"] = hub.url
            member.desk.trainer("import os\nprint(os.listdir(os.environ['DRYDOCK_DATA_TINY']))")
            with (member.desk.work / "profiles/small.toml").open("a") as file:
                file.write('[data.tiny]\nhub = "org/tiny"\n')
            member.own()
            member.drydock("lock", "small").succeeded()
        # The fetch of the first was killed: the second goes on from there.
        partial = store / "data/partial" / hashlib.sha256(weights).hexdigest()
        one.run("sh", "-c", f"mkdir -p {partial.parent}; head -c 0 /dev/null > {partial}", umask="002").succeeded()
        partial.write_bytes(weights[:1_000_000])
        assert "weights.bin" in two.drydock("run", "small").succeeded().stdout
        assert "weights.bin" in one.drydock("run", "small").succeeded().stdout
        # Nothing is there twice: each may link what the other has brought.
        assert all(path.stat().st_nlink == 2 for path in (store / "data/files").iterdir())
        for path in (store / "data/views").iterdir():
            shutil.rmtree(path)
        assert "weights.bin" in one.drydock("run", "small").succeeded().stdout
        assert all(path.stat().st_nlink == 2 for path in (store / "data/files").iterdir())
        # What is damaged is brought again by either.
        (damaged,) = [path for path in (store / "data/files").iterdir() if path.stat().st_size < 10]
        damaged.write_bytes(b"[]")
        assert f"FAIL data {damaged.name[:12]}" in two.drydock("store", "verify").stdout
        two.drydock("store", "verify", "--repair").succeeded()
        assert "weights.bin" in two.drydock("run", "small").succeeded().stdout
        assert damaged.read_bytes() == b"{}"


@pytest.mark.slow
def test_members_deploy_to_one_host_and_from_one_desk(members: Pair, tmp_path: Path) -> None:
    """Each by an ssh of their own, which is this machine here; the desk's store and the host's belong to the group."""
    store = Path(members[0].desk.environment["DRYDOCK_HOME"])
    host = store.with_name("host")
    host.mkdir()
    os.chown(host, members[0].number, GROUP)
    members[0].run(
        "env", f"DRYDOCK_HOME={host}", PYTHON, "-m", "builder", "store", "init", "--shared", "--group", str(GROUP)
    ).succeeded()
    ssh = store.with_name("bin") / "ssh"
    ssh.parent.mkdir()
    environment = f"HOME=$HOME PATH=/usr/bin:/bin DRYDOCK_HOME={host} DRYDOCK_PYTHON={PYTHON} UV_OFFLINE=1"
    ssh.write_text(f'#!/bin/sh\nfor last; do :; done\numask 077\nexec env -i {environment} sh -c "$last"\n')
    ssh.chmod(0o755)
    uv = members[0].desk.environment["DRYDOCK_UV"]
    files = {f"uv-{version('uv')}.data/scripts/uv": f'#!/bin/sh\nexec {uv} "$@"\n'}
    make_wheel(store.with_name("wheels"), "uv", version("uv"), tag="py3-none-manylinux_2_17_x86_64", files=files)
    for member in members:
        member.desk.environment["PATH"] = f"{ssh.parent}:/usr/bin:/bin"
        (member.desk.work / "drydock.toml").write_text('[fleets.lab]\nhosts = ["h1"]\nprofile = "small"\n')
        member.desk.trainer(f"print({member.number})")
        member.own()
        member.drydock("lock", "small", "--upgrade", "uv").succeeded()
    for turn, member in enumerate([*members, *members]):
        done = member.drydock("deploy", "lab", "--json").succeeded()
        assert json.loads(done.stdout)["hosts"]["h1"]["state"] == "switched"
        script = host / "profiles" / f"{(host / 'profiles/small').readlink().name.removesuffix('-link')}-run.sh"
        assert f"print({member.number}" in script.read_text(), turn
        assert "nothing of lab has failed" in member.drydock("deploy", "lab", "--only-failed").succeeded().stderr
        profile = member.desk.work / "profiles/small.toml"
        profile.write_text(profile.read_text().replace('glibc = "2.17"', 'glibc = "2.18"'))
        member.own()
        member.drydock("lock", "small").succeeded()
    members[0].drydock("deploy", "lab", "--rollback").succeeded()
    assert (host / "profiles/small").readlink().name == "small-1-link"
    members[1].drydock("deploy", "lab", "--gc").succeeded()


@pytest.mark.slow
def test_a_live_trainer_and_build_of_another_user_are_left_alone(members: Pair) -> None:
    one, two = members
    one.desk.trainer(SLEEPER)
    one.own()
    env = Path(one.drydock("build", "small").succeeded().stdout.strip())
    store = Path(one.desk.environment["DRYDOCK_HOME"])
    with subprocess.Popen(
        [*one.become, PYTHON, "-m", "builder", "run", "small"],
        env=one.desk.environment,
        cwd=one.desk.work,
        stdout=subprocess.PIPE,
    ) as trainer:
        assert trainer.stdout is not None
        assert trainer.stdout.readline() == b"up\n"
        for path in (store / "profiles").glob("small*"):
            path.unlink()
        for _ in range(2):
            two.drydock("store", "gc").succeeded()
        assert env.is_dir()
        assert len(list((store / "gcroots/running").glob(f"{env.name}.*.{trainer.pid}"))) == 1
        trainer.kill()


@pytest.mark.slow
def test_runs_go_well_while_everybody_collects(members: Pair, other_processes: tuple[str, ...], tmp_path: Path) -> None:
    """Two users, in containers of their own or not, build and run what nothing else needs, while both collect."""
    store, chance = Path(members[0].desk.environment["DRYDOCK_HOME"]), random.Random(str(tmp_path))
    scripts = []
    for member in members:
        member.desk.trainer("import anchor, pathlib, time; time.sleep(1); pathlib.Path(anchor.__file__).read_text()")
        member.own()
        scripts.append(member.desk.script("small"))
        member.own()

    def start(member: Member, *command: str) -> subprocess.Popen[bytes]:
        prefix = other_processes if chance.random() < 0.5 else ()
        return subprocess.Popen(
            [*prefix, *member.become, *command],
            env=member.desk.environment,
            cwd=member.desk.work,
            stderr=subprocess.PIPE,
        )

    for _ in range(5):
        runs = [start(member, "sh", str(script)) for member, script in zip(members, scripts, strict=True)]
        collections = []
        for _ in range(3):
            time.sleep(chance.random() * 0.7)
            for path in [*(store / "gcroots/scripts").iterdir(), *(store / "profiles").glob("small*")]:
                path.unlink()
            collections.append(start(chance.choice(members), PYTHON, "-m", "builder", "store", "gc"))
        for one in runs:
            assert one.communicate(timeout=LONG)[1].count(b"error") == one.returncode == 0
        for one in collections:
            said = one.communicate(timeout=LONG)[1]
            assert b"Traceback" not in said
            assert one.returncode == 0 or b"cannot be deleted" in said or b"another collection" in said
    assert not list((store / "store").glob(".stage-*"))


@pytest.mark.slow
def test_one_key_is_built_once_by_whoever_starts_from_wherever(members: Pair, tmp_path: Path) -> None:
    """Eight starts at once: two users, here, in containers, and on machines whose locks do not travel."""
    if (reason := machines.why_not()) is not None:
        pytest.skip(reason)
    store = Path(members[0].desk.environment["DRYDOCK_HOME"])
    held = threading.Event()
    members[0].desk.index.tamper = lambda _name, content: (held.wait(LONG), content)[1]
    hosts = [machines.Machine(name, store, tmp_path).command for name in ("machine-one", "machine-two")]
    scripts = []
    for member in members:
        scripts.append(str(member.desk.script("small")))
        member.own()
    started: list[subprocess.Popen[bytes]] = []
    logs = [tmp_path / f"log-{number}" for number in range(8)]
    places = [(place, each) for place in ((), CONTAINER, *hosts) for each in zip(members, scripts, strict=True)]
    for log, (place, (member, script)) in zip(logs, places, strict=True):
        with log.open("wb") as stderr:
            started.append(
                subprocess.Popen(
                    [*place, *member.become, "sh", script, "--build-only"],
                    env=member.desk.environment,
                    cwd=member.desk.work,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                )
            )

    def count(words: str) -> int:
        return sum(words in log.read_text() for log in logs)

    until(lambda: count("waiting for another build of small") >= 7)
    held.set()
    told = [one.communicate(timeout=LONG)[0] for one in started]
    said = [log.read_text() for log in logs]
    assert [one.returncode for one in started] == [0] * 8, said
    assert len(set(told)) == 1
    assert count("building small") == 1, said
    assert count("waiting for another build of small") == 7, said
    assert [path.name for path in (store / "store").iterdir()] == [Path(told[0].decode().strip()).name]


def test_a_claim_is_never_half_written(tmp_path: Path) -> None:
    """An empty one, of a builder killed meanwhile, would have the next wait for nobody, and outlive a collection."""
    mine = claim.Claim(tmp_path, "key-small")
    note = tmp_path / ".claim-key-small"
    assert json.loads(str(note.readlink()))["pid"] == os.getpid()
    os.close(mine._descriptor)  # killed: the kernel lets go of the lock, the rest stays
    claim.forget(tmp_path, "key-small")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_builder_of_another_machine_that_died_is_noticed(locked: Sandbox) -> None:
    script = locked.script("small")
    locked.drydock("build", "small").succeeded()
    (name,) = locked.environments()
    locked.remove(name)
    # What it left: its claim, at which nobody gives a sign of life any more.
    (locked.store / f".claim-{name}").symlink_to('{"host": "elsewhere\\u001b[7m", "boot": "another"}')
    begin = time.monotonic()
    done = locked.run(["sh", str(script), "--build-only"]).succeeded()
    assert "waiting for another build of small on elsewhere" in done.stderr
    assert "\x1b[7m" not in done.stderr
    assert time.monotonic() - begin > 3 * SIGN
    assert locked.environments() == [name]
