"""What supervision costs: processor and memory of the supervisor beside a trainer that talks, and its restarts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks.common import Row
from builder.run.supervise.policy import Case, Guard, Policy
from builder.run.supervise.runs import Request

# Lines a second, as a trainer prints them, and three workers that sleep, as a data loader has them.
TALKS = """
import subprocess, sys, time
workers = [subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']) for _ in range(3)]
while True:
    print('step 12345  loss 1.234  41.1 steps/s', flush=True)
    time.sleep(1 / LINES)
"""


@contextmanager
def supervised(code: str, policy: Policy, guard: Guard | None = None) -> Iterator[tuple[psutil.Process, Path]]:
    """A supervisor of a trainer of Python code, with the intervals that a profile has by default; and its folder."""
    with tempfile.TemporaryDirectory(prefix="drydock-bench-") as folder:
        command = [sys.executable, "-c", code]
        request = Request("bench", command, f"{folder}/root", replace(policy, grace=5.0, guard=guard))
        Path(folder, "request.json").write_text(json.dumps(asdict(request)))
        with Path(folder, "lock").open("w") as lock:
            os.set_inheritable(lock.fileno(), True)
            running = subprocess.Popen(
                [sys.executable, "-P", "-m", "builder.run.supervise", folder, str(lock.fileno())],
                close_fds=False,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        try:
            yield psutil.Process(running.pid), Path(folder)
        finally:
            running.terminate()
            running.wait()


def _spent(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _state(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "state.json").read_text())
    except (OSError, ValueError):
        return {}
    return found


def cost(seconds: float, lines: int, guard: Guard | None, what: str) -> list[Row]:
    with supervised(TALKS.replace("LINES", str(lines)), Policy(), guard) as (process, _):
        time.sleep(3)
        before, began = _spent(process), time.monotonic()
        time.sleep(seconds)
        share = (_spent(process) - before) / (time.monotonic() - began)
        resident = process.memory_info().rss
    told = f"{lines} lines/s{what}, {seconds:g} s"
    return [
        Row(f"processor of the supervisor ({told})", f"{share:.2%} of a core", "", "<= 1 %", share <= 0.01),
        Row(f"memory of the supervisor ({told})", f"{resident / 1e6:.1f} MB", "", "<= 40 MB", resident <= 40e6),
    ]


def restart(rounds: int) -> list[Row]:
    """From the kill of a trainer to the first word of the next one, over the backoff."""
    code = "import time; print('up', time.time(), flush=True); time.sleep(600)"
    policy = Policy((Case("killed", (137,)),), backoff=0.2, longest=0.2, budget=rounds + 1)
    taken = []
    with supervised(code, policy) as (_, folder):
        log = folder / "log"
        for number in range(1, rounds + 1):
            while not log.exists() or log.read_text().count("\nup ") < number:
                time.sleep(0.01)
            killed = time.time()
            os.kill(_state(folder)["trainer"], signal.SIGKILL)
            while log.read_text().count("\nup ") <= number:
                time.sleep(0.01)
            taken.append(float(log.read_text().rpartition("\nup ")[2].split()[0]) - killed - policy.longest)
    return [
        Row(
            f"a killed trainer is back, over its backoff of 0.2 s ({rounds} times)",
            f"{max(taken):.2f} s at most",
            "",
            "<= 1 s",
            max(taken) <= 1,
        )
    ]


def supervision(_rounds: int) -> list[Row]:
    """Quiet and talkative trainers, with and without a memory guard, 30 seconds each; then the restarts."""
    rows = [row for lines in (10, 100) for row in cost(30, lines, None, "")]
    rows += cost(30, 10, Guard(2**60, 0.9, 0.25, ""), ", memory guard")
    return rows + restart(10)
