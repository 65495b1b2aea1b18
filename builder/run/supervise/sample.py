"""Samples of a tree of processes: processor, memory, and the memory of the machine."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Sample:
    """One look at the tree; sizes in bytes.

    `cores` is how many processors it kept busy since the look before. `resident` counts a page that processes share
    once for each of them. `swap` and `used`, the memory that no other program can have, are the whole machine's.
    """

    time: float
    processes: int
    cores: float
    resident: int
    swap: int
    used: int


class Tree:
    """All that descends from this process, without `others`, the process groups of our helpers.

    What is a child of a child that ended stays in it: by the kernel where we are its subreaper, else by memory.
    """

    def __init__(self) -> None:
        self.others: set[int] = set()
        self._known: dict[psutil.Process, float] = {}
        self._looked = time.monotonic()

    def processes(self) -> list[psutil.Process]:
        """Return the live processes."""
        found = set()
        with suppress(psutil.Error):
            found = {one for one in psutil.Process().children(recursive=True) if not self._is_other(one.pid)}
        found |= {one for one in self._known if one not in found and one.is_running()}
        return [one for one in found if _lives(one)]

    def _is_other(self, number: int) -> bool:
        try:
            return bool(self.others) and os.getpgid(number) in self.others
        except ProcessLookupError:
            return True

    def sample(self) -> Sample:
        """Look at it now."""
        spent = resident = 0.0
        used: dict[psutil.Process, float] = {}
        for one in self.processes():
            try:
                with one.oneshot():
                    times = one.cpu_times()
                    resident += one.memory_info().rss
            except psutil.Error:
                continue  # gone meanwhile
            used[one] = times.user + times.system
            spent += max(0.0, used[one] - self._known.get(one, 0.0))
        now = time.monotonic()
        elapsed, self._looked, self._known = max(now - self._looked, 1e-3), now, used
        swap, memory = _machine()
        return Sample(round(time.time(), 3), len(used), round(spent / elapsed, 3), int(resident), swap, memory)

    def send(self, number: int, group: int) -> None:
        """Send a signal to the process group and to everything else of the tree."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
        for one in self.processes():
            with suppress(psutil.Error, ProcessLookupError):
                if os.getpgid(one.pid) != group:
                    one.send_signal(number)


def began_at(number: int) -> float:
    """When a process began, in seconds since the epoch: with its id, it identifies the process."""
    try:
        return float(psutil.Process(number).create_time())
    except psutil.Error:
        return time.time()


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _machine() -> tuple[int, int]:
    """Swap and memory that are in use."""
    try:
        memory = psutil.virtual_memory()
        return psutil.swap_memory().used, memory.total - memory.available
    except (OSError, psutil.Error, RuntimeError):  # a container may hide either
        return 0, 0
