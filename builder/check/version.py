"""Which Drydock this is, and whether the index has a newer one."""

from __future__ import annotations

import sys
import tempfile
from importlib import metadata
from pathlib import Path

from builder import uv
from builder.machine import Machine
from builder.profile.target import Target

PACKAGE = "drydock-env"


def version() -> str:
    """The version of this Drydock."""
    return metadata.version(PACKAGE)


def newer(machine: Machine) -> list[str]:
    """The versions that the index has and that are newer, oldest first.

    Raises ToolError where the index cannot be asked, and where it has none at all, so that "none" means that.
    """
    if machine.system == "Darwin":
        target = {"platform": "macos-arm64", "accelerator": "mps", "min-os": "14.0"}
    else:
        processor = "arm64" if machine.machine == "aarch64" else "x86_64"
        target = {"platform": f"linux-{processor}", "accelerator": "cpu", "glibc": "2.28"}
    universe = uv.Universe(Target.model_validate(target), f"{sys.version_info.major}.{sys.version_info.minor}")
    with tempfile.TemporaryDirectory(prefix="drydock-self-") as work:
        return uv.newer(PACKAGE, version(), universe, Path(work))


def how_to_upgrade(prefix: Path = Path(sys.prefix)) -> str:
    """The command that upgrades this Drydock, by how it was installed.

    >>> how_to_upgrade(Path("/home/me/.local/share/uv/tools/drydock-env"))
    'uv tool upgrade drydock-env'
    """
    if prefix.parent.name == "tools" and prefix.parent.parent.name == "uv":
        return f"uv tool upgrade {PACKAGE}"
    if prefix.parent.name == "venvs" and prefix.parent.parent.name == "pipx":
        return f"pipx upgrade {PACKAGE}"
    return f"{sys.executable} -m pip install --upgrade {PACKAGE}"
