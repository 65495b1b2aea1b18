"""Whether training repeats itself here, bit by bit: a small model is trained in two processes, and compared.

A program for the Python of an environment, which only those scripts carry whose profile asks for it:
determinism.py ACCELERATOR, with the variables of the trainer. It prints a line as the verification does.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

# What transformers are made of: an embedding, attention, a normalization, a convolution. Each step prints its loss as
# it is in memory. No empty lines: a script carries none.
_PROGRAM = """\
import hashlib, json, sys
import torch
wanted = sys.argv[1]
device = {"rocm": "cuda"}.get(wanted, wanted)
torch.manual_seed(0)
torch.use_deterministic_algorithms(True)
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.words = torch.nn.Embedding(64, 128)
        self.attention = torch.nn.MultiheadAttention(128, 4, batch_first=True)
        self.norm = torch.nn.LayerNorm(128)
        self.along = torch.nn.Conv1d(128, 128, 3, padding=1)
        self.out = torch.nn.Linear(128, 64)
    def forward(self, rows):
        x = self.words(rows)
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        return self.out(torch.nn.functional.gelu(self.along(x.transpose(1, 2)).transpose(1, 2)))
model = Model().to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
rows = torch.randint(0, 64, (16, 64), generator=torch.Generator().manual_seed(1)).to(device)
steps = []
for _ in range(STEPS):
    loss = torch.nn.functional.cross_entropy(model(rows).flatten(0, 1), rows.flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    steps.append(loss.item().hex())
weights = hashlib.sha256()
for one in model.state_dict().values():
    weights.update(bytes(one.detach().cpu().contiguous().view(-1).view(torch.uint8).tolist()))
said = "torch %s, %d threads" % (torch.__version__, torch.get_num_threads())
print(json.dumps([steps + [weights.hexdigest()], said]))
"""
STEPS = 20


def repeats(accelerator: str, python: str, *, torch: bool) -> tuple[bool, str]:
    """Whether it does with a Python, and in words: what was compared, or what differs.

    Without `torch` nothing is computed.
    """
    seed = os.environ.get("PYTHONHASHSEED", "")
    if not seed.isdigit():
        return False, "PYTHONHASHSEED is not a number: sets of texts are in another order in each run"
    if not torch:
        return True, f"PYTHONHASHSEED={seed}; there is no torch, so nothing was computed"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    clean.update(PYTHONNOUSERSITE="1", PYTHONDONTWRITEBYTECODE="1", PYTHONHASHSEED=seed)
    command = [python, "-c", _PROGRAM.replace("STEPS", str(STEPS)), accelerator]
    found = []
    for _ in range(2):
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", env=clean, cwd="/", check=False
        )
        words = (done.stderr if done.returncode else done.stdout).strip().splitlines()
        if done.returncode or not words:
            return False, words[-1] if words else f"ended with status {done.returncode} and said nothing"
        found.append(json.loads(words[-1]))
    (one, said), (other, _) = found
    at = next((number for number, pair in enumerate(zip(one, other), 1) if pair[0] != pair[1]), None)
    if at is not None:
        what = f"step {at}" if at <= STEPS else "the weights"
        return False, f"{said}: the same training, twice on {accelerator}, differs from {what} on"
    promise = "; on MPS PyTorch promises no order of additions" if accelerator == "mps" else ""
    return True, (
        f"{said}, PYTHONHASHSEED={seed}: {STEPS} steps, twice on {accelerator}, are the same bit by bit; "
        f"of this machine only, and the trainer itself: drydock replay{promise}"
    )


if __name__ == "__main__":
    good, words = repeats(sys.argv[1], sys.executable, torch=importlib.util.find_spec("torch") is not None)
    print(f"{'ok  ' if good else 'FAIL'} determinism: {words}", flush=True)
    sys.exit(not good)
