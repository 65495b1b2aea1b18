"""`just bench-projects FOLDER`: import and lock each project there, beside `uv pip compile` of the same file.

python benchmarks/projects.py FOLDER [--platform P] [--accelerator A] [--only TEXT] [--rounds N] [--longest S]
    [--json FILE]

FOLDER has checkouts, or files that say what is required. Nothing in it is changed. Nothing of a project is run by
Drydock; uv builds what has no wheel, as it always does, which runs code of packages. Both ask the indexes of UV_*: what
pip is configured with, which Drydock goes by and uv does not, is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.common import drydock
from builder.lock.model import parse

_FILES = re.compile(
    r"requirements[^/]*\.(txt|in)|pyproject\.toml|setup\.(py|cfg)|uv\.lock|poetry\.lock|pixi\.toml|environment[^/]*\.ya?ml"
)
_UV_PLATFORMS = {
    "macos-arm64": "aarch64-apple-darwin",
    "linux-x86_64": "x86_64-manylinux_2_28",
    "linux-arm64": "aarch64-manylinux_2_28",
}
_MACOS = "14.0"  # as drydock import has it
_COMPILED = ("pyproject.toml", ".txt", ".in")
_LOCKED = {(True, False): "yes", (True, True): "with builds", (False, False): "NO"}


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@dataclass
class Row:
    """What became of a file; times in seconds, sizes in bytes. `same` says how the set differs from uv's.

    `built`: only with `--allow-builds`.
    """

    file: str
    imported: bool = False
    losses: int = 0
    locked: bool = False
    packages: int = 0
    size: int = 0
    seconds: float = 0.0
    uv_seconds: float | None = None
    built: bool = False
    same: str = ""
    reason: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--platform", default="macos-arm64", choices=sorted(_UV_PLATFORMS))
    parser.add_argument("--accelerator", choices=["mps", "cuda", "cpu"])
    parser.add_argument("--only", default="", help="files whose path has this")
    parser.add_argument("--rounds", type=int, default=0, help="both again so often, in turn, and take the medians")
    parser.add_argument("--longest", type=int, default=300, help="seconds for one lock")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    chosen = parser.parse_args()
    rows = []
    print("| file | import | lost | lock | packages | MB | s | uv s | ratio | beside uv's set |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="drydock-projects-") as work:
        for number, source in enumerate(_sources(chosen.folder.absolute())):
            if chosen.only not in str(source):
                continue
            row = _measured(source, f"p{number}", Path(work), chosen)
            rows.append(row)
            print(_line(row), flush=True)
    locked = [row for row in rows if row.locked]
    print(f"\n{len(rows)} files: {sum(row.imported for row in rows)} imported, {len(locked)} locked, ", end="")
    print(f"{sum(row.same == 'same' for row in rows)} with the set of uv")
    ratios = sorted(row.seconds / row.uv_seconds for row in locked if row.uv_seconds)
    if ratios:
        print(f"median of the ratios: {ratios[len(ratios) // 2]:.1f}")
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def _sources(folder: Path) -> Iterator[Path]:
    """The files of each project: of a checkout those at its top, and in a folder requirements."""
    for entry in sorted(folder.iterdir()):
        if entry.is_file() and _FILES.fullmatch(entry.name):
            yield entry
        for place in (entry, entry / "requirements") if entry.is_dir() else ():
            found = [one for one in sorted(place.glob("*")) if one.is_file() and _FILES.fullmatch(one.name)]
            # A setup.py beside a project only builds it.
            project = any(one.name == "pyproject.toml" and b"[project]" in one.read_bytes() for one in found)
            yield from (one for one in found if not (project and one.name.startswith("setup.")) and _is_project(one))


def _is_project(file: Path) -> bool:
    """Whether a pyproject.toml is more than the configuration of tools, whose project a setup.py has."""
    if file.name != "pyproject.toml":
        return True
    try:
        data = tomllib.loads(file.read_text(errors="replace"))
    except tomllib.TOMLDecodeError:
        return True
    return "project" in data or "poetry" in data.get("tool", {})


def _measured(source: Path, name: str, work: Path, chosen: argparse.Namespace) -> Row:
    row = Row(str(source.relative_to(chosen.folder.absolute())))
    profiles = work / "profiles"
    profiles.mkdir(exist_ok=True)
    env = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    env |= {"DRYDOCK_PROFILES": str(profiles), "PIP_CONFIG_FILE": os.devnull, "MACOSX_DEPLOYMENT_TARGET": _MACOS}
    target = ["--platform", chosen.platform, *(["--accelerator", chosen.accelerator] if chosen.accelerator else [])]
    made = profiles / f"{name}.toml"
    done, _ = _run([*drydock(), "import", source.name, *target, "-o", str(made)], source.parent, env, chosen.longest)
    row.losses = done.stderr.count("not carried over: ")
    row.imported = done.returncode == 0
    if not row.imported:
        row.reason = _error(done.stderr)
        return row
    lock = made.with_suffix(".lock.toml")
    command = [*drydock(), "lock", name]
    done, row.seconds = _run(command, work, env, chosen.longest)
    if done.returncode != 0 and _can_allow_builds():  # what uv does unasked
        again, row.seconds = _run([*command, "--allow-builds"], work, env, chosen.longest)
        row.built, done = again.returncode == 0, again
    row.locked = done.returncode == 0
    data = tomllib.loads(made.read_text())
    theirs, row.uv_seconds, why = _compiled(source, data, chosen, env)
    if row.locked and theirs is not None and chosen.rounds:
        ours_took, uv_took = [], []
        for _ in range(chosen.rounds):
            lock.unlink()
            ours_took.append(_run(command, work, env, chosen.longest)[1])
            uv_took.append(_compiled(source, data, chosen, env)[1] or 0.0)
        row.seconds, row.uv_seconds = median(ours_took), median(uv_took)
    if not row.locked:
        row.reason = _error(done.stderr)
        row.same = "uv too" if theirs is None else "uv has it"
        return row
    found = parse(lock.read_text(), lock.name, name)
    row.packages, row.size = len(found.packages), found.size
    ours = {package.name: package.version for package in found.packages}
    row.same = why if theirs is None else _difference(ours, theirs)
    return row


@cache
def _can_allow_builds() -> bool:
    return "--allow-builds" in subprocess.run([*drydock(), "lock", "--help"], capture_output=True, text=True).stdout


def _compiled(
    source: Path, data: dict[str, dict[str, object]], chosen: argparse.Namespace, env: dict[str, str]
) -> tuple[dict[str, str] | None, float | None, str]:
    """What `uv pip compile` of the same file has, for how long, else why not; of other formats what they require."""
    python = str(data["python"]["version"])
    uv = str(Path(sys.executable).parent / "uv")
    command = [uv, "pip", "compile", "-q", "--no-header", "--no-annotate", "--no-sources", "--python-version", python]
    command += ["--python-platform", _UV_PLATFORMS[chosen.platform]]
    requires = data["packages"].get("requires", [])
    assert isinstance(requires, list)
    with tempfile.NamedTemporaryFile("w", suffix=".in") as file:
        file.write("\n".join(requires))
        file.flush()
        path = source.name if source.name.endswith(_COMPILED) else file.name
        done, seconds = _run([*command, path], source.parent, env, chosen.longest)
        if done.returncode != 0 and path == source.name:  # a place out of reach, an index of the file's own
            done, seconds = _run([*command, file.name], source.parent, env, chosen.longest)
    if done.returncode != 0:
        return None, None, f"uv: {_error(done.stderr)}"
    lines = [line.split(";")[0].strip() for line in done.stdout.splitlines()]
    parsed = [Requirement(line) for line in lines if re.match(r"[A-Za-z0-9]", line)]
    versions = {canonicalize_name(one.name): str(one.specifier).removeprefix("==") or "a place" for one in parsed}
    return {str(name): version for name, version in versions.items()}, seconds, ""


def _difference(ours: dict[str, str], theirs: dict[str, str]) -> str:
    """Which packages differ, each with our version and uv's.

    >>> _difference({"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"})
    'b 2/3, c -/4'
    """
    names = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
    shown = ", ".join(f"{name} {ours.get(name, '-')}/{theirs.get(name, '-')}" for name in names[:8])
    return f"{shown}{f' and {len(names) - 8} more' if names[8:] else ''}" or "same"


def _run(command: list[str], folder: Path, env: dict[str, str], longest: int) -> tuple[Done, float]:
    """What a command wrote, and its seconds; it ends with all that it started after `longest`."""
    begun = time.monotonic()
    kind = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True, "text": True}
    with subprocess.Popen(command, cwd=folder, env=env, **kind) as process:  # type: ignore[call-overload]
        try:
            out, error = process.communicate(timeout=longest)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, error = "", f"error: more than {longest} s"
    return Done(process.returncode, out, error), time.monotonic() - begun


def _error(text: str) -> str:
    """The last error in a text, on one line, with its place and its hint."""
    found = re.findall(r"^error: (.*(?:\n\s+.*){0,4})", text, re.MULTILINE)
    return re.sub(r"\s+", " ", found[-1] if found else text[-200:]).replace("|", "/")[:400]


def _line(row: Row) -> str:
    ratio = f"{row.seconds / row.uv_seconds:.1f}" if row.locked and row.uv_seconds else ""
    uv = f"{row.uv_seconds:.1f}" if row.uv_seconds else ""
    cells = [row.file, "yes" if row.imported else "NO", row.losses, _LOCKED[row.locked, row.built], row.packages or ""]
    cells += [f"{row.size / 1e6:,.0f}" if row.size else "", f"{row.seconds:.1f}" if row.seconds else "", uv, ratio]
    return "| " + " | ".join(map(str, [*cells, row.same + (f" ({row.reason})" if row.reason else "")])) + " |"


if __name__ == "__main__":
    main()
