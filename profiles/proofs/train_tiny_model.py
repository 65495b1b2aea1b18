"""Proof that transformers' Trainer trains on the installed accelerate, and survives a lack of data.

Run as ``ENV/bin/python -I train_tiny_model.py``: exit 0 and one line ``ok: ...``, or the trainer's traceback
and exit 1. It needs both repairs: without ``keep_torch_compile`` no training starts (TypeError), without the
one of the empty loader the second run ends in UnboundLocalError.

Why a sampler of its own: Trainer counts the loader's batches first and does not touch one of length 0. What
reaches the defect is a sampler that promises rows and gives none, as trl's does when it drops an incomplete
group of prompts (``RepeatSampler`` in trl 0.18), and so rl-swarm. Why gradients are accumulated: the defect
answers the first request with a batch of None and fails at the second, so with one batch a step the same
defect shows as ``TypeError: argument of type 'NoneType' is not iterable``.

Why a child process: a trainer is one (rl-swarm starts it with ``python -m``), and a repair made in the memory
of its parent never reaches it. What is installed on disk does. The child makes a tiny random model on the
spot: no hub, no network, CPU only, also where a Mac offers MPS.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

STEPS = 4
BATCH = 4
ACCUMULATE = 2
GROUP = BATCH * ACCUMULATE  # rows in a step
LENGTH = 16
VOCABULARY = 32
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
}


def must(holds: bool, what: str) -> None:
    """Raises AssertionError with ``what`` unless it holds; ``assert`` would vanish under ``python -O``."""
    if not holds:
        raise AssertionError(what)


class WholeGroups:
    """Rows in order; an incomplete group is counted by ``len`` but not given, as trl's sampler does."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rows // GROUP * GROUP))

    def __len__(self) -> int:
        return self.rows


def train(rows: int, folder: str) -> dict[str, Any]:
    """Trains a fresh model on ``rows`` random rows; returns the steps it made and each step's loss."""
    import torch
    from torch.utils.data import DataLoader
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, set_seed

    set_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
    )
    data = [{"input_ids": row, "labels": row} for row in torch.randint(VOCABULARY, (rows, LENGTH))]
    arguments = TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=ACCUMULATE,
        max_steps=STEPS,  # without it Trainer refuses a loader of length 0 before it is asked for a batch
        dataloader_pin_memory=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(model=LlamaForCausalLM(config), args=arguments, train_dataset=data)
    loader = DataLoader(data, batch_size=BATCH, sampler=WholeGroups(rows), collate_fn=trainer.data_collator)
    trainer.get_train_dataloader = lambda: trainer.accelerator.prepare(loader)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"steps": trainer.state.global_step, "losses": losses}


def child() -> None:
    """Full data, fewer rows than a group, no rows: the results as the last line of stdout."""
    with tempfile.TemporaryDirectory() as folder:
        results = {rows: train(rows, folder) for rows in (STEPS * GROUP, GROUP - 1, 0)}
    print(json.dumps(list(results.values())))


def check(full: dict[str, Any], few: dict[str, Any], none: dict[str, Any]) -> None:
    """Full data must train, too few and no rows must make no step."""
    must(full["steps"] == STEPS, f"full data: {full['steps']} steps instead of {STEPS}")
    must(len(full["losses"]) == STEPS, f"full data: {len(full['losses'])} losses instead of {STEPS}")
    must(all(map(math.isfinite, full["losses"])), f"full data: a loss that is no number: {full['losses']}")
    must(few["steps"] == 0, f"fewer rows than a group: {few['steps']} steps instead of 0")
    must(none["steps"] == 0, f"no rows: {none['steps']} steps instead of 0")


def main() -> int:
    command = [sys.executable, "-I", __file__, "child"]
    done = subprocess.run(command, env=os.environ | QUIET, capture_output=True, text=True)
    if done.returncode != 0:
        sys.stderr.write(done.stderr)
        print(f"the training process ended with status {done.returncode}", file=sys.stderr)
        return 1
    check(*json.loads(done.stdout.splitlines()[-1]))
    print(f"ok: {STEPS} steps with finite losses on full data, 0 steps and no crash on too little and on none")
    return 0


if __name__ == "__main__":
    if sys.argv[1:] == ["child"]:
        child()
    else:
        sys.exit(main())
