"""Install the packages of a plan into a folder of Drydock's own that is no store path: to try, to compare, to look at.

What a build does is in builder/embedded/stage.py; both ask uv by the same rules (builder/embedded/installer.py).
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from builder import uv
from builder.consent import Builds
from builder.embedded import installer
from builder.embedded.installed import site_packages
from builder.embedded.programs import make_relocatable
from builder.script.parts import plan_json
from builder.script.plan import Plan
from builder.store.layout import home


def install(plan: Plan, folder: Path, python: str, builds: Builds) -> None:
    """Bring the packages of a plan, by hash, below `folder`, which is ours: an environment of the Python `python`.

    For the target of the plan, which may not be this machine. Source distributions need `builds`. Raises ToolError.
    """
    written = json.loads(plan_json(plan))
    target, version = plan.profile.target, plan.profile.python.version
    with tempfile.TemporaryDirectory(prefix="drydock-") as work:
        for packages in _in_order(written["plan"]):
            near, links = installer.built_here(packages, home() / "cache" / "mirror")
            if near.packages:
                arguments = installer.arguments(written, near, python, Path(work))
                uv.install([*arguments, *links], folder, target, version, builds=None)
            packages = [package for package in packages if package not in near.packages]
            for request in installer.requests(written, packages, os.environ):
                arguments = installer.arguments(written, request, python, Path(work))
                allowed = builds if request.builds else None
                uv.install(arguments, folder, target, version, builds=allowed, index=request.url or None)
    (folder / ".lock").unlink(missing_ok=True)  # uv's
    make_relocatable(site_packages(folder), folder, python)


def _in_order(plan: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """The packages; last those whose files count where others bring them too."""
    last = list(dict.fromkeys(plan.get("overlap", {}).values()))
    yield [package for package in plan["packages"] if package["name"] not in last]
    for name in last:
        yield [package for package in plan["packages"] if package["name"] == name]
