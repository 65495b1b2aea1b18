"""Proof that an empty DataLoader prepared by accelerate ends, and that a full one still gives every batch.

Run as ``ENV/bin/python -I accelerate_empty_dataloader.py``: exit 0 and one line ``ok: ...``, or a traceback
and exit 1. Before huggingface/accelerate pull request 3659 (first released in 1.9.0) the traceback ends with
``UnboundLocalError: cannot access local variable 'current_batch'``.

Why full loaders too: a repair known in the wild replaces ``DataLoaderShard.__iter__`` by a function that says
both ``yield`` and ``return original_iter(self)``. The ``yield`` makes it a generator, its ``return`` only
ends it, so *every* loader gives zero batches: the crash is gone, and so is the training. An empty loader
cannot tell that from a repair. So the batches are compared, one by one, with those of PyTorch's DataLoader.

The warning of an empty loader is Drydock's, not upstream's: it is asked for when DRYDOCK_PATCHED=1 is set.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from accelerate import Accelerator, DataLoaderConfiguration, skip_first_batches
from accelerate.state import GradientState
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler

EPOCHS = 2
LOGGER = "accelerate.data_loader"
# What the warning must name, so that a reader of it can act.
NUMBERS = (
    "No batch came",
    "dataset length",
    "batch_size",
    "drop_last",
    "sampler",
    "gradient_accumulation_steps",
)


class Warnings(logging.Handler):
    """Collects what accelerate's loaders warn of while it is entered."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())

    def __enter__(self) -> Warnings:
        log = logging.getLogger(LOGGER)
        self.propagated, log.propagate = log.propagate, False  # this proof makes empty loaders on purpose
        log.addHandler(self)
        return self

    def __exit__(self, *exc: object) -> None:
        log = logging.getLogger(LOGGER)
        log.removeHandler(self)
        log.propagate = self.propagated


class Stream(IterableDataset[int]):  # type: ignore[misc, unused-ignore]
    """The numbers below ``length`` as a dataset without a length."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.length))


def must(holds: bool, what: str) -> None:
    """Raises AssertionError with ``what`` unless it holds; ``assert`` would vanish under ``python -O``."""
    if not holds:
        raise AssertionError(what)


def accelerator(**config: Any) -> Accelerator:
    """An Accelerator on the CPU, also where a Mac offers MPS."""
    return Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(**config))


def batches(loader: Iterable[torch.Tensor]) -> list[list[int]]:
    """One epoch as plain lists."""
    return [batch.tolist() for batch in loader]


def loader(length: int, workers: int = 0, **options: Any) -> DataLoader[int]:
    """A DataLoader over the numbers below ``length``; the same arguments give the same batches."""
    if options.get("shuffle"):
        options["generator"] = torch.Generator().manual_seed(7)
    return DataLoader(range(length), num_workers=workers, persistent_workers=workers > 0, **options)


def in_batches(length: int, size: int, drop_last: bool) -> DataLoader[int]:
    """The same through a batch sampler of the caller's own."""
    numbers = range(length)
    sampler = BatchSampler(SequentialSampler(numbers), batch_size=size, drop_last=drop_last)
    return DataLoader(numbers, batch_sampler=sampler)


def full_loaders() -> list[tuple[str, DataLoader[int], DataLoader[int]]]:
    """Loaders that give batches: a name, what to prepare, and the plain twin to compare with."""
    cases: list[tuple[str, DataLoader[int], DataLoader[int]]] = []
    for length, size, drop_last in [(1, 1, False), (1, 4, False), (7, 2, False), (7, 2, True), (8, 4, True)]:
        options = {"batch_size": size, "drop_last": drop_last}
        name = f"{length} rows, batch_size {size}, drop_last {drop_last}"
        cases.append((name, loader(length, **options), loader(length, **options)))
        cases.append((f"{name}, batch_sampler", in_batches(length, size, drop_last), loader(length, **options)))
    cases.append(("shuffled", loader(9, batch_size=2, shuffle=True), loader(9, batch_size=2, shuffle=True)))
    # Workers change who makes the batches, not the batches: the twin does without and saves their start.
    cases.append(("2 workers", loader(9, workers=2, batch_size=2), loader(9, batch_size=2)))
    return cases


def empty_loaders() -> list[tuple[str, DataLoader[int]]]:
    """Loaders that give no batch. The first is the smallest example of the bug."""
    return [
        ("no rows", DataLoader([], batch_size=2)),
        ("no rows, drop_last", loader(0, batch_size=2, drop_last=True)),
        ("fewer rows than a batch, drop_last", loader(3, batch_size=4, drop_last=True)),
        (
            "fewer rows than a batch, drop_last, shuffled",
            loader(3, batch_size=4, drop_last=True, shuffle=True),
        ),
        ("no rows, batch_sampler", in_batches(0, 2, drop_last=False)),
        ("fewer rows than a batch, batch_sampler", in_batches(3, 4, drop_last=True)),
        ("no rows, batch_size None", loader(0, batch_size=None)),
        ("no rows, 2 workers", loader(0, workers=2, batch_size=2)),
    ]


def check_full(name: str, prepared: Iterable[torch.Tensor], plain: Iterable[torch.Tensor]) -> None:
    """Both must give the same batches in every epoch, and there must be some; no warning may come."""
    with Warnings() as warned:
        for epoch in range(1, EPOCHS + 1):
            found, wanted = batches(prepared), batches(plain)
            must(bool(wanted), f"{name}: the plain loader is empty, the comparison would mean nothing")
            must(
                len(found) == len(wanted),
                f"{name}, epoch {epoch}: {len(found)} batches from accelerate, {len(wanted)} from PyTorch",
            )
            for index, (one, other) in enumerate(zip(found, wanted, strict=True)):
                must(
                    one == other,
                    f"{name}, epoch {epoch}, batch {index}: {one} from accelerate, {other} from PyTorch",
                )
    must(not warned.messages, f"{name}: a full loader warned: {warned.messages}")
    must(not GradientState().in_dataloader, f"{name}: still registered with the gradient state")


def check_empty(name: str, prepared: Iterable[torch.Tensor]) -> None:
    """No epoch may give a batch or fail; the gradient state is left as found; one warning for all epochs."""
    before = GradientState().active_dataloader
    with Warnings() as warned:
        for epoch in range(1, EPOCHS + 1):
            found = list(prepared)
            must(not found, f"{name}, epoch {epoch}: {len(found)} batches from an empty loader: {found}")
            must(
                GradientState().active_dataloader is before,
                f"{name}: still registered with the gradient state",
            )
    if os.environ.get("DRYDOCK_PATCHED") == "1":
        must(
            len(warned.messages) == 1,
            f"{name}: {len(warned.messages)} warnings instead of one: {warned.messages}",
        )
        for word in NUMBERS:
            must(
                word in warned.messages[0],
                f"{name}: the warning does not name {word!r}: {warned.messages[0]}",
            )


def check_all_full() -> int:
    """Every kind of full loader; returns how many."""
    cases = full_loaders()
    for name, source, plain in cases:
        check_full(name, accelerator().prepare(source), plain)
    dispatched = accelerator(dispatch_batches=True).prepare(loader(7, batch_size=2))
    check_full("dispatched by process 0", dispatched, loader(7, batch_size=2))
    skipped = skip_first_batches(accelerator().prepare(loader(7, batch_size=2)), 1)
    check_full("first batch skipped", skipped, [torch.tensor(rows) for rows in ([2, 3], [4, 5], [6])])
    return len(cases) + 2


def check_all_empty() -> int:
    """Every kind of empty loader; returns how many."""
    cases = empty_loaders()
    for name, source in cases:
        check_empty(name, accelerator().prepare(source))
    # A resumed run may skip all there is; a stream has no length to look at first.
    check_empty("all batches skipped", skip_first_batches(accelerator().prepare(loader(4, batch_size=2)), 2))
    check_empty("empty stream", accelerator(dispatch_batches=False).prepare(DataLoader(Stream(0), batch_size=2)))
    return len(cases) + 2


def check_nested() -> None:
    """An empty loader inside a full one (an evaluation while training) leaves the outer one as it is."""
    outer = accelerator().prepare(loader(6, batch_size=2))
    seen = []
    for batch in outer:
        check_empty("inside a full loader", accelerator().prepare(DataLoader([], batch_size=2)))
        seen.append((batch.tolist(), outer.end_of_dataloader))
    must(seen == [([0, 1], False), ([2, 3], False), ([4, 5], True)], f"around an empty loader: {seen}")


def check_stateful() -> None:
    """The same through torchdata's StatefulDataLoader, where it is installed."""
    if importlib.util.find_spec("torchdata") is None:
        return
    stateful = accelerator(use_stateful_dataloader=True)
    check_empty("stateful, no rows", stateful.prepare(DataLoader([], batch_size=2)))
    check_full("stateful", stateful.prepare(loader(7, batch_size=2)), loader(7, batch_size=2))


def main() -> None:
    empty, full = check_all_empty(), check_all_full()
    check_nested()
    check_stateful()
    print(f"ok: {empty} empty loaders end, {full} full loaders give the batches of PyTorch's DataLoader")


if __name__ == "__main__":  # worker processes import this file where they are spawned (macOS)
    main()
