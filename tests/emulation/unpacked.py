"""Unpack wheels for another processor into the store of a machine: `python -m tests.emulation.unpacked HOME`.

Run by the Python that they are for, as bytecode is its own; it needs nothing but that. What they are stands on stdin:
packages as in a plan, and the command that installs them below the folder that it is started in.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builder.embedded.wheels import wheels_of


def main() -> None:
    home, plan = Path(sys.argv[1]), json.load(sys.stdin)

    def install(packages: Sequence[dict[str, Any]], folder: int) -> None:
        assert len(packages) == len(plan["packages"]), "some overlap: they cannot be installed at once"
        subprocess.run(plan["install"], cwd=f"/proc/self/fd/{folder}", pass_fds=[folder], check=True)

    def forget(names: list[str]) -> None:
        sys.exit(f"in uv's cache: not as their RECORD says: {', '.join(names)}")

    found = wheels_of(home, plan, install, forget)
    print(f"{len(found)} wheels unpacked for the emulated machine")


if __name__ == "__main__":
    main()
