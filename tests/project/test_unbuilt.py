"""Packages without a wheel: all said at once, allowed by one option, and never stepped back from in silence."""

from __future__ import annotations

import os
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

from builder.lock.sdist import of
from tests.support import Sandbox, make_sdist, make_wheel

MODERN = '[build-system]\nrequires = ["setuptools>=61", "{}"]\nbuild-backend = "setuptools.build_meta"\n'


def require(desk: Sandbox, *requirements: str, more: str = "") -> Path:
    """The minimal profile, with other requirements, and a comment to keep."""
    path = desk.profile("small")
    text = path.read_text().replace('requires = ["anchor"]', f"requires = {list(requirements)!r}  # of mine\n{more}")
    path.write_text(text)
    return path


def sdist(desk: Sandbox, name: str, version: str, *requires: str, files: dict[str, str] | None = None) -> None:
    """A source that leaves a note where it is run, with what it requires as setuptools writes it down."""
    ran = f"open({str(desk.root / 'ran')!r}, 'a').close()\n"
    setup = f"from setuptools import setup\nsetup(name={name!r}, version={version!r}, py_modules=[{name!r}]"
    egg = f"{name}.egg-info/requires.txt"
    texts = {"setup.py": f"{ran}{setup}, install_requires={list(requires)!r})\n", egg: "\n".join(requires) + "\n"}
    make_sdist(desk.wheels, name, version, {**texts, **(files or {})})


def lock(desk: Sandbox) -> dict[str, str]:
    """Package to locked file."""
    found = tomllib.loads((desk.work / "profiles/small.lock.toml").read_text())
    return {package["name"]: package["file"] for package in found["packages"]}


def test_all_that_has_no_wheel_is_said_at_once_and_nothing_of_it_is_run(sandbox: Sandbox) -> None:
    sdist(sandbox, "rope", "1.0", "knot>=1")
    sdist(sandbox, "knot", "1.0", files={"pyproject.toml": MODERN.format("cython<4"), "knot/fast.pyx": ""})
    sdist(sandbox, "crab", "1.0", files={"pyproject.toml": '[build-system]\nrequires = ["maturin>=1"]\n'})
    sdist(sandbox, "glow", "1.0", files={"setup.py": "import torch\nfrom setuptools import setup\nsetup()\n"})
    tag, system = f"manylinux_2_39_{os.uname().machine}", 'glibc = "2.39"'
    if sys.platform == "darwin":
        tag, system = "macosx_99_0_arm64", 'min-os = "99.0"'
    make_wheel(sandbox.wheels, "crab", "1.0", tag=f"py3-none-{tag}")
    require(sandbox, "anchor", "rope", "crab", "glow")
    said = sandbox.drydock("lock", "small").failed(1, "4 packages without a wheel", "drydock lock small --allow-builds")
    for line in (
        'rope 1.0: rope = ["setuptools"]\n',
        'knot 1.0 (for rope): knot = ["setuptools>=61", "cython<4"]  # it needs a compiler',
        f'crab 1.0: crab = ["maturin>=1"]  # it needs Rust; or its wheel for a newer system: [target] {system}',
        'glow 1.0: glow = ["setuptools", "torch"]  # it needs CUDA, for a GPU',
    ):
        assert line in said.stderr
    assert not (sandbox.root / "ran").exists()
    assert not (sandbox.work / "profiles/small.lock.toml").exists()


@pytest.mark.slow
def test_what_is_added_and_has_no_wheel_is_said_and_nothing_is_changed(sandbox: Sandbox) -> None:
    path = require(sandbox, "anchor")
    sandbox.drydock("lock", "small").succeeded()
    before = path.read_text()
    sdist(sandbox, "rope", "1.0")
    sdist(sandbox, "rope", "2.0", "nowhere")  # as mamba-ssm requires triton, which no Mac has
    sandbox.drydock("add", "rope").failed(1, 'rope 1.0: rope = ["setuptools"]', "and add it again")
    assert path.read_text() == before


@pytest.mark.slow
def test_builds_that_are_allowed_are_written_into_the_profile_and_taken_back(
    sandbox: Sandbox, setuptools: Path
) -> None:
    shutil.copy(setuptools, sandbox.wheels)
    sdist(sandbox, "rope", "1.0", "knot")
    sdist(sandbox, "knot", "1.0")
    path = require(sandbox, "rope")
    before = path.read_text()
    sandbox.drydock("lock", "small", "--allow-builds=rope").failed(
        1, "1 package without a wheel", "knot 1.0 (for rope)"
    )
    sandbox.drydock("lock", "--allow-builds=rope,knott", "small").failed(
        2, "knott needs no build", "did you mean knot?"
    )
    sandbox.drydock("lock", "--allow-builds", "small", "--dry-run").succeeded()
    assert path.read_text() == before
    assert not (sandbox.work / "profiles/small.lock.toml").exists()
    sandbox.drydock("lock", "--allow-builds", "small").succeeded()
    assert lock(sandbox) == {"knot": "knot-1.0.tar.gz", "rope": "rope-1.0.tar.gz"}
    assert "# of mine" in path.read_text()
    assert tomllib.loads(path.read_text())["packages"]["build"] == {"rope": ["setuptools"], "knot": ["setuptools"]}
    sandbox.drydock("lock", "small", "--check").succeeded()
    sandbox.drydock("undo").succeeded()
    assert path.read_text() == before
    assert not (sandbox.work / "profiles/small.lock.toml").exists()


@pytest.mark.slow
def test_a_large_step_back_is_an_error_unless_it_is_meant(sandbox: Sandbox, setuptools: Path) -> None:
    shutil.copy(setuptools, sandbox.wheels)
    make_wheel(sandbox.wheels, "hydra", "0.9")
    make_wheel(sandbox.wheels, "hydra", "1.3", requires=["antler==4.*"])
    sdist(sandbox, "antler", "4.9")
    require(sandbox, "hydra")
    words = "hydra 0.9 (another major version) instead of 1.3, which requires antler 4.9, which has no wheel"
    sandbox.drydock("lock", "small").failed(1, words, 'antler = ["setuptools"]', '"hydra==0.9"')
    assert not (sandbox.work / "profiles/small.lock.toml").exists()
    require(sandbox, "hydra<1")
    assert "instead of" not in sandbox.drydock("lock", "small").succeeded().stderr
    assert lock(sandbox) == {"hydra": "hydra-0.9-py3-none-any.whl"}
    require(sandbox, "hydra>=1")
    sandbox.drydock("lock", "small", "--allow-builds").succeeded()
    assert lock(sandbox) == {"hydra": "hydra-1.3-py3-none-any.whl", "antler": "antler-4.9.tar.gz"}


def test_a_step_back_for_an_older_version_of_what_is_locked_at_its_newest(sandbox: Sandbox) -> None:
    """As hydra-core 1.3 requires antlr4-python3-runtime 4.9, which has no wheel; the 4.13 that others take has one."""
    make_wheel(sandbox.wheels, "hydra", "0.9")
    make_wheel(sandbox.wheels, "hydra", "1.3", requires=["antler==4.*"])
    make_wheel(sandbox.wheels, "antler", "5.0")
    sdist(sandbox, "antler", "4.9")
    require(sandbox, "hydra", "antler")
    words = "hydra 0.9 (another major version) instead of 1.3, which requires antler 4.9, which has no wheel"
    sandbox.drydock("lock", "small").failed(1, words)


@pytest.mark.parametrize(("day", "far"), [("2020-06-01", ""), ("2021-06-01", " (517 days older)")])
def test_a_small_step_back_is_said(sandbox: Sandbox, day: str, far: str) -> None:
    make_wheel(sandbox.wheels, "chess", "1.10")
    sdist(sandbox, "chess", "1.11")
    sandbox.index.uploaded["chess-1.11.tar.gz"] = f"{day}T00:00:00Z"
    require(sandbox, "chess")
    done = sandbox.drydock("lock", "small")
    assert f"chess 1.10{far} instead of 1.11, which has no wheel" in done.stderr
    if far:
        done.failed(1, '"chess==1.10"')
    else:
        assert (
            "warning: chess 1.10 instead of 1.11, which has no wheel; to have it built: [packages.build] ch"
            in done.stderr
        )
        done.succeeded()
        assert lock(sandbox) == {"chess": "chess-1.10-py3-none-any.whl"}
    assert not (sandbox.root / "ran").exists()


def test_a_wheel_that_fits_is_no_step_back(sandbox: Sandbox) -> None:
    make_wheel(sandbox.wheels, "chess", "1.0", metadata=["Requires-Python: >=3.9"])
    make_wheel(sandbox.wheels, "chess", "2.0", metadata=["Requires-Python: >=3.13"])
    sdist(sandbox, "chess", "1.0")
    require(sandbox, "chess<3")
    assert "instead of" not in sandbox.drydock("lock", "small").succeeded().stderr
    assert lock(sandbox) == {"chess": "chess-1.0-py3-none-any.whl"}


def test_a_source_that_is_broken_is_said_and_a_wheel_taken(sandbox: Sandbox) -> None:
    make_wheel(sandbox.wheels, "chess", "1.10")
    (sandbox.wheels / "chess-1.11.tar.gz").write_bytes(b"not a tar")
    require(sandbox, "chess")
    said = sandbox.drydock("lock", "small").succeeded().stderr
    assert "newer versions of chess were passed over: chess-1.11.tar.gz cannot be read: it is not" in said


def test_requirements_are_read_from_what_setuptools_leaves() -> None:
    egg = 'six\n\n[:python_version < "3"]\nfutures\n\n[fast:sys_platform == "linux"]\nuvloop\n'
    found = of(["x-1/setup.py"], {"x.egg-info/requires.txt": egg, "setup.py": "import os\nimport numpy, torch.utils\n"})
    assert found.requires == (
        "six",
        'futures ; (python_version < "3")',
        'uvloop ; extra == "fast" and (sys_platform == "linux")',
    )
    assert found.undeclared == ("numpy", "torch")


@pytest.mark.slow
def test_what_builds_a_package_is_installed_even_where_it_does_not_declare_it(
    sandbox: Sandbox, setuptools: Path, tmp_path: Path
) -> None:
    shutil.copy(setuptools, sandbox.wheels)
    setup = "import anchor\nfrom setuptools import setup\nsetup(name='glow', version='1.0', py_modules=['glow'])\n"
    make_sdist(sandbox.wheels, "glow", "1.0", {"setup.py": setup})
    make_wheel(sandbox.wheels, "anchor", "2.0")
    require(sandbox, "glow", "anchor<2", more='[packages.build]\nglow = ["setuptools", "anchor"]\n')
    sandbox.drydock("lock", "small").succeeded()
    found = tomllib.loads((sandbox.work / "profiles/small.lock.toml").read_text())
    assert [package.get("build") for package in found["packages"]] == [None, ["anchor"]]
    # The same version as the one that it is used with.
    assert [(tool["name"], tool["version"]) for tool in found["build-requires"]] == [
        ("anchor", "1.0"),
        ("setuptools", "80.9.0"),
    ]
    env = Path(sandbox.drydock("build", "small").succeeded().stdout.strip())
    assert (env / "lib/python3.11/site-packages/glow.py").is_file()
    pushed = sandbox.drydock("push", "small", str(tmp_path / "mirror")).succeeded()
    assert list((tmp_path / "mirror").rglob("glow-1.0-*.whl")), pushed.stderr


def test_where_neither_builds_nor_versions_help_all_without_a_wheel_are_named_at_once(sandbox: Sandbox) -> None:
    """As a requirements file of torch 1.7 and others as old, which have wheels for an older Python."""
    for name in ("torchy", "visiony"):
        make_wheel(sandbox.wheels, name, "1.7", tag="cp39-none-any")
        make_wheel(sandbox.wheels, name, "2.0")
    sdist(sandbox, "rope", "1.0")
    require(sandbox, "anchor", "torchy==1.7", "rope==1.0", "visiony<2", "rope>5; sys_platform == 'win32'")
    said = sandbox.drydock("lock", "small").failed(1, "3 requirements without a wheel")
    for line in (
        "  torchy==1.7: torchy==1.7 has no wheels with a matching Python ABI tag",
        "  visiony<2: visiony==1.7 has no wheels with a matching Python ABI tag",
        "  rope==1.0: its source would have to be built\n",
    ):
        assert line in said.stderr
    sdist(sandbox, "visiony", "1.7")
    require(sandbox, "anchor", "torchy==1.7", "visiony<2")
    sandbox.drydock("lock", "small").failed(1, '[python] version = "3.9"')


def test_sources_of_what_no_index_has_are_not_looked_for(sandbox: Sandbox) -> None:
    require(sandbox, "roppe")
    done = sandbox.drydock("lock", "small").failed(1, "roppe was not found in the package registry")
    assert "looking at" not in done.stderr
