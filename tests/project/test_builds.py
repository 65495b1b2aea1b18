"""The accelerator decides which build of PyTorch is locked, and a lock of another build is refused."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.lock.model import dump, parse
from tests.support import Index, Sandbox, make_sdist, make_wheel

CPU = 'platform = "linux-x86_64"\naccelerator = "cpu"\nglibc = "2.28"'
CUDA = 'platform = "linux-x86_64"\naccelerator = "cuda"\ncuda = "{}"\nglibc = "2.28"'
MAC = 'platform = "macos-arm64"\naccelerator = "mps"\nmin-os = "14.0"'
TAG = "cp311-cp311-manylinux_2_28_x86_64"


@pytest.fixture
def desk(sandbox: Sandbox) -> Sandbox:
    """A desk whose default index has what PyTorch publishes there: the newest for CUDA 13, an older one for 12."""
    folder = sandbox.wheels
    make_wheel(folder, "nvidia-cuda-runtime", "13.2.86")
    make_wheel(folder, "nvidia-cudnn-cu13", "9.26")
    make_wheel(folder, "nvidia-cuda-runtime-cu12", "12.8.90")
    make_wheel(folder, "torch", "2.15.0", requires=["nvidia-cuda-runtime", "nvidia-cudnn-cu13"], tag=TAG)
    make_wheel(folder, "torch", "2.9.0", requires=["nvidia-cuda-runtime-cu12"], tag=TAG)
    make_wheel(folder, "torch", "2.15.0", tag="cp311-cp311-macosx_14_0_arm64")
    make_wheel(folder, "torchvision", "0.30.0", requires=["torch==2.15.0"], tag=TAG)
    make_wheel(folder, "trainer", "1.0", requires=["torch>=2"])
    make_wheel(folder, "uv", next(folder.glob("uv-*.whl")).name.split("-")[1], tag="py3-none-macosx_11_0_arm64")
    return sandbox


@pytest.fixture
def cpu_index(tmp_path: Path) -> Iterator[Index]:
    folder = tmp_path / "cpu"
    make_wheel(folder, "torch", "2.14.0+cpu", tag=TAG)
    make_wheel(folder, "torch", "2.13.0+cpu", tag=TAG)
    make_wheel(folder, "torchvision", "0.29.0+cpu", requires=["torch==2.14.0"], tag=TAG)
    make_wheel(folder, "anchor", "0.1")  # which PyTorch's index has too, in an old version
    with Index(folder) as index:
        yield index


@pytest.fixture
def cuda_index(tmp_path: Path) -> Iterator[Index]:
    folder = tmp_path / "cu128"
    make_wheel(folder, "torch", "2.11.0+cu128", requires=["nvidia-cuda-runtime-cu12==12.8.90"], tag=TAG)
    with Index(folder) as index:
        yield index


def profile(desk: Sandbox, target: str, *requires: str, more: str = "", name: str = "small") -> None:
    path = desk.profile(name)
    text = path.read_text().replace('platform = "linux-x86_64"\naccelerator = "cpu"\nglibc = "2.17"', target)
    path.write_text(text.replace('requires = ["anchor"]', f"requires = {['anchor', *requires]!r}\n{more}"))


def packages(desk: Sandbox, name: str = "small") -> dict[str, dict[str, Any]]:
    text = (desk.work / f"profiles/{name}.lock.toml").read_text()
    return {package["name"]: package for package in tomllib.loads(text)["packages"]}


def versions(desk: Sandbox, name: str = "small") -> dict[str, str]:
    return {package: row["version"] for package, row in packages(desk, name).items()}


def at(cpu: Index | None = None, cu128: Index | None = None) -> dict[str, str]:
    """Where PyTorch's indexes are; those that are not named cannot be reached."""
    places = {"PYTORCH_CPU": cpu, "PYTORCH_CU128": cu128, "PYTORCH_CU124": None}
    nowhere = "http://127.0.0.1:9/whl"
    return {f"DRYDOCK_INDEX_{name}": index.url if index is not None else nowhere for name, index in places.items()}


@pytest.mark.parametrize("requirement", ["torch>=2.5", "trainer"])
def test_a_processor_gets_the_build_for_one(desk: Sandbox, cpu_index: Index, requirement: str) -> None:
    """Also where only another package requires it; and nothing else comes from that index."""
    profile(desk, CPU, requirement)
    done = desk.drydock("lock", "small", env=at(cpu_index)).succeeded()
    found = packages(desk)
    assert versions(desk)["torch"] == "2.14.0+cpu"
    assert versions(desk)["anchor"] == "1.0"
    assert found["torch"]["index"] == "pytorch-cpu"
    assert found["torch"]["required-by"] == ["profile" if requirement.startswith("torch") else "trainer"]
    assert not any(name.startswith("nvidia") for name in found)
    assert f"{len(found)} packages" in done.stderr.splitlines()[-1]
    assert "http" not in (desk.work / "profiles/small.lock.toml").read_text()


def test_what_goes_with_torch_is_of_its_build(desk: Sandbox, cpu_index: Index) -> None:
    profile(desk, CPU, "torchvision")
    desk.drydock("lock", "small", env=at(cpu_index)).succeeded()
    assert versions(desk) == {"anchor": "1.0", "torch": "2.14.0+cpu", "torchvision": "0.29.0+cpu"}


def test_cuda_gets_the_build_for_its_release(desk: Sandbox, cuda_index: Index) -> None:
    profile(desk, CUDA.format("12.8"), "torch>=2.5")
    desk.drydock("lock", "small", env=at(cu128=cuda_index)).succeeded()
    assert versions(desk)["torch"] == "2.11.0+cu128"
    assert packages(desk)["torch"]["index"] == "pytorch-cu128"


@pytest.mark.parametrize(
    ("accelerator", "build", "triton"),
    [("rocm", "rocm7.1", "triton-rocm"), ("xpu", "xpu", "triton-xpu")],
)
def test_gpus_of_amd_and_intel_get_their_builds(
    desk: Sandbox, tmp_path: Path, accelerator: str, build: str, triton: str
) -> None:
    release = f'\nrocm = "{build.removeprefix("rocm")}"' if accelerator == "rocm" else ""
    target = f'platform = "linux-x86_64"\naccelerator = "{accelerator}"{release}\nglibc = "2.28"'
    make_wheel(tmp_path / build, "torch", f"2.11.0+{build}", requires=[f"{triton}==3.6"], tag=TAG)
    make_wheel(tmp_path / build, triton, "3.6", tag=TAG)
    profile(desk, target, "torch>=2.5", triton)
    variable = f"DRYDOCK_INDEX_PYTORCH_{build.upper().replace('.', '')}"
    with Index(tmp_path / build) as index:
        desk.drydock("lock", "small", env={variable: index.url}).succeeded()
    assert versions(desk) == {"anchor": "1.0", "torch": f"2.11.0+{build}", triton: "3.6"}
    assert {row["index"] for name, row in packages(desk).items() if name != "anchor"} == {
        f"pytorch-{build.replace('.', '')}"
    }
    profile(desk, target, "torch>=2.5")
    refused = desk.drydock("lock", "small", env={variable: "http://127.0.0.1:9/whl"}).failed(1)
    assert f'and small has accelerator = "{accelerator}"' in refused.stderr


def test_what_goes_with_torch_comes_from_where_the_profile_has_it_from(desk: Sandbox, cpu_index: Index) -> None:
    more = 'index = { torch = "mirror" }\n[indexes]\nmirror = "https://host.example/whl/cpu"'
    profile(desk, CPU, "torchvision", "torch", more=more)
    desk.drydock("lock", "small", env={**at(), "DRYDOCK_INDEX_MIRROR": cpu_index.url}).succeeded()
    assert {name: row.get("index") for name, row in packages(desk).items()} == {
        "anchor": None,
        "torch": "mirror",
        "torchvision": "mirror",
    }


def test_a_mac_takes_the_default_index(desk: Sandbox) -> None:
    profile(desk, MAC, "torch>=2.5")
    desk.drydock("lock", "small", env=at()).succeeded()
    assert versions(desk)["torch"] == "2.15.0"


@pytest.mark.slow
def test_it_builds_and_says_where_it_comes_from(desk: Sandbox, cpu_index: Index) -> None:
    """A script asks the right index, by its address or by the variable that moves it."""
    profile(desk, CPU, "torch")
    desk.drydock("lock", "small", env=at(cpu_index)).succeeded()
    desk.drydock("build", "small", env=at(cpu_index)).succeeded()
    assert any(path.endswith(".whl") and "torch" in path for path in cpu_index.requests)
    script = desk.script("small").read_text()
    assert '"pytorch-cpu": "https://' in script
    desk.drydock("run", "small", env=at(cpu_index)).succeeded()
    desk.drydock("export", "small", "--format", "sbom", env=at(cpu_index)).succeeded()
    desk.drydock("doctor", "small", env=at(cpu_index))


def test_the_profile_decides_where_it_says_an_index(desk: Sandbox, cpu_index: Index, cuda_index: Index) -> None:
    """By a name of PyTorch's, which needs no [indexes]; another build than the target's is refused with the line."""
    profile(desk, CPU, "torch", more='index = { torch = "pytorch-cu128" }')
    done = desk.drydock("lock", "small", env=at(cpu_index, cuda_index))
    done.failed(
        1,
        'torch 2.11.0+cu128 is for CUDA 12.8, and small has accelerator = "cpu"',
        '[packages] index = { torch = "pytorch-cpu" }',
        "profiles/small.toml",
    )
    assert not (desk.work / "profiles/small.lock.toml").exists()
    profile(desk, CPU, "torch", more='index = { torch = "pytorch-cpu" }')
    desk.drydock("lock", "small", env=at(cpu_index)).succeeded()


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["UV_FIND_LINKS", "DRYDOCK_CACHE"])
def test_a_wheel_of_the_build_from_elsewhere(desk: Sandbox, cpu_index: Index, tmp_path: Path, variable: str) -> None:
    """From a folder, or from a cache that `drydock push` has filled; found by its local version."""
    place = tmp_path / "place"
    if variable == "UV_FIND_LINKS":
        shutil.copytree(cpu_index.folder, place)
        make_wheel(place, "torch", "2.16.0", requires=["nvidia-cudnn-cu13"], tag=TAG)
        make_wheel(place, "torch", "2.16.0+cu130", tag=TAG)
    else:
        profile(desk, CPU, "torch")
        desk.drydock("lock", "small", env=at(cpu_index)).succeeded()
        desk.drydock("push", "small", str(place), env=at(cpu_index)).succeeded()
        (desk.work / "profiles/small.lock.toml").unlink()
    profile(desk, CPU, "torch")
    desk.drydock("lock", "small", env={**at(), variable: str(place)}).succeeded()
    assert versions(desk)["torch"] == "2.14.0+cpu"
    assert packages(desk)["torch"]["index"] == "pytorch-cpu"


def test_without_the_index_it_is_said_what_to_fetch(desk: Sandbox) -> None:
    profile(desk, CPU, "torch>=2.5")
    desk.drydock("lock", "small", env=at()).failed(
        1,
        "torch 2.15.0 is for CUDA 13",
        'and small has accelerator = "cpu"',
        f"torch-2.15.0+cpu-{TAG}.whl",
        "UV_FIND_LINKS=FOLDER",
        "DRYDOCK_INDEX_PYTORCH_CPU=URL",
    )
    assert not (desk.work / "profiles/small.lock.toml").exists()


def test_the_default_index_will_do_where_its_build_is_the_one(desk: Sandbox) -> None:
    profile(desk, CUDA.format("12.4"), "torch==2.9.0")
    desk.drydock("lock", "small", env=at()).succeeded()
    assert versions(desk)["torch"] == "2.9.0"
    assert "index" not in packages(desk)["torch"]


def test_a_cuda_without_a_build_is_explained(desk: Sandbox, cuda_index: Index) -> None:
    profile(desk, CUDA.format("12.8"), "torch>=2.12")
    desk.drydock("lock", "small", env=at(cu128=cuda_index)).failed(
        1,
        "torch 2.15.0 is for CUDA 13",
        "small is for CUDA 12.8",
        "only torch==2.11.0+cu128 is available",
        '[target] cuda = "13.2"',
    )


@pytest.mark.parametrize(
    ("target", "requirement", "words"),
    [
        (CPU, "jax[cuda13]", ["jax-cuda13-plugin 1.0 is for CUDA 13", '[packages] requires = ["jax"]']),
        (CUDA.format("12.8"), "jax[cuda13]", ["small is for CUDA 12.8", '[packages] requires = ["jax[cuda12]"]']),
        (CPU, "boost", ["nvidia-cudnn-cu13", "boost brings it", "python_version < '3'"]),
        (CUDA.format("12.8"), "boost", ["is for CUDA 13", '[target] cuda = "13.0"', "an older boost"]),
        (CPU, "odd", ["a GPU of AMD"]),
    ],
)
def test_wheels_that_contradict_the_target_are_refused(
    desk: Sandbox, target: str, requirement: str, words: list[str]
) -> None:
    for major in ("12", "13"):
        make_wheel(desk.wheels, f"jax-cuda{major}-plugin", "1.0")
    extras = [f"jax-cuda{major}-plugin; extra == 'cuda{major}'" for major in ("12", "13")]
    make_wheel(
        desk.wheels, "jax", "1.0", requires=extras, metadata=["Provides-Extra: cuda12", "Provides-Extra: cuda13"]
    )
    make_wheel(desk.wheels, "boost", "1.0", requires=["nvidia-cudnn-cu13"])
    make_wheel(desk.wheels, "odd", "1.0+rocm6.2")
    profile(desk, target, requirement)
    desk.drydock("lock", "small", env=at()).failed(1, *words)
    assert not (desk.work / "profiles/small.lock.toml").exists()


def test_a_reason_lets_it_pass(desk: Sandbox) -> None:
    make_wheel(desk.wheels, "boost", "1.0", requires=["nvidia-cudnn-cu13"])
    override = "[[packages.overrides]]\nrequirement = \"nvidia-cudnn-cu13; python_version < '3'\"\nreason = 'no GPU'\n"
    profile(desk, CPU, "boost", more=override)
    desk.drydock("lock", "small", env=at()).succeeded()
    assert set(versions(desk)) == {"anchor", "boost"}


def test_much_to_fetch_is_said_before_it_is_fetched(locked: Sandbox) -> None:
    path = locked.work / "profiles/small.lock.toml"
    lock = parse(path.read_text(), str(path), "small")
    large = [package.model_copy(update={"size": 2_345_678_901}) for package in lock.packages]
    path.write_text(dump(lock.model_copy(update={"packages": large})))
    assert "small: 1 package, 2,346 MB to fetch" in locked.drydock("build", "small").succeeded().stderr
    shutil.rmtree(locked.store)
    assert "to fetch" not in locked.drydock("build", "small").succeeded().stderr  # it was unpacked before


def test_a_lock_made_before_stays_as_it_is(desk: Sandbox, cpu_index: Index) -> None:
    """What decides the index is in the digest already."""
    profile(desk, MAC, "torch")
    desk.drydock("lock", "small").succeeded()
    desk.drydock("lock", "--check", "small").succeeded()
    profile(desk, CPU, "torch==2.13.0")
    desk.drydock("lock", "small", env=at(cpu_index)).succeeded()
    profile(desk, CPU)  # no more, and it does not stay for having been there
    desk.drydock("lock", "small", env=at(cpu_index)).succeeded()
    assert set(versions(desk)) == {"anchor"}
    profile(desk, CPU, "torch==2.13.0")
    desk.drydock("lock", "small", env=at(cpu_index)).succeeded()
    before = (desk.work / "profiles/small.lock.toml").read_bytes()
    profile(desk, CPU, "torch")
    desk.drydock("lock", "small", env=at(cpu_index)).succeeded()
    assert versions(desk)["torch"] == "2.13.0+cpu"  # kept
    assert before != (desk.work / "profiles/small.lock.toml").read_bytes()


@pytest.mark.slow
def test_where_the_index_is_out_of_reach_the_rest_is_still_asked_for(desk: Sandbox) -> None:
    """The default index's newest torch is for another CUDA: torch is taken as it is locked."""
    profile(desk, CUDA.format("12.8"), "torch>=2.5,<2.15")
    desk.drydock("lock", "small", env=at()).succeeded()
    assert versions(desk)["torch"] == "2.9.0"
    make_wheel(desk.wheels, "chess", "1.0")
    make_sdist(desk.wheels, "chess", "2.0", {"setup.py": "from setuptools import setup\nsetup()\n"})
    profile(desk, CUDA.format("12.8"), "torch>=2.5,<2.15", "chess")
    words = "chess 1.0 (another major version) instead of 2.0"  # a step back is said there too
    desk.drydock("lock", "small", env=at()).failed(1, words)
    profile(desk, CUDA.format("12.8"), "torch>=2.5,<2.15")
    make_wheel(desk.wheels, "anchor", "7.0")
    done = desk.drydock("outdated", "small", env=at()).succeeded()
    assert [line.split() for line in done.stdout.splitlines()] == [["anchor", "1.0", "7.0", "7.0"]]
    assert "torch: as locked, as no index at hand has newer ones for the target" in done.stderr


def test_a_library_of_an_older_cuda_that_no_framework_brings_is_no_contradiction(desk: Sandbox) -> None:
    """As a cutlass brings nvidia-cutlass-dsl-libs-cu12; torch's own have to be for the target."""
    make_wheel(desk.wheels, "cutter", "1.0", requires=["nvidia-cutter-libs-cu12"])
    make_wheel(desk.wheels, "nvidia-cutter-libs-cu12", "4.2")
    profile(desk, CUDA.format("13.0"), "torch", "cutter")
    desk.drydock("lock", "small", env=at()).succeeded()
    assert versions(desk)["nvidia-cutter-libs-cu12"] == "4.2"
    profile(desk, CUDA.format("13.0"), "torch<2.15", "cutter")
    desk.drydock("lock", "small", env=at()).failed(1, "torch 2.9.0 is for CUDA 12.8, and small is for CUDA 13.0")
    profile(desk, CUDA.format("11.8"), "cutter")
    desk.drydock("lock", "small", env=at()).failed(1, "nvidia-cutter-libs-cu12 4.2 is for CUDA 12")


def test_an_index_that_nobody_answers_at_is_not_waited_for(desk: Sandbox) -> None:
    """uv tries again for seconds; where nothing takes a connection, it is asked once for each profile."""
    profile(desk, CUDA.format("12.8"), "torch<2.15", name="first")
    profile(desk, CUDA.format("12.8"), "torch<2.15", name="second")
    asked = desk.root / "asked"
    uv = desk.root / "uv"
    uv.write_text(f'#!/bin/sh\necho "$UV_HTTP_RETRIES $*" >>{asked}\nexec {desk.environment["DRYDOCK_UV"]} "$@"\n')
    uv.chmod(0o755)
    desk.drydock("lock", env={**at(), "DRYDOCK_UV": str(uv), "UV_HTTP_RETRIES": "1"}).succeeded()
    lines = asked.read_text().splitlines()
    tries = [line.split()[0] for line in lines if "/packages-" in line]
    assert tries == ["0", "1", "0", "1"]  # the index, and what has no index of its own
    assert sum("/files-" in line for line in lines) == 2  # uv's own wheel; a resolution has the files of all else


@pytest.mark.slow
@pytest.mark.parametrize(("only", "cuda"), [("vision<1", "13.0"), ("older", "12.8")])
def test_an_import_asks_for_which_cuda_the_packages_are(desk: Sandbox, only: str, cuda: str) -> None:
    """Where no file says it, only the metadata of what is required does."""
    make_wheel(desk.wheels, "older", "1.0", requires=["torch==2.9.0"])
    make_wheel(desk.wheels, "vision", "0.9", requires=["torch==2.15.0"])
    (desk.work / "requirements.txt").write_text(f"{only}\n")
    target = ["--platform", "linux-x86_64", "--accelerator", "cuda", "--name", "small"]
    nowhere = {"DRYDOCK_INDEX_PYTORCH_CU130": "http://127.0.0.1:9/whl"}
    done = desk.drydock("import", "requirements.txt", *target, env=at() | nowhere).succeeded()
    assert f'cuda = "{cuda}"' in (desk.work / "profiles/small.toml").read_text()
    assert "is a guess" not in done.stderr
    assert not (desk.work / "profiles/small.lock.toml").exists()
    desk.drydock("lock", "small", env=at() | nowhere).succeeded()
