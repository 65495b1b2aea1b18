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


def bring_uv(folder: Path, name: str) -> None:
    """Put the uv that the lock of the profile `name` names where a script has it that fetched it before.

    pip needs two minutes for that under qemu. The hash is compared here too.
    """
    catalogue = Catalogue([ROOT / "profiles"])
    profile, pinned = catalogue.profile(name), catalogue.lock(name).uv
    tools = folder / "drydock/tools"
    tools.mkdir(parents=True)
    requirements = folder / "uv.txt"
    requirements.write_text(f"uv=={pinned.version} --hash=sha256:{pinned.sha256}\n")
    arguments = ["--require-hashes", "--target", f"uv-{pinned.version}", "-r", str(requirements)]
    uv.install(arguments, tools, profile.target, profile.python.version, builds=None)
