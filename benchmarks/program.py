"""The run script and the program: what they cost before anything happens."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace

from benchmarks.common import ROOT, Row, drydock, run, script_of, work_folder
from benchmarks.measure import Command, Timing, side_by_side
from builder import uv
from builder.profile.model import Setting
from builder.project.catalogue import Catalogue
from builder.script.templates import rendered_run_script

# Root without what lets it write where no mode does: so a script finds its store as any other user finds it.
_AS_A_USER = ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override")


def script_overhead(rounds: int) -> list[Row]:
    """The run script's cost before the trainer, against `uv run --no-sync`. Where the store can be written, as by root,
    it also looks for what was changed in it, beside the trainer.
    """
    lowered = _AS_A_USER if not os.geteuid() and shutil.which(_AS_A_USER[0]) else ()
    with work_folder() as work:
        profiles = work / "profiles"
        profiles.mkdir()
        (profiles / "pass.toml").write_text(
            'schema = 1\nname = "pass"\nextends = ["cpu"]\n[trainer]\nfile = "pass.py"\n'
        )
        (profiles / "pass.py").write_text("pass\n")
        shutil.copy(ROOT / "profiles/cpu.lock.toml", profiles / "pass.lock.toml")
        env = {"DRYDOCK_HOME": str(work / "drydock"), "DRYDOCK_UV": uv.executable(), "UV_OFFLINE": "1"}
        script = script_of("pass", profiles, work)
        run(["sh", str(script), "--build-only"], env)
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
                Command("python of a user", [*lowered, python, program]),
                Command("script of a user", [*lowered, "sh", str(script)], env),
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
    user_ms = 1000 * (done["script of a user"].median - done["python of a user"].median)
    return [
        Row(
            "script over `python FILE`, of a user who cannot write the store",
            f"{user_ms:.1f} ms",
            f"python alone {done['python of a user'].median * 1000:.1f} ms",
            "<= 3 ms",
            user_ms <= 3,
        ),
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


def start_up(rounds: int) -> list[Row]:
    """`drydock build cpu` when it is built, and `drydock --help`."""
    run([*drydock(), "build", "cpu"], {})
    done = side_by_side(
        [
            Command("python", [sys.executable, "-c", "pass"]),
            Command("help", [*drydock(), "--help"], cwd=str(ROOT)),
            Command("build", [*drydock(), "build", "cpu"], cwd=str(ROOT)),
        ],
        rounds * 4,
    )
    return [
        _over_python(what, done[name], done["python"], 4.5)
        for name, what in (("build", "drydock build cpu, built"), ("help", "drydock --help"))
    ]


def _over_python(what: str, ours: Timing, plain: Timing, limit: float) -> Row:
    """How much longer something takes than `python -c pass` in the same environment."""
    ratio = ours.median / plain.median
    beside = f"{ours.median * 1000:.0f} ms, python alone {plain.median * 1000:.1f} ms"
    return Row(f"{what}, over python", f"{ratio:.1f}", beside, f"<= {limit}", ratio <= limit)


def probes(rounds: int) -> list[Row]:
    """All probes of this machine, imports included, in a Python of their own."""
    done = side_by_side(
        [
            Command("python", [sys.executable, "-c", "pass"]),
            Command("probes", [sys.executable, "-c", "from builder import machine; machine.detect()"], cwd=str(ROOT)),
        ],
        rounds * 8,
    )
    plain = done["python"].median * 1000
    taken = done["probes"].median * 1000 - plain
    return [Row("all probes, over python", f"{taken:.0f} ms", f"python alone {plain:.1f} ms", "<= 50 ms", taken <= 50)]


def doctor(rounds: int) -> list[Row]:
    """`drydock doctor cpu`, without the network: when it is built, and when uv must look for a Python too."""
    run([*drydock(), "build", "cpu"], {})
    with work_folder() as work:
        command, empty = [*drydock(), "doctor", "cpu"], {"DRYDOCK_HOME": str(work / "drydock")}
        done = side_by_side(
            [
                Command("python", [sys.executable, "-c", "pass"]),
                Command("built", command, cwd=str(ROOT)),
                Command("not built", command, empty, cwd=str(ROOT)),
            ],
            rounds * 4,
        )
    return [
        _over_python(f"drydock doctor cpu, {name}", done[name], done["python"], 20) for name in ("built", "not built")
    ]


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
