"""A trainer that each host keeps running by itself: installed, updated, looked at and taken back from the desk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fleet.conftest import Lab
from tests.support import Result, make_wheel
from tests.support.fleet import Host
from tests.support.systemd import ctl, user_instance
from tests.support.waiting import LONG, until

pytestmark = pytest.mark.slow

UNIT = "drydock-small.service"
# It makes an identity where it has none, and fails as it is asked to.
TRAIN = """\
import anchor, os, pathlib, sys, time
key = pathlib.Path("swarm.pem")
if not key.exists():
    key.write_bytes(os.urandom(16))
print("anchor", anchor.version, "depth", os.environ.get("DEPTH"), "words", sys.argv[1:], flush=True)
print("token", os.environ.get("HF_TOKEN"), flush=True)
print("loss=7.5", flush=True)
pathlib.Path("pid.new").write_text(str(os.getpid()))
os.rename("pid.new", "pid")
while not pathlib.Path("fail").exists():
    time.sleep(0.05)
pathlib.Path("fail").unlink()
sys.exit("lost all peers")
"""
POLICY = """
[supervise]
backoff = 0.2
grace = 5
[supervise.restart.lost-peers]
patterns = ["lost all peers"]
"""


@pytest.fixture
def served(lab: Lab) -> Iterator[Lab]:
    """`small` is deployed to the fleet `pair`: two hosts with a real systemd for their user."""
    lab.fleet('[fleets.pair]\nhosts = ["h[1-2]"]\nprofile = "small"\n[fleets.pair.env.h2]\nDEPTH = "7 $HOME %h"\n')
    with ExitStack() as stack:
        for name in ("h1", "h2"):
            host = lab.hosts[name]
            host.runtime = stack.enter_context(user_instance(host.home))
            host.behaves()
            # What a user sets for a unit stands beside it, and stays.
            own = unit(host).with_name(f"{UNIT}.d") / "own.conf"
            own.parent.mkdir(parents=True)
            own.write_text("[Service]\nRestartSec=0.1\n")
        lab.desk.trainer(TRAIN)
        path = lab.desk.work / "profiles/small.toml"
        path.write_text(path.read_text() + POLICY)
        lab.deploy(fleet="pair").succeeded()
        yield lab


def unit(host: Host) -> Path:
    return host.home / ".config/systemd/user" / UNIT


def trainer(host: Host) -> int:
    """The process of a host's trainer, which lives."""
    path = host.home / "drydock/small/pid"
    until(lambda: path.exists() and path.read_text() != "" and is_alive(int(path.read_text())))
    return int(path.read_text())


def is_alive(number: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{number}/status").read_text()
    except OSError:
        return False


def service(lab: Lab, do: str, *words: str) -> Result:
    return lab.desk.drydock("service", do, "small", "--on", "pair", *words, timeout=120)


def status(lab: Lab) -> str:
    return lab.desk.drydock("run", "small", "--on", "pair", "--status").succeeded().stdout


def test_units_are_installed_updated_and_taken_back_in_one_command_each(served: Lab) -> None:
    served.desk.environment["DRYDOCK_RECORDS"] = "1"
    h1, h2 = served.hosts["h1"], served.hosts["h2"]
    own = h2.home / ".config/drydock/secrets"
    own.parent.mkdir(parents=True)
    own.write_text("HF_TOKEN=hf_of_this_host_alone\n")
    own.chmod(0o600)
    # All or none, where one has no service manager.
    runtime, h2.runtime = h2.runtime, "/nowhere"
    h2.behaves()
    done = service(served, "install").failed(1, "nothing was installed", "0 of 2 hosts")
    assert "h2: small: no service manager answers here, neither systemd for this user nor launchd" in done.stdout
    assert not unit(h1).exists()
    h2.runtime = runtime
    h2.behaves()

    done = service(served, "install", "--", "--more", "50% of $HOME").succeeded()
    key = h1.current("small")[:8]
    assert f"h[1-2]: small {key} runs" in done.stdout
    first = {host.name: trainer(host) for host in (h1, h2)}
    keys = {(host.home / "drydock/small/swarm.pem").read_bytes() for host in (h1, h2)}
    assert len(keys) == 2
    for host in (h1, h2):
        assert ctl(host.runtime, "show", "--property=UnitFileState", UNIT).stdout == "UnitFileState=enabled\n"
        env = {**os.environ, "XDG_RUNTIME_DIR": host.runtime}
        checked = subprocess.run(
            ["systemd-analyze", "--user", "verify", unit(host)], env=env, capture_output=True, text=True
        )
        assert UNIT not in checked.stderr, checked.stderr
    seen = served.desk.drydock("run", "small", "--on", "pair", "--logs").succeeded().stdout
    assert "h1 | anchor 1.0 depth None words ['--more', '50% of $HOME']" in seen
    assert "h2 | anchor 1.0 depth 7 $HOME %h words" in seen
    assert "h2 | token [HF_TOKEN]" in seen
    # The desk does not start a second one beside it.
    assert "runs here as a service already" in served.desk.drydock("run", "small", "--on", "pair").failed(1).stdout

    # What is as it should be goes on as it was; what is killed, starts again.
    service(served, "install", "--", "--more", "50% of $HOME").succeeded()
    assert {host.name: trainer(host) for host in (h1, h2)} == first
    os.kill(first["h1"], signal.SIGKILL)
    (h2.home / "drydock/small/fail").touch()
    until(lambda: trainer(h1) != first["h1"] and trainer(h2) != first["h2"])
    seen = status(served)
    assert "small is a service of pair: it runs on 2 of 2 hosts" in seen
    assert f"h[1-2]: small {key} runs, restarts: 1" in seen
    second = trainer(h1)
    keeper = json.loads((h1.drydock / "fleet/services/small/state.json").read_text())["supervisor"]
    os.kill(keeper, signal.SIGKILL)  # also the supervisor: by systemd
    until(lambda: trainer(h1) != second)
    assert not is_alive(second)

    # Another generation, and back.
    make_wheel(served.desk.wheels, "anchor", "2.0")
    served.desk.drydock("lock", "small", "--upgrade", "anchor").succeeded()
    told = served.deploy(fleet="pair").succeeded()
    assert "services run on as they were: drydock deploy pair --restart" in told.stderr
    new = h1.current("small")[:8]
    assert f"small {key} runs, and {new} is current" in status(served)
    assert f"h[1-2]: small {new} runs" in served.deploy("--restart", fleet="pair").succeeded().stderr
    assert f"h[1-2]: small {key} runs" in served.deploy("--rollback", "--restart", fleet="pair").succeeded().stderr

    # What ran without the desk is in its records: one for each start of a service, here four on h1.
    listed = served.desk.drydock("runs", "list").succeeded().stdout.splitlines()
    assert len([line for line in listed if line.endswith("service on h1")]) == 1
    assert len([line for line in listed if line.endswith("service on h2")]) == 1
    last = served.desk.drydock("runs", "list", "--json").succeeded()
    on_h1 = [run for run in json.loads(last.stdout) if (run["process"] or {}).get("service") == "h1"]
    shown = served.desk.drydock("runs", "show", on_h1[0]["id"]).succeeded().stdout
    assert "drydock service install small --on pair -- --more '50% of $HOME'" in shown
    assert "state:       service on h1" in shown
    assert f"environment: {h1.current('small')}" in shown
    served.desk.drydock("runs", "delete", on_h1[0]["id"]).succeeded()

    third = {trainer(h1), trainer(h2)}
    done = service(served, "uninstall").succeeded()
    runs = [
        (run["end"]["why"], run["losses"])
        for run in json.loads(served.desk.drydock("runs", "list", "--json").succeeded().stdout)
        if run["end"]["why"] != "h[1-2] failed"  # that was run --on
    ]
    assert len(runs) == 6, "that which was deleted stays so"
    assert [why for why, _ in runs].count("its end was not seen") == 1
    assert [why for why, _ in runs].count("stopped") == 5
    assert {"h1 loss": 7.5} in [losses for _, losses in runs]
    assert "h[1-2]: small is removed" in done.stdout
    assert not any(map(is_alive, third))
    assert not unit(h1).exists()
    assert unit(h1).with_name(f"{UNIT}.d").exists()
    assert (
        ctl(h1.runtime, "show", "--property=LoadState,ActiveState", UNIT).stdout
        == "LoadState=not-found\nActiveState=inactive\n"
    )
    assert {(host.home / "drydock/small/swarm.pem").read_bytes() for host in (h1, h2)} == keys
    assert "anchor 2.0" in (h1.drydock / "fleet/services/small/log").read_text()
    (h2.home / "drydock/small/swarm.pem").write_bytes((h1.home / "drydock/small/swarm.pem").read_bytes())
    service(served, "install").failed(1, "h[1-2] have one identity", "swarm.pem")


def test_what_is_not_ours_is_left_alone_and_what_was_killed_half_way_is_finished(served: Lab) -> None:
    h1, h2 = served.hosts["h1"], served.hosts["h2"]
    # Of another hand: a file, a link, another user's, one of the name elsewhere. Nothing is installed on the others.
    unit(h1).write_text("[Unit]\n")
    assert "was not made by drydock service install" in service(served, "uninstall").failed(1).stdout
    os.chown(unit(h1), 12345, 12345)
    assert "is of another user (uid 12345)" in service(served, "install").failed(1).stdout
    assert unit(h1).read_text() == "[Unit]\n"
    unit(h1).unlink()
    unit(h1).symlink_to("/dev/null")
    assert "is not a regular file" in service(served, "install").failed(1).stdout
    unit(h1).unlink()
    assert not unit(h2).exists()
    other = Path(h1.runtime) / "systemd/user" / UNIT
    other.parent.mkdir(exist_ok=True)
    other.write_text("[Service]\nExecStart=/bin/true\n")
    ctl(h1.runtime, "daemon-reload")
    assert f"{other} is a unit of this name already" in service(served, "install").failed(1).stdout
    other.unlink()
    ctl(h1.runtime, "daemon-reload")

    # Two desks at once: each host has one service, and one trainer.
    desks = [
        served.desk.start("service", "install", "small", "--on", "pair", env=env)
        for env in ({}, {"DRYDOCK_HOME": str(served.desk.root / "another")})
    ]
    for desk in desks:
        out, err = desk.communicate(timeout=LONG)
        assert desk.returncode == 0, (out, err)
    first = trainer(h1)
    assert [line for line in Path("/proc").glob("[0-9]*/environ") if _is_trainer(line, h1)] == [
        Path(f"/proc/{first}/environ")
    ]

    # Changed by hand: not overwritten, not removed, seen in the status.
    ours = unit(h1).read_text()
    unit(h1).write_text(ours.replace("KillMode=mixed", "KillMode=process"))
    for do in ("install", "uninstall"):
        assert f"h1: small: {unit(h1)} was changed by hand" in service(served, do).failed(1).stdout
    assert "KillMode=process" in unit(h1).read_text()
    assert "was changed by hand" in status(served)
    assert is_alive(first)
    unit(h1).write_text(ours)

    # Killed half-way: files are written, and nothing is started; or stopped, and the unit is still there.
    ctl(h1.runtime, "disable", "--now", UNIT)
    (h1.drydock / "fleet/services/small/service.pyz").unlink()
    service(served, "install").succeeded()
    assert trainer(h1) != first
    unit(h1).unlink()  # and so that the service manager knows more than the disk
    service(served, "uninstall").succeeded()
    assert not is_alive(trainer_was := int((h1.home / "drydock/small/pid").read_text())), trainer_was


def _is_trainer(path: Path, host: Host) -> bool:
    try:
        line = path.with_name("cmdline").read_bytes()
        return b"swarm.pem" in line and f"HOME={host.home}\0".encode() in path.read_bytes()
    except OSError:
        return False


def test_logs_are_followed_and_a_trainer_that_takes_too_much_memory_is_stopped(served: Lab) -> None:
    service(served, "install").succeeded()
    h1 = served.hosts["h1"]
    first = trainer(h1)
    follower = served.desk.start("run", "small", "--on", "pair", "--logs", "-f")
    assert follower.stdout is not None
    before: list[str] = []
    while not any(line.startswith("h1 | token") for line in before):
        before.append(follower.stdout.readline().decode())
    (h1.home / "drydock/small/fail").touch()
    until(lambda: trainer(h1) != first)
    log = h1.drydock / "fleet/services/small/log"
    until(lambda: log.read_text().count("anchor 1.0") == 2)
    log.rename(log.with_name("log.1"))  # as it rotates
    log.write_text("of the new file\n")
    time.sleep(3)
    follower.send_signal(signal.SIGINT)
    out, err = follower.communicate(timeout=30)
    seen = [*before, *out.decode().splitlines()]
    assert seen.count("h1 | of the new file") == 1, (seen, err)
    assert sum(line.startswith("h1 | anchor 1.0") for line in seen) == 2
    assert any(line.startswith("h1 | drydock: the trainer ended with exit status 1 (lost-peers)") for line in seen)
    until(lambda: all(len(host.processes()) == 1 for host in served.hosts.values()))

    path = served.desk.work / "profiles/small.toml"
    path.write_text(path.read_text() + "[supervise.memory-guard]\nresident = 0.0001\n")
    service(served, "install")
    until(lambda: "has ended, exit status" in status(served))
    said = status(served)
    assert "h[1-2]: small" in said
    assert "MB of the 0.0 GB that memory-guard.resident = 0.0001 allows" in said.replace("GB of", "MB of")
    assert not is_alive(int((h1.home / "drydock/small/pid").read_text()))
    assert "make batches smaller" in served.desk.drydock("run", "small", "--on", "pair", "--logs").succeeded().stdout
    service(served, "uninstall").succeeded()
    served.desk.drydock("run", "small", "--on", "pair", "--status").failed(2, "not a service of pair any more")
