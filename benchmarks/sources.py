"""What a source with many profiles costs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.common import ROOT, Row, drydock, run, work_folder
from benchmarks.measure import Command, side_by_side

_COUNT = 1000


def many_profiles(rounds: int) -> list[Row]:
    """`drydock profile list` with 1,000 profiles, each as long as cpu.toml, in a git source."""
    with work_folder() as work:
        shared, project = work / "shared", work / "project"
        (shared / "profiles").mkdir(parents=True)
        project.mkdir()
        text = (ROOT / "profiles/cpu.toml").read_text()
        for number in range(_COUNT):
            name = f"cpu-{number:04}"
            (shared / f"profiles/{name}.toml").write_text(text.replace('name = "cpu"', f'name = "{name}"'))
        git = ["git", "-C", str(shared), "-c", "user.name=bench", "-c", "user.email=bench@example.org"]
        for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "all"]):
            run([*git, *arguments], {})
        (project / "drydock.toml").write_text(f'[sources.team]\ngit = "{shared}"\n')
        env = {"DRYDOCK_HOME": str(work / "home")}
        subprocess.run(
            [*drydock(), "sources", "lock"], env={**os.environ, **env}, cwd=project, check=True, capture_output=True
        )
        listing = [*drydock(), "profile", "list"]
        done = side_by_side(
            [
                Command("python", [sys.executable, "-c", "pass"]),
                Command("alone", listing, env, str(work)),
                Command("list", listing, env, str(project)),
                Command("first", listing, env, str(project), lambda: _forget(work / "home/cache")),
            ],
            rounds * 2,
        )
    alone = done["alone"].median * 1000
    rows = []
    for name, what in (("list", "drydock profile list"), ("first", "the same for the first time")):
        taken = done[name].median * 1000
        beside = f"without the source {alone:.0f} ms"
        rows.append(Row(f"{what}, {_COUNT} profiles in a source", f"{taken:.0f} ms", beside, "<= 500 ms", taken <= 500))
    return rows


def _forget(cache: Path) -> None:
    shutil.rmtree(cache, ignore_errors=True)
