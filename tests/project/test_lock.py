"""`drydock lock`: for any target from here, one file per package, nothing of the place where it was made."""

from __future__ import annotations

import difflib
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.support import Index, Sandbox, make_sdist, make_wheel

TEXT = "".join(f"line {number}\n" for number in range(1, 10))
MENDED = TEXT.replace("line 5", "line five")


def profile(
    desk: Sandbox, name: str, *requires: str, packages: str = "", target: str = "", patch: str = "", tables: str = ""
) -> Path:
    """A profile that asks for `requires`: the minimal one with more in [packages] and other tables."""
    path = desk.profile(name)
    text = path.read_text()
    text = text.replace('requires = ["anchor"]', f"requires = {list(requires)!r}\n{packages}\n{tables}")
    if target:
        text = text.replace('platform = "linux-x86_64"\naccelerator = "cpu"\nglibc = "2.17"', target)
    path.write_text(text + patch)
    return path


def read(desk: Sandbox, name: str) -> dict[str, Any]:
    """The lock of a profile."""
    return tomllib.loads((desk.work / f"profiles/{name}.lock.toml").read_text())


def versions(desk: Sandbox, name: str) -> dict[str, str]:
    """Package to version in the lock of a profile."""
    return {package["name"]: package["version"] for package in read(desk, name)["packages"]}


# --- targets -------------------------------------------------------------------------------------------------------

TAGS = [
    "cp311-cp311-macosx_11_0_arm64",
    "cp311-cp311-macosx_14_0_arm64",
    "cp311-cp311-macosx_15_0_arm64",
    "cp311-cp311-macosx_15_0_x86_64",
    "cp312-cp312-macosx_14_0_arm64",
    "cp311-cp311-manylinux_2_17_aarch64",
    "cp311-cp311-manylinux_2_28_aarch64",
    "cp311-cp311-manylinux_2_34_aarch64",
    "cp311-cp311-manylinux_2_28_x86_64",
    "py3-none-any",
]
MACOS = 'platform = "macos-arm64"\naccelerator = "mps"\nmin-os = "{}"'
ARM64 = 'platform = "linux-arm64"\naccelerator = "cpu"\nglibc = "{}"'
CHOICES = {
    "mac13": (MACOS.format("13.0"), "cp311-cp311-macosx_11_0_arm64"),
    "mac14": (MACOS.format("14.0"), "cp311-cp311-macosx_14_0_arm64"),
    "mac15": (MACOS.format("15.2"), "cp311-cp311-macosx_15_0_arm64"),
    "arm217": (ARM64.format("2.17"), "cp311-cp311-manylinux_2_17_aarch64"),
    "arm228": (ARM64.format("2.28"), "cp311-cp311-manylinux_2_28_aarch64"),
    "arm233": (ARM64.format("2.33"), "cp311-cp311-manylinux_2_28_aarch64"),
}


def test_the_one_wheel_of_each_target_is_chosen_from_here(sandbox: Sandbox) -> None:
    for tag in TAGS:
        make_wheel(sandbox.wheels, "native", "1.0", tag=tag)
    for tag in ("macosx_11_0_arm64", "manylinux_2_17_aarch64"):
        make_wheel(sandbox.wheels, "uv", read_uv_version(sandbox), tag=f"py3-none-{tag}")
    for name, (target, _) in CHOICES.items():
        profile(sandbox, name, "native", target=target)
    sandbox.drydock("lock", *CHOICES).succeeded()
    chosen = {name: [package["file"] for package in read(sandbox, name)["packages"]] for name in CHOICES}
    assert chosen == {name: [f"native-1.0-{tag}.whl"] for name, (_, tag) in CHOICES.items()}


def read_uv_version(desk: Sandbox) -> str:
    """The version of the uv whose wheel is on the desk's index."""
    return next(desk.wheels.glob("uv-*")).name.split("-")[1]


def test_markers_are_those_of_the_target(sandbox: Sandbox) -> None:
    make_wheel(sandbox.wheels, "only-mac", "1.0")
    make_wheel(sandbox.wheels, "only-arm", "1.0")
    make_wheel(sandbox.wheels, "uv", read_uv_version(sandbox), tag="py3-none-macosx_11_0_arm64")
    requires = [
        "anchor; sys_platform == 'linux'",
        "only-mac; sys_platform == 'darwin'",
        "only-arm; platform_machine == 'arm64'",
    ]
    make_wheel(sandbox.wheels, "choosy", "1.0", requires=requires)
    profile(sandbox, "mac", "choosy", target=MACOS.format("14.0"))
    sandbox.drydock("lock", "mac").succeeded()
    assert sorted(versions(sandbox, "mac")) == ["choosy", "only-arm", "only-mac"]


def test_a_package_without_a_wheel_for_the_target_is_refused(sandbox: Sandbox) -> None:
    make_wheel(sandbox.wheels, "native", "1.0", tag="cp311-cp311-macosx_14_0_arm64")
    profile(sandbox, "linux", "native")
    sandbox.drydock("lock", "linux").failed(1, '"linux" cannot be locked', "native", "where: profiles/linux.toml")
    assert not (sandbox.work / "profiles/linux.lock.toml").exists()


# --- what is in a lock ---------------------------------------------------------------------------------------------


def test_a_lock_names_files_by_hash_and_no_place(sandbox: Sandbox) -> None:
    make_wheel(sandbox.wheels, "boat", "1.0", requires=["anchor>=1"])
    path = profile(sandbox, "small", "boat").with_name("small.lock.toml")
    locked = sandbox.drydock("lock", "small").succeeded()
    assert locked.stdout == "small: + anchor 1.0\nsmall: + boat 1.0\n"
    text = path.read_text()
    for place in ("://", "127.0.0.1", str(sandbox.root), "/tmp", str(Path.home())):
        assert place not in text
    by_name = {package["name"]: package for package in read(sandbox, "small")["packages"]}
    wheel = sandbox.wheels / "boat-1.0-py3-none-any.whl"
    digest = subprocess.run(["sha256sum", str(wheel)], capture_output=True, text=True, check=True).stdout.split()[0]
    assert by_name["boat"] == {
        "name": "boat",
        "version": "1.0",
        "file": wheel.name,
        "size": wheel.stat().st_size,
        "sha256": digest,
        "required-by": ["profile"],
    }
    assert by_name["anchor"]["required-by"] == ["boat"]


def test_locking_again_changes_no_byte_wherever_it_is_done(locked: Sandbox, tmp_path: Path) -> None:
    path = locked.work / "profiles/small.lock.toml"
    before, written = path.read_bytes(), path.stat().st_mtime_ns
    make_wheel(locked.wheels, "anchor", "2.0")
    again = locked.drydock("lock", "small").succeeded()
    assert (again.stdout, again.stderr) == ("", "small: is fresh, 1 package, 0 MB\n")
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, written)
    # From nothing, with another index, home and temporary folder: the same bytes.
    (locked.wheels / "anchor-2.0-py3-none-any.whl").unlink()
    path.unlink()
    mirror = tmp_path / "mirror"
    shutil.copytree(locked.wheels, mirror)
    (tmp_path / "elsewhere").mkdir()
    with Index(mirror) as index:
        locked.drydock(
            "lock", "small", env={"UV_DEFAULT_INDEX": index.url, "TMPDIR": str(tmp_path / "elsewhere")}
        ).succeeded()
    assert path.read_bytes() == before


def test_settings_of_uv_and_of_the_project_around_decide_nothing(locked: Sandbox) -> None:
    path = locked.work / "profiles/small.lock.toml"
    before = path.read_bytes()
    make_wheel(locked.wheels, "anchor", "0.5")
    (locked.work / "uv.toml").write_text('constraint-dependencies = ["anchor<1"]\n[pip]\nresolution = "lowest"\n')
    (locked.work / "pyproject.toml").write_text('[tool.uv.pip]\nresolution = "lowest"\n')
    config = locked.home / ".config/uv/uv.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[pip]\nresolution = "lowest"\nprerelease = "allow"\n')
    make_wheel(locked.wheels, "anchor", "1.1rc1")
    settings = {"UV_RESOLUTION": "lowest", "UV_EXCLUDE_NEWER": "2000-01-01", "UV_PRERELEASE": "allow"}
    locked.drydock("lock", "small", "-U", env=settings).succeeded()
    assert path.read_bytes() == before


# --- keeping and upgrading -----------------------------------------------------------------------------------------


@pytest.fixture
def aged(sandbox: Sandbox) -> Sandbox:
    """A desk with a lock of `anchor` and `boat` 1.0, where 2.0 of both has come out since."""
    make_wheel(sandbox.wheels, "boat", "1.0", requires=["anchor"])
    profile(sandbox, "small", "boat")
    sandbox.drydock("lock", "small").succeeded()
    for name in ("anchor", "boat"):
        make_wheel(sandbox.wheels, name, "2.0", requires=["anchor"] if name == "boat" else [])
    make_wheel(sandbox.wheels, "crew", "1.0")
    return sandbox


@pytest.mark.slow
def test_an_upgrade_changes_that_package_and_no_other(aged: Sandbox) -> None:
    upgraded = aged.drydock("lock", "small", "--upgrade", "anchor").succeeded()
    assert upgraded.stdout == "small: ~ anchor 1.0 -> 2.0\n"
    assert versions(aged, "small") == {"anchor": "2.0", "boat": "1.0"}
    upgraded = aged.drydock("lock", "small", "--upgrade-all").succeeded()
    assert upgraded.stdout == "small: ~ boat 1.0 -> 2.0\n"


@pytest.mark.slow
def test_versions_are_kept_when_a_requirement_comes_or_goes(aged: Sandbox) -> None:
    profile(aged, "small", "boat", "crew")
    assert aged.drydock("lock", "small").succeeded().stdout == "small: + crew 1.0\n"
    assert versions(aged, "small") == {"anchor": "1.0", "boat": "1.0", "crew": "1.0"}
    profile(aged, "small", "anchor")
    assert aged.drydock("lock", "small").succeeded().stdout == "small: - boat 1.0\nsmall: - crew 1.0\n"


def test_upgrading_what_is_not_locked_is_an_error(aged: Sandbox) -> None:
    before = (aged.work / "profiles/small.lock.toml").read_bytes()
    aged.drydock("lock", "small", "-P", "crew").failed(1, "crew is not in the lock of small", "profiles/small.toml")
    assert (aged.work / "profiles/small.lock.toml").read_bytes() == before


@pytest.mark.slow
def test_a_dry_run_shows_what_would_change_and_writes_nothing(aged: Sandbox) -> None:
    before = (aged.work / "profiles/small.lock.toml").read_bytes()
    would = aged.drydock("lock", "small", "-U", "--dry-run").succeeded()
    assert would.stdout == "small: ~ anchor 1.0 -> 2.0\nsmall: ~ boat 1.0 -> 2.0\n"
    assert "small: would be locked" in would.stderr
    profile(aged, "small", "boat>=1")
    assert "small: would be locked" in aged.drydock("lock", "small", "--dry-run").succeeded().stderr
    profile(aged, "new", "anchor")
    aged.drydock("lock", "new", "--dry-run").succeeded()
    assert (aged.work / "profiles/small.lock.toml").read_bytes() == before
    assert not (aged.work / "profiles/new.lock.toml").exists()


@pytest.mark.slow
def test_check_tells_fresh_stale_edited_and_missing_apart(locked: Sandbox) -> None:
    path = locked.work / "profiles/small.lock.toml"
    good = path.read_text()
    assert "small: 1 package, fresh" in locked.drydock("lock", "--check", "small").succeeded().stderr
    path.write_text(good.replace('version = "1.0"', 'version = "1.1"'))
    locked.drydock("lock", "--check", "small").failed(1, "edited by hand", "profiles/small.lock.toml", "change the pro")
    path.write_text(good)
    profile(locked, "small", "anchor>=1")
    locked.drydock("lock", "--check", "small").failed(1, "the lock is stale", "hint: drydock lock small")
    assert path.read_text() == good
    path.unlink()
    locked.drydock("lock", "--check", "small").failed(1, '"small" has no lock', "hint: drydock lock small")
    assert not path.exists()


def test_locking_without_names_locks_what_can_be_built_of_the_project(sandbox: Sandbox, tmp_path: Path) -> None:
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    for name in ("one", "two"):
        profile(sandbox, name, "anchor").rename(profiles / f"{name}.toml")
    (profiles / "part.toml").write_text('schema = 1\nname = "part"\n')
    done = sandbox.drydock("lock", env={"DRYDOCK_PROFILES": str(profiles)}).succeeded()
    assert done.stdout == "one: + anchor 1.0\ntwo: + anchor 1.0\n"
    assert "m4:" not in done.stderr  # built in
    assert "part:" not in done.stderr


# --- contradictions and overrides ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_contradiction_is_explained_in_uvs_words_and_broken_by_an_override(sandbox: Sandbox) -> None:
    make_wheel(sandbox.wheels, "anchor", "2.0")
    make_wheel(sandbox.wheels, "old", "1.0", requires=["anchor<2"])
    make_wheel(sandbox.wheels, "new", "1.0", requires=["anchor>=2"])
    profile(sandbox, "torn", "old", "new")
    sandbox.drydock("lock", "torn").failed(
        1,
        '"torn" cannot be locked. uv says: No solution found',
        "all versions of new depend on anchor>=2 and all versions of old depend on anchor<2",
        "where: profiles/torn.toml",
        "[[packages.overrides]]",
    )
    assert not (sandbox.work / "profiles/torn.lock.toml").exists()
    override = '[[packages.overrides]]\nrequirement = "anchor==2.0"\nreason = "old works with it: issue 7"\n'
    profile(sandbox, "torn", "old", "new", tables=override)
    told = sandbox.drydock("lock", "torn").succeeded()
    assert "torn: overridden: anchor==2.0 (old works with it: issue 7)" in told.stderr
    lock = read(sandbox, "torn")
    assert lock["overrides"] == [{"requirement": "anchor==2.0", "reason": "old works with it: issue 7"}]
    by_name = {package["name"]: package for package in lock["packages"]}
    assert by_name["anchor"]["version"] == "2.0"
    assert by_name["anchor"]["required-by"] == ["new", "old", "override"]
    sandbox.drydock("build", "torn").succeeded()


def test_a_package_that_no_index_has_is_named(sandbox: Sandbox) -> None:
    profile(sandbox, "typo", "ancor")
    sandbox.drydock("lock", "typo").failed(1, "ancor was not found in the package registry", "profiles/typo.toml")


def test_no_network_is_told_from_a_contradiction(sandbox: Sandbox, tmp_path: Path) -> None:
    profile(sandbox, "small", "anchor")
    nowhere = {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", "UV_CACHE_DIR": str(tmp_path / "cache")}
    sandbox.drydock("lock", "small", env=nowhere).failed(
        1, '"small" cannot be locked', "Connection refused", "hint: is the network there? UV_DEFAULT_INDEX"
    )
    assert sorted(path.name for path in (sandbox.work / "profiles").iterdir()) == ["small.toml"]


def test_a_uv_that_is_not_there_is_named(sandbox: Sandbox) -> None:
    profile(sandbox, "small", "anchor")
    sandbox.drydock("lock", "small", env={"DRYDOCK_UV": "/nowhere/uv"}).failed(
        1, "DRYDOCK_UV names /nowhere/uv", "hint: unset it"
    )


# --- time, sources, indexes ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_universe_ends_with_the_day_that_the_profile_names(sandbox: Sandbox) -> None:
    make_wheel(sandbox.wheels, "anchor", "2.0")
    make_wheel(sandbox.wheels, "anchor", "3.0")
    sandbox.index.uploaded |= {
        "anchor-2.0-py3-none-any.whl": "2025-07-15T23:59:59Z",
        "anchor-3.0-py3-none-any.whl": "2025-07-16T00:00:01Z",
    }
    profile(sandbox, "day", "anchor", packages="exclude-newer = 2025-07-15")
    sandbox.drydock("lock", "day").succeeded()
    assert versions(sandbox, "day") == {"anchor": "2.0"}
    profile(
        sandbox,
        "but",
        "anchor",
        packages='exclude-newer = "2025-07-15"\nexclude-newer-package = {anchor = "2025-07-16"}',
    )
    sandbox.drydock("lock", "but").succeeded()
    assert versions(sandbox, "but") == {"anchor": "3.0"}


@pytest.mark.slow
def test_a_source_is_refused_unless_allowed_and_then_built_with_locked_tools(
    sandbox: Sandbox, setuptools: Path
) -> None:
    make_sdist(sandbox.wheels, "rope", "1.0")
    shutil.copy(setuptools, sandbox.wheels)
    profile(sandbox, "small", "rope")
    sandbox.drydock("lock", "small").failed(
        1, "1 package without a wheel", 'rope 1.0: rope = ["setuptools"]', "profiles/small.toml"
    )
    assert not (sandbox.work / "profiles/small.lock.toml").exists()
    profile(sandbox, "small", "rope", tables='[packages.build]\nrope = ["setuptools"]')
    sandbox.drydock("lock", "small").succeeded()
    lock = read(sandbox, "small")
    assert [package["file"] for package in lock["packages"]] == ["rope-1.0.tar.gz"]
    assert [(tool["name"], tool["file"]) for tool in lock["build-requires"]] == [("setuptools", setuptools.name)]
    env = Path(sandbox.drydock("build", "small").succeeded().stdout.strip())
    done = sandbox.run([str(env / "bin/python"), "-c", "import rope; print(rope.version)"]).succeeded()
    assert done.stdout == "1.0\n"
    # setuptools built it and is not part of the result
    assert not any((env / "lib/python3.11/site-packages").glob("setuptools*"))


SPECIAL = '[packages.index]\nspecial = "extra-wheels"\n[indexes]\nextra-wheels = "{}"\n'


@pytest.fixture
def second(sandbox: Sandbox, tmp_path: Path) -> Index:
    """A second index with another wheel of `special` than the first one has."""
    make_wheel(sandbox.wheels, "special", "9.0")
    make_wheel(tmp_path / "second", "special", "1.0")
    return Index(tmp_path / "second")


def test_a_package_comes_from_its_own_index_only(sandbox: Sandbox, second: Index) -> None:
    with second:
        profile(sandbox, "small", "anchor", "special", tables=SPECIAL.format(second.url))
        sandbox.drydock("lock", "small", env={"UV_NO_SOURCES": "1"}).succeeded()
        assert versions(sandbox, "small") == {"anchor": "1.0", "special": "1.0"}
        by_name = {package["name"]: package for package in read(sandbox, "small")["packages"]}
        assert by_name["special"]["index"] == "extra-wheels"
        assert "index" not in by_name["anchor"]
        sandbox.drydock("build", "small").succeeded()
        assert not any("anchor" in path for path in second.requests)


@pytest.mark.slow
@pytest.mark.parametrize("cross", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_mirror_stands_in_for_an_index_by_its_name(sandbox: Sandbox, second: Index, cross: bool) -> None:
    with second:
        profile(sandbox, "small", "special", tables=SPECIAL.format("http://127.0.0.1:9/gone"))
        sandbox.drydock("lock", "small").failed(1, "http://127.0.0.1:9/gone/special/")
        mirror = {"DRYDOCK_INDEX_EXTRA_WHEELS": second.url}
        sandbox.drydock("lock", "small", env=mirror).succeeded()
        assert second.url not in (sandbox.work / "profiles/small.lock.toml").read_text()
        sandbox.drydock("build", "small", *(["--cross", "there"] if cross else []), env=mirror).succeeded()
        assert "/files/special-1.0-py3-none-any.whl" in second.requests


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["PIP_FIND_LINKS", "UV_FIND_LINKS"])
def test_a_folder_of_wheels_stands_in_for_an_index(sandbox: Sandbox, second: Index, variable: str) -> None:
    with second:  # which nobody asks
        folder = {variable: str(second.folder)}
        profile(sandbox, "small", "special", tables=SPECIAL.format("http://127.0.0.1:9/gone"))
        sandbox.drydock("lock", "small", env=folder).succeeded()
        assert versions(sandbox, "small") == {"special": "1.0"}
        assert read(sandbox, "small")["packages"][0]["index"] == "extra-wheels"
        env = Path(sandbox.drydock("build", "small", env=folder).succeeded().stdout.strip())
        assert (env / "lib/python3.11/site-packages/special-1.0.dist-info").is_dir()


def test_a_folder_whose_wheels_do_not_fit_leaves_the_index_in_charge(sandbox: Sandbox, second: Index) -> None:
    unfit = sandbox.root / "unfit"
    make_wheel(unfit, "special", "7.0")
    make_wheel(unfit, "special", "1.0", tag="cp39-cp39-win_amd64")
    (unfit / "special-odd.whl").write_bytes(b"")
    with second:
        profile(sandbox, "small", "special<2", tables=SPECIAL.format(second.url))
        sandbox.drydock("lock", "small", env={"PIP_FIND_LINKS": str(unfit)}).succeeded()
    assert versions(sandbox, "small") == {"special": "1.0"}


# --- patches -------------------------------------------------------------------------------------------------------

PATCH = """
[[patches]]
package = "{package}"
versions = "{versions}"
file = "patches/fix.patch"
proof = "proofs/fix.py"
why = "line 5 is wrong"
"""


def diff(before: str, after: str, path: str = "anchor/lines.txt") -> str:
    """A unified diff as git writes it."""
    return "".join(difflib.unified_diff(before.splitlines(True), after.splitlines(True), f"a/{path}", f"b/{path}"))


@pytest.fixture
def patching(sandbox: Sandbox) -> Sandbox:
    """A desk with a patch for `anchor`, of which 1.x has line 5 wrong, 2.0 has it right and 3.0 has other lines."""
    for version, text in {"1.1": TEXT, "1.2": f"\n{TEXT}", "2.0": MENDED, "3.0": "other\n"}.items():
        files = {"anchor/__init__.py": f"version = {version!r}\n", "anchor/lines.txt": text}
        make_wheel(sandbox.wheels, "anchor", version, files=files)
    sandbox.file("patches/fix.patch", diff(TEXT, MENDED))
    sandbox.file("proofs/fix.py", "print('mended')\n")
    return sandbox


def test_a_patch_that_applies_pins_its_files_before_and_after(patching: Sandbox) -> None:
    from builder.embedded.hashes import sha256

    profile(patching, "small", "anchor==1.1", patch=PATCH.format(package="anchor", versions=">=1,<2"))
    assert "checking 1 patch\n" in patching.drydock("lock", "small").succeeded().stderr
    assert read(patching, "small")["patches"] == [
        {
            "package": "anchor",
            "file": "patches/fix.patch",
            "sha256": sha256(diff(TEXT, MENDED).encode()),
            "files": [
                {
                    "path": "anchor/lines.txt",
                    "preimage": sha256(TEXT.encode()),
                    "postimage": sha256(MENDED.encode()),
                }
            ],
        }
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("requirement", "package", "versions", "words"),
    [
        ("anchor==2.0", "anchor", ">=1", "is already upstream: anchor 2.0 has the change in anchor/lines.txt"),
        ("anchor==3.0", "anchor", ">=1", "does not apply to anchor/lines.txt of anchor 3.0"),
        ("anchor==1.2", "anchor", ">=1", "does not apply to anchor/lines.txt of anchor 1.2"),  # no offset, no fuzz
        ("anchor==1.0", "anchor", ">=1", "does not apply: anchor 1.0 has no file anchor/lines.txt"),
        ("anchor==2.0", "anchor", ">=1,<2", "is not used: it is for anchor >=1,<2, and 2.0 is locked"),
        ("anchor==1.1", "boat", ">=1", "is not used: boat is not among the packages of small"),
    ],
)
def test_a_patch_that_changes_nothing_is_an_error(
    patching: Sandbox, requirement: str, package: str, versions: str, words: str
) -> None:
    profile(patching, "small", requirement, patch=PATCH.format(package=package, versions=versions))
    patching.drydock("lock", "small").failed(
        1, f"error: patches/fix.patch {words}", "where: profiles/small.toml", "hint: "
    )
    assert not (patching.work / "profiles/small.lock.toml").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fix it, please\n", "this is not a unified diff"),
        (diff(TEXT, MENDED, "anchor/../../outside.txt"), "leaves its package"),
        (diff("", "new\n").replace("a/anchor/lines.txt", "/dev/null"), "/dev/null"),
    ],
)
def test_a_file_that_is_no_patch_of_a_package_is_an_error(patching: Sandbox, text: str, words: str) -> None:
    patching.file("patches/fix.patch", text)
    profile(patching, "small", "anchor==1.1", patch=PATCH.format(package="anchor", versions=">=1"))
    patching.drydock("lock", "small").failed(1, "patches/fix.patch", words)
    assert not (patching.work / "profiles/small.lock.toml").exists()


def test_a_patch_file_that_is_not_there_is_named(patching: Sandbox) -> None:
    (patching.work / "profiles/patches/fix.patch").unlink()
    profile(patching, "small", "anchor==1.1", patch=PATCH.format(package="anchor", versions=">=1"))
    patching.drydock("lock", "small").failed(
        1, "patches/fix.patch does not exist", "where: profiles/small.toml", "put it beside the profile"
    )


def test_a_changed_patch_makes_the_lock_stale(patching: Sandbox) -> None:
    profile(patching, "small", "anchor==1.1", patch=PATCH.format(package="anchor", versions=">=1"))
    patching.drydock("lock", "small").succeeded()
    patching.file("patches/fix.patch", diff(TEXT, TEXT.replace("line 5", "line V")))
    patching.drydock("build", "small").failed(1, "the lock is stale", "hint: drydock lock small")
