"""Jupyter kernels: a kernelspec whose kernel runs in the current generation of a profile, with its variables.

Sources: jupyter_client, "Making kernels for Jupyter" (kernel.json); jupyter_core/paths.py (jupyter_data_dir);
jupyter_client/kernelspec.py (what is a name).
"""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from builder.build.build import build
from builder.embedded.state import parse_json
from builder.errors import DrydockError, UsageError
from builder.files import check_ours, display, write_atomically
from builder.names import stem
from builder.project.catalogue import Catalogue
from builder.project.discovery import PROFILES_VARIABLE, own_profile_folders
from builder.report import Reporter
from builder.store.layout import home


def install(name: str, kernel: str | None, catalogue: Catalogue, report: Reporter) -> Path:
    """Build the profile `name` and write its kernelspec, called `kernel`, else drydock-NAME; returns the file.

    Raises DrydockError where its lock has no ipykernel, or where another kernel has that name.
    """
    file = _file(name, kernel)
    check_ours(file, _is_ours, "--name")
    if "ipykernel" not in catalogue.lock(name).versions():
        raise DrydockError(
            f"{name} has no ipykernel",
            hint=f'add "ipykernel" to requires in {display(catalogue.path(name))}, then: drydock lock {name}',
        )
    build(name, catalogue, report)
    write_atomically(file, json.dumps(_spec(name), indent=1) + "\n")
    return file


def uninstall(name: str, kernel: str | None) -> Path:
    """Remove a kernelspec; returns its file. Raises UsageError where it does not exist."""
    file = _file(name, kernel)
    if not file.is_file():
        raise UsageError(f"{name} is not a kernel: {file} does not exist", hint=f"drydock kernel install {name}")
    check_ours(file, _is_ours, "--name")
    file.unlink()
    with suppress(OSError):  # with a logo of the user's in it
        file.parent.rmdir()
    return file


def data_folder() -> Path:
    """Return the data folder of the user's Jupyter. Raises UsageError where there is no home."""
    if named := os.environ.get("JUPYTER_DATA_DIR"):
        return Path(named).absolute()
    user = os.environ.get("HOME")
    if not user:
        raise UsageError("there is no place for a kernel", hint="set HOME or JUPYTER_DATA_DIR")
    if sys.platform == "darwin":
        return Path(user) / "Library/Jupyter"
    return Path(os.environ.get("XDG_DATA_HOME") or Path(user) / ".local/share").absolute() / "jupyter"


def _spec(name: str) -> dict[str, Any]:
    # A notebook is anywhere: the profile must be found from there. Jupyter expands $ in these.
    places = {
        "DRYDOCK_HOME": str(home()),
        PROFILES_VARIABLE: os.pathsep.join(str(folder.absolute()) for folder in own_profile_folders()),
    }
    drydock = [sys.executable, "-P", "-m", "builder", "--quiet"]
    return {
        "argv": [*drydock, "shell", name, "--", "python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": f"{name} (Drydock)",
        "language": "python",
        "env": {key: value.replace("$", "$$") for key, value in places.items()},
        "metadata": {"debugger": True, "drydock": name},
    }


def _file(name: str, kernel: str | None) -> Path:
    called = kernel or f"drydock-{stem(name)}"
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", called):
        raise UsageError(f"{called} is not a name for a kernel", hint="letters, digits, - and _")
    return data_folder() / "kernels" / called / "kernel.json"


def _is_ours(text: str) -> bool:
    return parse_json(text, {"metadata": {"drydock": object}}) is not None
