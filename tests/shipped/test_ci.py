"""What others put into their own checks: the pre-commit hook, and the example for GitHub Actions, as they stand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.support import Sandbox, python_3_11, tool

EXAMPLE = ROOT / "examples/github-actions.yml"
TEST = """\
import anchor, unittest
class T(unittest.TestCase):
    def test_it(self): self.assertEqual(anchor.version, '1.0')
"""


def test_without_names_it_is_the_profiles_of_the_project(locked: Sandbox) -> None:
    locked.drydock("lock", "--check").succeeded()
    assert locked.drydock("render").succeeded().stderr.startswith("small: ")
    assert [path.name for path in (locked.work / "generated").iterdir()] == ["small"]
    # A check that looks at the built-in ones instead would be green in the wrong folder.
    locked.drydock("lock", "--check", env={"DRYDOCK_PROFILES": "nowhere"}).failed(2, "no profile of a project here")


@pytest.mark.slow
def test_the_pre_commit_hook_finds_what_is_stale(sandbox: Sandbox) -> None:
    """As `pre-commit try-repo` runs it: this repository is cloned and installed by pip."""
    project = own(sandbox)
    command = [*tool("pre-commit==4.7.0"), "pre-commit", "try-repo", str(ROOT), "drydock-check", "--all-files"]

    def hook(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *arguments],
            cwd=project,
            env={
                **os.environ,
                "HOME": str(sandbox.home),
                "PIP_NO_COMPILE": "false",  # pip reads it so: it compiles nothing, of which half is never run
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=450,
        )

    git(project, "init", "-q")
    git(project, "add", ".")
    good = hook()
    assert good.returncode == 0, good.stdout + good.stderr
    assert "Passed" in good.stdout
    script = next((project / "generated/cpu").glob("run_*.sh"))
    script.write_text(script.read_text() + "\n")
    bad = hook()
    assert bad.returncode == 1
    assert "hint: drydock render cpu" in bad.stdout


@pytest.mark.slow
def test_the_example_for_github_actions_is_a_workflow_and_its_steps_run(sandbox: Sandbox, tmp_path: Path) -> None:
    check = [*tool("check-jsonschema==0.37.1"), "check-jsonschema", "--builtin-schema", "vendor.github-workflows"]
    subprocess.run([*check, str(EXAMPLE)], check=True, timeout=300)
    parse = "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)"
    parsed = subprocess.run([*tool("pyyaml"), "python", "-c", parse, str(EXAMPLE)], check=True, capture_output=True)
    jobs: dict[str, Any] = json.loads(parsed.stdout)["jobs"]
    project = own(sandbox)
    (project / "test_it.py").write_text(TEST)
    # Python as setup-python gives it, and Drydock as it will be on PyPI.
    subprocess.run([python_3_11(), "-m", "venv", str(tmp_path / "python")], check=True)
    build = [
        sandbox.environment["DRYDOCK_UV"],
        "build",
        "--quiet",
        "--wheel",
        "--out-dir",
        str(tmp_path / "dist"),
        str(ROOT),
    ]
    subprocess.run(build, check=True, timeout=300)
    links = " ".join(filter(None, [str(tmp_path / "dist"), os.environ.get("PIP_FIND_LINKS")]))
    path = f"{tmp_path / 'python/bin'}:/usr/bin:/bin"
    # UV_* of the sandbox: its own index, for the packages of the environment.
    environment = {**os.environ, **sandbox.environment, "PATH": path, "PIP_FIND_LINKS": links}
    ran = 0
    for job in jobs.values():
        for step in job["steps"]:
            if "run" in step:
                shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]  # as a runner does
                done = subprocess.run(shell, cwd=project, env=environment, capture_output=True, text=True, check=False)
                assert done.returncode == 0, f"{step}\n{done.stdout}\n{done.stderr}"
                ran += 1
    assert ran == 5
    assert "Ran 1 test" in done.stderr


def own(sandbox: Sandbox) -> Path:
    """A project with a profile `cpu` of its own, locked and rendered."""
    sandbox.profile("cpu")
    sandbox.drydock("lock", "cpu").succeeded()
    sandbox.drydock("render").succeeded()
    return sandbox.work


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True)
