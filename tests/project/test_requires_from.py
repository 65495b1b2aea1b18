"""`[packages] requires-from`: the project's own files say what is required, and a change of them is noticed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from builder.project.catalogue import Catalogue
from builder.project.requirements.files import paths_of
from builder.project.requirements.model import Imported
from builder.project.requirements.pip import read_requirements
from builder.project.requirements.pyproject import Wanted, read_pyproject
from tests.support import Index, Sandbox, make_wheel

PYPROJECT = """\
[project]
name = "lantern"
version = "1.0"
requires-python = ">=3.10"
dependencies = ["anchor>=1", "lantern[fast]"]

[project.optional-dependencies]
fast = ["quick"]
slow = ["steady; sys_platform == 'linux'", "steady-mac; sys_platform == 'darwin'"]

[dependency-groups]
test = [{ include-group = "more" }]
more = ["checked"]
"""


@pytest.fixture
def desk(sandbox: Sandbox) -> Sandbox:
    """A desk with the packages that the files name, and a pyproject.toml."""
    for name in ("quick", "steady", "steady-mac", "checked"):
        make_wheel(sandbox.wheels, name, "1.0")
    (sandbox.work / "pyproject.toml").write_text(PYPROJECT)
    return sandbox


def profile(desk: Sandbox, said: str, *, more: str = "", name: str = "small") -> Path:
    """The minimal profile, which requires what `said` says, and `more` in [packages]."""
    path = desk.profile(name)
    path.write_text(path.read_text().replace('requires = ["anchor"]', f"requires-from = {said}\n{more}"))
    return path


def read(desk: Sandbox, name: str = "small") -> dict[str, Any]:
    return tomllib.loads((desk.work / f"profiles/{name}.lock.toml").read_text())


def locked(desk: Sandbox, name: str = "small") -> set[str]:
    return {package["name"] for package in read(desk, name)["packages"]}


def test_a_project_says_once_what_it_requires(desk: Sandbox) -> None:
    """Extras, groups, markers of the target; the project's own name means itself."""
    profile(desk, '{ file = "pyproject.toml", extras = ["Slow"], groups = ["test"] }')
    desk.drydock("lock", "small").succeeded()
    assert locked(desk) == {"anchor", "quick", "steady", "checked"}
    assert "lantern" not in {path.split("/")[2] for path in desk.index.requests if path.startswith("/simple/")}
    assert desk.drydock("run", "small").succeeded().stdout == "trained with 1.0\n"
    profile(desk, '{ file = "pyproject.toml" }')
    desk.drydock("lock", "small").succeeded()
    assert locked(desk) == {"anchor", "quick"}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("requirements.txt", "anchor>=1\n-r needs/more.in\n"),
        ("needs/more.in", "anchor\nquick\n"),
        ("requirements.txt", "lantern\n"),
        ("requirements.txt", "-e .\n"),
        ("train.py", "# /// script\n# dependencies = ['anchor', 'quick']\n# ///\nimport anchor\n"),
    ],
)
def test_other_files_that_say_it(desk: Sandbox, file: str, text: str) -> None:
    for path, content in (("needs/more.in", "quick\n"), (file, text)):
        (desk.work / path).parent.mkdir(exist_ok=True)
        (desk.work / path).write_text(content)
    profile(desk, f'[{{ file = "{file}" }}]')
    desk.drydock("lock", "small").succeeded()
    assert locked(desk) == {"anchor", "quick"}


@pytest.mark.slow
def test_a_change_of_the_file_is_named(desk: Sandbox) -> None:
    """By `lock --check`, a build, `run` and the doctor; what is not required may change."""
    profile(desk, '{ file = "pyproject.toml" }')
    desk.drydock("lock", "small").succeeded()
    desk.drydock("build", "small").succeeded()
    before = (desk.work / "profiles/small.lock.toml").read_bytes()
    file = desk.work / "pyproject.toml"
    file.write_text(PYPROJECT.replace('"1.0"', '"2.0"') + "[tool.ruff]\nline-length = 120\n")
    desk.drydock("lock", "--check", "small").succeeded()
    file.write_text(PYPROJECT.replace('"anchor>=1"', '"checked", "anchor>=0.5"'))
    words = ("the lock is stale: pyproject.toml has changed", "+ checked", "- anchor>=1", "drydock lock small")
    for command in (("lock", "--check"), ("build",)):
        desk.drydock(*command, "small").failed(1, *words)
    assert words[0] in desk.drydock("run", "small").succeeded().stderr  # what is built, as ever
    assert (
        "pyproject.toml has changed (+ anchor>=0.5, + checked, - anchor>=1)" in desk.drydock("doctor", "small").stdout
    )
    assert (desk.work / "profiles/small.lock.toml").read_bytes() == before
    desk.drydock("lock", "small").succeeded()
    assert "checked" in locked(desk)
    file.write_text(PYPROJECT)
    done = desk.drydock("lock", "small").succeeded()
    assert done.stdout == "small: - checked 1.0\n"


def test_what_the_profile_says_of_a_package_counts(desk: Sandbox) -> None:
    make_wheel(desk.wheels, "anchor", "0.9")
    profile(desk, '{ file = "pyproject.toml" }', more='requires = ["Anchor==0.9"]')
    desk.drydock("lock", "small").succeeded()
    assert {row["name"]: row["version"] for row in read(desk)["packages"]} == {"anchor": "0.9", "quick": "1.0"}


def test_the_day_of_the_project_is_that_of_the_profile(desk: Sandbox) -> None:
    """What uv is told; a day of the profile itself counts more."""
    uv = "[tool.uv]\nexclude-newer = '2025-01-02'\nexclude-newer-package = { anchor = '2025-02-03', six = false }\n"
    (desk.work / "pyproject.toml").write_text(f"[project]\ndependencies = ['anchor']\n{uv}")
    profile(desk, '{ file = "pyproject.toml" }')
    found = Catalogue([desk.work / "profiles"]).profile("small").packages
    assert (found.exclude_newer, found.exclude_newer_package) == (
        "2025-01-02",
        {"anchor": "2025-02-03", "six": False},
    )
    profile(desk, '{ file = "pyproject.toml" }', more='exclude-newer = "2024-12-31"\n')
    assert Catalogue([desk.work / "profiles"]).profile("small").packages.exclude_newer == "2024-12-31"


def test_parts_and_profiles_add_to_each_other(desk: Sandbox) -> None:
    desk.file("needs.toml", 'schema = 1\nname = "needs"\n[packages]\nrequires-from = { file = "pyproject.toml" }\n')
    path = profile(desk, '{ file = "pyproject.toml", extras = ["slow"] }')
    path.write_text(path.read_text().replace("\n[target]", 'extends = ["needs"]\n[target]'))
    desk.drydock("lock", "small").succeeded()
    assert locked(desk) == {"anchor", "quick", "steady"}
    assert [row["file"] for row in read(desk)["requires-from"]] == ["pyproject.toml"]


def test_an_index_of_the_project_is_that_of_the_profile(desk: Sandbox, tmp_path: Path) -> None:
    """As [tool.uv.sources] says, for the extra that is wanted; an index is moved by its name."""
    make_wheel(tmp_path / "second", "quick", "2.0")
    (desk.work / "pyproject.toml").write_text(
        PYPROJECT + '[[tool.uv.index]]\nname = "team"\nurl = "https://host.example/simple"\nexplicit = true\n'
        '[tool.uv.sources]\nquick = [{ index = "team", extra = "slow" }]\n'
    )
    profile(desk, '{ file = "pyproject.toml", extras = ["slow"] }')
    with Index(tmp_path / "second") as second:
        desk.drydock("lock", "small", env={"DRYDOCK_INDEX_TEAM": second.url}).succeeded()
    assert [row["version"] for row in read(desk)["packages"] if row.get("index") == "team"] == ["2.0"]
    desk.drydock("render", "small").succeeded()
    profile(desk, '{ file = "pyproject.toml" }')
    desk.drydock("lock", "small", "--upgrade-all").succeeded()
    assert all("index" not in row for row in read(desk)["packages"])


def test_a_package_of_the_project_itself_comes_from_its_folder(tmp_path: Path) -> None:
    """A path, a member of the workspace, and what these have from there themselves: no index is asked for the names."""

    def project(folder: str, name: str, requires: str, uv: str) -> str:
        path = tmp_path / folder / "pyproject.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'[project]\nname = "{name}"\nversion = "1"\ndependencies = [{requires}]\n[tool.uv{uv}')
        return path.read_text()

    project("libs/deep", "Deep_Core", "'anchor'", "]")
    project("libs/old", "hull", "", "]")
    project("libs/mid", "mid", "'deep-core', 'top'", ".sources]\ndeep-core = { workspace = true }\n")
    project("elsewhere", "hull", "'mid[x] >= 1'", ".sources]\nmid = { path = '../libs/mid' }\n")
    uv = '.workspace]\nmembers = ["libs/*", "elsewhere"]\nexclude = ["libs/o*"]\n[tool.uv.sources]\n'
    text = project(".", "top", "'hull'", f"{uv}hull = {{ workspace = true }}\n")
    wanted = Wanted(local=paths_of(tmp_path))

    def read(path: str, _where: object) -> str:
        return (tmp_path / path).read_text()

    def places(read: Imported) -> dict[str, str | None]:
        return {one.name: one.url for one in map(Requirement, read.requires)}

    found = read_pyproject("pyproject.toml", text, wanted, read)
    assert places(found) == {"hull": "./elsewhere", "mid": "./libs/mid", "deep-core": "./libs/deep"}
    inner = read_pyproject("libs/mid/pyproject.toml", read("libs/mid/pyproject.toml", None), wanted, read)
    assert places(inner) == {"top": None, "deep-core": "./libs/deep"}
    (tmp_path / "dist").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/pyproject.toml").write_text("[tool.docs]\n")
    make_wheel(tmp_path / "dist", "anchor", "1.0")
    lines = "./libs/mid[x] ; python_version > '3'\n./dist/anchor-1.0-py3-none-any.whl\n./old\n./docs\n./dist/gone.whl\n"
    listed = read_requirements("libs/needs.txt", lines, read, wanted)
    assert places(listed) == {"mid": "./libs/mid", "anchor": "./dist/anchor-1.0-py3-none-any.whl", "hull": "./libs/old"}
    assert [str(one).split(": ")[1] for one in listed.left_out] == ["./docs", "./dist/gone.whl"]
    (tmp_path / "libs/deep").rename(tmp_path / "gone")
    lost = read_pyproject("libs/mid/pyproject.toml", read("libs/mid/pyproject.toml", None), wanted, read)
    assert (lost.requires, [one.package for one in lost.left_out]) == (["top"], ["deep-core"])


def test_versions_are_the_same_over_targets_where_they_can_be(desk: Sandbox) -> None:
    """The second lock takes those of the first; where it cannot, that is said. A new package is the same in both."""
    mac = "macosx_11_0_arm64"
    make_wheel(desk.wheels, "quick", "2.0", tag="py3-none-manylinux_2_17_x86_64")
    make_wheel(desk.wheels, "quick", "1.5", tag=f"py3-none-{mac}")
    make_wheel(desk.wheels, "uv", next(desk.wheels.glob("uv-*.whl")).name.split("-")[1], tag=f"py3-none-{mac}")
    profile(desk, '{ file = "pyproject.toml" }', name="a")
    path = profile(desk, '{ file = "pyproject.toml" }', name="b")
    target = 'platform = "linux-x86_64"\naccelerator = "cpu"\nglibc = "2.17"'
    path.write_text(path.read_text().replace(target, 'platform = "macos-arm64"\naccelerator = "mps"\nmin-os = "14.0"'))
    desk.drydock("lock", "a").succeeded()
    make_wheel(desk.wheels, "anchor", "2.0")
    done = desk.drydock("lock").succeeded()
    assert {row["name"]: row["version"] for row in read(desk, "b")["packages"]} == {"anchor": "1.0", "quick": "1.5"}
    assert done.stderr.splitlines()[-1] == "versions that differ: quick 2.0 in a, 1.5 in b"
    (desk.work / "pyproject.toml").write_text(PYPROJECT.replace('"anchor>=1"', '"anchor>=1", "checked"'))
    desk.drydock("lock", "b").succeeded()
    make_wheel(desk.wheels, "checked", "2.0")
    desk.drydock("lock", "a").succeeded()
    assert {row["version"] for name in "ab" for row in read(desk, name)["packages"] if row["name"] == "checked"} == {
        "1.0"
    }
    make_wheel(desk.wheels, "quick", "1.5", tag="py3-none-manylinux_2_17_x86_64")
    done = desk.drydock("lock", "--upgrade-all").succeeded()
    assert "versions that differ" not in done.stderr  # the Mac has no 2.0, and both have 1.5
    assert {row["version"] for name in "ab" for row in read(desk, name)["packages"] if row["name"] == "anchor"} == {
        "2.0"
    }


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("pyproject.toml", "[project\n", ["pyproject.toml:1", "not TOML"]),
        ("pyproject.toml", "[tool.ruff]\n", ["pyproject.toml", "there is no [project] in it"]),
        ("pyproject.toml", "[project]\ndependencies = [\n'anchor',\n'anch or']\n", ["pyproject.toml:4", "anch or"]),
        ("pyproject.toml", '[project]\ndynamic = ["dependencies"]\n', ["pyproject.toml:2", "dynamic"]),
        (
            "pyproject.toml",
            '[project]\ndynamic = ["dependencies"]\n[tool.setuptools.dynamic]\ndependencies = { file = ["r.txt"] }\n',
            ["pyproject.toml:2", "r.txt does not exist"],
        ),
        ("pyproject.toml", '[project]\nrequires-python = ">=3.12"\n', ["pyproject.toml:2", 'version = "3.']),
        (
            "pyproject.toml",
            "[project]\ndependencies = ['anchor @ git+https://me:tok3n@host.example/anchor']\n",
            ["pyproject.toml:2", "a place", 'requires = ["anchor==..."]'],
        ),
        (
            "pyproject.toml",
            "[project]\ndependencies = ['anchor']\n[tool.uv.sources]\nanchor = { path = '../anchor' }\n",
            ["pyproject.toml:4", "comes from elsewhere", 'requires = ["anchor==..."]'],
        ),
        ("requirements.txt", "anchor\n./lib\n", ["requirements.txt:2", "./lib", "a place", "small.toml:14"]),
        ("requirements.txt", "-r ../other.txt\n", ["requirements.txt:1", "leads out"]),
        ("requirements.txt", "-r gone.txt\n", ["requirements.txt:1", "gone.txt does not exist"]),
        ("requirements.txt", None, ["small.toml:14", "requirements.txt does not exist"]),
        ("environment.yml", "name: x\n", ["small.toml:14", "not a file of requirements"]),
    ],
)
def test_what_a_file_cannot_say_is_an_error_with_its_line(
    desk: Sandbox, file: str, text: str | None, words: list[str]
) -> None:
    """Before an index is asked; nothing is written."""
    if text is not None:
        (desk.work / file).write_text(text)
    profile(desk, f'{{ file = "{file}" }}')
    done = desk.drydock("lock", "small").failed(1, *words)
    assert "tok3n" not in done.stderr
    assert desk.index.requests == []
    assert not (desk.work / "profiles/small.lock.toml").exists()


def test_the_profile_can_say_what_a_file_cannot(desk: Sandbox) -> None:
    (desk.work / "requirements.txt").write_text("anchor @ git+https://host.example/anchor\nquick\n--pre\n")
    profile(desk, '{ file = "requirements.txt" }', more='requires = ["anchor==1.0"]')
    done = desk.drydock("lock", "small").succeeded()
    assert locked(desk) == {"anchor", "quick"}
    assert "not carried over: requirements.txt:3: --pre" in done.stderr


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ('{ file = "../pyproject.toml" }', "must be a plain path inside the project"),
        ('{ file = "pyproject.toml", extra = ["x"] }', 'did you mean "extras"?'),
        ('{ file = "pyproject.toml", extras = ["gone"] }', 'there is no extra "gone"'),
        ('{ file = "pyproject.toml", groups = ["gone"] }', 'there is no group "gone"'),
        ('{ file = "train.py", extras = ["x"] }', "has neither extras nor groups"),
        ('"pyproject.toml"', "small.toml:14"),
    ],
)
def test_what_a_profile_cannot_say(desk: Sandbox, said: str, words: str) -> None:
    (desk.work / "train.py").write_text("")
    profile(desk, said)
    desk.drydock("lock", "small").failed(1, words)


def test_a_link_out_of_the_project_is_refused(desk: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("anchor\n")
    (desk.work / "requirements.txt").symlink_to(tmp_path / "secret.txt")
    profile(desk, '{ file = "requirements.txt" }')
    desk.drydock("lock", "small").failed(1, "leads out of the project")


def test_a_group_that_includes_itself_is_refused_and_extras_that_do_come_to_an_end(desk: Sandbox) -> None:
    (desk.work / "pyproject.toml").write_text(
        '[project]\nname = "lantern"\n[project.optional-dependencies]\na = ["lantern[b]", "anchor"]\n'
        'b = ["lantern[a]", "quick"]\n[dependency-groups]\nround = [{ include-group = "round" }]\n'
    )
    profile(desk, '{ file = "pyproject.toml", groups = ["round"] }')
    desk.drydock("lock", "small").failed(1, "the group round includes itself", "pyproject.toml:7")
    (desk.work / "pyproject.toml").write_text((desk.work / "pyproject.toml").read_text().partition("[dependency")[0])
    profile(desk, '{ file = "pyproject.toml", extras = ["a"] }')
    desk.drydock("lock", "small").succeeded()
    assert locked(desk) == {"anchor", "quick"}


def test_where_one_target_cannot_be_locked_the_others_of_the_same_requirements_keep_their_locks(desk: Sandbox) -> None:
    for name in ("first", "last"):
        profile(desk, '{ file = "pyproject.toml" }', name=name)
    desk.drydock("lock", "first").succeeded()
    before = (desk.work / "profiles/first.lock.toml").read_text()
    make_wheel(desk.wheels, "quick", "2.0", tag="py3-none-manylinux_2_17_x86_64")
    (desk.work / "pyproject.toml").write_text(
        PYPROJECT.replace("anchor>=1", "anchor>=1,<2").replace("quick", "quick>1")
    )
    last = desk.work / "profiles/last.toml"
    last.write_text(last.read_text().replace("linux-x86_64", "linux-arm64"))
    failed = desk.drydock("lock").failed(
        1, "quick", "warning: the locks of first, of the same requirements, are as they"
    )
    assert re.search(r"^first: .*quick", failed.stdout, re.MULTILINE), "it was locked, and is taken back"
    assert (desk.work / "profiles/first.lock.toml").read_text() == before
    assert not (desk.work / "profiles/last.lock.toml").exists()
