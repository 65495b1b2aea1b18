"""`drydock add`, `remove`, `update` and `undo`: files, locks, scripts and environments in one go, or nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.support import Sandbox, make_wheel

PART = 'schema = 1\nname = "needs"\n[packages]\nrequires = [\n    "anchor",  # ours\n]\n'
TARGETS = {
    "mac": 'platform = "macos-arm64"\naccelerator = "mps"\nmin-os = "14.0"',
    "box": 'platform = "linux-x86_64"\naccelerator = "cpu"\nglibc = "2.17"',
    "arm": 'platform = "linux-arm64"\naccelerator = "cpu"\nglibc = "2.28"',
}


@pytest.fixture
def desk(sandbox: Sandbox) -> Sandbox:
    """Three targets that extend one part, locked and rendered; `box` is for this machine."""
    make_wheel(sandbox.wheels, "rope", "1.0", requires=["knot"])
    make_wheel(sandbox.wheels, "knot", "1.0")
    make_wheel(sandbox.wheels, "uv", "0.0.0")
    sandbox.file("needs.toml", PART)
    for name, target in TARGETS.items():
        sandbox.file(
            f"{name}.toml",
            f'schema = 1\nname = "{name}"\ndescription = "one"\nextends = ["needs"]\n[target]\n{target}\n'
            '[python]\nversion = "3.11"\n[trainer]\ncommand = ["python", "-c", "import rope; print(rope.__name__)"]\n',
        )
    for tag in ("py3-none-macosx_11_0_arm64", "py3-none-manylinux_2_17_aarch64"):
        make_wheel(sandbox.wheels, "uv", uv_of(sandbox), tag=tag)
    sandbox.drydock("lock").succeeded()
    sandbox.drydock("render").succeeded()
    return sandbox


def uv_of(desk: Sandbox) -> str:
    return next(path.name.split("-")[1] for path in desk.wheels.glob("uv-*") if "manylinux" in path.name)


def files(desk: Sandbox) -> dict[str, str]:
    """All files of the project, by the sha256 of their content."""
    return {
        str(path.relative_to(desk.work)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(desk.work.rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
def test_a_package_is_added_to_all_that_share_a_part_and_taken_back(desk: Sandbox) -> None:
    desk.drydock("build", "box").succeeded()
    before, one = files(desk), desk.environments()
    done = desk.drydock("add", "rope>=1").succeeded()
    assert done.stdout == "arm, box, mac: + knot 1.0, + rope 1.0\n"
    assert "to take it back: drydock undo" in done.stderr
    assert (desk.work / "profiles/needs.toml").read_text() == PART.replace("# ours\n", '# ours\n    "rope>=1",\n')
    desk.drydock("lock", "--check").succeeded()
    desk.drydock("render", "--check").succeeded()
    assert len(desk.environments()) == len(one) + 1
    assert desk.drydock("run", "box").succeeded().stdout == "rope\n"
    undone = desk.drydock("undo").succeeded()
    assert "box: back from generation 2 to 1" in undone.stderr
    assert files(desk) == before
    desk.drydock("undo").failed(2, "there is nothing to undo here")
    desk.drydock("add", "rope<2", "Rope").failed(2, "rope is named twice")
    (desk.work / "pyproject.toml").write_text('[project]\nname = "rope"\nversion = "1"\n')
    desk.drydock("add", "rope").failed(2, "rope is this project itself")


def test_a_package_is_removed_wherever_it_stands(desk: Sandbox) -> None:
    before = files(desk)
    desk.drydock("add", "rope", "--no-build").succeeded()
    assert desk.drydock("remove", "Rope", "--no-build").succeeded().stdout == "arm, box, mac: - knot 1.0, - rope 1.0\n"
    changed = {name for name, sha256 in files(desk).items() if before.get(name) != sha256}
    assert changed == set()
    desk.drydock("undo").succeeded()
    assert '"rope"' in (desk.work / "profiles/needs.toml").read_text()
    desk.drydock("add", "knot", "--no-build").succeeded()
    assert "knot stays locked, as it is required by rope" in desk.drydock("remove", "knot", "--no-build").stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["add", "roppe"], ["roppe", "did you mean"]),
        (["add", "anchor>=9"], ["anchor"]),
        (["add", "six=="], ["six== is not a requirement", "'six>=1.16'"]),
        (["add", "six @ ftp://a.example/six.whl"], ["ftp:// is not a place"]),
        (["add", "rope", "--to", "cpu"], ["cpu.toml is not a profile of this project"]),
        (["add", "rope", "--to", "boxx"], ["did you mean"]),
        (["remove", "anchr"], ["no profile of this project requires anchr", "did you mean anchor?"]),
        (["update", "anchr"], ["anchr is in no lock", "did you mean anchor?"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_fails_changes_nothing(desk: Sandbox, words: list[str], told: list[str]) -> None:
    if words == ["add", "roppe"]:  # known from a lock that is at hand
        desk.drydock("add", "rope", "--to", "arm").succeeded()
    before, built = files(desk), desk.environments()
    done = desk.drydock(*words)
    assert done.code in (1, 2)
    assert "Traceback" not in done.stderr
    for word in told:
        assert word in done.stderr, done.stderr
    assert files(desk) == before
    assert desk.environments() == built


def test_what_is_only_required_by_another_is_said_so(desk: Sandbox) -> None:
    desk.drydock("add", "rope", "--no-build").succeeded()
    desk.drydock("remove", "knot").failed(
        2, "no profile of this project requires knot itself", "rope does", "drydock why"
    )


@pytest.mark.slow
def test_a_build_that_fails_takes_back_files_and_generation(desk: Sandbox) -> None:
    make_wheel(desk.wheels, "wreck", "1.0", files={"anchor/__init__.py": "taken over"})
    desk.drydock("build", "box").succeeded()
    before = files(desk)
    desk.drydock("add", "wreck").failed(1, "anchor/__init__.py")
    assert files(desk) == before
    assert desk.drydock("generation", "list", "box").succeeded().stdout.count("\n") == 1
    desk.drydock("undo").failed(2, "there is nothing to undo here")


def test_an_index_that_is_down_for_one_target_changes_nothing(desk: Sandbox) -> None:
    path = desk.work / "profiles/arm.toml"
    path.write_text(
        path.read_text() + '[packages]\nindex = { rope = "team" }\n[indexes]\nteam = "http://127.0.0.1:9/simple"\n'
    )
    desk.drydock("lock", "arm").succeeded()
    before = files(desk)
    desk.drydock("add", "rope").failed(1, "arm")
    assert files(desk) == before


@pytest.mark.slow
def test_an_update_takes_what_the_profiles_allow(desk: Sandbox) -> None:
    desk.drydock("add", "rope<2", "--no-build").succeeded()
    for version in ("1.5", "2.0"):
        make_wheel(desk.wheels, "rope", version, requires=["knot"])
    make_wheel(desk.wheels, "knot", "1.1")
    assert desk.drydock("update", "rope", "--of", "box", "--no-build").succeeded().stdout == "box: ~ rope 1.0 -> 1.5\n"
    assert desk.drydock("update", "--no-build").succeeded().stdout == (
        "arm, mac: ~ knot 1.0 -> 1.1, ~ rope 1.0 -> 1.5\nbox: ~ knot 1.0 -> 1.1\n"
    )
    assert "nothing to change" in desk.drydock("update", "--no-build").succeeded().stderr


def test_nothing_is_undone_where_a_file_was_changed_since(desk: Sandbox) -> None:
    desk.drydock("add", "rope", "--no-build").succeeded()
    path = desk.work / "profiles/needs.toml"
    path.write_text(path.read_text() + "# mine\n")
    desk.drydock("undo").failed(1, "needs.toml was changed after: drydock add rope")
    assert "# mine" in path.read_text()


def test_where_no_part_is_shared_a_profile_is_named(desk: Sandbox) -> None:
    desk.file(
        "lone.toml", (desk.work / "profiles/box.toml").read_text().replace('"box"', '"lone"').replace('"needs"', "")
    )
    desk.drydock("lock", "lone").succeeded()
    desk.drydock("add", "rope").failed(2, "no profile is extended by all of them", "--to NAME, of")
    assert desk.drydock("add", "rope", "--to", "lone").succeeded().stdout == "lone: + knot 1.0, + rope 1.0\n"


def test_without_a_project_there_is_nothing_to_add_to(sandbox: Sandbox) -> None:
    folder: Path = sandbox.work / "elsewhere"
    folder.mkdir()
    sandbox.drydock("add", "six", cwd=folder).failed(2, "no profile of a project here", "drydock init")


def test_files_of_the_users_among_the_generated_ones_are_left_alone(desk: Sandbox) -> None:
    folder = desk.work / "generated/box"
    (folder / "picture.png").write_bytes(b"\x89PNG\xff\xfe")
    script = next(folder.glob("run_*.sh"))
    script.unlink()
    before = files(desk)
    desk.drydock("add", "rope", "--no-build").succeeded()
    assert script.is_file()
    desk.drydock("undo").succeeded()
    assert files(desk) == before


PROJECT = """\
[project]
name = "lantern"
version = "1.0"
dependencies = [
  "anchor",  # ours
]

[project.optional-dependencies]
Fast = ["knot"]
"""
SCRIPT = """\
#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = ["anchor"]
# ///
print("go")
"""
LINES = "# what we need\nanchor  # ours\n-r more.txt\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "entry", "text", "added"),
    [
        (
            "pyproject.toml",
            '{ file = "pyproject.toml", extras = ["fast"] }',
            PROJECT,
            PROJECT.replace("# ours\n", '# ours\n  "rope>=1",\n'),
        ),
        ("train.py", '{ file = "train.py" }', SCRIPT, SCRIPT.replace('["anchor"]', '["anchor", "rope>=1"]')),
        ("needs.txt", '{ file = "needs.txt" }', LINES, LINES + "rope>=1\n"),
    ],
    ids=["pyproject", "script", "lines"],
)
def test_it_is_written_where_the_project_says_what_it_requires(
    desk: Sandbox, file: str, entry: str, text: str, added: str
) -> None:
    (desk.work / file).write_text(text)
    (desk.work / "more.txt").write_text("knot\n")
    part = desk.work / "profiles/needs.toml"
    part.write_text(f'schema = 1\nname = "needs"\n[packages]\nrequires-from = [{entry}]\n')
    desk.drydock("lock").succeeded()
    desk.drydock("render").succeeded()
    before, profile = files(desk), part.read_text()
    done = desk.drydock("add", "rope>=1").succeeded()
    assert f"changed: {file}" in done.stderr or f", {file}" in done.stderr
    assert (desk.work / file).read_text() == added
    assert part.read_text() == profile
    desk.drydock("lock", "--check").succeeded()
    desk.drydock("render", "--check").succeeded()
    desk.drydock("add", "rope==1.0").succeeded()
    assert (desk.work / file).read_text() == added.replace("rope>=1", "rope==1.0")
    desk.drydock("remove", "rope").succeeded()
    assert (desk.work / file).read_text() == text
    if file == "pyproject.toml":
        desk.drydock("remove", "knot").succeeded()
        assert (desk.work / file).read_text() == text.replace('"knot"', "")
        desk.drydock("undo").succeeded()
    for _ in range(3):
        desk.drydock("undo").succeeded()
    assert files(desk) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("pyproject.toml", '[project]\nname = "l"\nversion = "1"\ndependencies = "anchor"\n', "pyproject.toml"),
        ("needs.txt", f"anchor --hash=sha256:{'0' * 64}\n", "has options or hashes of its own"),
    ],
)
def test_a_file_that_cannot_be_changed_stays(desk: Sandbox, file: str, text: str, told: str) -> None:
    (desk.work / file).write_text(text)
    part = desk.work / "profiles/needs.toml"
    part.write_text(f'schema = 1\nname = "needs"\n[packages]\nrequires-from = [{{ file = "{file}" }}]\n')
    desk.drydock("lock")
    before = files(desk)
    done = desk.drydock("add", "anchor==1.0")
    assert done.code in (1, 2)
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert files(desk) == before
