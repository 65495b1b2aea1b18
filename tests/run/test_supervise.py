"""Supervised runs, with real trainers: what is started again, what is stopped, what is kept, and who misbehaves."""

from __future__ import annotations

import json
import os
import plistlib
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.embedded.resume import Resume, is_whole
from builder.project.catalogue import Catalogue
from builder.run.supervise import stop
from builder.run.supervise.journal import RotatingFile, Tail
from builder.run.supervise.policy import Case, Done, GiveUp, Guard, History, Policy, Restart, decide
from builder.run.supervise.redact import Redactor
from builder.run.supervise.runs import Request
from builder.run.supervise.start import _guard
from builder.script.quoting import systemd_path, systemd_word
from tests.conftest import ROOT
from tests.support import Sandbox, machines
from tests.support.mounts import tmpfs
from tests.support.waiting import LONG, allowed, until

QUICK = "backoff = 0.05\nlongest-backoff = 0.2\ngrace = 2\nsample-every = 0.5\n"


def trainer(desk: Sandbox, code: str, supervise: str = "") -> None:
    """Give `small` a trainer of Python code, and short times; `supervise` is more of [supervise]."""
    desk.trainer(code)
    path = desk.work / "profiles/small.toml"
    path.write_text(path.read_text() + f"[supervise]\n{QUICK}{supervise}")


def folder(desk: Sandbox) -> Path:
    return desk.store.parent / "runs/small"


def log(desk: Sandbox) -> str:
    return (folder(desk) / "log").read_text()


def state(desk: Sandbox) -> dict[str, object]:
    read: dict[str, object] = json.loads((folder(desk) / "state.json").read_text())
    return read


@contextmanager
def supervised(desk: Sandbox, *words: str, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A supervised run of `small` under way; it is gone afterwards."""
    running = desk.start("run", "small", "--supervise", *words, env=env)
    try:
        yield running
    finally:
        if running.poll() is None:
            running.terminate()
        running.communicate(timeout=LONG)
        assert not leftovers(desk)


def leftovers(desk: Sandbox) -> list[psutil.Process]:
    """Processes that were started from the desk's store."""
    found = []
    for one in psutil.process_iter():
        try:
            if str(desk.store) in one.environ().get("VIRTUAL_ENV", "") and one.status() != psutil.STATUS_ZOMBIE:
                found.append(one)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def desk(built: Sandbox) -> Iterator[Sandbox]:
    """The built desk, with no run on it."""
    assert not leftovers(built)
    subprocess.run(["rm", "-rf", str(folder(built))], check=True)
    yield built
    assert not leftovers(built)


FAILS_TWICE = """
import pathlib, sys
count = pathlib.Path('count'); n = int(count.read_text()) if count.exists() else 0
count.write_text(str(n + 1))
if n < 2: sys.exit("%s")
print('trained')
"""


@pytest.fixture(autouse=True)
def fresh_count(built: Sandbox) -> None:
    (built.work / "count").unlink(missing_ok=True)


# --- the way through -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_trainer_that_ends_well_is_done(desk: Sandbox) -> None:
    trainer(desk, "import sys; print('out'); print('err', file=sys.stderr)")
    done = desk.drydock("run", "small", "--supervise").succeeded()
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    assert {"out", "err"} <= set(log(desk).splitlines())
    assert (state(desk)["phase"], state(desk)["last_exit"], state(desk)["restarts"]) == ("ended", 0, 0)
    assert desk.drydock("run", "small", "--status").succeeded().stdout.startswith("small ended ")


def test_a_mac_stays_awake_as_long_as_the_supervisor_lives(desk: Sandbox) -> None:
    """There is no caffeinate here: a program that notes what it is asked, and does as it is."""
    program = desk.root / "bin/caffeinate"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$*" >"$0.asked"\nwhile kill -0 "$3"; do sleep 0.05; done\necho >"$0.over"\n')
    program.chmod(0o755)
    trainer(desk, "print('out')")
    path = f"{program.parent}:{desk.environment['PATH']}"
    desk.drydock("run", "small", "--supervise", env={"PATH": path}).succeeded()
    supervisor = state(desk)["supervisor"]
    assert Path(f"{program}.asked").read_text() == f"-i -w {supervisor}\n"
    until(Path(f"{program}.over").exists)


@pytest.mark.slow
@pytest.mark.parametrize(
    "last_words",
    [
        "UnboundLocalError: local variable 'current_batch' referenced before assignment",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
        "RuntimeError: MPS backend out of memory (MPS allocated: 18.13 GB)",
    ],
)
def test_a_failure_that_the_profile_names_is_tried_again(desk: Sandbox, last_words: str) -> None:
    trainer(desk, FAILS_TWICE % last_words)
    done = desk.drydock("run", "small", "--supervise").succeeded()
    assert done.stdout == "trained\n"
    assert done.stderr.count("restarting it") == 2
    assert re.findall("restarting it in (.*) s$", done.stderr, re.MULTILINE) == ["0.05", "0.1"]
    assert state(desk)["restarts"] == 2


@pytest.mark.slow
def test_cases_of_the_profiles_own_come_on_top_of_those_that_are_always_there(desk: Sandbox) -> None:
    own = '[supervise.restart.lost-peers]\npatterns = ["no peers"]\ncodes = [7]\n'
    trainer(desk, FAILS_TWICE % "there are no peers left", own)
    assert "(lost-peers)" in desk.drydock("run", "small", "--supervise").succeeded().stderr
    trainer(desk, "import os; os._exit(7)", "budget = 1\n" + own)
    desk.drydock("run", "small", "--supervise").failed(7, "(lost-peers)", "budget of 1 restarts")


def test_rl_swarm_is_started_again_where_it_found_no_peers() -> None:
    """The last line of gensyn-ai/rl-swarm issue 332."""
    line = "P2PDaemonError: Daemon failed to start: 2025/06/07 09:43:13 failed to connect to bootstrap peers"
    cases = Catalogue([ROOT / "profiles"]).profile("m4").supervise.cases
    fitting = [name for name, case in cases.items() if Case(name, patterns=tuple(case.patterns)).fits(1, [line])]
    assert fitting == ["lost-peers"]
    assert {"killed", "out-of-memory", "empty-loader"} <= set(cases)


def test_any_other_failure_is_passed_on_at_once(desk: Sandbox) -> None:
    trainer(desk, "raise SystemExit(3)")
    desk.drydock("run", "small", "--supervise").failed(3, "exit status 3", "no restart case")
    assert state(desk)["restarts"] == 0


@pytest.mark.slow
def test_the_budget_ends_and_the_trainers_status_is_passed_on(desk: Sandbox) -> None:
    trainer(desk, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "budget = 3\n")
    done = desk.drydock("run", "small", "--supervise").failed(137, "budget of 3 restarts")
    assert done.stderr.count("restarting it") == 3


@pytest.mark.slow
def test_arguments_go_to_the_trainer_and_ours_may_stand_after_the_name(desk: Sandbox) -> None:
    trainer(desk, "import sys; print(sys.argv[1:])")
    done = desk.drydock("run", "small", "--supervise", "--", "--supervise", "-f").succeeded()
    assert done.stdout == "['--supervise', '-f']\n"
    for words in (["--supervise", "small"], ["small", "--supervise"]):
        assert desk.drydock("run", *words, "--", "--steps", "5").succeeded().stdout == "['--steps', '5']\n"


@pytest.mark.slow
def test_quiet_leaves_the_trainers_words_to_the_log(desk: Sandbox) -> None:
    trainer(desk, "print('out')")
    done = desk.drydock("--quiet", "run", "small", "--supervise").succeeded()
    assert (done.stdout, done.stderr) == ("", "")
    assert "out\n" in log(desk)


@pytest.mark.slow
def test_a_killed_trainer_is_back_within_its_backoff_and_a_second(desk: Sandbox) -> None:
    trainer(desk, "import time; time.sleep(600)")
    with supervised(desk):
        until(lambda: state(desk)["phase"] == "running")
        first = state(desk)["trainer"]
        os.kill(int(str(first)), signal.SIGKILL)
        killed = time.monotonic()
        until(lambda: state(desk)["trainer"] != first and state(desk)["phase"] == "running")
        assert time.monotonic() - killed < allowed(1.05)


SAVES = """
import os, pathlib, signal, sys
step = int(pathlib.Path(sys.argv[2], 'state.json').read_text()) if sys.argv[1:2] == ['--resume'] else 0
print('from', step, *sys.argv[1:], flush=True)
while step < 6:
    step += 1
    folder = pathlib.Path(f'out/checkpoint-{step}'); folder.mkdir(parents=True)
    (folder / 'model.pt').write_bytes(b'PK cut off' if step == 4 else b'whole')
    if step == 4: os.kill(os.getpid(), signal.SIGKILL)
    (folder / 'state.json').write_text(str(step))
"""
RESUME = 'resume = { flag = "--resume", newest = "out/checkpoint-*", has = ["state.json"] }\n'


@pytest.mark.slow
def test_a_killed_trainer_goes_on_from_its_newest_whole_checkpoint(desk: Sandbox) -> None:
    shutil.rmtree(desk.work / "out", ignore_errors=True)
    trainer(
        desk,
        SAVES.replace("folder.mkdir(parents=True)", "folder.mkdir(parents=True, exist_ok=True)").replace(
            "if step == 4: os", "if step == 4 and len(sys.argv) == 1: os"
        ),
        RESUME,
    )
    done = desk.drydock("run", "small", "--supervise")
    assert done.code == 0, done.stderr
    assert done.stdout.splitlines() == ["from 0", "from 3 --resume out/checkpoint-3"]
    assert "out/checkpoint-4 is not whole, and is passed over" in done.stderr
    assert "going on from out/checkpoint-3\n" in done.stderr
    own = desk.drydock("run", "small", "--supervise", "--", "--resume", "out/checkpoint-2").succeeded()
    assert own.stdout.splitlines() == ["from 2 --resume out/checkpoint-2"], "what the caller gives wins"
    for path in (desk.work / "out").rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))  # of a time before this environment
    done = desk.drydock("run", "small", "--supervise").succeeded()
    assert "which is older than this environment: one of another key may have written it" in done.stderr
    shutil.rmtree(desk.work / "out")


def test_the_newest_is_that_of_the_greatest_step(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}/model").touch()
    words = ("--resume", "{checkpoint}")
    resume = Resume(words, "checkpoint-*")
    assert resume.find([], tmp_path) == (["--resume", "checkpoint-100"], Path("checkpoint-100"), [])
    assert resume.find(["--resume=x"], tmp_path) == ([], None, [])
    assert Resume(words, "none-*").find([], tmp_path) == ([], None, [])
    # As a trainer that is run in a copy of its source has them, and one in its working tree.
    of_copy = Resume(words, "model", copy="checkpoint-9", needs="checkpoint-10/none")
    assert of_copy.find([], tmp_path) == (["--resume", "model"], Path("model"), [])
    in_tree = Resume(words, "model", copy="checkpoint-9", needs="checkpoint-10/model")
    assert in_tree.find([], tmp_path) == ([], None, [])


@pytest.mark.parametrize(
    ("words", "given", "added"),
    [
        (("--init_from=resume",), ["config/a.py"], ["--init_from=resume"]),
        (("--init_from=resume",), ["--init_from=gpt2"], []),
        (("ckpt_path={checkpoint}", "resume=true"), ["lr=1"], ["ckpt_path=ckpt.pt", "resume=true"]),
        (("ckpt_path={checkpoint}", "resume=true"), ["resume=false"], []),
        (("{checkpoint}",), ["--resume"], ["ckpt.pt"]),
        (("--resume",), ["--resume-never"], ["--resume"]),
    ],
)
def test_a_trainer_goes_on_by_arguments_of_its_own(
    tmp_path: Path, words: tuple[str, ...], given: list[str], added: list[str]
) -> None:
    (tmp_path / "ckpt.pt").write_bytes(b"whole")
    assert Resume(words, "ckpt.pt").find(given, tmp_path).arguments == added
    assert Resume(words, "none.pt").find(given, tmp_path).arguments == []


def safetensors(data: bytes) -> bytes:
    head = json.dumps({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode()
    return len(head).to_bytes(8, "little") + head + data


@pytest.mark.parametrize(
    ("name", "content", "whole"),
    [
        ("model.safetensors", safetensors(b"abcd"), True),
        ("model.safetensors", safetensors(b"abc"), False),
        ("model.safetensors", safetensors(b"abcd")[:30], False),
        ("model.safetensors", b"", False),
        ("model.safetensors", b"\xff" * 40, False),
        ("trainer_state.json", b'{"step": 1}', True),
        ("trainer_state.json", b'{"step": ', False),
        ("optimizer.pt", b"PK\x03\x04 and no end", False),
        ("optimizer.pt", b"", False),
        ("optimizer.pt", b"\x80\x02 a pickle of old", True),
    ],
)
def test_a_checkpoint_that_is_cut_off_is_not_whole(tmp_path: Path, name: str, content: bytes, *, whole: bool) -> None:
    (tmp_path / name).write_bytes(content)
    assert is_whole(tmp_path) == whole
    assert is_whole(tmp_path / name) == whole
    assert not is_whole(tmp_path, ["what is not there"])


def test_a_checkpoint_is_looked_for_in_the_working_directory_only(desk: Sandbox) -> None:
    trainer(desk, "pass", 'resume = { flag = "--resume", newest = "out/../../*" }\n')
    desk.drydock("profile", "check", "small").failed(1, "leads out of the working directory")


@pytest.mark.parametrize("way", ["", 'flag = "--resume", arguments = ["--resume"], '])
def test_there_is_one_way_to_go_on(desk: Sandbox, way: str) -> None:
    trainer(desk, "pass", f'resume = {{ {way}newest = "out/*" }}\n')
    desk.drydock("profile", "check", "small").failed(
        1, "supervise.resume", 'either flag, as in "--resume", or arguments'
    )


@pytest.mark.slow
def test_none_of_it_is_in_a_key_a_lock_or_a_script(desk: Sandbox) -> None:
    desk.profile("small")
    before = desk.script("small").read_text()
    path = desk.work / "profiles/small.toml"
    path.write_text(path.read_text() + "[supervise]\nbudget = 3\n[supervise.restart.killed]\ncodes = []\n")
    desk.drydock("lock", "--check", "small").succeeded()
    assert desk.drydock("build", "small").succeeded().stderr == "small is built\n"
    assert desk.script("small").read_text() == before


# --- stopping ------------------------------------------------------------------------------------------------------

CLEANS_UP = """
import signal, sys, time
def end(number, frame):
    print('cleaning up after', signal.Signals(number).name, flush=True); sys.exit(number)
for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP): signal.signal(one, end)
print('ready', flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.slow
def test_a_signal_reaches_the_trainer_and_its_status_comes_back(desk: Sandbox, number: signal.Signals) -> None:
    trainer(desk, CLEANS_UP)
    with supervised(desk) as running:
        until(lambda: "ready" in log(desk))
        running.send_signal(number)
        out, _ = running.communicate(timeout=LONG)
        assert running.returncode == number
        assert f"cleaning up after {number.name}" in out.decode()
    assert (state(desk)["phase"], state(desk)["why"]) == ("ended", "stopped")


@pytest.mark.slow
def test_a_trainer_that_ignores_the_signal_is_killed_after_its_time_of_grace(desk: Sandbox) -> None:
    trainer(
        desk,
        "import signal, time\nfor one in (2, 15, 1): signal.signal(one, signal.SIG_IGN)\n"
        "print('ready', flush=True)\ntime.sleep(600)",
    )
    with supervised(desk) as running:
        until(lambda: "ready" in log(desk))
        told = time.monotonic()
        running.terminate()
        _, err = running.communicate(timeout=LONG)
        assert 1.9 < time.monotonic() - told < allowed(4)
        assert running.returncode == 137
        assert "killing it" in err.decode()


STARTS_OTHERS = """
import subprocess, sys, time
sleeps = [sys.executable, '-c', 'import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)']
subprocess.Popen(sleeps)
subprocess.Popen(sleeps, start_new_session=True)
time.sleep(0.3)
print('ready', flush=True)
%s
"""


@pytest.mark.slow
def test_what_the_trainer_started_ends_with_it_in_other_sessions_too(desk: Sandbox) -> None:
    trainer(desk, STARTS_OTHERS % "time.sleep(600)")
    with supervised(desk) as running:
        until(lambda: "ready" in log(desk))
        assert len(leftovers(desk)) >= 3
        running.terminate()
        running.communicate(timeout=LONG)
        assert running.returncode == 143


@pytest.mark.slow
def test_what_a_crashed_trainer_left_is_gone_before_the_next_one_starts(desk: Sandbox) -> None:
    trainer(desk, STARTS_OTHERS % "import os; os.kill(os.getpid(), 9)", "budget = 2\n")
    desk.drydock("run", "small", "--supervise").failed(137)
    assert not leftovers(desk)


@pytest.mark.slow
def test_a_trainer_that_goes_into_the_background_is_still_the_trainer(desk: Sandbox) -> None:
    trainer(
        desk,
        "import os, time\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\n"
        "print('in the background', flush=True); time.sleep(4); print('trained', flush=True); os._exit(5)",
    )
    done = desk.drydock("run", "small", "--supervise").failed(5, "went on in the background")
    assert done.stdout == "in the background\ntrained\n"


@pytest.mark.slow
def test_a_trainer_in_the_background_is_stopped_too(desk: Sandbox) -> None:
    trainer(
        desk,
        "import os, time\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\n"
        "print('in the background', flush=True); time.sleep(600)",
    )
    with supervised(desk):
        until(lambda: "watching that" in log(desk))
        assert "is stopped" in desk.drydock("run", "small", "--stop").succeeded().stderr


# --- status, logs, stop --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_status_logs_and_stop_of_a_run(desk: Sandbox) -> None:
    trainer(desk, CLEANS_UP)
    with supervised(desk, env={"DRYDOCK_RECORDS": "1"}) as running:
        until(lambda: "ready" in log(desk))
        told = desk.drydock("run", "small", "--status").succeeded().stdout
        assert told.startswith("small is running for ")
        assert f"supervisor: process {running.pid}, restarts: 0" in told
        assert json.loads(desk.drydock("run", "small", "--status", "--json").succeeded().stdout)["phase"] == "running"
        assert desk.drydock("run", "small", "--logs").succeeded().stdout == log(desk)
        following = desk.start("run", "small", "--logs", "-f")
        until(lambda: psutil.Process(following.pid).cpu_times().user > 0)
        assert "small is stopped" in desk.drydock("run", "small", "--stop").succeeded().stderr
        followed, _ = following.communicate(timeout=LONG)
        assert followed.decode() == log(desk)
    assert "small ended" in desk.drydock("run", "small", "--status").succeeded().stdout
    assert re.search(r"small +stopped ", desk.drydock("runs", "list").succeeded().stdout)
    assert "not running" in desk.drydock("run", "small", "--stop").succeeded().stderr


@pytest.mark.slow
def test_what_never_ran_has_no_status_and_no_log(desk: Sandbox) -> None:
    desk.drydock("run", "small", "--status").failed(2, "never supervised", "--supervise")
    desk.drydock("run", "small", "--logs").failed(2, "has no log")
    desk.drydock("run", "small", "--stop", "--status").failed(2, "do not go together")
    desk.drydock("run", "small", "--stop", "--", "--steps").failed(2, "--steps")


@pytest.mark.slow
def test_a_second_supervisor_is_refused_with_the_process_id_of_the_first(desk: Sandbox) -> None:
    trainer(desk, CLEANS_UP)
    with supervised(desk) as running:
        until(lambda: "ready" in log(desk))
        desk.drydock("run", "small", "--supervise").failed(1, f"supervised already, by process {running.pid}", "--stop")
        assert log(desk).count("ready") == 1


@pytest.mark.slow
def test_there_is_one_supervisor_where_the_file_system_has_no_locks(desk: Sandbox, tmp_path: Path) -> None:
    if (reason := machines.why_not()) is not None:
        pytest.skip(reason)
    trainer(desk, "import time; print('up', flush=True); time.sleep(60)")
    desk.drydock("build", "small").succeeded()
    inside = f"""\
{sys.executable} -m builder run small --supervise &
until grep -q up '{folder(desk)}/log'; do sleep 0.1; done 2>/dev/null
{sys.executable} -m builder run small --supervise && exit 3
{sys.executable} -m builder run small --stop || exit 4
wait
"""
    there = machines.Machine("elsewhere", desk.store.parent, tmp_path)
    done = desk.run([*there.command, "sh", "-c", inside], timeout=60).succeeded()
    assert "small is supervised already, by process" in done.stderr
    assert "small is stopped" in done.stderr


@pytest.mark.slow
def test_a_supervisor_that_was_killed_blocks_nothing_but_its_trainer_is_told_of(desk: Sandbox) -> None:
    trainer(desk, CLEANS_UP)
    with supervised(desk) as running:
        until(lambda: "ready" in log(desk))
        running.kill()
        running.wait()
        assert "no supervisor any more" in desk.drydock("run", "small", "--status").succeeded().stdout
        desk.drydock("run", "small", "--supervise").failed(1, f"process {state(desk)['trainer']}, still runs", "--stop")
        assert "its supervisor was killed" in desk.drydock("run", "small", "--stop").succeeded().stderr
    trainer(desk, "print('again')")
    assert desk.drydock("run", "small", "--supervise").succeeded().stdout == "again\n"


@pytest.mark.slow
@pytest.mark.parametrize("trainer_too", [False, True])
def test_what_outlived_its_supervisor_in_a_session_of_its_own_is_stopped(desk: Sandbox, *, trainer_too: bool) -> None:
    trainer(
        desk,
        "import subprocess, sys, time\n"
        "code = 'import os; os.setsid(); print(os.getpid(), flush=True); import time; time.sleep(300)'\n"
        "child = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)\n"
        "print('apart', child.stdout.readline().strip(), 'ready', flush=True)\n"
        "time.sleep(300)\n",
    )
    with supervised(desk) as running:
        until(lambda: "ready" in log(desk))
        apart = int(log(desk).partition("apart ")[2].split()[0])
        running.kill()
        running.wait()
        if trainer_too:
            os.killpg(int(str(state(desk)["trainer"])), signal.SIGKILL)
        os.kill(apart, 0)
        assert "its supervisor was killed" in desk.drydock("run", "small", "--stop").succeeded().stderr
        until(lambda: not psutil.pid_exists(apart) or psutil.Process(apart).status() == psutil.STATUS_ZOMBIE)
        assert "is not running" in desk.drydock("run", "small", "--stop").succeeded().stderr


# --- secrets -------------------------------------------------------------------------------------------------------

TELLS = """
import os, sys, time
token = os.environ['HF_TOKEN']
print('the token is', token, flush=True)
for char in 'slowly ' + token: sys.stderr.write(char); sys.stderr.flush(); time.sleep(0.005)
print('key', os.environ.get('WANDB_API_KEY'))
"""


def all_that_is_kept(desk: Sandbox) -> str:
    home = desk.store.parent
    kept = [*folder(desk).rglob("*"), *home.rglob("manifest.json"), *(home / "cache").rglob("*")]
    return "".join(path.read_text() for path in kept if path.is_file())


@pytest.mark.slow
def test_a_secret_reaches_the_trainer_and_nothing_that_is_kept_or_shown(desk: Sandbox) -> None:
    trainer(desk, TELLS + "time.sleep(1)")
    with supervised(desk, env={"HF_TOKEN": "hf_abcdefghij", "WANDB_API_KEY": "none"}) as running:
        until(lambda: "key none" in log(desk))
        lines = " ".join(" ".join(one.cmdline()) for one in [psutil.Process(running.pid), *leftovers(desk)])
        out, err = (part.decode() for part in running.communicate(timeout=LONG))
    assert "the token is [HF_TOKEN]\n" in out
    assert "slowly [HF_TOKEN]" in err
    assert "the token is [HF_TOKEN]\n" in log(desk)
    assert "hf_abc" not in lines + out + err + all_that_is_kept(desk)


@pytest.mark.parametrize("how", [["--supervise"], []])
@pytest.mark.slow
def test_a_file_of_the_users_own_has_secrets_and_what_is_exported_wins(desk: Sandbox, how: list[str]) -> None:
    trainer(desk, "import os; print(len(os.environ['HF_TOKEN']), os.environ['MY_OWN'])")
    file = desk.root / "secrets"
    file.write_text("# mine\nHF_TOKEN=hf_abcdefghij\nexport MY_OWN='quoted'\n")
    file.chmod(0o600)
    env = {"DRYDOCK_SECRETS": str(file), "MY_OWN": "exported"}
    assert desk.drydock("run", "small", *how, env=env).succeeded().stdout.split()[0] == "13"
    file.chmod(0o640)
    desk.drydock("run", "small", *how, env=env).failed(1, "can be read by others (mode 0640)", f"chmod 600 {file}")
    file.chmod(0o600)
    file.write_text("hf_abcdefghij\n")
    refused = desk.drydock("run", "small", *how, env=env).failed(1, "NAME=value", f"{file}:1")
    assert "hf_abc" not in refused.stderr
    desk.drydock("run", "small", *how, env={"DRYDOCK_SECRETS": "/nowhere"}).failed(1, "/nowhere does not exist")


def test_a_secret_among_the_arguments_is_refused(desk: Sandbox) -> None:
    desk.profile("small")
    refused = desk.drydock("run", "small", "--", "--token=hf_abcdefghij", env={"HF_TOKEN": "hf_abcdefghij"})
    refused.failed(2, "the value of HF_TOKEN")
    assert "hf_abc" not in refused.stderr
    path = desk.work / "profiles/small.toml"
    path.write_text(path.read_text() + '[[trainer.options]]\nflag = "--token"\nfrom = "HF_TOKEN"\n')
    desk.drydock("profile", "check", "small").failed(1, "every user of the machine can see")


# --- memory --------------------------------------------------------------------------------------------------------

GROWS = """
import signal, sys, time
def end(number, frame): print('saved', flush=True); sys.exit(0)
signal.signal(signal.SIGTERM, end)
hoard = []
for n in range(600): hoard.append(b'x' * 10**6 * %d); time.sleep(0.05)
"""


@pytest.mark.slow
def test_the_guard_stops_a_trainer_that_takes_too_much_memory_and_names_the_line(desk: Sandbox) -> None:
    share = 3e8 / psutil.virtual_memory().total
    trainer(desk, GROWS % 10, f"[supervise.memory-guard]\nresident = {share:.6f}\n")
    done = desk.drydock("run", "small", "--supervise").failed(1, "the trainer holds 0.", "before the system kills it")
    line = (desk.work / "profiles/small.toml").read_text().split("resident")[0].count("\n") + 1
    assert f"profiles/small.toml:{line}: supervise.memory-guard.resident: make batches smaller" in done.stderr
    assert done.stdout == "saved\n"
    assert "memory-guard.resident" in str(state(desk)["why"])


@pytest.mark.slow
def test_a_trainer_within_its_memory_is_left_alone(desk: Sandbox) -> None:
    trainer(desk, "import time; time.sleep(2)", "[supervise.memory-guard]\nresident = 0.9\n")
    assert desk.drydock("run", "small", "--supervise").succeeded().stderr == ""


def test_the_guard_is_there_where_pytorchs_own_limit_is_lifted() -> None:
    profiles = Catalogue([ROOT / "profiles"])
    assert profiles.profile("m4").memory_guard is not None
    assert profiles.profile("cpu").memory_guard is None
    guard = _guard(profiles.entry("m4"), None)
    assert guard is not None
    assert re.match(r"profiles/m4.toml:\d+: env.PYTORCH_MPS_HIGH_WATERMARK_RATIO: set .* = \"0.7\"", guard.advice)


@given(st.integers(0, 2**40), st.integers(-(2**30), 2**40))
def test_the_guard_minds_both_limits(resident: int, grown: int) -> None:
    found = Guard(2**34, 0.9, 0.25, "").exceeded(resident, grown)
    assert (found is not None) == (resident > 0.9 * 2**34 or grown > 2**32)


@pytest.mark.slow
def test_samples_tell_what_the_tree_uses(desk: Sandbox) -> None:
    code = "import subprocess, sys, time; hoard = b'x' * 10**8; "
    code += (
        "subprocess.run([sys.executable, '-c', 'import time\\nend = time.time() + 3\\nwhile time.time() < end: pass'])"
    )
    trainer(desk, code)
    desk.drydock("run", "small", "--supervise").succeeded()
    samples = [json.loads(line) for line in (folder(desk) / "samples.jsonl").read_text().splitlines()]
    both = [sample for sample in samples if sample["processes"] == 2]
    assert any(10**8 < sample["resident"] < 2 * 10**8 for sample in both), samples
    # How much of a core it got, this machine decides: but it never rested.
    assert max(sample["cores"] for sample in both) > 0.1
    assert all(sample["cores"] < 2.5 for sample in samples)
    assert abs(samples[-1]["time"] - time.time()) < 60


NVIDIA_SMI = """#!/bin/sh
case "$*" in *--loop=1*) ;; *) exit 2 ;; esac
while :; do printf '0, 37, 1024\\n1, [N/A], 2048\\n'; sleep 0.2; done
"""


@pytest.mark.slow
def test_gpus_are_in_the_samples_where_nvidia_smi_tells(tmp_path: Path) -> None:
    """There is no GPU here: a program that answers as nvidia-smi does, for as long as it is let."""
    smi, run = tmp_path / "bin/nvidia-smi", tmp_path / "run"
    smi.parent.mkdir()
    run.mkdir()
    smi.write_text(NVIDIA_SMI)
    smi.chmod(0o755)
    policy = Policy(grace=2, sample_every=0.5, log_size=10**6, log_files=1)
    request = Request("small", ["sleep", "2"], str(tmp_path / "root"), policy, gpus=True)
    (run / "request.json").write_text(json.dumps(asdict(request)))
    lock = os.open(run / "lock", os.O_RDWR | os.O_CREAT)
    command = [sys.executable, "-P", "-m", "builder.run.supervise", str(run), str(lock)]
    env = {**os.environ, "PATH": f"{smi.parent}:{os.environ['PATH']}"}
    assert subprocess.run(command, env=env, pass_fds=[lock], timeout=20).returncode == 0
    os.close(lock)
    last = json.loads((run / "samples.jsonl").read_text().splitlines()[-1])
    assert last["gpus"] == [
        {"index": 0, "busy": 0.37, "memory": 2**30},
        {"index": 1, "busy": None, "memory": 2**31},
    ]
    assert last["processes"] == 1
    assert not [one for one in psutil.process_iter(["cmdline"]) if str(smi) in (one.info["cmdline"] or [])]


# --- logs, and disks -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_flood_is_kept_within_bounds(desk: Sandbox) -> None:
    trainer(desk, "for n in range(60_000): print(f'line {n:06}', 'x' * 80)", "log-size = 0.5\nlog-files = 2\n")
    done = desk.drydock("run", "small", "--supervise").succeeded()
    assert done.stdout.count("\n") == 60_000
    sizes = {path.name: path.stat().st_size for path in folder(desk).glob("log*")}
    assert sorted(sizes) == ["log", "log.1", "log.2"]
    assert max(sizes.values()) <= 500_000 + 64 * 1024
    kept = re.findall(r"^line (\d+)", desk.drydock("run", "small", "--logs").succeeded().stdout, re.MULTILINE)
    assert kept == [f"{n:06}" for n in range(int(kept[0]), 60_000)]


@pytest.mark.slow
def test_a_full_disk_stops_no_trainer_and_is_said_once(desk: Sandbox) -> None:
    trainer(desk, "import time\nfor n in range(5): print('x' * 100_000, flush=True); time.sleep(0.1)\nprint('trained')")
    folder(desk).mkdir(parents=True)
    with tmpfs(folder(desk), "200k"):
        done = desk.drydock("run", "small", "--supervise").succeeded()
        assert done.stdout.endswith("trained\n")
        assert done.stderr.count("No space left on device") == 1


@pytest.mark.slow
def test_a_reader_that_has_gone_stops_no_trainer(desk: Sandbox) -> None:
    trainer(desk, "for n in range(2000): print('x' * 100)\nprint('trained')")
    running = desk.start("run", "small", "--supervise")
    assert running.stdout is not None
    running.stdout.close()
    with running:
        assert running.wait(LONG) == 0
    assert "trained" in log(desk)


@pytest.mark.slow
def test_a_reader_that_takes_nothing_holds_the_trainer_up_for_seconds_only(desk: Sandbox) -> None:
    trainer(desk, "for n in range(20_000): print('x' * 100)\nprint('trained')")
    running = desk.start("run", "small", "--supervise")
    until(lambda: "trained" in log(desk))
    running.communicate(timeout=LONG)
    assert running.returncode == 0


@pytest.mark.slow
def test_a_thousand_crashes_in_a_row_leak_nothing(desk: Sandbox) -> None:
    path = desk.work / "profiles/small.toml"
    text, trainer, _ = path.read_text().partition("[trainer]\n")
    # Each leaves an orphan, too. A shell starts in a tenth of Python's time.
    path.write_text(f'{text}{trainer}command = ["sh", "-c", ": & exit 9"]\n{CRASHES}')
    roots = desk.store.parent / "gcroots/running"
    files = {one.name for one in roots.iterdir()} if roots.is_dir() else set()

    def is_zombie(one: psutil.Process) -> bool:
        try:
            return bool(one.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:  # it ended after it was listed
            return False

    def used(process: psutil.Process) -> tuple[int, int, int]:
        zombies = [one for one in process.children(recursive=True) if is_zombie(one)]
        return process.num_fds(), process.memory_info().rss, len(zombies)

    with supervised(desk) as running:
        process = psutil.Process(running.pid)
        until(lambda: int(str(state(desk)["restarts"])) >= 100)
        descriptors, resident, _ = used(process)
        until(lambda: int(str(state(desk)["restarts"])) >= 990, 600)
        then = used(process)
        running.communicate(timeout=LONG)
        assert running.returncode == 9
    # A trainer under way has two pipes, or is about to have them.
    assert then[0] <= descriptors + 8
    assert then[1] <= resident + 2**20
    assert then[2] <= 2
    assert state(desk)["restarts"] == 1000
    assert {one.name for one in roots.iterdir()} <= files
    assert {one.name for one in folder(desk).iterdir()} == {
        "lock",
        "log",
        "request.json",
        "samples.jsonl",
        "state.json",
    }


CRASHES = """
[supervise]
backoff = 0
budget = 1000
window = 100000
[supervise.restart.crash]
codes = [9]
"""


# --- the decision --------------------------------------------------------------------------------------------------

POLICY = Policy((Case("killed", (137,)), Case("memory", patterns=("out of memory",))), 5, 300, 600, 4, 3600)
policies = st.builds(
    Policy,
    st.just(POLICY.cases),
    backoff=st.floats(0, 100),
    longest=st.floats(0, 1000),
    healthy=st.floats(0, 1000),
    budget=st.integers(0, 5),
    window=st.floats(0, 5000),
)


@given(policies, st.lists(st.tuples(st.floats(0, 2000), st.sampled_from([1, 137]))))
def test_there_are_never_more_restarts_than_the_budget_in_any_window(
    policy: Policy, runs: list[tuple[float, int]]
) -> None:
    now, history, starts = 0.0, History(), []
    for lasted, code in runs:
        now += lasted
        decision = decide(code, [], lasted, now, history, policy)
        assert isinstance(decision, Restart | GiveUp)
        if isinstance(decision, GiveUp):
            break
        assert 0 <= decision.after <= policy.longest
        now, history = now + decision.after, decision.history
        starts.append(now)
        assert len([one for one in starts if one > now - policy.window]) <= policy.budget
        assert len(history.restarts) <= policy.budget


@given(st.integers(0, 20))
def test_each_wait_is_twice_the_one_before_up_to_the_longest(failures: int) -> None:
    decision = decide(137, [], 1, 0, History(failures), POLICY)
    assert isinstance(decision, Restart)
    assert decision.after == min(5 * 2**failures, 300)


def test_a_healthy_run_begins_the_waits_anew_and_keeps_the_budget() -> None:
    decision = decide(137, [], 600, 1000, History(6, (900.0,)), POLICY)
    assert decision == Restart(5, "killed", History(1, (900.0, 1005.0)))


@given(st.integers(0, 255), st.lists(st.text()))
def test_only_what_a_case_names_is_started_again(code: int, lines: list[str]) -> None:
    decision = decide(code, lines, 1, 0, History(), POLICY)
    named = code == 137 or any("out of memory" in line for line in lines)
    assert isinstance(decision, Done if code == 0 else Restart if named else GiveUp)


# --- its parts -----------------------------------------------------------------------------------------------------


@given(
    st.lists(st.sampled_from(["hf_", "hf_hf_hf_secret", "hf_secret", "secrethf_", "cret", "x", "\n", "hf_secretary"])),
    st.lists(st.integers(1, 12), min_size=1),
)
def test_a_secret_is_taken_out_however_the_stream_is_cut(words: list[str], cuts: list[int]) -> None:
    secrets = {"ONE": "hf_secret", "TWO": "secrethf_", "THREE": "hf_secretary", "FOUR": "hf_hf_hf_secret"}
    text = "".join(words).encode()
    whole, pieces = Redactor(secrets), Redactor(secrets)
    expected = whole.feed(text) + whole.rest()
    out, at = b"", 0
    for cut in cuts * (len(text) + 1):
        if at >= len(text):
            break
        out, at = out + pieces.feed(text[at : at + cut]), at + cut
    assert out + pieces.rest() == expected
    assert not any(value.encode() in expected for value in secrets.values())


def test_a_secret_is_taken_out_in_the_forms_that_programs_write_it_in() -> None:
    redactor = Redactor({"TOKEN": 'hf_a+b/c"\u00e9'})
    text = b'hf_a+b/c"\xc3\xa9 hf_a%2Bb%2Fc%22%C3%A9 hf_a+b/c\\"\\u00e9 aGZfYStiL2Miw6k= '
    assert redactor.feed(text) + redactor.rest() == b"[TOKEN] [TOKEN] [TOKEN] [TOKEN]= "


@given(st.lists(st.binary(max_size=50)), st.integers(1, 60))
def test_the_tail_has_the_last_bytes(pieces: list[bytes], size: int) -> None:
    tail = Tail(size)
    for piece in pieces:
        tail.add(piece)
    assert tail.lines() == b"".join(pieces)[-size:].decode(errors="replace").splitlines()


def test_a_log_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    said: list[str] = []
    file = RotatingFile(tmp_path / "gone/log", 100, 2, said.append)
    file.write(b"one")
    file.write(b"two")
    assert len(said) == 1
    (tmp_path / "gone").mkdir()
    file.write(b"three")
    assert (tmp_path / "gone/log").read_bytes() == b"three"
    file.close()


# --- services ------------------------------------------------------------------------------------------------------

ODD = "50% of $HOME 'and' \"this\" <&> \\\\ é"


def environment_of(unit: Path, key: str) -> list[str]:
    return [line.partition("=")[2] for line in unit.read_text().splitlines() if line.startswith(f"{key}=")]


def test_a_unit_of_systemd_is_written_and_removed(desk: Sandbox) -> None:
    desk.profile("small", tail='[[trainer.options]]\nflag = "--game"\nfrom = "GAME"\n')
    env = {"GAME": ODD, "HF_TOKEN": "hf_abcdefghij"}
    done = desk.drydock("service", "install", "small", env=env).succeeded()
    unit = desk.home / ".config/systemd/user/drydock-small.service"
    assert done.stdout == f"{unit}\n"
    assert "systemctl --user enable --now drydock-small.service" in done.stderr.replace("daemon-reload && ", "")
    assert "HF_TOKEN is exported here, and a service does not see that" in done.stderr
    assert "hf_abc" not in unit.read_text() + done.stderr
    assert str(desk.work) in environment_of(unit, "WorkingDirectory")
    if shutil.which("systemd-analyze"):
        checked = desk.run(["systemd-analyze", "--user", "verify", str(unit)], env={"XDG_RUNTIME_DIR": str(desk.root)})
        assert not [line for line in checked.stderr.splitlines() if "drydock-small" in line], checked.stderr
    assert desk.drydock("service", "uninstall", "small").succeeded().stdout == f"{unit}\n"
    assert not unit.exists()
    desk.drydock("service", "uninstall", "small").failed(2, "is not a service")


def test_an_agent_of_launchd_says_what_the_unit_says(desk: Sandbox) -> None:
    desk.profile("small", tail='[[trainer.options]]\nflag = "--game"\nfrom = "GAME"\n')
    told = desk.drydock("service", "install", "small", "--print", "--manager", "launchd", env={"GAME": ODD}).succeeded()
    agent = plistlib.loads(told.stdout.encode())
    assert agent["Label"] == "drydock.small"
    assert agent["ProgramArguments"][1:] == ["-P", "-m", "builder", "--quiet", "run", "small", "--supervise"]
    assert agent["EnvironmentVariables"]["GAME"] == ODD
    assert agent["WorkingDirectory"] == str(desk.work)
    assert not (desk.home / "Library").exists()
    bell = desk.drydock("service", "install", "small", "--print", "--manager", "launchd", env={"GAME": "\a"})
    bell.failed(1, "a service of launchd cannot express it: a control character")
    trainer(desk, "import os; print(os.getcwd())")
    ran = desk.run(agent["ProgramArguments"], env=agent["EnvironmentVariables"]).succeeded()
    assert ran.stdout + ran.stderr == ""
    assert f"{desk.work}\n" in log(desk)


@pytest.mark.slow
def test_a_file_that_is_not_ours_is_left_alone(desk: Sandbox) -> None:
    desk.profile("small")
    unit = desk.home / ".config/systemd/user/drydock-small.service"
    unit.parent.mkdir(parents=True, exist_ok=True)
    unit.write_text("[Unit]\n")
    for command in ("install", "uninstall"):
        desk.drydock("service", command, "small").failed(2, "was not made by Drydock")
    assert unit.read_text() == "[Unit]\n"
    unit.unlink()


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("50% of $HOME", '"50%% of $$HOME"'),
        ('a "word"', '"a \\"word\\""'),
        ("back\\slash", '"back\\\\slash"'),
        ("two\nlines", '"two\\nlines"'),
    ],
)
def test_a_word_of_a_unit_is_quoted(text: str, quoted: str) -> None:
    assert systemd_word(text) == quoted


def test_a_path_that_a_unit_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="path"):
        systemd_path("/with\nnewline")


# --- the stop ------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0, 100), st.sampled_from([signal.SIGTERM, signal.SIGHUP, signal.SIGINT, None]))))
def test_one_signal_is_passed_on_and_the_kill_never_comes_later_than_the_grace(
    events: list[tuple[float, signal.Signals | None]],
) -> None:
    """None stands for a look at the clock."""
    now, held, passed, first = 0.0, stop.Stop(), [], None
    for after, number in events:
        now += after
        if number is None:
            before = held
            held, kills = stop.overdue(held, now)
            assert kills == (now >= before.kill_at)
            continue
        first = now if first is None else first
        held, told = stop.on_signal(held, number, now, 30)
        passed += [] if told is None else [told]
        assert held.kill_at <= max(now, first + 30) + 1
    asked = [number for _, number in events if number is not None]
    assert passed == asked[:1]
    assert held.is_asked == bool(asked)


def test_who_asks_twice_at_the_keyboard_does_not_wait() -> None:
    held, _ = stop.on_signal(stop.Stop(), signal.SIGINT, 10, 30)
    assert stop.overdue(held, 39) == (held, False)
    assert stop.on_signal(held, signal.SIGTERM, 11, 30) == (held, None)
    held, told = stop.on_signal(held, signal.SIGINT, 12, 30)
    assert (stop.overdue(held, 12)[1], told) == (True, None)


def test_too_much_memory_ends_a_run_once_and_only_one_that_nobody_stops() -> None:
    held, told = stop.exceeded(stop.Stop(), "12 GB", 10, 30)
    assert (held, told) == (stop.Stop(None, "12 GB", 40), signal.SIGTERM)
    assert stop.exceeded(held, "13 GB", 20, 30) == (held, None)
    assert stop.exceeded(stop.Stop(), None, 20, 30) == (stop.Stop(), None)
    asked, _ = stop.on_signal(stop.Stop(), signal.SIGTERM, 10, 30)
    assert stop.exceeded(asked, "12 GB", 20, 30) == (asked, None)
    assert [held.verdict(0), held.verdict(143), asked.verdict(143)] == [(1, "12 GB"), (143, "12 GB"), (143, "stopped")]


def test_a_signal_that_came_before_the_trainer_is_passed_on_when_it_is_there() -> None:
    held, _ = stop.on_signal(stop.Stop(), signal.SIGTERM, 10, 30)
    assert stop.begun(held, 20, 30) == (stop.Stop(signal.SIGTERM, None, 50), signal.SIGTERM)
    assert stop.begun(stop.Stop(), 20, 30) == (stop.Stop(), None)
