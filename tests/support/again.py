"""What happens again and again while a test does something else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def happening(deed: Callable[[], object], pause: float) -> Iterator[None]:
    """Have `deed` done over and over, with `pause` seconds between, in a thread that has ended when this has."""
    over = threading.Event()

    def loop() -> None:
        while not over.wait(pause):
            deed()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
