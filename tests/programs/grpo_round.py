"""One GRPO round of trl on a tiny random model, with a configuration file as rl-swarm reads it.

grpo_round.py CONFIG ROWS [--name value]: arguments after ROWS override the configuration, as in rl-swarm's trainer.
Prints "steps N".
"""

import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer, TrlParser

config_file, rows, *overrides = sys.argv[1:]
sys.argv[1:] = ["--config", config_file, *overrides]
(config,) = TrlParser((GRPOConfig,)).parse_args_and_config()

vocabulary = {chr(code): code - 32 for code in range(32, 127)} | {"<e>": 95}
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=Tokenizer(BPE(vocabulary, [], unk_token="?")), eos_token="<e>", pad_token="<e>", unk_token="?"
)
model = GPT2LMHeadModel(
    GPT2Config(vocab_size=96, n_positions=64, n_embd=32, n_layer=1, n_head=2, bos_token_id=95, eos_token_id=95)
)
trainer = GRPOTrainer(
    model=model,
    processing_class=tokenizer,
    reward_funcs=lambda completions, **_: [float(len(text)) for text in completions],
    args=config,
    train_dataset=Dataset.from_dict({"prompt": [f"q{row}" for row in range(int(rows))]}),
)
trainer.train()
print("steps", trainer.state.global_step)
