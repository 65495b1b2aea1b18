"""What this machine is: each probe is a command and a pure parser of what it prints."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from builder import process
from builder.errors import ToolError
from builder.target import Target

_PLATFORMS = {
    ("Darwin", "arm64"): "macos-arm64",
    ("Linux", "aarch64"): "linux-arm64",
    ("Linux", "x86_64"): "linux-x86_64",
}


@dataclass(frozen=True)
class Machine:
    """A machine as profiles speak of it; `platform` is None for one that no profile can be for."""

    system: str
    machine: str
    platform: str | None
    chip: str
    gpus: tuple[str, ...]

    def __str__(self) -> str:
        told = [f"{self.system} {self.machine}", self.chip, *self.gpus]
        return ", ".join(word for word in told if word)


def detect() -> Machine:
    """This machine. A probe that fails leaves its part empty."""
    name = os.uname()
    platform = _PLATFORMS.get((name.sysname, name.machine))
    if name.sysname == "Darwin":
        chip = _output("sysctl", "-n", "machdep.cpu.brand_string").strip()
    else:
        chip = parse_cpuinfo(_read("/proc/cpuinfo"))
    gpus = parse_nvidia_smi(_output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"))
    return Machine(name.sysname, name.machine, platform, chip, gpus)


def parse_cpuinfo(text: str) -> str:
    """The processor's name in /proc/cpuinfo; most Arm machines have none there.

    >>> parse_cpuinfo("processor : 0\\nmodel name\\t: AMD EPYC 7763\\n")
    'AMD EPYC 7763'
    """
    found = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def parse_nvidia_smi(text: str) -> tuple[str, ...]:
    """GPU names, one a line; anything that does not look like a name is an error message."""
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not re.search(r"fail|error|No devices", line, re.IGNORECASE))


def fit(target: Target, machine: Machine) -> int | None:
    """How well a target fits a machine: None for not at all, else more for a more specific match."""
    match = target.match
    if match is None or target.platform != machine.platform:
        return None
    score = 0
    if match.chip is not None:
        if not fnmatchcase(machine.chip, match.chip):
            return None
        score += len(match.chip.rstrip("*")) + 1
    if match.gpu is not None:
        if not any(fnmatchcase(gpu, match.gpu) for gpu in machine.gpus):
            return None
        score += len(match.gpu.rstrip("*")) + 1
    return score


def _output(*command: str) -> str:
    try:
        done = process.run(command)
    except ToolError:
        return ""
    return done.stdout if done.code == 0 else ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
