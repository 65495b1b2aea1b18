"""The patch engine: any text, any edit, what is refused, and packages that are installed."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import re
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from builder.embedded.errors import StageError
from builder.embedded.examine import check_records
from builder.embedded.hashes import sha256
from builder.embedded.installed import canonical_name, replace_file
from builder.embedded.patches import FilePatch, apply_hunks, parse_patch, patch_package, reverse
from tests.support.packages import BOTH, FILES, NO_NEWLINE, diff, lines_of, patch_of


def applied(patch: str, text: str) -> str | None:
    """The text with the patch of one file applied; None where it does not fit."""
    [file] = parse_patch(patch)
    after = apply_hunks(file, text.encode())
    return None if after is None else after.decode()


def parsed(patch: str) -> list[FilePatch]:
    """The files of a patch; none where it is refused. Any other error is a bug."""
    try:
        return parse_patch(patch)
    except StageError:
        return []


def taken_back(patch: str, text: str) -> str | None:
    """The text with the patch of one file taken back."""
    [file] = parse_patch(patch)
    before = apply_hunks(reverse(file), text.encode())
    return None if before is None else before.decode()


# --- patches: any text, any edit -----------------------------------------------------------------------------------

# What a parser of diffs may take for something else, and what Python takes for the end of a line and diff does not.
ODD = [
    "--- a/x", "+++ b/x", "-- ", "--", "@@ -1 +1 @@", "\\ No newline at end of file", "diff --git a/x b/x", "", " ",
    "-", "+", "\t", "\r", "x\ry", "\x0c", "\x85", "\u2028", "rename from x", "\x00",
]  # fmt: skip
LINE = st.sampled_from(["a", "b", "c", *ODD]) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=5
)
END = st.sampled_from(["\n", "\n", "\r\n", ""])
TEXT = st.builds(lambda lines, end: "\n".join(lines) + end if lines else "", st.lists(LINE, max_size=30), END)


@st.composite
def edits(draw: st.DrawFn) -> tuple[str, str]:
    """A text, and the same text with some of its lines changed, taken out or put in."""
    before = draw(TEXT)
    after = lines_of(before)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(after)))
        after[at : at + draw(st.integers(0, 3))] = [f"{line}\n" for line in draw(st.lists(LINE, max_size=3))]
    text = "".join(line if line.endswith("\n") else f"{line}\n" for line in after)
    return before, text if draw(st.booleans()) else text.removesuffix("\n")


@given(edits(), st.integers(0, 4))
def test_a_diff_gives_the_edited_text_and_backwards_the_original(texts: tuple[str, str], context: int) -> None:
    before, after = texts
    assume(before != after)
    patch = diff(before, after, context=context)
    assert applied(patch, before) == after
    assert taken_back(patch, after) == before
    [file] = parse_patch(patch)
    assert reverse(reverse(file)) == file


@given(st.integers(1, 40), st.sets(st.integers(0, 39), min_size=1, max_size=5), st.data())
def test_a_text_that_is_shifted_by_a_line_is_refused(count: int, places: set[int], data: st.DataObject) -> None:
    before = [f"line {number}\n" for number in range(count)]
    changed = {place % count for place in places}
    after = "".join(f"other {place}\n" if place in changed else line for place, line in enumerate(before))
    patch = diff("".join(before), after)
    text = "".join(before)
    assert applied(patch, text) == after
    assert applied(patch, "new\n" + text) is None
    assert applied(patch, text.split("\n", 1)[1]) is None
    # In the middle: wherever a line comes or goes before the last change, or next to it.
    at = data.draw(st.integers(0, max(changed)))
    assert applied(patch, "".join([*before[:at], "new\n", *before[at:]])) is None
    assert applied(patch, "".join(before[:at] + before[at + 1 :])) is None


@given(edits())
def test_what_is_around_a_change_must_be_as_it_was(texts: tuple[str, str]) -> None:
    before, after = texts
    assume(before and before != after)
    [file] = parse_patch(diff(before, after))
    for hunk in file.hunks:
        for place in range(hunk.start, hunk.start + len(hunk.before)):
            lines = lines_of(before)
            lines[place] = "Z" + lines[place]
            assert apply_hunks(file, "".join(lines).encode()) is None


@pytest.mark.parametrize("command", [["git", "diff", "--no-index", "--no-prefix"], ["diff", "-ru"], ["diff", "-rU0"]])
def test_what_git_and_diff_write_is_understood(tmp_path: Path, command: list[str]) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]} here")
    chance = random.Random(0)
    texts: dict[str, tuple[bytes, bytes]] = {}
    for number in range(80):
        lines = [chance.choice(["a", "b", "c", "-- x", "++ y", "\rz", ""]) for _ in range(chance.randrange(40))]
        edited = list(lines)
        for _ in range(chance.randrange(1, 5)):
            edited[chance.randrange(len(edited) + 1) :][: chance.randrange(3)] = ["new"]
            edited.insert(chance.randrange(len(edited) + 1), "new")
        ends = [chance.choice([b"", b"\n"]) if one else b"" for one in (lines, edited)]
        pair = [("\n".join(one)).encode() + end for one, end in zip((lines, edited), ends, strict=True)]
        texts[f"anchor/{number}.txt"] = (pair[0], pair[1])
        for side, content in zip("ab", pair, strict=True):
            path = tmp_path / side / "anchor" / f"{number}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    done = subprocess.run([*command, "a", "b"], cwd=tmp_path, capture_output=True, env=env, check=False)
    assert done.returncode == 1, done.stderr
    files = parse_patch(done.stdout.decode())
    assert len(files) > 70
    for file in files:
        before, after = texts[file.path]
        assert apply_hunks(file, before) == after
        assert apply_hunks(reverse(file), after) == before


def test_a_line_end_of_windows_is_part_of_the_line() -> None:
    before, after = "a\r\nb\r\nc\r\n", "a\r\nB\r\nc\r\n"
    patch = diff(before, after)
    assert applied(patch, before) == after
    assert applied(patch, before.replace("\r", "")) is None
    assert applied(diff("a\nb\nc\n", "a\nB\nc\n"), before) is None
    # A whole patch that an editor or git gave other line ends is for another file.
    assert applied(diff("a\nb\nc\n", "a\nB\nc\n").replace("\n", "\r\n"), before) == after


def test_a_carriage_return_before_a_missing_newline_stays() -> None:
    assert applied(diff("a\nb\r", "c\nb\r"), "a\nb\r") == "c\nb\r"


def test_empty_context_lines_may_have_lost_their_space() -> None:
    before, after = "a\n\nb\n\nc\n", "a\n\nB\n\nc\n"
    patch = diff(before, after)
    assert patch.count("\n \n") == 2
    assert applied(patch.replace("\n \n", "\n\n"), before) == after
    windows = patch.replace("\n \n", "\n\r\n")
    assert applied(windows, before.replace("\n\n", "\n\r\n")) == after.replace("\n\n", "\n\r\n")


def test_an_insertion_without_context_goes_below_the_line_that_is_named() -> None:
    patch = "--- a/p/x\n+++ b/p/x\n@@ -2,0 +3 @@\n+new\n"
    assert applied(patch, "1\n2\n3\n") == "1\n2\nnew\n3\n"
    assert applied(patch, "1\n2\n") == "1\n2\nnew\n"
    assert applied(patch, "1\n") is None
    assert applied("--- a/p/x\n+++ b/p/x\n@@ -0,0 +1 @@\n+new\n", "") == "new\n"


def test_a_mail_with_a_patch_is_understood() -> None:
    text = """\
From 1234 Mon Sep 17 00:00:00 2001
From: Somebody <somebody@example.org>
Subject: [PATCH] rename nothing
 accelerate/data_loader.py | 2 +-

diff --git a/p/x b/p/x
index 123..456 100644
--- a/p/x
+++ b/p/x
@@ -1 +1 @@ def f():
-a
+b
diff --git a/p/y b/p/y
index 123..456 100644
--- a/p/y\t2025-07-01 00:00:00 +0000
+++ b/p/y\t2025-07-02 00:00:00 +0000
@@ -1,2 +1,2 @@
-a
+b
 c
-- \n2.39.5

"""
    one, two = parse_patch(text)
    assert (one.path, apply_hunks(one, b"a\n")) == ("p/x", b"b\n")
    assert (two.path, apply_hunks(two, b"a\nc\n")) == ("p/y", b"b\nc\n")


# --- patches that are refused --------------------------------------------------------------------------------------

HEAD = "--- a/p/x\n+++ b/p/x\n"


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ("", "not a unified diff"),
        ("nothing\n", "not a unified diff"),
        ("--- a/p/x\n", "not a unified diff"),
        ("*** a/p/x\n--- b/p/x\n***************\n", "not a unified diff"),
        (HEAD, "changes nothing"),
        (f"{HEAD}-a\n+b\n", "changes nothing"),
        ("--- /dev/null\n+++ b/p/x\n@@ -0,0 +1 @@\n+a\n", "begin with a/"),
        ("--- a/p/x\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n", "begin with a/"),
        ("--- a/p/x\n+++ b/p/y\n@@ -1 +1 @@\n-a\n+b\n", "not create, delete or rename"),
        ("--- x\n+++ x\n@@ -1 +1 @@\n-a\n+b\n", "begin with a/"),
        ("--- p/x\n+++ p/x\n@@ -1 +1 @@\n-a\n+b\n", "begin with a/"),
        ("--- c/p/x\n+++ c/p/x\n@@ -1 +1 @@\n-a\n+b\n", "begin with a/"),
        ("--- /etc/passwd\n+++ /etc/passwd\n@@ -1 +1 @@\n-a\n+b\n", "begin with a/"),
        ('--- "a/p/\\303"\n+++ "b/p/\\303"\n@@ -1 +1 @@\n-a\n+b\n', "begin with a/"),
        ("--- a/../x/y\n+++ b/../x/y\n@@ -1 +1 @@\n-a\n+b\n", "leaves its package"),
        ("--- a/p/../../y\n+++ b/p/../../y\n@@ -1 +1 @@\n-a\n+b\n", "leaves its package"),
        ("--- a/p/..\n+++ b/p/..\n@@ -1 +1 @@\n-a\n+b\n", "leaves its package"),
        ("--- a/p\\..\\y/z\n+++ b/p\\..\\y/z\n@@ -1 +1 @@\n-a\n+b\n", "leaves its package"),
        ("--- a/p/x\0y\n+++ b/p/x\0y\n@@ -1 +1 @@\n-a\n+b\n", "leaves its package"),
        ("diff --git a/p/x b/p/y\nrename from p/x\nrename to p/y\n", "nothing else: 'rename from p/x'"),
        ("diff --git a/p/x b/p/y\ncopy from p/x\ncopy to p/y\n", "nothing else: 'copy from p/x'"),
        ("diff --git a/p/x b/p/x\nold mode 100644\nnew mode 100755\n", "nothing else: 'old mode 100644'"),
        (f"diff --git a/p/x b/p/x\nnew file mode 100644\n{HEAD}@@ -0,0 +1 @@\n+a\n", "nothing else: 'new file mode"),
        ("diff --git a/p/x b/p/x\ndeleted file mode 100644\nindex 1..0\n", "nothing else: 'deleted file mode"),
        ("diff --git a/p/x b/p/x\nindex 1..2\nGIT binary patch\nliteral 3\n", "nothing else: 'GIT binary patch'"),
        (f"{HEAD}@@ -1 +1 @@\n-a\n+b\n{HEAD}@@ -1 +1 @@\n-b\n+c\n", "names p/x twice"),
        (f"{HEAD}@@ -1,2 +1,2 @@\n-a\n+b\n", "shorter or longer"),
        (f"{HEAD}@@ -1 +1 @@\n-a\n", "shorter or longer"),
        (f"{HEAD}@@ -1 +1 @@\n-a\n+b\n+c\n", "shorter or longer"),
        (f"{HEAD}@@ -1 +1 @@\n-a\n+b\n c\n", "shorter or longer"),
        (f"{HEAD}@@ -1 +1 @@\n-a\n+b\n-c\n", "shorter or longer"),
        (f"{HEAD}@@ -1 +1 @@\n-a\n+b\n--- a\n", "shorter or longer"),
        (f"{HEAD}@@ -1 +1,2 @@\n a\n b\n", "shorter or longer"),
        (f"{HEAD}@@ -1 +1 @@\n-a\n*b\n", "shorter or longer"),
        (f"{HEAD}@@ -0,1 +1 @@\n-a\n+b\n", "shorter or longer"),
        (f"{HEAD}@@ -0,0 +0,0 @@\n", "shorter or longer"),
        (f"{HEAD}@@ -1 +1 @@\n\\ No newline\n-a\n+b\n", "shorter or longer"),
        (f"{HEAD}@@ -1 +1 @@\n-a\n{NO_NEWLINE}{NO_NEWLINE}+b\n", "shorter or longer"),
        (f"{HEAD}@@ -1 +1 @@\n-a\n+b\n{NO_NEWLINE}{NO_NEWLINE}", "shorter or longer"),
        (f"{HEAD}@@ -1 +1 @@\n-a\n+b", "shorter or longer"),
        (f"{HEAD}@@ -x +1 @@\n-a\n+b\n", "not a hunk header: '@@ -x +1 @@'"),
        (f"{HEAD}@@ -1 +1\n-a\n+b\n", "not a hunk header"),
        (f"{HEAD}@@@ -1 -1 +1 @@@\n--a\n++b\n", "not a hunk header"),
        (f"{HEAD}@@ -{'9' * 5000} +1 @@\n-a\n+b\n", "not a hunk header"),
        (f"{HEAD}@@ -\u0661 +1 @@\n-a\n+b\n", "not a hunk header"),
    ],
)  # fmt: skip
def test_what_is_not_a_change_of_lines_is_refused(patch: str, words: str) -> None:
    with pytest.raises(StageError, match=re.escape(words)):
        parse_patch(patch)


@pytest.mark.parametrize(
    ("text", "patch"),
    [
        ("a\nb\n", f"{HEAD}@@ -1 +1 @@\n-a\n{NO_NEWLINE}+c\n"),  # the patch's end of the file is not the file's
        ("a\nb\n", f"{HEAD}@@ -1 +1 @@\n-a\n+c\n{NO_NEWLINE}"),
        ("a", f"{HEAD}@@ -1 +1 @@\n-a\n+c\n"),
        ("a\n", f"{HEAD}@@ -1 +1 @@\n-a\n{NO_NEWLINE}+c\n"),
        ("a\n", f"{HEAD}@@ -1,2 +1,2 @@\n a\n-b\n+c\n"),
        ("", f"{HEAD}@@ -1 +1 @@\n-a\n+c\n"),
        ("a\nb\nc\n", f"{HEAD}@@ -3 +3 @@\n-c\n+C\n@@ -1 +1 @@\n-a\n+A\n"),  # hunks out of order
        ("a\nb\nc\n", f"{HEAD}@@ -1,2 +1,2 @@\n-a\n+A\n b\n@@ -2 +2 @@\n-b\n+B\n"),  # hunks that overlap
    ],
)
def test_what_does_not_fit_exactly_is_not_applied(text: str, patch: str) -> None:
    assert applied(patch, text) is None


FRAGMENTS = st.sampled_from(
    [
        "--- a/p/x\n", "+++ b/p/x\n", "--- a/p/y\n", "+++ b/p/y\n", "@@ -1 +1 @@\n", "@@ -1,2 +1,3 @@ f\n",
        "@@ -0,0 +1 @@\n", "@@ -2,0 +3,2 @@\n", "@@", "-a\n", "+b\n", " c\n", "\n", "\r\n", NO_NEWLINE, "\\\n",
        "-- \n", "diff --git a b\n", "rename from x\n", "+", "-", "\t", "\x00", "\u2028", "--- \n", "+++ \n",
        "--- a/../x\n",
    ]
)  # fmt: skip


@given(st.lists(FRAGMENTS | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)).map("".join), TEXT)
def test_any_text_is_a_patch_or_is_refused_in_words(patch: str, text: str) -> None:
    for file in parsed(patch):
        assert re.fullmatch(r"[^/].*/.*[^/]", file.path, re.DOTALL)
        assert ".." not in file.path.split("/")
        apply_hunks(file, text.encode())
        apply_hunks(reverse(file), text.encode())


@given(edits(), st.data())
def test_a_damaged_patch_is_refused_or_says_something_else(texts: tuple[str, str], data: st.DataObject) -> None:
    before, after = texts
    assume(before != after)
    lines = lines_of(diff(before, after))
    at = data.draw(st.integers(0, len(lines) - 1))
    damage = data.draw(st.sampled_from(["cut", "drop", "twice", "garble"]))
    lines[at : len(lines) if damage == "cut" else at + 1] = {
        "cut": [],
        "drop": [],
        "twice": [lines[at]] * 2,
        "garble": [data.draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=4)) + lines[at]],
    }[damage]
    for file in parsed("".join(lines)):
        apply_hunks(file, before.encode())


# --- files ---------------------------------------------------------------------------------------------------------


def test_a_file_is_never_written_through_a_hard_link(tmp_path: Path) -> None:
    cached, installed = tmp_path / "cached", tmp_path / "installed"
    cached.write_bytes(b"old")
    os.link(cached, installed)
    replace_file(installed, b"new")
    assert (installed.read_bytes(), cached.read_bytes()) == (b"new", b"old")
    assert (installed.stat().st_nlink, cached.stat().st_nlink) == (1, 1)


def test_a_file_is_never_written_through_a_symbolic_link(tmp_path: Path) -> None:
    cached, installed = tmp_path / "cached", tmp_path / "installed"
    cached.write_bytes(b"old")
    installed.symlink_to(cached)
    replace_file(installed, b"new")
    assert (installed.read_bytes(), cached.read_bytes(), installed.is_symlink()) == (b"new", b"old", False)


@pytest.mark.parametrize("mode", [0o644, 0o755, 0o444, 0o600, 0o666])
def test_the_mode_of_a_replaced_file_is_kept(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(mode)
    replace_file(path, b"new")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", mode)


@pytest.mark.parametrize("broken", ["fsync", "chmod", "replace"])
def test_where_a_file_cannot_be_replaced_the_old_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, broken, full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"new")
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {"file": b"old"}


# --- patches on installed packages ---------------------------------------------------------------------------------


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_patch_is_applied_once_and_taken_back_once(site: Path) -> None:
    before = snapshot(site)
    patch, text = patch_of(BOTH)
    assert patch_package(site, patch, text) is True
    after = snapshot(site)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert changed == {*BOTH, "anchor-1.0.dist-info/RECORD"}
    assert {path: after[path].decode() for path in BOTH} == {path: texts[1] for path, texts in BOTH.items()}
    assert check_records(site, {}).problems == []

    assert patch_package(site, patch, text) is False
    assert snapshot(site) == after
    assert patch_package(site, patch, text, revert=True) is True
    assert snapshot(site) == before
    assert patch_package(site, patch, text, revert=True) is False
    assert snapshot(site) == before


def test_record_has_the_new_hash_and_size_and_is_otherwise_as_it_was(site: Path) -> None:
    record = site / "anchor-1.0.dist-info/RECORD"
    before = record.read_text().splitlines()
    patch, text = patch_of(BOTH)
    patch_package(site, patch, text)
    after = record.read_text().splitlines()
    blue = b"red\ngreen\nblue\n"
    digest = base64.urlsafe_b64encode(hashlib.sha256(blue).digest()).decode().rstrip("=")
    assert after[0] == f'"anchor/sub/b, c.py",sha256={digest},{len(blue)}'
    assert [old for old, new in zip(before, after, strict=True) if old != new] == [
        line for line in before if line.startswith(("anchor/a.py,", '"anchor/sub'))
    ]


def test_two_patches_on_one_package_are_independent(site: Path) -> None:
    before = snapshot(site)
    first, text = patch_of({"anchor/a.py": BOTH["anchor/a.py"]}, "first.patch")
    second, more = patch_of({"anchor/sub/b, c.py": BOTH["anchor/sub/b, c.py"]}, "second.patch")
    assert patch_package(site, first, text)
    assert patch_package(site, second, more)
    assert not patch_package(site, first, text)
    assert check_records(site, {}).problems == []
    assert patch_package(site, first, text, revert=True)
    assert (site / "anchor/a.py").read_text() == FILES["anchor/a.py"]
    assert (site / "anchor/sub/b, c.py").read_text() == "red\ngreen\nblue\n"
    assert patch_package(site, second, more, revert=True)
    assert snapshot(site) == before


def test_a_run_that_was_killed_halfway_is_finished_by_the_next(site: Path) -> None:
    whole = shutil.copytree(site, site.parent / "whole")
    patch, text = patch_of(BOTH)
    patch_package(whole, patch, text)
    # Killed after one file, and after both files but before RECORD.
    (site / "anchor/a.py").write_text(BOTH["anchor/a.py"][1])
    patch_package(site, patch, text)
    assert snapshot(site) == snapshot(whole)
    record = "anchor-1.0.dist-info/RECORD"
    patch_package(site, patch, text, revert=True)
    (site / record).write_bytes((site / record).read_bytes())
    for path, (_, after) in BOTH.items():
        (site / path).write_text(after)
    assert check_records(site, {}).problems != []
    patch_package(site, patch, text)
    assert snapshot(site) == snapshot(whole)


def test_a_file_that_somebody_changed_is_left_alone(site: Path) -> None:
    patch, text = patch_of(BOTH)
    (site / "anchor/sub/b, c.py").write_text("red\ngreen\nmine\n")
    before = snapshot(site)
    found, wanted = sha256(b"red\ngreen\nmine\n"), sha256(BOTH["anchor/sub/b, c.py"][0].encode())
    with pytest.raises(StageError, match=f"does not apply: .*b, c.py has sha256 {found}, and .* is for {wanted}"):
        patch_package(site, patch, text)
    with pytest.raises(StageError, match="Somebody changed the file, or it is of another version of anchor"):
        patch_package(site, patch, text, revert=True)
    assert snapshot(site) == before  # the other file was not touched either


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda patch, text: ({**patch, "package": "gone"}, text), "a.patch is for gone, which is not installed in"),
        (lambda patch, text: ({**patch, "files": patch["files"][:1]}, text), "changes other files than the lock says"),
        (lambda patch, _: (patch, diff(*BOTH["anchor/a.py"])), "changes other files than the lock says"),
        (lambda patch, text: (patch, text.replace("+2", "+3")), "does not give the file that the lock promises"),
        (lambda patch, text: (patch, text.replace(" one", " uno")), "does not give the file that the lock promises"),
        (lambda patch, _: (patch, "nothing"), "not a unified diff"),
    ],
)
def test_a_patch_that_is_not_the_locked_one_changes_nothing(
    site: Path, spoil: Callable[[dict[str, Any], str], tuple[dict[str, Any], str]], words: str
) -> None:
    before = snapshot(site)
    patch, text = spoil(*patch_of(BOTH))
    with pytest.raises(StageError, match=words):
        patch_package(site, patch, text)
    assert snapshot(site) == before


def test_a_package_is_found_in_any_spelling_of_its_name(site: Path) -> None:
    patch, text = patch_of({"other/a.py": ("x = 1\n", "x = 2\n")})
    assert patch_package(site, {**patch, "package": "other-thing"}, text)
    assert (site / "other/a.py").read_text() == "x = 2\n"


def test_a_patched_file_that_record_does_not_list_is_an_error(site: Path) -> None:
    record = site / "anchor-1.0.dist-info/RECORD"
    record.write_text(
        "".join(line for line in record.read_text().splitlines(True) if not line.startswith("anchor/a.py"))
    )
    patch, text = patch_of({"anchor/a.py": BOTH["anchor/a.py"]})
    with pytest.raises(StageError, match=r"anchor-1\.0\.dist-info/RECORD does not list anchor/a.py"):
        patch_package(site, patch, text)


@pytest.mark.parametrize(
    ("name", "canonical"), [("A", "a"), ("a_.-B", "a-b"), ("python_BaseConv", "python-baseconv"), ("a--b", "a-b")]
)
def test_names_are_canonical(name: str, canonical: str) -> None:
    assert canonical_name(name) == canonical
