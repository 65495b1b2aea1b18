"""Trains a small random language model with trl's GRPO: the work of RL-Swarm's trainer, offline, in seconds.

What `drydock bench` runs for the swarm profiles, whose own trainer needs a checkout and a swarm. 25 million weights
are enough for threads to matter, which the 77,000 of tiny_lm.py are not. --config and options such as --optim and
--beta are those of trl's GRPOConfig, as in rl-swarm's trainer. The same seed gives the same losses on the same machine.

Exit status: 0, or that of an uncaught exception; 2 wrong use.
"""

from __future__ import annotations

import os
import random
import sys
from typing import Any

# Set before the libraries are imported, because they read it then.
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", WANDB_MODE="disabled")

from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer, TrlParser

# As in rl-swarm's configuration for the Mac, with lengths that end in seconds. What is given on the command line wins.
DEFAULTS = {
    "max_steps": 6,
    "learning_rate": 1e-4,
    "lr_scheduler_type": "constant",
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "num_generations": 4,
    "beta": 0.001,
    "max_prompt_length": 32,
    "max_completion_length": 32,
    "use_cpu": True,
    "logging_steps": 1,
    "report_to": [],
    "save_strategy": "no",
    "disable_tqdm": True,
    "output_dir": "/nonexistent",  # nothing is saved
    "seed": 0,
}
LETTERS = "abcdefghijklmnopqrstuvwxyz .?"
WORDS = ("the", "red", "boat", "waits", "at", "a", "pier", "and", "leaves")


class Progress(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """A line for every step."""

    def on_log(self, _: Any, state: Any, __: Any, logs: dict[str, float], **___: Any) -> None:
        if "loss" in logs:
            print(f"step {state.global_step}  loss {logs['loss']:.6f}  reward {logs['reward']:.3f}", flush=True)


def make_tokenizer() -> Any:
    """One token per character."""
    vocabulary = {letter: number for number, letter in enumerate([*LETTERS, "<e>"])}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(BPE(vocabulary, [], unk_token="?")), eos_token="<e>", pad_token="<e>", unk_token="?"
    )


def make_model(tokenizer: Any) -> Any:
    """A GPT-2 of 25 million random weights."""
    end = tokenizer.eos_token_id
    shape = {"n_positions": 64, "n_embd": 512, "n_layer": 8, "n_head": 8}
    return GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), bos_token_id=end, eos_token_id=end, **shape))


def reward(completions: list[str], **_: Any) -> list[float]:
    """The share of the letter e."""
    return [text.count("e") / max(1, len(text)) for text in completions]


def main() -> None:
    given = {word.split("=")[0].lstrip("-") for word in sys.argv[1:] if word.startswith("--")}
    words = [
        word
        for name, value in DEFAULTS.items()
        if name not in given and value != []
        for word in (f"--{name}", str(value))
    ]
    (arguments,) = TrlParser((GRPOConfig,)).parse_args_and_config([*words, *sys.argv[1:]])
    arguments.report_to = []
    source = random.Random(arguments.seed)
    prompts = [" ".join(source.choices(WORDS, k=4)) for _ in range(64)]
    tokenizer = make_tokenizer()
    trainer = GRPOTrainer(
        model=make_model(tokenizer),
        processing_class=tokenizer,
        reward_funcs=reward,
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        callbacks=[Progress()],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()


if __name__ == "__main__":
    main()
