"""[trainer.source]: the trainer's own code by commit and content, brought by the script to wherever it is run."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from builder.project import trainer
from builder.project.catalogue import Catalogue
from tests.conftest import ROOT
from tests.project.test_direct import age, commit, git
from tests.support import Result, Sandbox, Web, make_wheel
from tests.support.waiting import LONG

SOURCE = """
needs = "walk/train.py"
[trainer.source]
git = "{url}/files/walk.git"
rev = "v1.0"
known-by = "walk.sh"
"""
TRAINER = """\
import os, sys
print("trained in", os.getcwd(), "with", sys.argv[1:], "of {release}")
open("log.txt", "a").write("x")
"""


class Desk:
    """A profile whose trainer is in the repository `tree`, tag v1.0, which `web` serves as `served`.

    `empty` is a folder to run in, and `script` the run script.
    """

    def __init__(self, sandbox: Sandbox, web: Web) -> None:
        self.sandbox, self.web = sandbox, web
        self.tree, self.served = sandbox.root / "tree", web.folder / "files/walk.git"
        self.empty = sandbox.root / "empty"
        self.empty.mkdir()
        (self.tree / "walk").mkdir(parents=True)
        git(self.tree, "init", "--quiet")
        (self.tree / "walk.sh").write_text("echo walk\n")
        (self.tree / "walk.sh").chmod(0o755)
        (self.tree / "link").symlink_to("/etc/passwd")
        self.release("v1.0")
        # As in tests/share/test_bundle.py: its wheel of uv has the real one in it.
        files = {f"uv-{version('uv')}.data/scripts/uv": f'#!/bin/sh\nexec {sandbox.environment["DRYDOCK_UV"]} "$@"\n'}
        make_wheel(sandbox.wheels, "uv", version("uv"), tag="py3-none-manylinux_2_17_x86_64", files=files)
        sandbox.profile("small", tail=SOURCE.format(url=web.url))
        path = sandbox.work / "profiles/small.toml"
        head, _, tail = path.read_text().partition('command = ["python", "-c"')
        path.write_text(f'{head}command = ["python", "-m", "walk.train"]{tail.partition("]")[2]}')
        sandbox.drydock("lock", "small").succeeded()
        self.script = sandbox.script("small")

    def release(self, tag: str) -> None:
        """Commit a release, and have it served by the dumb protocol, which knows no shallow clones."""
        (self.tree / "walk/train.py").write_text(TRAINER.format(release=tag))
        commit(self.tree, tag)
        self.serve()

    def serve(self) -> None:
        shutil.rmtree(self.served, ignore_errors=True)
        git(self.tree, "clone", "--quiet", "--bare", ".", str(self.served))
        git(self.served, "update-server-info")

    @property
    def copy(self) -> Path:
        return self.empty / f"walk-{git(self.tree, 'rev-parse', 'v1.0')[:12]}"

    def run(self, *arguments: str, cwd: Path | None = None, **env: str) -> Result:
        """Run the script as on a machine that never saw it: by itself, in a store of its own."""
        environment = {"DRYDOCK_HOME": str(self.sandbox.root / "elsewhere"), **env}
        return self.sandbox.run(["sh", str(self.script), *arguments], cwd=cwd or self.empty, env=environment)

    def forget(self) -> None:
        """As if it was never run: no copy, and nothing in that store but the environment."""
        shutil.rmtree(self.sandbox.root / "elsewhere/cache", ignore_errors=True)
        for one in self.empty.iterdir():
            shutil.rmtree(one)


@pytest.fixture
def desk(sandbox: Sandbox, tmp_path: Path) -> Iterator[Desk]:
    with Web(tmp_path / "served") as web:
        web.folder.mkdir()
        yield Desk(sandbox, web)


@pytest.mark.slow
def test_the_script_brings_the_code_or_uses_the_tree_that_it_is_in(desk: Desk) -> None:
    lock = (desk.sandbox.work / "profiles/small.lock.toml").read_text()
    first = git(desk.tree, "rev-parse", "v1.0").strip()
    assert f'commit = "{first}"' in lock
    assert "127.0.0.1" not in lock
    # Two at once: one copy, whole, and nothing else.
    command = ["sh", str(desk.script), "--", "--steps", "1"]
    env = {**desk.sandbox.environment, "DRYDOCK_HOME": str(desk.sandbox.root / "elsewhere")}
    both = [
        subprocess.Popen(command, cwd=desk.empty, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for one in both:
        out, errors = one.communicate(timeout=LONG)
        assert out == f"trained in {desk.copy} with ['--steps', '1'] of v1.0\n", errors
        assert f"the trainer's code: walk v1.0 ({first[:12]}), in {desk.copy}\n" in errors
    assert list(desk.empty.iterdir()) == [desk.copy]
    assert sorted(path.name for path in desk.copy.iterdir()) == [".drydock-source", "log.txt", "walk", "walk.sh"]
    assert (desk.copy / "walk.sh").stat().st_mode & 0o777 == 0o755
    # It is the user's from then on; neither repository nor archive is asked again.
    shutil.rmtree(desk.served)
    shutil.rmtree(desk.sandbox.root / "elsewhere/cache")
    assert "changed or added" not in desk.run().succeeded().stderr
    (desk.copy / "walk/train.py").write_text("print('mine')\n")
    said = desk.run().succeeded()
    assert (said.stdout, (desk.copy / "log.txt").read_text()) == ("mine\n", "xxx")
    assert "files of its code were changed or added" in said.stderr
    # A working tree is used as it is, and what it is is said.
    said = desk.run(cwd=desk.tree).succeeded()
    assert said.stdout == f"trained in {desk.tree} with [] of v1.0\n"
    assert f"the trainer's code: the working tree {desk.tree}\n" in said.stderr
    desk.release("v2.0")
    second = git(desk.tree, "rev-parse", "HEAD").strip()
    said = desk.run(cwd=desk.tree).succeeded()
    assert f"the working tree {desk.tree}, at commit {second}, which is not walk v1.0\n" in said.stderr
    shutil.rmtree(desk.tree / "walk")
    desk.run(cwd=desk.tree).failed(1, "has walk.sh, but not walk/train.py: it is not walk v1.0", "another folder")


@pytest.mark.slow
def test_what_cannot_be_brought_is_said_before_anything_is_built(desk: Desk) -> None:
    """And leaves nothing: what goes wrong once is right the next time."""
    store = desk.sandbox.root / "elsewhere/store"
    tools = desk.sandbox.root / "tools"
    tools.mkdir()
    for folder in map(Path, ("/bin", "/usr/bin")):
        for one in folder.iterdir():
            if not one.name.startswith("git") and not (tools / one.name).exists():
                (tools / one.name).symlink_to(one)
    desk.run(PATH=str(tools)).failed(1, "git is not there", "install it", "drydock push and pull")
    desk.run(UV_OFFLINE="1").failed(1, "no network is to be used")
    desk.web.password = "secret"
    said = desk.run().failed(1, "git cannot fetch", "it may be private")
    assert "secret" not in said.stderr
    desk.web.password = ""
    desk.web.fault = "cut"
    desk.run().failed(1, "the trainer's code: git cannot fetch")
    desk.web.fault = "stall"
    env = {**desk.sandbox.environment, "DRYDOCK_HOME": str(store.parent)}
    child = subprocess.Popen(["sh", str(desk.script)], cwd=desk.empty, env=env, stderr=subprocess.PIPE)
    desk.web.requests.clear()
    while not desk.web.requests:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    desk.web.fault = ""
    script = desk.script.read_text()
    digest = script.partition(".source.zip ")[2][:64]
    desk.script.write_text(script.replace(digest, 64 * "0"))
    desk.run().failed(1, "is not what was locked", "find out why")
    desk.script.write_text(script)
    desk.copy.mkdir()
    (desk.copy / "mine").touch()
    desk.run().failed(1, "is in the way: it is not a copy of the trainer's code", "move it away")
    assert [path.name for path in desk.copy.iterdir()] == ["mine"]
    shutil.rmtree(desk.copy)
    assert not list(desk.empty.iterdir())
    assert not [path for path in store.iterdir() if path.name.endswith("-small")]
    # The commit is gone with the tag that was moved.
    before = desk.copy
    (desk.tree / "walk/train.py").write_text("print('other')\n")
    git(desk.tree, "commit", "--quiet", "--all", "--amend", "-m", "other")
    git(desk.tree, "tag", "--force", "v1.0")
    desk.serve()
    shutil.rmtree(desk.sandbox.root / "elsewhere/cache")
    desk.run().failed(1, "does not have commit")
    built = desk.run("--build-only").succeeded()
    assert "note: the trainer's code: the repository does not have commit" in built.stderr
    # A lock that is fresh stays; what moved is taken where that is asked for.
    assert "is fresh" in desk.sandbox.drydock("lock", "small").succeeded().stderr
    assert "~ trainer.source" in desk.sandbox.drydock("lock", "small", "--upgrade", "trainer").succeeded().stdout
    assert desk.copy != before


@pytest.mark.slow
def test_it_travels_with_mirrors_and_bundles_and_a_collection_keeps_it(desk: Desk) -> None:
    sandbox, mirror = desk.sandbox, desk.sandbox.root / "mirror"
    cache = sandbox.store.parent / "cache/built"
    shutil.rmtree(cache)
    sandbox.drydock("push", "small", str(mirror)).succeeded()
    assert not (mirror / "simple/walk").exists(), "it is no package"
    shutil.rmtree(desk.served)
    bundle = sandbox.root / "small.run"
    sandbox.drydock("bundle", "small", "-o", str(bundle)).succeeded()
    (archive,) = mirror.rglob("*.source.zip")
    content = archive.read_bytes()
    # A cache that has something else is passed over, with a warning.
    archive.write_bytes(b"other")
    desk.run(DRYDOCK_CACHE=str(mirror)).failed(
        1, "another file under this name; going on without it", "git cannot fetch"
    )
    archive.write_bytes(content)
    assert "of v1.0" in desk.run(DRYDOCK_CACHE=str(mirror), UV_OFFLINE="1").succeeded().stdout
    desk.forget()
    there = {"DRYDOCK_HOME": str(sandbox.root / "third"), "DRYDOCK_PYTHON": sandbox.environment["DRYDOCK_PYTHON"]}
    assert "of v1.0" in sandbox.run(["sh", str(bundle)], cwd=desk.empty, env=there).succeeded().stdout
    desk.forget()
    sandbox.drydock("pull", "small", str(mirror)).succeeded()
    shutil.rmtree(mirror)
    sandbox.drydock("build", "small", env={"UV_OFFLINE": "1"}).succeeded()
    shutil.rmtree(sandbox.store.parent / "cache/mirror")
    (kept,) = cache.iterdir()
    age(kept, 2 * 86_400)
    sandbox.drydock("store", "gc").succeeded()
    assert "of v1.0" in sandbox.drydock("run", "small", cwd=sandbox.work).succeeded().stdout
    # What was changed is found, and fetched again.
    (kept / archive.name).chmod(0o644)
    (kept / archive.name).write_bytes(content.replace(b"v1.0", b"v6.6"))
    sandbox.drydock("store", "verify").failed(1)
    desk.serve()
    sandbox.drydock("store", "verify", "--repair").succeeded()
    shutil.rmtree(sandbox.work / desk.copy.name)
    assert "of v1.0" in sandbox.drydock("run", "small").succeeded().stdout
    # Without a script that names it, it goes.
    sandbox.trainer("print('none')")
    sandbox.drydock("lock", "small").succeeded()
    shutil.rmtree(desk.script.parent)
    sandbox.drydock("render", "small", "--out", str(desk.script.parent)).succeeded()
    sandbox.drydock("build", "small").succeeded()
    age(kept, 2 * 86_400)
    assert "no script names this code of a trainer" in sandbox.drydock("store", "gc").succeeded().stdout
    assert not kept.exists()


@pytest.mark.slow
def test_nothing_of_it_is_fetched_before_the_profile_is_agreed_to(desk: Desk) -> None:
    team = desk.sandbox.root / "team"
    team.mkdir()
    (desk.sandbox.work / "drydock.toml").write_text(f'[sources.team]\npath = "{team}"\n')
    shutil.move(desk.sandbox.work / "profiles/small.toml", team)
    desk.web.requests.clear()
    desk.sandbox.drydock("lock", "team:small").failed(1, "nobody has agreed", f"code     {desk.web.url}/files/walk.git")
    assert not [path for path in desk.web.requests if path.startswith("/files/")]
    desk.sandbox.drydock("lock", "team:small", "--yes").succeeded()
    assert [path for path in desk.web.requests if path.startswith("/files/")]


@pytest.mark.slow
def test_what_is_no_source_is_refused(desk: Desk) -> None:
    path = desk.sandbox.work / "profiles/small.toml"
    right = path.read_text()
    for old, new, words in (
        ("http://127", "http://me:secret@127", "a user name or password has no place"),
        ("http://127.0.0.1", "http://host", "neither encrypted"),
        ('rev = "v1.0"', 'rev = "--upload-pack=x"', "not a tag"),
        ('rev = "v1.0"', 'rev = "v9"', 'no tag and no branch "v9"'),
        ("/files/walk.git", "/files/walk.git@v1", "not a tag, a branch or a commit"),
        ('needs = "walk/train.py"', 'needs = "walk/none.py"', "does not have walk/none.py, which the trainer needs"),
    ):
        path.write_text(right.replace(old, new))
        said = desk.sandbox.drydock("lock", "small", "--upgrade", "trainer").failed(1, words, "profiles/small.toml")
        assert "secret" not in said.stderr


def test_the_real_repository_has_what_the_built_in_profiles_are_locked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = Catalogue([ROOT / "profiles"])
    named, locked = catalogue.profile("m4").trainer.source, catalogue.lock("m4").trainer
    assert named is not None
    assert locked is not None
    others = [catalogue.lock(name).trainer for name in ("m4-upstream", "arm64", "cuda", "cpu-swarm")]
    assert others == [locked] * 4
    try:
        asked = subprocess.run(["git", "ls-remote", named.git, named.rev], capture_output=True, text=True, timeout=15)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{named.git} does not answer")
    if asked.returncode:
        pytest.skip(f"{named.git} is out of reach: {asked.stderr.strip()}")
    monkeypatch.setenv("DRYDOCK_HOME", str(tmp_path))
    with zipfile.ZipFile(trainer.bring(catalogue.profile("m4"), locked)) as archive:
        assert catalogue.profile("m4").trainer.needs in archive.namelist()
