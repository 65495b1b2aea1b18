"""What is remembered of an evaluation holds as long as what it was made with: Drydock's own code, all of it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support import Sandbox


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A copy of Drydock that may be changed."""
    for folder in ("builder", "profiles", "templates"):
        shutil.copytree(ROOT / folder, tmp_path / "ours" / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "ours"


def test_a_changed_renderer_makes_it_stale(locked: Sandbox, ours: Path) -> None:
    assert "# rendered anew" not in _script(locked, ours)
    (renderer,) = (ours / "builder").rglob("render.py")
    with renderer.open("a") as file:
        file.write(
            "\n_before = render_run_script\n\n\n"
            "def render_run_script(*given):\n    return _before(*given) + '# rendered anew\\n'\n"
        )
    assert _script(locked, ours).endswith("# rendered anew\n")


def test_a_changed_template_makes_it_stale(locked: Sandbox, ours: Path) -> None:
    assert "# another template" not in _script(locked, ours)
    with (ours / "templates/run.sh.j2").open("a") as file:
        file.write("\n# another template\n")
    assert "# another template" in _script(locked, ours)


def test_code_in_every_folder_counts(sandbox: Sandbox, ours: Path) -> None:
    code = (
        "from pathlib import Path; from builder.project import evaluate\n"
        "for folder in sorted({path.parent for path in Path(ours, 'builder').rglob('*.py')}):\n"
        "    before = evaluate._context('small')\n"
        "    next(folder.glob('*.py')).open('a').write('\\n')\n"
        "    print(folder.name, evaluate._context('small') != before)\n"
    )
    told = _python(sandbox, ours, f"ours = {str(ours)!r}\n{code}").splitlines()
    assert len(told) > 20
    assert [line for line in told if not line.endswith(" True")] == []


def _script(desk: Sandbox, ours: Path) -> str:
    """The run script of `small`, as the Drydock in the folder `ours` makes it, or remembers it."""
    code = "from builder.project.evaluate import evaluate; print(evaluate('small').script)"
    return Path(_python(desk, ours, code).strip()).read_text()


def _python(desk: Sandbox, ours: Path, code: str) -> str:
    return desk.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ours)}).succeeded().stdout
