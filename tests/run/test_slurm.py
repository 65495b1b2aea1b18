"""Jobs of Slurm: a real controller and three hosts in namespaces, trainers that really start, and hosts that die."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from builder.profile.launch import Launch
from builder.script.templates import rendered_batch_script
from tests.conftest import ROOT
from tests.script.test_launch import plan
from tests.script.test_render import make
from tests.support import SHELLS, Sandbox, pages, tool
from tests.support.sandbox import Result
from tests.support.slurm import SBIN, Cluster, missing, missing_accounting
from tests.support.waiting import LONG, until
from tests.support.wheels import make_wheel

lacking = missing()
quick_on_slurm = pytest.mark.skipif(lacking is not None, reason=lacking or "")


def needs_slurm(test: Callable[..., None]) -> Callable[..., None]:
    """A test on the cluster that takes seconds, or builds with torch."""
    marked: Callable[..., None] = pytest.mark.slow(quick_on_slurm(test))
    return marked


OTHERWISE = {"resume": {"arguments": ["it's {checkpoint}", "--go"], "newest": "out/a step-*"}}
RESUME = {"resume": {"flag": "--resume", "newest": "out/a step-*", "has": ["trainer_state.json"]}}

# Says who and where it is, and what it was given.
TELLING = """\
import os, sys
print("TRAINED", os.uname().nodename, os.environ.get("PET_NNODES"), sys.argv[1:], flush=True)
"""

# Counts, and keeps a checkpoint of every step.
COUNTING = """\
import json, os, pathlib, sys, time
begin = 0
if sys.argv[-1].startswith("--from="):
    begin = json.loads(pathlib.Path(sys.argv[-1][len("--from="):]).read_text())["step"]
if os.uname().nodename == "h1":
    print("BEGINS AT", begin, flush=True)
for step in range(begin + 1, begin + int(sys.argv[1]) + 1):
    if os.uname().nodename == "h1":
        pathlib.Path("out").mkdir(exist_ok=True)
        pathlib.Path(f"out/step-{step}.json").write_text(json.dumps({"step": step}))
    time.sleep(0.3)
print("TRAINED", flush=True)
"""


class Desk:
    """A user's desk on the login node of a cluster."""

    def __init__(self, sandbox: Sandbox, cluster: Cluster) -> None:
        self.sandbox = sandbox
        self.cluster = cluster
        self.work = sandbox.work
        of_slurm = {"SLURM_CONF": cluster.environment["SLURM_CONF"], "TMPDIR": cluster.environment["TMPDIR"]}
        self.environment = {**sandbox.environment, **of_slurm}
        self.environment["PATH"] += f":{SBIN}"

    def drydock(self, *arguments: str, **env: str) -> Result:
        """Run drydock there."""
        command = (sys.executable, "-m", "builder", *arguments)
        done = self.cluster.run(*command, cwd=self.work, **{**self.environment, **env})
        return Result(done.returncode, done.stdout, done.stderr)

    def submit(self, *arguments: str, **env: str) -> str:
        """Submit the trainer of `small`; returns the number of the job."""
        return self.drydock("run", "small", "--slurm", "--", *arguments, **env).succeeded().stdout.strip()

    def ended(self, job: str, state: str = "COMPLETED", seconds: float = LONG) -> list[str]:
        """Wait until a job is over; returns the lines of its log."""
        over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        self.cluster.wait(lambda: self.cluster.state(job) in over, seconds)
        lines = self.log(job)
        assert self.cluster.state(job) == state, "\n".join(lines)
        return lines

    def log(self, job: str) -> list[str]:
        """The lines of the log of a job."""
        path = self.work / f"small-{job}.log"
        return path.read_text(errors="replace").splitlines() if path.exists() else []

    def left(self) -> list[str]:
        """What is left in the places of the hosts' own."""
        return sorted(path.name for host in self.cluster.hosts for path in self.cluster.local(host).iterdir())


@contextmanager
def place() -> Iterator[Path]:
    """A folder for a cluster, on a disk and with a short name, as sockets are in it."""
    with tempfile.TemporaryDirectory(prefix="drydock-slurm-", dir="/var/tmp") as folder:
        yield Path(folder) / "cluster"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three hosts."""
    with place() as root, Cluster(root, 3) as made:
        yield made


@pytest.fixture
def desk(cluster: Cluster, sandbox: Sandbox, small_lock: str) -> Desk:
    """A desk with `small` built in a store that all hosts have, on three nodes."""
    nodes(sandbox, 3)
    sandbox.file("small.lock.toml", small_lock)
    return Desk(sandbox, cluster)


def nodes(sandbox: Sandbox, count: int, code: str = TELLING, tail: str = "", launch: str = "") -> None:
    """Give `small` this trainer, on so many nodes."""
    sandbox.trainer(code)
    path = sandbox.work / "profiles/small.toml"
    path.write_text(f'{path.read_text()}[launch]\nslurm = ["--nodes={count}"]\n{launch}\n{tail}')


# --- the script ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_batch_script_is_sound_under_every_shell(tmp_path: Path) -> None:
    scripts = [
        rendered_batch_script(one)
        for one in (
            make(),
            make(supervise=RESUME),
            make(supervise=OTHERWISE),
            plan({"slurm": ["--nodes=2"]}, supervise=RESUME),
        )
    ]
    for text in scripts:
        path = tmp_path / "job.sh"
        path.write_text(text)
        for shell, command in SHELLS.items():
            done = subprocess.run([*command, "-n", str(path)], capture_output=True, check=False)
            assert (done.returncode, done.stderr) == (0, b""), shell
        program = shutil.which("shellcheck", path=str(Path(sys.executable).parent)) or shutil.which("shellcheck")
        if program is not None:
            done = subprocess.run([program, "--shell=sh", str(path)], capture_output=True, check=False)
            assert done.returncode == 0, done.stdout.decode()


def test_the_options_stand_where_sbatch_reads_them() -> None:
    options = ["--partition=gpu", "--constraint=[a|b]&c"]
    text = rendered_batch_script(make(launch=Launch.model_validate({"slurm": options}).model_dump(by_alias=True)))
    head = text[: text.index("\ncase ")].splitlines()
    assert all(not line or line.startswith("#") for line in head)
    found = [line.removeprefix("#SBATCH ") for line in head if line.startswith("#SBATCH")]
    assert found[-2:] == options
    assert "--requeue" in found


def test_outside_a_job_nothing_is_trained(locked: Sandbox) -> None:
    locked.drydock("render", "small", "--slurm").succeeded()
    script = "generated/small/run_small_slurm.sh"
    for shell, command in SHELLS.items():
        locked.run([*command, script]).failed(1, "this is not a job", "hint: sbatch")
        where = locked.run([*command, script, "--where"]).succeeded()
        assert where.stdout == locked.run(["sh", "generated/small/run_small.sh", "--where"]).stdout, shell
    locked.run(["sh", script], env={"SLURM_JOB_ID": "1", "PATH": "/nowhere:/usr/bin:/bin"} if lacking else {}).failed(1)


def test_a_batch_script_is_kept_as_the_others_are(locked: Sandbox) -> None:
    script = locked.work / "generated/small/run_small_slurm.sh"
    locked.drydock("render", "small").succeeded()
    assert not script.exists()
    locked.drydock("render", "small", "--check", "--slurm").failed(1, "run_small_slurm.sh")
    assert f"{script.relative_to(locked.work)}\n" in locked.drydock("render", "small", "--slurm").succeeded().stdout
    assert script.stat().st_mode & 0o100
    nodes(locked, 7)
    locked.drydock("render", "small", "--check").failed(1, "run_small_slurm.sh")
    locked.drydock("render", "small").succeeded()
    assert "#SBATCH --nodes=7\n" in script.read_text()
    locked.drydock("render", "small", "--check").succeeded()


def test_a_users_file_in_its_place_is_left_alone(locked: Sandbox) -> None:
    script = locked.work / "generated/small/run_small_slurm.sh"
    script.parent.mkdir(parents=True)
    script.write_text("mine\n")
    locked.drydock("render", "small", "--slurm").failed(2, "run_small_slurm.sh")
    locked.drydock("render", "small").succeeded()
    assert script.read_text() == "mine\n"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--slurm", "--supervise"), "--slurm goes without --supervise and --on"),
        (("--slurm", "--status"), "no job of small was submitted from here"),
        (("--slurm", "--logs"), "no job of small was submitted from here"),
        (("--slurm", "--stop"), "no job of small was submitted from here"),
        (("eval", "--slurm"), "--slurm is for the trainer only"),
    ],
)
def test_wrong_use_says_what_is_right(locked: Sandbox, arguments: Sequence[str], word: str) -> None:
    locked.drydock("run", "small", *arguments).failed(2, word)


def test_without_slurm_it_says_so(locked: Sandbox) -> None:
    locked.drydock("run", "small", "--slurm", env={"PATH": "/usr/bin/nowhere"}).failed(1, "there is no sbatch here")


# --- a real cluster ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@quick_on_slurm
def test_a_job_trains_once_on_each_node_in_a_store_that_all_have(desk: Desk) -> None:
    desk.sandbox.drydock("build", "small").succeeded()
    job = desk.submit("--steps", "it's 3", DRYDOCK_RECORDS="1")
    lines = desk.ended(job)
    expected = [f"{at}: TRAINED h{at + 1} None ['--steps', \"it's 3\"]" for at in range(3)]
    assert sorted(line for line in lines if "TRAINED" in line) == expected
    state = json.loads(desk.drydock("run", "small", "--slurm", "--status", "--json").succeeded().stdout)
    assert (state["job"], state["state"], state["over"], state["exit"]) == (job, "completed", True, 0)
    assert (state["nodes"], state["restarts"]) == ("h[1-3]", 0)
    assert desk.drydock("run", "small", "--slurm", "--logs").succeeded().stdout.splitlines() == lines
    assert desk.left() == []
    (run,) = json.loads(desk.drydock("runs", "list", "--json").succeeded().stdout)
    assert (run["name"], run["state"], run["end"]["exit"]) == ("small", "ended", 0)
    told = desk.drydock("runs", "show", "last").succeeded().stdout
    assert "drydock run small --slurm -- --steps 'it'\"'\"'s 3'" in told
    assert f"done: job {job} completed after" in told
    assert "on h[1-3]" in told


@pytest.mark.slow
@quick_on_slurm
@pytest.mark.skipif(shutil.which("mksquashfs") is None, reason="no mksquashfs")
def test_each_node_trains_from_an_image(desk: Desk) -> None:
    desk.sandbox.trainer("import anchor; print('FROM', anchor.__file__)")
    nodes_of_it = desk.work / "profiles/small.toml"
    nodes_of_it.write_text(f'{nodes_of_it.read_text()}[launch]\nslurm = ["--nodes=3"]\n')
    desk.sandbox.drydock("build", "small").succeeded()
    image = desk.sandbox.drydock("image", "small", "-o", "image").succeeded().stdout.strip()
    desk.sandbox.remove(desk.sandbox.environments()[0])
    lines = desk.ended(desk.submit(DRYDOCK_IMAGE=str(desk.work / image)))
    assert len([line for line in lines if "FROM" in line and "/drydock-images-0/" in line]) == 3, lines
    assert desk.sandbox.environments() == []
    # The folders that it was mounted in stay, and nothing is mounted there.
    assert desk.left() == ["drydock-images-0"] * 3
    for host in desk.cluster.hosts:
        shutil.rmtree(desk.cluster.local(host) / "drydock-images-0")


@needs_slurm
def test_a_cluster_does_not_outlive_tests_that_are_killed() -> None:
    code = "import sys, pathlib, time\nfrom tests.support.slurm import Cluster\n"
    code += (
        "with Cluster(pathlib.Path(sys.argv[1]), 1) as made:\n print(*made.namespaces, flush=True)\n time.sleep(99)\n"
    )
    with place() as root:
        command = [sys.executable, "-c", code, str(root)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            namespaces = running.stdout.readline().split()
            assert len(namespaces) == 2
            running.kill()
        until(lambda: not living(root))
        for namespace in namespaces:
            subprocess.run(["ip", "netns", "delete", namespace], check=True)


def living(root: Path) -> list[str]:
    """The programs that have a path below a folder among their arguments."""
    found = (" ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"]))
    return [line for line in found if f"{root}/" in line]


@needs_slurm
def test_the_environment_is_built_by_one_node_for_all(desk: Desk) -> None:
    """From a folder, as the hosts reach no index."""
    mirror = desk.sandbox.root / "mirror"
    desk.sandbox.drydock("push", "small", str(mirror)).succeeded()
    lines = desk.ended(desk.submit(DRYDOCK_CACHE=str(mirror)))
    assert sum("TRAINED" in line for line in lines) == 3
    assert sum("[1/" in line for line in lines) == 1, lines
    assert len(desk.sandbox.environments()) == 1


def write_bundle(desk: Desk) -> Path:
    """The bundle of `small`, with a uv that is the real one, by way of a script."""
    version = importlib.metadata.version("uv")
    files = {f"uv-{version}.data/scripts/uv": f'#!/bin/sh\nexec {desk.sandbox.environment["DRYDOCK_UV"]} "$@"\n'}
    make_wheel(desk.sandbox.wheels, "uv", version, tag="py3-none-manylinux_2_17_x86_64", files=files)
    (desk.work / "profiles/small.lock.toml").unlink()
    desk.sandbox.drydock("lock", "small").succeeded()
    path = desk.sandbox.root / "small.run"
    desk.sandbox.drydock("bundle", "small", "-o", str(path)).succeeded()
    return path


@needs_slurm
def test_each_node_builds_from_the_bundle_where_it_has_a_store_of_its_own(desk: Desk) -> None:
    bundle = write_bundle(desk)
    home = f"{desk.cluster.environment['TMPDIR']}/store"
    lines = desk.ended(desk.submit(DRYDOCK_BUNDLE=str(bundle), DRYDOCK_HOME=home, DRYDOCK_UV=""))
    assert sum("TRAINED" in line for line in lines) == 3
    for host in desk.cluster.hosts:
        assert len(list((desk.cluster.local(host) / "store/store").glob("*-small"))) == 1, host
        subprocess.run(["chmod", "-R", "u+w", str(desk.cluster.local(host))], check=True)
        shutil.rmtree(desk.cluster.local(host) / "store")
    assert desk.left() == []


@needs_slurm
def test_a_bundle_of_another_environment_is_refused(desk: Desk) -> None:
    bundle = write_bundle(desk)
    profile = desk.work / "profiles/small.toml"
    profile.write_text(profile.read_text().replace("[trainer]", '[[checks]]\nfile = "it.py"\nwhy = "it"\n\n[trainer]'))
    desk.sandbox.file("it.py", "pass\n")
    home = f"{desk.cluster.environment['TMPDIR']}/store"
    lines = desk.ended(desk.submit(DRYDOCK_BUNDLE=str(bundle), DRYDOCK_HOME=home), "FAILED")
    assert any("DRYDOCK_BUNDLE_KEY asks for" in line for line in lines), lines


@needs_slurm
def test_a_trainer_that_fails_ends_the_job_on_all_nodes(desk: Desk) -> None:
    desk.sandbox.drydock("build", "small").succeeded()
    nodes(desk.sandbox, 3, "import os, sys, time\nif os.uname().nodename == 'h2': sys.exit(7)\ntime.sleep(300)")
    lines = desk.ended(desk.submit(), "FAILED")
    assert "srun: error: h2: task 1: Exited with exit code 7" in lines
    assert any("error: the trainer ended with exit status" in line for line in lines)
    state = json.loads(desk.drydock("run", "small", "--slurm", "--status", "--json").succeeded().stdout)
    assert state["exit"] != 0  # srun's: that of the trainer, or of those that it ended, whichever is greater
    assert state["restarts"] == 0


@needs_slurm
def test_squeue_is_asked_once_for_all_jobs(desk: Desk) -> None:
    desk.sandbox.drydock("build", "small").succeeded()
    nodes(desk.sandbox, 3, "import time\nprint('TRAINS', flush=True)\ntime.sleep(300)")
    jobs = [desk.submit(DRYDOCK_RECORDS="1") for _ in range(3)]
    desk.cluster.run("scancel", jobs[1], cwd=desk.work).check_returncode()
    desk.ended(jobs[1], "CANCELLED")
    squeue = desk.work / "bin/squeue"
    squeue.parent.mkdir()
    squeue.write_text(f'#!/bin/sh\necho asked >>{desk.work}/asked\nexec {shutil.which("squeue")} "$@"\n')
    squeue.chmod(0o755)
    listed = desk.drydock("runs", "list", PATH=f"{squeue.parent}:{desk.environment['PATH']}").succeeded()
    assert (desk.work / "asked").read_text() == "asked\n"
    assert [f"(job {job})" in listed.stdout for job in jobs] == [True, False, True]
    assert "ended" in listed.stdout
    for job in (jobs[0], jobs[2]):
        desk.cluster.run("scancel", job, cwd=desk.work).check_returncode()


@needs_slurm
def test_stop_ends_it_and_it_does_not_start_again(desk: Desk) -> None:
    desk.sandbox.drydock("build", "small").succeeded()
    nodes(desk.sandbox, 3, "import time\nprint('TRAINS', flush=True)\ntime.sleep(300)")
    job = desk.submit(DRYDOCK_RECORDS="1")
    desk.cluster.wait(lambda: sum("TRAINS" in line for line in desk.log(job)) == 3)
    told = desk.drydock("run", "small", "--slurm", "--status").succeeded().stdout
    assert f"small is job {job}, running, for" in told
    assert "on h[1-3]" in told
    assert f"running (job {job})" in desk.drydock("runs", "list").succeeded().stdout
    elsewhere = desk.sandbox.drydock("runs", "list", env={"PATH": "/nowhere"}).succeeded()  # where there is no Slurm
    assert f"submitted (job {job})" in elsewhere.stdout
    assert f"job {job} is cancelled" in desk.drydock("run", "small", "--slurm", "--stop").succeeded().stderr
    assert desk.cluster.state(job) == "CANCELLED"
    time.sleep(1)
    state = json.loads(desk.drydock("run", "small", "--slurm", "--status", "--json").succeeded().stdout)
    assert (state["state"], state["restarts"], state["exit"]) == ("cancelled", 0, 143)
    assert f"ended: job {job} cancelled after" in desk.drydock("runs", "show", "last").succeeded().stdout
    assert "is over" in desk.drydock("run", "small", "--slurm", "--stop").succeeded().stderr


RESUMING = """\
[supervise]
grace = 1
budget = 1
[supervise.resume]
arguments = ["it's", "--from={checkpoint}"]
newest = "out/step-*.json"
"""


@needs_slurm
def test_before_its_time_is_over_it_starts_again_from_its_newest_whole_checkpoint(desk: Desk) -> None:
    desk.sandbox.drydock("build", "small").succeeded()
    nodes(desk.sandbox, 2, COUNTING, RESUMING)
    job = desk.submit("15")
    desk.cluster.wait(lambda: (desk.work / "out/step-5.json").exists())
    (desk.work / "out/step-900.json").write_text('{"step": 9')  # half-written
    desk.cluster.run("scancel", "--batch", "--signal=USR1", job, cwd=desk.work).check_returncode()
    lines = desk.ended(job)
    assert any("the time of this job is nearly over: it starts again" in line for line in lines), lines
    assert any("'out/step-900.json' is not whole" in line for line in lines)
    begins = [int(line.rpartition(" ")[2]) for line in lines if "BEGINS AT" in line]
    assert begins[0] == 0
    assert begins[1] >= 5
    assert any(line.endswith(f"the trainer goes on from 'out/step-{begins[1]}.json'") for line in lines)
    state = json.loads(desk.drydock("run", "small", "--slurm", "--status", "--json").succeeded().stdout)
    assert (state["state"], state["restarts"]) == ("completed", 1)


@needs_slurm
def test_fewer_hosts_than_the_profile_wants_are_refused(desk: Desk) -> None:
    desk.sandbox.drydock("build", "small").succeeded()
    nodes(desk.sandbox, 1, launch="fewest = 2")
    lines = desk.ended(desk.submit(), "FAILED")
    assert any("the job has 1 nodes, and small trains on 2 at least" in line for line in lines), lines


@needs_slurm
def test_a_node_that_died_before_slurm_knows_it_is_not_the_end(desk: Desk) -> None:
    """The script cannot be copied there: the job waits for its turn again, and the host is back by then."""
    desk.sandbox.drydock("build", "small").succeeded()
    desk.cluster.crash("h2")
    job = desk.submit()
    desk.cluster.wait(lambda: any("does not answer" in line for line in desk.log(job)))
    desk.cluster.plug_in("h2")
    lines = desk.ended(job)
    assert sum("TRAINED" in line for line in lines) == 3, lines


@needs_slurm
def test_the_budget_of_restarts_ends_it(desk: Desk) -> None:
    desk.sandbox.drydock("build", "small").succeeded()
    nodes(desk.sandbox, 3, tail="[supervise]\nbudget = 0\n")
    desk.cluster.crash("h3")
    try:
        lines = desk.ended(desk.submit(), "FAILED")
    finally:
        desk.cluster.plug_in("h3")
        desk.cluster.wait(lambda: desk.cluster.states() == dict.fromkeys(desk.cluster.hosts, "idle"))
    assert any("it has started again 0 times ([supervise] budget)" in line for line in lines), lines


@needs_slurm
def test_what_sbatch_refuses_is_said_with_the_place_of_its_options(desk: Desk) -> None:
    nodes(desk.sandbox, 1)
    path = desk.work / "profiles/small.toml"
    path.write_text(path.read_text().replace('"--nodes=1"', '"--partition=nowhere"'))
    done = desk.drydock("run", "small", "--slurm").failed(1, "sbatch failed", "[launch] slurm of small")
    assert "nvalid partition" in done.stderr
    desk.drydock("run", "small", "--slurm", "--status").failed(2, "no job of small was submitted from here")


@pytest.mark.slow
@pytest.mark.skipif(missing_accounting() is not None, reason=missing_accounting() or "")
def test_sacct_says_what_became_of_a_job_that_squeue_has_forgotten(sandbox: Sandbox, small_lock: str) -> None:
    with place() as root, Cluster(root, 1, accounting=True) as cluster:
        desk = Desk(sandbox, cluster)
        nodes(sandbox, 1, "import sys\nsys.exit(9)")
        sandbox.file("small.lock.toml", small_lock)
        sandbox.drydock("build", "small").succeeded()
        job = desk.submit()
        desk.ended(job, "FAILED")
        first = json.loads(desk.drydock("run", "small", "--slurm", "--status", "--json").succeeded().stdout)
        cluster.run("scontrol", "requeue", job, cwd=desk.work).check_returncode()
        cluster.wait(lambda: cluster.state(job) == "", 200)
        state = json.loads(desk.drydock("run", "small", "--slurm", "--status", "--json").succeeded().stdout)
        assert (state["state"], state["over"], state["exit"], state["nodes"]) == ("failed", True, 9, "h1")
        assert (first["restarts"], state["restarts"]) == (0, 1)
        assert "is over" in desk.drydock("run", "small", "--slurm", "--stop").succeeded().stderr


# --- with torch ----------------------------------------------------------------------------------------------------


@pytest.fixture
def torch_desk(cluster: Cluster, sandbox: Sandbox, cpu_env: Path, drydock_home: Path) -> Desk:
    """A desk with the shipped profile `cpu`, built."""
    assert cpu_env.is_dir()
    made = Desk(sandbox, cluster)
    made.environment |= {"DRYDOCK_HOME": str(drydock_home), "DRYDOCK_PROFILES": str(made.work / "profiles")}
    return made


def launched(desk: Desk, launch: str, tail: str = "") -> None:
    """Give the desk the profile `cpu` as it is shipped, with [launch], under its own name: so its key is the same."""
    for path in ("base.toml", "accelerate-patched.toml", "cpu.lock.toml"):
        shutil.copy(ROOT / "profiles" / path, desk.work / "profiles")
    for folder in ("patches", "proofs", "trainers"):
        shutil.copytree(ROOT / "profiles" / folder, desk.work / "profiles" / folder, dirs_exist_ok=True)
    text = (ROOT / "profiles/cpu.toml").read_text()
    (desk.work / "profiles/cpu.toml").write_text(f"{text}\n[launch]\n{launch}\n{tail}")


@needs_slurm
def test_the_shipped_trainer_trains_on_three_nodes(torch_desk: Desk) -> None:
    desk = torch_desk
    launched(desk, 'with = "torchrun"\nslurm = ["--nodes=3"]')
    done = desk.drydock("run", "cpu", "--slurm", "--", "--rounds", "1", "--steps", "4").succeeded()
    job = done.stdout.strip()
    desk.cluster.wait(lambda: desk.cluster.state(job) in ("COMPLETED", "FAILED"), 240)
    text = (desk.work / f"cpu-{job}.log").read_text()
    assert desk.cluster.state(job) == "COMPLETED", text
    losses = {line[:2]: line.rpartition(" -> ")[2] for line in text.splitlines() if "the loss fell" in line}
    assert sorted(losses) == ["0:", "1:", "2:"]
    assert len(set(losses.values())) == 1  # of one model, which all have


# Trains a line on all hosts, slowly, and keeps a checkpoint of every step.
LINE = """\
import os, sys, time
import torch
import torch.distributed as dist
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
weight, begin = torch.zeros(4), 0
if "--resume" in sys.argv:
    state = torch.load(sys.argv[sys.argv.index("--resume") + 1])
    weight, begin = state["weight"], state["step"]
if rank == 0:
    print("BEGINS AT", begin, "WORLD", world, flush=True)
for step in range(begin + 1, 21):
    gradient = 2 * (weight - torch.arange(4.0))
    dist.all_reduce(gradient)
    weight = weight - 0.05 * gradient / world
    time.sleep(0.5)
    if rank == 0:
        os.makedirs("out", exist_ok=True)
        torch.save({"weight": weight, "step": step}, f"out/step-{step}.new")
        os.replace(f"out/step-{step}.new", f"out/step-{step}.pt")
dist.barrier()
if rank == 0:
    print("LOSS", float(((weight - torch.arange(4.0)) ** 2).sum()), flush=True)
dist.destroy_process_group()
"""


@needs_slurm
def test_after_a_plug_is_pulled_it_goes_on_from_the_newest_checkpoint(torch_desk: Desk) -> None:
    """With two of three hosts, which `fewest` allows, to the loss of a training that nothing has disturbed."""
    desk = torch_desk
    tail = '[supervise.resume]\nflag = "--resume"\nnewest = "out/step-*.pt"\n'
    launched(desk, 'with = "torchrun"\nfewest = 2\nslurm = ["--nodes=2-3"]', tail)
    path = desk.work / "profiles/cpu.toml"
    path.write_text(path.read_text().replace('file = "trainers/tiny_lm.py"', 'command = ["python", "line.py"]'))
    (desk.work / "line.py").write_text(LINE)
    desk.drydock("lock", "cpu").succeeded()
    desk.sandbox.drydock("build", "cpu", env=desk.environment).succeeded()
    job = desk.drydock("run", "cpu", "--slurm").succeeded().stdout.strip()
    try:
        desk.cluster.wait(lambda: (desk.work / "out/step-4.pt").exists())
        desk.cluster.pull_plug("h2")
        desk.cluster.wait(lambda: desk.cluster.state(job) in ("COMPLETED", "FAILED"), 240)
    finally:
        desk.cluster.plug_in("h2")
    text = (desk.work / f"cpu-{job}.log").read_text()
    assert desk.cluster.state(job) == "COMPLETED", text
    begins = [line.split() for line in text.splitlines() if "BEGINS AT" in line]
    assert int(begins[0][3]) == 0
    assert int(begins[-1][3]) >= 4
    expected = sum((at * (1 - 0.1) ** 20) ** 2 for at in range(4))
    loss = next(float(line.rpartition(" ")[2]) for line in text.splitlines() if "LOSS" in line)
    assert loss == pytest.approx(expected, abs=1e-6)


# --- Kubernetes ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_job_of_the_page_fits_the_schema_of_kubernetes(tmp_path: Path) -> None:
    page = ROOT / "docs/how-to/slurm.md"
    text = next(one.text for one in pages.read(page) if isinstance(one, pages.File) and one.name == "job.yaml")
    checker = [*tool("kubernetes-validate==1.37.0"), "kubernetes-validate", "--strict", "--no-warn", "job.yaml"]
    for content, code in ((text, 0), (text.replace("completions:", "compleitons:"), 1)):
        (tmp_path / "job.yaml").write_text(content)
        done = subprocess.run(checker, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == code, done
