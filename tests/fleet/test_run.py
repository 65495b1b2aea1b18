"""A trainer on the hosts of a fleet: started, followed, stopped, and never left alone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from builder.fleet import launcher
from tests.fleet.conftest import Lab
from tests.support import make_wheel
from tests.support.fleet import Host
from tests.support.waiting import LONG, allowed, until

COUNT = """\
import os, signal, sys, time
print("began in", os.getcwd(), flush=True)
number = 0
while number < {steps}:
    number += 1
    print("step", number, flush=True)
    time.sleep({pause})
"""


def trainer(lab: Lab, code: str, tail: str = "") -> None:
    lab.desk.trainer(code)
    path = lab.desk.work / "profiles/small.toml"
    path.write_text(path.read_text() + tail)
    lab.deploy().succeeded()


def running(host: Host, words: str = "began in") -> list[psutil.Process]:
    """The trainer's processes on a host."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        line = " ".join(process.info["cmdline"] or [])
        if words in line and (process.info["environ"] or {}).get("HOME") == str(host.home):
            found.append(process)
    return found


def start(lab: Lab, *arguments: str) -> subprocess.Popen[bytes]:
    desk = lab.desk.start("run", "small", "--on", "lab", *arguments)
    until(lambda: all(running(host) for host in lab.hosts.values()))
    return desk


@pytest.mark.slow
def test_each_host_runs_it_for_itself_and_all_is_seen_here(lab: Lab) -> None:
    trainer(lab, COUNT.format(steps=2, pause=0))
    done = lab.desk.drydock("run", "small", "--on", "lab", "--", "--more").succeeded()
    for name, host in lab.hosts.items():
        assert f"{name} | began in {host.home}/drydock/small" in done.stdout
        assert f"{name} | step 2" in done.stdout
    state = json.loads(lab.desk.drydock("run", "small", "--on", "lab", "--status", "--json").succeeded().stdout)
    assert state["phase"] == "ended"
    assert {row["code"] for row in state["hosts"].values()} == {0}
    assert "h[1-3]: ended, exit status 0" in lab.desk.drydock("run", "small", "--on", "lab", "--status").stdout
    assert "h2 | step 2" in lab.desk.drydock("run", "small", "--on", "lab", "--logs").succeeded().stdout


@pytest.mark.slow
def test_the_code_of_the_project_comes_along_as_it_is_now(lab: Lab) -> None:
    path = lab.desk.work / "profiles/small.toml"
    path.write_text(path.read_text().replace("[trainer]", '[trainer]\ncommand = ["python", "train.py"]\n[unused]'))
    text = path.read_text()
    path.write_text(text[: text.index("[unused]")])
    lab.deploy().succeeded()
    code = lab.desk.work / "train.py"
    code.write_text("import part.one\nprint('made', part.one.word, flush=True)\n")
    (lab.desk.work / "part").mkdir()
    (lab.desk.work / "part/one.py").write_text("word = 'first'\n")
    (lab.desk.work / "part/two.py").write_text("")
    (lab.desk.work / "part/api.key").write_text("hf_of_the_desk")
    (lab.desk.work / "part/secrets").mkdir()
    (lab.desk.work / "part/secrets/plain").write_text("another")
    done = lab.desk.drydock("run", "small", "--on", "lab").failed(1)
    assert "the trainer of small is train.py, which is here, and not in drydock/small of h1" in done.stderr
    assert '[fleets.lab] bring = ["train.py"]' in done.stderr
    fleet = '[fleets.lab]\nhosts = ["h[1-3]"]\nprofile = "small"\n'
    lab.fleet(f'{fleet}bring = ["trian.py"]\n')
    lab.desk.drydock("run", "small", "--on", "lab").failed(2, "nothing matches trian.py")
    lab.fleet(f'{fleet}bring = ["../*"]\n')
    lab.desk.drydock("run", "small", "--on", "lab").failed(1, "not below the folder of this file")

    lab.fleet(f'{fleet}bring = ["*.py", "part"]\n')
    done = lab.desk.drydock("run", "small", "--on", "lab").succeeded()
    assert "h1 | made first" in done.stdout
    assert "part/api.key, as 1 other file, is named like a secret, and stays here" in done.stderr
    there = lab.hosts["h1"].home / "drydock/small"
    assert sorted(one.name for one in (there / "part").rglob("*") if one.suffix != ".pyc") == [
        "__pycache__",
        "one.py",
        "two.py",
    ]
    # What is as it was is not sent; what was changed is, on either side; what went away goes there, too.
    assert " of 3 files from here" not in lab.desk.drydock("run", "small", "--on", "lab").succeeded().stderr
    (lab.desk.work / "part/two.py").unlink()
    (lab.desk.work / "part/one.py").write_text("word = 'second'\n")
    (lab.hosts["h2"].home / "drydock/small/train.py").write_text("print('edited there')\n")
    (there / "own.txt").write_text("of the host")
    done = lab.desk.drydock("run", "small", "--on", "lab").succeeded()
    assert [f"h{number} | made second" in done.stdout for number in (1, 2, 3)] == [True] * 3
    assert not (there / "part/two.py").exists()
    assert (there / "own.txt").exists()
    assert not list(there.glob(".drydock-bring.*"))


@pytest.mark.slow
def test_it_is_recorded_at_the_desk(lab: Lab) -> None:
    trainer(lab, "import sys\nfor step in range(3):\n    print(f'loss={3 - step}', flush=True)\nsys.exit(4)\n")
    recorded = {"DRYDOCK_RECORDS": "1"}
    lab.desk.drydock("run", "small", "--on", "lab", "--", "--more", env=recorded).failed(1, "h[1-3] failed")
    assert "h1 loss 1" in lab.desk.drydock("runs", "list").succeeded().stdout
    seen = lab.desk.drydock("runs", "show", "last").succeeded().stdout
    for words in (
        "drydock run small --on lab -- --more",
        "hosts:       h1, h2, h3",
        "failed (1): h[1-3] failed",
        "h3 loss:     3 -> 1, lowest 1, 3 printed",
    ):
        assert words in seen
    again = lab.desk.drydock("rerun", "last", "--dry-run").succeeded()
    assert "its hosts: it ran on h1, h2, h3, and would run on this machine alone" in again.stdout
    # What was deployed runs on, and the desk does not have it any more.
    lab.desk.profile("small", tail='[env]\nDEPTH = "7"\n')
    lab.desk.drydock("run", "small", "--on", "lab", env=recorded).failed(1)
    lab.desk.drydock("rerun", "last", "--dry-run").failed(1, "was not kept")


@pytest.mark.slow
def test_what_is_not_deployed_does_not_run(lab: Lab) -> None:
    done = lab.desk.drydock("run", "small", "--on", "lab")
    done.failed(1, "h1: small is not built there", "0 of 3 hosts of lab can run small", "drydock deploy lab small")
    lab.desk.drydock("run", "small", "--on", "lab", "--status").failed(2, "small never ran on lab")
    lab.desk.drydock("run", "small", "--on", "lub").failed(2, 'did you mean "lab"?')


@pytest.mark.slow
def test_it_is_followed_and_stopped_from_elsewhere(lab: Lab) -> None:
    trainer(lab, COUNT.format(steps=1000, pause=0.2))
    desk = start(lab)
    assert "small runs on lab" in lab.desk.drydock("run", "small", "--on", "lab", "--status").succeeded().stdout
    lab.desk.drydock("run", "small", "--on", "lab").failed(1, "small runs on lab already")
    followed = lab.desk.start("run", "small", "--on", "lab", "--logs", "-f")
    lab.desk.drydock("run", "small", "--on", "lab", "--stop").succeeded()
    assert desk.wait(LONG) == 143
    desk.communicate()
    out, _ = followed.communicate(timeout=LONG)
    assert b"desk | small on lab ended: stopped by SIGTERM" in out
    assert not any(running(host) for host in lab.hosts.values())
    assert "ended: stopped by SIGTERM" in lab.desk.drydock("run", "small", "--on", "lab", "--status").stdout


@pytest.mark.slow
def test_when_the_desk_is_killed_nothing_is_left_on_any_host(lab: Lab) -> None:
    stubborn = "import signal\nfor number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)\n"
    away = "import subprocess, sys\nsubprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
    trainer(lab, stubborn + away + COUNT.format(steps=1000, pause=0.2))
    desk = start(lab)
    until(lambda: all(running(host, "sleep 1000") for host in lab.hosts.values()))
    desk.kill()
    killed = time.monotonic()
    desk.communicate()
    until(lambda: not any(running(host) or running(host, "sleep 1000") for host in lab.hosts.values()), allowed(15))
    until(
        lambda: all(len(host.processes()) == 1 for host in lab.hosts.values()),
        allowed(15) - (time.monotonic() - killed),
    )
    said = lab.desk.drydock("run", "small", "--on", "lab", "--status").succeeded().stdout
    assert "was killed" in said
    assert "h[1-3]: ended" in said


@pytest.mark.slow
def test_a_failure_on_one_host_is_its_own_and_it_starts_again(lab: Lab) -> None:
    code = "import os, pathlib, sys\nmark = pathlib.Path('mark')\nprint('given', *sys.argv[1:], flush=True)\n"
    code += "if 'h2' in os.getcwd() and not mark.exists():\n    mark.touch()\n"
    code += "    out = pathlib.Path('out')\n    out.mkdir(exist_ok=True)\n"
    code += "    (out / f'checkpoint-{len(list(out.iterdir()))}').write_text('whole')\n"
    code += "    print('CUDA lost', flush=True)\n    sys.exit(7)\n"
    tail = "[supervise]\nbackoff = 0.5\n[supervise.restart.lost]\ncodes = [7]\n"
    tail += '[supervise.resume]\narguments = ["--from={checkpoint}"]\nnewest = "out/checkpoint-*"\n'
    trainer(lab, code + COUNT.format(steps=2, pause=0), tail)
    alone = lab.desk.drydock("run", "small", "--on", "lab").failed(1, "h2 failed")
    assert "h1 | step 2" in alone.stdout
    (lab.hosts["h2"].home / "drydock/small/mark").unlink()
    done = lab.desk.drydock("run", "small", "--on", "lab", "--supervise").succeeded()
    assert "h2: exit status 7 (lost); again in 0.5 s" in done.stderr
    # Each start goes on from the newest there is by then.
    assert re.findall(r"h2 \| given (.*)", done.stdout) == ["--from=out/checkpoint-0", "--from=out/checkpoint-1"]
    assert "h2 | step 2" in done.stdout


@pytest.mark.slow
def test_two_hosts_with_one_identity_do_not_start(lab: Lab) -> None:
    trainer(lab, COUNT.format(steps=1, pause=0))
    for host in lab.hosts.values():
        folder = host.home / "drydock/small"
        folder.mkdir(parents=True)
        (folder / "swarm.pem").write_text("one" if host.name != "h3" else "another")
    lab.desk.drydock("run", "small", "--on", "lab").failed(1, "h[1-2] have one identity", "swarm.pem")
    (lab.hosts["h2"].home / "drydock/small/swarm.pem").write_text("two")
    lab.desk.drydock("run", "small", "--on", "lab").succeeded()


@pytest.mark.slow
def test_secrets_come_by_standard_input_only(lab: Lab) -> None:
    secret = "hf_" + "s" * 20
    code = "import os\nprint('token', os.environ['HF_TOKEN'], len(os.environ['HF_TOKEN']), flush=True)\n"
    trainer(lab, code + COUNT.format(steps=20, pause=0.2))
    file = lab.desk.home / ".config/drydock/secrets"
    file.parent.mkdir(parents=True)
    file.write_text(f"HF_TOKEN={secret}\n")
    file.chmod(0o600)
    own = lab.hosts["h3"].home / ".config/drydock/secrets"
    own.parent.mkdir(parents=True)
    own.write_text("HF_TOKEN=hf_of_this_host_alone\n")
    own.chmod(0o600)
    desk = start(lab)
    lines = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    assert not [line for line in lines if secret in line]
    out, err = desk.communicate(timeout=LONG)
    assert b"h1 | token [HF_TOKEN] 23" in out
    assert b"h3 | token [HF_TOKEN] 21" in out
    assert b"alone" not in out
    assert secret.encode() not in out + err
    for path in (lab.desk.home / ".local/share/drydock/fleet").rglob("*"):
        assert not path.is_file() or secret not in path.read_text()


# --- one training on all of them -----------------------------------------------------------------------------------

# What torchrun is to a desk: it becomes the trainer, with the variables that say who it is.
TORCHRUN = """\
import os, sys
def main():
    words = [word for word in sys.argv[1:] if word not in ("--no-python", "--standalone")]
    os.environ["RANK"], os.environ["WORLD_SIZE"] = os.environ["PET_NODE_RANK"], os.environ["PET_NNODES"]
    os.execvp(words[0], words)
"""
# It writes a checkpoint on the first host only, as trainers do, and says from where it goes on.
TRAIN = """\
import os, pathlib, sys, time
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
given = sys.argv[sys.argv.index("--resume") + 1] if "--resume" in sys.argv else ""
step = int(pathlib.Path(given, "state.json").read_text()) if given else 0
print("began in", os.getcwd(), "rank", rank, "of", world, "at", os.environ["PET_MASTER_ADDR"], "step", step, flush=True)
while step < 40:
    step += 1
    time.sleep(0.25)
    folder = pathlib.Path("out", f"checkpoint-{step}")
    if rank == 0 and step % 5 == 0:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.npy").write_bytes(os.urandom(300_000))
        (folder / "state.json").write_text(str(step))
print("done at", step, flush=True)
"""
TOGETHER = """
[launch]
with = "torchrun"
{fewest}
[supervise]
backoff = 0.5
grace = 3
[supervise.resume]
flag = "--resume"
newest = "out/checkpoint-*"
has = ["state.json"]
"""


@pytest.fixture
def together(lab: Lab) -> Lab:
    """The profile `small` trains on all hosts at once."""
    torch = {"torchy.py": TORCHRUN}
    make_wheel(
        lab.desk.wheels, "torch", "2.13.0", files=torch, entry_points="[console_scripts]\ntorchrun = torchy:main\n"
    )
    lab.desk.profile("small", lab.desk.profile("small").read_text().replace('["anchor"]', '["anchor", "torch"]'))
    lab.desk.drydock("lock", "small").succeeded()
    return lab


def of_all(lab: Lab, fewest: str = "", train: str = TRAIN) -> None:
    path = lab.desk.work / "profiles/small.toml"
    head, _, _ = path.read_text().partition("[trainer]")
    path.write_text(
        f'{head}[trainer]\ncommand = ["python", "-c", {json.dumps(train)}]\n{TOGETHER.format(fewest=fewest)}'
    )
    lab.deploy().succeeded()


@pytest.mark.slow
def test_hosts_train_together_and_know_who_they_are(together: Lab) -> None:
    of_all(together)
    done = together.desk.drydock("run", "small", "--on", "lab").succeeded()
    for rank, name in enumerate(together.hosts):
        assert re.search(rf"^{name} \| began in .* rank {rank} of 3 at 127.0.0.1 step 0$", done.stdout, re.MULTILINE)
        assert f"{name} | done at 40" in done.stdout


@pytest.mark.slow
def test_a_host_that_is_lost_ends_all_where_nothing_else_is_said(together: Lab) -> None:
    of_all(together)
    desk = start(together)
    together.hosts["h2"].freeze()
    until(lambda: not running(together.hosts["h1"]) and not running(together.hosts["h3"]), allowed(15))
    _, err = desk.communicate(timeout=LONG)
    assert b"small on lab ended: h2 was lost" in err
    together.hosts["h2"].thaw()
    until(lambda: not running(together.hosts["h2"]))
    assert desk.returncode == 1


@pytest.mark.slow
def test_the_others_go_on_from_the_newest_checkpoint_of_any(together: Lab) -> None:
    of_all(together, "fewest = 2")
    desk = start(together, "--supervise")
    first = together.hosts["h1"].home / "drydock/small/out"
    until(lambda: (first / "checkpoint-10/state.json").exists())
    # The host with the checkpoints is not lost; the others have none of its own.
    together.hosts["h3"].pull_the_plug()
    out, err = desk.communicate(timeout=LONG)
    assert desk.returncode == 0, err
    assert b"h3 was lost; going on without waiting" in err
    assert re.search(rb"out/checkpoint-\d+ of h1 is the newest checkpoint; h2 get", err)
    steps = [int(step) for step in re.findall(rb"h[12] \| began in .* of 2 at \S+ step (\d+)", out)]
    assert len(steps) == 2
    assert steps[0] == steps[1] >= 10
    assert out.count(b"done at 40") == 2
    assert b"going on from out/checkpoint-" in err


@pytest.mark.slow
def test_when_the_network_of_the_desk_is_gone_for_a_while_it_goes_on_by_itself(together: Lab) -> None:
    of_all(together, train=TRAIN.replace("step < 40", "step < 400"))
    desk = start(together, "--supervise")
    first = together.hosts["h1"].home / "drydock/small/out"
    until(lambda: (first / "checkpoint-5/state.json").exists())
    for host in together.hosts.values():
        host.cut_off()
    state = ["run", "small", "--on", "lab", "--status"]
    until(lambda: "waits for hosts that do not answer" in together.desk.drydock(*state).stdout)
    for host in together.hosts.values():
        host.reach_again()
    second = together.desk.home / ".local/share/drydock/fleet/runs/lab.small/log"
    until(lambda: all(f"{name} | began in" in second.read_text().partition("going on")[2] for name in together.hosts))
    desk.terminate()
    out, err = desk.communicate(timeout=LONG)
    assert b"0 of 3 hosts answer, and 3 are needed; asking again for 10 minutes" in err
    assert re.search(rb"h[1-3,\[\]-]+ w\w+ lost; going on without waiting", err)
    steps = [int(step) for step in re.findall(rb"h\d \| began in .* of 3 at \S+ step (\d+)", out)]
    assert len(steps) == 6
    assert len(set(steps[3:])) == 1
    assert steps[3] > 30  # what was trained while nobody heard of it


@pytest.mark.slow
def test_hosts_with_different_environments_do_not_train_together(together: Lab) -> None:
    of_all(together)
    make_wheel(together.desk.wheels, "anchor", "2.0")
    together.desk.drydock("lock", "small", "--upgrade", "anchor").succeeded()
    together.fleet('[fleets.lab]\nhosts = ["h[1-3]"]\nprofile = "small"\n[fleets.one]\nhosts = ["h1"]\n')
    together.deploy("small", fleet="one").succeeded()
    together.desk.drydock("run", "small", "--on", "lab").failed(
        1, "one training needs one environment: h1 have", "h[2-3]"
    )


def test_two_trainers_do_not_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    first, second = launcher.hold(), launcher.hold()
    assert first is not None
    assert second is not None
    assert launcher.is_free(first)
    assert not launcher.is_free(second)
    os.close(first)
    assert launcher.is_free(second)
    os.close(second)


# It ends all that its own process has below it.
GONE = """
import subprocess
from builder.fleet import launcher
launcher.answer("x", "began")
child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
looks = iter([False, False, True])
tree = launcher.Tree(child.pid)
launcher.watch(child, tree, "x", lambda: next(looks))
raise SystemExit(launcher.end(child, tree, 0.0, lambda: True))
"""


def test_a_desk_that_is_gone_when_it_is_answered_leaves_no_trainer() -> None:
    heard, said = os.pipe()
    os.close(heard)
    done = subprocess.run([sys.executable, "-c", GONE], stdout=said, stderr=subprocess.PIPE, check=False)
    os.close(said)
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, b"")
