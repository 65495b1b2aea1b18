"""Proof that a training that is killed goes on from its checkpoint as if nothing had happened.

Run as ``ENV/bin/python -I resume_training.py``: exit 0 and one line ``ok: ...``, or what differs and exit 1. Three
child processes train the same tiny random model with transformers' Trainer, a checkpoint every second step: the first
to its end; the second until SIGKILL in its fifth step; the third goes on from the second's checkpoint. Its steps, its
losses, its weights and the state of its optimizer must be those of the first, bit by bit. On the processor, no hub,
no network.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

STEPS, SAVED, KILLED = 6, 4, 5
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
}


def digest(value: Any) -> str:
    """The digest of tensors in dictionaries and lists, and of plain values."""
    if isinstance(value, dict):
        return digest([[str(key), value[key]] for key in sorted(value, key=str)])
    if isinstance(value, list | tuple):
        return hashlib.sha256("".join(map(digest, value)).encode()).hexdigest()
    if hasattr(value, "detach"):
        return hashlib.sha256(value.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
    return hashlib.sha256(repr(value).encode()).hexdigest()


def train(output: str, what: str) -> None:
    """The child: trains into a folder; `what` is whole, killed or resumed. Prints what it came to as JSON."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments, set_seed

    torch.set_num_threads(1)
    set_seed(0)
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, bos_token_id=None, eos_token_id=None))
    rows = [{"input_ids": [(7 * row + place) % 32 for place in range(16)]} for row in range(64)]
    rows = [{**row, "labels": row["input_ids"]} for row in rows]

    class Kill(TrainerCallback):  # type: ignore[misc, unused-ignore]
        def on_substep_end(self, _: Any, state: Any, __: Any, **___: Any) -> None:
            if what == "killed" and state.global_step == KILLED - 1:
                os.kill(os.getpid(), signal.SIGKILL)

    arguments = TrainingArguments(
        output_dir=output,
        max_steps=STEPS,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        learning_rate=1e-2,
        logging_steps=1,
        save_steps=2,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        seed=0,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[Kill()])
    trainer.train(resume_from_checkpoint=f"{output}/checkpoint-{SAVED}" if what == "resumed" else None)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    state = {"weights": digest(model.state_dict()), "optimizer": digest(trainer.optimizer.state_dict())}
    print(json.dumps({"step": trainer.state.global_step, "losses": losses, **state}))


def child(output: Path, what: str) -> subprocess.CompletedProcess[str]:
    """Runs this file as the child; returns how it ended."""
    command = [sys.executable, "-I", __file__, str(output), what]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **QUIET}, check=False)


def told(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What a child came to; exits with its last words where it failed."""
    if done.returncode:
        sys.exit((done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="resume-") as folder:
        whole = told(child(Path(folder, "whole"), "whole"))
        killed = child(Path(folder, "killed"), "killed")
        if killed.returncode != -signal.SIGKILL:
            sys.exit(f"it was not killed in step {KILLED}, but ended with {killed.returncode}: {killed.stderr[-500:]}")
        resumed = told(child(Path(folder, "killed"), "resumed"))
    wrong = [name for name in whole if whole[name] != resumed[name]]
    if wrong:
        sys.exit(f"after a resume at step {SAVED} these are not those of an undisturbed run: {', '.join(wrong)}")
    print(f"ok: killed in step {KILLED}, resumed at {SAVED}, and step, losses, weights and optimizer are the same")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        train(*sys.argv[1:])
    else:
        main()
