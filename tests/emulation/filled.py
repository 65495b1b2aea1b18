"""A folder that the emulated machine takes as its /work: a script, and caches that the host has filled for it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from builder import uv
from builder.embedded.installer import SEARCHES
from builder.project.catalogue import Catalogue
from tests.conftest import ROOT
from tests.support.base import find_python
from tests.support.kept import link_tree

SMALL = 100_000
"""Bytes of a wheel that the machine unpacks, checks and compiles itself: there are dozens."""


def fill(folder: Path, name: str, script: str, compiled: Path | None = None) -> None:
    """Make `folder`: `script` as script.sh, and of the profile `name` all but the small wheels, as they are unpacked.

    The small ones are in uv's cache there, and what has no wheel is nowhere: that is for the machine to build. All of
    it is what the machine would make itself, in minutes more: files and bytecode are the same on every processor.
    `compiled` has bytecode that another store has, by the hash of its source.
    """
    folder.mkdir()
    (folder / "drydock").mkdir()
    if compiled is not None:
        link_tree(compiled, folder / "drydock/bytecode")
    (folder / "script.sh").write_text(script, encoding="utf-8")
    catalogue = Catalogue([ROOT / "profiles"])
    profile, lock, content = catalogue.profile(name), catalogue.lock(name), catalogue.plan(name).content
    small = {package.sha256 for package in lock.packages if package.is_wheel and (package.size or 0) < SMALL}
    large = [one for one in content["packages"] if one["file"].endswith(".whl") and one["sha256"] not in small]
    assert small, "the machine has nothing to unpack"
    requirements = folder / "wheels.txt"
    requirements.write_text(_by_hash([(p.name, p.version, p.sha256) for p in lock.packages if p.sha256 in small]))
    (folder / "thrown-away").mkdir()
    arguments = ["--require-hashes", "--cache-dir", str(folder / "cache"), "--target", ".", "-r", str(requirements)]
    uv.install([*SEARCHES, *arguments], folder / "thrown-away", profile.target, profile.python.version, builds=None)
    requirements.write_text(_by_hash([(one["name"], one["version"], one["sha256"]) for one in large]))
    command = [uv.executable(), "pip", "install", "--no-config", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += [*SEARCHES, "--require-hashes", "--prefix", ".", "--python", find_python(), "-r", str(requirements)]
    command += ["--python-platform", profile.target.uv_platform, "--python-version", profile.python.version]
    program = [find_python(), "-B", "-m", "tests.emulation.unpacked", str(folder / "drydock")]
    plan = json.dumps({"packages": large, "build-requires": [], "install": command})
    subprocess.run(program, cwd=ROOT, input=plan, text=True, check=True)


def _by_hash(packages: list[tuple[str, str, str]]) -> str:
    return "".join(f"{name}=={version} --hash=sha256:{sha256}\n" for name, version, sha256 in packages)


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
