"""The shells that generated scripts must run under, as argument lists; those that are not installed are left out."""

from __future__ import annotations

import shutil

_ALL = {
    "dash": ["dash"],
    "bash": ["bash"],
    "bash-posix": ["bash", "--posix"],
    "busybox": ["busybox", "sh"],
    "mksh": ["mksh"],
    "yash": ["yash"],
    "zsh": ["zsh"],
    "zsh-sh": ["zsh", "--emulate", "sh"],
}

SHELLS = {name: command for name, command in _ALL.items() if shutil.which(command[0])}
