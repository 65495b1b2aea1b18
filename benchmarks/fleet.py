"""`just bench-fleet`: what a deployment costs the desk; `just lab`: twelve hosts from bare to trained, as a transcript.

python benchmarks/fleet.py many [--hosts 25,50]     sshd on loopback ports, without root: processor of the desk per host
python benchmarks/fleet.py lab DIR [--hosts 12]     namespaces, as root (benchmarks/hosts.sh): the transcript to stdout
python benchmarks/fleet.py second DIR               namespaces: the second host by its wheels, and by a copy
python benchmarks/fleet.py network DIR              namespaces: the desk's network is gone for a minute
python benchmarks/fleet.py faults [--hosts 50]      sshd on loopback ports: one dead, one frozen and one full among them

The lab trains `pair`: torch alone, on the processor, by torchrun; the desk's own index settings say where torch comes
from. DIR needs about 1 GB for each host.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

DRYDOCK = [sys.executable, "-m", "builder"]
PROFILE = """\
schema = 1
name = "{name}"

[target]
platform = "linux-x86_64"
accelerator = "cpu"
glibc = "2.28"

[python]
version = "3.11"

[packages]
requires = {requires}
{more}"""
PAIR = """\
index = {{ torch = "pytorch-cpu" }}

[indexes]
pytorch-cpu = "https://download.pytorch.org/whl/cpu"

[env]
OMP_NUM_THREADS = "1"

[trainer]
command = ["python", "{trainer}"]

[launch]
with = "torchrun"
processes = 2
fewest = 2

[supervise]
grace = 5

[supervise.resume]
flag = "--resume"
newest = "out/checkpoint-*"
has = ["model.pt"]
"""
TRAINER = '''\
"""A small model on all processes: each takes its part of every batch, so that any number of them trains the same."""

import argparse
import os
import time
from pathlib import Path

import torch
import torch.distributed as dist

options = argparse.ArgumentParser()
options.add_argument("--steps", type=int, default=120)
options.add_argument("--pause", type=float, default=0.0)
options.add_argument("--resume", type=Path)
options = options.parse_args()
rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
if world > 1:
    dist.init_process_group("gloo")
torch.manual_seed(1)
model = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1)).double()
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
first = 0
if options.resume:
    state = torch.load(options.resume / "model.pt", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    first = state["step"]
inputs = torch.randn(240, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
wanted = inputs.sin().sum(1, keepdim=True)
for step in range(first + 1, options.steps + 1):
    optimizer.zero_grad()
    mine = slice(rank, None, world)
    loss = ((model(inputs[mine]) - wanted[mine]) ** 2).sum() / len(inputs)
    loss.backward()
    total = loss.detach().clone()
    if world > 1:
        dist.all_reduce(total)
        for parameter in model.parameters():
            dist.all_reduce(parameter.grad)
    optimizer.step()
    if rank == 0 and step % 20 == 0:
        print(f"step {step}, {world} processes, loss {total.item():.10f}", flush=True)
        folder = Path(f"out/checkpoint-{step}")
        folder.mkdir(parents=True, exist_ok=True)
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, folder / "new")
        (folder / "new").rename(folder / "model.pt")
    time.sleep(options.pause)
'''


def measured(command: list[str], *, env: dict[str, str], cwd: Path) -> tuple[str, float, float, float]:
    """Run a command: what it printed, seconds of it, of processor with all that it started, and its memory in MB."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.monotonic()
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False)
    wall = time.monotonic() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, wall, used, after.ru_maxrss / 1e3


def used_by(file: Path) -> float:
    """Seconds of processor that a host has used; a file has the number of its first process."""
    server = psutil.Process(int(file.read_text()))
    times = [process.cpu_times() for process in [server, *server.children(recursive=True)]]
    return float(sum(one.user + one.system + one.children_user + one.children_system for one in times))


# --- what the desk does --------------------------------------------------------------------------------------------


@contextmanager
def crowd(names: list[str]) -> Iterator[tuple[Any, dict[str, Any], dict[str, str]]]:
    """A desk with the profile `small`, hosts of some names, and the environment of commands at the desk."""
    from importlib.metadata import version

    from tests.conftest import desk
    from tests.support import fleet, make_wheel
    from tests.support.base import FOLDER

    with tempfile.TemporaryDirectory(prefix="drydock-bench-") as work, ExitStack() as stack:
        root = Path(work)
        os.environ[FOLDER] = str(root / "python")
        for folder in ("python", "cache", "desk"):
            (root / folder).mkdir()
        box = stack.enter_context(desk(root / "desk", root / "cache"))
        program = f'#!/bin/sh\nexec {box.environment["DRYDOCK_UV"]} "$@"\n'
        files = {f"uv-{version('uv')}.data/scripts/uv": program}
        make_wheel(box.wheels, "uv", version("uv"), tag="py3-none-manylinux_2_17_x86_64", files=files)
        box.profile("small")
        box.drydock("lock", "small").succeeded()
        hosts, path = stack.enter_context(fleet.hosts(root / "hosts", names))
        yield box, hosts, {**box.environment, "PATH": f"{path}:{box.environment['PATH']}"}


def many(counts: list[int]) -> None:
    """Print what the desk needs for a deployment where nothing is to do, per host."""
    from statistics import median

    with crowd([f"h{number}" for number in range(1, max(counts) + 1)]) as (box, _, env):
        rows = "".join(f"[fleets.of{count}]\nhosts = ['h[1-{count}]']\nprofile = 'small'\n" for count in counts)
        (box.work / "drydock.toml").write_text(rows)
        measured([*DRYDOCK, "deploy", f"of{max(counts)}"], env=env, cwd=box.work)
        print("| hosts | wall | desk's processor | per host | memory |\n| --- | --- | --- | --- | --- |")
        for count in sorted(counts):
            found = [measured([*DRYDOCK, "deploy", f"of{count}"], env=env, cwd=box.work) for _ in range(5)]
            wall, used = median(row[1] for row in found), median(row[2] for row in found)
            memory = max(row[3] for row in found)
            print(
                f"| {count} | {wall:.1f} s | {used:.2f} s | {used / count * 1e3:.0f} ms | {memory:.0f} MB |", flush=True
            )


def faults(count: int) -> None:
    """Print how much later hosts are switched where three others are dead, frozen and full; then mend these."""
    names = [f"h{number}" for number in range(1, count + 1)]
    dead, frozen, full = names[count // 4], names[count // 2], names[-1]
    well = [name for name in names if name not in (dead, frozen, full)]
    with crowd(names) as (box, hosts, env):
        (box.work / "drydock.toml").write_text(
            f"[fleets.all]\nhosts = {names}\nprofile = 'small'\n[fleets.well]\nhosts = {well}\nprofile = 'small'\n"
        )

        def deploy(*arguments: str) -> tuple[float, subprocess.CompletedProcess[str]]:
            begin = time.monotonic()
            command = [*DRYDOCK, "deploy", *arguments]
            done = subprocess.run(command, env=env, cwd=box.work, capture_output=True, text=True, check=False)
            return time.monotonic() - begin, done

        def bare() -> None:
            for host in hosts.values():
                if host.home.exists():
                    subprocess.run(["chmod", "-R", "u+w", str(host.home)], check=True)
                    shutil.rmtree(host.home)
                host.home.mkdir()

        deploy("well")  # what the desk does once is not measured
        walls: dict[str, list[float]] = {}
        for turn in ("without", "with", "with", "without"):
            bare()
            if turn == "without":
                walls.setdefault(turn, []).append(deploy("well")[0])
                continue
            hosts[dead].pull_the_plug()
            hosts[frozen].freeze()
            fill(hosts[full])
            wall, done = deploy("all", "--fewest", str(len(well)))
            walls.setdefault(turn, []).append(wall)
            current = {name for name in well if hosts[name].current("small")}
            if done.returncode != 1 or current != set(well):
                raise SystemExit(f"not as it should be: {done.returncode}, {done.stdout}{done.stderr}")
            hosts[dead].start()
            hosts[frozen].thaw()
            empty(hosts[full])
        print("\n".join(line for line in done.stdout.splitlines() if "failed" in line or "unreachable" in line))
        _, again = deploy("all", "--only-failed", "--json")
        rows = json.loads(again.stdout)["hosts"]
        touched = sorted(name for name, row in rows.items() if name not in well and row["state"] == "switched")
        print(f"--only-failed: {', '.join(touched)}; asked: {again.stderr.count('receives')} lines of hosts")
        for turn, found in walls.items():
            print(f"{turn}: {', '.join(f'{wall:.1f}' for wall in found)} s")
        print(f"ratio {sum(walls['with']) / sum(walls['without']):.2f}", flush=True)


def fill(host: Any) -> None:
    """Leave a host no room: as root by a disk of 64 kB, else by a limit on files."""
    if os.geteuid() == 0:
        host.drydock.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(host.drydock)], check=True)
    else:
        command = host.folder / "command"
        command.write_text(command.read_text().replace("exec env", "ulimit -f 16 && exec env"))


def empty(host: Any) -> None:
    """Undo `fill`."""
    if os.geteuid() == 0:
        subprocess.run(["umount", str(host.drydock)], check=True)
    else:
        host.behaves()


# --- the lab -------------------------------------------------------------------------------------------------------


class Lab:
    """Hosts in namespaces, a desk among them, and what was typed there."""

    def __init__(self, folder: Path, hosts: int) -> None:
        self.folder = folder
        self.hosts = folder / "net/hosts"
        self.work = folder / "work"
        (self.work / "profiles").mkdir(parents=True)
        (folder / "bin").mkdir()
        ssh = folder / "bin/ssh"
        ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/net/ssh_config "$@"\n')
        ssh.chmod(0o755)
        self.count = hosts
        own = {name: value for name, value in os.environ.items() if not name.startswith(("DRYDOCK_", "PYTHON"))}
        path = f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.env = {**own, "DRYDOCK_HOME": str(folder / "desk"), "PATH": path, "PYTHONPATH": str(ROOT)}
        self.here(["bash", str(ROOT / "benchmarks/hosts.sh"), "up", str(folder / "net"), str(hosts)])

    def here(self, command: list[str]) -> str:
        """Run something outside: what prepares the lab."""
        return subprocess.run(
            command, env=self.env, cwd=self.work, check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    def command(self, line: str) -> list[str]:
        """What is typed at the desk, in its namespace."""
        words = shlex.split(line)
        return ["ip", "netns", "exec", "desk", *(DRYDOCK if words[0] == "drydock" else words[:1]), *words[1:]]

    def types(self, line: str, keep: str = "") -> str:
        """Run a command at the desk, and print it with what it printed; of many lines those that have `keep`."""
        print(f"$ {line}", flush=True)
        done = subprocess.run(
            self.command(line), env=self.env, cwd=self.work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        show(done.stdout, keep)
        return done.stdout

    def alone(self, profile: str) -> str:
        """What one process trains to, here, in the environment of h1."""
        home = self.hosts / "h1/home/.local/share/drydock"
        python = (home / "profiles" / profile).resolve() / "bin/python"
        with tempfile.TemporaryDirectory() as folder:
            command = [str(python), str(self.folder / "train.py"), "--steps", "60"]
            done = subprocess.run(
                command, cwd=folder, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        return done.stdout.splitlines()[-1]

    def trains(self, line: str, at: str, keep: str) -> str:
        """As `types`, and the plug of h3 is pulled once its output has `at`."""
        print(f"$ {line}", flush=True)
        process = subprocess.Popen(
            self.command(line), env=self.env, cwd=self.work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        lines = []
        for text in process.stdout:
            lines.append(text)
            if at and at in text:
                at = ""
                os.kill(int((self.folder / "net/hosts/h3/pid").read_text()), 9)
                pulled = time.monotonic()
                lines.append("                                    <- here the plug of h3 is pulled\n")
            if "was lost" in text:
                print(f"noticed after {time.monotonic() - pulled:.1f} s", file=sys.stderr)
        process.wait()
        show("".join(lines), keep)
        return "".join(lines)

    def row(self, how: str, number: int, line: str, moved: int = 0) -> None:
        """Print what a host takes for a line of a shell at the desk."""
        before = used_by(self.hosts / f"h{number}/pid")
        command = ["ip", "netns", "exec", "desk", "sh", "-c", line]
        _, wall, desk, _ = measured(command, env=self.env, cwd=self.work)
        host = used_by(self.hosts / f"h{number}/pid") - before
        if not moved:
            known = json.loads((self.folder / f"desk/fleet/desk/only{number}.json").read_text())
            moved = known["hosts"][f"h{number}"]["sent"]
        print(f"| {how} | {moved / 1e6:.0f} MB | {wall:.0f} s | {host:.1f} s | {desk:.1f} s |", flush=True)

    def parted(self, line: str, at: str, seconds: float, keep: str) -> None:
        """As `types`, and the desk has no network for some seconds once its output has `at`."""
        print(f"$ {line}", flush=True)
        process = subprocess.Popen(
            self.command(line), env=self.env, cwd=self.work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        began = 0.0

        def part() -> None:
            self.here(["ip", "-n", "desk", "link", "set", "br0", "down"])
            time.sleep(seconds)
            self.here(["ip", "-n", "desk", "link", "set", "br0", "up"])
            print(f"                                    <- after {seconds:.0f} s it is there again", flush=True)

        parting = threading.Thread(target=part)
        assert process.stdout is not None
        for text in process.stdout:
            if re.search(keep, text):
                print(f"{f'{time.monotonic() - began:5.0f} s ' if began else ''}{text}", end="", flush=True)
            if at in text and not began:
                began = time.monotonic()
                print("                                    <- here the desk's network is taken away", flush=True)
                parting.start()
        process.wait()
        if began:
            parting.join()
        print(flush=True)

    def down(self) -> None:
        self.here(["bash", str(ROOT / "benchmarks/hosts.sh"), "down", str(self.folder / "net")])


def show(text: str, keep: str) -> None:
    """Print lines, without what is this machine's own."""
    for line in text.splitlines():
        if re.search(keep, line):
            print(line)
    print(flush=True)


def lab(folder: Path, count: int) -> None:
    """Twelve hosts from bare to trained, and back; then figures, as JSON, to stderr."""
    made = Lab(folder, count)
    figures: dict[str, object] = {}
    try:
        profile = prepare(made, count)
        print((made.work / "drydock.toml").read_text())
        made.types("drydock deploy lab --dry-run")
        begin = time.monotonic()
        if "0 of" in made.types("drydock deploy lab"):
            raise SystemExit("no host was built")
        figures["first deployment, s"] = round(time.monotonic() - begin, 1)
        alone = made.types("drydock run pair --on four -- --steps 60", r"loss \d|ended|which meet")
        figures["alone"] = made.alone("pair")
        line = "drydock run pair --on four --supervise -- --steps 200 --pause 0.15"
        lost = made.trains(line, "step 100,", r"loss \d|was lost|plug|newest|going on|ended:|which meet")
        figures["losses"] = [re.findall(r"step (\d+), (\d+) processes, loss ([0-9.]+)", text) for text in (alone, lost)]
        made.types("drydock run pair --on four --status")
        made.here(["bash", str(ROOT / "benchmarks/hosts.sh"), "again", str(folder / "net"), "3"])
        profile.write_text(profile.read_text().replace('["torch==2.13.0+cpu"]', '["torch==2.13.0+cpu", "six==1.17.0"]'))
        made.here([*DRYDOCK, "lock", "pair"])
        made.here([*DRYDOCK, "push", "pair", str(folder / "desk/cache/mirror")])
        print("$ drydock lock pair                # six is required now, too", flush=True)
        begin = time.monotonic()
        made.types("drydock deploy lab")
        figures["update, s"] = round(time.monotonic() - begin, 1)
        known = json.loads((folder / "desk/fleet/desk/lab.json").read_text())["hosts"]
        figures["update, bytes for a host"] = sorted({row["sent"] for row in known.values()})
        made.types("drydock deploy lab --rollback")
        made.types("drydock deploy lab --dry-run")
    finally:
        made.down()
        print(json.dumps(figures, indent=1), file=sys.stderr)


# --- the second host -----------------------------------------------------------------------------------------------


def second(folder: Path) -> None:
    """Print what a host takes that lacks everything: by wheels, twice, and as a copy of what the desk has unpacked."""
    made = Lab(folder, 3)
    try:
        prepare(made, 3)
        rows = "".join(f'[fleets.only{number}]\nhosts = ["h{number}"]\n' for number in (1, 2, 3))
        (made.work / "drydock.toml").write_text(rows)
        print("| how | moved | wall | host's processor | desk's |\n| --- | --- | --- | --- | --- |")
        bundle = folder / "pair.run"
        made.here([*DRYDOCK, "bundle", "pair", "-o", str(bundle)])
        made.row("bundle", 1, f"ssh h1 'cat >pair.run && sh pair.run --build-only' <{bundle}", bundle.stat().st_size)
        made.row("wheels", 2, f"{shlex.join(DRYDOCK)} deploy only2 pair")
        made.here([*DRYDOCK, "build", "pair"])
        made.row("copy", 3, f"{shlex.join(DRYDOCK)} deploy only3 pair")
        made.types("drydock deploy only3 pair --verify")
    finally:
        made.down()


# --- the network of the desk ---------------------------------------------------------------------------------------


def network(folder: Path, seconds: float) -> None:
    """Take the network of the desk away while it deploys, and while it trains; print what it says."""
    made = Lab(folder, 2)
    try:
        prepare(made, 2)
        made.parted("drydock deploy lab", "builds", seconds, "")
        made.types("drydock deploy lab")
        left = time.monotonic()
        while list(made.hosts.glob("*/home/.local/share/drydock/fleet/.new-*")) and time.monotonic() < left + 600:
            time.sleep(1)
        print(f"nothing half-made is left on a host after {time.monotonic() - left:.0f} s\n", flush=True)
        line = "drydock run pair --on lab --supervise -- --steps 1200 --pause 0.1"
        made.parted(line, "step 60,", seconds, r"step \d+00,|lost|answer|newest|going on|ended:|which meet")
    finally:
        made.down()


def prepare(made: Lab, count: int) -> Path:
    """Lock `pair`, and have its files at the desk, which has no network of its own; returns the profile."""
    trainer = made.folder / "train.py"
    trainer.write_text(TRAINER)
    profile = made.work / "profiles/pair.toml"
    more = PAIR.format(trainer=trainer)
    profile.write_text(PROFILE.format(name="pair", requires='["torch==2.13.0+cpu"]', more=more))
    (made.work / "drydock.toml").write_text(
        f'[fleets.lab]\nhosts = ["h[1-{count}]"]\nprofile = "pair"\n\n[fleets.four]\nhosts = ["h[1-4]"]\n'
    )
    made.here([*DRYDOCK, "lock", "pair"])
    made.here([*DRYDOCK, "push", "pair", str(made.folder / "desk/cache/mirror")])
    return profile


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("many").add_argument("--hosts", default="25,50")
    told = commands.add_parser("lab")
    told.add_argument("folder", type=Path)
    told.add_argument("--hosts", type=int, default=12)
    parted = commands.add_parser("network")
    parted.add_argument("folder", type=Path)
    parted.add_argument("--seconds", type=float, default=60)
    commands.add_parser("faults").add_argument("--hosts", type=int, default=50)
    commands.add_parser("second").add_argument("folder", type=Path)
    chosen = parser.parse_args()
    if chosen.command == "many":
        many([int(word) for word in chosen.hosts.split(",")])
    elif chosen.command == "faults":
        faults(chosen.hosts)
    elif chosen.command == "network":
        network(chosen.folder.absolute(), chosen.seconds)
    elif chosen.command == "second":
        second(chosen.folder.absolute())
    else:
        lab(chosen.folder.absolute(), chosen.hosts)


if __name__ == "__main__":
    main()
