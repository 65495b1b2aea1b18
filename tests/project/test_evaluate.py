"""What is remembered of an evaluation holds as long as what it was made with: Drydock's own code, all of it."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

import pytest

from builder.project.catalogue import Catalogue
from tests.conftest import ROOT
from tests.support import Sandbox


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A copy of Drydock that may be changed."""
    for folder in ("builder", "profiles", "templates"):
        shutil.copytree(ROOT / folder, tmp_path / "ours" / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "ours"


@pytest.mark.slow
def test_a_changed_renderer_makes_it_stale(locked: Sandbox, ours: Path) -> None:
    assert "# rendered anew" not in _script(locked, ours)
    (renderer,) = (ours / "builder").rglob("render.py")
    with renderer.open("a") as file:
        file.write(
            "\n_before = render_run_script\n\n\n"
            "def render_run_script(*given):\n    return _before(*given) + '# rendered anew\\n'\n"
        )
    assert _script(locked, ours).endswith("# rendered anew\n")


@pytest.mark.slow
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
    code = "from builder.project.catalogue import Catalogue\nfrom builder.project.evaluate import evaluate\n"
    code += "print(evaluate('small', Catalogue()).script)"
    return Path(_python(desk, ours, code).strip()).read_text()


def _python(desk: Sandbox, ours: Path, code: str) -> str:
    return desk.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ours)}).succeeded().stdout


ONCE = """
import collections, sys, tomllib
from builder.profile import load
from builder.project.catalogue import Catalogue
from builder.project.evaluate import evaluate

count = collections.Counter()
sys.addaudithook(lambda event, arguments: count.update([str(arguments[0])]) if event == "open" else None)

def counted(function, name):
    def call(*arguments):
        count[name(*arguments)] += 1
        return function(*arguments)
    return call

tomllib.loads = counted(tomllib.loads, lambda text: f"parsed {text[:200]}")
load.validated = counted(load.validated, lambda model, data, source: f"checked {model.__name__} {source.path}")
catalogue = Catalogue()
entry = catalogue.entry("m4")
entry.resolved.warnings(), entry.resolved.where("env", "OMP_NUM_THREADS"), catalogue.texts("m4"), catalogue.target("m4")
evaluate("m4", catalogue), catalogue.plan("m4"), evaluate("m4", catalogue)
for what, times in list(count.items()):
    if "profiles/" in what or what.startswith(("parsed", "checked")):
        print(times, what.encode("unicode_escape").decode())
"""


@pytest.mark.slow
@pytest.mark.parametrize("evaluated", [False, True], ids=["first", "remembered"])
def test_each_file_is_read_parsed_and_checked_once(sandbox: Sandbox, evaluated: bool) -> None:
    program = [sys.executable, "-c", ONCE]
    for _ in range(2 if evaluated else 1):
        lines = sandbox.run(program).succeeded().stdout.splitlines()
    for name in ("base", "accelerate-patched", "rl-swarm", "m4"):
        assert len([line for line in lines if "checked ProfilePart " in line and f"/{name}.toml" in line]) == 1
        assert len([line for line in lines if line.endswith(f"profiles/{name}.toml") and "checked" not in line]) == 1
    assert any("m4.lock.toml" in line for line in lines)
    assert len([line for line in lines if "checked Profile " in line]) == 1
    assert [line for line in lines if not line.startswith("1 ")] == []


def test_what_is_remembered_is_of_the_bytes_that_were_rendered(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes into a file between two questions gets what was read first, and another answer the next time."""
    monkeypatch.chdir(sandbox.work)
    monkeypatch.setenv("DRYDOCK_HOME", str(sandbox.store.parent))
    path = sandbox.profile("small")
    catalogue = Catalogue()
    before = catalogue.profile("small").description
    path.write_text(path.read_text().replace(before, "another one"))
    assert catalogue.profile("small").description == before
    assert (
        hashlib.sha256(catalogue.entry("small").seen[path] or b"").digest()
        != hashlib.sha256(path.read_bytes()).digest()
    )
    assert Catalogue().profile("small").description == "another one"
