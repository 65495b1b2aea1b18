"""What a record costs: the start of a run, the processes beside it while it goes on, and a list of many."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from benchmarks.common import ROOT, Row, drydock, run, script_of, work_folder
from builder.run.records import folder
from builder.run.records.begin import begin

_SECONDS = 60.0
_RUNS = 10_000
_PR_SET_CHILD_SUBREAPER = 36

# Ten lines a second, as a trainer prints them.
TALKS = f"""
import time
end = time.monotonic() + {_SECONDS + 4}
while time.monotonic() < end:
    print('step 12345  loss 1.234  41.1 steps/s', flush=True)
    time.sleep(0.1)
"""


def records(rounds: int) -> list[Row]:
    """All three; the profile is built from uv's cache, and the code is a clone of this repository that differs."""
    if sys.platform == "linux":  # what a run leaves beside it becomes our child
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return [*_beside(), *_here(rounds)]


def _beside() -> list[Row]:
    """Processor of all processes that record a supervised run: what completes its record, and its supervisor."""
    if sys.platform != "linux":
        return []
    with work_folder() as work:
        code = work / "code"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(code)], check=True)
        (code / "README.md").write_text("changed\n")
        profiles = code / "profiles"
        (profiles / "talks.toml").write_text(
            'schema = 1\nname = "talks"\nextends = ["cpu"]\n[trainer]\nfile = "talks.py"\n'
        )
        (profiles / "talks.py").write_text(TALKS)
        shutil.copy(ROOT / "profiles/cpu.lock.toml", profiles / "talks.lock.toml")
        script_of("talks", profiles, work)
        env = {"DRYDOCK_HOME": str(work / "home"), "DRYDOCK_PROFILES": str(profiles), "UV_OFFLINE": "1"}
        run([*drydock(), "build", "talks"], env)
        running = subprocess.Popen(
            [*drydock(), "run", "talks", "--supervise"],
            env={**os.environ, **env, "DRYDOCK_RECORDS": "1"},
            cwd=code,
            stdout=subprocess.DEVNULL,
        )
        state = work / "home/runs/talks/state.json"
        while not state.exists():
            time.sleep(0.05)
        supervisor = psutil.Process(running.pid)
        before = _spent(supervisor)
        time.sleep(_SECONDS)
        watching = _spent(supervisor) - before
        completing, end = 0.0, 1
        while True:
            try:
                pid, end_status, used = os.wait4(-1, 0)
            except ChildProcessError:
                break
            if pid == running.pid:
                end = end_status
            else:
                completing += used.ru_utime + used.ru_stime
        (record,) = (work / "home/runs/.records").glob("2*.json")
        found = json.loads(record.read_text())
        if end or "code" not in found or not found["end"]["losses"]:
            raise RuntimeError(f"the run was not recorded: {found}")
    share = (watching + completing) / _SECONDS
    return [
        Row(
            f"processor of all that records a supervised run ({_SECONDS:g} s, 10 lines/s)",
            f"{share:.2%} of a core",
            f"{completing:.2f} s to complete the record, {watching:.2f} s the supervisor",
            "<= 1 %",
            share <= 0.01,
        )
    ]


def _spent(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _here(rounds: int) -> list[Row]:
    """In this process: what the start of a run waits for, and the list."""
    with work_folder() as work:
        os.environ["DRYDOCK_HOME"] = str(work / "home")
        script = work / "script"
        script.write_text("#!/bin/sh\n" * 10_000)
        taken = [_begin(script) for _ in range(4 * rounds)]
        one = json.loads(next(folder.place().glob("2*.json")).read_text())
        for number in range(_RUNS):
            identity = f"20250101-000000-{number:08x}"
            row = {**one, "id": identity, "end": {"time": None, "exit": 0, "why": "done"}}
            (folder.place() / f"{identity}.json").write_text(json.dumps(row))
        command = [*drydock(), "runs", "list", "--last", "10"]
        run(command, {})
        listed = []
        for _ in range(rounds):
            began = time.monotonic()
            run(command, {})
            listed.append(1000 * (time.monotonic() - began))
    start, many = statistics.median(taken), statistics.median(listed)
    return [
        Row("record at the start of a run", f"{start:.1f} ms", "", "<= 30 ms", start <= 30),
        Row(f"`drydock runs list` of {_RUNS} runs", f"{many:.0f} ms", "", "<= 300 ms", many <= 300),
    ]


def _begin(script: Path) -> float:
    """One record of this process; returns the milliseconds that it took."""
    began = time.monotonic()
    made = begin(
        "m4",
        "train",
        [],
        store_name="k-m4",
        generation=1,
        script=["/bin/true"],
        script_path=script,
        lock=None,
        project=script.parent,
        environment=os.environ,
        names=[],
    )
    taken = 1000 * (time.monotonic() - began)
    with suppress(ChildProcessError):  # what completes it must not slow the next one down
        while True:
            os.wait()
    if made is None:
        raise RuntimeError("the run was not recorded")
    return taken
