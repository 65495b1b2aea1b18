"""Machines of today, described as the probes would find them, and the table of docs/how-to/machine.md that they make.

`python -m tests.machine.described` prints the table.
"""

from __future__ import annotations

from pathlib import Path

from builder.errors import UsageError
from builder.machine import Gpu, Machine, OtherGpu
from builder.project.auto import pick
from builder.project.catalogue import Catalogue
from builder.resources import shipped


def mac(chip: str, os: str = "macOS 26.1", memory: int = 24) -> Machine:
    """A Mac with Apple Silicon."""
    return Machine(system="Darwin", machine="arm64", os=os, chip=chip, memory=memory << 30)


def linux(
    machine: str = "x86_64", *gpus: Gpu, cuda: str | None = None, driver: str | None = None, **more: object
) -> Machine:
    """A Linux with Ubuntu 24.04's glibc."""
    values = {"chip": "", "glibc": "2.39", **more}
    return Machine(system="Linux", machine=machine, gpus=gpus, cuda=cuda, driver=driver, **values)  # type: ignore[arg-type]


def nvidia(
    name: str, capability: str, driver: str = "580.95.05", cuda: str = "13.0", machine: str = "x86_64"
) -> Machine:
    """A Linux with a GPU of NVIDIA."""
    return linux(machine, Gpu(name, None, capability), driver=driver, cuda=cuda)


MACHINES = {
    "Mac mini M4, 16 GB": mac("Apple M4", "macOS 15.6", 16),
    "Mac mini M4 Pro": mac("Apple M4 Pro"),
    "MacBook Pro M5": mac("Apple M5"),
    "MacBook Air M2": mac("Apple M2", "macOS 14.7", 8),
    "x86 without a GPU": linux(),
    "RTX 3060": nvidia("NVIDIA GeForce RTX 3060", "8.6", "550.163.01", "12.4"),
    "RTX 5090": nvidia("NVIDIA GeForce RTX 5090", "12.0", "575.64.03", "12.9"),
    "H100": nvidia("NVIDIA H100 80GB HBM3", "9.0"),
    "B200": nvidia("NVIDIA B200", "10.0"),
    "DGX Spark GB10": nvidia("NVIDIA GB10", "12.1", machine="aarch64"),
    "Graviton4": linux("aarch64", chip="Neoverse-V2"),
    "Instinct MI300X": linux(others=(OtherGpu("rocm", "AMD Instinct MI300X", "gfx942"),)),
}


def table(folder: Path) -> str:
    """A row for each machine: what it is, the profile that `auto` means in a folder, why, and what goes unused."""
    catalogue = Catalogue([shipped("profiles").absolute()])
    rows = ["| machine | `auto` | why |", "| --- | --- | --- |"]
    for name, machine in MACHINES.items():
        try:
            picked = pick(machine, catalogue, folder)
            name_of, why = f"`{picked.name}`", f"{picked.why}; {picked.unused}" if picked.unused else picked.why
        except UsageError as error:
            name_of, why = "none", error.message
        driver = f", driver {machine.driver}" if machine.driver else ""
        rows.append(f"| {name}{driver} | {name_of} | {why} |")
    return "\n".join(rows).replace("*", "\\*") + "\n"


if __name__ == "__main__":
    print(table(Path("/")), end="")
