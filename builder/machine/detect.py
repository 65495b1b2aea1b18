"""All probes at once. One that is missing, fails, hangs or prints nonsense leaves its part of the answer empty."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from builder import process
from builder.machine import linux, macos, nvidia, others
from builder.machine.model import Machine

# Where macOS has sysctl, WSL nvidia-smi and AMD rocminfo: cron looks into none.
ALSO_ON_PATH = ("/usr/sbin", "/usr/lib/wsl/lib", "/opt/rocm/bin")
# A GPU that sleeps takes a second or two to answer; a broken driver never does.
TIMEOUT = 10.0


def detect(timeout: float = TIMEOUT, *, disk: Path | None = None) -> Machine:
    """This machine; `timeout` is for all programs together, in seconds; `disk` is a folder whose free bytes count."""
    name = os.uname()
    darwin = name.sysname == "Darwin"
    commands = list(macos.COMMANDS) if darwin else []
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *ALSO_ON_PATH])
    if shutil.which("nvidia-smi", path=path):
        commands += nvidia.COMMANDS
    commands += [command for command in others.COMMANDS if not darwin and shutil.which(command[0], path=path)]
    # Translated messages would not be understood.
    done = process.run_all(commands, timeout=timeout, env={**os.environ, "PATH": path, "LC_ALL": "C"})
    ended = dict(zip(commands, done, strict=True))
    printed = {command: one.stdout if one is not None else "" for command, one in ended.items()}
    listing = ended.get(nvidia.GPUS)
    failed = nvidia.GPUS in ended and (listing is None or listing.code != 0 or not nvidia.is_listing(listing.stdout))
    summary = printed.get(nvidia.SUMMARY, "")
    gpus = nvidia.with_capabilities(
        nvidia.parse_gpus(printed.get(nvidia.GPUS, "")), printed.get(nvidia.CAPABILITIES, "")
    )
    machine = Machine(
        system=name.sysname,
        machine=name.machine,
        disk_free=None if disk is None else _disk_free(disk),
        gpus=None if failed else nvidia.with_memory_in_use(gpus, summary),
        driver=nvidia.parse_driver(summary),
        cuda=nvidia.parse_cuda(summary),
    )
    if darwin:
        return replace(machine, **macos.facts(name.machine, printed))
    machine = replace(machine, others=others.other_gpus(printed))
    machine = replace(machine, **linux.facts(), glibc=linux.glibc(), wsl=linux.is_wsl(name.release))
    if machine.usable_cores is None:  # a kernel that is not quite Linux (gVisor) has no such files
        machine = replace(machine, usable_cores=len(os.sched_getaffinity(0)))
    return machine


def _disk_free(disk: Path) -> int | None:
    """Free bytes where a folder is, or will be."""
    try:
        return shutil.disk_usage(next(folder for folder in (disk, *disk.parents) if folder.exists())).free
    except OSError:
        return None
