"""Checks of the hardware and the system. Pure: facts in, diagnoses out."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from builder.check.doctor.diagnosis import Diagnosis
from builder.check.doctor.wheels import Need
from builder.embedded.words import plural
from builder.lock.outline import Outline, Package, Target
from builder.machine import Machine
from builder.machine.fit import numbers
from builder.machine.model import counted

if TYPE_CHECKING:
    from builder.profile.architectures import Kernels

_NO_ANSWER = "fails, or does not answer in a known form"

# What `import torch, transformers, accelerate; from transformers import Trainer` holds, the least that a trainer with
# them can: measured, torch 2.13.0+cpu, transformers 4.52.4, accelerate 1.1.1, Linux x86_64. Training takes more.
_IMPORTS = 324 * 2**20
_IMPORTED = {"torch", "transformers", "accelerate"}
# gensyn-ai/rl-swarm issues 59 and 369: Macs of 16 GB whose trainer, without PyTorch's limit, took all memory.
_SMALL_MAC = 16 * 2**30
# What macOS itself leaves at the least where it decides: a quarter of 16 GB (Metal, recommendedMaxWorkingSetSize).
_LEFT = 4 * 2**30


def is_here(target: Target, machine: Machine) -> bool:
    """Whether a target's platform is this machine's. A translated process sees an Intel Mac, which is none."""
    return machine.platform == target.platform or (machine.rosetta and target.platform == "macos-arm64")


def platform(profile: Outline, machine: Machine) -> Diagnosis:
    """Whether the profile is for such a machine at all."""
    target, found = profile.target, f"{machine.system} {machine.machine}"
    if is_here(target, machine):
        words = "which Rosetta makes of" if machine.rosetta else "which is"
        return Diagnosis("platform", "ok", f"{found}, {words} {target.platform}")
    return Diagnosis(
        "platform",
        "fail",
        f"{found}: {profile.name} is for other machines, so only its files are checked",
        target.platform,
        f"run this on {target.platform}; from here: drydock build {profile.name} --cross DIR",
    )


def translation(machine: Machine) -> Diagnosis | None:
    """On a Mac, whether Python runs on the processor itself; None elsewhere."""
    if machine.system != "Darwin":
        return None
    if not machine.rosetta:
        return Diagnosis("Rosetta", "ok", f"not in use: this Python is of {machine.machine}")
    return Diagnosis(
        "Rosetta",
        "fail",
        "translates this Python, so that the shell that it starts sees an Intel Mac",
        "a Python and a terminal of arm64",
        "switch off 'Open using Rosetta' of the terminal, and install a Python for Apple Silicon",
    )


def chip(target: Target, machine: Machine) -> Diagnosis | None:
    """Whether the chip is the one that the profile names; None where it names none."""
    pattern = target.chip
    if pattern is None:
        return None
    if not machine.chip:
        return Diagnosis("chip", "skipped", "this machine does not report its chip")
    if fnmatchcase(machine.chip, pattern):
        return Diagnosis("chip", "ok", machine.chip)
    fix = "it may work; `drydock profile detect` shows the profile for this chip"
    return Diagnosis("chip", "warn", machine.chip, pattern, fix)


def system(profile: Outline, need: Need | None, machine: Machine) -> Diagnosis:
    """Whether glibc, or macOS, is new enough for the profile and for its wheels; `need` is what those need."""
    if profile.target.min_os is not None:
        name, key, wanted, found = "macOS", "min-os", profile.target.min_os, machine.os.removeprefix("macOS").strip()
        if not numbers(found):
            return Diagnosis(name, "skipped", f"sw_vers {_NO_ANSWER}")
    else:
        name, key, wanted, found = "glibc", "glibc", profile.target.glibc or "", machine.glibc or ""
        if not found:
            return Diagnosis(
                name,
                "fail",
                "another C library",
                f"{wanted} or newer",
                "wheels for Linux are made for glibc (manylinux): use a system that has it",
            )
    least = need.version if need else ""
    said = f"{wanted} or newer, by the profile; its wheels need {f'{least} ({need})' if need else 'none'}"
    if numbers(found) >= max(numbers(wanted), numbers(least)):
        return Diagnosis(name, "ok", found, said)
    fix = f"a newer system; or an older {need.package if need else name}, with a lower {key} in [target]"
    if numbers(found) >= numbers(least):
        lower = ".".join(map(str, numbers(found)[:2]))
        fix = f'a newer system; or, as its wheels would run here, {key} = "{lower}" in [target]'
    return Diagnosis(name, "fail", found, said, f"{fix}, then: drydock lock {profile.name}")


def gpu(target: Target, machine: Machine) -> Diagnosis | None:
    """Whether there is the GPU that the profile is for; None where it is for none of NVIDIA."""
    if target.accelerator != "cuda":
        return None
    pattern = target.gpu or "*"
    wanted = "an NVIDIA GPU" if pattern == "*" else f'an NVIDIA GPU "{pattern}"'
    if machine.gpus is None:
        fix = "run nvidia-smi and read what it says; after an update of the driver, restart the machine"
        return Diagnosis("GPU", "fail", f"nvidia-smi {_NO_ANSWER}", wanted, fix)
    found = ", ".join(counted(one.name for one in machine.gpus))
    if any(fnmatchcase(one.name, pattern) for one in machine.gpus):
        return Diagnosis("GPU", "ok", found)
    if machine.gpus:
        fix = "it may work; `drydock profile detect` shows the profile for this machine"
        return Diagnosis("GPU", "warn", found, wanted, fix)
    fix = "install NVIDIA's driver, which brings nvidia-smi; in a container, start it with the GPUs"
    return Diagnosis("GPU", "fail", "none listed by nvidia-smi", wanted, fix)


def cuda(target: Target, need: Need | None, machine: Machine) -> Diagnosis | None:
    """Whether the driver runs what the wheels are built for; None where the profile is for no CUDA.

    Within one major release any driver runs what was built for another minor one, from CUDA 11 on (NVIDIA, "CUDA
    Compatibility", minor version compatibility).
    """
    if target.cuda is None:
        return None
    wanted = f"{target.cuda}, by the profile"
    wanted += f"; its wheels are built for {need.version} ({need.package})" if need else "; its wheels name none"
    if not machine.gpus:
        return Diagnosis("CUDA", "skipped", "no GPU, so the driver cannot be asked")
    newest = max(target.cuda, need.version if need else "", key=numbers)
    if machine.cuda is None:
        if machine.driver is not None and numbers(machine.driver) < (410,):  # the first that tells
            fix = "install a newer driver"
            return Diagnosis("CUDA", "fail", f"driver {machine.driver}, from before CUDA 10", wanted, fix)
        return Diagnosis(
            "CUDA", "skipped", f"driver {machine.driver or 'unknown'} does not report which CUDA it supports"
        )
    found = f"{machine.cuda} at most, driver {machine.driver or 'unknown'}"
    if numbers(machine.cuda)[:1] < numbers(newest)[:1]:
        fix = f"install a driver for CUDA {numbers(newest)[0]}, or lock a build of torch for CUDA {machine.cuda}"
        return Diagnosis("CUDA", "fail", found, wanted, fix)
    if need is not None and numbers(need.version)[:1] != numbers(target.cuda)[:1]:
        fix = f'set what the wheels are built for: cuda = "{need.version}" in [target]'
        return Diagnosis("CUDA", "warn", found, wanted, fix)
    if numbers(machine.cuda) < numbers(newest):
        found += "; enough, as is any of the same major release"
    return Diagnosis("CUDA", "ok", found, wanted)


def kernels(target: Target, built: Kernels | None, machine: Machine) -> Diagnosis | None:
    """Whether the locked torch has kernels for the GPUs here; None where the profile is for no CUDA."""
    if target.accelerator != "cuda":
        return None
    known = [gpu for gpu in machine.gpus or () if gpu.capability is not None]
    if built is None:
        return Diagnosis("kernels", "skipped", "no torch for CUDA is locked")
    if not built.known:
        found = f"which GPUs {built.build} has kernels for is not known, as it is newer than this Drydock"
        return Diagnosis("kernels", "warn", found, "", "a build records it; then drydock verify computes on the GPU")
    if not known:
        return Diagnosis("kernels", "skipped", "the compute capability of a GPU is not known; drydock verify tries one")
    good = [gpu for gpu in known if built.run_on(gpu.capability or "")]
    found = ", ".join(counted(f"{gpu.name} has compute capability {gpu.capability}" for gpu in known))
    wanted = f"one of {built.words}, by {built.build}"
    if len(good) == len(known):
        return Diagnosis("kernels", "ok", found, wanted)
    if good:
        fix = f"CUDA_VISIBLE_DEVICES={','.join(str(known.index(gpu)) for gpu in good)} leaves the others alone"
        return Diagnosis("kernels", "warn", found, wanted, fix)
    fix = "`drydock profile detect` shows the profile for this GPU; or require another torch, for another CUDA"
    return Diagnosis("kernels", "fail", found, wanted, fix)


def gpu_memory(target: Target, machine: Machine) -> Diagnosis | None:
    """Whether the memory of the GPUs is free; None where the profile is for none of NVIDIA, or it is not known."""
    known = [(gpu.name, gpu.memory, gpu.in_use) for gpu in machine.gpus or () if gpu.in_use is not None and gpu.memory]
    if target.accelerator != "cuda" or not known:
        return None
    found = ", ".join(counted(f"{gib(whole)} ({gib(used)} in use)" for _, whole, used in known))
    if all(used <= whole / 2 for _, whole, used in known):
        return Diagnosis("GPU memory", "ok", found)
    fix = "nvidia-smi lists the processes that use it; CUDA_VISIBLE_DEVICES chooses among GPUs"
    return Diagnosis("GPU memory", "warn", found, "", fix)


def hidden(target: Target, visible: str | None) -> Diagnosis | None:
    """Whether CUDA_VISIBLE_DEVICES, as it is set, hides every GPU from the trainer; None where it does not.

    CUDA takes the list up to the first one that there is not ("CUDA C++ Programming Guide", "CUDA Environment
    Variables").
    """
    if target.accelerator != "cuda" or visible is None or not (visible.strip() == "" or visible.startswith(("-", "N"))):
        return None
    fix = "unset it, or name a GPU: CUDA_VISIBLE_DEVICES=0"
    return Diagnosis("visible GPUs", "fail", f'CUDA_VISIBLE_DEVICES is "{visible}", which hides every GPU', "", fix)


def unused(target: Target, machine: Machine) -> Diagnosis | None:
    """A GPU beside a profile that computes on the processor; None where there is none."""
    if target.accelerator != "cpu":
        return None
    found = counted([gpu.name for gpu in machine.gpus or ()] + [str(gpu) for gpu in machine.others])
    if not found:
        return None
    fix = "`drydock profile detect` says which profile uses it, or why none does"
    return Diagnosis("GPU", "warn", f"{', '.join(found)}: goes unused, the profile computes on the processor", "", fix)


def compiler(packages: Iterable[Package], tools: str | None, machine: Machine) -> Diagnosis | None:
    """On a Mac, the command line tools, where something locked is built from source; None where they do not matter.

    `tools` is the folder that `xcode-select -p` prints, "" where there is none, None where it did not answer.
    """
    sources = [one.name for one in packages if not one.is_wheel]
    if machine.system != "Darwin" or not sources:
        return None
    built = (
        f"{', '.join(sources)} built from source"
        if len(sources) < 5
        else f"{plural(len(sources), 'package')} built from source"
    )
    if tools is None:
        return Diagnosis("compiler", "skipped", "xcode-select does not answer")
    if tools:
        return Diagnosis("compiler", "ok", tools, f"those of Xcode, for {built}")
    fix = "xcode-select --install; without it, packages of pure Python still build"
    return Diagnosis("compiler", "warn", "no command line tools", f"those of Xcode, for {built}", fix)


def memory(profile: Outline, packages: Iterable[Package], machine: Machine) -> Diagnosis:
    """Whether the memory is enough for what is known: what the packages hold alone, and what the profile asks."""
    sizes = [size for size in (machine.memory, machine.memory_limit) if size is not None]
    if not sizes:
        return Diagnosis("memory", "skipped", "this machine does not report its memory")
    size = min(sizes)
    found = gib(size) + (", by the control groups" if size == machine.memory_limit else "")
    found += f", {gib(machine.memory_free)} free" if machine.memory_free is not None else ""
    least = _IMPORTS if {one.name for one in packages} >= _IMPORTED else 0
    wanted = f"{least >> 20} MiB to import torch and transformers, and more to train" if least else ""
    fix = "a machine, or a limit of its control groups, with more"
    if size < least:
        return Diagnosis("memory", "fail", found, wanted, fix)
    if machine.memory_free is not None and machine.memory_free < least:
        return Diagnosis("memory", "warn", found, wanted, "end other programs that hold memory")
    if size < profile.memory * 2**30:
        return Diagnosis("memory", "warn", found, f"{profile.memory} GiB, the least that the profile is meant for", fix)
    lifted = profile.unlimited
    if lifted is not None and size <= _SMALL_MAC and size >> 30 >= lifted.at_least:
        wanted = "more than 16 GiB where PyTorch's limit is lifted (gensyn-ai/rl-swarm issues 59, 369)"
        fix = f'{lifted.variable} = "0.7" with PYTORCH_MPS_LOW_WATERMARK_RATIO = "0.6"'
        return Diagnosis("memory", "warn", found, wanted, fix)
    return Diagnosis("memory", "ok", found, wanted or "any, as the profile names no minimum")


def wired(machine: Machine) -> Diagnosis | None:
    """On a Mac, how much its GPU may hold, where somebody has set that; None where macOS decides, and elsewhere."""
    if machine.wired_limit is None or machine.memory is None:
        return None
    left = machine.memory - machine.wired_limit
    found = f"iogpu.wired_limit_mb = {machine.wired_limit >> 20}, of {gib(machine.memory)}"
    if left >= _LEFT:
        return Diagnosis("GPU memory", "ok", found)
    fix = f"sudo sysctl iogpu.wired_limit_mb={max(0, machine.memory - _LEFT) >> 20}; 0 leaves it to macOS"
    wanted = f"{gib(_LEFT)} left for macOS, which else panics or freezes (ml-explore/mlx issue 3186)"
    return Diagnosis("GPU memory", "warn", found, wanted, fix)


def gib(size: int) -> str:
    """A size of memory for people.

    >>> gib(25276510208)
    '23.5 GiB'
    """
    return f"{size / 2**30:.1f} GiB"
