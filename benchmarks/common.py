"""What all benchmarks need: rows of the table, a place to work, and the program."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from builder.lock.model import digest, dump, parse
from builder.project.catalogue import Catalogue

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Row:
    """One claim: what was measured, beside what, and the limit."""

    what: str
    value: str
    beside: str
    limit: str
    reached: bool


@contextmanager
def work_folder() -> Iterator[Path]:
    """On the disk of uv's cache, so that both sides can link."""
    folder = Path(tempfile.mkdtemp(prefix="drydock-bench-", dir=Path.home()))
    try:
        yield folder
    finally:
        subprocess.run(["chmod", "-R", "u+w", str(folder)], check=True)
        shutil.rmtree(folder)


def drydock() -> list[str]:
    return [str(Path(sys.executable).parent / "drydock")]


def script_of(name: str, profiles: Path, work: Path) -> Path:
    out = work / "generated"
    if name != "cpu":
        # Only the trainer differs from cpu: the same packages, locked again without a resolution.
        catalogue = Catalogue([profiles, ROOT / "profiles"])
        profile = catalogue.profile(name)
        lock = parse((ROOT / "profiles/cpu.lock.toml").read_text(), "cpu.lock.toml", "cpu")
        fresh = lock.model_copy(update={"profile": name, "digest": digest(profile, catalogue.texts(name))})
        (profiles / f"{name}.lock.toml").write_text(dump(fresh))
    run([*drydock(), "render", name, "--out", str(out)], {"DRYDOCK_PROFILES": str(profiles)})
    return next(out.glob("run_*.sh"))


def run(command: list[str], env: dict[str, str]) -> None:
    subprocess.run(command, env={**os.environ, **env}, check=True, capture_output=True, cwd=ROOT)
