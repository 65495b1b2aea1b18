"""A machine, as far as profiles and their readers care."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

PLATFORMS = {
    ("Darwin", "arm64"): "macos-arm64",
    ("Linux", "aarch64"): "linux-arm64",
    ("Linux", "x86_64"): "linux-x86_64",
}

_MOMENTARY = {"momentary": True}  # of a field: a minute later it is another


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU; `memory` in bytes, None where it has none of its own (Jetson); `capability` as in "12.0".

    `in_use` is how much of its memory is taken, in bytes.
    """

    name: str
    memory: int | None
    capability: str | None = None
    in_use: int | None = field(default=None, metadata=_MOMENTARY)


@dataclass(frozen=True)
class OtherGpu:
    """A GPU that is not NVIDIA's: what it takes is "rocm" or "xpu"; `architecture` is AMD's name, such as gfx942."""

    accelerator: str
    name: str
    architecture: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.architecture})" if self.architecture not in ("", self.name) else self.name


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the probes found; None or empty for what they could not find out. All sizes are in bytes.

    `system` and `machine` are what `uname` says. `performance_cores` and `efficiency_cores` count physical cores of the
    machine; `usable_cores` counts the processors that this process may use at once, by its affinity and by the quota
    of its control groups. `memory_limit` is what the control groups allow, None for no limit. `wired_limit` is what the
    GPU of a Mac may hold, where somebody has set that. `gpus` is None where nvidia-smi is there and fails; `cuda` is
    the newest CUDA that the driver supports. `others` are GPUs of AMD, and of Intel.
    """

    system: str
    machine: str
    os: str = ""
    glibc: str | None = None
    rosetta: bool = False
    wsl: bool = False
    chip: str = ""
    performance_cores: int | None = None
    efficiency_cores: int | None = None
    usable_cores: int | None = None
    memory: int | None = None
    memory_limit: int | None = None
    memory_free: int | None = field(default=None, metadata=_MOMENTARY)
    wired_limit: int | None = None
    disk_free: int | None = field(default=None, metadata=_MOMENTARY)
    gpus: tuple[Gpu, ...] | None = ()
    driver: str | None = None
    cuda: str | None = None
    others: tuple[OtherGpu, ...] = ()

    @property
    def platform(self) -> str | None:
        """The platform of profiles for this machine; None where there can be none."""
        return PLATFORMS.get((self.system, self.machine))

    @property
    def detected(self) -> dict[str, int | None]:
        """What `detect` in a profile gives on this machine, before any arithmetic; None where its fallback is used.

        The generated scripts find out the same by themselves (templates/_detect.sh.j2).
        """
        performance = self.performance_cores
        if performance is not None and self.usable_cores is not None:
            performance = min(performance, self.usable_cores)
        sizes = [size for size in (self.memory, self.memory_limit) if size is not None]
        return {
            "performance-cores": performance,
            "usable-cores": self.usable_cores,
            "memory-gb": min(sizes) // 2**30 if self.memory is not None else None,
            "gpu-count": None if self.gpus is None else len(self.gpus),
        }

    def lasting(self) -> dict[str, Any]:
        """All of it that is the same a minute later, as plain data."""
        found = _lasting(self)
        return {**found, "gpus": None if self.gpus is None else tuple(map(_lasting, self.gpus))}

    def lines(self) -> list[str]:
        """All of it, for people."""
        system = [self.os, f"glibc {self.glibc}" if self.glibc else "", "WSL" if self.wsl else ""]
        system += ["translated by Rosetta" if self.rosetta else ""]
        memory = [_gib(self.memory), f"limited to {_gib(self.memory_limit)}" if self.memory_limit else ""]
        memory += [f"{_gib(self.memory_free)} free" if self.memory_free is not None else ""]
        gpus = counted(_gpu(gpu) for gpu in self.gpus or ())
        gpus += counted(map(str, self.others))
        gpus += [f"driver {self.driver}" if self.driver else "", f"CUDA {self.cuda} at most" if self.cuda else ""]
        cores = [_count(self.performance_cores, "performance"), _count(self.efficiency_cores, "efficiency")]
        detected = [f"{name} {'unknown' if count is None else count}" for name, count in self.detected.items()]
        return [
            f"machine: {self.system} {self.machine}, {self.chip or 'unknown chip'}",
            f"system: {_listed(system)}",
            f"cores: {_listed([*cores, _count(self.usable_cores, 'usable')])}",
            f"memory: {_listed(memory)}",
            f"disk: {_gib(self.disk_free)} free",
            f"GPUs: {_listed(gpus) if any(gpus) else 'nvidia-smi fails' if self.gpus is None else 'no NVIDIA GPU'}",
            f"for profiles: {_listed(detected)}",
        ]

    def __str__(self) -> str:
        gpus = [gpu.name for gpu in self.gpus or ()] + [gpu.name for gpu in self.others]
        told = [f"{self.system} {self.machine}", self.chip, *counted(gpus)]
        return ", ".join(word for word in told if word)


def _lasting(one: Machine | Gpu) -> dict[str, Any]:
    momentary = {each.name for each in fields(one) if "momentary" in each.metadata}
    return {name: value for name, value in asdict(one).items() if name not in momentary}


def _gpu(gpu: Gpu) -> str:
    capability = f", compute capability {gpu.capability}" if gpu.capability else ""
    return f"{gpu.name} ({_gib(gpu.memory)}{capability})"


def _gib(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 2**30:.1f} GiB"


def _count(count: int | None, what: str) -> str:
    return f"{'unknown' if count is None else count} {what}"


def counted(names: Iterable[str]) -> list[str]:
    """Names with how often they are there.

    >>> counted(["H100", "H100", "A100"])
    ['2 x H100', 'A100']
    """
    return [name if count == 1 else f"{count} x {name}" for name, count in Counter(names).items()]


def _listed(words: list[str]) -> str:
    return ", ".join(word for word in words if word) or "unknown"
