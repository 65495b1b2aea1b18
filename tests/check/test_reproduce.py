"""`drydock build NAME --check`: a second build, compared byte by byte."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from builder.project.catalogue import Catalogue
from tests.conftest import ROOT, real_environment
from tests.support import Sandbox, make_sdist
from tests.support.sandbox import MINIMAL_PROFILE

SITE = "lib/python3.11/site-packages"


def test_a_build_that_gives_the_same_bytes_says_so(locked: Sandbox) -> None:
    done = locked.drydock("build", "small", "--check").succeeded()
    assert "built twice, " in done.stderr
    assert done.stderr.count("[4/4]") == 2
    [name] = locked.environments()
    assert done.stdout == f"{locked.store / name}\n"


BACKEND = """\
import base64, hashlib, time, zipfile
def sha256(text):
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
def build_wheel(folder, config_settings=None, metadata_directory=None):
    info = "odd-1.0.dist-info"
    files = {
        "odd.py": f"when = {time.time_ns()}\\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\\nName: odd\\nVersion: 1.0\\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\\nGenerator: odd\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    rows = [f"{path},{sha256(text)},{len(text)}" for path, text in files.items()]
    files[f"{info}/RECORD"] = "\\n".join([*rows, f"{info}/RECORD,,", ""])
    with zipfile.ZipFile(f"{folder}/odd-1.0-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
    return "odd-1.0-py3-none-any.whl"
"""
PYPROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


@pytest.mark.slow
def test_what_differs_is_named(sandbox: Sandbox) -> None:
    """A source distribution whose build writes the time, and a file that somebody changed."""
    make_sdist(sandbox.wheels, "odd", "1.0", {"pyproject.toml": PYPROJECT, "backend.py": BACKEND})
    path = sandbox.profile("small")
    path.write_text(path.read_text().replace('["anchor"]', '["anchor", "odd"]\n[packages.build]\nodd = []\n'))
    sandbox.drydock("lock", "small").succeeded()
    env = Path(sandbox.drydock("build", "small").succeeded().stdout.strip())
    differs = sandbox.drydock("build", "small", "--check").failed(1, "differs in 2 files")
    assert f"{SITE}/odd.py differs" in differs.stdout
    assert f"{SITE}/odd-1.0.dist-info/RECORD differs" in differs.stdout
    next(env.rglob("anchor/__pycache__/*.pyc")).chmod(0o644)
    differs = sandbox.drydock("build", "small", "--check").failed(1, "differs in ")
    assert ".pyc differs: mode 100644, then 100444" in differs.stdout
    env.joinpath("bin/pip").chmod(0o644)
    env.joinpath("bin/pip").write_text("#!/bin/sh\n")
    differs = sandbox.drydock("build", "small", "--check").failed(1, "differs in ")
    assert "bin/pip was changed" in differs.stdout
    assert sandbox.environments() == [env.name]


def test_it_does_not_go_with_a_dry_run(locked: Sandbox) -> None:
    locked.drydock("build", "small", "--check", "--dry-run").failed(2, "do not go together")


def check_real(name: str, **variables: str) -> None:
    """Build a profile of real packages a second time: no byte differs."""
    done = subprocess.run(
        [sys.executable, "-m", "builder", "build", name, "--check"],
        env={**real_environment(), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.count("\n")) == (0, 1), done.stdout + done.stderr


@pytest.mark.slow
def test_the_profiles_of_this_machine_are_reproducible(drydock_home: Path, swarm_env: Path) -> None:
    """`cpu-swarm` has the files of `cpu` too, torch among them, and the same patches; the next test has the others."""
    check_real("cpu-swarm", DRYDOCK_HOME=str(drydock_home))


@pytest.mark.slow
def test_what_cpu_alone_has_is_reproducible(drydock_home: Path, tmp_path: Path) -> None:
    """An environment of those packages, instead of all of `cpu`."""
    built_in = Catalogue([ROOT / "profiles"])
    cpu, swarm = built_in.lock("cpu"), built_in.lock("cpu-swarm")
    assert (cpu.patches, cpu.python) == (swarm.patches, swarm.python)
    both = {package.sha256 for package in swarm.packages}
    alone = [f"{package.name}=={package.version}" for package in cpu.packages if package.sha256 not in both]
    assert len(alone) < 5, f"{alone}: check cpu itself"
    if not alone:
        pytest.skip("cpu-swarm has all files of cpu")
    # A list of strings is the same in JSON and in TOML.
    text = MINIMAL_PROFILE.format(name="alone", head="", tail="").replace('["anchor"]', json.dumps(alone))
    (tmp_path / "alone.toml").write_text(text)
    variables = {"DRYDOCK_HOME": str(drydock_home), "DRYDOCK_PROFILES": str(tmp_path)}
    lock = [sys.executable, "-m", "builder", "lock", "alone"]
    subprocess.run(lock, env={**real_environment(), **variables}, check=True)
    assert {package.sha256 for package in cpu.packages} - both <= {
        package.sha256 for package in Catalogue([tmp_path]).lock("alone").packages
    }
    check_real("alone", **variables)
