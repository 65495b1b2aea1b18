"""Requirements that name a place (git, URL, wheel, folder): locked by content, built once, the same wheel elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.support import Sandbox, Web, make_sdist, make_wheel

PROJECT = """\
[build-system]
requires = ["setuptools>=61"]
build-backend = "setuptools.build_meta"
[project]
name = "rope"
version = "{version}"
dependencies = ["anchor"]
[project.scripts]
rope = "rope:main"
"""


@pytest.fixture
def desk(sandbox: Sandbox, setuptools: Path) -> Sandbox:
    """A desk whose index has setuptools."""
    shutil.copy(setuptools, sandbox.wheels)
    return sandbox


def source(folder: Path, version: str = "1.0", text: str = "x = 1\n") -> Path:
    """The folder of a package."""
    (folder / "src/rope").mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(PROJECT.format(version=version))
    (folder / "src/rope/__init__.py").write_text(f"{text}def main(): print(x)\n")
    return folder


def git(folder: Path, *words: str) -> str:
    """What git says."""
    who = ["-c", "user.name=me", "-c", "user.email=me@example.org", "-c", "init.defaultBranch=main"]
    return subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True, text=True).stdout


def repository(folder: Path) -> Path:
    """A repository with the package, at the tag v1.0."""
    source(folder)
    git(folder, "init", "--quiet")
    commit(folder, "v1.0")
    return folder


def commit(folder: Path, tag: str) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", tag)
    git(folder, "tag", "--force", tag)


def require(desk: Sandbox, *requirements: str) -> Path:
    """The minimal profile with other requirements."""
    path = desk.profile("small")
    path.write_text(path.read_text().replace('requires = ["anchor"]', f"requires = {list(requirements)!r}"))
    return path


def locked(desk: Sandbox, name: str = "rope") -> dict[str, Any]:
    """A package of the lock."""
    rows = tomllib.loads((desk.work / "profiles/small.lock.toml").read_text())["packages"]
    return next(row for row in rows if row["name"] == name)


def elsewhere(desk: Sandbox) -> dict[str, str]:
    """The environment of a machine that has built nothing yet."""
    return {"DRYDOCK_HOME": str(desk.root / "elsewhere")}


def imported(desk: Sandbox, env: str) -> str:
    """What the package says in an environment."""
    return desk.run([f"{env.strip()}/bin/rope"]).succeeded().stdout


@pytest.mark.slow
def test_a_repository_is_locked_by_commit_and_content_and_is_the_same_wheel_elsewhere(desk: Sandbox) -> None:
    place, chain, link = repository(desk.root / "remote"), desk.root / "chain", desk.root / "link"
    for folder, text, below in ((link, "x = 1\n", None), (chain, "from .link import x\n", "link")):
        folder.mkdir()
        git(folder, "init", "--quiet")
        (folder / "__init__.py").write_text(text)
        if below:
            git(folder, "-c", "protocol.file.allow=always", "submodule", "add", f"../{below}")
        commit(folder, "v1.0")
    git(place, "-c", "protocol.file.allow=always", "submodule", "add", f"file://{chain}", "src/rope/chain")
    source(place, text="from .chain import x\n")
    commit(place, "v1.0")
    (link / "__init__.py").write_text("x = 3\n")  # later than what the repository names
    commit(link, "v2.0")
    require(desk, f"rope @ git+file://{place}@v1.0")
    desk.drydock("lock", "small").succeeded()
    row = locked(desk)
    assert row["file"] == "rope-1.0-py3-none-any.whl"
    assert row["origin"]["commit"] == git(place, "rev-parse", "HEAD").strip()
    assert str(place) not in (desk.work / "profiles/small.lock.toml").read_text()
    assert locked(desk, "anchor")["required-by"] == ["rope"]
    assert imported(desk, desk.drydock("build", "small").succeeded().stdout) == "1\n"
    # Later commits, and a moved branch, change nothing.
    source(place, text="x = 2\n")
    commit(place, "v2.0")
    desk.drydock("lock", "small", "--check").succeeded()
    there = desk.drydock("build", "small", env=elsewhere(desk)).succeeded()
    assert "building rope from" in there.stderr
    assert imported(desk, there.stdout) == "1\n"
    # It goes to mirrors as any wheel does, and a machine with that mirror asks for no repository.
    mirror = desk.root / "mirror"
    desk.drydock("push", "small", str(mirror)).succeeded()
    shutil.rmtree(place)
    env = {"DRYDOCK_HOME": str(desk.root / "third"), "DRYDOCK_CACHE": str(mirror)}
    assert imported(desk, desk.drydock("build", "small", env=env).succeeded().stdout) == "1\n"


@pytest.mark.slow
def test_a_bisection_builds_what_the_older_lock_has_of_a_place(desk: Sandbox) -> None:
    place, profiles = repository(desk.root / "remote"), desk.work / "profiles"
    require(desk, f"rope @ git+file://{place}@main")
    desk.drydock("lock", "small").succeeded()
    shutil.copy(profiles / "small.lock.toml", desk.work / "old.lock.toml")
    source(place, "1.1", text="x = 2\n")
    commit(place, "v1.1")
    desk.drydock("lock", "small", "--upgrade", "rope").succeeded()
    test = ["python", "-c", "import rope, sys; sys.exit(rope.x == 2)"]
    done = desk.drydock("bisect", "small", "--good", "old.lock.toml", "--", *test, env=elsewhere(desk)).succeeded()
    assert "broken by: ~ rope 1.0 -> 1.1" in done.stdout


@pytest.mark.slow
def test_a_tag_that_was_moved_and_a_repository_that_is_gone_are_said(desk: Sandbox) -> None:
    place = repository(desk.root / "remote")
    require(desk, f"rope @ git+file://{place}@v1.0")
    desk.drydock("lock", "small").succeeded()
    before = (desk.work / "profiles/small.lock.toml").read_bytes()
    source(place, "1.1")
    commit(place, "v1.0")
    desk.drydock("build", "small", env=elsewhere(desk)).failed(
        1, "the tag v1.0 was moved", "drydock lock --upgrade rope"
    )
    require(desk, f"rope @ git+file://{place}@v1.0", "anchor")
    desk.drydock("lock", "small").succeeded()  # what is there stays
    assert locked(desk)["version"] == "1.0"
    desk.drydock("lock", "small", "--upgrade", "rope").succeeded()
    assert locked(desk)["version"] == "1.1"
    (desk.work / "profiles/small.lock.toml").write_bytes(before)
    shutil.rmtree(place)
    require(desk, f"rope @ git+file://{place}@v3.0")
    desk.drydock("lock", "small").failed(1, "git cannot fetch", "profiles/small.toml")
    assert (desk.work / "profiles/small.lock.toml").read_bytes() == before


@pytest.mark.slow
def test_a_url_is_locked_by_sha256_and_other_bytes_are_refused(desk: Sandbox) -> None:
    folder = desk.root / "web"
    wheel = make_wheel(folder, "knot", "1.0")
    make_sdist(folder, "twine", "2.0")
    with Web(folder) as web:
        require(desk, f"knot @ {web.url}/{wheel.name}", f"twine @ {web.url}/twine-2.0.tar.gz", "anchor")
        desk.drydock("lock", "small").succeeded()
        assert locked(desk, "twine")["file"] == "twine-2.0-py3-none-any.whl"
        assert str(web.port) not in (desk.work / "profiles/small.lock.toml").read_text()
        desk.drydock("build", "small").succeeded()
        desk.drydock("build", "small", env=elsewhere(desk)).succeeded()
        make_wheel(folder, "knot", "1.0", files={"knot.py": "other = 1\n"})
        third = {"DRYDOCK_HOME": str(desk.root / "third")}
        desk.drydock("build", "small", env=third).failed(1, "knot @", "it has changed: locked is content")
        require(desk, f"knot @ {web.url}/{wheel.name}#sha256={'0' * 64}")
        desk.drydock("lock", "small").failed(1, "the requirement says 0000")
    desk.drydock("lock", "small").failed(1, "knot @", "cannot be fetched")


@pytest.mark.slow
def test_a_folder_and_a_wheel_of_the_project_are_followed_by_content(desk: Sandbox) -> None:
    source(desk.work / "libs/rope")
    (desk.work / "libs/rope/.git").mkdir()
    wheel = make_wheel(desk.work / "dist", "knot", "1.0")
    require(desk, "rope @ ./libs/rope", f"./dist/{wheel.name}")
    desk.drydock("lock", "small").succeeded()
    assert imported(desk, desk.drydock("build", "small").succeeded().stdout) == "1\n"
    (desk.work / "libs/rope/src/rope/more.py").write_text("y = 1\n")
    stale = "./libs/rope, which rope is built from, has changed"
    desk.drydock("lock", "small", "--check").failed(1, stale, "drydock lock small")
    desk.drydock("build", "small").failed(1, stale)
    desk.drydock("lock", "small").succeeded()
    desk.drydock("build", "small").succeeded()
    make_wheel(desk.work / "dist", "knot", "1.0", files={"knot.py": "other = 1\n"})
    said = desk.drydock("run", "small").succeeded().stderr
    assert f"./dist/{wheel.name}, which knot is built from, has changed" in said
    assert "this is generation 2" in said


@pytest.mark.slow
def test_a_source_that_cannot_be_built_leaves_the_lock_as_it_was(desk: Sandbox) -> None:
    folder = source(desk.work / "rope")
    require(desk, "rope @ ./rope")
    desk.drydock("lock", "small").succeeded()
    before = (desk.work / "profiles/small.lock.toml").read_bytes()
    (folder / "setup.py").write_text("raise SystemExit('no compiler here')\n")
    desk.drydock("lock", "small").failed(1, "rope, from its place", "no compiler here")
    (folder / "setup.py").unlink()
    (folder / "pyproject.toml").unlink()
    desk.drydock("lock", "small").failed(1, "neither pyproject.toml nor setup.py")
    require(desk, "rope @ ./gone")
    desk.drydock("lock", "small").failed(1, "does not exist")
    make_wheel(desk.work / "dist", "knot", "1.0")
    require(desk, "rope @ ./dist/knot-1.0-py3-none-any.whl")
    desk.drydock("lock", "small").failed(1, "rope is required, and at its place is knot")
    assert (desk.work / "profiles/small.lock.toml").read_bytes() == before


@pytest.mark.slow
def test_the_project_itself_is_built_into_the_key(desk: Sandbox) -> None:
    source(desk.work)
    path = require(desk, "anchor")
    path.write_text(path.read_text() + '[project]\npath = "."\nmode = "wheel"\n')
    desk.drydock("lock", "small").succeeded()
    assert locked(desk)["required-by"] == ["profile"]
    desk.drydock("render", "small").succeeded()  # what Drydock writes is not of the project's content
    first = desk.drydock("build", "small").succeeded().stdout
    assert imported(desk, first) == "1\n"
    assert (Path(first.strip()) / "lib/python3.11/site-packages/rope/__init__.py").is_file()
    source(desk.work, text="x = 2\n")
    desk.drydock("build", "small").failed(1, "which rope is built from, has changed", "drydock lock small")
    desk.drydock("lock", "small").succeeded()
    second = desk.drydock("build", "small").succeeded().stdout
    assert second != first
    assert imported(desk, second) == "2\n"
    (desk.work / "pyproject.toml").unlink()
    desk.drydock("lock", "small").failed(1, "no name to build a wheel by", "profiles/small.toml")


@pytest.mark.slow
def test_a_built_wheel_is_kept_as_long_as_an_environment_needs_it(desk: Sandbox) -> None:
    source(desk.work / "rope")
    require(desk, "rope @ ./rope")
    desk.drydock("lock", "small").succeeded()
    first = built(desk) / locked(desk)["sha256"]
    desk.drydock("build", "small").succeeded()
    source(desk.work / "rope", "2.0")
    desk.drydock("lock", "small").succeeded()
    second = built(desk) / locked(desk)["sha256"]
    before = really(desk)
    (second / "more").write_bytes(bytes(4_000_000))
    assert really(desk) - before >= 4_000_000
    age(first, 90_000)
    age(second, 80_000)
    desk.drydock("store", "gc").succeeded()
    assert first.is_dir(), "an environment has it"
    assert second.is_dir(), "its lock is about to be built"
    age(second, 90_000)
    desk.drydock("store", "gc").succeeded()
    assert second.is_dir(), "a lock has it, and another build may be other bytes"
    lock = desk.work / "profiles/small.lock.toml"
    text = lock.read_text()
    lock.write_text(text.replace(second.name, first.name))
    for root in (desk.store.parent / "gcroots/sources").iterdir():
        age(root, 90_000 * 30)
    said = desk.drydock("store", "gc", "--dry-run").succeeded().stdout
    assert f"{second.name}: no environment and no lock has this wheel, which was built here" in said
    assert second.is_dir()
    lock.write_text(text)
    desk.drydock("build", "small").succeeded()
    desk.drydock("generation", "delete", "small", "old").succeeded()
    age(second, 90_000)
    desk.drydock("store", "gc").succeeded()
    assert not first.exists()
    assert second.is_dir()
    shutil.rmtree(second)
    age(built(desk), 90_000)
    desk.drydock("build", "small").succeeded()


@pytest.mark.slow
def test_a_built_wheel_is_pulled_where_its_place_and_every_copy_are_gone(desk: Sandbox) -> None:
    place = repository(desk.root / "remote")
    require(desk, f"rope @ git+file://{place}@v1.0")
    desk.drydock("lock", "small").succeeded()
    desk.drydock("build", "small").succeeded()
    mirror = desk.root / "mirror"
    desk.drydock("push", "small", str(mirror)).succeeded()
    shutil.rmtree(place)
    third = {"DRYDOCK_HOME": str(desk.root / "third"), "UV_CACHE_DIR": str(desk.root / "third-uv")}
    desk.drydock("pull", "small", str(mirror), env=third).succeeded()
    shutil.move(mirror, desk.root / "away")
    there = desk.drydock("build", "small", env={**third, "UV_OFFLINE": "1"}).succeeded()
    assert "building rope" not in there.stderr
    assert imported(desk, there.stdout) == "1\n"


PATCH = """\
--- a/rope/__init__.py
+++ b/rope/__init__.py
@@ -1,2 +1,2 @@
-x = 1
+x = 7
 def main(): print(x)
"""


@pytest.mark.slow
def test_a_package_of_a_place_may_be_patched(desk: Sandbox) -> None:
    place = repository(desk.root / "remote")
    path = require(desk, f"rope @ git+file://{place}@v1.0")
    (desk.work / "profiles/patches").mkdir(exist_ok=True)
    (desk.work / "profiles/proofs").mkdir(exist_ok=True)
    (desk.work / "profiles/patches/rope.patch").write_text(PATCH)
    (desk.work / "profiles/proofs/seven.py").write_text("import rope\nassert rope.x == 7\n")
    path.write_text(
        path.read_text() + '[[patches]]\npackage = "rope"\nversions = "==1.0"\nfile = "patches/rope.patch"\n'
        'proof = "proofs/seven.py"\nwhy = "seven"\n'
    )
    desk.drydock("lock", "small").succeeded()
    assert imported(desk, desk.drydock("build", "small").succeeded().stdout) == "7\n"
    assert imported(desk, desk.drydock("build", "small", env=elsewhere(desk)).succeeded().stdout) == "7\n"
    desk.drydock("verify", "small").succeeded()


def built(desk: Sandbox) -> Path:
    return desk.store.parent / "cache/built"


def really(desk: Sandbox) -> int:
    return int(json.loads(desk.drydock("store", "du", "--json").succeeded().stdout)["real"])


def age(path: Path, seconds: float) -> None:
    """Let a path be that old."""
    long_ago = time.time() - seconds
    os.utime(path, (long_ago, long_ago))


REMEMBERED = """
import sys
from builder.project.catalogue import Catalogue
from builder.project.evaluate import evaluate
evaluate("small", Catalogue())
print("remembered" if "pydantic" not in sys.modules else "evaluated")
"""


def remembered(desk: Sandbox) -> bool:
    """Whether the profile is remembered, and not evaluated; what it was evaluated to is remembered then."""
    done = desk.run([sys.executable, "-c", REMEMBERED], env={"PYTHONPATH": str(ROOT)}).succeeded()
    return done.stdout == "remembered\n"


@pytest.mark.slow
def test_a_profile_with_a_folder_is_remembered_until_a_file_of_it_changes(desk: Sandbox) -> None:
    source(desk.work)
    git(desk.work, "init", "--quiet")
    (desk.work / ".gitignore").write_text("outputs\n")
    path = require(desk, "anchor")
    path.write_text(path.read_text() + '[project]\npath = "."\nmode = "wheel"\n')
    module = desk.work / "src/rope/__init__.py"
    age(module, -1000)
    desk.drydock("lock", "small").succeeded()
    assert not remembered(desk)
    assert not remembered(desk), "what was changed a moment ago may be changed again within the same tick"
    age(module, 1000)
    time.sleep(2.1)
    assert not remembered(desk)
    assert remembered(desk)
    (desk.work / "outputs").mkdir()
    (desk.work / "outputs/model.bin").write_text("x")
    assert remembered(desk), "git ignores it"
    before = module.stat()
    module.write_text(module.read_text().replace("x = 1", "x = 2"))
    os.utime(module, ns=(before.st_atime_ns, before.st_mtime_ns))
    changed = "which rope is built from, has changed"
    desk.drydock("build", "small").failed(1, changed)
    module.write_text(module.read_text().replace("x = 2", "x = 1"))
    time.sleep(2.1)
    assert not remembered(desk)
    assert remembered(desk)
    (desk.work / "src/rope/more.py").write_text("")
    desk.drydock("build", "small").failed(1, changed)
    (desk.work / "src/rope/more.py").unlink()
    assert remembered(desk)
    (desk.work / ".gitignore").write_text("outputs\nsrc\n")
    desk.drydock("build", "small").failed(1, changed)


@pytest.mark.slow
def test_files_of_the_project_may_name_places(desk: Sandbox) -> None:
    place = repository(desk.root / "remote")
    (desk.work / "requirements.txt").write_text(f"git+file://{place}@v1.0#egg=rope\n")
    path = require(desk)
    path.write_text(path.read_text().replace("[trainer]", 'requires-from = { file = "requirements.txt" }\n[trainer]'))
    desk.drydock("lock", "small").succeeded()
    assert locked(desk)["origin"]["commit"]
    (desk.work / "requirements.txt").write_text("rope @ ./elsewhere\n")
    desk.drydock("lock", "small").failed(1, "rope @ ./elsewhere: a place", "requirements.txt:1")


@pytest.mark.slow
def test_nothing_of_a_source_s_profile_is_fetched_or_built_before_it_is_agreed_to(desk: Sandbox) -> None:
    place = repository(desk.root / "remote")
    team = desk.root / "team"
    team.mkdir()
    (desk.work / "drydock.toml").write_text(f'[sources.team]\npath = "{team}"\n')
    shutil.move(require(desk, f"rope @ git+file://{place}@v1.0"), team / "small.toml")
    said = desk.drydock("lock", "team:small").failed(1, "nobody has agreed", f"builds   rope @ git+file://{place}@v1.0")
    assert "fetching" not in said.stderr
    desk.drydock("lock", "team:small", "--yes").succeeded()
    shutil.move(require(desk, "rope @ file:///etc"), team / "small.toml")
    desk.drydock("lock", "team:small", "--yes").failed(1, "no path of this machine")


@pytest.mark.parametrize(
    ("requirement", "words"),
    [
        ("rope @ git+https://me:secret@host/rope@v1", "a user name or password has no place"),
        ("rope @ http://host/rope.whl", "neither encrypted"),
        ("rope @ git+ext::sh@v1", "not a place"),
        ("rope @ git+https://host/rope@--upload-pack=x", "not a tag"),
        ("rope @ https://host/rope", "must end with .whl"),
        ("rope @ https://host/rope.whl#sha256=12", "sha256 must have 64"),
        ("rope @ git+https://host/rope@v1#subdirectory=../..", "plain path"),
        ("./dist", "what is the package called"),
    ],
)
def test_what_is_no_place_is_refused(sandbox: Sandbox, requirement: str, words: str) -> None:
    require(sandbox, requirement)
    said = sandbox.drydock("lock", "small").failed(1, words, "profiles/small.toml")
    assert "secret" not in said.stderr
