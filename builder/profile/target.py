"""Hardware targets, and which wheels a target takes.

Wheel tags are worked out from the target alone, never from the host, so that any machine locks for any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from packaging import tags
from pydantic import BaseModel, ConfigDict, Field, model_validator

Platform = Literal["macos-arm64", "linux-arm64", "linux-x86_64"]
Accelerator = Literal["mps", "cuda", "rocm", "xpu", "cpu"]

_MACHINE = {"macos-arm64": "arm64", "linux-arm64": "aarch64", "linux-x86_64": "x86_64"}
_VERSION = r"^[0-9]+\.[0-9]+$"
# The glibc releases that uv knows as `--python-platform` (uv pip compile --help).
_UV_GLIBC_MINORS = (17, 28, *range(31, 41))


# Target._fields_fit_the_platform, for editors.
_FITTING: dict[str, Any] = {
    "if": {"properties": {"platform": {"const": "macos-arm64"}}},
    "then": {
        "required": ["min-os"],
        "properties": {"accelerator": {"enum": ["mps", "cpu"]}, "glibc": False, "cuda": False, "rocm": False},
    },
    "else": {
        "required": ["glibc"],
        "properties": {"accelerator": {"enum": ["cuda", "rocm", "xpu", "cpu"]}, "min-os": False},
        "allOf": [
            {
                "if": {"properties": {"accelerator": {"const": name}}},
                "then": {"required": [name]},
                "else": {"properties": {name: False}},
            }
            for name in ("cuda", "rocm")
        ],
    },
}


class Match(BaseModel):
    """How `auto` recognises the machine: every given field must match (shell patterns), and an empty table matches
    every machine of the platform. A target without it is never picked by `auto`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    chip: str | None = None
    """The name of the processor, for instance "Apple M4*"."""
    gpu: str | None = None
    """The name of a GPU, as nvidia-smi says it, for rocm as rocminfo, for xpu as xpu-smi."""


class Target(BaseModel):
    """The hardware and operating system that an environment is for. They decide which wheels fit (PEP 425, PEP 600)."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=_FITTING)

    platform: Platform
    """Operating system and processor."""
    accelerator: Accelerator
    """What PyTorch computes on."""
    min_os: str | None = Field(default=None, alias="min-os", pattern=_VERSION)
    """The oldest macOS that it must run on, for instance "14.0"."""
    glibc: str | None = Field(default=None, pattern=r"^2\.[0-9]+$")
    """The oldest GNU C library that it must run on, for instance "2.28"."""
    cuda: str | None = Field(default=None, pattern=_VERSION)
    """The CUDA release that its wheels are built for."""
    rocm: str | None = Field(default=None, pattern=_VERSION)
    """The ROCm release that its wheels are built for."""
    memory_gb: int | None = Field(default=None, alias="memory-gb", ge=1, le=4096)
    """The memory in GB that its trainer is meant for; with less, its script says so, and goes on."""
    match: Match | None = None
    """How `auto` picks it; without it, never."""

    @model_validator(mode="after")
    def _fields_fit_the_platform(self) -> Target:
        macos = self.platform == "macos-arm64"
        if macos and self.min_os is None:
            raise ValueError('a macOS target needs min-os, for instance min-os = "14.0"')
        if not macos and self.glibc is None:
            raise ValueError('a Linux target needs glibc, for instance glibc = "2.28"')
        if macos and (self.glibc or self.accelerator not in ("mps", "cpu")):
            raise ValueError("a macOS target has no glibc and no CUDA")
        if not macos and (self.min_os or self.accelerator == "mps"):
            raise ValueError("a Linux target has no min-os and no MPS")
        if (self.cuda is not None) != (self.accelerator == "cuda"):
            raise ValueError('cuda = "..." goes with accelerator = "cuda", and only with it')
        if (self.rocm is not None) != (self.accelerator == "rocm"):
            raise ValueError('rocm = "..." goes with accelerator = "rocm", and only with it')
        if self.accelerator in ("rocm", "xpu") and self.platform != "linux-x86_64":
            raise ValueError(f"PyTorch has no build for {self.accelerator} on {self.platform}")
        return self

    @property
    def machine(self) -> str:
        """The processor as `uname -m` prints it on the target."""
        return _MACHINE[self.platform]

    @property
    def system(self) -> str:
        """The operating system as `uname -s` prints it on the target."""
        return "Darwin" if self.platform == "macos-arm64" else "Linux"

    @property
    def uv_platform(self) -> str:
        """The value for uv's `--python-platform`."""
        if self.platform == "macos-arm64":
            return "aarch64-apple-darwin"
        minor = max((known for known in _UV_GLIBC_MINORS if known <= self._glibc()[1]), default=17)
        return f"{self.machine}-manylinux_2_{minor}"

    def uv_environment(self) -> dict[str, str]:
        """What uv reads from the environment to choose wheels for this target."""
        return {"MACOSX_DEPLOYMENT_TARGET": self.min_os} if self.min_os else {}

    def wheel_tags(self, python: str) -> list[tags.Tag]:
        """The tags of the wheels that run on this target, best first.

        `python` is a version such as "3.11". Follows PEP 425 through `packaging.tags`, with the platform tags
        spelled out from the target instead of read from the host.
        """
        major, minor = (int(part) for part in python.split("."))
        platforms = list(self._platform_tags())
        return [
            *tags.cpython_tags((major, minor), platforms=platforms, abis=[f"cp{major}{minor}"]),
            *tags.compatible_tags((major, minor), interpreter=f"cp{major}{minor}", platforms=platforms),
        ]

    def _glibc(self) -> tuple[int, int]:
        major, minor = (self.glibc or "2.17").split(".")
        return int(major), int(minor)

    def _platform_tags(self) -> Iterator[str]:
        if self.min_os is not None:
            release = tuple(int(part) for part in self.min_os.split("."))
            yield from tags.mac_platforms((release[0], release[1]), "arm64")
            return
        # PEP 600 and its legacy names; glibc 2.17 is the oldest on aarch64, 2.5 on x86_64.
        legacy = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
        oldest = 5 if self.machine == "x86_64" else 17
        for minor in range(self._glibc()[1], oldest - 1, -1):
            yield f"manylinux_2_{minor}_{self.machine}"
            if minor in legacy:
                yield f"{legacy[minor]}_{self.machine}"
        yield f"linux_{self.machine}"
