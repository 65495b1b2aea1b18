"""Work on all cores, by plain forks: no pool outlives the process that began it."""

from __future__ import annotations

import marshal
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from builder.embedded import lifeline
from builder.embedded.errors import StageError

Job = TypeVar("Job")


def on_all_cores(
    work: Callable[[Job], Any],
    jobs: Sequence[Job],
    costs: Sequence[int],
    *,
    grain: int,
    progress: Callable[[int], None] = lambda *_: None,
) -> list[Any]:
    """What `work` returns for each job, in their order: plain data. Raises StageError where a process fails.

    `costs` say how the jobs compare, and `grain` what is too little for a process of its own. `progress` is called
    with the number of jobs that are done, every half a second at least. Plain forks and a pipe each, not a pool: where
    this process is killed, its children meet the closed pipe and end.
    """
    workers = max(1, min(usable_cores(), sum(costs) // grain))
    if workers == 1:
        return _one_by_one(work, jobs, progress)
    readers: list[int] = []
    children: list[int] = []
    try:
        for share in _shares(costs, workers):
            child, reader = _fork(work, jobs, share, readers)
            lifeline.add(child)
            children.append(child)
            readers.append(reader)
        contents = _listen(readers, progress)
        failed = [child for child in children if os.waitpid(child, 0)[1]]
    except BaseException:
        for child in children:
            lifeline.kill(child)
        raise
    for child in children:
        lifeline.drop(child)
    if failed:
        raise StageError("a process of this build ended before its time: see above, or is memory short?")
    results = [None] * len(jobs)
    for content in contents:
        for number, result in marshal.loads(content):
            results[number] = result
    return results


def _one_by_one(work: Callable[[Job], Any], jobs: Sequence[Job], progress: Callable[[int], None]) -> list[Any]:
    results = []
    for number, job in enumerate(jobs, 1):
        results.append(work(job))
        if number % 100 == 0:
            progress(number)
    return results


def _fork(work: Callable[[Job], Any], jobs: Sequence[Job], share: list[int], readers: list[int]) -> tuple[int, int]:
    """Begin a worker; returns its process id, and where it is heard."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)  # with what it starts itself
        for pipe in (reader, *readers):
            os.close(pipe)
        _work_and_exit(work, jobs, share, writer)
    os.close(writer)
    return child, reader


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _shares(costs: Sequence[int], count: int) -> list[list[int]]:
    """The numbers of the jobs, for each worker some, all with about the same sum.

    Every other worker begins with its largest, and the others end with them: they are not all in memory at once.
    """
    import heapq

    loads = [(0, number) for number in range(count)]
    shares: list[list[int]] = [[] for _ in range(count)]
    for job in sorted(range(len(costs)), key=lambda job: -costs[job]):
        load, worker = loads[0]
        shares[worker].append(job)
        heapq.heapreplace(loads, (load + costs[job] + 1, worker))
    return [share[:: -1 if number % 2 else 1] for number, share in enumerate(shares)]


def _work_and_exit(work: Callable[[Job], Any], jobs: Sequence[Job], share: list[int], writer: int) -> None:
    """Do the jobs of one worker: a byte of 1 for every hundred, then a 0 and the results."""

    def do() -> None:
        results = []
        parent = os.getppid()
        for number, job in enumerate(share, 1):
            if os.getppid() != parent:
                raise StageError("who began this is gone")
            result = work(jobs[job])
            if result is not None:
                results.append((job, result))
            if number % 100 == 0:
                os.write(writer, b"\x01")
        with os.fdopen(writer, "wb") as file:
            file.write(b"\x00" + marshal.dumps(results))

    exit_after(do)


def exit_after(do: Callable[[], None]) -> None:
    """Do something, then end this process, whatever happens: a child must never come back into its parent's program."""
    code = 1
    try:
        do()
        code = 0
    except (OSError, StageError) as error:
        print(f"drydock: error: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def _listen(readers: Sequence[int], progress: Callable[[int], None]) -> list[bytes]:
    """Read what the workers say until they are silent; returns their results."""
    import selectors

    pipes = selectors.DefaultSelector()
    for reader in readers:
        pipes.register(reader, selectors.EVENT_READ, bytearray())
    done = 0
    contents = []
    while pipes.get_map():
        progress(done)
        for key, _ in pipes.select(0.5):
            content = os.read(key.fd, 1 << 16)
            if not content:
                pipes.unregister(key.fd)
                os.close(key.fd)
                contents.append(bytes(key.data).partition(b"\x00")[2] or marshal.dumps([]))
            else:
                before = key.data.find(0) < 0
                key.data.extend(content)
                if before and (ticks := content.partition(b"\x00")[0]):
                    done += 100 * len(ticks)
    return contents
