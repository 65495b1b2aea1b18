"""macOS: `sysctl`, `sw_vers`, `memory_pressure` and `vm_stat`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypedDict

SYSCTL = ("sysctl", "hw", "machdep.cpu.brand_string", "iogpu.wired_limit_mb")
SW_VERS = ("sw_vers",)
MEMORY_PRESSURE = ("memory_pressure", "-Q")
VM_STAT = ("vm_stat",)
COMMANDS: Sequence[Sequence[str]] = (SYSCTL, SW_VERS, MEMORY_PRESSURE, VM_STAT)
_INTEL = "7"  # hw.cputype: CPU_TYPE_X86 in mach/machine.h


class Facts(TypedDict):
    """What macOS says of itself, as arguments of Machine."""

    os: str
    chip: str
    rosetta: bool
    performance_cores: int | None
    efficiency_cores: int | None
    usable_cores: int | None
    memory: int | None
    memory_free: int | None
    wired_limit: int | None


def facts(machine: str, outputs: Mapping[Sequence[str], str]) -> Facts:
    """From what each of COMMANDS printed, "" for one that said nothing; `machine` is what `uname -m` says."""
    values = parse_sysctl(outputs[SYSCTL])
    performance, efficiency = count_cores(values)
    memory = _number(values, "hw.memsize")
    free = parse_memory_pressure(outputs[MEMORY_PRESSURE])
    return {
        "os": parse_sw_vers(outputs[SW_VERS]),
        "chip": values.get("machdep.cpu.brand_string", ""),
        # Only a translated process is told that the machine is an Intel one; sysctl knows better.
        "rosetta": machine == "x86_64" and values.get("hw.optional.arm64") == "1",
        "performance_cores": performance,
        "efficiency_cores": efficiency,
        "usable_cores": _number(values, "hw.activecpu"),
        "memory": memory,
        # 0 where macOS decides; before macOS 14 it had another name.
        "wired_limit": (_number(values, "iogpu.wired_limit_mb") or 0) << 20 or None,
        "memory_free": parse_vm_stat(outputs[VM_STAT]) if free is None or memory is None else memory * free // 100,
    }


def parse_sysctl(text: str) -> dict[str, str]:
    """The values that sysctl prints by name; messages about names that it does not know are none.

    >>> parse_sysctl("hw.ncpu: 10\\nsysctl: unknown oid 'hw.cpufrequency'\\n")
    {'hw.ncpu': '10'}
    """
    return {name: value.strip() for name, value in re.findall(r"^([a-z_0-9.]+\.\w+): (.*)$", text, re.MULTILINE)}


def count_cores(values: Mapping[str, str]) -> tuple[int | None, int | None]:
    """Performance and efficiency cores: the first level is the fastest (Apple, "Determining system capabilities"),
    and all others together are the rest. An Intel Mac has no levels: all its cores are alike.

    None for the first where it is said to be empty, and for both where the levels are missing on Apple Silicon
    (macOS 11).
    """
    levels = [_number(values, f"hw.perflevel{level}.physicalcpu") for level in range(8)]
    present = [level for level in levels if level is not None]
    if present:
        return present[0] or None, sum(present[1:])
    cores = _number(values, "hw.physicalcpu")
    if cores is None or values.get("hw.cputype") != _INTEL:
        return None, None
    return cores, 0


def parse_sw_vers(text: str) -> str:
    """Name and version of the system.

    >>> parse_sw_vers("ProductName:\\t\\tmacOS\\nProductVersion:\\t\\t14.4.1\\nBuildVersion:\\t\\t23E224\\n")
    'macOS 14.4.1'
    """
    found = dict(re.findall(r"^(Product\w+):\s*(.*\S)", text, re.MULTILINE))
    return f"{found.get('ProductName', '')} {found.get('ProductVersion', '')}".strip()


def parse_memory_pressure(text: str) -> int | None:
    """The percentage of memory that is free or can be freed at once: what macOS itself goes by."""
    found = re.search(r"^System-wide memory free percentage: (\d{1,3})%", text, re.MULTILINE)
    return int(found[1]) if found and int(found[1]) <= 100 else None


def parse_vm_stat(text: str) -> int | None:
    """Bytes that are free, or hold what can be read again; less than memory_pressure says, for where that fails."""
    size = re.search(r"\(page size of (\d+) bytes\)", text)
    pages = dict(re.findall(r"^Pages (free|inactive|purgeable): +(\d+)\.$", text, re.MULTILINE))
    return sum(map(int, pages.values())) * int(size[1]) if size and "free" in pages else None


def _number(values: Mapping[str, str], name: str) -> int | None:
    text = values.get(name, "")
    return int(text) if text.isdecimal() else None
