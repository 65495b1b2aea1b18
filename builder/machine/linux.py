"""Linux: everything comes from /proc, /sys and /etc, without starting a program."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypedDict


class Facts(TypedDict):
    """What Linux says of itself, as arguments of Machine."""

    os: str
    chip: str
    performance_cores: int | None
    efficiency_cores: int | None
    usable_cores: int | None
    memory: int | None
    memory_limit: int | None
    memory_free: int | None


def facts(root: Path = Path("/")) -> Facts:
    """Read it all; `root` is another folder in tests."""
    cpu = root / "sys/devices/system/cpu"
    performance, efficiency = count_cores(_cores(cpu), _atoms(root), _capacities(cpu))
    meminfo = parse_meminfo(_read(root / "proc/meminfo"))
    groups = _read(root / "proc/self/cgroup")
    limits = [parse_limit(_read(folder / file)) for folder, file in _limit_files(root, groups)]
    quotas = [parse_quota(_read_quota(folder)) for folder in _group_folders(root, groups, "cpu")]
    allowed = parse_cpu_list(parse_status(_read(root / "proc/self/status")))
    online = parse_cpu_list(_read(cpu / "online"))
    counts = [len(allowed & (online or allowed)) or None, *quotas]
    memory = meminfo.get("MemTotal")
    return {
        "os": parse_os_release(_read(root / "etc/os-release")),
        "chip": parse_board(_read(root / "proc/device-tree/model")) or parse_cpuinfo(_read(root / "proc/cpuinfo")),
        "performance_cores": performance,
        "efficiency_cores": efficiency,
        "usable_cores": _least(counts) if counts[0] else None,
        "memory": memory,
        "memory_limit": _least(limit for limit in limits if limit is not None and limit < (memory or limit + 1)),
        "memory_free": meminfo.get("MemAvailable"),
    }


# --- The processor -------------------------------------------------------------------------------------------------

# What the kernel gives as numbers only: implementer and part, as lscpu names them (util-linux, sys-utils/lscpu-arm.c).
ARM_CORES = {
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd40"): "Neoverse-V1",
    ("0x41", "0xd42"): "Cortex-A78AE",
    ("0x41", "0xd49"): "Neoverse-N2",
    ("0x41", "0xd4f"): "Neoverse-V2",
    ("0x4e", "0x004"): "Carmel",
    ("0xc0", "0xac3"): "Ampere-1",
    ("0xc0", "0xac4"): "Ampere-1a",
}


def parse_cpuinfo(text: str) -> str:
    """The processor's name in /proc/cpuinfo, or the board's where that is what it gives (Raspberry Pi).

    An Arm kernel gives numbers, or "ARMv8 Processor", which says nothing; those of cores that are not known give "".

    >>> parse_cpuinfo("processor : 0\\nmodel name\\t: AMD EPYC 7763\\n")
    'AMD EPYC 7763'
    """
    if board := _field(text, "Model"):
        return board
    name = _field(text, "model name")
    if name and not name.startswith("ARMv"):
        return name
    return ARM_CORES.get((_field(text, "CPU implementer"), _field(text, "CPU part")), "")


def parse_board(text: str) -> str:
    """The board in /proc/device-tree/model; "" for a virtual one.

    >>> parse_board("NVIDIA IGX Orin Development Kit\\0"), parse_board("linux,dummy-virt\\0")
    ('NVIDIA IGX Orin Development Kit', '')
    """
    name = text.strip("\0 \n")
    return "" if re.fullmatch(r"\S+,\S+", name) else name


def parse_cpu_list(text: str) -> frozenset[int]:
    """The processors in a list as the kernel writes it; empty for anything else.

    >>> sorted(parse_cpu_list("0-2,8\\n"))
    [0, 1, 2, 8]
    """
    numbers: set[int] = set()
    for part in text.strip().split(","):
        if not (found := re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part)):
            return frozenset()
        numbers.update(range(int(found[1]), int(found[2] or found[1]) + 1))
    return frozenset(numbers)


def parse_status(text: str) -> str:
    """The list of processors that a process may run on, from /proc/PID/status."""
    return _field(text, "Cpus_allowed_list")


def count_cores(
    cores: Iterable[int], atoms: frozenset[int], capacities: dict[int, int]
) -> tuple[int | None, int | None]:
    """How many physical cores are for performance and for efficiency; None for both where there are none.

    `cores` has the first processor of each, `atoms` the small processors of an Intel hybrid, `capacities` how much each
    processor of an Arm machine can do: less than half of the best is a small one.
    """
    best = max(capacities.values(), default=0)
    small = [core in atoms or 2 * capacities.get(core, best) < best for core in cores]
    return (small.count(False), small.count(True)) if small else (None, None)


def _cores(cpu: Path) -> list[int]:
    """The first processor of each physical core; one that is offline has no topology."""
    firsts = set()
    for file in cpu.glob("cpu[0-9]*/topology/thread_siblings_list"):
        firsts.add(min(parse_cpu_list(_read(file)), default=None))
    return sorted(first for first in firsts if first is not None)


def _atoms(root: Path) -> frozenset[int]:
    return parse_cpu_list(_read(root / "sys/devices/cpu_atom/cpus"))


def _capacities(cpu: Path) -> dict[int, int]:
    files = cpu.glob("cpu[0-9]*/cpu_capacity")
    texts = {int(file.parent.name[3:]): _read(file).strip() for file in files}
    return {number: int(text) for number, text in texts.items() if text.isdecimal()}


# --- Memory, and what control groups allow -------------------------------------------------------------------------


def parse_meminfo(text: str) -> dict[str, int]:
    """The sizes in /proc/meminfo, in bytes.

    >>> parse_meminfo("MemTotal:       24684092 kB\\nHugePages_Total:       0\\n")
    {'MemTotal': 25276510208}
    """
    return {name: int(size) * 1024 for name, size in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)}


def parse_groups(text: str, controller: str) -> list[tuple[str, str]]:
    """Where /proc/self/cgroup says that a controller's control group is: mount point and path.

    The mount points are those that every system uses: one for all controllers in version 2, which has no names in the
    file, and one each in version 1. In a system that has both, a controller belongs to one of them.

    >>> parse_groups("4:memory:/docker/1a2b\\n0::/\\n", "memory")
    [('sys/fs/cgroup/memory', '/docker/1a2b'), ('sys/fs/cgroup', '/')]
    """
    lines = (line.split(":", 2) for line in text.splitlines() if line.count(":") >= 2)
    return [
        (f"sys/fs/cgroup/{controller}" if names else "sys/fs/cgroup", path)
        for _, names, path in lines
        if not names or controller in names.split(",")
    ]


def parse_limit(text: str) -> int | None:
    """A memory limit in bytes; None for "max", for version 1's huge number that means the same, and for no limit.

    >>> [parse_limit(text) for text in ("44040192\\n", "max\\n", "9223372036854771712\\n", "")]
    [44040192, None, None, None]
    """
    return int(text) if re.fullmatch(r"\d{1,15}\n?", text) else None


def parse_quota(text: str) -> int | None:
    """How many processors a quota "MICROSECONDS PERIOD" is worth, rounded down: more threads would be held up; at least
    one. None for no quota ("max", or -1 in version 1).

    >>> [parse_quota(text) for text in ("600000 100000\\n", "42000 100000\\n", "max 100000\\n", "-1 100000", "")]
    [6, 1, None, None, None]
    """
    found = re.fullmatch(r"(\d+)\s+([1-9]\d*)\s*", text)
    return max(1, int(found[1]) // int(found[2])) if found else None


def _group_folders(root: Path, groups: str, controller: str) -> Iterator[Path]:
    """The folders of this process's control groups that may limit it: its own, and all above."""
    for mount, path in parse_groups(groups, controller):
        # A container sees its own group as the top of the mount, whatever it is called outside.
        parts = [part for part in path.split("/") if part]
        if ".." in parts or not (root / mount).joinpath(*parts).is_dir():
            parts = []
        for length in range(len(parts), -1, -1):
            yield (root / mount).joinpath(*parts[:length])


def _limit_files(root: Path, groups: str) -> Iterator[tuple[Path, str]]:
    for folder in _group_folders(root, groups, "memory"):
        yield folder, "memory.max"
        yield folder, "memory.limit_in_bytes"


def _read_quota(folder: Path) -> str:
    return _read(folder / "cpu.max") or f"{_read(folder / 'cpu.cfs_quota_us')} {_read(folder / 'cpu.cfs_period_us')}"


# --- The system ----------------------------------------------------------------------------------------------------


def parse_os_release(text: str) -> str:
    """The system's name in /etc/os-release.

    >>> parse_os_release('NAME="Debian"\\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\\n')
    'Debian GNU/Linux 12 (bookworm)'
    """
    found = re.search(r"^PRETTY_NAME=(.*)$", text, re.MULTILINE)
    return found[1].strip("\"' ") if found else ""


def is_wsl(release: str) -> bool:
    """Whether a kernel release (uname -r) is that of the Windows Subsystem for Linux.

    >>> is_wsl("5.15.90.1-microsoft-standard-WSL2"), is_wsl("6.1.0-18-amd64")
    (True, False)
    """
    return "microsoft" in release.lower()


def parse_glibc(text: str | None) -> str | None:
    """The version in what `getconf GNU_LIBC_VERSION` gives; None for another C library.

    >>> parse_glibc("glibc 2.36"), parse_glibc(None)
    ('2.36', None)
    """
    found = re.fullmatch(r"glibc (\d+\.\d+\S*)", text or "")
    return found[1] if found else None


def glibc() -> str | None:
    """The GNU C library that this process runs on."""
    try:
        return parse_glibc(os.confstr("CS_GNU_LIBC_VERSION"))
    except (OSError, ValueError):  # another C library does not know the question
        return None


def _field(text: str, name: str) -> str:
    """The first value of `name : value`, as /proc writes it."""
    found = re.search(rf"^{name}[ \t]*:[ \t]*(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def _least(numbers: Iterable[int | None]) -> int | None:
    return min((number for number in numbers if number is not None), default=None)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
