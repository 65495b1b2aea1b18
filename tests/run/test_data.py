"""[data]: models and data sets of a hub, of URLs and of folders, locked by content, in the store, used offline."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil
import pytest
from uv import find_uv_bin

from builder.lock.model import dump
from builder.lock.model import parse as parse_lock
from tests.conftest import ROOT
from tests.embedded.test_stage import pythons
from tests.project.test_direct import age
from tests.support import SHELLS, Result, Sandbox, Web, make_wheel
from tests.support.hub import LARGE, Hub, Repo
from tests.support.mounts import tmpfs
from tests.support.waiting import LONG, allowed, until

WEIGHTS = os.urandom(300_000)
MODEL = {"config.json": b'{"model_type": "gpt2"}\n', "weights/model.safetensors": WEIGHTS, "README.md": b"# it\n"}
ROWS = b"".join(b"row %d\n" % number for number in range(500))
HUB = """
[data.tiny]
hub = "org/tiny"
files = ["*.json", "weights/"]
"""
TRAINER = """\
import os
for name in sorted(os.environ):
    if name.startswith(("DRYDOCK_DATA_", "HF_HUB_")):
        print(name, os.environ[name])
"""


class Desk:
    """A profile with data, and a hub."""

    def __init__(self, sandbox: Sandbox, hub: Hub, web: Web) -> None:
        self.sandbox, self.hub, self.web = sandbox, hub, web
        hub.repos["models/org/tiny"] = Repo(MODEL)
        sandbox.environment["HF_ENDPOINT"] = hub.url
        self.data = sandbox.store.parent / "data"

    def profile(self, tail: str) -> None:
        self.sandbox.trainer(TRAINER)
        with (self.sandbox.work / "profiles/small.toml").open("a") as file:
            file.write(tail)

    def lock(self, *options: str) -> Result:
        return self.sandbox.drydock("lock", "small", *options)

    @property
    def locked(self) -> str:
        return (self.sandbox.work / "profiles/small.lock.toml").read_text()

    def script(self, *arguments: str, **env: str) -> Result:
        """Run the script as on a machine that never saw it: by itself, elsewhere, in a store of its own."""
        path = self.sandbox.root / "generated/small/run_small.sh"
        if not path.exists():
            self.sandbox.script("small")
        away = self.sandbox.root / "away"
        away.mkdir(exist_ok=True)
        environment = {"DRYDOCK_HOME": str(self.elsewhere), **env}
        return self.sandbox.run(["sh", str(path), *arguments], cwd=away, env=environment)

    @property
    def elsewhere(self) -> Path:
        return self.sandbox.root / "elsewhere"

    def files(self) -> list[str]:
        """The contents that the store elsewhere has, by sha256; each is what its name says."""
        found = sorted((self.elsewhere / "data/files").iterdir())
        for path in found:
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
        return [path.name for path in found]


@pytest.fixture
def desk(sandbox: Sandbox, tmp_path: Path) -> Iterator[Desk]:
    with Hub() as hub, Web(tmp_path / "served") as web:
        web.folder.mkdir()
        yield Desk(sandbox, hub, web)


def variables(result: Result) -> dict[str, str]:
    rows = (line.partition(" ") for line in result.succeeded().stdout.splitlines())
    return {name: value for name, _, value in rows}


@pytest.mark.slow
def test_all_three_kinds_are_locked_fetched_once_and_used_offline(desk: Desk) -> None:
    (desk.web.folder / "files").mkdir()
    (desk.web.folder / "files/rows.txt").write_bytes(ROWS)
    corpus = desk.sandbox.work / "corpus"
    (corpus / "deep").mkdir(parents=True)
    (corpus / "deep/a b.txt").write_text("\u00e9\n")
    (corpus / ".gitignore").write_text("*\n")
    desk.profile(f'{HUB}[data.rows]\nurl = "{desk.web.url}/files/rows.txt"\n[data.own]\nfolder = "corpus"\n')
    desk.lock().succeeded()
    commit = desk.hub.repos["models/org/tiny"].head
    assert f'commit = "{commit}"' in desk.locked
    assert "127.0.0.1" not in desk.locked
    assert "README.md" not in desk.locked
    assert not [path for path in desk.hub.fetched() if path.startswith("/cdn/")], "the hub has said its sha256"
    shutil.copytree(corpus, desk.sandbox.root / "away/corpus")
    found = variables(desk.script())
    (view,) = (desk.elsewhere / "data/views").iterdir()
    model = Path(found["DRYDOCK_DATA_TINY"])
    assert model == view / f"hub/models--org--tiny/snapshots/{commit}"
    assert found["HF_HUB_CACHE"] == f"{view}/hub"
    assert found["HF_HUB_OFFLINE"] == "1"
    assert (model.parent.parent / "refs/main").read_text() == commit
    assert sorted(path.name for path in model.rglob("*")) == ["config.json", "model.safetensors", "weights"]
    assert (model / "weights/model.safetensors").read_bytes() == WEIGHTS
    assert Path(found["DRYDOCK_DATA_ROWS"]).read_bytes() == ROWS
    assert Path(found["DRYDOCK_DATA_ROWS"]).name == "rows.txt"
    assert (Path(found["DRYDOCK_DATA_OWN"]) / "deep/a b.txt").read_text() == "\u00e9\n"
    assert len(desk.files()) == 5
    assert not list((desk.elsewhere / "data/partial").iterdir())
    # From now on nothing of it is asked for.
    desk.hub.repos.clear()
    shutil.rmtree(desk.web.folder / "files")
    shutil.rmtree(desk.sandbox.root / "away/corpus")
    assert variables(desk.script()) == found
    assert "export DRYDOCK_DATA_TINY=" in desk.script("--print-env").succeeded().stdout


@pytest.mark.slow
def test_a_killed_fetch_goes_on_where_it_stopped(desk: Desk) -> None:
    desk.profile(HUB)
    desk.lock().succeeded()
    desk.script("--where").succeeded()
    desk.hub.slow = 0.3  # for 64 kB, of 300
    command = ["sh", str(desk.sandbox.root / "generated/small/run_small.sh")]
    env = {**desk.sandbox.environment, "DRYDOCK_HOME": str(desk.elsewhere)}
    both = [
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
        for _ in range(2)
    ]
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    partial = desk.elsewhere / "data/partial" / digest
    until(lambda: partial.exists() and partial.stat().st_size >= 1 << 16)
    for one in both:
        os.killpg(one.pid, signal.SIGKILL)
        one.communicate()
    until(lambda: not processes_with(str(desk.elsewhere)))
    assert not (desk.elsewhere / "data/views").exists() or not list((desk.elsewhere / "data/views").glob("[0-9a-f]*"))
    kept = partial.stat().st_size
    desk.hub.slow = 0
    desk.hub.ranges.clear()
    # Two at once again: what is there is not asked for twice.
    both = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    for one in both:
        out, errors = one.communicate(timeout=LONG)
        assert b"DRYDOCK_DATA_TINY" in out, errors
    assert desk.hub.ranges == [f"bytes={kept}-"]
    assert digest in desk.files()
    assert sorted(path.name for path in (desk.elsewhere / "data/partial").iterdir()) == []


def processes_with(word: str) -> list[int]:
    """The processes of the machinery that have a word among their arguments."""
    every = psutil.process_iter(["pid", "cmdline"])
    return [one.info["pid"] for one in every if word in (one.info["cmdline"] or ())]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["cut", "stall", "no-range"])
def test_a_broken_connection_is_made_again(desk: Desk, fault: str) -> None:
    desk.profile(HUB)
    desk.lock().succeeded()
    desk.hub.fault = fault
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    if fault == "no-range":
        partial = desk.elsewhere / "data/partial"
        partial.mkdir(parents=True)
        (partial / digest).write_bytes(WEIGHTS[:1000])
    desk.script(UV_HTTP_TIMEOUT="1").succeeded()
    starts = [int(one[6:-1] or 0) if one else 0 for one in desk.hub.ranges]
    assert starts == sorted(starts)
    assert starts == [1000] if fault == "no-range" else len(starts) > 1
    assert digest in desk.files()


@pytest.mark.slow
def test_what_came_before_and_does_not_fit_is_not_believed(desk: Desk) -> None:
    desk.profile(HUB)
    desk.lock().succeeded()
    partial = desk.elsewhere / "data/partial"
    partial.mkdir(parents=True)
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    for left in (bytes(5000), bytes(len(WEIGHTS)), bytes(len(WEIGHTS) + 9)):
        (partial / digest).write_bytes(left)
        shutil.rmtree(desk.elsewhere / "data/views", ignore_errors=True)
        (desk.elsewhere / "data/files" / digest).unlink(missing_ok=True)
        desk.script("--build-only").succeeded()
        assert digest in desk.files()


@pytest.mark.slow
def test_what_cannot_be_had_is_said_and_leaves_nothing_that_counts(desk: Desk) -> None:
    desk.profile(HUB)
    desk.lock().succeeded()
    repo = desk.hub.repos["models/org/tiny"]
    for fault, words in (
        ("wrong", ["tiny: weights/model.safetensors is not what was locked: its sha256 is", "find out why"]),
        ("endless", ["tiny: weights/model.safetensors is not what was locked", "300000 are locked"]),
        ("500", ["HTTP status 500", "drydock push and pull"]),
    ):
        desk.hub.fault = fault
        desk.script().failed(1, *words)
        assert not list((desk.elsewhere / "data/views").glob("[0-9a-f]*"))
        assert hashlib.sha256(WEIGHTS).hexdigest() not in desk.files()
    desk.hub.fault = ""
    desk.script(UV_OFFLINE="1").failed(1, "is not here, and no network is to be used")
    desk.script(HF_HUB_OFFLINE="1").failed(1, "is not here, and no network is to be used")
    # It has vanished, or a commit of it.
    commits = repo.commits
    repo.commits = {}
    desk.script().failed(1, "tiny: weights/model.safetensors: the hub does not have it", f"{desk.hub.url}/org/tiny")
    repo.commits = commits
    # What is built stays built, and is said to lack its data only.
    assert not [name for name in os.listdir(desk.elsewhere / "store") if name.endswith("-small")]
    desk.script().succeeded()


@pytest.mark.slow
def test_a_gated_model_takes_the_users_own_token_and_shows_it_to_nobody(desk: Desk) -> None:
    repo = desk.hub.repos["models/org/tiny"]
    repo.token = "hf_SecretOfMine"
    desk.profile(HUB)
    page = f"{desk.hub.url}/org/tiny"
    desk.lock().failed(1, "the hub wants a token: it is gated, private, or not there", page, "set HF_TOKEN")
    desk.sandbox.environment["HF_TOKEN"] = "hf_of_another"
    said = desk.lock().failed(1, "the hub refuses your token", f"ask for access at {page}")
    assert "hf_of_another" not in said.stderr
    desk.sandbox.environment["HF_TOKEN"] = "hf_broken\u00e9 one"
    said = desk.lock().failed(1, "has a character that no token has")
    assert "broken" not in said.stderr
    desk.sandbox.environment["HF_TOKEN"] = repo.token
    desk.lock().succeeded()
    del desk.sandbox.environment["HF_TOKEN"]
    desk.script().failed(1, ": the hub wants a token", "hf auth login")
    # As `hf auth login` writes it.
    token = desk.sandbox.home / ".cache/huggingface/token"
    token.parent.mkdir(parents=True)
    token.write_text(f"{repo.token}\n")
    done = desk.script().succeeded()
    assert repo.token not in done.stdout + done.stderr + desk.locked
    # Nobody but the hub: large files are at another host.
    secrets = {secret for path, secret in desk.hub.requests if path.startswith("/cdn/")}
    assert desk.hub.fetched()
    assert secrets == {""}
    for folder in (desk.elsewhere, desk.sandbox.root / "generated", desk.sandbox.store.parent):
        assert subprocess.run(["grep", "-rqF", repo.token, str(folder)], check=False).returncode == 1


@pytest.mark.slow
def test_what_the_hubs_own_tools_have_fetched_is_not_fetched_again(desk: Desk) -> None:
    desk.profile(HUB)
    desk.lock().succeeded()
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    blob = desk.sandbox.home / f".cache/huggingface/hub/models--org--tiny/blobs/{digest}"
    blob.parent.mkdir(parents=True)
    for content, asked in ((bytes(len(WEIGHTS)), True), (WEIGHTS, False)):
        blob.write_bytes(content)
        shutil.rmtree(desk.elsewhere / "data/views", ignore_errors=True)
        (desk.elsewhere / "data/files" / digest).unlink(missing_ok=True)
        desk.hub.requests.clear()
        desk.script("--build-only").succeeded()
        assert any(path.startswith("/cdn/") for path in desk.hub.fetched()) == asked
        assert digest in desk.files()


def test_nothing_is_fetched_before_the_profile_is_agreed_to(desk: Desk) -> None:
    sandbox, team = desk.sandbox, desk.sandbox.root / "team"
    team.mkdir()
    (sandbox.work / "drydock.toml").write_text(f'[sources.team]\npath = "{team}"\n')
    desk.profile(HUB)
    shutil.move(sandbox.work / "profiles/small.toml", team)
    sandbox.drydock("lock", "team:small").failed(1, "nobody has agreed", "data     tiny: org/tiny")
    assert not desk.hub.requests
    sandbox.drydock("lock", "team:small", "--yes").succeeded()
    assert desk.hub.requests
    # No path of this machine.
    (team / "small.toml").write_text((team / "small.toml").read_text().replace(HUB, '[data.a]\nfolder = "a"\n'))
    sandbox.drydock("lock", "team:small", "--yes").failed(1, "may name hubs and URLs, and no path of this machine")


@pytest.mark.slow
def test_all_shells_bring_it_and_a_second_build_has_it(desk: Desk) -> None:
    desk.profile(HUB)
    desk.lock().succeeded()
    found = variables(desk.script())
    script = desk.sandbox.root / "generated/small/run_small.sh"
    env = {"DRYDOCK_HOME": str(desk.elsewhere)}
    printed = set()
    for shell, command in SHELLS.items():
        subprocess.run(["chmod", "-R", "u+w", str(desk.elsewhere / "data")], check=True)
        shutil.rmtree(desk.elsewhere / "data")
        done = desk.sandbox.run([*command, str(script)], env=env)
        assert variables(done) == found, shell
        printed.add(desk.sandbox.run([*command, str(script), "--print-env"], env=env).succeeded().stdout)
    assert len(printed) == 1
    shellcheck = shutil.which("shellcheck", path=str(ROOT / ".venv/bin")) or "shellcheck"
    done = desk.sandbox.run([shellcheck, str(script)])
    assert done.stdout == ""
    # What is built twice to be compared, or repaired, finds the data of the store.
    desk.sandbox.drydock("build", "small").succeeded()
    desk.hub.repos.clear()
    assert "built twice" in desk.sandbox.drydock("build", "small", "--check").succeeded().stderr
    assert len(list((desk.data / "views").glob("[0-9a-f]*"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("python", pythons())
def test_every_python_that_it_may_meet_fetches_it(desk: Desk, python: Path) -> None:
    desk.profile(HUB)
    desk.lock().succeeded()
    script = desk.sandbox.script("small").read_text()
    (carried,) = re.findall(r'^  cat >"\$_work/data".*?\n(.*?)^DRYDOCK_END$', script, re.DOTALL | re.MULTILINE)
    (desk.sandbox.root / "entries").write_text(carried)
    arguments = ["data", str(desk.elsewhere), "none", str(os.getpid()), "view", str(desk.sandbox.root / "entries")]
    code = "import sys, warnings; warnings.simplefilter('error'); sys.path.insert(0, sys.argv.pop(1)); "
    code += "from builder.embedded.__main__ import run; run()"
    desk.sandbox.run([str(python), "-I", "-S", "-B", "-c", code, str(ROOT), *arguments]).succeeded()
    assert len(desk.files()) == 2
    assert (desk.elsewhere / "data/views/view/hub/models--org--tiny/refs/main").is_file()


def test_who_is_stopped_by_a_signal_ends_at_once(desk: Desk) -> None:
    desk.profile(HUB)
    desk.lock().succeeded()
    desk.script("--where").succeeded()
    desk.hub.fault = "stall"
    command = ["sh", str(desk.sandbox.root / "generated/small/run_small.sh")]
    env = {**desk.sandbox.environment, "DRYDOCK_HOME": str(desk.elsewhere)}
    for number in (signal.SIGTERM, signal.SIGINT):
        desk.hub.ranges.clear()
        child = subprocess.Popen(command, env=env, stderr=subprocess.PIPE)
        until(lambda: bool(desk.hub.ranges))
        since = time.monotonic()
        child.send_signal(number)
        errors = child.communicate(timeout=LONG)[1].decode()
        assert time.monotonic() - since < allowed(5)
        assert child.returncode == 128 + number, errors
        assert "Traceback" not in errors
        until(lambda: not processes_with(str(desk.elsewhere)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lies", "words"),
    [
        ({"siblings": [{"rfilename": "../../out.json", "size": 3}]}, ["which is no name inside of a folder"]),
        ({"siblings": [{"rfilename": "/etc/x.json", "size": 3}]}, ["which is no name inside of a folder"]),
        ({"siblings": [{"rfilename": "a\\b.json", "size": 3}]}, ["which is no name inside of a folder"]),
        ({"siblings": [{"rfilename": "a\x1b[2J.json", "size": 3}]}, ["which is no name inside of a folder"]),
        ({"siblings": [{"rfilename": f"{300 * 'x'}.json", "size": 3}]}, ["which is no name inside of a folder"]),
        ({"siblings": [{"rfilename": "a.json", "size": -1}]}, ["the hub gives no size of"]),
        ({"siblings": [{"rfilename": "a.json", "size": 1 << 70}]}, ["the hub gives no size of"]),
        (
            {"siblings": [{"rfilename": "a.json", "size": 3, "lfs": {"sha256": "x", "size": 3}}]},
            ["the hub gives no size and no sha256 of"],
        ),
        ({"siblings": [{"rfilename": "config.json", "size": 3}]}, ["it is more than 3 bytes"]),
        ({"siblings": [{"rfilename": "config.json", "size": 23, "blobId": 40 * "0"}]}, ["is not the file that"]),
        ({"siblings": 2 * [{"rfilename": "a.json", "size": 3}]}, ["two of its files have one name"]),
        ({"siblings": [{"rfilename": "A.json", "size": 3}, {"rfilename": "a.json", "size": 3}]}, ["have one name"]),
        ({"siblings": [{"rfilename": "a.json", "size": 3}, {"rfilename": "a.json/b.json", "size": 3}]}, ["one name"]),
        ({"siblings": [{"rfilename": f"{n}.json", "size": 3} for n in range(10_001)]}, ["10,001 files"]),
        ({"siblings": []}, ["none of its files is one of `files`"]),
        ({"sha": "../../../x"}, ["the answer is not that of a hub"]),
        ({"siblings": None}, ["the answer is not that of a hub"]),
    ],
)
def test_a_hub_that_lies_is_not_believed(desk: Desk, lies: dict[str, Any], words: list[str]) -> None:
    desk.profile(HUB)
    desk.hub.lies = lies
    said = desk.lock().failed(1, "[data.tiny] org/tiny: ", *words)
    assert "\x1b" not in said.stderr
    assert not (desk.sandbox.work / "profiles/small.lock.toml").exists()
    assert not [path for path in (desk.data / "files").glob("*") if path.is_dir()]


def test_a_path_in_a_lock_that_leads_out_is_refused_where_it_is_used(desk: Desk) -> None:
    desk.profile(HUB)
    desk.lock().succeeded()
    path = desk.sandbox.script("small")
    path.write_text(path.read_text().replace("weights/model.safetensors", "../../../../../out"))
    desk.script().failed(1, "which is no name inside of a folder")
    assert not list(desk.elsewhere.rglob("out"))


@pytest.mark.slow
def test_what_the_profile_says_and_is_not_there(desk: Desk) -> None:
    for tail, words in (
        ('[data.a]\nhub = "org/tiny"\nrevision = "v9"\n', ["it has no revision v9"]),
        ('[data.a]\nhub = "org/none"\n', ["the hub wants a token: it is gated, private, or not there"]),
        ('[data.a]\nhub = "org/tiny"\nfiles = ["*.bin"]\n', ["none of its files", "config.json"]),
        (f'[data.a]\nurl = "{desk.web.url}/none"\n', [f"[data.a] {desk.web.url}/none: HTTP status 404"]),
        ('[data.a]\nfolder = "none"\n', ["there is no such folder"]),
        ('[data.a]\nhub = "org/tiny"\nurl = "http://a/b"\n', ["give exactly one of hub, url and folder"]),
        ('[data.a]\nurl = "http://a/b"\nrevision = "x"\n', ["revision goes with hub"]),
        ('[data.a]\nfolder = "../up"\n', ["must be a plain path inside the project"]),
        ('[data.a]\nurl = "http://me:word@a/b"\n', ["a user name or password has no place in a shared file"]),
        ('[data.a]\nhub = "org/tiny/x"\n', ["data.a.hub"]),
        ('[data.a]\nhub = "org/tiny"\n[env]\nHF_HUB_CACHE = "/x"\n', ["env.HF_HUB_CACHE"]),
    ):
        desk.profile(tail)
        desk.lock().failed(1, *words)
    desk.profile('[data.a]\nhub = "org/tiny"\n')
    desk.sandbox.drydock("--offline", "lock", "small").failed(1, "--offline forbids asking for it")


@pytest.mark.slow
def test_a_folder_is_its_files_and_links_do_not_lead_out(desk: Desk) -> None:
    folder = desk.sandbox.work / "corpus"
    folder.mkdir()
    desk.profile('[data.own]\nfolder = "corpus"\n')
    desk.lock().failed(1, "it has no files")
    (folder / "a.txt").write_text("a")
    (folder / "b.txt").symlink_to("a.txt")
    for target in ("/etc/passwd", "../profiles", "nowhere", "/"):
        (folder / "link").symlink_to(target)
        desk.lock().failed(1, "'link' is a link")
        (folder / "link").unlink()
    desk.lock().succeeded()
    desk.sandbox.drydock("build", "small").succeeded()
    own = Path(variables(desk.sandbox.drydock("run", "small"))["DRYDOCK_DATA_OWN"])
    assert sorted(path.name for path in own.iterdir()) == ["a.txt", "b.txt"]
    assert not (own / "b.txt").is_symlink()
    # Changed since: the lock is stale, also for a change that keeps the size.
    (folder / "a.txt").write_text("b")
    desk.sandbox.drydock("build", "small").failed(1, "corpus, which is the data own, has changed", "drydock lock small")
    assert "data.own" in desk.lock().succeeded().stdout
    own = Path(variables(desk.sandbox.drydock("run", "small"))["DRYDOCK_DATA_OWN"])
    assert (own / "a.txt").read_text() == "b"
    # Without the folder, from the store.
    shutil.rmtree(folder)
    assert variables(desk.sandbox.drydock("run", "small"))["DRYDOCK_DATA_OWN"] == str(own)
    desk.script().failed(1, "own: a.txt is not in", "drydock push and pull")


@pytest.mark.slow
def test_a_disk_without_room_is_said_before_anything_is_fetched(desk: Desk) -> None:
    desk.hub.repos["models/org/tiny"].commit({"a.json": os.urandom(60 << 20)})
    desk.profile(HUB)
    desk.lock().succeeded()
    desk.script("--where").succeeded()
    with tmpfs(desk.elsewhere, "48m"):
        desk.script().failed(1, "the data takes 62.9 MB, and ", "free some space, or name another disk")
        assert not desk.hub.fetched()
        shutil.rmtree(desk.elsewhere / "data")
        # Full in the middle: another process has written meanwhile.
        desk.hub.repos["models/org/tiny"].commit({"a.json": os.urandom(20 << 20)})
        desk.lock("--upgrade", "data").succeeded()
        shutil.rmtree(desk.sandbox.root / "generated")
        desk.hub.slow = 0.01
        desk.script("--where").succeeded()
        command = ["sh", str(desk.sandbox.root / "generated/small/run_small.sh")]
        env = {**desk.sandbox.environment, "DRYDOCK_HOME": str(desk.elsewhere)}
        child = subprocess.Popen(command, env=env, stderr=subprocess.PIPE)
        until(lambda: any(path.stat().st_size for path in (desk.elsewhere / "data/partial").glob("*")))
        with suppress(OSError), (desk.elsewhere / "other").open("wb") as file:
            while file.write(bytes(1 << 20)):
                pass
        errors = child.communicate(timeout=LONG)[1].decode()
        assert child.returncode == 1
        assert "No space left on device" in errors
        assert "Traceback" not in errors
        (desk.elsewhere / "other").unlink()
        desk.script("--build-only").succeeded()


def test_an_upgrade_takes_what_the_revision_is_now_and_nothing_else_does(desk: Desk) -> None:
    desk.profile(HUB)
    desk.lock().succeeded()
    repo = desk.hub.repos["models/org/tiny"]
    first = repo.head
    desk.hub.requests.clear()
    second = repo.commit({**MODEL, "config.json": b"{}\n"})
    assert "is fresh" in desk.lock().succeeded().stderr
    assert not desk.hub.requests
    assert f"~ data.tiny {first[:12]}" in desk.lock("--upgrade", "data.tiny").succeeded().stdout
    assert f'commit = "{second}"' in desk.locked
    desk.lock("--upgrade", "data.none").failed(1, "small has no data.none", "it has: tiny")
    # A change of the pattern locks it again, and keeps the packages.
    desk.profile(HUB.replace('"*.json", ', ""))
    desk.sandbox.drydock("build", "small").failed(1, "the lock is stale")
    desk.lock().succeeded()
    assert "config.json" not in desk.locked


@pytest.mark.slow
def test_it_travels_with_mirrors_and_bundles_or_is_left_out(desk: Desk) -> None:
    sandbox, mirror = desk.sandbox, desk.sandbox.root / "mirror"
    folder = sandbox.work / "corpus"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    # As in tests/share/test_bundle.py: its wheel of uv has the real one in it.
    files = {f"uv-{version('uv')}.data/scripts/uv": f'#!/bin/sh\nexec {sandbox.environment["DRYDOCK_UV"]} "$@"\n'}
    make_wheel(sandbox.wheels, "uv", version("uv"), tag="py3-none-manylinux_2_17_x86_64", files=files)
    desk.profile(f'{HUB}[data.own]\nfolder = "corpus"\n')
    desk.lock().succeeded()
    said = sandbox.drydock("push", "small", str(mirror), "--dry-run", "--without-data").succeeded()
    assert "own" not in said.stdout
    assert "data:" not in said.stderr
    said = sandbox.drydock("push", "small", str(mirror)).succeeded()
    assert "data: 3 files, 0.3 MB; without: --without-data" in said.stderr
    assert len(list(mirror.rglob("*.data"))) == 3
    assert not list((mirror / "simple").glob("*data*")), "they are no package"
    whole, small = sandbox.root / "whole.run", sandbox.root / "small.run"
    sandbox.drydock("bundle", "small", "-o", str(whole)).succeeded()
    sandbox.drydock("bundle", "small", "-o", str(small), "--without-data").succeeded()
    assert whole.stat().st_size > small.stat().st_size + len(WEIGHTS)
    sandbox.drydock("bundle", "small", "--verify", str(small), "--without-data").succeeded()
    sandbox.drydock("bundle", "small", "--verify", str(small)).failed(1, "is not the bundle of small")
    python = {"DRYDOCK_PYTHON": sandbox.environment["DRYDOCK_PYTHON"]}
    # Without the data, the bundle of the rest fetches it where it runs.
    there = {**python, "DRYDOCK_HOME": str(sandbox.root / "third")}
    (sandbox.root / "away").mkdir()
    shutil.copytree(folder, sandbox.root / "away/corpus")
    done = sandbox.run(["sh", str(small)], cwd=sandbox.root / "away", env=there)
    assert (Path(variables(done)["DRYDOCK_DATA_TINY"]) / "config.json").is_file()
    # From here on, nobody is there.
    repos = dict(desk.hub.repos)
    desk.hub.repos.clear()
    shutil.rmtree(folder)
    shutil.rmtree(sandbox.root / "away/corpus")
    there = {**python, "DRYDOCK_HOME": str(sandbox.root / "fourth")}
    done = sandbox.run(["sh", str(whole)], cwd=sandbox.root / "away", env=there)
    assert (Path(variables(done)["DRYDOCK_DATA_OWN"]) / "a.txt").read_text() == "a"
    # Also where the environment was built before, and its data is not there any more.
    subprocess.run(["chmod", "-R", "u+w", str(sandbox.root / "fourth/data")], check=True)
    shutil.rmtree(sandbox.root / "fourth/data")
    done = sandbox.run(["sh", str(whole)], cwd=sandbox.root / "away", env=there)
    assert (Path(variables(done)["DRYDOCK_DATA_TINY"]) / "weights/model.safetensors").read_bytes() == WEIGHTS
    assert not list((sandbox.root / "fourth/tools").glob(".new-*"))
    # A cache that has something else is passed over, with a warning.
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    (packed,) = mirror.glob(f"files/*/{digest}/*.data")
    packed.write_bytes(b"other")
    desk.hub.repos.update(repos)
    said = desk.script(DRYDOCK_CACHE=str(mirror)).succeeded()
    assert "did not send tiny: weights/model.safetensors: " in said.stderr
    packed.write_bytes(WEIGHTS)
    desk.hub.repos.clear()
    with Web(mirror) as served:
        subprocess.run(["chmod", "-R", "u+w", str(desk.elsewhere)], check=True)
        shutil.rmtree(desk.elsewhere)
        desk.script(DRYDOCK_CACHE=served.url).succeeded()
        assert digest in desk.files()
    shutil.rmtree(desk.data, ignore_errors=True)
    sandbox.drydock("pull", "small", str(mirror)).succeeded()
    shutil.rmtree(mirror)
    sandbox.drydock("build", "small", env={"UV_OFFLINE": "1"}).succeeded()
    own = sandbox.store.parent / "cache/mirror"
    (pulled,) = own.glob(f"files/*/{digest}/*.data")
    assert pulled.samefile(desk.data / "files" / digest), "it is there once"


@pytest.mark.slow
def test_a_collection_keeps_what_scripts_and_runs_need_and_takes_the_rest(desk: Desk) -> None:
    sandbox = desk.sandbox
    desk.profile(HUB)
    sandbox.drydock("lock", "small").succeeded()
    sandbox.drydock("build", "small").succeeded()
    first = variables(sandbox.drydock("run", "small"))["DRYDOCK_DATA_TINY"]
    (desk.data / "partial" / (64 * "a")).touch()

    def collect() -> str:
        for path in (*desk.data.glob("views/*"), *desk.data.glob("files/*"), *desk.data.glob("partial/*")):
            age(path, 2 * 86_400)
        return sandbox.drydock("store", "gc").succeeded().stdout

    said = collect()
    assert "its download was killed" in said
    assert "data" not in said.replace("was killed, and not begun again", "")
    assert re.search(r"0\.3 MB +models and data sets", sandbox.drydock("store", "du").succeeded().stdout)
    # Another commit, with other weights: what the old one had alone goes with it.
    repo = desk.hub.repos["models/org/tiny"]
    repo.commit({**MODEL, "weights/model.safetensors": os.urandom(9000)})
    sandbox.drydock("lock", "small", "--upgrade", "data").succeeded()
    second = variables(sandbox.drydock("run", "small"))["DRYDOCK_DATA_TINY"]
    assert first != second
    said = collect()
    assert said.count("no script names this data") == 2
    assert not Path(first).exists()
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    assert not (desk.data / "files" / digest).exists()
    assert variables(sandbox.drydock("run", "small"))["DRYDOCK_DATA_TINY"] == second
    # What was changed is found, and fetched again.
    weights = Path(second) / "weights/model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(b"other")
    sandbox.drydock("store", "verify").failed(1)
    sandbox.drydock("store", "verify", "--repair").succeeded()
    assert not weights.exists()
    sandbox.drydock("run", "small").succeeded()
    assert len(weights.read_bytes()) == 9000
    sandbox.drydock("store", "verify").succeeded()


@pytest.mark.slow
def test_a_process_of_the_profile_keeps_its_data(desk: Desk) -> None:
    sandbox = desk.sandbox
    desk.profile(HUB)
    sandbox.drydock("lock", "small").succeeded()
    sandbox.drydock("build", "small").succeeded()
    sandbox.trainer("import time; print('begun', flush=True); time.sleep(60)")
    with (sandbox.work / "profiles/small.toml").open("a") as file:
        file.write(HUB)
    running = sandbox.start("run", "small")
    assert running.stdout is not None
    assert running.stdout.readline() == b"begun\n"
    (view,) = desk.data.glob("views/*")
    sandbox.trainer("print('none')")
    sandbox.drydock("lock", "small").succeeded()
    sandbox.drydock("build", "small").succeeded()
    age(view, 2 * 86_400)
    sandbox.drydock("store", "gc").succeeded()
    assert view.is_dir()
    running.kill()
    running.communicate()
    age(view, 2 * 86_400)
    sandbox.drydock("store", "gc").succeeded()
    assert not view.exists()


@pytest.mark.slow
def test_a_record_names_the_data_and_a_difference_shows_it(desk: Desk) -> None:
    sandbox = desk.sandbox
    sandbox.environment["DRYDOCK_RECORDS"] = "1"
    desk.profile(HUB)
    sandbox.drydock("lock", "small").succeeded()

    def recorded() -> dict[str, Any]:
        sandbox.drydock("run", "small").succeeded()

        def newest() -> dict[str, Any]:
            done = sandbox.drydock("runs", "show", "last", "--json")
            found: dict[str, Any] = json.loads(done.succeeded().stdout)
            return found

        until(lambda: "data" in newest())
        return newest()

    repo = desk.hub.repos["models/org/tiny"]
    before = recorded()
    lock = parse_lock(desk.locked, "small.lock.toml", "small")
    (row,) = before["data"]
    assert (row["name"], row["hub"], row["commit"]) == ("tiny", "org/tiny", repo.head)
    assert (row["sha256"], row["files"], row["size"]) == (lock.data[0].sha256, 2, lock.data[0].size)
    assert f"tiny: org/tiny, commit {repo.head[:12]}, sha256 {row['sha256'][:12]}" in (
        sandbox.drydock("runs", "show", before["id"]).succeeded().stdout
    )
    repo.commit({**MODEL, "config.json": b"{}\n"})
    sandbox.drydock("lock", "small", "--upgrade", "data").succeeded()
    after = recorded()
    said = sandbox.drydock("diff", before["id"], after["id"]).succeeded().stdout
    assert f"data:\n  ~ tiny org/tiny, commit {row['commit'][:12]}" in said
    assert said.count("tiny org/tiny") == 1
    # Locks have it too.
    (sandbox.work / "old.lock.toml").write_text(dump(lock))
    said = sandbox.drydock("diff", "old.lock.toml", "small").succeeded().stdout
    assert f"data: 1 changed\n  ~ tiny {row['commit'][:12]}, sha256 {row['sha256'][:12]} (" in said
    # A run is repeated with the data that it had.
    subprocess.run(["chmod", "-R", "u+w", str(desk.data / "views")], check=True)
    shutil.rmtree(desk.data / "views")
    (desk.data / "files" / hashlib.sha256(MODEL["config.json"]).hexdigest()).unlink()
    commits, repo.commits = repo.commits, {}
    sandbox.drydock("rerun", before["id"], "--anyway", "--into", "again").failed(1, "the hub does not have it")
    assert not (sandbox.work / "again").exists()
    repo.commits = commits
    said = sandbox.drydock("rerun", before["id"], "--anyway", "--into", "again").succeeded().stdout
    assert f"/snapshots/{row['commit']}\n" in said


# --- huggingface_hub itself ------------------------------------------------------------------------------------------

TINY = """
import sys
from transformers import GPT2Config, GPT2LMHeadModel
GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=128, n_positions=16)).save_pretrained(sys.argv[1])
"""
CLIENT = """
import hashlib, os, sys
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
repo, kind, commit, file = sys.argv[1:]
one = hf_hub_download(repo, file, repo_type=kind, revision=sys.argv[3])
for revision in (None, "main", commit):
    same = hf_hub_download(repo, file, repo_type=kind, revision=revision)
    assert os.path.realpath(one) == os.path.realpath(same), (one, same)
    folder = snapshot_download(repo, repo_type=kind, revision=revision)
    assert os.path.dirname(one).startswith(folder), folder
print(folder)
print(hashlib.sha256(open(one, "rb").read()).hexdigest())
"""
LOADED = """
import os, sys, torch
from transformers import AutoConfig, AutoModelForCausalLM
models = [AutoModelForCausalLM.from_pretrained("org/tiny", revision=revision) for revision in ("main", sys.argv[1])]
models.append(AutoModelForCausalLM.from_pretrained(os.environ["DRYDOCK_DATA_TINY"]))
models.append(AutoModelForCausalLM.from_pretrained(sys.argv[2]))
weights = [[*model.state_dict().values()] for model in models]
assert all(torch.equal(a, b) for other in weights for a, b in zip(weights[-1], other))
try:
    AutoConfig.from_pretrained("org/other")
except OSError as error:
    print("nothing else is fetched:", "offline" in str(error).lower() or "couldn't connect" in str(error))
"""


@pytest.mark.slow
@pytest.mark.parametrize("client", ["of the environment", "newest"])
def test_huggingface_hub_finds_offline_what_was_fetched(desk: Desk, cpu_env: Path, tmp_path: Path, client: str) -> None:
    """The client of the environment and the newest, and transformers, against the hub and against the store."""
    own = tmp_path / "tiny"

    def python(code: str, *words: str, newest: bool = False, env: Mapping[str, str] = MappingProxyType({})) -> str:
        command = [str(cpu_env / "bin/python")]
        if newest:
            command = [find_uv_bin(), "run", "--quiet", "--no-project", "--with", "huggingface-hub", "python"]
            ours = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
            env = {**ours, **env}  # the index of this machine
        base = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "HF_ENDPOINT": desk.hub.url}
        done = subprocess.run(
            [*command, "-c", code, *words], env={**base, **env}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    python(TINY, str(own))
    files = {path.name: path.read_bytes() for path in own.iterdir()}
    assert any(len(content) >= LARGE for content in files.values())
    repo = desk.hub.repos["models/org/tiny"] = Repo(files)
    rows = desk.hub.repos["datasets/org/rows"] = Repo({"data/rows.csv": ROWS, "README.md": b"# rows\n"})
    newest = client == "newest"
    cache = {"HF_HUB_CACHE": str(tmp_path / "cache")}
    # The hub of this test is one to the client.
    for words in (
        ("org/tiny", "model", repo.head, "model.safetensors"),
        ("org/rows", "dataset", rows.head, "data/rows.csv"),
    ):
        python(CLIENT, *words, newest=newest, env=cache)
    desk.profile('[data.tiny]\nhub = "org/tiny"\n[data.rows]\nhub = "org/rows"\ntype = "dataset"\n')
    desk.lock().succeeded()
    found = variables(desk.script())
    desk.hub.repos.clear()
    desk.hub.requests.clear()
    environment = {name: value for name, value in found.items() if name.startswith(("HF_", "DRYDOCK_DATA_"))}
    said = python(CLIENT, "org/tiny", "model", repo.head, "model.safetensors", newest=newest, env=environment)
    digest = hashlib.sha256(files["model.safetensors"]).hexdigest()
    assert said.splitlines() == [found["DRYDOCK_DATA_TINY"], digest]
    said = python(CLIENT, "org/rows", "dataset", rows.head, "data/rows.csv", newest=newest, env=environment)
    assert said.splitlines() == [found["DRYDOCK_DATA_ROWS"], hashlib.sha256(ROWS).hexdigest()]
    if not newest:
        said = python(LOADED, repo.head, str(own), env=environment)
        assert said == "nothing else is fetched: True\n"
    assert not desk.hub.requests
