"""`just bench`: Drydock beside uv, in one run, as ratios. Absolute limits are told beside `python -c pass`.

python benchmarks/run.py [--rounds N] [--json] [NAME ...]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
# Bytecode is part of how Drydock's own program starts, on any machine but these.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

from benchmarks.measure import Command, side_by_side  # noqa: E402
from builder import render, uv  # noqa: E402
from builder.catalogue import Catalogue  # noqa: E402
from builder.profile.model import Setting  # noqa: E402
from builder.store import write_files  # noqa: E402
from builder.templates import rendered_run_script  # noqa: E402


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
    with tempfile.TemporaryDirectory(prefix="drydock-bench-", dir=Path.home()) as folder:
        yield Path(folder)


def script_overhead(rounds: int) -> list[Row]:
    """The run script's cost before the trainer, against `uv run --no-sync`."""
    with work_folder() as work:
        profiles = work / "profiles"
        profiles.mkdir()
        (profiles / "pass.toml").write_text(
            'schema = 1\nname = "pass"\nextends = ["cpu"]\n[trainer]\nfile = "pass.py"\n'
        )
        (profiles / "pass.py").write_text("pass\n")
        shutil.copy(ROOT / "profiles/cpu.lock.toml", profiles / "pass.lock.toml")
        env = {"DRYDOCK_HOME": str(work / "drydock"), "DRYDOCK_UV": uv.executable(), "UV_OFFLINE": "1"}
        script = _script("pass", profiles, work)
        _run(["sh", str(script), "--build-only"], env)
        built = next((work / "drydock/store").iterdir())
        python, program = str(built / "bin/python"), str(built / ".drydock/pass.py")
        project = work / "project"
        project.mkdir()
        (project / "pyproject.toml").write_text('[project]\nname = "p"\nversion = "0"\nrequires-python = ">=3.11"\n')
        (project / ".venv").symlink_to(built)
        done = side_by_side(
            [
                Command("python", [python, program]),
                Command("script", ["sh", str(script)], env),
                Command(
                    "uv run",
                    [uv.executable(), "run", "--no-sync", "python", program],
                    {"UV_OFFLINE": "1"},
                    str(project),
                ),
            ],
            rounds * 8,
        )
    plain = done["python"].median
    script_ms, uv_ms = (1000 * (done[name].median - plain) for name in ("script", "uv run"))
    return [
        Row(
            "script over `python FILE`",
            f"{script_ms:.1f} ms",
            f"python alone {plain * 1000:.1f} ms",
            "<= 3 ms",
            script_ms <= 3,
        ),
        Row(
            "script over `uv run --no-sync`, both over python",
            f"{script_ms / uv_ms:.2f}",
            f"uv run {uv_ms:.1f} ms",
            "<= 0.25",
            script_ms <= uv_ms / 4,
        ),
    ]


def warm_build(rounds: int) -> list[Row]:
    """A new environment from warm caches, against `uv venv` and `uv pip sync` of the same set."""
    with work_folder() as work:
        plan = Catalogue([ROOT / "profiles"]).plan("cpu")
        parts = work / "parts"
        write_files(parts, render.parts(plan))
        links = " ".join(f"--find-links {folder}" for folder in uv.find_links())
        home, venv = work / "drydock", work / "venv"
        env = {"DRYDOCK_HOME": str(home), "DRYDOCK_UV": uv.executable()}
        peer = (
            f"{uv.executable()} venv -q --python 3.11 {venv} && "
            f"{uv.executable()} pip sync -q --require-hashes --python {venv} {links} {parts}/requirements*.txt"
        )
        script = _script("cpu", ROOT / "profiles", work)
        fresh = lambda: shutil.rmtree(home / "store", ignore_errors=True)  # noqa: E731
        done = side_by_side(
            [
                Command("uv", ["sh", "-c", peer], prepare=lambda: shutil.rmtree(venv, ignore_errors=True)),
                Command("script", ["sh", str(script), "--build-only"], env, prepare=fresh),
                Command("drydock", [*_drydock(), "build", "cpu"], env, str(ROOT), prepare=fresh),
            ],
            rounds,
        )
    peer_s = done["uv"].median
    return [
        Row(
            f"{what}, warm, over `uv venv` + `uv pip sync`",
            f"{done[name].median / peer_s:.2f}",
            f"uv {peer_s:.2f} s, ours {done[name].median:.2f} s",
            "<= 1.5",
            done[name].median <= 1.5 * peer_s,
        )
        for name, what in (("script", "script --build-only"), ("drydock", "drydock build cpu"))
    ]


def start_up(rounds: int) -> list[Row]:
    """`drydock build cpu` when it is built, and `drydock --help`."""
    _run([*_drydock(), "build", "cpu"], {})
    done = side_by_side(
        [
            Command("python", [sys.executable, "-c", "pass"]),
            Command("help", [*_drydock(), "--help"], cwd=str(ROOT)),
            Command("build", [*_drydock(), "build", "cpu"], cwd=str(ROOT)),
        ],
        rounds * 4,
    )
    plain = done["python"].median * 1000
    rows = []
    for name, what, limit in (("build", "drydock build cpu, built", 100), ("help", "drydock --help", 80)):
        taken = done[name].median * 1000
        beside = f"python alone {plain:.1f} ms, ratio {taken / plain:.1f}"
        rows.append(Row(what, f"{taken:.0f} ms", beside, f"<= {limit} ms", taken <= limit))
    return rows


def probes(rounds: int) -> list[Row]:
    """All probes of this machine, imports included, in a Python of their own."""
    done = side_by_side(
        [
            Command("python", [sys.executable, "-c", "pass"]),
            Command("probes", [sys.executable, "-c", "from builder import probe; probe.detect()"], cwd=str(ROOT)),
        ],
        rounds * 8,
    )
    plain = done["python"].median * 1000
    taken = done["probes"].median * 1000 - plain
    return [Row("all probes, over python", f"{taken:.0f} ms", f"python alone {plain:.1f} ms", "<= 50 ms", taken <= 50)]


def detection(rounds: int) -> list[Row]:
    """What a script's own detection costs: `--print-env` with a detected value, and with a literal in its place."""
    kinds = ("performance-cores", "usable-cores", "memory-gb")
    plan = Catalogue([ROOT / "profiles"]).plan("cpu")
    with work_folder() as work:
        commands = []
        for kind in ("literal", *kinds):
            setting = Setting.model_validate("4" if kind == "literal" else {"detect": kind, "fallback": 4})
            profile = plan.profile.model_copy(update={"env": {**plan.profile.env, "A": setting}})
            script = work / f"{kind}.sh"
            script.write_text(rendered_run_script(replace(plan, profile=profile)))
            commands.append(Command(kind, ["sh", str(script), "--print-env"]))
        done = side_by_side(commands, rounds * 20)
    plain = done["literal"].median * 1000
    rows = []
    for kind in kinds:
        taken = done[kind].median * 1000 - plain
        rows.append(
            Row(f"script: detect {kind}", f"{taken:.1f} ms", f"a literal: {plain:.1f} ms", "<= 5 ms", taken <= 5)
        )
    return rows


BENCHMARKS = {"script": script_overhead, "build": warm_build, "start": start_up, "probes": probes, "detect": detection}


def _drydock() -> list[str]:
    return [str(Path(sys.executable).parent / "drydock")]


def _script(name: str, profiles: Path, work: Path) -> Path:
    out = work / "generated"
    if name != "cpu":
        # Only the trainer differs from cpu: the same packages, locked again without a resolution.
        from builder.lock import digest, dump, parse

        catalogue = Catalogue([profiles, ROOT / "profiles"])
        profile = catalogue.profile(name)
        lock = parse((ROOT / "profiles/cpu.lock.toml").read_text(), "cpu.lock.toml", "cpu")
        fresh = lock.model_copy(update={"profile": name, "digest": digest(profile, catalogue.texts(profile))})
        (profiles / f"{name}.lock.toml").write_text(dump(fresh))
    _run([*_drydock(), "render", name, "--out", str(out)], {"DRYDOCK_PROFILES": str(profiles)})
    return next(out.glob("run_*.sh"))


def _run(command: list[str], env: dict[str, str]) -> None:
    import subprocess

    subprocess.run(command, env={**os.environ, **env}, check=True, capture_output=True, cwd=ROOT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    rows = [row for name in chosen.names or BENCHMARKS for row in BENCHMARKS[name](chosen.rounds)]
    if chosen.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return
    print("| measured | value | beside | limit | reached |\n| --- | --- | --- | --- | --- |")
    for row in rows:
        print(f"| {row.what} | {row.value} | {row.beside} | {row.limit} | {'yes' if row.reached else 'NO'} |")


if __name__ == "__main__":
    main()
