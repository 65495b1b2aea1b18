"""The table of docs/profiles.md: each built-in profile that can be built, as its profile and its lock describe it.

`python -m tests.shipped.profiles_table` prints the table.
"""

from __future__ import annotations

from packaging.version import Version

from builder.lock.sizes import size
from builder.profile.model import Profile
from builder.profile.target import Target
from builder.project.catalogue import Catalogue
from builder.resources import shipped

_PLATFORMS = {"macos-arm64": "Mac", "linux-x86_64": "Linux x86_64", "linux-arm64": "Linux, 64-bit Arm"}
_TRAINERS = {
    "trainers/tiny_lm.py": "a small model, in PyTorch",
    "trainers/tiny_lm_mlx.py": "a small model, in MLX",
    "hivemind_exp.gsm8k.train_single_gpu": "RL-Swarm v0.4",
    "code_gen_exp.runner.swarm_launcher": "RL-Swarm v0.7",
}
_RESUMES = "proofs/resume_training.py"
# transformers loads no checkpoint with an older torch (CVE-2025-32434).
_TORCH_THAT_LOADS = Version("2.6")


def table() -> str:
    """A row for each profile: its name, machine, trainer, memory, download, and whether its training resumes."""
    catalogue = Catalogue([shipped("profiles").absolute()])
    rows = ["| profile | machine | trains | memory | download | resumes |", "| --- | --- | --- | --- | --- | --- |"]
    targets = {name: target for name in catalogue.names() if (target := catalogue.target(name))}
    for name, target in sorted(targets.items(), key=lambda item: (list(_PLATFORMS).index(item[1].platform), item[0])):
        profile, lock = catalogue.profile(name), catalogue.lock(name)
        memory = f"{target.memory_gb} GB" if target.memory_gb else ""
        cells = (_machine(target), _trains(profile), memory, size(lock.size), _resumes(profile, lock.versions()))
        rows.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def _machine(target: Target) -> str:
    chip = target.match.chip if target.match else None
    of_chip = f" with {chip.removesuffix('*')}" if chip and chip != "Apple M*" else ""
    of_gpu = f", NVIDIA GPU, CUDA {target.cuda}" if target.cuda else ""
    return f"{_PLATFORMS[target.platform]}{of_chip}{of_gpu}"


def _trains(profile: Profile) -> str:
    trainer = profile.trainer
    return _TRAINERS[trainer.file or (trainer.command or [""])[-1]]


def _resumes(profile: Profile, versions: dict[str, str]) -> str:
    """What is known: by a proof, by the trainer's own option, or by a torch that loads no checkpoint."""
    if any(check.file == _RESUMES for check in profile.checks):
        return "yes, proved"
    if profile.trainer.file and "--resume" in (shipped("profiles") / profile.trainer.file).read_text():
        return "yes, with `--resume`"
    if Version(versions.get("torch", "0")) < _TORCH_THAT_LOADS:
        return "no"
    return "not proved"


if __name__ == "__main__":
    print(table(), end="")
