"""What a Python is that environments are built on: its release, its machine, and what it was compiled without.

As a program, it prints that of the Python that runs it: 3.6 or newer, so that one which is too old can answer.
"""

import os
from typing import List, NamedTuple, Optional, Tuple

MODULES = ("_bz2", "_ctypes", "_hashlib", "_lzma", "_sqlite3", "_ssl", "zlib")
"""Modules that a Python lacks which was compiled where a library was missing; much imports them, or what needs them."""


class Interpreter(NamedTuple):
    """A Python: its version, such as "3.11.13", its system and machine, and the modules that it lacks."""

    version: str
    system: str
    machine: str
    missing: Tuple[str, ...]


def question(python: str) -> List[str]:
    """The command that asks a Python, by the path of its program."""
    return [python, "-I", "-S", "-B", os.path.abspath(__file__)]


def parse(answer: str) -> Optional[Interpreter]:
    """The answer to `question`; None where it is none.

    >>> parse("3.11.13 Linux x86_64\\n_lzma\\n")
    Interpreter(version='3.11.13', system='Linux', machine='x86_64', missing=('_lzma',))
    """
    lines = answer.splitlines()
    words = lines[0].split() if lines else []
    return Interpreter(words[0], words[1], words[2], tuple(lines[1:])) if len(words) == 3 else None


def missing() -> List[str]:
    """The modules that the Python lacks which runs this."""
    found = []
    for name in MODULES:
        try:
            __import__(name)
        except ImportError:
            found.append(name)
    return found


def remedy(version: str) -> str:
    """What to do about a Python that lacks modules."""
    return (
        "it was compiled where their libraries were missing: install these (Debian: libbz2-dev libffi-dev liblzma-dev "
        f"libsqlite3-dev libssl-dev) and compile it again, or take uv's: uv python install {version}"
    )


if __name__ == "__main__":
    import platform  # here, because builds need none of it

    print(platform.python_version(), platform.system(), platform.machine())
    for module in missing():
        print(module)
