"""Profiles that others share: real repositories, archives and packages, through the program."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import os
import pty
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
import tomllib
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from builder.errors import DrydockError
from builder.project.catalogue import Catalogue
from builder.project.listing import summaries
from builder.project.lock import relock
from builder.project.sources import pinning
from builder.report import PlainReporter, explain
from tests.conftest import ROOT
from tests.support import Result, Sandbox, make_wheel
from tests.support.packages import diff
from tests.support.sandbox import MINIMAL_PROFILE
from tests.support.shared import Answer, Repository, daemon, web
from tests.support.waiting import LONG

SMALL = MINIMAL_PROFILE.format(name="small", head="", tail="")


@pytest.fixture
def shared(small_lock: str) -> dict[str, str]:
    """The files of a source with the profile `small` and its lock, and the part `extra`."""
    return {
        "profiles/small.toml": SMALL,
        "profiles/small.lock.toml": small_lock,
        "profiles/extra.toml": 'schema = 1\nname = "extra"\n[env]\nCOLOUR = "blue"\n',
    }


@pytest.fixture
def team(sandbox: Sandbox, shared: dict[str, str]) -> Repository:
    """A repository, tagged v1, that drydock.toml names as `team`."""
    made = Repository(sandbox, sandbox.root / "team")
    made.commit(shared)
    made.git("tag", "v1")
    project(sandbox, team=f'git = "{made.path}"\nrev = "v1"')
    return made


def project(desk: Sandbox, /, **sources: str) -> None:
    """Write drydock.toml."""
    (desk.work / "drydock.toml").write_text("".join(f"[sources.{name}]\n{text}\n" for name, text in sources.items()))


def pins(desk: Sandbox) -> dict[str, dict[str, str]]:
    file = desk.work / "drydock.lock.toml"
    return tomllib.loads(file.read_text()).get("sources", {}) if file.exists() else {}


def contents(desk: Sandbox) -> list[str]:
    """What the store has of sources, also what is half-done."""
    folder = desk.store.parent / "sources"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@pytest.fixture
def inside(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """The desk, and this process at it: for the many cases that would take long through the program."""
    monkeypatch.chdir(sandbox.work)
    monkeypatch.setenv("DRYDOCK_HOME", str(sandbox.store.parent))
    return sandbox


def refused(work: Callable[[], object], *words: str) -> str:
    """What a user is told; it has each of `words`."""
    with pytest.raises(DrydockError) as caught:
        work()
    told = explain(caught.value)
    for word in words:
        assert word in told
    return told


def pin() -> list[str]:
    """`drydock sources lock` in this process; gives what changed."""
    return pinning.lock(PlainReporter(io.StringIO()))


# --- from a repository to a trainer --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_profile_of_a_repository_is_built_and_run_like_any_other(sandbox: Sandbox, team: Repository) -> None:
    locked = sandbox.drydock("sources", "lock").succeeded()
    commit = team.git("rev-parse", "v1")
    assert locked.stdout == f"+ team commit {commit[:12]}\n"
    assert "fetching team" in locked.stderr
    built = sandbox.drydock("build", "team:small", "--yes").succeeded()
    assert built.stdout.strip().endswith("-small")
    assert sandbox.drydock("run", "team:small").succeeded().stdout == "trained with 1.0\n"
    assert "ok   packages: 1 as locked" in sandbox.drydock("verify", "team:small").succeeded().stdout
    assert sandbox.drydock("profile", "show", "team:small", "--json").succeeded().stdout
    assert "anchor" in sandbox.drydock("why", "team:small", "anchor").succeeded().stdout
    listed = sandbox.drydock("generation", "list", "team:small").succeeded().stdout
    assert "(current)" in listed
    # A file of every system can be called that, and no profile of the user's is.
    assert (sandbox.store.parent / "profiles/team.small-1-link").is_symlink()
    sandbox.drydock("generation", "list", "team.small").failed(2, "is not the name of a profile")
    assert sandbox.drydock("lock", "--check", "team:small").succeeded()


@pytest.mark.slow
def test_a_profile_of_a_source_is_the_environment_that_its_authors_have(locked: Sandbox, team: Repository) -> None:
    ours = locked.drydock("build", "small").succeeded().stdout
    locked.drydock("sources", "lock").succeeded()
    assert locked.drydock("build", "team:small", "--yes").succeeded().stdout == ours
    same = locked.drydock("diff", "small", "team:small").succeeded()
    assert same.stdout == "small and team:small: no difference\n"
    assert locked.drydock("render", "small", "team:small").succeeded()
    files = {path.name: path.read_bytes() for path in (locked.work / "generated/small").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (locked.work / "generated/team.small").iterdir()}
    locked.drydock("render", "--check", "team:small").succeeded()


def test_profiles_of_sources_are_listed_behind_the_users(sandbox: Sandbox, team: Repository) -> None:
    sandbox.profile("mine")
    before = sandbox.drydock("profile", "list").succeeded()
    assert 'warning: the source "team" is not pinned yet (drydock sources lock)' in before.stderr
    sandbox.drydock("sources", "lock").succeeded()
    listed = [line.split()[0] for line in sandbox.drydock("profile", "list").succeeded().stdout.splitlines()]
    assert listed[:3] == ["mine", "team:small", "team:extra"]
    assert "cpu" in listed[3:]
    rows = json.loads(sandbox.drydock("profile", "list", "--json").succeeded().stdout)
    assert rows[1] == {
        "name": "team:small",
        "description": "a small one",
        "platform": "linux-x86_64",
        "accelerator": "cpu",
        "file": str(sandbox.store.parent / "sources" / pins(sandbox)["team"]["sha256"] / "profiles/small.toml"),
    }


@pytest.mark.slow
def test_a_broken_profile_of_a_source_hides_no_other(sandbox: Sandbox, team: Repository) -> None:
    team.commit({"profiles/bad.toml": "schema =", "profiles/odd.toml": 'schema = 1\nname = "other"\n'})
    team.commit({"profiles/evil.toml": 'schema = 1\nname = "evil"\ndescription = "\\u001b[2J"\n'})
    project(sandbox, team=f'git = "{team.path}"')
    sandbox.drydock("sources", "lock").succeeded()
    for _ in range(2):  # the second time from memory
        listed = sandbox.drydock("profile", "list").succeeded()
        assert "profiles/bad.toml:1: not TOML" in listed.stderr
        assert 'the file is called odd.toml, but its name is "other"' in listed.stderr
        assert "team:small" in listed.stdout
        assert "\x1b" not in listed.stdout


def test_a_source_may_have_its_profiles_in_its_root(inside: Sandbox, shared: dict[str, str]) -> None:
    files = {name.removeprefix("profiles/"): text for name, text in shared.items()}
    write(inside.root / "flat", {**files, "ruff.toml": "line-length = 120\n", "pyproject.toml": "[project]\n"})
    project(inside, flat='path = "../flat"')
    warnings: list[str] = []
    listed = [row.name for row in summaries(Catalogue(), warnings.append)]
    assert listed[:2] == ["flat:small", "flat:extra"]
    assert warnings == []
    assert Catalogue().plan("flat:small").store_name.endswith("-small")


def test_drydock_toml_is_found_from_folders_below(sandbox: Sandbox, team: Repository) -> None:
    below = sandbox.work / "a/b"
    below.mkdir(parents=True)
    drydock = [sys.executable, "-m", "builder"]
    sandbox.run([*drydock, "sources", "lock"], cwd=below).succeeded()
    assert (sandbox.work / "drydock.lock.toml").is_file()
    assert sandbox.run([*drydock, "profile", "show", "team:small"], cwd=below).succeeded()


@pytest.mark.slow
@pytest.mark.parametrize("rev", ["tag", "annotated", "branch", "commit", "default"])
def test_a_revision_is_a_tag_a_branch_or_a_commit(inside: Sandbox, team: Repository, rev: str) -> None:
    first = team.git("rev-parse", "HEAD")
    team.git("tag", "annotated", "--annotate", "--message=it")
    team.git("branch", "side")
    team.commit({"profiles/later.toml": 'schema = 1\nname = "later"\n'})
    named = {"tag": "v1", "annotated": "annotated", "branch": "side", "commit": first, "default": ""}[rev]
    project(inside, team=f'git = "{team.path}"' + (f'\nrev = "{named}"' if named else ""))
    pin()
    assert pins(inside)["team"]["commit"] == (team.git("rev-parse", "HEAD") if rev == "default" else first)


@pytest.mark.slow
def test_the_same_commit_is_fetched_anew_from_wherever_it_is(sandbox: Sandbox, team: Repository) -> None:
    """A branch that has gone on still has the commit; a store that is empty gets the very same content."""
    project(sandbox, team=f'git = "{team.path}"\nrev = "main"')
    sandbox.drydock("sources", "lock").succeeded()
    lock = (sandbox.work / "drydock.lock.toml").read_text()
    team.commit({"profiles/later.toml": 'schema = 1\nname = "later"\n'})
    forget(sandbox)
    sandbox.drydock("profile", "show", "team:small").succeeded()
    assert contents(sandbox) == [pins(sandbox)["team"]["sha256"]]
    sandbox.drydock("profile", "show", "team:later").failed(1, 'no profile "team:later"')
    sandbox.drydock("sources", "lock").succeeded()
    assert (sandbox.work / "drydock.lock.toml").read_text() == lock
    assert "~ team commit" in sandbox.drydock("sources", "update", "team").succeeded().stdout
    sandbox.drydock("profile", "show", "team:later").failed(1, "is a part to extend")


def forget(desk: Sandbox) -> None:
    """Empty the store of sources."""
    subprocess.run(["chmod", "-R", "u+w", str(desk.store.parent / "sources")], check=True)
    shutil.rmtree(desk.store.parent / "sources")


# --- extends, and the files beside ---------------------------------------------------------------------------------

PATCHED = """
[[patches]]
package = "anchor"
versions = "==1.0"
file = "patches/colour.patch"
proof = "proofs/colour.py"
why = "the team wants it so"
"""
PATCH = diff("version = '1.0'\n", "version = 'of the team'\n", "anchor/__init__.py")
PROOF = "import anchor\n\nassert anchor.version == 'of the team'\nprint('ok: of the team')\n"


@pytest.mark.slow
def test_a_profile_of_ones_own_extends_one_of_a_source_with_its_files(sandbox: Sandbox, team: Repository) -> None:
    part = f'schema = 1\nname = "base"\nextends = ["extra"]\n{PATCHED}'
    team.commit(
        {"profiles/base.toml": part, "profiles/patches/colour.patch": PATCH, "profiles/proofs/colour.py": PROOF}
    )
    project(sandbox, team=f'git = "{team.path}"')
    sandbox.drydock("sources", "lock").succeeded()
    # What has the same name here is another profile, and no part of theirs.
    sandbox.file("extra.toml", 'schema = 1\nname = "extra"\n[env]\nCOLOUR = "red"\n')
    sandbox.file("base.toml", 'schema = 1\nname = "base"\n[env]\nSHAPE = "round"\n')
    sandbox.profile("mine", head='extends = ["team:base"]')
    shown = json.loads(sandbox.drydock("profile", "show", "mine", "--json").succeeded().stdout)
    assert {name: value["value"] for name, value in shown["env"].items()} == {"COLOUR": "blue"}
    sandbox.drydock("lock", "mine").succeeded()
    sandbox.drydock("build", "mine").failed(1, "nobody has agreed", "patches/colour.patch changes anchor ==1.0")
    sandbox.drydock("build", "mine", "--yes").succeeded()
    assert sandbox.drydock("run", "mine").succeeded().stdout == "trained with of the team\n"
    assert "colour.py: ok: of the team" in sandbox.drydock("verify", "mine").succeeded().stdout


def test_what_a_source_extends_is_its_own_first_and_then_built_in(inside: Sandbox, team: Repository) -> None:
    files = {
        "profiles/one.toml": 'schema = 1\nname = "one"\nextends = ["cpu"]\n',
        "profiles/base.toml": 'schema = 1\nname = "base"\n[env]\nWHOSE = "theirs"\n',
        "profiles/two.toml": 'schema = 1\nname = "two"\nextends = ["team:base"]\n',
        "profiles/three.toml": 'schema = 1\nname = "three"\nextends = ["mine"]\n',
    }
    team.commit(files)
    project(inside, team=f'git = "{team.path}"')
    pin()
    inside.profile("mine")
    for name in ("one", "two", "three"):
        inside.profile(f"of-{name}", head=f'extends = ["team:{name}"]')
    whole = Catalogue().profile("of-one")
    assert "accelerate==" in " ".join(whole.packages.requires)  # cpu is built in, and extends base
    assert whole.env["WHOSE"].value == "theirs"
    refused(lambda: Catalogue().profile("of-two"), "is of another source", "two.toml")
    refused(lambda: Catalogue().profile("of-three"), 'no profile "mine" in the source "team"', "three.toml")


def test_no_file_of_a_source_is_from_outside_of_it(inside: Sandbox, shared: dict[str, str]) -> None:
    """A folder may have links; what is fetched never does."""
    folder = inside.root / "desk"
    write(folder, {**shared, "profiles/small.toml": SMALL + '[[checks]]\nfile = "check.py"\nwhy = "it"\n'})
    (inside.root / "secret.py").write_text("print('secret')\n")
    (folder / "profiles/check.py").symlink_to(inside.root / "secret.py")
    project(inside, desk=f'path = "{folder}"')
    refused(lambda: Catalogue().texts("desk:small"), "check.py leads out of")


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_two_files_of_one_name_are_not_mixed_up(inside: Sandbox, team: Repository) -> None:
    team.commit({"profiles/base.toml": 'schema = 1\nname = "base"\n[[checks]]\nfile = "a.py"\nwhy = "x"\n'})
    team.commit({"profiles/a.py": "print('theirs')\n"})
    project(inside, team=f'git = "{team.path}"')
    pin()
    inside.file("a.py", "print('mine')\n")
    inside.profile("mine", head='extends = ["team:base"]', tail='[[checks]]\nfile = "a.py"\nwhy = "y"\n')
    refused(lambda: Catalogue().texts("mine"), "a.py is one file here, and another in a source", "rename one")
    inside.file("a.py", "print('theirs')\n")
    assert Catalogue().texts("mine") == {"a.py": "print('theirs')\n"}


# --- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("team:smal", 'did you mean "team:small"?'),
        ("teem:small", 'did you mean "team"?'),
        ("../../x", "a profile is named m4, or team:m4"),
        ("team:../../x", "a profile is named m4, or team:m4"),
        ("a:b:c", "a profile is named m4, or team:m4"),
        ("team:", "a profile is named m4, or team:m4"),
        ("team:cpu", 'no profile "team:cpu"'),
        ("team:small\n", "a profile is named m4, or team:m4"),
    ],
)
def test_a_name_that_is_none_is_refused_with_the_nearest(
    inside: Sandbox, team: Repository, name: str, words: str
) -> None:
    pin()
    refused(lambda: Catalogue().plan(name), words)


@pytest.mark.slow
def test_the_program_refuses_a_name_that_is_none(sandbox: Sandbox, team: Repository) -> None:
    sandbox.drydock("sources", "lock").succeeded()
    sandbox.drydock("build", "team:smal").failed(1, 'did you mean "team:small"?')
    sandbox.drydock("build", "a:b:c").failed(1, 'no profile "a:b:c"', "a profile is named m4, or team:m4")
    sandbox.drydock("build", "../../x").failed(1, 'no profile "../../x"', "a profile is named m4, or team:m4")
    sandbox.profile("mine", head='extends = ["a:b:c"]')
    sandbox.drydock("build", "mine").failed(1, "a profile is named m4, or team:m4", "profiles/mine.toml:4: extends")
    sandbox.drydock("build", "-rf").failed(2, "no such option")
    sandbox.drydock("build", "--", "-rf").failed(1, 'no profile "-rf"')
    sandbox.drydock("sources", "update", "--", "-rf").failed(1, 'no source "-rf"')


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('git = "ext::sh -c touch% x"', "git's remote helpers run programs"),
        ('git = "--upload-pack=touch x"', "not a URL"),
        ('git = "ssh://-oProxyCommand=touch/x"', "must be an https:// or ssh:// URL"),
        ('git = "-oProxyCommand=x:y"', "not a URL"),
        ('git = "https://me:secret@example.org/x.git"', "has no place in a shared file"),
        ('git = "http://example.org/x.git"', "neither encrypted nor authenticated"),
        ('git = "git://example.org/x.git"', "neither encrypted nor authenticated"),
        ('git = "ftp://example.org/x.git"', "must be an https:// or ssh:// URL"),
        ('git = "."\nrev = "--output=x"', "not a tag, a branch or a commit"),
        ('git = "."\nrev = "a..b"', "not a tag, a branch or a commit"),
        ('archive = "http://example.org/x.zip"', "must be an https:// URL"),
        ('archive = "file:///etc/x.zip"', "must be an https:// URL"),
        ('archive = "https://token@example.org/x.zip"', "has no place in a shared file"),
        ('archive = "https://example.org/x.zip?token=1"', "may hold a credential"),
        ('archive = "https://example.org/x.rar"', "must end with .tar.gz, .tar.xz or .zip"),
        ('package = "--index-url=x"', "not the name of a Python package"),
        ('path = ".."\ngit = "."', "give exactly one of git, path, package, archive"),
        ('path = ".."\nrev = "v1"', "rev goes with git"),
        ('gti = "."', 'did you mean "git"?'),
        ("path = 1", "not the path of a folder"),
        ('path = "nowhere"', "is not a folder"),
        ('git = "nowhere"', "is not a repository"),
    ],
)
def test_a_source_that_is_none_is_refused_with_its_place(inside: Sandbox, text: str, words: str) -> None:
    project(inside, team=text)
    refused(lambda: (pin(), Catalogue().path("team:small")), words, f"{inside.work}/drydock.toml", "sources.team")
    assert not (inside.work / "x").exists()
    assert not pins(inside)


def test_the_program_names_the_line_of_a_source_that_is_none(sandbox: Sandbox) -> None:
    project(sandbox, team='git = "."\nrev = "--output=x"')
    sandbox.drydock("sources", "lock").failed(1, "not a tag, a branch or a commit", "drydock.toml:3: sources.team.rev")


# --- what is pinned stays ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_was_fetched_is_used_without_network_and_repository(sandbox: Sandbox, team: Repository) -> None:
    sandbox.drydock("sources", "lock").succeeded()
    shutil.rmtree(team.path)
    sandbox.drydock("--offline", "profile", "show", "team:small").succeeded()
    assert sandbox.drydock("sources", "lock").succeeded().stdout == ""
    forget(sandbox)
    sandbox.drydock("profile", "show", "team:small").failed(1, '"team": ', "is not a repository")


def test_offline_nothing_is_asked(sandbox: Sandbox, shared: dict[str, str]) -> None:
    asked: list[str] = []

    def answer(path: str, _headers: object) -> Answer:
        asked.append(path)
        return 404, {}, b""

    with web(answer) as url:
        project(sandbox, web=f'archive = "{url}/x.zip"', team=f'git = "{url}/x.git"')
        sandbox.drydock("--offline", "sources", "lock").failed(1, '"web": ', "--offline forbids it")
        sandbox.drydock("--offline", "sources", "update", "team").failed(1, '"team": ', "--offline forbids it")
    assert asked == []


def test_a_moved_tag_is_refused(inside: Sandbox, team: Repository) -> None:
    pin()
    old = team.git("rev-parse", "HEAD")
    new = team.commit({"profiles/later.toml": 'schema = 1\nname = "later"\n'})
    team.git("tag", "--force", "v1")
    assert Catalogue().plan("team:small")  # what is in the store is what was pinned
    forget(inside)
    words = f"the tag v1 was moved: pinned is commit {old}, and there is {new}"
    refused(lambda: Catalogue().plan("team:small"), words, "drydock sources update team")
    assert contents(inside) == []
    inside.drydock("sources", "update", "team").succeeded()
    assert Catalogue().plan("team:small")


def test_a_branch_that_lost_the_commit_is_refused(inside: Sandbox, team: Repository) -> None:
    project(inside, team=f'git = "{team.path}"')
    pin()
    old = team.git("rev-parse", "HEAD")
    forget(inside)
    team.git("commit", "--quiet", "--amend", "--message=another")
    team.git("tag", "--delete", "v1")
    team.git("reflog", "expire", "--expire=now", "--all")
    team.git("gc", "--quiet", "--prune=now")
    words = f"the repository does not have commit {old} any more: the HEAD HEAD is {team.git('rev-parse', 'HEAD')}"
    refused(lambda: Catalogue().plan("team:small"), words, "drydock sources update team")


@pytest.mark.slow
def test_a_source_that_is_named_otherwise_now_is_refused(sandbox: Sandbox, team: Repository) -> None:
    sandbox.drydock("build", "team:small").failed(1, "is not pinned yet", "drydock sources lock")
    sandbox.drydock("sources", "lock", "--check").failed(1, "is not pinned yet")
    sandbox.drydock("sources", "lock").succeeded()
    sandbox.drydock("sources", "lock", "--check").succeeded()
    team.git("tag", "v2")
    project(sandbox, team=f'git = "{team.path}"\nrev = "v2"')
    sandbox.drydock("build", "team:small").failed(1, "v1, and named as git", "drydock sources lock")
    assert json.loads(sandbox.drydock("sources", "list", "--json").succeeded().stdout)[0]["state"] == "changed"
    sandbox.drydock("sources", "lock").succeeded()
    project(sandbox)
    sandbox.drydock("sources", "lock", "--check").failed(1, '"team" is pinned, and no source any more')
    assert sandbox.drydock("sources", "lock").succeeded().stdout == "- team\n"


def test_a_damaged_copy_in_the_store_is_fetched_again(inside: Sandbox, team: Repository) -> None:
    pin()
    place = inside.store.parent / "sources" / pins(inside)["team"]["sha256"]
    file = place / "profiles/small.toml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o444
    assert stat.S_IMODE(place.stat().st_mode) == 0o555
    file.chmod(0o644)
    file.write_text(SMALL.replace("trained", "stolen"))
    assert "trained" in str(Catalogue().profile("team:small").trainer)
    assert contents(inside) == [place.name]


def test_the_hash_is_the_one_that_anybody_can_compute(inside: Sandbox, team: Repository) -> None:
    pin()
    sha256 = pins(inside)["team"]["sha256"]
    line = "find . -type f | sed 's|^[.]/||' | LC_ALL=C sort | xargs sha256sum | sha256sum"
    said = inside.run(["sh", "-c", line], cwd=inside.store.parent / "sources" / sha256).succeeded().stdout
    assert said.split()[0] == sha256


@pytest.mark.slow
def test_the_lock_of_a_pinned_profile_is_made_where_it_is_from(sandbox: Sandbox, team: Repository) -> None:
    team.commit({"profiles/small.toml": SMALL.replace('["anchor"]', '["anchor>=1"]')})
    project(sandbox, team=f'git = "{team.path}"')
    sandbox.drydock("sources", "lock").succeeded()
    hint = "lock small in the repository of team, then: drydock sources update team"
    sandbox.drydock("lock", "team:small").failed(1, 'the lock of "team:small" is that of its source', hint)
    sandbox.drydock("build", "team:small", "--yes").failed(1, "the lock is stale", hint)


# --- where from ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_over_the_protocol_of_git(sandbox: Sandbox, team: Repository) -> None:
    serve = ["git", "daemon", "--reuseaddr", "--listen=127.0.0.1", "--export-all", f"--base-path={team.path.parent}"]
    with daemon(lambda port: [*serve, f"--port={port}"]) as port:
        project(sandbox, team=f'git = "git://127.0.0.1:{port}/team/.git"\nrev = "v1"')
        sandbox.drydock("sources", "lock").succeeded()
        first = (sandbox.work / "drydock.lock.toml").read_text()
        project(sandbox, team=f'git = "git://127.0.0.1:{port}/team/.git"\nrev = "main"')
        sandbox.drydock("sources", "lock").succeeded()
        team.commit({"profiles/later.toml": 'schema = 1\nname = "later"\n'})
        forget(sandbox)
        # This server gives out no commit but by a name: the branch is fetched whole, and has it.
        sandbox.drydock("profile", "show", "team:small").succeeded()
    assert tomllib.loads(first)["sources"]["team"]["sha256"] == pins(sandbox)["team"]["sha256"]


@pytest.mark.slow
def test_over_http_that_knows_nothing_of_git(sandbox: Sandbox, team: Repository) -> None:
    team.git("update-server-info")
    handler = partial(type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None}), directory=team.path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        project(sandbox, team=f'git = "http://127.0.0.1:{server.server_port}/.git"\nrev = "v1"')
        sandbox.drydock("sources", "lock").succeeded()
    finally:
        server.shutdown()
        server.server_close()
    sandbox.drydock("profile", "show", "team:small").succeeded()


@pytest.mark.slow
def test_over_ssh(sandbox: Sandbox, team: Repository) -> None:
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin")
    if sshd is None:
        pytest.skip("there is no sshd here: apt-get install openssh-server")
    keys = sandbox.root / "keys"
    keys.mkdir(mode=0o700)
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    (keys / "authorized").write_text((keys / "user.pub").read_text())
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    options = [f"HostKey={keys / 'host'}", f"AuthorizedKeysFile={keys / 'authorized'}", "StrictModes=no", "UsePAM=no"]
    options += ["ListenAddress=127.0.0.1", "PidFile=none", "PermitRootLogin=prohibit-password"]
    flags = [word for option in options for word in ("-o", option)]
    with daemon(lambda port: [sshd, "-D", "-e", "-f", "/dev/null", "-p", str(port), *flags]) as port:
        known = keys / "known"
        public = " ".join((keys / "host.pub").read_text().split()[:2])
        known.write_text(f"[127.0.0.1]:{port} {public}\n")
        ssh = f"ssh -F /dev/null -o BatchMode=yes -i {keys / 'user'} -o UserKnownHostsFile={known}"
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        project(sandbox, team=f'git = "ssh://{user}@127.0.0.1:{port}{team.path}"\nrev = "v1"')
        sandbox.drydock("sources", "lock", env={"GIT_SSH_COMMAND": ssh}).succeeded()
        (keys / "authorized").write_text("")
        sandbox.drydock("sources", "update", env={"GIT_SSH_COMMAND": ssh}).failed(
            1, "git cannot fetch", "Permission denied"
        )
    sandbox.drydock("profile", "show", "team:small").succeeded()


def test_nothing_of_a_repository_runs_or_changes_its_files(
    inside: Sandbox, team: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Filters, LFS, line ends, export rules, hooks, submodules and links: the files are those of the commit."""
    inside.run(["git", "config", "--global", "filter.lfs.smudge", f"touch {inside.root}/ran; cat"]).succeeded()
    inside.run(["git", "config", "--global", "core.hooksPath", str(inside.root / "hooks")]).succeeded()
    monkeypatch.setenv("HOME", str(inside.home))  # with these settings
    hook = inside.root / "hooks/reference-transaction"
    write(inside.root, {"hooks/reference-transaction": f"#!/bin/sh\ntouch {inside.root}/hooked\n"})
    team.commit({"profiles/note.txt": "$Id$ $Format:%H$\r\nsecond\n"})
    team.commit(
        {".gitattributes": "* text eol=crlf ident export-subst filter=lfs\nprofiles/extra.toml export-ignore\n"}
    )
    (team.path / "link.toml").symlink_to("/etc/passwd")
    (team.path / ".gitmodules").write_text(f'[submodule "a"]\n\tpath = a\n\turl = {team.path}\n')
    team.git("update-index", "--add", "--cacheinfo", f"160000,{team.git('rev-parse', 'HEAD')},a")
    team.git("add", "link.toml", ".gitmodules")
    team.git("commit", "--quiet", "--message=more")
    (inside.root / "ran").unlink(missing_ok=True)
    (inside.root / "hooked").unlink(missing_ok=True)
    hook.chmod(0o755)
    project(inside, team=f'git = "{team.path}"')
    said = io.StringIO()
    pinning.lock(PlainReporter(said))
    assert "left out, because it is a link: 'link.toml'" in said.getvalue()
    place = inside.store.parent / "sources" / pins(inside)["team"]["sha256"]
    committed = team.git("ls-files", "-s").splitlines()
    assert sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()) == sorted(
        line.split("\t")[1] for line in committed if line.startswith("100")
    )
    note = (place / "profiles/note.txt").read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(note) + note).hexdigest()
    assert blob == team.git("rev-parse", "HEAD:profiles/note.txt")
    assert not (inside.root / "ran").exists()
    assert not (inside.root / "hooked").exists()


def test_a_revision_that_is_not_there_is_told(inside: Sandbox, team: Repository) -> None:
    for rev, words in [("v9", 'no tag and no branch "v9"'), (team.git("rev-parse", "v1")[:10], "all 40 characters")]:
        project(inside, team=f'git = "{team.path}"\nrev = "{rev}"')
        refused(pin, '"team": ', words)
    project(inside, team=f'git = "{team.path}"\nrev = "{"0" * 40}"')
    refused(pin, '"team": ')
    assert contents(inside) == []


@pytest.mark.slow
def test_a_path_is_read_where_it_is(sandbox: Sandbox, shared: dict[str, str]) -> None:
    write(sandbox.root / "desk", shared)
    project(sandbox, desk='path = "../desk"')
    assert sandbox.drydock("sources", "lock").succeeded().stdout == ""
    assert sandbox.drydock("sources", "list").succeeded().stdout == "desk  path ../desk  not pinned\n"
    sandbox.drydock("build", "desk:small", "--yes").succeeded()
    path = sandbox.root / "desk/profiles/small.toml"
    path.write_text(SMALL.replace('["anchor"]', '["anchor>=1"]'))
    sandbox.drydock("build", "desk:small", "--yes").failed(1, "the lock is stale", "drydock lock desk:small")
    sandbox.drydock("lock", "desk:small").succeeded()  # in place
    sandbox.drydock("build", "desk:small", "--yes").succeeded()
    assert contents(sandbox) == []


@pytest.mark.slow
def test_a_package_is_found_by_its_entry_point_and_not_imported(sandbox: Sandbox, shared: dict[str, str]) -> None:
    def install(version: str, description: str) -> None:
        files = {f"lab_profiles/{name}": text for name, text in shared.items()}
        files["lab_profiles/__init__.py"] = "raise SystemExit('imported')\n"
        files["lab_profiles/profiles/small.toml"] = SMALL.replace("a small one", description)
        wheel = make_wheel(
            sandbox.root,
            "lab-profiles",
            version,
            files=files,
            entry_points="[drydock.profiles]\nall = lab_profiles.profiles\n",
        )
        install = [sandbox.environment["DRYDOCK_UV"], "pip", "install", "--python", str(python), "--no-index"]
        sandbox.run([*install, "--reinstall", str(wheel)]).succeeded()

    python = sandbox.root / "venv/bin/python"
    sandbox.run([sandbox.environment["DRYDOCK_UV"], "venv", "--quiet", str(sandbox.root / "venv")]).succeeded()
    # Drydock and what it needs, as if they were installed there too.
    site = next((sandbox.root / "venv/lib").glob("python*/site-packages"))
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (site / "drydock.pth").write_text("".join(f"{path}\n" for path in [*ours, str(ROOT)]))
    project(sandbox, lab='package = "lab-profiles"')

    def drydock(*arguments: str) -> Result:
        return sandbox.run([str(python), "-m", "builder", *arguments])

    drydock("sources", "lock").failed(1, "the package lab-profiles is not installed", "uv pip install")
    install("1.0", "one")
    assert drydock("sources", "lock").succeeded().stdout == "+ lab 1.0\n"
    assert "lab:small" in drydock("profile", "list").succeeded().stdout
    install("1.1", "two")
    assert "one" in drydock("profile", "show", "lab:small").succeeded().stdout
    forget(sandbox)
    drydock("profile", "show", "lab:small").failed(1, "it has changed: pinned is content", "drydock sources update lab")
    assert drydock("sources", "update").succeeded().stdout == "~ lab 1.0 -> 1.1\n"
    assert "two" in drydock("profile", "show", "lab:small").succeeded().stdout


# --- archives, and what is wrong with them -------------------------------------------------------------------------


def tar(files: Mapping[str, str], *, more: Callable[[tarfile.TarFile], object] = lambda _: None) -> bytes:
    """A tar with `files`, and what `more` adds."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, text in files.items():
            add(archive, name, text.encode())
        more(archive)
    return out.getvalue()


def add_each(archive: tarfile.TarFile, *names: str) -> None:
    for name in names:
        add(archive, name)


def add(archive: tarfile.TarFile, name: str, content: bytes = b"", **facts: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in facts.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(content))


def zipped(files: Mapping[str, str], *, more: Callable[[zipfile.ZipFile], object] = lambda _: None) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        more(archive)
    return out.getvalue()


def served(desk: Sandbox, name: str, body: bytes) -> list[str]:
    """Pin the archive `body` as the source `web`."""
    with web(lambda path, _: (200, {}, body) if path == f"/{name}" else (404, {}, b"")) as url:
        project(desk, web=f'archive = "{url}/{name}"')
        return pin()


@pytest.mark.parametrize("kind", ["tar.gz", "tar.xz", "zip"])
@pytest.mark.parametrize("top", ["", "profiles-1.0/"])
def test_an_archive_is_a_source(inside: Sandbox, shared: dict[str, str], kind: str, top: str) -> None:
    files = {f"{top}{name}": text for name, text in shared.items()}
    pack = {"tar.gz": lambda: gzip.compress(tar(files)), "tar.xz": lambda: lzma.compress(tar(files))}
    body = pack[kind]() if kind in pack else zipped(files)
    assert served(inside, f"profiles-1.0.{kind}", body)
    assert Catalogue().plan("web:small").profile.description == "a small one"
    rows = [f"{hashlib.sha256(shared[name].encode()).hexdigest()}  {name}\n" for name in sorted(shared)]
    assert pins(inside)["web"]["sha256"] == hashlib.sha256("".join(rows).encode()).hexdigest()


def link(archive: tarfile.TarFile) -> None:
    add(archive, "link", type=tarfile.SYMTYPE, linkname="/etc/passwd")


def bombs(archive: tarfile.TarFile) -> None:
    for number in range(9):
        add(archive, f"big{number}", bytes(BOMB // 8))


BOMB = 65 * 2**20
HOSTILE_TARS: dict[str, tuple[Callable[[tarfile.TarFile], object], str]] = {
    "up": (lambda t: add(t, "../x", b"x"), "leads out of it"),
    "up below": (lambda t: add(t, "a/../../x", b"x"), "leads out of it"),
    "absolute": (lambda t: add(t, "/tmp/x", b"x"), "leads out of it"),
    "link": (link, "link in it is a link, not a regular file"),
    "hard link": (lambda t: add(t, "l", type=tarfile.LNKTYPE, linkname="a.toml"), "is a link"),
    "device": (lambda t: add(t, "d", type=tarfile.CHRTYPE, devmajor=1, devminor=5), "is a device"),
    "pipe": (lambda t: add(t, "p", type=tarfile.FIFOTYPE), "is a device"),
    "twice": (lambda t: add_each(t, "b.toml", "b.toml"), "b.toml is in it twice"),
    "case": (lambda t: add_each(t, "b.toml", "B.toml"), "on some machines these are one"),
    "file and folder": (lambda t: add_each(t, "b", "b/c"), "b/c is in it, and so is a file"),
    "folder and file": (lambda t: add_each(t, "b/c", "b"), "b is in it twice"),
    "escape": (lambda t: add(t, "a\x1b[2J.toml"), "is not a plain name"),
    "newline": (lambda t: add(t, "a\nb.toml"), "is not a plain name"),
    "backslash": (lambda t: add(t, "..\\x.toml"), "is not a plain name"),
    "drive": (lambda t: add(t, "c:x.toml"), "leads out of it"),
    "many": (lambda t: add_each(t, *(f"{n}.toml" for n in range(101))), "more than 100 files"),
    "bomb": (lambda t: add(t, "big", bytes(BOMB)), "more than 64 MB, unpacked"),
    "bombs": (bombs, "more than 64 MB, unpacked"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", HOSTILE_TARS)
def test_a_hostile_tar_is_refused_and_leaves_nothing(
    inside: Sandbox, shared: dict[str, str], case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    more, words = HOSTILE_TARS[case]
    monkeypatch.setattr("builder.project.sources.tree.MAX_FILES", 100)
    body = gzip.compress(tar(shared, more=more), 1)
    told = refused(lambda: served(inside, "x.tar.gz", body), '"web": ', words)
    assert "\x1b" not in told
    assert contents(inside) == []
    assert not pins(inside)
    assert not (inside.store.parent / "x").exists()


def test_the_program_refuses_a_hostile_archive(sandbox: Sandbox, shared: dict[str, str]) -> None:
    body = gzip.compress(tar(shared, more=link))
    with web(lambda *_: (200, {}, body)) as url:
        project(sandbox, web=f'archive = "{url}/x.tar.gz"')
        sandbox.drydock("sources", "lock").failed(1, '"web": link in it is a link', "where: ", "sources.web")
    assert contents(sandbox) == []


def zip_link(archive: zipfile.ZipFile) -> None:
    member = zipfile.ZipInfo("link")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(member, "/etc/passwd")


def zip_nul(archive: zipfile.ZipFile) -> None:
    member = zipfile.ZipInfo("aXb.toml")
    member.filename = "a\0b.toml"
    archive.writestr(member, "x")


HOSTILE_ZIPS = {
    "up": (lambda z: z.writestr("../x", "x"), "leads out of it"),
    "absolute": (lambda z: z.writestr("/tmp/x", "x"), "leads out of it"),
    "link": (zip_link, "link in it is a link, not a regular file"),
    "escape": (lambda z: z.writestr("a\x1b[2J.toml", "x"), "is not a plain name"),
    "nul": (zip_nul, "is not a plain name"),
    "case": (lambda z: [z.writestr("b.toml", "x"), z.writestr("B.toml", "x")], "on some machines these are one"),
    "bomb": (lambda z: z.writestr("big", bytes(BOMB)), "more than 64 MB, unpacked"),
}


@pytest.mark.parametrize("case", HOSTILE_ZIPS)
def test_a_hostile_zip_is_refused_and_leaves_nothing(inside: Sandbox, shared: dict[str, str], case: str) -> None:
    more, words = HOSTILE_ZIPS[case]
    body = zipped(shared, more=more)
    told = refused(lambda: served(inside, "x.zip", body), '"web": ', words)
    assert "\x1b" not in told
    assert contents(inside) == []


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_with_a_file_twice_is_refused(inside: Sandbox, shared: dict[str, str]) -> None:
    def twice(archive: zipfile.ZipFile) -> None:
        archive.writestr("b.toml", "1")
        archive.writestr("b.toml", "2")

    body = zipped(shared, more=twice)
    refused(lambda: served(inside, "x.zip", body), "b.toml is in it twice")


@pytest.mark.parametrize("kind", ["tar.gz", "tar.xz", "zip"])
@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "page"])
def test_an_archive_that_is_not_whole_is_refused(
    inside: Sandbox, shared: dict[str, str], kind: str, damage: str
) -> None:
    pack = {"tar.gz": lambda: gzip.compress(tar(shared)), "tar.xz": lambda: lzma.compress(tar(shared))}
    body = pack[kind]() if kind in pack else zipped(shared)
    damaged = {"cut": body[: len(body) // 2], "noise": body[:60] + bytes(40) + body[100:], "empty": b""}
    body = damaged.get(damage, b"<html>sign in</html>")
    refused(lambda: served(inside, f"x.{kind}", body), '"web": it ')
    assert contents(inside) == []


def test_a_header_of_a_tar_cannot_fill_the_memory(inside: Sandbox, shared: dict[str, str]) -> None:
    """A pax header is read as one piece: here one of 3 GB, in an archive of 1 MB."""
    member = tarfile.TarInfo("pax")
    member.type, member.size = tarfile.XHDTYPE, 3 * 2**30
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as file:
        file.write(member.tobuf())
        for _ in range(128):
            file.write(bytes(2**20))
    refused(lambda: served(inside, "x.tar.gz", packed.getvalue()), "its headers are too long")


def test_an_xz_that_wants_much_memory_is_refused(inside: Sandbox, shared: dict[str, str]) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**29}]
    body = lzma.compress(tar(shared), filters=filters)
    refused(lambda: served(inside, "x.tar.xz", body), "it is not a whole x.tar.xz: Memory usage limit")


def answer_of(answers: Mapping[str, Answer], path: str, _headers: object) -> Answer:
    return answers[path]


# builder/embedded/web.py leaves the answer that redirects open when it does not follow: until the program ends.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_redirect_leads_to_https_only(inside: Sandbox, shared: dict[str, str]) -> None:
    body = zipped(shared)
    for target, words in [
        ("file:///etc/passwd", "which is not followed"),
        ("ftp://example.org/x.zip", "which is not followed"),
        ("http://example.org/x.zip", "which is not followed"),
        ("/real.zip", ""),
        ("/x.zip", "cannot be fetched"),  # round and round
    ]:
        answers = {"/x.zip": (302, {"Location": target}, b""), "/real.zip": (200, {}, body)}
        with web(partial(answer_of, answers)) as url:
            project(inside, web=f'archive = "{url}/x.zip"')
            if words:
                refused(pin, '"web": ', words)
            else:
                assert pin()
                forget(inside)
                (inside.work / "drydock.lock.toml").unlink()


def test_a_netrc_file_is_for_its_host(inside: Sandbox, shared: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = inside.home / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret-word\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(inside.home))
    heard: list[str | None] = []

    def answer(_: str, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
        heard.append(headers.get("Authorization"))
        return 200, {}, zipped(shared)

    with web(answer) as url:
        project(inside, web=f'archive = "{url}/x.zip"')
        pin()
    assert heard == ["Basic bWU6c2VjcmV0LXdvcmQ="]
    assert "secret-word" not in (inside.work / "drydock.lock.toml").read_text()


def test_changed_content_of_an_archive_is_refused(inside: Sandbox, shared: dict[str, str]) -> None:
    bodies = [zipped(shared), zipped({**shared, "profiles/new.toml": "x"})]
    with web(lambda *_: (200, {}, bodies[0])) as url:
        project(inside, web=f'archive = "{url}/x.zip"')
        pin()
        forget(inside)
        bodies.reverse()
        words = ("it has changed: pinned is content", "drydock sources update web")
        refused(lambda: Catalogue().plan("web:small"), *words)
        bodies.reverse()
        assert Catalogue().plan("web:small")


def test_an_archive_without_end_is_refused(inside: Sandbox) -> None:
    with web(lambda *_: (200, {"Content-Length": str(2**40)}, bytes(BOMB))) as url:
        project(inside, web=f'archive = "{url}/x.zip"')
        refused(pin, "is more than 64 MiB")
    assert contents(inside) == []


# --- two at once, and killed ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_at_once_both_succeed(sandbox: Sandbox, team: Repository) -> None:
    sandbox.drydock("sources", "lock").succeeded()
    forget(sandbox)
    both = [sandbox.start("profile", "show", "team:small") for _ in range(3)]
    for one in both:
        _, said = one.communicate(timeout=LONG)
        assert one.returncode == 0, said
    assert contents(sandbox) == [pins(sandbox)["team"]["sha256"]]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_while_it_fetches_nothing_is_taken_for_whole(
    sandbox: Sandbox, shared: dict[str, str], number: signal.Signals
) -> None:
    begun, go = threading.Event(), threading.Event()
    body = zipped(shared)

    def answer(*_: object) -> tuple[int, Mapping[str, str], bytes]:
        begun.set()
        go.wait(LONG)
        return 200, {}, body

    with web(answer) as url:
        project(sandbox, web=f'archive = "{url}/x.zip"')
        process = sandbox.start("sources", "lock")
        assert begun.wait(LONG)
        process.send_signal(number)
        process.communicate(timeout=LONG)
        go.set()
        left = contents(sandbox)
        assert [name for name in left if not name.startswith(".new-")] == []
        assert bool(left) == (number == signal.SIGKILL)
        freed = sandbox.drydock("store", "gc").succeeded()
        assert ("its download was killed" in freed.stdout) == (number == signal.SIGKILL)
        assert contents(sandbox) == []
        sandbox.drydock("sources", "lock").succeeded()
    sandbox.drydock("profile", "show", "web:small").succeeded()


# --- consent -------------------------------------------------------------------------------------------------------


COMMANDS = [
    ["build", "team:small"],
    ["build", "team:small", "--check"],
    ["build", "team:small", "--cross", "there"],
    ["run", "team:small"],
    ["run", "team:small", "--supervise"],
    ["shell", "team:small"],
    ["shell", "team:small", "--scratch"],
    ["verify", "team:small"],
    ["service", "install", "team:small"],
]


def test_nothing_of_a_source_runs_before_somebody_agreed(sandbox: Sandbox, team: Repository) -> None:
    sandbox.drydock("sources", "lock").succeeded()
    for command in COMMANDS:
        refused = sandbox.drydock(*command).failed(1, "nobody has agreed to that on this machine yet", "--yes")
        assert "  trainer  python -c import anchor; print('trained with', anchor.version)" in refused.stderr
        assert refused.stdout == ""
    assert sandbox.environments() == []
    assert not list((sandbox.store.parent / "gcroots").rglob("*-small*"))  # what is not built needs no root
    assert not (sandbox.work / "there").exists()
    assert not list((sandbox.store.parent / "runs").rglob("state.json"))
    assert not (sandbox.home / ".config").exists()


@pytest.mark.slow
def test_proofs_of_a_source_run_nowhere_before_somebody_agreed(sandbox: Sandbox, team: Repository) -> None:
    """`patch check` has an environment of its own for them; `doctor` takes one that is there for another reason."""
    part = f'schema = 1\nname = "base"\n{PATCHED}'
    proof = f"open({str(sandbox.root / 'ran')!r}, 'w').close()\n{PROOF}"
    team.commit(
        {"profiles/base.toml": part, "profiles/patches/colour.patch": PATCH, "profiles/proofs/colour.py": proof}
    )
    project(sandbox, team=f'git = "{team.path}"')
    sandbox.drydock("sources", "lock").succeeded()
    sandbox.profile("mine", head='extends = ["team:base"]')
    sandbox.drydock("lock", "mine").succeeded()
    sandbox.run(["sh", str(sandbox.script("mine")), "--build-only"]).succeeded()  # whose script that is has decided it
    sandbox.drydock("patch", "check", "mine").failed(1, "nobody has agreed", "drydock build mine")
    assert "nobody has agreed" in sandbox.drydock("doctor", "mine", "--full").stdout
    assert not (sandbox.root / "ran").exists()
    sandbox.drydock("build", "mine", "--yes").succeeded()
    assert "colour.patch" in sandbox.drydock("patch", "check", "mine").succeeded().stdout
    assert (sandbox.root / "ran").exists()


def test_a_lock_that_builds_from_source_is_agreed_to(inside: Sandbox, team: Repository) -> None:
    """A source distribution runs its own code as soon as its metadata is asked for."""
    part = 'schema = 1\nname = "base"\n[packages.build]\nanchor = ["setuptools"]\n'
    team.commit({"profiles/base.toml": part})
    project(inside, team=f'git = "{team.path}"')
    pin()
    inside.profile("mine", head='extends = ["team:base"]')
    refused(lambda: relock("mine", Catalogue(), PlainReporter(io.StringIO())), "nobody has agreed")


@pytest.mark.slow
def test_what_only_looks_asks_nobody(sandbox: Sandbox, team: Repository) -> None:
    sandbox.drydock("sources", "lock").succeeded()
    for command in ("profile show", "profile check", "render", "build --dry-run"):
        sandbox.drydock(*command.split(), "team:small").succeeded()


def ask(desk: Sandbox, answer: str, *arguments: str) -> tuple[int, str]:
    """Run the program on a terminal, and give it an answer."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "builder", *arguments],
        env={**desk.environment, "TERM": "dumb"},
        cwd=desk.work,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    answered = False
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # that is how the end of a terminal is told on Linux
            break
        if not piece:
            break
        said += piece
        if not answered and b"[y/N]" in said:
            os.write(ours, answer.encode())
            answered = True
    os.close(ours)
    return process.wait(LONG), said.decode(errors="replace")


@pytest.mark.slow
def test_on_a_terminal_it_is_shown_and_asked_once_per_content(sandbox: Sandbox, team: Repository) -> None:
    evil = SMALL + '[env]\nNOTE = "a\\u001b[2Jb"\n[[checks]]\nfile = "check.py"\nwhy = "it is good"\n'
    team.commit({"profiles/small.toml": evil, "profiles/check.py": "print('ok')\n"})
    project(sandbox, team=f'git = "{team.path}"')
    sandbox.drydock("sources", "lock").succeeded()
    code, said = ask(sandbox, "n\n", "build", "team:small")
    assert code == 1
    assert "team:small was not agreed to, and nothing was run" in said
    assert "check    check.py: it is good" in said
    assert "NOTE=a\\x1b[2Jb" in said
    assert f"(git {team.path}, commit {team.git('rev-parse', 'HEAD')[:12]})" in said
    assert sandbox.environments() == []
    code, said = ask(sandbox, "\n", "build", "team:small")
    assert code == 1  # no is what Enter says
    code, said = ask(sandbox, "y\n", "run", "team:small")
    assert code == 0, said
    assert "trained with 1.0" in said
    assert sandbox.drydock("verify", "team:small").succeeded()  # not asked again
    # Another content is asked about anew; the old one is still agreed to.
    old = team.git("rev-parse", "HEAD")
    team.commit({"profiles/check.py": "print('ok, and more')\n"})
    sandbox.drydock("sources", "update").succeeded()
    sandbox.drydock("build", "team:small").failed(1, "nobody has agreed")
    project(sandbox, team=f'git = "{team.path}"\nrev = "{old}"')
    sandbox.drydock("sources", "lock").succeeded()
    sandbox.drydock("build", "team:small").succeeded()


@pytest.mark.slow
def test_settings_that_changed_are_agreed_to_before_they_are_taken_over(sandbox: Sandbox, team: Repository) -> None:
    """The environment is the same, and so its generation: the trainer is not."""
    project(sandbox, team=f'git = "{team.path}"')
    sandbox.drydock("sources", "lock").succeeded()
    sandbox.drydock("run", "team:small", "--yes").succeeded()
    team.commit({"profiles/small.toml": SMALL.replace("trained", "owned")})
    sandbox.drydock("sources", "update").succeeded()
    for command in ("run", "shell"):
        sandbox.drydock(command, "team:small").failed(1, "nobody has agreed", "print('owned with'")
    assert sandbox.drydock("run", "team:small", "--yes").succeeded().stdout == "owned with 1.0\n"


def test_a_profile_of_ones_own_asks_nobody(locked: Sandbox, team: Repository) -> None:
    locked.drydock("build", "small").succeeded()
    assert not (locked.store.parent / "consents").exists()


# --- garbage -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_source_that_no_lock_refers_to_is_collected(sandbox: Sandbox, team: Repository) -> None:
    sandbox.drydock("sources", "lock").succeeded()
    old = pins(sandbox)["team"]["sha256"]
    team.commit({"profiles/later.toml": 'schema = 1\nname = "later"\n'})
    team.git("tag", "--force", "v1")
    sandbox.drydock("sources", "update").succeeded()
    new = pins(sandbox)["team"]["sha256"]
    assert sandbox.drydock("store", "gc").succeeded().stdout == ""  # it may be that its lock is not written yet
    for path in (sandbox.store.parent / "sources").iterdir():
        aged(path)
    assert (
        sandbox.drydock("store", "gc", "--dry-run").succeeded().stdout == f"{old}: no lock file refers to this source\n"
    )
    assert contents(sandbox) == sorted([old, new])
    sandbox.drydock("store", "gc").succeeded()
    assert contents(sandbox) == [new]
    aged(sandbox.store.parent / "sources" / new)
    assert sandbox.drydock("store", "gc").succeeded().stdout == ""  # though nothing has used it yet
    (sandbox.work / "drydock.lock.toml").unlink()
    sandbox.drydock("store", "gc").succeeded()
    assert contents(sandbox) == []


def aged(path: Path) -> None:
    """Make a folder look two minutes old."""
    os.utime(path, (time.time() - 120,) * 2)
