"""Records of runs: what is in one, what it costs nobody, and what is made of one that somebody damaged."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from builder import resources
from builder.errors import DrydockError, UsageError
from builder.project.catalogue import Catalogue
from builder.run.records import code, folder, history, life
from builder.run.records.begin import begin, finish
from builder.run.records.compare import compare_runs
from builder.run.records.identity import new_id
from builder.run.records.rerun import bring, pointers, prepare
from builder.run.records.summary import Summary
from builder.run.records.words import rows as cells
from builder.run.supervise.journal import write_state
from tests.support import Sandbox
from tests.support.mounts import tmpfs
from tests.support.waiting import allowed, until

RECORDED = {"DRYDOCK_RECORDS": "1", "HF_TOKEN": "hf_abcdefgh"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DRYDOCK_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> Path:
    """A repository with one commit of `train.py`; the test stands in it."""
    place = tmp_path / "code"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("HOME", str(tmp_path))
    git("init", "--quiet", "--initial-branch=main")
    (place / "train.py").write_text("lr = 1\n")
    commit("first")
    assert not home.exists()
    return place


def git(*words: str, check: bool = True) -> str:
    own = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always"]
    return subprocess.run(["git", *own, *words], check=check, capture_output=True, text=True).stdout


def commit(message: str) -> str:
    git("add", ".")
    git("commit", "--quiet", "-m", message)
    return git("rev-parse", "HEAD").strip()


def found(where: Path = Path(), secrets: dict[str, str] | None = None) -> dict[str, Any]:
    return code.code_of(where.absolute(), time.time() + 1, secrets or {})


def record(**more: Any) -> folder.Record:
    """A whole record of a run that has ended, written."""
    now = more.pop("now", time.time())
    made: folder.Record = {
        "schema": 1,
        "id": new_id(now),
        "name": "m4",
        "started": folder.timestamp(now),
        "command": "train",
        "arguments": [],
        "store-name": "k-m4",
        "tags": [],
        "note": "",
        "process": life.of(os.getpid()),
        "end": {"time": folder.timestamp(now), "exit": 0, "why": "done"},
        **more,
    }
    folder.put(folder.path_of(made["id"]), made)
    return made


# --- a run, as a user sees it --------------------------------------------------------------------------------------


@pytest.fixture
def desk(built: Sandbox) -> Iterator[Sandbox]:
    """The built desk, in a repository of git."""
    kept = built.store.parent / "runs/.records"
    subprocess.run(["rm", "-rf", str(kept)], check=True)
    built.trainer("import sys; print('loss=2.5'); print({'loss': 0.25}); print(sys.argv)")
    for words in (["init", "-q"], ["add", "profiles"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm1"]):
        built.run(["git", *words]).succeeded()
    yield built
    subprocess.run(["rm", "-rf", str(kept), str(built.work / ".git"), str(built.work / "new.py")], check=True)


def rows(desk: Sandbox) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(desk.drydock("runs", "list", "--json").succeeded().stdout)
    return listed


def shown(desk: Sandbox, identity: str) -> dict[str, Any]:
    one: dict[str, Any] = json.loads(desk.drydock("runs", "show", identity, "--json").succeeded().stdout)
    return one


@pytest.mark.slow
def test_a_run_is_recorded_with_its_code_and_settings_and_compared_with_another(desk: Sandbox) -> None:
    assert desk.drydock("run", "small", "--", "--lr", "1", "--api-key=hush", env=RECORDED).succeeded().stdout
    until(lambda: "code" in shown(desk, rows(desk)[0]["id"]))  # what comes now was not there then
    (desk.work / "new.py").write_text("token = 'hf_abcdefgh'\n")
    arguments = ("--lr", "2", "--seed", "7", "hub.token=hush-hush")
    desk.drydock("run", "small", "--supervise", "--", *arguments, env=RECORDED).succeeded()
    desk.drydock("run", "small", env=RECORDED).succeeded()
    until(lambda: len([one for one in rows(desk) if "code" in shown(desk, one["id"])]) == 3)
    assert all("lost" not in shown(desk, one["id"]) for one in rows(desk))
    desk.drydock("runs", "delete", "last").succeeded()
    first, second = (shown(desk, one["id"]) for one in rows(desk))
    assert first["arguments"] == ["--lr", "1", "--api-key=***"]
    assert first["end"]["exit"] is None, "its end was not seen"
    assert second["end"]["exit"] == 0
    assert second["end"]["losses"]["loss"] == {"count": 2, "not-finite": 0, "first": 2.5, "last": 0.25, "lowest": 0.25}
    assert first["environment"]["set"]["PYTHONNOUSERSITE"] == "1"
    assert first["machine"]["detected"]["usable-cores"]
    assert second["seeds"] == {"--seed": "7"}
    assert not first["code"]["differs"], first["code"]
    assert second["code"]["untracked"][0]["path"] == "new.py"
    told = desk.drydock("diff", first["id"], second["id"][-8:]).succeeded().stdout
    assert re.search(r"code:\n  \+ new.py", told)
    assert "--lr 1 '--api-key=***' -> --lr 2 --seed 7 'hub.token=***'" in told
    assert "packages" not in told

    desk.drydock("runs", "tag", "last", "good").succeeded()
    desk.drydock("runs", "note", second["id"], "a note").succeeded()
    listed = desk.drydock("runs", "list", "--tag", "good").succeeded().stdout
    assert listed.split()[:3] == [second["id"], "small", "done"]
    assert "loss 0.25  [good] a note" in listed
    assert "+token = '[HF_TOKEN]'" in desk.drydock("runs", "show", "last", "--code").succeeded().stdout
    assert "1 untracked (kept in part)" in desk.drydock("runs", "show", "last").succeeded().stdout
    out = desk.root / "exported"
    desk.drydock("runs", "export", "last", str(out)).succeeded()
    assert (out / "lock.toml").read_text() == (desk.work / "profiles/small.lock.toml").read_text()
    assert sorted(path.name for path in out.iterdir()) == ["difference.patch", "lock.toml", "record.json", "run.sh"]
    desk.drydock("runs", "export", "last", str(out)).failed(2, "already exists")
    kept = desk.store.parent / "runs"
    assert (kept / ".records").stat().st_mode & 0o777 == 0o700
    assert b"hub.token=[HUB_TOKEN]" in (kept / "small/log").read_bytes()
    assert not subprocess.run(["grep", "-rlE", "hf_abcdefgh|hush", str(kept)], capture_output=True, check=False).stdout

    desk.drydock("store", "gc").succeeded()
    assert len(rows(desk)) == 2, "a collection deletes no record"
    desk.drydock("runs", "delete", first["id"], "last").succeeded()
    assert not rows(desk)
    desk.drydock("runs", "show", "last").failed(2, "there is no run last")


def test_a_run_does_not_fail_for_its_record(desk: Sandbox) -> None:
    runs = desk.store.parent / "runs"
    runs.mkdir(exist_ok=True)
    (runs / ".records").write_text("in the way")
    try:
        done = desk.drydock("run", "small", env=RECORDED).succeeded()
        assert "loss" in done.stdout
        assert f"warning: the run is not recorded: {runs / '.records'}" in done.stderr
        assert not rows(desk)
    finally:
        (runs / ".records").unlink()


@pytest.mark.slow
def test_a_run_is_repeated_where_its_environment_its_profile_and_its_code_are_gone(locked: Sandbox) -> None:
    desk = locked
    (desk.work / "sub").mkdir()
    (desk.work / "sub/lr.txt").write_text("1\n")
    desk.trainer(
        "import anchor, pathlib, sys; print(anchor.version, pathlib.Path('sub/lr.txt').read_text(), sys.argv[1:])"
    )
    for words in (["init", "-q"], ["add", "sub"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm1"]):
        desk.run(["git", *words]).succeeded()
    (desk.work / "sub/lr.txt").write_text("2\n")
    (desk.work / ".env").write_text("x=1\n")
    recorded = {"DRYDOCK_RECORDS": "1"}
    before = desk.drydock("run", "small", "--", "--seed", "3", env=recorded).succeeded().stdout
    assert before == "1.0 2\n ['--seed', '3']\n"
    until(lambda: "code" in shown(desk, "last"))
    first = shown(desk, "last")

    desk.remove(first["store-name"])
    desk.drydock("generation", "delete", "small", "1")
    shutil.rmtree(desk.work / "profiles")
    (desk.work / "sub/lr.txt").write_text("1\n")
    (desk.work / ".env").unlink()
    desk.drydock("rerun", "last").failed(1, "files that were not kept: .env", "--anyway")
    assert first["store-name"] not in desk.environments()
    assert "not there: files" in desk.drydock("rerun", "last", "--dry-run").succeeded().stdout
    assert desk.drydock("rerun", "last", "--anyway", "--into", "again", env=recorded).succeeded().stdout == before
    assert (desk.work / "sub/lr.txt").read_text() == "1\n"
    assert (desk.work / "again/sub/lr.txt").read_text() == "2\n"
    until(lambda: "code" in shown(desk, "last"))
    second = shown(desk, "last")
    assert {name: second[name] for name in ("of", "key", "arguments")} == {
        "of": first["id"],
        "key": first["key"],
        "arguments": first["arguments"],
    }
    desk.drydock("rerun", first["id"], "--anyway", "--into", "again").failed(2, "already exists")
    (desk.work / ".git").rename(desk.work / "gone")
    told = json.loads(desk.drydock("rerun", first["id"], "--dry-run", "--json").succeeded().stdout)
    assert (told["run"], told["store-name"], told["code"]) == (first["id"], first["store-name"], None)
    assert told["lacks"][0].startswith(f"its code: {desk.work} has no commit")
    desk.drydock("rerun", first["id"], "--json").failed(2, "--json goes with --dry-run")
    desk.drydock("rerun", first["id"]).failed(1, "from another repository: --code REPO")
    told = json.loads(desk.drydock("rerun", first["id"], "-n", "--json", "--code", "gone").succeeded().stdout)
    assert told["lacks"] == ["files that were not kept: .env"]


LOSSES = """
import anchor, os, pathlib, random, sys
random.seed(int(sys.argv[2]))
scale = float(pathlib.Path('sub/lr.txt').read_text()) * float(os.environ.get('SCALE', '1'))
for step in range(int(os.environ.get('STEPS', '9'))): print('loss', random.random() * scale, anchor.version)
"""


@pytest.mark.slow
def test_a_run_is_repeated_from_a_mirror_and_a_bare_repository_alone(locked: Sandbox) -> None:
    desk = locked
    desk.trainer(LOSSES)
    (desk.work / "sub").mkdir()
    (desk.work / "sub/lr.txt").write_text("0.1\n")
    bare, mirror = desk.root / "bare.git", desk.root / "mirror"
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm1"],
        ["clone", "-q", "--bare", ".", str(bare)],
        ["remote", "add", "origin", str(bare)],
    ):
        desk.run(["git", *words]).succeeded()
    (desk.work / "sub/lr.txt").write_text("0.3\n")
    recorded = {"DRYDOCK_RECORDS": "1"}
    exported = {"SCALE": "0.5", "DB_PASS": "hush"}
    before = desk.drydock("run", "small", "--", "--seed", "3", env={**recorded, **exported}).succeeded().stdout
    first = shown(desk, "last")  # which waits for what completes it
    assert {name: first["environment"]["exported"].get(name) for name in (*exported, "HOME", "STEPS")} == {
        "SCALE": "0.5",
        "DB_PASS": "[DB_PASS]",
        "HOME": None,
        "STEPS": None,
    }
    assert "DB_PASS, which is not set now" in desk.drydock("rerun", "last").failed(1).stderr
    desk.drydock("push", "small", str(mirror)).succeeded()
    # What git ignores is not brought, and that is said: a trainer may have read it.
    for name in (".gitignore", "sub/train.bin", "sub/__pycache__/a.pyc"):
        (desk.work / name).parent.mkdir(exist_ok=True)
        (desk.work / name).write_text("*.bin\n__pycache__\n.gitignore\n")
    said = desk.drydock("rerun", "last", "--dry-run").succeeded().stderr
    assert "not brought, as git ignores it: .gitignore, sub/train.bin; data of a trainer is for [data]" in said

    for path in desk.work.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    subprocess.run(["chmod", "-R", "u+w", str(desk.store)], check=True)
    shutil.rmtree(desk.store)
    alone = {**recorded, "DRYDOCK_CACHE": str(mirror), "UV_CACHE_DIR": str(desk.root / "empty")}
    other = {"DB_PASS": "hush", "SCALE": "1", "STEPS": "2"}
    again = desk.drydock("--offline", "rerun", "last", env={**alone, **other}).succeeded()
    assert again.stdout == before
    assert "as it was exported then: SCALE=0.5, STEPS is not set" in again.stderr
    assert before.count("loss") == 9
    until(lambda: "code" in shown(desk, "last"))
    second = shown(desk, "last")
    assert (second["of"], second["key"], second["store-name"]) == (first["id"], first["key"], first["store-name"])
    assert second["code"]["digest"] == first["code"]["digest"]


# What prints its losses in no known form, and what logs them as transformers does, with a state of a run before.
OWN_WORDS = """
import json, pathlib, time
for step, value in enumerate(('7.5', '6.25', 'none')):
    print(f'{step} ppl={value} | Loss (mean) 0.{step}', flush=True)
place = pathlib.Path('out/checkpoint-2'); place.mkdir(parents=True)
rows = [{'eval_loss': 2.5, 'step': 1}, {'eval_loss': float('nan'), 'step': 2}, {'loss': 9.0, 'step': 2}]
(place / 'trainer_state.json').write_text(json.dumps({'log_history': rows}))
"""


def test_losses_are_read_as_the_profile_says_and_from_what_transformers_logs(desk: Sandbox) -> None:
    desk.trainer(OWN_WORDS)
    path = desk.work / "profiles/small.toml"
    path.write_text(
        path.read_text()
        + '[supervise]\nresume = { flag = "--resume", newest = "out/checkpoint-*" }\n'
        + "[supervise.losses]\nperplexity = 'ppl=(\\S+)'\nloss = 'mean\\) ([0-9.]+)'\n"
    )
    try:
        desk.drydock("run", "small", "--supervise", env=RECORDED).succeeded()
        losses = shown(desk, "last")["end"]["losses"]
    finally:
        shutil.rmtree(desk.work / "out", ignore_errors=True)
    assert losses == {
        "perplexity": {"count": 2, "not-finite": 0, "first": 7.5, "last": 6.25, "lowest": 6.25},
        "loss": {"count": 3, "not-finite": 0, "first": 0.0, "last": 0.2, "lowest": 0.0},
        "eval_loss": {"count": 2, "not-finite": 1, "first": 2.5, "last": 2.5, "lowest": 2.5},
    }
    path.write_text(path.read_text().replace("ppl=(\\S+)", "ppl"))
    desk.drydock("profile", "check", "small").failed(1, "no group for the loss")


def test_a_state_of_another_run_or_none_at_all_is_not_read(tmp_path: Path) -> None:
    for number, text in ((1, '{"log_history": [{"loss": 3}]}'), (2, '{"log_history": [{"loss": 2}]}')):
        place = tmp_path / f"out/checkpoint-{number}"
        place.mkdir(parents=True)
        (place / history.FILE).write_text(text)
        os.utime(place / history.FILE, (number, number))
    assert history.logged(tmp_path, "out/checkpoint-*", since=2) == [("loss", 2.0)]
    assert history.logged(tmp_path, "out/checkpoint-*", since=3) == []
    beside = tmp_path / "out" / history.FILE  # as `save_state` writes it, at the end
    beside.write_text('{"log_history": [{"loss": 1}]}')
    assert history.logged(tmp_path, "out/checkpoint-*", since=3) == [("loss", 1.0)]
    beside.unlink()
    beside.symlink_to("checkpoint-2/" + history.FILE)
    assert history.logged(tmp_path, "out/checkpoint-*", since=3) == []
    damaged = (
        b"",
        b"[" * 100_000,
        b'{"log_history": 3}',
        b'{"log_history": [3, {"loss": true, "x_loss": "1"}]}',
        b"\xff",
    )
    assert [history.losses(content) for content in damaged] == [[]] * 5
    assert history.losses(b'{"log_history": [{"loss": 1' + b"0" * 400 + b"}]}") == []


def test_the_code_of_a_profile_that_is_built_in_is_in_the_working_directory(built: Sandbox) -> None:
    """Not the folder that the profile is in, which is Drydock's own."""
    shipped, folders = resources.shipped("profiles"), [built.work / "profiles"]
    entries = [Catalogue(folders).entry("small"), Catalogue([shipped]).entry("cpu")]
    assert [entry.is_of_project for entry in entries] == [True, False]


# --- its code ------------------------------------------------------------------------------------------------------


def test_what_differs_is_kept_so_that_git_applies_it(repository: Path, tmp_path: Path) -> None:
    (repository / "train.py").write_text("lr = 2\n")
    (repository / "name with\nline").write_bytes(b"\x00\xff binary")
    (repository / ".gitignore").write_text("ignored\n")
    (repository / "ignored").write_text("x")
    (repository / ".env").write_text("PASSWORD=1")
    before = sorted((path, path.stat().st_mtime_ns) for path in (repository / ".git").rglob("*"))
    one = found()
    assert sorted((path, path.stat().st_mtime_ns) for path in (repository / ".git").rglob("*")) == before
    assert (one["branch"], one["commit"]) == ("main", git("rev-parse", "HEAD").strip())
    assert {row["path"] for row in one["untracked"]} == {"name with\nline", ".gitignore", ".env"}
    assert "sha256" not in next(row for row in one["untracked"] if row["path"] == ".env")
    patch = folder.read_object(one["difference"]["object"])
    assert patch is not None
    assert b"PASSWORD" not in patch
    git("clone", "--quiet", str(repository), str(tmp_path / "clone"))
    subprocess.run(["git", "apply", "-"], input=patch, cwd=tmp_path / "clone", check=True)
    for name in ("train.py", "name with\nline"):
        assert (tmp_path / "clone" / name).read_bytes() == (repository / name).read_bytes()
    assert found()["digest"] == one["digest"]
    (repository / "train.py").write_text("lr = 3\n")
    assert found()["digest"] != one["digest"]


def test_a_change_of_what_may_be_a_secret_is_not_kept_where_nothing_else_differs(repository: Path) -> None:
    (repository / ".env").write_text("PASSWORD=1")
    commit("with a secret")
    (repository / ".env").write_text("PASSWORD=hush")
    one = found()
    assert one["changed"][0]["path"] == ".env"
    assert folder.read_object(one["difference"]["object"]) == b""
    assert not one["difference"]["complete"]


def test_no_secret_of_the_code_is_kept_whatever_file_or_form_it_has(repository: Path) -> None:
    (repository / "login.py").write_text('token = "hf_AbCdEfGhIjKlMnOpQrStUvWx"\nlr = 1\n')
    commit("with a token")
    (repository / "login.py").write_text('token = "hf_AbCdEfGhIjKlMnOpQrStUvWx"\nlr = 2\n')
    added = 'lr = 2\nAPI_KEY = "abcdefgh12345678"\npad_token = "<|endoftext|>"\n'
    (repository / "train.py").write_text(added)
    private = ("secrets/hub.txt", "cfg/hf_token", "prod.env", ".envrc", "kaggle.json", ".aws/config")
    for name in private:
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_text("hush hush\n")
    (repository / "tokenizer.json").write_text("{}\n")
    one = found()
    difference = one["difference"]
    kept = folder.read_object(difference["object"]) or b""
    assert not re.search(b"hush|hf_AbC|abcdefgh12345678", kept)
    assert b'+API_KEY = "***"\n+pad_token = "<|endoftext|>"\n' in kept
    assert b"tokenizer.json" in kept, "it is called so, and no secret"
    assert {row["path"] for row in one["untracked"] if "why" in row} == {*private}
    # A patch that has another text than the commit would not apply.
    assert (difference["redacted"], difference["complete"], difference["without"]) == (True, False, ["login.py"])
    git("stash", "--quiet", "--include-untracked")
    (repository.parent / "patch").write_bytes(kept)
    git("apply", str(repository.parent / "patch"))
    assert (repository / "train.py").read_text() == added.replace("abcdefgh12345678", "***")


def test_what_git_encrypts_is_not_kept_as_it_is(repository: Path) -> None:
    git("config", "filter.git-crypt.clean", "tr a-z b-za")
    (repository / ".gitattributes").write_text("*.yaml filter=git-crypt\n")
    for name in ("a.yaml", "b.yaml"):
        (repository / name).write_text("hush\n")
    git("add", "a.yaml")
    git("commit", "-qm", "encrypted")
    (repository / "a.yaml").write_text("hush hush\n")
    one = found()
    assert {row["path"]: row.get("why", "")[:11] for row in (*one["changed"], *one["untracked"])} == {
        "a.yaml": "git keeps i",
        "b.yaml": "git keeps i",
        ".gitattributes": "",
    }
    assert b"hush" not in (folder.read_object(one["difference"]["object"]) or b"")


def test_files_of_which_git_lfs_has_the_content_are_named(repository: Path, tmp_path: Path) -> None:
    (repository / ".gitattributes").write_text("*.bin filter=lfs\n")
    (repository / "model.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
    (repository / "table.bin").write_text("1,2\n")
    git("-c", "filter.lfs.clean=cat", "add", ".")
    git("commit", "-qm", "large files")
    bring(prepare(record(code=found(), script={"object": folder.keep(b"#")})["id"]), tmp_path / "again")
    assert pointers(tmp_path / "again") == ["model.bin"]


def test_a_repository_inside_is_named_and_that_of_a_rerun_is_not_there(repository: Path) -> None:
    for name in ("rerun-20261127-013422-17786887", "lib"):
        git("clone", "--quiet", ".", name)
    (repository / "__pycache__").mkdir()
    (repository / "__pycache__/train.cpython-311.pyc").touch()
    one = found()
    assert [row["path"] for row in one["untracked"]] == ["lib/"]
    again = prepare(record(code=one, script={"object": folder.keep(b"#")})["id"])
    assert again.lacks == ["files that were not kept: lib/"]
    shutil.rmtree(repository / "lib")
    assert not found()["differs"]


def test_a_change_that_git_is_not_to_look_at_is_a_change(repository: Path) -> None:
    (repository / "local.toml").write_text("steps = 1\n")
    commit("local")
    git("update-index", "--assume-unchanged", "train.py")
    git("update-index", "--skip-worktree", "local.toml")
    assert not found()["differs"]
    (repository / "train.py").write_text("lr = 3\n")
    (repository / "local.toml").write_text("steps = 3\n")
    before = (repository / ".git/index").read_bytes()
    one = found()
    assert [row["path"] for row in one["changed"]] == ["local.toml", "train.py"]
    kept = folder.read_object(one["difference"]["object"]) or b""
    assert b"+lr = 3" in kept
    assert b"+steps = 3" in kept
    assert (repository / ".git/index").read_bytes() == before


def test_a_file_of_a_time_to_come_belongs_to_the_code(repository: Path) -> None:
    new = repository / "new.py"
    new.write_text("x = 1\n")
    os.utime(new, (time.time() + 3600,) * 2)  # the clock was set back since
    one = code.code_of(repository, time.time() + 0.001, {})
    assert one["differs"]
    assert b"+x = 1" in (folder.read_object(one["difference"]["object"]) or b"")


def test_what_is_too_large_costs_no_other_change(repository: Path, tmp_path: Path) -> None:
    (repository / "large.bin").write_bytes(os.urandom(3 << 20))
    (repository / "small").write_text("1\n")
    commit("large")
    (repository / "train.py").write_text("lr = 2\n")
    (repository / "small").unlink()
    again = prepare(record(code=found(), script={"object": folder.keep(b"#")})["id"])
    assert not again.lacks
    bring(again, tmp_path / "again")
    assert not (tmp_path / "again/small").exists()
    assert (tmp_path / "again/train.py").read_text() == "lr = 2\n"
    (repository / "large.bin").unlink()
    (repository / "table.csv").write_bytes(b"1,2\n" * (1 << 19))
    again = prepare(record(code=found(), script={"object": folder.keep(b"#")})["id"])
    assert again.lacks == ["files that were not kept: large.bin, small, table.csv"]
    bring(again, tmp_path / "anyway")
    assert (tmp_path / "anyway/train.py").read_text() == "lr = 2\n"


def test_the_code_of_a_working_tree_that_is_gone_is_in_its_repository(repository: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    git("worktree", "add", "-q", str(tree), "-b", "other")
    (tree / "train.py").write_text("lr = 4\n")
    git("-C", str(tree), "commit", "-qam", "other")
    made = record(code=found(tree), script={"object": folder.keep(b"#")})
    git("worktree", "remove", str(tree))
    again = prepare(made["id"])
    assert not again.lacks
    bring(again, tmp_path / "again")
    assert (tmp_path / "again/train.py").read_text() == "lr = 4\n"


def test_a_change_within_the_second_of_the_commit_is_kept(repository: Path) -> None:
    """git compares whole seconds, and looks closer where a file is as old as the index (racy-git)."""
    path, then = repository / "train.py", (1_000_000_000, 1_000_000_000)
    git("config", "core.trustctime", "false")
    os.utime(path, then)
    git("add", ".")
    path.write_text("lr = 2\n")
    for one in (path, repository / ".git/index"):
        os.utime(one, then)
    patch = folder.read_object(found()["difference"]["object"])
    assert patch is not None
    assert b"+lr = 2" in patch


def test_where_git_is_in_the_middle_of_something_it_is_said(repository: Path) -> None:
    first = git("rev-parse", "HEAD").strip()
    (repository / "train.py").write_text("lr = 2\n")
    commit("second")
    git("checkout", "--quiet", "-b", "other", first)
    (repository / "train.py").write_text("lr = 3\n")
    third = commit("third")
    git("rebase", "main", check=False)
    one = found()
    assert (one["under-way"], one["branch"]) == ("rebase", None)
    assert one["changed"][0]["how"] == "UU"
    git("rebase", "--abort")
    git("checkout", "--quiet", "--detach")
    assert {name: found()[name] for name in ("commit", "branch", "differs")} == {
        "commit": third,
        "branch": None,
        "differs": False,
    }


def test_a_submodule_is_a_part_of_the_code(repository: Path, tmp_path: Path) -> None:
    git("clone", "--quiet", str(repository), str(tmp_path / "lib"))
    git("submodule", "--quiet", "add", str(tmp_path / "lib"), "lib")
    commit("with a library")
    assert not found()["differs"]
    (repository / "lib/train.py").write_text("lr = 4\n")
    assert found()["changed"][0]["how"] == ".M S.M."


def recorded(**more: Any) -> Any:
    """What a rerun of a run of the code here is made of."""
    script = {"object": folder.keep(b"#!/bin/sh\n")}
    return prepare(record(script=script, code=found(), folder=str(Path.cwd()), **more)["id"])


@pytest.mark.slow
def test_submodules_are_brought_at_the_commits_that_they_had(repository: Path, tmp_path: Path) -> None:
    for name in ("inner", "lib"):
        git("clone", "--quiet", str(repository), str(tmp_path / name))
    git("-C", str(tmp_path / "lib"), "submodule", "--quiet", "add", str(tmp_path / "inner"), "deep/inner")
    git("-C", str(tmp_path / "lib"), "commit", "-qm2")
    git("submodule", "--quiet", "add", str(tmp_path / "lib"), "lib")
    git("submodule", "--quiet", "add", str(tmp_path / "inner"), "unused")
    commit("with libraries")
    git("submodule", "--quiet", "update", "--init", "--recursive", "lib")
    git("submodule", "--quiet", "deinit", "unused")
    (tmp_path / "inner/train.py").write_text("lr = 2\n")
    git("-C", str(tmp_path / "inner"), "commit", "-qam3")
    newer = git("-C", str(tmp_path / "inner"), "rev-parse", "HEAD").strip()
    as_committed = recorded()
    assert [one.path for one in as_committed.submodules] == ["lib", "lib/deep/inner"], "one was not checked out"
    bring(as_committed, tmp_path / "new0")
    git("-C", "lib", "checkout", "-q", "HEAD~1")
    shutil.rmtree(repository / "lib/deep", ignore_errors=True)
    other = recorded()
    assert [(one.path, one.commit) for one in other.submodules] == [
        ("lib", git("-C", "lib", "rev-parse", "HEAD").strip())
    ]
    assert not as_committed.lacks + other.lacks
    assert found()["digest"] is not None

    bring(other, tmp_path / "new1")
    new = tmp_path / "new0"
    assert (new / "lib/deep/inner/train.py").read_text() == "lr = 1\n"
    assert git("-C", str(new / "lib"), "rev-parse", "HEAD") == git("-C", str(tmp_path / "lib"), "rev-parse", "HEAD")
    assert not git("-C", str(new), "status", "--porcelain")
    assert not any((new / "unused").iterdir())
    assert git("-C", str(tmp_path / "new1"), "status", "--porcelain") == " M lib\n"

    git("-C", "lib", "checkout", "-q", "-")
    git("submodule", "--quiet", "update", "--init", "--recursive", "lib")
    git("-C", "lib/deep/inner", "fetch", "-q")
    git("-C", "lib/deep/inner", "checkout", "-q", newer)
    (repository / "lib/train.py").write_text("lr = 5\n")
    assert recorded().lacks == ["what differed from the commit of submodule lib"]


@pytest.mark.slow
def test_a_submodule_that_is_gone_is_named_before_anything_starts(repository: Path, tmp_path: Path) -> None:
    lib = tmp_path / "lib"
    git("clone", "--quiet", "--bare", str(repository), str(tmp_path / "bare"))
    git("clone", "--quiet", str(repository), str(lib))
    git("submodule", "--quiet", "add", str(lib), "lib")
    git("remote", "add", "origin", "https://me:hunter2@host.invalid/x?token=abc")
    commit("with a library")
    again = recorded()
    assert "hunter2" not in json.dumps(again.record)
    assert "token" not in json.dumps(again.record["code"])
    identity = again.record["id"]
    shutil.rmtree(repository / "lib")
    assert prepare(identity).submodules[0].source == repository / ".git/modules/lib"
    shutil.rmtree(repository / ".git/modules/lib")
    assert prepare(identity).submodules[0].source == lib, "it was cloned from there"
    bring(prepare(identity), tmp_path / "new")
    assert (tmp_path / "new/lib/train.py").read_text() == "lr = 1\n"
    lib.rename(tmp_path / "elsewhere")
    (lack,) = prepare(identity).lacks
    assert re.fullmatch(rf"submodule lib: \S+ has no commit [0-9a-f]{{40}} any more; it was cloned from {lib}", lack)
    (lack,) = prepare(identity, tmp_path / "bare").lacks  # which has the first commit only
    assert "bare has no commit" in lack
    assert "it was cloned from https://***@host.invalid/x" in lack


@pytest.mark.slow
def test_a_submodule_of_an_edited_record_leads_nowhere_else(repository: Path, tmp_path: Path) -> None:
    git("clone", "--quiet", str(repository), str(tmp_path / "lib"))
    git("submodule", "--quiet", "add", str(tmp_path / "lib"), "lib")
    head = commit("with a library")
    (repository / "link").symlink_to(tmp_path)
    commit("a link")
    for path, words in (
        ("../lib", "is not recorded as"),
        ("lib/.git", "is not recorded as"),
        ("/lib", "is not recorded"),
    ):
        row = {"path": path, "commit": head, "remotes": {}}
        edited = record(script={"object": folder.keep(b"#")}, code={**found(), "submodules": [row]})
        assert words in prepare(edited["id"]).lacks[0]
    row = {"path": "link/lib", "commit": git("-C", "lib", "rev-parse", "HEAD").strip(), "remotes": {}}
    edited = record(script={"object": folder.keep(b"#")}, code={**found(), "submodules": [row]})
    with pytest.raises(DrydockError, match="is not an empty folder"):
        bring(prepare(edited["id"]), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_is_too_large_is_named_and_not_read(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (repository / "huge").open("wb") as file:
        file.truncate(2 << 30)
    began = time.monotonic()
    one = found()
    assert time.monotonic() - began < allowed(10)
    assert one["untracked"] == [{"path": "huge", "size": 2 << 30, "why": "it is too large to be hashed"}]
    assert one["digest"] is None
    monkeypatch.setattr(code, "_FILES", 2)
    for number in range(3):
        (repository / f"file{number}").touch()
    assert (len(found()["untracked"]), found()["left-out"]) == (2, 2)


def test_a_file_that_changes_while_it_is_hashed_has_no_hash(repository: Path) -> None:
    path = repository / "train.py"
    path.write_bytes(b"x" * (32 << 20))
    writes = f"while True: open({str(path)!r}, 'r+b').write(b'y')"
    with subprocess.Popen([sys.executable, "-c", writes]) as writer:
        until(lambda: path.read_bytes()[:1] == b"y")
        # On a busy machine nothing is written while it is read, now and then.
        until(lambda: found()["changed"][0].get("why") == "it changed while it was read")
        writer.kill()


def test_nothing_of_a_repository_runs(repository: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {ran}\ncat\n")
    program.chmod(0o755)
    (repository / ".gitattributes").write_text("* filter=bad diff=bad\n")
    commit("attributes")
    for key in ("filter.bad.clean", "filter.bad.process", "core.fsmonitor", "diff.external", "diff.bad.textconv"):
        git("config", key, str(program))
    git("config", "filter.bad.required", "true")
    (repository / "train.py").write_text("lr = 5\n")
    one = found()
    assert one["difference"]["object"]
    assert not ran.exists()


def test_nothing_of_a_submodule_runs(repository: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {ran}\ncat\n")
    program.chmod(0o755)
    (repository / ".gitattributes").write_text("* filter=bad\n")
    commit("attributes")
    git("clone", "--quiet", str(repository), str(tmp_path / "lib"))
    git("submodule", "--quiet", "add", str(tmp_path / "lib"), "lib")
    commit("with a library")
    for key in ("filter.bad.clean", "filter.bad.process", "core.fsmonitor"):
        git("-C", "lib", "config", key, str(program))
    (repository / "lib/train.py").write_text("lr = 5\n")
    assert found()["changed"][0]["how"] == ".M S.M."
    assert not ran.exists()


def test_without_git_it_says_why(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(tmp_path)["why"] == "it is in no repository of git"
    git("checkout", "--quiet", "--orphan", "empty")
    assert found()["commit"] is None
    (repository / ".git/HEAD").write_text("nothing")
    assert found()["why"]
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert found()["why"] == "git is not there"


# --- their folder --------------------------------------------------------------------------------------------------


def test_a_record_that_cannot_be_used_is_listed_and_left_alone(home: Path) -> None:
    newer, edited, half, whole = record(schema=2), record(tags="none"), record(), record(machine=None)
    folder.path_of(half["id"]).write_text(json.dumps(half)[:100])
    os.mkfifo(folder.path_of("20200101-000000-00000000"))
    assert {one.id: one.state for one in folder.heads()} == {
        newer["id"]: "newer",
        edited["id"]: "damaged",
        half["id"]: "damaged",
        whole["id"]: "ended",
        "20200101-000000-00000000": "damaged",
    }
    for one, words in ((newer, "a newer Drydock"), (edited, "is damaged"), (half, "is damaged")):
        with pytest.raises(DrydockError, match=words):
            folder.change(folder.path_of(one["id"]), lambda found: found.clear())
    assert json.loads(folder.path_of(newer["id"]).read_text()) == newer
    assert folder.delete(folder.heads()) == 5
    assert not folder.heads()


def test_no_path_is_made_of_what_is_no_id(home: Path) -> None:
    for word in ("../../x", "20261126-131528-3f2a9c1e/../x", ""):
        with pytest.raises(UsageError):
            folder.path_of(word)
    assert folder.read_object("../" * 10 + "etc/passwd") is None
    assert not home.exists()


def test_an_index_is_made_anew_where_it_does_not_fit(home: Path) -> None:
    one = record()
    before = folder.heads()
    index = folder.place() / "index.json"
    index.write_bytes(index.read_bytes().replace(b"m4", b"m5"))
    assert folder.heads() == before
    folder.change(folder.path_of(one["id"]), lambda found: found.update(note="seen"))
    assert folder.heads()[0].note == "seen"


def test_those_who_change_a_record_at_once_lose_nothing(home: Path) -> None:
    path = folder.path_of(record()["id"])

    def tag(number: int) -> None:
        folder.change(path, lambda found: found["tags"].append(str(number)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(tag, range(40)))
    assert len(folder.read(path.stem)["tags"]) == 40


def test_a_text_stays_as_long_as_a_record_names_it(home: Path) -> None:
    names = [folder.keep(text) for text in (b"one", b"both")]
    first = record(lock={"object": names[0]}, script={"object": names[1]})
    record(lock={"object": names[1]})
    for path in (folder.place() / "objects").iterdir():
        os.utime(path, (1, 1))
    folder.delete([folder.find(first["id"])])
    assert [folder.read_object(name) for name in names] == [None, b"both"]


def test_a_run_whose_process_is_gone_has_ended(home: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        alive = life.of(process.pid)
        one = record(end=None, process=alive)
        assert folder.find("last").state == "running"
        assert life.has_ended({**alive, "ticks": "1"}), "its number is another's"
        assert life.has_ended({**alive, "boot": "before"})
        assert not life.has_ended({**alive, "host": "elsewhere"})
        process.kill()
        until(lambda: life.has_ended(alive))  # though nobody has waited for it
    assert folder.find("last").state == "ended"
    assert folder.read(one["id"])["end"]["why"] == "its end was not seen"


def test_a_clock_that_was_set_back_is_said(home: Path) -> None:
    one = record(now=2_000_000_000.0, end=None)
    finish(folder.path_of(one["id"]), exit=0, why="done")
    assert "the clock was set back" in cells(folder.heads())[0]
    now = record()
    assert [head.id for head in folder.heads()] == [one["id"], now["id"]]
    assert folder.find("last").id == now["id"]


def test_what_is_not_known_of_a_run_is_not_compared(home: Path) -> None:
    runs = compare_runs(record(), record(arguments=["--lr", "2"]))
    assert runs.unknown == ["environment", "settings", "code", "data", "machine"]
    assert [*runs.lines()][1:] == ["arguments:", "  ~ arguments  -> --lr 2"]


def test_a_full_disk_costs_the_record_only(home: Path, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_bytes(b"#" * 100_000)
    warnings: list[str] = []
    with tmpfs(home, "16k"):
        made = begin(
            "m4",
            "train",
            [],
            store_name="k-m4",
            generation=1,
            script=[],
            script_path=script,
            lock=None,
            project=None,
            environment=os.environ,
            names=[],
            warn=warnings.append,
        )
        assert made is None
        assert re.fullmatch(rf"the run is not recorded: {folder.place()}/.*: No space left on device", warnings[0])
        with pytest.raises(OSError, match=r"No space left.*state\.json"):
            write_state(home / "state.json", {"name": "x" * 20_000})
        assert [path.name for path in (folder.place() / "objects").iterdir()] == []


def test_losses_are_found_as_trainers_print_them() -> None:
    summary = Summary()
    summary.read(b"{'loss': '1.5', 'grad_norm': 3}\nstep 3 train_loss=0.5 lossless=7\n{'eval_loss': nan}\nLoss: 1e-2\n")
    losses = summary.data()["losses"]
    assert {name: (one["last"], one["not-finite"]) for name, one in losses.items()} == {
        "loss": (0.01, 0),
        "train_loss": (0.5, 0),
        "eval_loss": (None, 1),
    }
