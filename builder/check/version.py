"""Whether the index has a newer Drydock."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from builder import uv
from builder.author.importing.target import choose
from builder.machine import Machine
from builder.resources import DISTRIBUTION, version


def newer(machine: Machine) -> list[str]:
    """The versions that the index has and that are newer, oldest first.

    Raises ToolError where the index cannot be asked, and where it has none at all, so that "none" means that.
    """
    # It is one wheel for all: where there can be no profile, it is asked for as for another machine.
    target = choose(machine, machine.platform or "linux-x86_64", None).target
    universe = uv.Universe(target, f"{sys.version_info.major}.{sys.version_info.minor}")
    with tempfile.TemporaryDirectory(prefix="drydock-self-") as work:
        return uv.newer(DISTRIBUTION, version(), universe, Path(work))


def how_to_upgrade(prefix: Path = Path(sys.prefix)) -> str:
    """The command that upgrades this Drydock, by how it was installed.

    >>> how_to_upgrade(Path("/home/me/.local/share/uv/tools/drydock-env"))
    'uv tool upgrade drydock-env'
    """
    if prefix.parent.name == "tools" and prefix.parent.parent.name == "uv":
        return f"uv tool upgrade {DISTRIBUTION}"
    if prefix.parent.name == "venvs" and prefix.parent.parent.name == "pipx":
        return f"pipx upgrade {DISTRIBUTION}"
    return f"{sys.executable} -m pip install --upgrade {DISTRIBUTION}"
