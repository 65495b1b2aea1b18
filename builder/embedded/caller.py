"""The folder that a caller's settings are relative to: a build itself stands in what it makes."""

from __future__ import annotations

import os
from typing import Mapping

_VARIABLE = "DRYDOCK_FOLDER"


def remember_folder() -> None:
    """Keep the folder that this process stands in, for itself and what it starts."""
    os.environ[_VARIABLE] = os.getcwd()


def folder_of(environ: Mapping[str, str]) -> str:
    """Where the caller stood that has these variables; where we stand, where nobody has kept it."""
    return environ.get(_VARIABLE) or os.getcwd()
