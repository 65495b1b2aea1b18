"""Make builder/author/importing/conda_names.txt from the data of the repository prefix-dev/parselmouth.

`just conda-names CHECKOUT`, a checkout or a bare clone of it: read by git, at its newest commit.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from packaging.utils import canonicalize_name

from builder.author.importing.conda_names import FILE, NOT_PYTHON

_DATA = "files/v0/conda-forge/compressed_mapping.json"
_HEAD = """\
# What conda-forge's packages are called on PyPI, where that is not the same: the name there, or - for what is no Python
# package. Names of R, Perl and the like, of libraries (lib...) and compilers are left out, as conda_names.py says.
# From the repository prefix-dev/parselmouth, {data},
# at its commit {commit} of {day}. Its licence:
#
"""


def main() -> None:
    checkout = sys.argv[1]

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", checkout, *arguments], check=True, capture_output=True, text=True).stdout

    commit, day = git("log", "-1", "--format=%H %cs").split()
    names: dict[str, list[str] | None] = json.loads(git("show", f"{commit}:{_DATA}"))
    known: dict[str, str] = {}
    for conda, found in names.items():
        name = canonicalize_name(conda).strip("-")
        pypi = sorted({canonicalize_name(one) for one in found or ()})
        # Two of conda's names may be one: that of a Python package counts.
        if name in pypi:
            known[name] = name
        elif len(pypi) == 1:
            known.setdefault(name, pypi[0])
            known[name] = pypi[0] if known[name] == "-" else known[name]
        else:
            known.setdefault(name, "-")
    lines = [
        f"{name} {pypi}\n"
        for name, pypi in sorted(known.items())
        if (re.fullmatch(NOT_PYTHON, name) is not None and pypi != "-")
        or (re.fullmatch(NOT_PYTHON, name) is None and pypi != name)
    ]
    head = _HEAD.format(data=_DATA, commit=commit, day=day)
    licence = "".join(f"# {line}".rstrip() + "\n" for line in git("show", f"{commit}:LICENSE").splitlines())
    Path(FILE).write_text(head + licence + "".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
