"""./drydockw: the developer's tools from nothing, beside uv and beside pip, which it used before."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.common import ROOT, Row, work_folder
from benchmarks.measure import Command, side_by_side
from builder import uv


def tools(rounds: int) -> list[Row]:
    """The tools of ./drydockw with empty caches, where a uv is there and where none is. Every side downloads it all."""
    with work_folder() as work:
        checkout = clone(work / "checkout")
        requirements, venv = checkout / "requirements/dev.txt", work / "venv"
        base = Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")
        (work / "bin").mkdir()
        (work / "bin/python3").symlink_to(base)
        env = {
            "PATH": f"{work}/bin:/usr/bin:/bin",
            "UV_CACHE_DIR": str(work / "uv"),
            "PIP_CACHE_DIR": str(work / "pip"),
        }

        def empty() -> None:
            for folder in (checkout / ".venv", venv, work / "uv", work / "pip"):
                shutil.rmtree(folder, ignore_errors=True)

        def shell(name: str, script: str, **more: str) -> Command:
            return Command(name, ["sh", "-euc", script, "sh", str(venv), str(requirements)], env | more, prepare=empty)

        sync = 'uv venv -q -p "$PYTHON" "$1"; uv pip sync -q -p "$1/bin/python" --require-hashes "$2"'
        pip = '"$PYTHON" -m venv "$1"; "$1/bin/python" -m pip install -q --only-binary :all: --require-hashes -r "$2"'
        wrapper = [str(checkout / "drydockw"), "just", "--version"]
        with_uv = {"PYTHON": str(base), "PATH": f"{Path(uv.executable()).parent}:{env['PATH']}"}
        done = side_by_side(
            [
                shell("uv", sync, **with_uv),
                Command("with uv", wrapper, {**env, "DRYDOCK_UV": uv.executable()}, prepare=empty),
                Command("without uv", wrapper, {**env, "DRYDOCK_UV": ""}, prepare=empty),
                shell("pip", pip, PYTHON=str(base)),
            ],
            max(2, rounds // 2),
        )
    peer, slow = done["uv"].median, done["pip"].median
    rows = [
        Row(
            f"tools by ./drydockw, cold, {what}, over `uv venv` + `uv pip sync`",
            f"{done[name].median / peer:.2f}",
            f"uv {peer:.1f} s, ours {done[name].median:.1f} s; best {done[name].best / done['uv'].best:.2f}",
            "<= 1.2",
            done[name].median <= 1.2 * peer,
        )
        for name, what in (("with uv", "a uv is there"), ("without uv", "uv by pip"))
    ]
    ours = done["without uv"].median
    beside = f"pip {slow:.1f} s, ours {ours:.1f} s"
    return [
        *rows,
        Row("tools by ./drydockw, cold, uv by pip, over pip", f"{ours / slow:.2f}", beside, "<= 0.5", ours <= slow / 2),
    ]


def clone(folder: Path) -> Path:
    """The files of this checkout that git knows, as they are now."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(os.path.isfile, (str(ROOT / name) for name in listed.split("\0") if name)):
        target = folder / Path(name).relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(name, target)
    return folder
