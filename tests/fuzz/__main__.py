"""`python -m tests.fuzz COUNT [TARGET...] [--seed N] [--jobs N]`: damaged input to every reader.

Exit status 1 where one fails otherwise than in words, or takes longer than two seconds. What failed is left in the
folder that is named.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path

from tests.fuzz.mutate import mutated
from tests.fuzz.targets import IN_WORDS, TARGETS, Target

LONGEST = 2.0
"""Seconds of this process that one input may take."""


def failure(target: Target, data: bytes, folder: Path) -> str | None:
    """What is wrong with how a target takes an input; None where nothing is."""
    inside = folder / "in"
    shutil.rmtree(inside, ignore_errors=True)
    inside.mkdir(parents=True)
    before = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, 10 * LONGEST)
    try:
        target.read(data, inside)
    except IN_WORDS as error:
        with suppress(UnicodeError):
            f"{error}".encode()
    except BaseException:
        return traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    took = time.process_time() - before
    return f"took {took:.1f} s" if took > LONGEST else None


def fuzz(name: str, count: int, seed: int) -> list[tuple[bytes, str]]:
    """Feed a target with `count` damaged inputs; the inputs that failed, and how."""
    chance = random.Random(f"{name} {seed}")
    found = []
    with tempfile.TemporaryDirectory(prefix="drydock-fuzz-") as folder:
        for _ in range(count):
            data = mutated(TARGETS[name].seeds, chance)
            if (wrong := failure(TARGETS[name], data, Path(folder))) is not None:
                found.append((data, wrong))
                if len(found) >= 5:
                    break
    return found


def main() -> int:
    """Fuzz, and say what came of it."""
    parser = argparse.ArgumentParser(prog="fuzz")
    parser.add_argument("count", type=int, help="inputs in all")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--seed", type=int, default=None, help="begin with this number (default: the time)")
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    seed = asked.seed if asked.seed is not None else int(time.time())
    names = asked.targets or list(TARGETS)
    left = Path(tempfile.mkdtemp(prefix="drydock-fuzz-found-"))
    children = [
        _start(names, asked.count // len(names) // asked.jobs + 1, seed + job, left) for job in range(asked.jobs)
    ]
    failed = [child for child in children if os.waitpid(child, 0)[1]]
    if failed:
        print(f"what failed is in {left}")
        return 1
    left.rmdir()
    print(
        f"{(asked.count // len(names) // asked.jobs + 1) * asked.jobs * len(names)} inputs, 0 failures (--seed {seed})"
    )
    return 0


def _start(names: list[str], count: int, seed: int, left: Path) -> int:
    child = os.fork()
    if child:
        return child
    status = 0
    for name in names:
        begin = time.monotonic()
        found = fuzz(name, count, seed)
        for number, (data, wrong) in enumerate(found):
            status = 1
            (left / f"{name}-{seed}-{number}").write_bytes(data)
            print(f"{name}: {data[:200]!r}\n{wrong}", flush=True)
        print(f"{name}: {count} inputs in {time.monotonic() - begin:.0f} s", flush=True)
    os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
