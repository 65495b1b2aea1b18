"""`just mutate`: change the code at one place after the other, and name each change that no test of its wing notices.

Cosmic Ray makes the changes, in a copy of this checkout that has an environment of its own, one change at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from uv import find_uv_bin

ROOT = Path(__file__).resolve().parent.parent
WINGS = ("embedded", "lock", "profile", "script")
OPPOSITES = {
    *("Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is"),
    *("Lt_GtE", "GtE_Lt", "Gt_LtE", "LtE_Gt", "Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt"),
    *("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Mul", "Mod_Mul", "Pow_Mul"),
    *("RShift_LShift", "LShift_RShift", "BitAnd_BitOr", "Delete_Not"),
}


def left_out() -> list[str]:
    """The changes that are not made: of those that put one operator in place of another, all but its opposite.

    Neither is that of `|`, which stands in annotations, where it does nothing.
    """
    names = _printed("cosmic-ray", "operators").split()
    return [name for name in names if "Operator_" in name and name.rpartition("Operator_")[2] not in OPPOSITES]


def copied(folder: Path) -> Path:
    """Copy this checkout as it is now into `folder`, and make the developers' environment; returns its Python."""
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for file in filter(None, files.split("\0")):
        if (ROOT / file).is_file():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, folder / file)
    uv, python = find_uv_bin(), folder / ".venv/bin/python"
    _run([uv, "venv", "--quiet", "--python", sys.executable, ".venv"], folder)
    install = [uv, "pip", "install", "--quiet", "--python", str(python)]
    _run([*install, "--require-hashes", "--requirements", "requirements/dev.txt"], folder)
    _run([*install, "--no-deps", "--no-build-isolation", "--editable", "."], folder)
    return python


def mutate(module: Path, tests: Sequence[str], copy: Path, python: Path, seconds: float) -> None:
    """Try all changes of a module or a folder of the copy, and print those that the `tests` do not notice.

    Without `tests`, those of its wing, with the doctests.
    """
    wing = module.relative_to(copy / "builder").parts[0]
    tests = tests or [path for path in (f"tests/{wing}", f"builder/{wing}") if (copy / path).is_dir()]
    # Whatever PYTHONPATH names would be imported instead of the copy.
    command = ["env", "-u", "PYTHONPATH", str(python), "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    config, session = copy.parent / "mutate.toml", copy.parent / "mutate.sqlite"
    session.unlink(missing_ok=True)
    config.write_text(
        f"""[cosmic-ray]
module-path = {json.dumps(str(module))}
timeout = {seconds}
excluded-modules = []
test-command = {json.dumps(shlex.join(command))}
[cosmic-ray.distributor]
name = "local"
[cosmic-ray.filters.operators-filter]
exclude-operators = {json.dumps(left_out())}
"""
    )
    for step in (
        ["cosmic-ray", "init", str(config), str(session)],
        ["cr-filter-operators", str(session), str(config)],
        ["cosmic-ray", "exec", str(config), str(session)],
        ["cr-report", "--surviving-only", "--show-diff", str(session)],
    ):
        _run([*_tool(step[0]), *step[1:]], copy)


def _tool(program: str) -> list[str]:
    """The start of a command of cosmic-ray's, in an environment of its own: something that it needs has no wheel, and
    ./drydockw builds nothing.
    """
    return [find_uv_bin(), "tool", "run", "--quiet", "--from", "cosmic-ray==8.7.0", program]


def _printed(program: str, *arguments: str) -> str:
    return subprocess.run([*_tool(program), *arguments], check=True, capture_output=True, text=True).stdout


def _run(command: Sequence[str], folder: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    subprocess.run(command, cwd=folder, check=True, env=environment)


def main() -> int:
    parser = argparse.ArgumentParser(prog="just mutate", description=__doc__)
    parser.add_argument("modules", nargs="*", type=Path, help=f"below builder/ (default: {', '.join(WINGS)})")
    parser.add_argument("--tests", nargs="+", default=[], help="the tests that should notice (default: its wing's)")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for the tests of a change (%(default)s)")
    asked = parser.parse_args()
    modules = [path.resolve() for path in asked.modules] or [ROOT / "builder" / wing for wing in WINGS]
    if not all(path.exists() and path.is_relative_to(ROOT / "builder") for path in modules):
        parser.error("a module or a folder below builder/ is wanted")
    with tempfile.TemporaryDirectory(prefix="drydock-mutate-") as folder:
        copy = Path(folder, "copy")
        python = copied(copy)
        for module in modules:
            mutate(copy / module.relative_to(ROOT), asked.tests, copy, python, asked.timeout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
