"""`drydock patch`: open a package, edit it, commit the change; whether patches are still needed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import click
import pytest
from click.testing import CliRunner
from hypothesis import assume, given
from hypothesis import strategies as st

from builder import process
from builder.author.patching.diff import head_of, patch_text
from builder.author.patching.transaction import current, write_all
from builder.cli import main
from builder.embedded.patches import parse_patch
from builder.errors import ProfileError, ToolError
from tests.conftest import desk as make_desk
from tests.conftest import real_environment
from tests.support import Result, Sandbox, make_wheel
from tests.support.steps import GO, NEVER, Step, Watched, some, why_not

BROKEN = "def depth(waves):\n    return sum(waves) / len(waves)\n"
MENDED = "def depth(waves):\n    return sum(waves) / len(waves) if waves else 0\n"
REEF = {
    "reef/__init__.py": "version = '1.0'\n",
    "reef/depth.py": BROKEN,
    "reef/sub/sand.py": "grains = 1\n",
    "reef/no_newline.txt": "one\ntwo",
    "reef/native.so": "\x7fELF\0\1",
}
PROOF = "from reef.depth import depth\nassert depth([]) == 0, 'no waves'\nprint('ok: depth of nothing is 0')\n"
WHY = "depth([]) raises ZeroDivisionError (reef issue 7)"


def profile(desk: Sandbox, name: str = "small", *, head: str = "", tail: str = "") -> Path:
    """A profile that asks for reef 1.0, with a comment in it."""
    path = desk.profile(name, head=head, tail=tail)
    path.write_text(path.read_text().replace('["anchor"]', '["reef==1.0"]  # the reef'))
    return path


@pytest.fixture(scope="module")
def reef_lock(tmp_path_factory: pytest.TempPathFactory, uv_cache: Path) -> str:
    """The lock of `small` with reef 1.0."""
    with make_desk(tmp_path_factory.mktemp("reef"), uv_cache) as made:
        make_wheel(made.wheels, "reef", "1.0", files=REEF)
        profile(made)
        made.drydock("lock", "small").succeeded()
        return (made.work / "profiles/small.lock.toml").read_text()


@pytest.fixture
def desk(sandbox: Sandbox, reef_lock: str) -> Sandbox:
    """A desk with the profile `small`, locked, which has reef 1.0; and a proof for its repair."""
    make_wheel(sandbox.wheels, "reef", "1.0", files=REEF)
    profile(sandbox)
    sandbox.file("small.lock.toml", reef_lock)
    (sandbox.work / "depth_proof.py").write_text(PROOF)
    return sandbox


@pytest.fixture
def near(desk: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """The same desk, where `drydock` runs in this process: most of the time of a small command is Python's start."""
    for name in os.environ:
        monkeypatch.delenv(name)
    for name, value in desk.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(desk.work)
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}

    def drydock(*arguments: str, env: Mapping[str, str] | None = None, timeout: float = 0) -> Result:
        monkeypatch.setattr(sys, "argv", ["drydock", *arguments])
        done = CliRunner().invoke(_Program(), list(arguments), env=env)
        os.environ.pop("UV_OFFLINE", None)
        for number, handler in signals.items():
            signal.signal(number, handler)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.output
        return Result(done.exit_code, done.stdout, done.stderr)

    monkeypatch.setattr(desk, "drydock", drydock)
    return desk


class _Program(click.Command):
    """`drydock` as CliRunner wants it."""

    def __init__(self) -> None:
        super().__init__("drydock")

    def main(self, *_: Any, **__: Any) -> NoReturn:
        main()


def start(desk: Sandbox, *arguments: str, name: str = "small") -> Path:
    """Open reef; its folder."""
    started = desk.drydock("patch", "start", name, "reef", *arguments).succeeded()
    assert "drydock patch commit" in started.stderr
    return desk.work / started.stdout.strip()


def commit(desk: Sandbox, folder: Path, *arguments: str, new: bool = True) -> Result:
    """Commit what was edited."""
    words = ["--why", WHY, "--proof", "depth_proof.py"] if new else []
    return desk.drydock("patch", "commit", str(folder), *words, *arguments)


def texts(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def profiles(desk: Sandbox) -> dict[str, bytes]:
    return texts(desk.work / "profiles")


def lock(desk: Sandbox, name: str = "small") -> dict[str, Any]:
    return tomllib.loads((desk.work / f"profiles/{name}.lock.toml").read_text())


def entries(desk: Sandbox, name: str = "small") -> list[dict[str, str]]:
    found: list[dict[str, str]] = tomllib.loads((desk.work / f"profiles/{name}.toml").read_text()).get("patches", [])
    return found


# --- the whole way -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_start_edit_commit_build_verify(desk: Sandbox) -> None:
    before = (desk.work / "profiles/small.toml").read_text()
    folder = start(desk)
    assert folder == desk.work / "patch-small-reef"
    assert texts(folder / "reef") == {path.removeprefix("reef/"): text.encode() for path, text in REEF.items()}
    assert not list(folder.glob("*.dist-info"))
    (folder / "reef/depth.py").write_text(MENDED)
    done = commit(desk, folder).succeeded()
    assert done.stdout.splitlines() == [
        "profiles/proofs/depth_proof.py",
        "profiles/patches/reef-1.0.patch",
        "profiles/small.toml",
        "profiles/small.lock.toml",
    ]
    assert "reef/depth.py: +1 -1" in done.stderr
    assert not folder.exists()
    assert (desk.work / "profiles/small.toml").read_text().startswith(before)
    assert entries(desk) == [
        {
            "package": "reef",
            "versions": "==1.0",
            "file": "patches/reef-1.0.patch",
            "proof": "proofs/depth_proof.py",
            "why": WHY,
        }
    ]
    patch = (desk.work / "profiles/patches/reef-1.0.patch").read_text()
    assert patch.startswith(f"{WHY}\n\nMade against reef 1.0.\n\n--- a/reef/depth.py\n+++ b/reef/depth.py\n@@ ")
    # The lock is the one that `drydock lock` makes, and the environment has the change.
    told = desk.drydock("lock", "--check", "small").succeeded()
    written = (desk.work / "profiles/small.lock.toml").read_bytes()
    (desk.work / "profiles/small.lock.toml").unlink()
    desk.drydock("lock", "small").succeeded()
    assert (desk.work / "profiles/small.lock.toml").read_bytes() == written, told.stderr
    env = Path(desk.drydock("build", "small").succeeded().stdout.strip())
    assert (env / "lib/python3.11/site-packages/reef/depth.py").read_text() == MENDED
    verified = desk.drydock("verify", "small").succeeded()
    assert "ok   patches/reef-1.0.patch: applied to reef/depth.py" in verified.stdout
    assert "ok: depth of nothing is 0" in verified.stdout


@pytest.mark.slow
def test_a_second_commit_changes_the_same_patch_and_keeps_what_people_wrote(near: Sandbox) -> None:
    folder = start(near)
    (folder / "reef/depth.py").write_text(MENDED)
    commit(near, folder, "--file", "depth", "--versions", ">=1,<2").succeeded()
    path = near.work / "profiles/patches/depth.patch"
    path.write_text("Words of mine.\n\n" + path.read_text().partition("\n\n")[2])
    own = near.work / "profiles/small.toml"
    own.write_text(own.read_text().replace('versions = ">=1,<2"', 'versions    = ">=1,<2"  # all of 1'))
    near.drydock("lock", "small").succeeded()
    before = own.read_text()
    folder = start(near)
    assert (folder / "reef/depth.py").read_text() == MENDED
    (folder / "reef/depth.py").write_text(MENDED.replace("else 0", "else 0.0"))
    (folder / "reef/sub/sand.py").write_text("grains = 2\n")
    done = commit(near, folder, new=False).succeeded()
    assert done.stdout.splitlines() == ["profiles/patches/depth.patch", "profiles/small.lock.toml"]
    assert own.read_text() == before
    assert path.read_text().startswith("Words of mine.\n\n")
    changed = {file.path for file in parse_patch(path.read_text())}
    assert changed == {"reef/depth.py", "reef/sub/sand.py"}
    assert {file["path"] for file in lock(near)["patches"][0]["files"]} == changed
    # What is said of it can be changed as well, in its place.
    folder = start(near)
    commit(near, folder, "--why", "for less", new=False).succeeded()
    assert own.read_text() == before.replace(f'why = "{WHY}"', 'why = "for less"')


ODD = BROKEN + "\f\x0b\x1c\u2028 = '\u00e9\U0001f300'\r\n--- a/reef/x\n+++ b/reef/x\n@@ -1 +1 @@\n"


def test_a_patch_says_exactly_what_was_edited(near: Sandbox) -> None:
    after = {"reef/no_newline.txt": "one\nTWO", "reef/depth.py": ODD, "reef/sub/sand.py": ""}
    folder = start(near)
    for path, text in after.items():
        (folder / path).write_bytes(text.encode())
    commit(near, folder).succeeded()
    again = start(near)
    assert texts(again / "reef") == {
        path.removeprefix("reef/"): after.get(path, text).encode() for path, text in REEF.items()
    }


TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\n\r\f\x1c\u2028 -+@\\"), max_size=30)


@given(TEXT, TEXT, TEXT)
def test_any_two_texts_make_a_patch(before: str, after: str, words: str) -> None:
    assume(before != after and "\n--- " not in f"\n{words}")
    head = f"{words}\n\n"
    text = patch_text(head, {"reef/a.py": (before.encode(), after.encode())})  # it checks itself
    assert head_of(text) == head


def test_the_cache_of_uv_is_not_reached_by_writing(near: Sandbox) -> None:
    folder = start(near)
    assert all(path.stat().st_nlink == 1 for path in folder.rglob("*") if path.is_file())
    for path in folder.rglob("*.py"):
        with path.open("a") as file:  # in place, as an editor may
            file.write("# mine\n")
    near.drydock("patch", "abort", str(folder)).succeeded()
    assert texts(start(near) / "reef") == {path.removeprefix("reef/"): text.encode() for path, text in REEF.items()}


# --- the folder ----------------------------------------------------------------------------------------------------


def test_an_open_folder_is_left_as_it_is(near: Sandbox) -> None:
    folder = start(near, "--dir", "there")
    assert folder == near.work / "there"
    (folder / "reef/depth.py").write_text(MENDED)
    again = near.drydock("patch", "start", "small", "Reef", "--dir", "there").succeeded()
    assert again.stdout == "there\n"
    assert "is open already" in again.stderr
    assert (folder / "reef/depth.py").read_text() == MENDED
    near.drydock("patch", "abort", "there").succeeded()
    assert not folder.exists()
    near.drydock("patch", "abort", "there").failed(2, "there does not exist")


def test_what_is_not_ours_is_never_overwritten_or_deleted(near: Sandbox) -> None:
    mine = near.work / "mine"
    mine.mkdir()
    (mine / "work.txt").write_text("a year of it")
    for name in ("mine", "mine/work.txt", "."):
        near.drydock("patch", "start", "small", "reef", "--dir", name).failed(
            2, "already exists, and was not made by Drydock"
        )
    near.drydock("patch", "abort", "mine").failed(2, "was not opened by `drydock patch start`")
    near.drydock("patch", "commit", "mine").failed(2, "was not opened by `drydock patch start`")
    (near.work / "link").symlink_to(mine)
    near.drydock("patch", "start", "small", "reef", "--dir", "link").failed(2, "was not made by Drydock")
    assert texts(mine) == {"work.txt": b"a year of it"}
    # In a folder of ours, only what is ours goes.
    folder = start(near, "--dir", "empty/there")
    (folder / "notes.txt").write_text("mine")
    (folder / "reef/link").symlink_to(mine)
    (folder / "reef/__pycache__").mkdir()
    (folder / "reef/__pycache__/x.pyc").write_text("")
    gone = near.drydock("patch", "abort", str(folder)).succeeded()
    assert "empty/there/notes.txt was not made by Drydock and stays" in gone.stderr
    assert texts(folder) == {"notes.txt": b"mine"}
    assert texts(mine) == {"work.txt": b"a year of it"}


def test_a_package_or_profile_that_is_not_there_is_named(near: Sandbox) -> None:
    before = sorted(near.work.rglob("*"))
    near.drydock("patch", "start", "small", "reeef").failed(2, "small has no package 'reeef'", 'did you mean "reef"?')
    near.drydock("patch", "start", "small", "../../x").failed(2, "small has no package '../../x'")
    near.drydock("patch", "start", "small", "-rf").failed(2, "-r")
    near.drydock("patch", "start", "small", "--", "-rf").failed(2, "small has no package '-rf'")
    near.drydock("patch", "start", "smal", "reef").failed(1, 'no profile "smal"', 'did you mean "small"?')
    near.drydock("patch", "start", "../small", "reef").failed(1, 'no profile "../small"')
    near.drydock("patch", "start", "small", "reef", "--dir", "-rf").failed(2, "would be taken for an option")
    assert sorted(near.work.rglob("*")) == before


def test_a_built_in_profile_is_not_changed(near: Sandbox) -> None:
    refused = near.drydock("patch", "start", "cpu", "accelerate").failed(1, '"cpu" is built in, and cannot be changed')
    assert 'extends = ["cpu"]' in refused.stderr


def test_a_stale_lock_and_another_version_are_refused(near: Sandbox) -> None:
    folder = start(near)
    (folder / "reef/depth.py").write_text(MENDED)
    make_wheel(near.wheels, "reef", "1.1", files=REEF)
    path = near.work / "profiles/small.toml"
    path.write_text(path.read_text().replace("reef==1.0", "reef==1.1"))
    near.drydock("patch", "start", "small", "reef", "--dir", "new").failed(1, "the lock is stale")
    near.drydock("lock", "small").succeeded()
    before = profiles(near)
    commit(near, folder).failed(1, "reef 1.0 was opened, and small has 1.1", "hint: ")
    near.drydock("patch", "start", "small", "reef").failed(2, "has reef 1.0 of small open")
    assert profiles(near) == before
    assert (folder / "reef/depth.py").read_text() == MENDED


# --- what cannot be committed --------------------------------------------------------------------------------------


def _add(folder: Path) -> None:
    (folder / "reef/new.py").write_text("x = 1\n")


def _link(folder: Path) -> None:
    (folder / "reef/depth.py").unlink()
    (folder / "reef/depth.py").symlink_to("/etc/passwd")


def _link_folder(folder: Path) -> None:
    shutil.rmtree(folder / "reef/sub")
    (folder / "reef/sub").symlink_to("/etc")


def _fifo(folder: Path) -> None:
    (folder / "reef/depth.py").unlink()
    os.mkfifo(folder / "reef/depth.py")


EDITS: list[tuple[Callable[[Path], object], str]] = [
    (lambda _: None, "nothing was changed in "),
    (lambda folder: (folder / "reef/native.so").write_bytes(b"\x7fELF\0\2"), "reef/native.so is not a text"),
    (lambda folder: (folder / "reef/depth.py").write_bytes(b"# \xe9\n"), "reef/depth.py is not a text"),
    (_add, "reef/new.py was added: a patch may change files, not create or delete them"),
    (lambda folder: (folder / "reef/depth.py").unlink(), "reef/depth.py is gone"),
    (lambda folder: (folder / "reef/depth.py").chmod(0o755), "the mode of reef/depth.py changed"),
    (_link, "reef/depth.py is a symbolic link"),
    (_link_folder, "reef/sub is a symbolic link"),
    (_fifo, "reef/depth.py is not a plain file"),
]


def test_what_a_patch_cannot_say_is_refused(near: Sandbox) -> None:
    folder = start(near)
    before = profiles(near)
    for number, (edit, words) in enumerate(EDITS):
        edited = shutil.copytree(folder, near.work / f"edited-{number}")
        edit(edited)
        commit(near, edited).failed(1, words)
        assert edited.is_dir()
        assert profiles(near) == before


WORDS = [
    (["--file", "../../x"], "is not a plain file name"),
    (["--file", "/etc/x"], "is not a plain file name"),
    (["--file=-rf"], "is not a plain file name"),
    (["--file", "x\n[[patches]]"], "is not a plain file name"),
    (["--file", "taken"], "profiles/patches/taken.patch already exists"),
    (["--file", "accelerate-unwrap-model"], "already exists, and does not belong to small"),
    (["--versions", "one"], "'one' is not a version range"),
    (["--versions", ">=2"], "1.0 is locked and is not among >=2"),
    (["--why", "one\ntwo"], "--why must be one line"),
    (["--why", " "], "--why must be one line"),
    (["--proof", "gone.py"], "the proof gone.py cannot be read"),
    (["--proof", "taken.py"], "profiles/proofs/taken.py already exists"),
    (["--proof", "train_tiny_model.py"], "already exists, and does not belong to small"),
]


@pytest.mark.slow
def test_names_and_words_that_will_not_do(near: Sandbox) -> None:
    near.file("patches/taken.patch", "mine")
    near.file("proofs/taken.py", "mine")
    for name in ("taken.py", "train_tiny_model.py"):
        (near.work / name).write_text("another")
    folder = start(near)
    (folder / "reef/depth.py").write_text(MENDED)
    before = profiles(near)
    for arguments, words in WORDS:
        commit(near, folder, *arguments).failed(2, words)
        assert profiles(near) == before
    commit(near, folder, new=False).failed(2, "a new patch needs --why and --proof", "fails without it")
    assert profiles(near) == before
    assert (folder / "reef/depth.py").read_text() == MENDED


# --- several patches, several profiles -----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_profile_that_extends_gets_the_entry_and_leaves_the_other_alone(near: Sandbox) -> None:
    folder = start(near)
    (folder / "reef/depth.py").write_text(MENDED)
    commit(near, folder).succeeded()
    path = near.work / "profiles/child.toml"
    path.write_text('schema = 1\nname = "child"\nextends = ["small"]\n')
    near.drydock("lock", "child").succeeded()
    before = profiles(near)
    folder = start(near, name="child")
    assert (folder / "reef/depth.py").read_text() == MENDED
    (folder / "reef/depth.py").write_text(BROKEN.replace("sum", "max"))
    commit(near, folder).failed(
        1,
        "reef/depth.py is changed by patches/reef-1.0.patch, and one file has one patch",
        "belongs to the profile small",
    )
    (folder / "reef/depth.py").write_text(MENDED)
    commit(near, folder).failed(1, "nothing was changed")
    assert profiles(near) == before
    (folder / "reef/sub/sand.py").write_text("grains = 3\n")
    commit(near, folder).failed(2, "profiles/patches/reef-1.0.patch already exists")
    done = commit(near, folder, "--file", "sand").succeeded()
    assert (
        done.stdout.splitlines()
        == [
            "profiles/patches/sand.patch",
            "profiles/child.toml",
            "profiles/child.lock.toml",
        ]
        or "profiles/proofs/depth_proof.py" in done.stdout
    )
    assert [one["file"] for one in entries(near, "child")] == ["patches/sand.patch"]
    assert [one["file"] for one in lock(near, "child")["patches"]] == ["patches/reef-1.0.patch", "patches/sand.patch"]
    assert profiles(near)["small.toml"] == before["small.toml"]
    # What the parent's patch becomes is for the child to lock.
    folder = start(near)
    (folder / "reef/depth.py").write_text(MENDED.replace("else 0", "else 0.0"))
    told = commit(near, folder, new=False).succeeded()
    assert "child has this patch too, and its lock is stale: drydock lock child" in told.stderr


@pytest.mark.slow
def test_with_two_patches_of_a_package_each_keeps_its_files(near: Sandbox) -> None:
    folder = start(near)
    (folder / "reef/depth.py").write_text(MENDED)
    commit(near, folder, "--file", "depth").succeeded()
    folder = start(near)
    (folder / "reef/sub/sand.py").write_text("grains = 3\n")
    commit(near, folder, "--file", "sand").succeeded()
    before = profiles(near)
    folder = start(near)
    (folder / "reef/__init__.py").write_text("version = 'mine'\n")
    commit(near, folder, new=False).failed(2, "it is not clear which patch takes reef/__init__.py", "--file ")
    (folder / "reef/sub/sand.py").write_text("grains = 1\n")
    commit(near, folder, "--file", "depth", new=False).failed(1, "patches/sand.patch would be empty")
    commit(near, folder, "--file", "sand", new=False).succeeded()
    after = profiles(near)
    assert {name for name in after if after[name] != before[name]} == {"patches/sand.patch", "small.lock.toml"}
    assert [file.path for file in parse_patch(after["patches/sand.patch"].decode())] == ["reef/__init__.py"]
    folder = start(near)
    (folder / "reef/depth.py").write_text(BROKEN + "#\n")
    commit(near, folder, "--file", "third").failed(1, "there is no change for patches/third.patch", "omit --file")


# --- all or nothing ------------------------------------------------------------------------------------------------


def test_where_one_file_cannot_be_written_none_is(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    (tmp_path / "file").write_text("no folder")
    files = {tmp_path / "new/patch": "1", tmp_path / "old": "2", tmp_path / "file/below": "3"}
    with pytest.raises(ProfileError, match="cannot be written"):
        write_all(files, {path: current(path) for path in files})
    assert texts(tmp_path) == {"old": b"old", "file": b"no folder"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "old"]


def test_what_somebody_writes_meanwhile_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text("theirs")
    with pytest.raises(ProfileError, match="it was changed meanwhile"):
        write_all({tmp_path / "patch": "1", path: "ours"}, {tmp_path / "patch": None, path: "as it was"})
    assert texts(tmp_path) == {"small.toml": b"theirs"}


def killed(desk: Sandbox, folder: Path, at: Callable[[Step], bool]) -> list[str]:
    """Commit, and kill that before the first step below profiles/ that `at` is true of; gives the steps until then."""
    seen: list[str] = []

    def decide(watched: Watched, step: Step) -> int:
        if at(step):
            watched.kill()
            return NEVER
        seen.append(str(step))
        return GO

    command = [sys.executable, "-m", "builder", "patch", "commit", str(folder), "--why", WHY]
    command += ["--proof", "depth_proof.py"]
    code, _, stderr = Watched(command, desk.work / "profiles", decide, env=desk.environment, cwd=desk.work).ended()
    assert code in (0, -9), stderr
    return seen


def ends_well(desk: Sandbox, folder: Path) -> None:
    """Whatever a kill left, the profile can be loaded, and committing again does all of it, if it was not done."""
    desk.drydock("profile", "show", "small").succeeded()
    again = commit(desk, folder)
    if again.code:
        again.failed(1, "small has every change of patch-small-reef already")
        desk.drydock("patch", "abort", str(folder)).succeeded()
    assert {path for path in profiles(desk) if not Path(path).name.startswith(".")} == {
        "small.toml",
        "small.lock.toml",
        "patches/reef-1.0.patch",
        "proofs/depth_proof.py",
    }
    assert len(entries(desk)) == 1
    desk.drydock("lock", "--check", "small").succeeded()
    assert not folder.exists()


@pytest.mark.slow
def test_a_commit_that_is_killed_at_any_step_is_ended_by_the_next(desk: Sandbox) -> None:
    if reason := why_not():
        pytest.skip(f"system calls cannot be handed over here: {reason}")
    folder = start(desk)
    (folder / "reef/depth.py").write_text(MENDED)
    clean = shutil.copytree(desk.work, desk.root / "clean")
    steps = killed(desk, folder, lambda _: False)
    assert len(steps) > 12
    for at in some(steps):
        shutil.rmtree(desk.work)
        shutil.copytree(clean, desk.work)
        killed(desk, folder, lambda step, at=at: str(step) == at)  # type: ignore[misc]
        ends_well(desk, folder)


# --- are they still needed? ----------------------------------------------------------------------------------------


def release(desk: Sandbox, version: str, depth: str, **more: Any) -> None:
    """Put another release of reef on the index."""
    make_wheel(desk.wheels, "reef", version, files={**REEF, "reef/depth.py": depth}, **more)


def outlook(desk: Sandbox, *words: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    checked = desk.drydock(*words, "patch", "check", "small", "--json", env=env).succeeded()
    [found] = json.loads(checked.stdout)
    assert (found["profile"], found["package"], found["version"]) == ("small", "reef", "1.0")
    return {key: found[key] for key in found if key not in {"profile", "package", "version", "patch"}}


@pytest.fixture
def patched(near: Sandbox) -> Sandbox:
    """A desk whose profile has a patch of reef."""
    folder = start(near)
    (folder / "reef/depth.py").write_text(MENDED)
    commit(near, folder).succeeded()
    return near


OTHER = "def deep(waves):\n    return sum(waves) / len(waves) * 1.0\n\n\ndepth = deep\n"


@pytest.mark.slow
def test_check_asks_newer_releases_whether_a_patch_is_still_needed(patched: Sandbox) -> None:
    before = profiles(patched)
    release(patched, "1.1", BROKEN)
    release(patched, "1.2", "import math\n\n\n" + BROKEN)
    release(patched, "2.0rc1", "depth = 'a prerelease, which nobody asked for'\n")
    told = {"newest": "1.2", "applies-through": "1.2", "applies-unchanged-through": "1.1", "needless-from": None}
    assert outlook(patched) == {"verdict": "needed", **told, "notes": []}
    release(patched, "1.3", OTHER)
    assert outlook(patched) == {"verdict": "outdated", **told, "newest": "1.3", "notes": []}
    # Of the same size, so that bytecode of the release before would be taken for its own.
    fixed = OTHER.replace("len(waves) * 1.0", "(len(waves)or 1)")
    assert len(fixed) == len(OTHER)
    for version, depth in (("1.4", OTHER), ("1.5", fixed), ("1.6", fixed)):
        release(patched, version, depth)
    checked = patched.drydock("patch", "check", "small").succeeded()
    assert checked.stdout == (
        "needless  small patches/reef-1.0.patch: reef 1.0, applies through 1.2 (to other lines after 1.1), "
        "needless from 1.5, newest 1.6\n"
    )
    assert profiles(patched) == before
    assert patched.environments() == []  # the scratch environment is gone


@pytest.mark.slow
def test_a_newer_release_is_tried_in_the_whole_environment(patched: Sandbox) -> None:
    before = profiles(patched)
    release(patched, "1.1", BROKEN)
    tried = json.loads(patched.drydock("patch", "check", "small", "--prove", "--json").succeeded().stdout)[0]["tried"]
    assert (tried["version"], tried["patched"], tried["holds"]) == ("1.1", True, True)
    assert {one["what"]: one["holds"] for one in tried["proofs"]} == {
        "build": True,
        "verify": True,
        "resume": None,
        "training": None,
    }
    release(patched, "1.6", OTHER.replace("len(waves) * 1.0", "(len(waves)or 1)"))
    done = patched.drydock("patch", "check", "small", "--prove").succeeded()
    assert done.stdout.splitlines()[1] == "            reef 1.6 without it holds: build, verify"
    assert "proofs; without their patch: proofs/depth_proof.py" in done.stderr
    # Alone its proof passes, and in the environment it is not what it was.
    release(patched, "1.7", OTHER.replace("len(waves) * 1.0", "(len(waves)or 1)"), requires=["anchor>=9"])
    done = patched.drydock("patch", "check", "small", "--prove").succeeded()
    assert done.stdout.splitlines()[1].startswith("            reef 1.7 without it does not hold: lock: ")
    assert profiles(patched) == before
    assert not (patched.store.parent / "profiles").exists()


@pytest.mark.slow
def test_a_release_that_wants_other_packages_than_are_locked_says_nothing(patched: Sandbox) -> None:
    release(patched, "1.1", "import missing\n", requires=["anchor>=2", "tests; extra == 'dev'"])
    found = outlook(patched)
    assert (found["verdict"], found["newest"], found["applies-through"]) == ("unknown", "1.1", "1.0")
    assert found["notes"] == ["reef 1.1 wants anchor>=2: its proof is inconclusive"]


@pytest.mark.slow
def test_only_a_patch_that_does_not_do_what_it_must_fails(patched: Sandbox) -> None:
    proof = patched.work / "profiles/proofs/depth_proof.py"
    proof.write_text("print('ok: whatever')\n")
    checked = patched.drydock("patch", "check", "small").failed(1, "1 of 1 patch does not work")
    assert checked.stdout.startswith("broken    small patches/reef-1.0.patch: reef 1.0, ")
    assert "its proof passes without it" in checked.stdout
    proof.write_text("raise SystemExit('never')\n")
    checked = patched.drydock("patch", "check", "small").failed(1)
    assert "its proof fails with it: never" in checked.stdout


@pytest.mark.slow
def test_without_an_index_what_is_locked_is_checked_all_the_same(patched: Sandbox, tmp_path: Path) -> None:
    release(patched, "1.1", BROKEN)
    known = outlook(patched)
    assert outlook(patched, "--offline") == known  # uv has seen it all
    (patched.wheels / "reef-1.1-py3-none-any.whl").unlink()
    wheels = {"UV_FIND_LINKS": str(patched.wheels), "UV_CACHE_DIR": str(tmp_path / "new")}
    found = outlook(patched, env={**wheels, "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple"})
    assert (found["verdict"], found["newest"], found["applies-through"]) == ("unknown", None, None)
    [note] = found["notes"]
    assert "Failed to fetch: http://127.0.0.1:9/simple/reef/" in note
    assert "is the network there? UV_DEFAULT_INDEX names a mirror" in note


@pytest.mark.slow
def test_the_proof_of_another_machine_is_not_run(patched: Sandbox) -> None:
    path = patched.work / "profiles/small.toml"
    path.write_text(path.read_text().replace("linux-x86_64", "linux-arm64"))
    make_wheel(patched.wheels, "uv", next(patched.wheels.glob("uv-*")).name.split("-")[1], tag=f"py3-none-{ARM64}")
    patched.drydock("lock", "small").succeeded()
    release(patched, "1.1", BROKEN)
    found = outlook(patched)
    assert (found["verdict"], found["applies-through"]) == ("unknown", "1.1")
    assert found["notes"] == ["its proof was not run: small is for linux-arm64"]
    release(patched, "1.2", MENDED)
    found = outlook(patched)
    assert (found["verdict"], found["applies-through"], found["needless-from"]) == ("needless", "1.1", None)


ARM64 = "manylinux_2_17_aarch64"


@pytest.mark.slow
def test_no_secret_reaches_a_release_that_is_locked_nowhere(patched: Sandbox) -> None:
    proof = "import os\nassert 'HF_TOKEN' not in os.environ and 'PYTHONPATH' not in os.environ\n"
    (patched.work / "profiles/proofs/depth_proof.py").write_text(proof + PROOF)
    release(patched, "1.1", MENDED)
    assert outlook(patched, env={"HF_TOKEN": "hf_aaaaaaaaaaaa", "PYTHONPATH": "."})["verdict"] == "needless"


def test_a_program_that_does_not_end_is_ended() -> None:
    with pytest.raises(ToolError, match=r"sh did not end within 0\.2 seconds"):
        process.run(["sh", "-c", "sleep 4711; true"], timeout=0.2)
    assert process.run(["pgrep", "-x", "-f", "sleep 4711"]).stdout == ""


@pytest.mark.slow
def test_the_patches_of_accelerate_are_needless_from_the_releases_that_repaired_it(drydock_home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "builder", "patch", "check", "cpu", "--json"],
        env={**real_environment(), "DRYDOCK_HOME": str(drydock_home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loader, unwrap = json.loads(done.stdout)
    assert (loader["version"], loader["verdict"]) == ("1.1.1", "needless")
    assert (loader["applies-through"], loader["needless-from"]) == ("1.8.1", "1.9.0")
    assert (unwrap["verdict"], unwrap["applies-through"], unwrap["needless-from"]) == ("needless", "1.2.1", "1.3.0")
