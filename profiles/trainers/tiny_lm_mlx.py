"""Trains a tiny language model with MLX, on text made on the spot: tiny_lm.py's work on Apple's own framework.

The model is about as large, 70,000 weights, and MLX computes on what it has: Metal on a Mac, the processor on Linux.
With --output it saves every few steps, whole or not at all, and with --resume it goes on from the newest save: weights,
the optimizer's state and the step, so that the losses are those of a run that nothing interrupted. The same seed gives
the same losses on the same machine.

Exit status: 0 the loss fell, 1 it did not, 2 wrong use, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

LENGTH = 64  # characters in a row of the training data
LETTERS = "abcdefghijklmnopqrstuvwxyz .?"
SUBJECTS = ("the tug", "a red boat", "the old ferry", "one pilot", "the crew")
VERBS = ("enters", "leaves", "waits at", "paints", "returns to")
PLACES = ("the dry dock", "the harbour", "the quiet bay", "a long pier")
WIDTH, HEADS, LAYERS = 64, 4, 2


def options(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line; exits with status 2 where it is wrong."""
    parser = argparse.ArgumentParser(description="Train a tiny language model on made-up text, with MLX.")
    parser.add_argument("--steps", type=int, default=60, help="steps in all (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="rows in a step (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of text and model (default: %(default)s)")
    parser.add_argument("--cpu", action="store_true", help="use the processor even if there is a GPU")
    parser.add_argument("--output", type=Path, metavar="DIR", help="save here (default: nowhere)")
    parser.add_argument("--save-steps", type=int, default=10, help="steps between saves (default: %(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on from the newest save in --output, if any")
    parser.add_argument("--json", action="store_true", help="end with a summary as one line of JSON")
    chosen = parser.parse_args(argv)
    for name, least in (("steps", 2), ("batch_size", 1), ("seed", 0), ("save_steps", 1)):
        if getattr(chosen, name) < least:
            parser.error(f"--{name.replace('_', '-')} must be at least {least}, not {getattr(chosen, name)}")
    if chosen.resume and chosen.output is None:
        parser.error("--resume goes with --output DIR")
    return chosen


def sentences(count: int, source: random.Random) -> str:
    """``count`` characters of simple English about boats."""
    text = ""
    while len(text) < count:
        text += f"{source.choice(SUBJECTS)} {source.choice(VERBS)} {source.choice(PLACES)}. "
    return text[:count]


def batch(chosen: argparse.Namespace, step: int) -> Any:
    """The rows of a step, (rows, LENGTH): by the seed and the step alone, so that a resumed run sees the same."""
    import mlx.core as mx

    source = random.Random(chosen.seed * 1_000_003 + step)
    rows = [[LETTERS.index(letter) for letter in sentences(LENGTH, source)] for _ in range(chosen.batch_size)]
    return mx.array(rows)


def make_model() -> Any:
    """A transformer of about 70,000 random weights."""
    import mlx.core as mx
    from mlx import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attend = nn.MultiHeadAttention(WIDTH, HEADS)
            self.rope = nn.RoPE(WIDTH)
            self.before, self.between = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
            self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

        def __call__(self, x: Any, mask: Any) -> Any:
            y = self.before(x)
            placed = self.rope(y)
            x = x + self.attend(placed, placed, y, mask)
            return x + self.down(nn.gelu(self.up(self.between(x))))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(len(LETTERS), WIDTH)
            self.blocks = [Block() for _ in range(LAYERS)]
            self.norm, self.head = nn.RMSNorm(WIDTH), nn.Linear(WIDTH, len(LETTERS))

        def __call__(self, tokens: Any) -> Any:
            x = self.embed(tokens)
            mask = nn.MultiHeadAttention.create_additive_causal_mask(tokens.shape[1])
            for block in self.blocks:
                x = block(x, mask)
            return self.head(self.norm(x))

    model = Model()
    mx.eval(model.parameters())
    return model


def save(folder: Path, step: int, model: Any, optimizer: Any) -> None:
    """Saves all that a run needs to go on as step-N.safetensors; one that was killed leaves no file of that name."""
    import mlx.core as mx
    from mlx.utils import tree_flatten

    state = {f"model.{name}": value for name, value in tree_flatten(model.parameters())}
    state |= {f"optimizer.{name}": value for name, value in tree_flatten(optimizer.state)}
    partial = folder / f".step-{step}.{os.getpid()}.safetensors"
    mx.save_safetensors(str(partial), state, {"step": str(step)})
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(folder / f"step-{step}.safetensors")


def load(folder: Path, model: Any, optimizer: Any) -> int:
    """Takes the newest save into model and optimizer; returns its step, 0 where there is none."""
    import mlx.core as mx
    from mlx.utils import tree_unflatten

    saves = sorted(folder.glob("step-*.safetensors"), key=lambda path: int(path.stem.partition("-")[2]))
    if not saves:
        return 0
    state, told = mx.load(str(saves[-1]), return_metadata=True)

    def part(name: str) -> Any:
        return tree_unflatten(
            [(key.partition(".")[2], value) for key, value in state.items() if key.startswith(f"{name}.")]
        )

    model.update(part("model"))
    optimizer.state = part("optimizer")
    return int(told["step"])


def train(chosen: argparse.Namespace) -> dict[str, Any]:
    """All steps, or those that are left; returns the summary."""
    import mlx.core as mx
    from mlx import nn, optimizers

    if chosen.cpu:
        mx.set_default_device(mx.Device(mx.DeviceType.cpu))
    mx.random.seed(chosen.seed)
    model, optimizer = make_model(), optimizers.Adam(learning_rate=3e-3)
    optimizer.init(model.trainable_parameters())
    begin = 0
    if chosen.output is not None:
        chosen.output.mkdir(parents=True, exist_ok=True)
        begin = load(chosen.output, model, optimizer) if chosen.resume else 0
        print(f"resumed at step {begin}" if begin else "from the beginning", flush=True)

    def loss_of(model: Any, tokens: Any) -> Any:
        return nn.losses.cross_entropy(model(tokens[:, :-1]), tokens[:, 1:], reduction="mean")

    both = nn.value_and_grad(model, loss_of)
    losses: list[float] = []
    began = time.monotonic()
    for step in range(begin + 1, chosen.steps + 1):
        loss, gradients = both(model, batch(chosen, step))
        optimizer.update(model, gradients)
        mx.eval(model.parameters(), optimizer.state)
        losses.append(loss.item())
        if step == begin + 1 or step % max(1, chosen.steps // 10) == 0 or step == chosen.steps:
            speed = len(losses) / (time.monotonic() - began)
            print(f"step {step:3}  loss {losses[-1]:.3f}  {speed:.1f} steps/s", flush=True)
        if chosen.output is not None and (step % chosen.save_steps == 0 or step == chosen.steps):
            save(chosen.output, step, model, optimizer)
    device = "gpu" if mx.default_device() == mx.Device(mx.DeviceType.gpu) else "cpu"
    return {"begin": begin, "steps": chosen.steps, "device": device, "losses": losses}


def main() -> int:
    chosen = options()
    began = time.monotonic()
    try:
        summary = train(chosen)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    losses = summary["losses"]
    if not losses:
        print(f"all {summary['steps']} steps were done before")
        return 0
    seconds = time.monotonic() - began
    fell = losses[-1] < losses[0] or summary["begin"] > 0  # a resumed run may have one step left
    print(
        f"{len(losses)} steps on {summary['device']} in {seconds:.1f} s: the loss "
        f"{'fell' if fell else 'did not fall'}, {losses[0]:.3f} -> {losses[-1]:.3f}"
    )
    if chosen.json:
        print(json.dumps(summary))
    return 0 if fell else 1


if __name__ == "__main__":
    sys.exit(main())
