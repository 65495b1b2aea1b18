"""Environments for targets that are not this machine, from their real wheels."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from builder.profile.variables import FOLKLORE, KNOWN
from tests.conftest import ROOT, once, real_environment
from tests.support import Sandbox, names_in, python_3_11


def cross(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `drydock build NAME --cross FOLDER` on the built-in profiles."""
    return subprocess.run(
        [sys.executable, "-m", "builder", "build", name, "--cross", str(folder)],
        env=real_environment(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module", params=["m4", "arm64", "mac"])
def materialised(request: pytest.FixtureRequest, shared: Path) -> tuple[str, Path]:
    """A built-in profile, materialised here for its own target."""

    def make(folder: Path) -> None:
        done = cross(request.param, folder)
        assert done.returncode == 0, done.stderr

    return request.param, once(shared / f"cross-{request.param}", make)


@pytest.mark.slow
def test_every_file_is_as_its_record_says(materialised: tuple[str, Path]) -> None:
    site = materialised[1] / "lib/python3.11/site-packages"
    count = 0
    for record in site.glob("*.dist-info/RECORD"):
        for row in record.read_text().splitlines():
            path, digest, _ = row.rsplit(",", 2)
            if digest:
                found = hashlib.sha256((site / path.strip('"')).read_bytes()).digest()
                assert digest == "sha256=" + base64.urlsafe_b64encode(found).rstrip(b"=").decode(), path
                count += 1
    assert count > 15_000


@pytest.mark.slow
def test_what_only_a_mac_reads_is_read_there_and_folklore_nowhere(materialised: tuple[str, Path]) -> None:
    name, folder = materialised
    words = names_in(folder / "lib/python3.11/site-packages")
    assert not words & set(FOLKLORE)
    # Apple's Accelerate is no package.
    macs = {name for name, variable in KNOWN.items() if "macos-arm64" in variable.on and variable.reader != "MLX"}
    macs.remove("VECLIB_MAXIMUM_THREADS")
    if name == "arm64":
        assert "PYTORCH_MPS_HIGH_WATERMARK_RATIO" not in words
    else:
        assert macs - words == set()


@pytest.mark.slow
def test_what_mlx_reads_on_a_mac_is_read_there(tmp_path: Path) -> None:
    assert cross("mlx", tmp_path / "mlx").returncode == 0
    natives = [path for path in (tmp_path / "mlx").rglob("*") if path.suffix in (".so", ".dylib")]
    text = b"".join(path.read_bytes() for path in natives)
    macs = [name for name, variable in KNOWN.items() if "macos-arm64" in variable.on and variable.reader == "MLX"]
    assert macs
    assert [name for name in macs if name.encode() not in text] == []
    assert [name for name in FOLKLORE if name.encode() in text] == []


@pytest.mark.slow
def test_native_code_is_the_targets(materialised: tuple[str, Path]) -> None:
    name, folder = materialised
    natives = [path for path in folder.rglob("*") if path.suffix in (".so", ".dylib") and path.is_file()]
    assert len(natives) > 30
    for path in natives:
        with path.open("rb") as file:
            head = file.read(20)
        if name == "arm64":
            assert head[:4] == b"\x7fELF", path
            assert head[18] == 183, path
        else:
            assert head[:4] in (b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe"), path


@pytest.mark.slow
def test_nothing_of_the_host_is_in_it(materialised: tuple[str, Path]) -> None:
    folder = materialised[1]
    assert not any((folder / "bin" / name).exists() for name in ("python", "python3", "activate"))
    assert not (folder / "pyvenv.cfg").exists()
    pythons = ["-e", python_3_11(), "-e", sys.base_prefix]
    found = subprocess.run(
        ["grep", "-rlF", "-e", str(folder.parent), *pythons, "-e", str(ROOT), str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout == ""
    assert not [path for path in folder.rglob("*") if path.is_symlink()]


@pytest.mark.slow
def test_no_wheel_needs_a_newer_system_than_the_profile_allows(materialised: tuple[str, Path]) -> None:
    name, folder = materialised
    for wheel in (folder / "lib/python3.11/site-packages").glob("*.dist-info/WHEEL"):
        tags = re.findall(r"^Tag: (.+)$", wheel.read_text(), re.MULTILINE)
        if name == "arm64":
            fits = [tag for tag in tags if re.search(r"-any$|-manylinux2014_aarch64$|-linux_aarch64$", tag)]
            minors = [int(minor) for tag in tags for minor in re.findall(r"manylinux_2_(\d+)_aarch64", tag)]
            assert fits or any(minor <= 28 for minor in minors), wheel
        else:
            # What the name and the binaries of torch 2.10.0 call 11.0, its WHEEL calls 110.0.
            majors = [int(major) for tag in tags for major in re.findall(r"macosx_(\d\d)0?_", tag)]
            assert any(tag.endswith("-any") for tag in tags) or any(major <= 14 for major in majors), wheel


@pytest.mark.slow
def test_the_patches_are_in(materialised: tuple[str, Path]) -> None:
    name, folder = materialised
    plan = json.loads((folder / ".drydock/manifest.json").read_text())["plan"]
    assert len(plan["patches"]) == (2 if name == "m4" else 0)
    for patch in plan["patches"]:
        for file in patch["files"]:
            content = (folder / "lib/python3.11/site-packages" / file["path"]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == file["postimage"] != file["preimage"]


@pytest.mark.slow
def test_a_second_time_does_nothing(materialised: tuple[str, Path]) -> None:
    name, folder = materialised
    again = cross(name, folder)
    assert again.returncode == 0
    assert f"already has {name}" in again.stderr


def test_a_folder_with_files_of_the_users_is_left_alone(sandbox: Sandbox) -> None:
    sandbox.profile("small")
    sandbox.drydock("lock", "small").succeeded()
    (sandbox.work / "mine").mkdir()
    (sandbox.work / "mine" / "thesis.txt").write_text("years of work")
    sandbox.drydock("build", "small", "--cross", "mine").failed(2, "mine is not empty")
    assert os.listdir(sandbox.work / "mine") == ["thesis.txt"]


def test_a_failed_cross_build_leaves_nothing(sandbox: Sandbox) -> None:
    sandbox.profile("small")
    sandbox.drydock("lock", "small").succeeded()
    sandbox.index.tamper = lambda _name, content: content + b"\0"
    sandbox.drydock("build", "small", "--cross", "out", env={"UV_CACHE_DIR": str(sandbox.root / "cold")}).failed(
        1, "Hash"
    )
    assert sorted(os.listdir(sandbox.work)) == ["profiles"]


def test_a_small_environment_is_materialised_without_an_interpreter(sandbox: Sandbox) -> None:
    sandbox.profile("small")
    sandbox.drydock("lock", "small").succeeded()
    sandbox.drydock("build", "small", "--cross", "out").succeeded()
    assert (sandbox.work / "out/lib/python3.11/site-packages/anchor/__init__.py").is_file()
    assert sorted(os.listdir(sandbox.work / "out")) == [".drydock", "bin", "lib"]
    assert os.listdir(sandbox.work / "out/bin") == []
