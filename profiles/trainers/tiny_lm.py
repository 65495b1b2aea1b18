"""Trains a tiny language model on text made on the spot: the smallest real trainer, to see that all works.

transformers' Trainer and accelerate, offline, a few seconds on two processor cores. It goes in rounds as
rl-swarm does, and the round in the middle has too few rows for a step, which is how rl-swarm met accelerate's
defect with empty loaders (huggingface/accelerate pull request 3659): the round must train nothing, say so,
and let the next one go on. The same seed gives the same losses on the same machine.

Exit status: 0 the loss fell, 1 it did not, 2 wrong use, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ACCUMULATE = 2  # batches in a step
LENGTH = 64  # characters in a row of the training data
LETTERS = "abcdefghijklmnopqrstuvwxyz .?"  # "?" is the unknown character
SUBJECTS = ("the tug", "a red boat", "the old ferry", "one pilot", "the crew")
VERBS = ("enters", "leaves", "waits at", "paints", "returns to")
PLACES = ("the dry dock", "the harbour", "the quiet bay", "a long pier")
# Set before the libraries are imported, because they read it then.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}


def options(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line; exits with status 2 where it is wrong."""
    parser = argparse.ArgumentParser(description="Train a tiny language model on made-up text, in rounds.")
    parser.add_argument("--steps", type=int, default=30, help="steps in a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="from 3, the middle one is empty (default: 3)")
    parser.add_argument("--batch-size", type=int, default=4, help="half a step's rows (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of text and model (default: %(default)s)")
    parser.add_argument("--cpu", action="store_true", help="use the processor even if there is a GPU")
    parser.add_argument("--output", type=Path, metavar="DIR", help="keep the model here (default: nowhere)")
    parser.add_argument("--json", action="store_true", help="end with a summary as one line of JSON")
    chosen = parser.parse_args(argv)
    for name, least in (("steps", 2), ("rounds", 1), ("batch_size", 1), ("seed", 0)):
        if getattr(chosen, name) < least:
            parser.error(f"--{name.replace('_', '-')} must be at least {least}, not {getattr(chosen, name)}")
    return chosen


class WholeSteps:
    """Rows in order, without those that do not make up a step.

    ``len`` counts the rows left out too, as in trl's sampler: so Trainer expects a batch, asks for it, and
    gets none. It would not even look into a loader of length 0.
    """

    def __init__(self, rows: int, step: int) -> None:
        self.rows, self.given = rows, rows // step * step

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.given))

    def __len__(self) -> int:
        return self.rows


def sentences(count: int, source: random.Random) -> str:
    """``count`` characters of simple English about boats."""
    text = ""
    while len(text) < count:
        text += f"{source.choice(SUBJECTS)} {source.choice(VERBS)} {source.choice(PLACES)}. "
    return text[:count]


def make_tokenizer() -> Any:
    """One token per character: BPE that merges nothing."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    vocabulary = {letter: number for number, letter in enumerate(LETTERS)}
    characters = Tokenizer(BPE(vocabulary, [], unk_token="?"))
    return PreTrainedTokenizerFast(tokenizer_object=characters, unk_token="?")


def make_model() -> Any:
    """A Llama of about 77,000 random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(LETTERS),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config)


def make_rows(count: int, tokenizer: Any, source: random.Random) -> list[dict[str, list[int]]]:
    """``count`` rows of training data; a causal language model's labels are its input."""
    texts = (sentences(LENGTH, source) for _ in range(count))
    encoded = (tokenizer.encode(text) for text in texts)
    return [{"input_ids": row, "labels": row} for row in encoded]


def make_trainer(chosen: argparse.Namespace, model: Any, rows: list[Any], title: str, losses: list[float]) -> Any:
    """A Trainer that prints a line every few steps under ``title`` and appends each loss to ``losses``."""
    from torch.utils.data import DataLoader
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    class Progress(TrainerCallback):  # type: ignore[misc, unused-ignore]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.monotonic()

        def on_log(self, _: Any, state: Any, __: Any, logs: dict[str, float], **___: Any) -> None:
            if "loss" not in logs:  # the summary at the end of a round
                return
            losses.append(logs["loss"])
            speed = state.global_step / (time.monotonic() - self.began)
            step = f"step {state.global_step:3}  loss {logs['loss']:.3f}  {speed:.1f} steps/s"
            print(f"{title}: {step}", flush=True)

    class InBatches(Trainer):  # type: ignore[misc, unused-ignore]
        def get_train_dataloader(self) -> Any:
            size, sampler = chosen.batch_size, WholeSteps(len(rows), chosen.batch_size * ACCUMULATE)
            loader = DataLoader(rows, batch_size=size, sampler=sampler, collate_fn=self.data_collator)
            return self.accelerator.prepare(loader)

    arguments = TrainingArguments(
        output_dir=str(chosen.output),
        per_device_train_batch_size=chosen.batch_size,
        gradient_accumulation_steps=ACCUMULATE,
        max_steps=chosen.steps,
        learning_rate=3e-3,
        lr_scheduler_type="constant",
        logging_steps=max(1, chosen.steps // 5),
        logging_first_step=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=chosen.cpu,
        seed=chosen.seed,
    )
    trainer = InBatches(model=model, args=arguments, train_dataset=rows, callbacks=[Progress()])
    trainer.remove_callback(PrinterCallback)  # it would print every log a second time, as a dict
    return trainer


@contextmanager
def shown(text: str) -> Iterator[None]:
    """A line on a terminal that counts the seconds, and goes when the work is done."""
    done = threading.Event()

    def count() -> None:
        began = time.monotonic()
        while not done.wait(1):
            print(f"\r{text}: {time.monotonic() - began:.0f} s", end="", file=sys.stderr, flush=True)
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield
        return
    counter = threading.Thread(target=count, daemon=True)
    counter.start()
    try:
        yield
    finally:
        done.set()
        counter.join()


def train(chosen: argparse.Namespace) -> dict[str, Any]:
    """All rounds on one model; returns the summary."""
    with shown("importing torch"):
        import torch
    with shown("importing transformers"):
        from transformers import Trainer, set_seed

        assert Trainer  # it is loaded when it is first asked for

    # The model is too small to share: threads would only wait for each other, and long on a busy machine.
    torch.set_num_threads(1)
    set_seed(chosen.seed)
    source = random.Random(chosen.seed)
    tokenizer, model = make_tokenizer(), make_model()
    losses: list[float] = []
    empty: list[int] = []
    steps, device = 0, ""
    step = chosen.batch_size * ACCUMULATE  # rows in one
    middle = (chosen.rounds + 1) // 2 if chosen.rounds >= 3 else 0
    for number in range(1, chosen.rounds + 1):
        title = f"round {number} of {chosen.rounds}"
        count = step - 1 if number == middle else chosen.steps * step
        rows = make_rows(count, tokenizer, source)
        trainer = make_trainer(chosen, model, rows, title, losses)
        device = trainer.args.device.type
        trainer.train()
        steps += trainer.state.global_step
        if trainer.state.global_step == 0:
            empty.append(number)
            print(f"{title}: no data, nothing trained", flush=True)
    model.save_pretrained(chosen.output)
    tokenizer.save_pretrained(chosen.output)
    return {
        "rounds": chosen.rounds,
        "empty_rounds": empty,
        "steps": steps,
        "device": device,
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }


def run(chosen: argparse.Namespace) -> int:
    """Trains, reports, and returns the exit status."""
    began = time.monotonic()
    if chosen.output is None:
        with tempfile.TemporaryDirectory(prefix="tiny-lm-") as folder:
            summary = train(argparse.Namespace(**vars(chosen) | {"output": Path(folder)}))
    else:
        summary = train(chosen)
        print(f"the model is in {chosen.output}")
    summary["seconds"] = round(time.monotonic() - began, 1)
    fell = summary["last_loss"] < summary["first_loss"]
    print(
        f"{summary['steps']} steps on {summary['device']} in {summary['seconds']} s: the loss "
        f"{'fell' if fell else 'did not fall'}, {summary['first_loss']:.3f} -> {summary['last_loss']:.3f}"
    )
    if chosen.json:
        print(json.dumps(summary))
    return 0 if fell else 1


def main() -> int:
    chosen = options()
    os.environ.update(ENVIRONMENT)
    if "LOCAL_RANK" not in os.environ:  # of torchrun, where each process has a GPU of its own
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # Trainer would split so small a batch over all GPUs
    pressed: list[int] = []

    def interrupt(number: int, _: object) -> None:
        pressed.append(number)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # what a shell sets for a job in the background
        signal.signal(signal.SIGINT, interrupt)
    try:
        return run(chosen)
    except BaseException:  # transformers turns an interrupt of its imports into errors of its own
        if not pressed:
            raise
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not end this in a traceback
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
