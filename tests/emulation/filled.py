"""A folder that the emulated machine takes as its /work: a script, and caches that the host has filled for it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from builder import uv
from builder.embedded.installer import SEARCHES
from builder.project.catalogue import Catalogue
from tests.conftest import ROOT
from tests.support.base import find_python


def fill(folder: Path, name: str, script: str) -> None:
    """Make `folder`: `script` as script.sh, and wheels and bytecode of the profile `name`.

    Both are what the machine would make itself, in minutes more: bytecode is the same on every processor.
    """
    folder.mkdir()
    (folder / "script.sh").write_text(script, encoding="utf-8")
    catalogue = Catalogue([ROOT / "profiles"])
    profile, lock = catalogue.profile(name), catalogue.lock(name)
    wheels = [package for package in lock.packages if package.is_wheel]
    (folder / "wheels.txt").write_text("".join(f"{p.name}=={p.version} --hash=sha256:{p.sha256}\n" for p in wheels))
    arguments = [*SEARCHES, "--require-hashes", "--cache-dir", str(folder / "cache"), "--target", "."]
    (folder / "thrown-away").mkdir()
    arguments += ["-r", str(folder / "wheels.txt")]
    uv.install(arguments, folder / "thrown-away", profile.target, profile.python.version, builds=None)
    program = (
        "import sys; from pathlib import Path; sys.path.append('tests/support'); "
        "from compiled import link_bytecode; "
        "link_bytecode(*map(Path, sys.argv[1:]))"
    )
    subprocess.run(
        [find_python(), "-B", "-c", program, str(folder / "thrown-away"), str(folder / "drydock/bytecode")],
        cwd=ROOT,
        check=True,
    )
