"""NVIDIA GPUs, as nvidia-smi reports them. Its output may change with any driver: unknown parts are left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from builder.machine.model import Gpu

GPUS = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
# By itself: drivers before 510 or so do not know it, and answer a question that has it with that alone.
CAPABILITIES = ("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader")
SUMMARY = ("nvidia-smi",)
COMMANDS: Sequence[Sequence[str]] = (GPUS, CAPABILITIES, SUMMARY)


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """The GPUs that GPUS prints, one a line; a message ("No devices were found") is none.

    >>> parse_gpus("NVIDIA A100-SXM4-80GB, 81920 MiB\\n")
    (Gpu(name='NVIDIA A100-SXM4-80GB', memory=85899345920, capability=None, in_use=None),)
    """
    rows = re.findall(r"^(\S.*), +(?:(\d+) MiB|\[.*\])$", text, re.MULTILINE)
    return tuple(Gpu(name, int(memory) * 2**20 if memory else None) for name, memory in rows)


def is_listing(text: str) -> bool:
    """Whether a text is an answer to GPUS: GPUs, or that there are none; not one of another form.

    >>> is_listing("NVIDIA GB10, [N/A]\\n"), is_listing("No devices were found\\n"), is_listing('{"gpus": []}\\n')
    (True, True, False)
    """
    return "No devices" in text or bool(parse_gpus(text))


def with_capabilities(gpus: tuple[Gpu, ...], text: str) -> tuple[Gpu, ...]:
    """The GPUs with what CAPABILITIES prints of them, in the same order; as they are where it is of others.

    >>> with_capabilities((Gpu("NVIDIA GB10", None),), "12.1\\n")
    (Gpu(name='NVIDIA GB10', memory=None, capability='12.1', in_use=None),)
    """
    lines = text.splitlines()
    if len(lines) != len(gpus):
        return gpus
    found = [line.strip() if re.fullmatch(r"[0-9]{1,2}\.[0-9]\s*", line) else None for line in lines]
    return tuple(replace(gpu, capability=one) for gpu, one in zip(gpus, found, strict=True))


def with_memory_in_use(gpus: tuple[Gpu, ...], text: str) -> tuple[Gpu, ...]:
    """The GPUs with what SUMMARY says of their memory, in the same order; as they are where it is of others.

    The parts of a GPU that is divided (MIG) come in a table of their own, after the GPUs.

    >>> with_memory_in_use((Gpu("T4", 15360 * 2**20),), "| N/A 36C  P8  9W / 70W |  104MiB / 15360MiB | 0%  Default |")
    (Gpu(name='T4', memory=16106127360, capability=None, in_use=109051904),)
    """
    rows = [(int(used), int(whole)) for used, whole in re.findall(r"\| +(\d+)MiB / +(\d+)MiB +\|", text)]
    rows = rows[: len(gpus)]
    if [whole * 2**20 for _, whole in rows] != [gpu.memory for gpu in gpus]:
        return gpus
    return tuple(replace(gpu, in_use=used * 2**20) for gpu, (used, _) in zip(gpus, rows, strict=True))


def parse_driver(text: str) -> str | None:
    """The driver's version in the head of SUMMARY; "KMD Version" since release 610."""
    return _first(r"\b(?:Driver|KMD) Version: +(\d[\d.]*)", text)


def parse_cuda(text: str) -> str | None:
    """The newest CUDA that the driver supports, from the head of SUMMARY; drivers before 410 do not say."""
    return _first(r"\bCUDA (?:UMD )?Version: +(\d+\.\d+)", text)


def _first(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return found[1] if found else None
