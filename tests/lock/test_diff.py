"""What differs between two environments: compared in memory, and found by the program as a user names it."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.errors import DrydockError, ToolError, UsageError
from builder.lock.diff import Side, compare, side_of_lock, side_of_manifest, side_of_profile
from builder.lock.model import Artefact, Lock, LockedOverride, LockedPatch, dump
from builder.profile.model import Profile
from builder.profile.source import Source
from builder.project import refs
from builder.project.catalogue import Catalogue
from builder.report import PlainReporter, explain
from tests.conftest import desk
from tests.support import Sandbox, make_wheel
from tests.support.profiles import load
from tests.support.sandbox import MINIMAL_PROFILE


def artefact(name: str, version: str = "1.0", *, file: str = "", size: int = 1000, sha: str = "") -> Artefact:
    file = file or f"{name}-{version}-py3-none-any.whl"
    return Artefact(name=name, version=version, file=file, size=size, sha256=(sha or version[0]) * 64)


def lock(*packages: Artefact, **more: Any) -> Lock:
    uv = artefact("uv")
    return Lock(schema_=1, profile="small", digest="sha256:0", uv=uv, packages=list(packages), **more)


def side(name: str, *packages: Artefact, **more: Any) -> Side:
    return side_of_lock(name, "lock", lock(*packages, **more))


def of_profile(name: str, text: str) -> Side:
    def read(wanted: str) -> Source:
        return Source(f"{wanted}.toml", text)

    profile: Profile = load("small", read)
    return side_of_profile(name, profile, lock(artefact("anchor")))


def told(before: Side, after: Side) -> list[str]:
    return list(compare(before, after).lines())


# --- compared in memory --------------------------------------------------------------------------------------------


def test_packages_are_added_removed_and_changed_with_their_sizes() -> None:
    before = side("old", artefact("gone"), artefact("kept"), artefact("moved", size=2_000_000))
    after = side("new", artefact("kept"), artefact("moved", "2.0", size=3_500_000), artefact("new", size=12))
    assert told(before, after) == [
        "old -> new",
        "packages: 1 added, 1 removed, 1 changed, 3 -> 3, 2.0 MB -> 3.5 MB",
        "  - gone 1.0  (1.0 kB)",
        "  ~ moved 1.0 -> 2.0  (2.0 MB -> 3.5 MB)",
        "  + new 1.0  (12 B)",
    ]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (
            artefact("torch", file="torch-1.0-cp311-cp311-linux_x86_64.whl", sha="b"),
            "1.0: py3-none-any -> cp311-cp311-linux_x86_64",
        ),
        (artefact("torch", file="torch-1.0.tar.gz", sha="b"), "1.0: py3-none-any -> torch-1.0.tar.gz"),
        (artefact("torch", sha="b"), "1.0: torch-1.0-py3-none-any.whl, sha256 11111111... -> bbbbbbbb..."),
    ],
    ids=["wheel", "source", "same name"],
)
def test_another_file_of_the_same_version_is_a_change(other: Artefact, words: str) -> None:
    assert told(side("old", artefact("torch")), side("new", other))[2] == f"  ~ torch {words}"


def test_the_same_is_no_difference() -> None:
    same = compare(side("old", artefact("a")), side("new", artefact("a")))
    assert list(same.lines()) == ["old and new: no difference"]
    assert same.as_json()["packages"] == []


def test_patches_overrides_and_build_requirements_differ_too() -> None:
    def patch(letter: str) -> LockedPatch:
        return LockedPatch(package="torch", file="patches/fix.patch", sha256=letter * 64, files=[])

    before = side(
        "old",
        patches=[patch("a")],
        build_requires=[artefact("setuptools")],
        overrides=[LockedOverride(requirement="FSspec==1", reason="too low")],
    )
    after = side("new", patches=[patch("b")], overrides=[LockedOverride(requirement="fsspec==2", reason="a\x1b[31mb")])
    assert told(before, after)[1:] == [
        "build-requires: 1 removed",
        "  - setuptools 1.0  (1.0 kB)",
        "patches: 1 changed",
        "  ~ patches/fix.patch (torch)",
        "overrides: 1 changed",
        "  ~ FSspec==1 (too low) -> fsspec==2 (a\\x1b[31mb)",
    ]


def test_two_profiles_differ_in_target_variables_and_trainer() -> None:
    before = MINIMAL_PROFILE.format(
        name="small", head="", tail='[env]\nA = "1"\nB = "x\\ny"\nC = { default = "4", note = "!" }\n'
    )
    after = before.replace('glibc = "2.17"', 'glibc = "2.28"').replace('version = "3.11"', 'version = "3.12"')
    after = after.replace('A = "1"', "A = { unset = true }").replace('B = "x\\ny"\n', "")
    command = next(line for line in before.splitlines() if line.startswith("command"))
    after = after.replace(command, 'command = ["train", "two words"]') + (
        '[[trainer.options]]\nflag = "--game"\nfrom = "GAME"\ndefault = "gsm8k"\nwhen = "ORG_ID"\n'
    )
    found = told(of_profile("old", before), of_profile("new", after))
    assert found[:7] == [
        "old -> new",
        "target: 2 changed",
        "  ~ glibc 2.17 -> 2.28",
        "  ~ python 3.11 -> 3.12",
        "env: 1 removed, 1 changed",
        "  ~ A 1 -> unset",
        '  - B "x\\ny"',
    ]
    assert found[7:9] == ["trainer: 1 added, 1 changed", "  + --game from GAME, default gsm8k, when ORG_ID"]
    assert found[9].endswith(" -> train 'two words'")


def test_what_one_side_does_not_know_is_null_and_not_a_difference() -> None:
    package = {"name": "a", "version": "1.0", "file": "a-1.0-py3-none-any.whl", "sha256": "1" * 64}
    generation = side_of_manifest("small@1", {"plan": {"packages": [package], "build-requires": [], "patches": []}})
    found = compare(generation, side("small", artefact("a"), artefact("b")))
    assert found.unknown == ["overrides", "target", "env", "trainer"]
    assert list(found.lines()) == ["small@1 -> small", "packages: 1 added, 1 -> 2", "  + b 1.0  (1.0 kB)"]
    assert found.as_json() == {
        "before": {"name": "small@1", "kind": "generation", "packages": 1, "size": None},
        "after": {"name": "small", "kind": "lock", "packages": 2, "size": 2000},
        "packages": [
            {
                "name": "b",
                "change": "added",
                "before": None,
                "after": {"version": "1.0", "file": "b-1.0-py3-none-any.whl", "sha256": "1" * 64, "size": 1000},
            }
        ],
        "build-requires": [],
        "python": [],
        "patches": [],
        "overlap": None,
        "overrides": None,
        "target": None,
        "interpreter": None,
        "env": None,
        "trainer": None,
        "data": None,
    }


# --- as a user names them ------------------------------------------------------------------------------------------

BUILT_IN = """\
m4 -> m4-upstream
packages: 4 changed, 108 -> 108, 248.2 MB -> 263.9 MB
  ~ accelerate 1.1.1 -> 1.9.0  (333.2 kB -> 367.1 kB)
  ~ sympy 1.13.1 -> 1.14.0  (6.2 MB -> 6.3 MB)
  ~ torch 2.5.1 -> 2.10.0  (63.9 MB -> 79.4 MB)
  ~ trl 0.18.2 -> 0.19.0  (366.4 kB -> 375.8 kB)
patches: 2 removed
  - patches/accelerate-empty-dataloader.patch (accelerate)
  - patches/accelerate-unwrap-model.patch (accelerate)
env: 2 removed
  - PYTORCH_MPS_HIGH_WATERMARK_RATIO (0.0 from 24 GB of memory on, else 1.0) unless set (with a note)
  - PYTORCH_MPS_LOW_WATERMARK_RATIO (1.4 from 24 GB of memory on, else 0.8) unless set
"""


def test_the_built_in_profiles_for_the_mac(sandbox: Sandbox) -> None:
    shown = sandbox.drydock("diff", "m4", "m4-upstream").succeeded()
    assert (shown.stdout, shown.stderr) == (BUILT_IN, "")


def test_the_built_in_profiles_as_json(sandbox: Sandbox) -> None:
    data = json.loads(sandbox.drydock("diff", "m4-upstream", "m4", "--json").succeeded().stdout)
    assert [change["change"] for change in data["patches"]] == ["added", "added"]
    after = {"detect": "memory-gb", "at-least": 24, "then": "0.0", "otherwise": "1.0"}
    assert (data["env"][0]["name"], data["env"][0]["change"]) == ("PYTORCH_MPS_HIGH_WATERMARK_RATIO", "added")
    assert (data["env"][0]["before"], data["env"][0]["after"]["default"]) == (None, after)


def git(desk: Sandbox, *arguments: str) -> str:
    settings = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
    return desk.run(["git", *settings, *arguments]).succeeded().stdout.strip()


def commit_two(desk: Sandbox) -> Sandbox:
    """Make a desk a folder inside of a repository that has the lock of `small` in two revisions."""
    desk.profile("small")
    path = desk.file("small.lock.toml", dump(lock(artefact("anchor"))))
    git(desk, "init", "-q", "..")
    git(desk, "add", "profiles")
    git(desk, "commit", "-q", "-m", "one")
    path.write_text(dump(lock(artefact("anchor", "2.0"), artefact("chain"))))
    git(desk, "commit", "-q", "-a", "-m", "two")
    return desk


def at(desk: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """This process, sat at a desk."""
    monkeypatch.chdir(desk.work)
    monkeypatch.setenv("DRYDOCK_HOME", str(desk.store.parent))
    monkeypatch.delenv("DRYDOCK_PROFILES", raising=False)
    return desk


@pytest.fixture
def repository(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """A desk in a repository, for one test, which sits at it."""
    return at(commit_two(sandbox), monkeypatch)


@pytest.fixture(scope="module")
def shared_repository(tmp_path_factory: pytest.TempPathFactory, uv_cache: Path) -> Iterator[Sandbox]:
    """A desk in a repository, for looking only."""
    with desk(tmp_path_factory.mktemp("repository"), uv_cache) as made:
        (made.work / "binary.toml").write_bytes(b"\xff")
        made.profile("fresh")
        yield commit_two(made)


def diff(before: str, after: str) -> tuple[list[str], str]:
    """The lines of a difference, and what was said beside them."""
    talk = io.StringIO()
    report = PlainReporter(talk)
    catalogue = Catalogue()
    return told(refs.side(before, catalogue, report), refs.side(after, catalogue, report)), talk.getvalue()


TWO_REVISIONS = """\
HEAD~1:small -> HEAD:small
packages: 1 added, 1 changed, 1 -> 2, 1.0 kB -> 2.0 kB
  ~ anchor 1.0 -> 2.0
  + chain 1.0  (1.0 kB)
"""


def test_two_revisions_of_a_lock(shared_repository: Sandbox) -> None:
    # In a hook of git's, such variables name the repository that it runs for.
    hooked = {"GIT_DIR": ".git", "GIT_INDEX_FILE": ".git/index", "GIT_PREFIX": "elsewhere/"}
    shown = shared_repository.drydock("diff", "HEAD~1:small", "HEAD:small", env=hooked).succeeded()
    assert shown.stdout == TWO_REVISIONS
    assert shown.stderr == "not known for both, so not compared: target, env, trainer\n"


def test_a_lock_file_and_a_stale_lock(shared_repository: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    at(shared_repository, monkeypatch)
    same = "profiles/small.lock.toml and HEAD:small: no difference"
    assert diff("profiles/small.lock.toml", "HEAD:small") == ([same], "")
    lines, talk = diff("small", "HEAD:small")
    assert lines == ["small and HEAD:small: no difference"]
    assert talk == "warning: the lock is stale: small has changed since it was made: drydock lock small\n"


def test_nothing_of_a_repository_runs(repository: Sandbox, tmp_path: Path) -> None:
    ran, evil = tmp_path / "ran", tmp_path / "evil"
    evil.write_text(f'#!/bin/sh\necho "$0 $*" >>{ran}\n')
    evil.chmod(0o755)
    settings = {
        "alias.show": f"!{evil}",
        "core.fsmonitor": evil,
        "core.hooksPath": tmp_path,
        "core.pager": evil,
        "diff.evil.textconv": evil,
        "diff.external": evil,
        "filter.evil.smudge": evil,
        "gpg.program": evil,
        "log.showSignature": "true",
        "pager.show": evil,
    }
    for key, value in settings.items():
        git(repository, "config", key, str(value))
    (tmp_path / ".git/info").mkdir(exist_ok=True)
    (tmp_path / ".git/info/attributes").write_text("*.toml diff=evil filter=evil\n")
    ran.unlink(missing_ok=True)
    assert diff("HEAD~1:small", "HEAD:small")[0] == TWO_REVISIONS.splitlines()
    assert not ran.exists(), ran.read_text()


def test_an_object_that_is_not_there_is_not_fetched(repository: Sandbox, tmp_path: Path) -> None:
    found = git(repository, "rev-parse", "HEAD:./profiles/small.lock.toml")
    settings = {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "protocol.ext.allow": "always",
        "remote.origin.partialclonefilter": "blob:none",
        "remote.origin.promisor": "true",
        "remote.origin.url": f"ext::touch {tmp_path}/fetched",
    }
    for key, value in settings.items():
        git(repository, "config", key, value)
    (tmp_path / ".git/objects" / found[:2] / found[2:]).unlink()
    with pytest.raises(ToolError, match="there is no HEAD:small"):
        diff("HEAD:small", "small")
    assert not (tmp_path / "fetched").exists()
    # The trap is one: git by itself walks into it.
    repository.run(["git", "cat-file", "blob", found])
    assert (tmp_path / "fetched").exists()


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("smal", ['no profile "smal"', 'did you mean "small"?']),
        ("Small", ['no profile "Small"', 'did you mean "small"?']),
        ("base", ["is a part to extend"]),
        ("fresh", ['"fresh" has no lock', "drydock lock fresh"]),
        ("small@7", ['small has no generation "7"', "drydock build small"]),
        ("small@x", ['small has no generation "x"']),
        ("there/is.toml", ["there/is.toml does not exist", "HEAD~1:cpu"]),
        ("profiles", ['no profile "profiles"']),
        ("profiles/small.toml", ["where: profiles/small.toml", "give a lock"]),
        ("binary.toml", ["not UTF-8", "where: binary.toml"]),
        ("nope:small", ["there is no nope:small: ", "git log --oneline -- profiles/small.lock.toml"]),
        ("HEAD:smal", ['no profile "smal"', 'did you mean "small"?']),
        ("HEAD:../small", ['no profile "../small"']),
        ("HEAD:fresh", ["there is no HEAD:fresh: "]),
        ("^HEAD:small", ["where: ^HEAD:small"]),
        ("--output=x:small", ['"--output=x" is not a revision']),
        (":small", ['"" is not a revision']),
        ("", ['no profile ""']),
        ("small\n", ["no profile"]),
    ],
)
def test_what_is_not_there_is_an_error_in_words(
    shared_repository: Sandbox, monkeypatch: pytest.MonkeyPatch, word: str, words: list[str]
) -> None:
    at(shared_repository, monkeypatch)
    with pytest.raises(DrydockError) as error:
        diff("small", word)
    for part in [*words, "hint: "]:
        assert part in explain(error.value)


def test_an_option_is_no_revision(shared_repository: Sandbox) -> None:
    refused = shared_repository.drydock("diff", "--", "--output=x:small", "small").failed(2, '"--output=x" is not')
    assert refused.stdout == ""
    assert not (shared_repository.work / "x").exists()


def test_without_git_and_outside_of_a_repository(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(sandbox, monkeypatch).profile("small")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    with pytest.raises(ToolError, match="there is no HEAD:small: not a git repository"):
        diff("HEAD:small", "small")
    gone = sandbox.drydock("diff", "HEAD:small", "small", env={"PATH": str(tmp_path)})
    gone.failed(1, "git cannot be run", "hint: a lock in a revision is read with git")


def test_a_generation_and_its_profile(built: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    at(built, monkeypatch)
    assert diff("small@1", "small") == (["small@1 and small: no difference"], "")
    with pytest.raises(UsageError) as error:
        diff("small@2", "small")
    assert error.value.hint == "it has: 1"


@pytest.mark.parametrize("manifest", [None, "{", "[]", '{"plan": {"packages": [{}]}}', '{"plan": []}', "\udcff"])
def test_a_generation_without_its_environment(
    sandbox: Sandbox, manifest: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(sandbox, monkeypatch)
    links = sandbox.store.parent / "profiles"
    links.mkdir(parents=True)
    store_name = f"{'a' * 32}-small"
    (links / "small-1-link").symlink_to(f"../store/{store_name}")
    if manifest is not None:
        inside = sandbox.store / store_name / ".drydock"
        inside.mkdir(parents=True)
        (inside / "manifest.json").write_bytes(manifest.encode(errors="surrogateescape"))
    with pytest.raises(DrydockError, match="small@1 is ") as error:
        diff("small@1", "small")
    assert error.value.hint is not None
    assert error.value.hint.endswith("small-1-run.sh --build-only")


def test_a_difference_for_a_pull_request(sandbox: Sandbox) -> None:
    sandbox.profile("small")
    sandbox.drydock("lock", "small").succeeded()
    path = sandbox.profile("other", tail='[env]\nMODE = "a ~ b"\n')
    make_wheel(sandbox.wheels, "rope", "2.0")
    make_wheel(sandbox.wheels, "anchor", "2.0")
    path.write_text(path.read_text().replace('["anchor"]', '["anchor", "rope"]'))
    sandbox.drydock("lock", "other").succeeded()
    told = sandbox.drydock("diff", "small", "other", "--markdown").succeeded().stdout
    assert told.startswith("**`small` \u2192 `other`**\n\npackages: 1 added, 1 changed, 1 -> 2, ")
    assert "| package | before | after |\n| --- | --- | --- |\n| anchor | 1.0 (" in told
    assert re.search(r"^\| rope \|  \| 2\.0 \(\d+ B\) \|$", told, re.MULTILINE)
    assert "````diff\n+ MODE 'a ~ b'\n````" in told
    assert sandbox.drydock("diff", "small", "small", "--markdown").succeeded().stdout == (
        "`small` and `small`: no difference\n"
    )
