"""The store: new environments, their first import, what they take, and looking after a thousand of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.common import ROOT, Row, drydock, run, script_of, work_folder
from benchmarks.measure import Command, side_by_side
from builder import uv
from builder.embedded import installer
from builder.embedded.plan import key_of, pinned
from builder.project.catalogue import Catalogue
from builder.script.parts import plan_json

IMPORT = "import torch, transformers, accelerate; from transformers import Trainer"


class Desk:
    """The profile `cpu`, to be built again and again, and uv's way to the same packages.

    What was built is moved aside and not deleted until the end: ext4 passes over inodes that were freed a moment ago,
    one by one (fs/ext4/ialloc.c, recently_deleted), which would be measured with all that makes folders.
    """

    def __init__(self, work: Path) -> None:
        self.work = work
        self.home = work / "drydock"
        self.plan = Catalogue([ROOT / "profiles"]).plan("cpu")
        (work / "parts").mkdir()
        written = json.loads(plan_json(self.plan))
        for number, request in enumerate(installer.requests(written, written["plan"]["packages"], os.environ)):
            lines = "".join(f"{pinned(package)}\n" for package in request.packages)
            (work / f"parts/requirements-{number}.txt").write_text(lines)
        links = " ".join(f"--find-links {folder}" for folder in uv.find_links())
        self.sync = f"{uv.executable()} pip sync -q --require-hashes {links} {work}/parts/requirements*.txt"
        self.venv = work / "venv"
        self.env = {"DRYDOCK_HOME": str(self.home), "DRYDOCK_UV": uv.executable()}
        self.script = script_of("cpu", ROOT / "profiles", work)
        self.built = self.home / "store" / self.plan.store_name
        self._aside = 0

    def aside(self, path: Path) -> Callable[[], None]:
        def move() -> None:
            self._aside += 1
            if path.exists():
                path.rename(self.work / f"old-{self._aside}")

        return move

    def uv(self, name: str, *options: str, **env: str) -> Command:
        """`uv venv` and `uv pip sync`."""
        words = f"{uv.executable()} venv -q --python 3.11 {self.venv} && {self.sync} --python {self.venv}"
        return Command(name, ["sh", "-c", " ".join([words, *options])], env, prepare=self.aside(self.venv))

    def ours(self, name: str, *command: str) -> Command:
        """A build of ours."""
        return Command(name, command, self.env, str(ROOT), prepare=self.aside(self.home / "store"))


def new_environment(rounds: int) -> list[Row]:
    """A new environment from warm caches, with bytecode, against uv's without, and with."""
    with work_folder() as work:
        desk = Desk(work)
        done = side_by_side(
            [
                desk.uv("uv"),
                desk.ours("script", "sh", str(desk.script), "--build-only"),
                desk.ours("drydock", *drydock(), "build", "cpu"),
            ],
            rounds * 2,
        )
        compiled = side_by_side(
            [
                desk.uv("compiled", "--compile-bytecode"),
                desk.ours("script", "sh", str(desk.script), "--build-only"),
            ],
            max(2, rounds // 2),
        )
    peer = done["uv"].median
    rows = [
        Row(
            f"{what} with bytecode, warm, over `uv venv` + `uv pip sync` without",
            f"{done[name].median / peer:.2f}",
            f"uv {peer:.2f} s, ours {done[name].median:.2f} s; best {done['uv'].best:.2f}, {done[name].best:.2f} s",
            f"<= {limit}",
            done[name].median <= limit * peer,
        )
        for name, what, limit in (("script", "script --build-only", 0.9), ("drydock", "drydock build cpu", 1.1))
    ]
    slow, ours = compiled["compiled"].median, compiled["script"].median
    rows.append(
        Row(
            "the script over `uv pip sync --compile-bytecode`",
            f"{ours / slow:.2f}",
            f"uv {slow:.1f} s, ours {ours:.2f} s",
            "<= 0.1",
            ours <= slow / 10,
        )
    )
    return rows


def first_import(rounds: int) -> list[Row]:
    """The first import in a new environment, against uv's: each environment is new, the pages of its files are warm."""
    with work_folder() as work:
        desk = Desk(work)

        def renewed(command: Command) -> Callable[[], None]:
            def prepare() -> None:
                command.prepare()
                run(list(command.arguments), dict(command.env))

            return prepare

        # Without it uv's first import would write bytecode, which is what most users' first import does too; it costs
        # uv's side time, so it is left out.
        quiet = {"PYTHONDONTWRITEBYTECODE": "1"}
        done = side_by_side(
            [
                Command("uv", [f"{desk.venv}/bin/python", "-c", IMPORT], quiet, prepare=renewed(desk.uv("uv"))),
                Command(
                    "ours",
                    [f"{desk.built}/bin/python", "-c", IMPORT],
                    quiet,
                    prepare=renewed(desk.ours("ours", "sh", str(desk.script), "--build-only")),
                ),
            ],
            rounds,
        )
    peer, ours = done["uv"].median, done["ours"].median
    beside = f"uv {peer:.2f} s, ours {ours:.2f} s"
    return [
        Row("first import of torch, transformers, accelerate", f"{ours / peer:.2f}", beside, "<= 0.5", ours <= peer / 2)
    ]


def first_step(rounds: int) -> list[Row]:
    """From nothing to the trainer's first step, caches warm, by the script and by `drydock run`, against uv: `uv venv`,
    `uv pip sync`, and the same trainer where bytecode and patches, without which it fails, are in place already.
    """
    trainer, words = ["--rounds", "1", "--steps", "2"], "step   1 "
    with work_folder() as work:
        desk = Desk(work)
        run(["sh", str(desk.script), "--build-only"], desk.env)
        compiled = desk.home / "compiled"
        (desk.home / "store").rename(compiled)
        program = str(ROOT / "profiles/trainers/tiny_lm.py")
        env = {"PYTHONDONTWRITEBYTECODE": "1"}  # both sides have theirs before; neither writes more
        done = side_by_side(
            [
                desk.uv("uv"),
                Command(
                    "trainer", [f"{compiled}/{desk.plan.store_name}/bin/python", program, *trainer], env, until=words
                ),
                replace(desk.ours("script", "sh", str(desk.script), "--", *trainer), until=words),
                replace(desk.ours("drydock", *drydock(), "run", "cpu", "--", *trainer), until=words),
            ],
            rounds,
        )
    made, trained = done["uv"].median, done["trainer"].median
    peer = made + trained
    return [
        Row(
            f"from nothing to the first step, {what}, over uv and the trainer with bytecode",
            f"{done[name].median / peer:.2f}",
            f"uv {made:.2f} s + {trained:.2f} s, ours {done[name].median:.2f} s",
            "<= 1.2",
            done[name].median <= 1.2 * peer,
        )
        for name, what in (("script", "by the script"), ("drydock", "by drydock run"))
    ]


def verify(rounds: int) -> list[Row]:
    """`drydock store verify` of cpu, against sha256sum of the same files on all cores, and nix-store where it is."""
    with work_folder() as work:
        desk = Desk(work)
        run(["sh", str(desk.script), "--build-only"], desk.env)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        sums = f"find {desk.built} -type f -print0 | xargs -0 -P{cores} -n 200 sha256sum >/dev/null"
        commands = [
            Command("sha256sum", ["sh", "-c", sums]),
            Command("ours", [*drydock(), "store", "verify", desk.plan.key], desk.env),
        ]
        if shutil.which("nix-store"):
            nix = {f"NIX_{name}_DIR": str(work / "nix" / name.lower()) for name in ("STORE", "STATE", "LOG", "CONF")}
            added = subprocess.run(
                ["nix-store", "--add", str(desk.built)], env={**os.environ, **nix}, capture_output=True, text=True
            )
            if added.returncode == 0:
                commands.append(Command("nix", ["nix-store", "--verify-path", added.stdout.strip()], nix))
        done = side_by_side(commands, rounds)
    peer, ours = done["sha256sum"].median, done["ours"].median
    beside = f"sha256sum {peer:.2f} s, ours {ours:.2f} s"
    if "nix" in done:
        beside += f", nix-store --verify-path {done['nix'].median:.2f} s"
    return [Row("store verify over sha256sum on all cores", f"{ours / peer:.2f}", beside, "<= 1.2", ours <= 1.2 * peer)]


SMALL = "iniconfig tomli six toolz tabulate humanize colorama wcwidth sniffio zipp".split()  # noqa: SIM905


def ten_profiles(_rounds: int) -> list[Row]:
    """Ten environments that differ in a small package, against one: bytes on disk, an inode once."""
    with work_folder() as work:
        profiles = work / "profiles"
        profiles.mkdir()
        env = {"DRYDOCK_HOME": str(work / "drydock"), "DRYDOCK_PROFILES": str(profiles)}
        taken = []
        for name in SMALL:
            text = f'schema = 1\nname = "{name}"\nextends = ["cpu"]\n[packages]\nrequires = ["{name}"]\n'
            (profiles / f"{name}.toml").write_text(text)
            run([*drydock(), "lock", name], env)
            run([*drydock(), "build", name], env)
            told = subprocess.run([*drydock(), "store", "du", "--json"], env={**os.environ, **env}, capture_output=True)
            taken.append(json.loads(told.stdout)["real"])
    ratio = taken[-1] / taken[0]
    beside = f"one {taken[0] / 1e6:.0f} MB, ten {taken[-1] / 1e6:.0f} MB"
    return [
        Row("disk of ten profiles that differ in a small package", f"{ratio:.3f}", beside, "<= 1.05", ratio <= 1.05)
    ]


def many_environments(rounds: int) -> list[Row]:
    """Rollback, and what lists and chooses among a thousand small environments."""
    rows, told = [], {}
    with work_folder() as work:
        for count in (500, 1000):
            env = {"DRYDOCK_HOME": str(_many(work / str(count), count))}
            done = side_by_side(
                [
                    Command("python", [sys.executable, "-c", "pass"]),
                    Command("list", [*drydock(), "generation", "list", "many"], env),
                    Command("gc", [*drydock(), "store", "gc", "--dry-run"], env),
                    Command("rollback", [*drydock(), "generation", "rollback", "many"], env),
                ],
                rounds,
            )
            told[count] = {name: timing.median for name, timing in done.items()}
    plain = told[1000]["python"] * 1000
    for name, what in (("list", "generation list"), ("gc", "store gc --dry-run")):
        seconds, growth = told[1000][name], told[1000][name] / told[500][name]
        beside = f"500: {told[500][name]:.2f} s, growth {growth:.2f}"
        rows.append(Row(f"{what}, 1,000 environments", f"{seconds:.2f} s", beside, "<= 1 s", seconds <= 1))
    taken = told[1000]["rollback"] * 1000
    beside = f"python alone {plain:.1f} ms, ratio {taken / plain:.1f}"
    rows.append(Row("generation rollback", f"{taken:.0f} ms", beside, "<= 100 ms", taken <= 100))
    return rows


def _many(home: Path, count: int) -> Path:
    """A store of `count` small environments, all generations of one profile but every other."""
    (home / "profiles").mkdir(parents=True)
    for number in range(1, count + 1):
        plan = {"number": number, "packages": [], "patches": [], "files": [], "python": "3.11", "target": {}}
        name = f"{key_of(plan)}-many"
        parts = home / "store" / name / ".drydock"
        (home / "store" / name / "bin").mkdir(parents=True)
        (home / "store" / name / "bin/python").symlink_to(sys.executable)
        parts.mkdir()
        (parts / "manifest.json").write_text(json.dumps({"plan": plan, "key": key_of(plan), "name": "many"}))
        for file in range(5):
            (parts / f"{file}.txt").write_text("x")
        if number % 2:
            (home / "profiles" / f"many-{number}-link").symlink_to(f"../store/{name}")
            (home / "profiles" / f"many-{number}-run.sh").write_text("")
            last = number
    (home / "profiles" / "many").symlink_to(f"many-{last}-link")
    return home


def memory(_rounds: int) -> list[Row]:
    """The most that Drydock's own processes hold during a build, without uv's: proportional set size, sampled."""
    rows = []
    with work_folder() as work:
        desk = Desk(work)
        for what in ("bytecode compiled", "bytecode there"):
            desk.aside(desk.home / "store")()
            process = subprocess.Popen(
                [*drydock(), "build", "cpu"],
                env={**os.environ, **desk.env},
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            peak = 0.0
            while process.poll() is None:
                peak = max(peak, sum(_held(number) for number in _family(process.pid)))
                time.sleep(0.01)
            if process.returncode:
                raise SystemExit("drydock build cpu failed")
            rows.append(Row(f"memory of a build, {what}", f"{peak:.0f} MB", "", "<= 150 MB", peak <= 150))
    return rows


def _family(number: int) -> list[int]:
    """A process and what it started, and that started."""
    try:
        children = Path(f"/proc/{number}/task/{number}/children").read_text().split()
    except OSError:
        return []
    return [number, *(one for child in children for one in _family(int(child)))]


def _held(number: int) -> float:
    """Megabytes of a process's own, and its part of what it shares; nothing of uv."""
    try:
        if Path(f"/proc/{number}/exe").readlink().name == "uv":
            return 0.0
        lines = Path(f"/proc/{number}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("Pss:")), 0.0)
