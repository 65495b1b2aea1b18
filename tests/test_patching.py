"""`drydock patch`: open a package, edit it, commit the change; whether patches are still needed."""

from __future__ import annotations

import os
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

from builder.patch import apply_hunks, parse_patch
from tests.support import Result, Sandbox, make_wheel

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


@pytest.fixture
def desk(sandbox: Sandbox) -> Sandbox:
    """A desk with the profile `small`, locked, which has reef 1.0; and a proof for its repair."""
    make_wheel(sandbox.wheels, "reef", "1.0", files=REEF)
    profile(sandbox)
    sandbox.drydock("lock", "small").succeeded()
    (sandbox.work / "depth_proof.py").write_text(PROOF)
    return sandbox


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


def test_a_second_commit_changes_the_same_patch_and_keeps_what_people_wrote(desk: Sandbox) -> None:
    folder = start(desk)
    (folder / "reef/depth.py").write_text(MENDED)
    commit(desk, folder, "--file", "depth", "--versions", ">=1,<2").succeeded()
    path = desk.work / "profiles/patches/depth.patch"
    path.write_text("Words of mine.\n\n" + path.read_text().partition("\n\n")[2])
    own = desk.work / "profiles/small.toml"
    own.write_text(own.read_text().replace('versions = ">=1,<2"', 'versions    = ">=1,<2"  # all of 1'))
    desk.drydock("lock", "small").succeeded()
    before = own.read_text()
    folder = start(desk)
    assert (folder / "reef/depth.py").read_text() == MENDED
    (folder / "reef/depth.py").write_text(MENDED.replace("else 0", "else 0.0"))
    (folder / "reef/sub/sand.py").write_text("grains = 2\n")
    done = commit(desk, folder, new=False).succeeded()
    assert done.stdout.splitlines() == ["profiles/patches/depth.patch", "profiles/small.lock.toml"]
    assert own.read_text() == before
    assert path.read_text().startswith("Words of mine.\n\n")
    changed = {file.path for file in parse_patch(path.read_text())}
    assert changed == {"reef/depth.py", "reef/sub/sand.py"}
    assert {file["path"] for file in lock(desk)["patches"][0]["files"]} == changed
    # What is said of it can be changed as well, in its place.
    folder = start(desk)
    commit(desk, folder, "--why", "for less", new=False).succeeded()
    assert own.read_text() == before.replace(f'why = "{WHY}"', 'why = "for less"')


@pytest.mark.parametrize(
    ("path", "after"),
    [
        ("reef/no_newline.txt", "one\nTWO"),
        ("reef/no_newline.txt", "one\ntwo\n"),
        ("reef/depth.py", BROKEN.replace("\n", "\r\n")),
        ("reef/depth.py", ""),
        ("reef/depth.py", BROKEN + "\f\x0b\x1c\u2028 = 1\n--- a/reef/x\n+++ b/reef/x\n@@ -1 +1 @@\n"),
        ("reef/depth.py", "# \u00e9\U0001f300\n" + BROKEN),
    ],
)
def test_a_patch_says_exactly_what_was_edited(desk: Sandbox, path: str, after: str) -> None:
    folder = start(desk)
    (folder / path).write_bytes(after.encode())
    commit(desk, folder).succeeded()
    patches = parse_patch((desk.work / "profiles/patches/reef-1.0.patch").read_bytes().decode())
    assert [apply_hunks(patch, REEF[path].encode()) for patch in patches] == [after.encode()]
    again = start(desk)
    assert (again / path).read_bytes() == after.encode()


def test_the_cache_of_uv_is_not_reached_by_writing(desk: Sandbox) -> None:
    folder = start(desk)
    assert all(path.stat().st_nlink == 1 for path in folder.rglob("*") if path.is_file())
    for path in folder.rglob("*.py"):
        with path.open("a") as file:  # in place, as an editor may
            file.write("# mine\n")
    desk.drydock("patch", "abort", str(folder)).succeeded()
    assert texts(start(desk) / "reef") == {path.removeprefix("reef/"): text.encode() for path, text in REEF.items()}


# --- the folder ----------------------------------------------------------------------------------------------------


def test_an_open_folder_is_left_as_it_is(desk: Sandbox) -> None:
    folder = start(desk, "--dir", "there")
    assert folder == desk.work / "there"
    (folder / "reef/depth.py").write_text(MENDED)
    again = desk.drydock("patch", "start", "small", "Reef", "--dir", "there").succeeded()
    assert again.stdout == "there\n"
    assert "is open already" in again.stderr
    assert (folder / "reef/depth.py").read_text() == MENDED
    desk.drydock("patch", "abort", "there").succeeded()
    assert not folder.exists()
    desk.drydock("patch", "abort", "there").failed(2, "there is not there")


def test_what_is_not_ours_is_never_overwritten_or_deleted(desk: Sandbox) -> None:
    mine = desk.work / "mine"
    mine.mkdir()
    (mine / "work.txt").write_text("a year of it")
    for name in ("mine", "mine/work.txt", "."):
        desk.drydock("patch", "start", "small", "reef", "--dir", name).failed(2, "is there already, and is not ours")
    desk.drydock("patch", "abort", "mine").failed(2, "was not opened by `drydock patch start`")
    desk.drydock("patch", "commit", "mine").failed(2, "was not opened by `drydock patch start`")
    (desk.work / "link").symlink_to(mine)
    desk.drydock("patch", "start", "small", "reef", "--dir", "link").failed(2, "is not ours")
    assert texts(mine) == {"work.txt": b"a year of it"}
    # In a folder of ours, only what is ours goes.
    folder = start(desk, "--dir", "empty/there")
    (folder / "notes.txt").write_text("mine")
    (folder / "reef/link").symlink_to(mine)
    (folder / "reef/__pycache__").mkdir()
    (folder / "reef/__pycache__/x.pyc").write_text("")
    gone = desk.drydock("patch", "abort", str(folder)).succeeded()
    assert "empty/there/notes.txt is not ours and stays" in gone.stderr
    assert texts(folder) == {"notes.txt": b"mine"}
    assert texts(mine) == {"work.txt": b"a year of it"}


def test_a_package_or_profile_that_is_not_there_is_named(desk: Sandbox) -> None:
    before = sorted(desk.work.rglob("*"))
    desk.drydock("patch", "start", "small", "reeef").failed(2, "small has no package 'reeef'", 'did you mean "reef"?')
    desk.drydock("patch", "start", "small", "../../x").failed(2, "small has no package '../../x'")
    desk.drydock("patch", "start", "small", "-rf").failed(2, "-r")
    desk.drydock("patch", "start", "small", "--", "-rf").failed(2, "small has no package '-rf'")
    desk.drydock("patch", "start", "smal", "reef").failed(1, 'no profile "smal"', 'did you mean "small"?')
    desk.drydock("patch", "start", "../small", "reef").failed(1, 'no profile "../small"')
    desk.drydock("patch", "start", "small", "reef", "--dir", "-rf").failed(2, "would be taken for an option")
    assert sorted(desk.work.rglob("*")) == before


def test_a_built_in_profile_is_not_changed(desk: Sandbox) -> None:
    refused = desk.drydock("patch", "start", "cpu", "accelerate").failed(1, '"cpu" is built in, and is not changed')
    assert 'extends = ["cpu"]' in refused.stderr


def test_a_stale_lock_and_another_version_are_refused(desk: Sandbox) -> None:
    folder = start(desk)
    (folder / "reef/depth.py").write_text(MENDED)
    make_wheel(desk.wheels, "reef", "1.1", files=REEF)
    path = desk.work / "profiles/small.toml"
    path.write_text(path.read_text().replace("reef==1.0", "reef==1.1"))
    desk.drydock("patch", "start", "small", "reef", "--dir", "new").failed(1, "the lock is stale")
    desk.drydock("lock", "small").succeeded()
    before = profiles(desk)
    commit(desk, folder).failed(1, "reef 1.0 was opened, and small has 1.1", "hint: ")
    desk.drydock("patch", "start", "small", "reef").failed(2, "has reef 1.0 of small open")
    assert profiles(desk) == before
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


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda _: None, "nothing was changed in patch-small-reef"),
        (lambda folder: (folder / "reef/native.so").write_bytes(b"\x7fELF\0\2"), "reef/native.so is not a text"),
        (lambda folder: (folder / "reef/depth.py").write_bytes(b"# \xe9\n"), "reef/depth.py is not a text"),
        (_add, "reef/new.py was added: a patch may change files, not create or delete them"),
        (lambda folder: (folder / "reef/depth.py").unlink(), "reef/depth.py is gone"),
        (lambda folder: (folder / "reef/depth.py").chmod(0o755), "the mode of reef/depth.py changed"),
        (_link, "reef/depth.py is a symbolic link"),
        (_link_folder, "reef/sub is a symbolic link"),
        (_fifo, "reef/depth.py is not a plain file"),
    ],
)
def test_what_a_patch_cannot_say_is_refused(desk: Sandbox, edit: Any, words: str) -> None:
    folder = start(desk)
    before = profiles(desk)
    edit(folder)
    commit(desk, folder).failed(1, words)
    assert profiles(desk) == before
    assert folder.is_dir()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--file", "../../x"], "is no plain file name"),
        (["--file", "/etc/x"], "is no plain file name"),
        (["--file=-rf"], "is no plain file name"),
        (["--file", "x\n[[patches]]"], "is no plain file name"),
        (["--file", "taken"], "profiles/patches/taken.patch is there already"),
        (["--file", "accelerate-unwrap-model"], "is there already, and is not of small"),
        (["--versions", "one"], "'one' is not a version range"),
        (["--versions", ">=2"], "1.0 is locked and is not among >=2"),
        (["--why", "one\ntwo"], "--why must be one line"),
        (["--why", " "], "--why must be one line"),
        (["--proof", "gone.py"], "the proof gone.py cannot be read"),
        (["--proof", "taken.py"], "profiles/proofs/taken.py is there already"),
        (["--proof", "train_tiny_model.py"], "is there already, and is not of small"),
    ],
)
def test_names_and_words_that_will_not_do(desk: Sandbox, arguments: list[str], words: str) -> None:
    desk.file("patches/taken.patch", "mine")
    desk.file("proofs/taken.py", "mine")
    for name in ("taken.py", "train_tiny_model.py"):
        (desk.work / name).write_text("another")
    folder = start(desk)
    (folder / "reef/depth.py").write_text(MENDED)
    before = profiles(desk)
    commit(desk, folder, *arguments).failed(2, words)
    assert profiles(desk) == before
    assert (folder / "reef/depth.py").read_text() == MENDED


def test_a_new_patch_needs_its_reason_and_its_proof(desk: Sandbox) -> None:
    folder = start(desk)
    (folder / "reef/depth.py").write_text(MENDED)
    before = profiles(desk)
    commit(desk, folder, new=False).failed(2, "a new patch needs --why and --proof", "fails without it")
    assert profiles(desk) == before


# --- several patches, several profiles -----------------------------------------------------------------------------


def test_a_profile_that_extends_gets_the_entry_and_leaves_the_other_alone(desk: Sandbox) -> None:
    folder = start(desk)
    (folder / "reef/depth.py").write_text(MENDED)
    commit(desk, folder).succeeded()
    path = desk.work / "profiles/child.toml"
    path.write_text('schema = 1\nname = "child"\nextends = ["small"]\n')
    desk.drydock("lock", "child").succeeded()
    before = profiles(desk)
    folder = start(desk, name="child")
    assert (folder / "reef/depth.py").read_text() == MENDED
    (folder / "reef/depth.py").write_text(BROKEN.replace("sum", "max"))
    commit(desk, folder).failed(
        1, "reef/depth.py is changed by patches/reef-1.0.patch, and one file has one patch", "of the profile small"
    )
    (folder / "reef/depth.py").write_text(MENDED)
    commit(desk, folder).failed(1, "nothing was changed")
    assert profiles(desk) == before
    (folder / "reef/sub/sand.py").write_text("grains = 3\n")
    commit(desk, folder).failed(2, "profiles/patches/reef-1.0.patch is there already")
    done = commit(desk, folder, "--file", "sand").succeeded()
    assert (
        done.stdout.splitlines()
        == [
            "profiles/patches/sand.patch",
            "profiles/child.toml",
            "profiles/child.lock.toml",
        ]
        or "profiles/proofs/depth_proof.py" in done.stdout
    )
    assert [one["file"] for one in entries(desk, "child")] == ["patches/sand.patch"]
    assert [one["file"] for one in lock(desk, "child")["patches"]] == ["patches/reef-1.0.patch", "patches/sand.patch"]
    assert profiles(desk)["small.toml"] == before["small.toml"]
    # What the parent's patch becomes is for the child to lock.
    folder = start(desk)
    (folder / "reef/depth.py").write_text(MENDED.replace("else 0", "else 0.0"))
    told = commit(desk, folder, new=False).succeeded()
    assert "child has this patch too, and its lock is stale: drydock lock child" in told.stderr


def test_with_two_patches_of_a_package_each_keeps_its_files(desk: Sandbox) -> None:
    folder = start(desk)
    (folder / "reef/depth.py").write_text(MENDED)
    commit(desk, folder, "--file", "depth").succeeded()
    folder = start(desk)
    (folder / "reef/sub/sand.py").write_text("grains = 3\n")
    commit(desk, folder, "--file", "sand").succeeded()
    before = profiles(desk)
    folder = start(desk)
    (folder / "reef/__init__.py").write_text("version = 'mine'\n")
    commit(desk, folder, new=False).failed(2, "it is not clear which patch takes reef/__init__.py", "--file ")
    (folder / "reef/sub/sand.py").write_text("grains = 1\n")
    commit(desk, folder, "--file", "depth", new=False).failed(1, "nothing is left of patches/sand.patch")
    commit(desk, folder, "--file", "sand", new=False).succeeded()
    after = profiles(desk)
    assert {name for name in after if after[name] != before[name]} == {"patches/sand.patch", "small.lock.toml"}
    assert [file.path for file in parse_patch(after["patches/sand.patch"].decode())] == ["reef/__init__.py"]
    folder = start(desk)
    (folder / "reef/depth.py").write_text(BROKEN + "#\n")
    commit(desk, folder, "--file", "third").failed(1, "there is nothing for patches/third.patch", "leave out --file")


# --- all or nothing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["patches/reef-1.0.patch", "small.toml", "small.lock.toml"])
def test_where_one_file_cannot_be_written_none_is(desk: Sandbox, at: str) -> None:
    folder = start(desk)
    (folder / "reef/depth.py").write_text(MENDED)
    before = profiles(desk)
    # The one that cannot be written: where its new text would be written first is a folder.
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom builder import cli\n"
        f"path = Path('profiles/{at}').resolve()\n"
        "path.parent.mkdir(exist_ok=True)\n"
        "path.with_name(f'.{path.name}.{os.getpid()}').mkdir()\n"
        "cli.main()\n"
    )
    script = desk.root / "program.py"
    script.write_text(code)
    import sys

    words = ["patch", "commit", str(folder), "--why", WHY, "--proof", "depth_proof.py"]
    done = desk.run([sys.executable, str(script), *words], env={"PYTHONPATH": str(Path(__file__).parents[1])})
    assert done.code == 1
    assert "cannot be written" in done.stderr
    assert profiles(desk) == before
    assert (folder / "reef/depth.py").read_text() == MENDED
    for left in (desk.work / "profiles").rglob(".*"):
        left.rmdir()
    commit(desk, folder).succeeded()
    desk.drydock("build", "small").succeeded()
