"""GPUs of AMD and Intel: what rocminfo, xpu-smi and clinfo print of them, and what the kernel says of AMD's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from builder.machine.model import OtherGpu

ROCMINFO = ("rocminfo",)
XPU_SMI = ("xpu-smi", "discovery")
CLINFO = ("clinfo", "-l")
COMMANDS: Sequence[Sequence[str]] = (ROCMINFO, XPU_SMI, CLINFO)


def other_gpus(outputs: Mapping[Sequence[str], str], root: Path = Path("/")) -> tuple[OtherGpu, ...]:
    """From what each of COMMANDS printed; `root` is another folder in tests."""
    amd = parse_rocminfo(outputs.get(ROCMINFO, "")) or _of_kernel(root)
    intel = parse_xpu_smi(outputs.get(XPU_SMI, "")) or parse_clinfo(outputs.get(CLINFO, ""))
    return (*amd, *intel)


def parse_rocminfo(text: str) -> tuple[OtherGpu, ...]:
    """The agents that are GPUs, with their names.

    >>> parse_rocminfo("Agent 2\\n  Name:  gfx942 \\n  Marketing Name: AMD Instinct MI300X\\n  Device Type:  GPU\\n")
    (OtherGpu(accelerator='rocm', name='AMD Instinct MI300X', architecture='gfx942'),)
    """
    gpus = []
    for agent in re.split(r"^\s*Agent \d+\s*$", text, flags=re.MULTILINE)[1:]:
        values = dict(
            re.findall(r"^\s*(Name|Marketing Name|Device Type):[ \t]*(.*?)[ \t]*$", _head(agent), re.MULTILINE)
        )
        architecture = values.get("Name", "")
        if values.get("Device Type") == "GPU" and re.fullmatch(r"gfx[0-9a-f]+", architecture):
            gpus.append(OtherGpu("rocm", values.get("Marketing Name") or architecture, architecture))
    return tuple(gpus)


def _head(agent: str) -> str:
    """What stands before the lists of an agent, which have names of their own."""
    return agent.partition("ISA Info")[0]


def parse_architecture(text: str) -> str:
    """AMD's name in the properties of a node of the kernel's (amdkfd, gfx_target_version); "" for none.

    >>> [parse_architecture(f"simd_count 1216\\ngfx_target_version {n}\\n") for n in (90402, 90010, 110501, 0)]
    ['gfx942', 'gfx90a', 'gfx1151', '']
    """
    found = re.search(r"^gfx_target_version ([0-9]{5,6})$", text, re.MULTILINE)
    if found is None:
        return ""
    number = int(found[1])
    return f"gfx{number // 10000}{number // 100 % 100:x}{number % 100:x}"


def _of_kernel(root: Path) -> tuple[OtherGpu, ...]:
    """AMD's GPUs where ROCm is not installed: by architecture, the kernel has no other name."""
    names = []
    for file in sorted((root / "sys/class/kfd/kfd/topology/nodes").glob("*/properties")):
        try:
            names.append(parse_architecture(file.read_text(encoding="utf-8", errors="replace")))
        except OSError:  # of another control group
            continue
    return tuple(OtherGpu("rocm", f"AMD {name}", name) for name in names if name)


def parse_xpu_smi(text: str) -> tuple[OtherGpu, ...]:
    """Intel's GPUs in the table that xpu-smi prints.

    >>> parse_xpu_smi("| 0         | Device Name: Intel(R) Arc(TM) A770 Graphics            |\\n")
    (OtherGpu(accelerator='xpu', name='Intel(R) Arc(TM) A770 Graphics', architecture=''),)
    """
    names = re.findall(r"Device Name: (Intel\(R\) .*?)\s*\|?\s*$", text, re.MULTILINE)
    return tuple(OtherGpu("xpu", name) for name in names if _takes_xpu(name))


def parse_clinfo(text: str) -> tuple[OtherGpu, ...]:
    """The same in OpenCL's list.

    >>> text = " `-- Device #0: Intel(R) Arc(TM) B580 Graphics\\n `-- Device #0: Intel(R) UHD Graphics 770\\n"
    >>> [gpu.name for gpu in parse_clinfo(text)]
    ['Intel(R) Arc(TM) B580 Graphics']
    """
    names = re.findall(r"^ *[`+]-- Device #\d+: (Intel\(R\) .*\S)", text, re.MULTILINE)
    return tuple(OtherGpu("xpu", name) for name in names if _takes_xpu(name))


def _takes_xpu(name: str) -> bool:
    """Whether PyTorch has kernels for it: Arc, and Data Center GPU Max (its "Getting Started on Intel GPU")."""
    return re.search(r"Arc\(TM\)|Data Center GPU Max", name) is not None
