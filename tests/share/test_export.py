"""`drydock export`: what it writes installs, with pip and with uv, the very files of the lock."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.pylock import Pylock
from uv import find_uv_bin

from builder.errors import UsageError
from builder.project.catalogue import Catalogue
from builder.share.export import save
from builder.share.export.licences import Licence, licence
from builder.share.export.requirements import requirements
from builder.share.export.sbom import sbom
from builder.uv import find_links
from tests.check.test_reproduce import BACKEND, PYPROJECT
from tests.conftest import ROOT, desk
from tests.project.test_lock import profile
from tests.support import Index, Result, Sandbox, make_sdist, make_wheel, python_3_11
from tests.support.packages import diff

PATCH = diff("version = '1.0'\n", "version = '1.0 mended'\n", "anchor/__init__.py")
PATCHES = """
[[patches]]
package = "anchor"
versions = "==1.0"
file = "a.patch"
proof = "proof.py"
why = "It said 1.0, <and> was not."
[env]
OMP_NUM_THREADS = "2"
"""


def furnish(desk: Sandbox, other: Index) -> None:
    """Put the profile `fleet` on a desk: a patched package, and one with an index of its own.

    That index has another `anchor` too, which nobody has asked it for.
    """
    make_wheel(other.folder, "buoy", "2.0+red", requires=["anchor"], metadata=["License-Expression: mit or apache-2.0"])
    make_wheel(other.folder, "anchor", "9.0")
    make_wheel(desk.wheels, "buoy", "1.0")
    desk.file("a.patch", PATCH)
    desk.file("proof.py", "import anchor\nassert anchor.version == '1.0 mended'\n")
    tables = f'index = {{ buoy = "red" }}\n[indexes]\nred = "{other.url}"'
    profile(desk, "fleet", "anchor", "buoy", packages=tables, patch=PATCHES)


@pytest.fixture(scope="session")
def fleet_lock(tmp_path_factory: pytest.TempPathFactory, uv_cache: Path) -> str:
    """The lock of `fleet`: it knows no URL, so it is the same on every desk."""
    root = tmp_path_factory.mktemp("fleet")
    (root / "other").mkdir()
    with desk(root, uv_cache) as made, Index(root / "other") as other:
        furnish(made, other)
        made.drydock("lock", "fleet").succeeded()
        return (made.work / "profiles/fleet.lock.toml").read_text()


@pytest.fixture
def fleet(sandbox: Sandbox, tmp_path: Path, fleet_lock: str) -> Iterator[Sandbox]:
    """A desk with the profile `fleet`, locked."""
    (tmp_path / "other").mkdir()
    with Index(tmp_path / "other") as other:
        furnish(sandbox, other)
        sandbox.file("fleet.lock.toml", fleet_lock)
        yield sandbox


def venv(at: Sandbox) -> Path:
    """An empty virtual environment; gives its Python."""
    folder = at.root / "venv"
    at.run([at.environment["DRYDOCK_UV"], "venv", "-q", "-p", python_3_11(), str(folder)]).succeeded()
    return folder / "bin/python"


def pip(at: Sandbox, python: Path, *arguments: str) -> Result:
    settings = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": at.index.url, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return at.run([sys.executable, "-m", "pip", "--python", str(python), *arguments], env=settings)


def uv(at: Sandbox, python: Path, *arguments: str) -> Result:
    uv = at.environment["DRYDOCK_UV"]
    return at.run([uv, "pip", "sync", "--no-cache", "--python", str(python), *arguments])


def versions(at: Sandbox, python: Path) -> list[str]:
    code = "import anchor, buoy; print(anchor.version, buoy.version)"
    return at.run([str(python), "-c", code]).succeeded().stdout.split()


# --- requirements --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_the_requirements_install_as_they_are(fleet: Sandbox, installer: str) -> None:
    done = fleet.drydock("export", "fleet", "--format", "requirements", "-o", "fleet.txt").succeeded()
    assert done.stdout == "fleet.txt\n"
    python = venv(fleet)
    if installer == "pip":
        pip(fleet, python, "install", "--require-hashes", "--no-deps", "-r", "fleet.txt").succeeded()
    else:
        uv(fleet, python, "--require-hashes", "fleet.txt").succeeded()
    assert versions(fleet, python) == ["1.0", "2.0+red"]


@pytest.mark.slow
def test_another_file_of_the_same_name_is_not_installed(fleet: Sandbox) -> None:
    fleet.drydock("export", "fleet", "--format", "requirements", "-o", "fleet.txt").succeeded()
    make_wheel(fleet.wheels, "anchor", "1.0", files={"anchor.py": "version = 'of somebody else'\n"})
    python = venv(fleet)
    assert "hash" in pip(fleet, python, "install", "--require-hashes", "-r", "fleet.txt", "--no-deps").stderr.lower()
    assert "hash" in uv(fleet, python, "--require-hashes", "fleet.txt").stderr.lower()


def test_what_cannot_be_carried_is_said(fleet: Sandbox) -> None:
    done = fleet.drydock("export", "fleet", "--format", "requirements").succeeded()
    assert "warning: not carried: a.patch: anchor comes without this patch (fix_fleet_patches.py" in done.stderr
    assert "of drydock render --standalone applies it" in done.stderr
    assert "OMP_NUM_THREADS" in done.stderr
    assert "not carried" not in done.stdout


@pytest.mark.slow
def test_a_source_distribution_is_built_from_the_locked_file(sandbox: Sandbox) -> None:
    make_sdist(sandbox.wheels, "odd", "1.0", {"pyproject.toml": PYPROJECT, "backend.py": BACKEND})
    make_wheel(sandbox.wheels, "tool", "8.0")
    profile(sandbox, "built", "odd", packages='build = { odd = ["tool"] }')
    sandbox.drydock("lock", "built").succeeded()
    done = sandbox.drydock("export", "built", "--format", "requirements").succeeded()
    assert "what builds odd" in done.stderr
    (sandbox.work / "built.txt").write_text(done.stdout)
    python = venv(sandbox)
    uv(sandbox, python, "--require-hashes", "built.txt").succeeded()
    sandbox.run([str(python), "-c", "import odd"]).succeeded()
    text = sandbox.drydock("export", "built", "--format", "pylock").succeeded().stdout
    found = Pylock.from_dict(tomllib.loads(text)).packages[0]
    assert found.sdist is not None
    assert found.sdist.filename == "odd-1.0.tar.gz"
    components = json.loads(sandbox.drydock("export", "built", "--format", "sbom").succeeded().stdout)["components"]
    assert {one["name"]: one["scope"] for one in components} == {"odd": "required", "tool": "excluded"}


# --- pylock.toml ---------------------------------------------------------------------------------------------------


def test_the_pylock_installs_with_uv(fleet: Sandbox) -> None:
    fleet.drydock("export", "fleet", "--format", "pylock", "-o", "pylock.toml").succeeded()
    python = venv(fleet)
    uv(fleet, python, "pylock.toml").succeeded()
    assert versions(fleet, python) == ["1.0", "2.0+red"]


@pytest.mark.slow
def test_the_pylock_is_for_its_platform_only(fleet: Sandbox) -> None:
    make_wheel(fleet.wheels, "uv", version("uv"), tag="py3-none-macosx_11_0_arm64")
    profile(fleet, "mac", "anchor", target='platform = "macos-arm64"\naccelerator = "mps"\nmin-os = "14.0"')
    fleet.drydock("lock", "mac").succeeded()
    fleet.drydock("export", "mac", "--format", "pylock", "-o", "pylock.mac.toml").succeeded()
    parsed = Pylock.from_dict(tomllib.loads((fleet.work / "pylock.mac.toml").read_text()))
    assert str(parsed.requires_python) == "==3.11.*"
    if sys.platform == "linux":
        uv(fleet, venv(fleet), "pylock.mac.toml").failed(2, "not supported")


def test_a_folder_of_wheels_gives_relative_paths_and_needs_no_index(fleet: Sandbox) -> None:
    wheels = fleet.work / "bundle/wheels"
    make_wheel(wheels, "anchor", "1.0")
    make_wheel(wheels, "buoy", "2.0+red", requires=["anchor"], metadata=["License-Expression: mit or apache-2.0"])
    before = len(fleet.index.requests)
    arguments = ("--wheels", str(wheels), "-o", "bundle/pylock.toml")
    fleet.drydock("export", "fleet", "--format", "pylock", *arguments).succeeded()
    assert 'path = "wheels/anchor-1.0-py3-none-any.whl"' in (fleet.work / "bundle/pylock.toml").read_text()
    (fleet.work / "bundle").rename(fleet.root / "moved")
    python = venv(fleet)
    uv(fleet, python, str(fleet.root / "moved/pylock.toml")).succeeded()
    assert versions(fleet, python) == ["1.0", "2.0+red"]
    assert len(fleet.index.requests) == before


def test_a_wrong_file_among_the_wheels_is_refused(fleet: Sandbox) -> None:
    make_wheel(fleet.work / "wheels", "anchor", "1.0", files={"anchor.py": ""})
    done = fleet.drydock("export", "fleet", "--format", "pylock", "--wheels", "wheels")
    done.failed(2, "is not the file that is locked")


def test_a_file_that_the_index_has_no_more_is_an_error(fleet: Sandbox) -> None:
    make_wheel(fleet.wheels, "anchor", "1.0", files={"anchor.py": "version = 'another'\n"})
    done = fleet.drydock("export", "fleet", "--format", "pylock", env={"UV_NO_CACHE": "1"})
    done.failed(1, "the index has no anchor-1.0-py3-none-any.whl", "--wheels")
    assert done.stdout == ""


def test_a_password_of_the_index_is_not_written(fleet: Sandbox) -> None:
    secret = fleet.index.url.replace("http://", "http://me:hunter22@")
    done = fleet.drydock("export", "fleet", "--format", "pylock", env={"UV_DEFAULT_INDEX": secret}).succeeded()
    assert "hunter22" not in done.stdout + done.stderr
    assert f'url = "http://127.0.0.1:{fleet.index.url.split(":")[2].split("/")[0]}/files/anchor' in done.stdout


# --- the bill of materials -----------------------------------------------------------------------------------------


def test_the_bill_is_valid_and_reads_as_one(fleet: Sandbox) -> None:
    from cyclonedx.model.bom import Bom
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = fleet.drydock("export", "fleet", "--format", "sbom").succeeded().stdout
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    read = Bom.from_json(json.loads(text))  # type: ignore[attr-defined]
    found = {one.name: one for one in read.components}
    assert str(found["anchor"].purl) == "pkg:pypi/anchor@1.0?file_name=anchor-1.0-py3-none-any.whl"
    assert found["buoy"].purl.version == "2.0+red"
    assert found["buoy"].purl.qualifiers["file_name"] == "buoy-2.0+red-py3-none-any.whl"
    assert found["buoy"].purl.qualifiers["repository_url"].startswith("http://127.0.0.1:")
    assert all(f'"{one.purl}"' in text for one in read.components)  # as packageurl-python writes it
    patch = next(iter(found["anchor"].pedigree.patches))
    assert patch.diff.text.content == PATCH
    assert next(iter(patch.resolves)).description == "It said 1.0, <and> was not."
    graph = {one.ref.value: [on.ref.value for on in one.dependencies] for one in read.dependencies}
    assert str(found["anchor"].purl) in graph[str(found["buoy"].purl)]


def test_the_bill_has_the_licences_of_the_index_and_names_those_that_it_has_not(fleet: Sandbox) -> None:
    done = fleet.drydock("export", "fleet", "--format", "sbom").succeeded()
    found = {one["name"]: one.get("licenses") for one in json.loads(done.stdout)["components"]}
    assert found["buoy"] == [{"expression": "MIT OR Apache-2.0", "acknowledgement": "declared"}]
    assert found["anchor"] is None
    assert "the licence of anchor: not known" in done.stderr


@pytest.mark.parametrize(("version", "known"), [("1.0", True), ("9.0", False)])
def test_metadata_of_another_version_is_not_believed(fleet: Sandbox, version: str, known: bool) -> None:
    said = f"Metadata-Version: 2.4\nName: anchor\nVersion: {version}\nLicense-Expression: MIT\n".encode()
    fleet.index.tamper = lambda name, content: said if name.endswith(".metadata") else content
    done = fleet.drydock("export", "fleet", "--format", "sbom").succeeded()
    assert ("the licence of anchor: not known" in done.stderr) is not known


@pytest.mark.slow
def test_an_index_without_metadata_is_asked_for_a_part_of_the_wheel(sandbox: Sandbox) -> None:
    large = {"large/data.bin": "x" * 3_000_000}
    make_wheel(sandbox.wheels, "large", "1.0", files=large, metadata=["License-Expression: MIT"])
    profile(sandbox, "large", "large")
    sandbox.drydock("lock", "large").succeeded()
    sandbox.index.has_metadata = False
    sandbox.index.requests.clear()
    sandbox.index.ranges.clear()
    done = sandbox.drydock("export", "large", "--format", "sbom").succeeded()
    assert "MIT" in done.stdout
    assert done.stderr == ""
    assert 0 < sum(last - first + 1 for first, last in sandbox.index.ranges) < 200_000
    whole = [path for path in sandbox.index.requests if path.endswith("/large-1.0-py3-none-any.whl")]
    assert len(whole) == len(sandbox.index.ranges)
    sandbox.index.tamper = lambda _name, content: b"no zip" * (len(content) // 6)
    assert "not known" in sandbox.drydock("export", "large", "--format", "sbom").succeeded().stderr


def test_the_bill_of_a_built_environment_needs_no_network(built: Sandbox) -> None:
    before = len(built.index.requests)
    done = built.drydock("export", "small", "--format", "sbom").succeeded()
    assert [one["name"] for one in json.loads(done.stdout)["components"]] == ["anchor"]
    assert len(built.index.requests) == before


def test_the_bill_is_the_same_every_time(fleet: Sandbox) -> None:
    seeds = ({"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "2"})
    first, second = (
        fleet.drydock("export", "fleet", "--format", "sbom", env=seed).succeeded().stdout for seed in seeds
    )
    assert first == second
    assert "timestamp" not in json.loads(first)["metadata"]


def test_the_bill_says_the_time_that_it_is_given(fleet: Sandbox) -> None:
    plan = Catalogue([fleet.work / "profiles"]).plan("fleet")
    assert json.loads(sbom(plan, {}, 86400))["metadata"]["timestamp"] == "1970-01-02T00:00:00Z"
    fleet.drydock("export", "fleet", "--format", "sbom", env={"SOURCE_DATE_EPOCH": "now"}).failed(
        2, "SOURCE_DATE_EPOCH"
    )


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ("License-Expression: mit", Licence("MIT")),
        ("License: Apache-2.0\nClassifier: License :: OSI Approved :: MIT License", Licence("Apache-2.0")),
        ("License: Apache 2", Licence(names=("Apache 2",))),
        ("License: UNKNOWN", None),
        (
            f"License: {'Permission is granted ' * 99}\nClassifier: License :: Public Domain",
            Licence(names=("Public Domain",)),
        ),
        ("Classifier: License :: OSI Approved", None),
        ("", None),
    ],
)
def test_licences_are_read_from_old_metadata_and_new(metadata: str, expected: Licence | None) -> None:
    assert licence(f"Metadata-Version: 2.4\nName: anchor\nVersion: 1.0\n{metadata}\n\nThe text.\n") == expected


# --- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["requirements", "sbom"])
def test_only_an_export_of_the_same_profile_is_written_over(fleet: Sandbox, form: str) -> None:
    plan = Catalogue([fleet.work / "profiles"]).plan("fleet")
    text = requirements(plan, {}) if form == "requirements" else sbom(plan, {})
    target = fleet.work / "out/file"
    target.parent.mkdir()
    others = text.replace("profile fleet", "profile other").replace('"name": "fleet"', '"name": "other"')
    for there in ("mine\n", "", "{}", "[" * 10**5, '{"metadata": {"component": 3}}', others):
        target.write_text(there)
        with pytest.raises(UsageError):
            save(target, text, "fleet")
        assert target.read_text() == there
    target.write_text(f"{text}\n")
    save(target, text, "fleet")
    assert target.read_text() == text
    target.unlink()
    target.symlink_to(fleet.work / "elsewhere")
    with pytest.raises(UsageError):
        save(target, text, "fleet")
    assert os.listdir(target.parent) == ["file"]
    assert not (fleet.work / "elsewhere").exists()


def test_a_stale_lock_is_not_exported(fleet: Sandbox) -> None:
    path = fleet.work / "profiles/fleet.toml"
    path.write_text(path.read_text().replace("'buoy']", "'buoy>=2']"))
    fleet.drydock("export", "fleet", "--format", "requirements").failed(1, "stale", "drydock lock fleet")


# --- a real one ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_pylock_installs_with_a_new_pip(fleet: Sandbox, tmp_path: Path) -> None:
    """pip reads pylock.toml since 26.1; the one that comes with Python is older."""
    uv = [find_uv_bin(), "pip", "install", "--quiet", "--target", str(tmp_path / "pip"), "pip>=26.1"]
    done = subprocess.run(uv, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"pip cannot be downloaded: {done.stderr.strip().splitlines()[-1]}")
    fleet.drydock("export", "fleet", "--format", "pylock", "-o", "pylock.toml").succeeded()
    python = venv(fleet)
    new = [sys.executable, str(tmp_path / "pip/pip"), "--python", str(python), "install", "-r", "pylock.toml"]
    fleet.run(new, env={"PIP_CONFIG_FILE": os.devnull}).succeeded()
    assert versions(fleet, python) == ["1.0", "2.0+red"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["requirements", "pylock"])
def test_the_profile_cpu_installs_from_its_export(tmp_path: Path, form: str) -> None:
    """From PyPI or uv's cache, and from a folder of wheels where the machine names one."""
    python = tmp_path / "venv/bin/python"
    target = tmp_path / ("pylock.toml" if form == "pylock" else "cpu.txt")
    environment = {**os.environ, "DRYDOCK_PROFILES": str(ROOT / "profiles")}
    uv = [find_uv_bin(), "pip", "sync", "--python", str(python)]
    wheels = [word for folder in find_links() for word in ("--wheels", str(folder))]
    for command in (
        [sys.executable, "-m", "builder", "export", "cpu", "--format", form, "-o", str(target), *wheels],
        [find_uv_bin(), "venv", "-q", "-p", python_3_11(), str(tmp_path / "venv")],
        [*uv, str(target)] if form == "pylock" else [*uv, "--require-hashes", str(target)],
        [str(python), "-c", "import torch, transformers; assert torch.__version__ == '2.13.0+cpu'"],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
