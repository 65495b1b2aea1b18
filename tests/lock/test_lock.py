"""Locks as texts: written and read back, refused where they cannot be trusted, compared."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from builder.errors import LockError, Where
from builder.lock.model import (
    Artefact,
    Lock,
    LockedOverride,
    LockedPatch,
    NewerLockError,
    PatchedFile,
    changes,
    check_fresh,
    digest,
    dump,
    parse,
)
from builder.profile.model import Profile
from builder.project.catalogue import Catalogue
from tests.conftest import ROOT

PATH = "profiles/small.lock.toml"


def artefact(name: str = "anchor", version: str = "1.0", *, sha: str = "a", **fields: Any) -> Artefact:
    """A wheel; `sha` is the letter that its sha256 is made of."""
    file = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    return Artefact(**{"name": name, "version": version, "file": file, "size": 10, "sha256": sha * 64, **fields})


def lock(*packages: Artefact, **fields: Any) -> Lock:
    """A lock of `packages`."""
    made = {"profile": "small", "digest": "sha256:" + "0" * 64, "uv": artefact("uv", "0.13.0"), **fields}
    return Lock(schema_=1, packages=list(packages or (artefact(),)), **made)


def refused(text: str, name: str = "small") -> LockError:
    """The error of a lock that is refused."""
    with pytest.raises(LockError) as caught:
        parse(text, PATH, name)
    return caught.value


# --- to text and back ----------------------------------------------------------------------------------------------

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
HEX = st.integers(0, 2**256 - 1).map("{:064x}".format)
ARTEFACTS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["a", "b-c", "0"]),
        "version": st.sampled_from(["1.0", "2!1.0.post1+cpu", "2025.6"]),
        "file": st.sampled_from(["a-1.0-py3-none-any.whl", "_b-2!1+cpu-cp311-cp311-win32.whl", "c-1.tar.gz"]),
        "size": st.integers(0, 1 << 40),
        "sha256": HEX,
        "index": st.none() | WORDS,
        "required_by": st.lists(WORDS, max_size=3),
    }
).map(lambda fields: Artefact(**fields))
FILES = st.builds(PatchedFile, path=WORDS, preimage=HEX, postimage=HEX)
LOCKS = st.fixed_dictionaries(
    {
        "schema_": st.just(1),
        "profile": st.just("small"),
        "digest": WORDS,
        "uv": ARTEFACTS,
        "overrides": st.lists(st.builds(LockedOverride, requirement=WORDS, reason=WORDS), max_size=2),
        "patches": st.lists(
            st.builds(LockedPatch, package=WORDS, file=WORDS, sha256=HEX, files=st.lists(FILES, max_size=2)), max_size=2
        ),
        "build_requires": st.lists(ARTEFACTS, max_size=2),
        "packages": st.lists(ARTEFACTS, max_size=3),
    }
).map(lambda fields: Lock(**fields))


@given(LOCKS)
def test_any_lock_is_read_back_as_it_was_and_written_again_to_the_byte(one: Lock) -> None:
    text = dump(one)
    read = parse(text, PATH, "small")
    assert read == one
    assert dump(read) == text


def test_the_text_of_a_lock_is_this() -> None:
    patch = LockedPatch(
        package="anchor",
        file="patches/a.patch",
        sha256="b" * 64,
        files=[PatchedFile(path="anchor/a.py", preimage="c" * 64, postimage="d" * 64)],
    )
    override = LockedOverride(requirement="protobuf>=6", reason="hivemind pins too low")
    one = lock(artefact(index="pytorch-cpu", required_by=["profile", "x"]), patches=[patch], overrides=[override])
    checksum = tomllib.loads(dump(one))["checksum"]
    assert re.fullmatch("sha256:[0-9a-f]{64}", checksum)
    assert (
        dump(one)
        == f'''\
# The lock of the profile small: every file that its environment is made of, by sha256.
# Made by `drydock lock small`; do not edit.

schema = 1
checksum = "{checksum}"
profile = "small"
digest = "sha256:{"0" * 64}"
overrides = [
    {{ requirement = "protobuf>=6", reason = "hivemind pins too low" }},
]

[uv]
name = "uv"
version = "0.13.0"
file = "uv-0.13.0-py3-none-any.whl"
size = 10
sha256 = "{"a" * 64}"

[[patches]]
package = "anchor"
file = "patches/a.patch"
sha256 = "{"b" * 64}"

[[patches.files]]
path = "anchor/a.py"
preimage = "{"c" * 64}"
postimage = "{"d" * 64}"

[[packages]]
name = "anchor"
version = "1.0"
file = "anchor-1.0-py3-none-any.whl"
size = 10
sha256 = "{"a" * 64}"
index = "pytorch-cpu"
required-by = [
    "profile",
    "x",
]
'''
    )


def test_the_size_is_what_a_first_build_downloads() -> None:
    assert lock(artefact(size=3), artefact("b", size=4), build_requires=[artefact("c", size=100)]).size == 7
    assert lock(artefact(), artefact("b", "2")).versions() == {"anchor": "1.0", "b": "2"}


def test_nothing_of_a_lock_changes_after_it_was_checked() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        artefact().sha256 = "b" * 64  # type: ignore[misc]


@pytest.mark.parametrize(
    ("requirement", "package"),
    [("Other_Thing>=2; python_version > '3'", "other-thing"), ("no requirement!", "no requirement!")],
)
def test_what_is_overridden_is_a_package_or_the_whole_text(requirement: str, package: str) -> None:
    assert LockedOverride(requirement=requirement, reason="because").package == package


def test_a_source_is_told_from_a_wheel() -> None:
    assert artefact().is_wheel
    assert not artefact(file="anchor-1.0.tar.gz").is_wheel


# --- locks that cannot be trusted ----------------------------------------------------------------------------------


def leaves(data: Any) -> list[tuple[Any, Any]]:
    """Every plain value, as its container and its key there."""
    pairs = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    found: list[tuple[Any, Any]] = []
    for key, value in pairs:
        found += leaves(value) if isinstance(value, dict | list) else [(data, key)]
    return found


def test_a_change_of_any_value_by_hand_is_noticed() -> None:
    patch = LockedPatch(package="anchor", file="a.patch", sha256="b" * 64, files=[])
    text = dump(lock(artefact(required_by=["x"]), patches=[patch], build_requires=[artefact("b")]))
    count = len(leaves(tomllib.loads(text)))
    assert count > 20
    for number in range(count):
        data = tomllib.loads(text)
        table, key = leaves(data)[number]
        value = table[key]
        # Another value of the same kind: it is the checksum that has to notice, where the value may be.
        table[key] = value + 1 if isinstance(value, int) else ("f" if value[:1] != "f" else "e") + value[1:]
        error = refused(tomli_w.dumps(data))
        assert error.where == Where(PATH)
        if key in ("sha256", "size", "version", "file", "package", "checksum", "digest"):
            assert error.message == "the lock was edited by hand: its checksum does not match what it says"
            assert error.hint == "change the profile instead, then: drydock lock small"


@pytest.mark.parametrize(
    "edit",
    [
        lambda data: data["packages"].append(data["packages"][0]),
        lambda data: data["packages"].clear(),
        lambda data: data["packages"].reverse(),
        lambda data: data.pop("checksum"),
        lambda data: data["packages"][0].update(index="elsewhere"),
        lambda data: data["packages"][0].pop("required-by"),
    ],
)
def test_packages_that_come_or_go_by_hand_are_noticed(edit: Callable[[dict[str, Any]], Any]) -> None:
    data = tomllib.loads(dump(lock(artefact(required_by=["x"]), artefact("b"))))
    edit(data)
    assert "edited by hand" in refused(tomli_w.dumps(data)).message


def test_comments_and_spaces_are_no_edit() -> None:
    text = dump(lock())
    assert parse("# mine\n" + text.replace(" = ", "  =  "), PATH, "small") == lock()


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda text: text[:-3], "Unterminated string"),
        (lambda text: text.replace("schema = 1", "schema = 0"), "schema: Input should be 1"),
        (lambda text: text.replace('sha256 = "a', 'sha256 = "A'), "should match pattern"),
        (lambda text: text.replace("size = 10", "size = -1"), "greater than or equal to 0"),
        (lambda text: text.replace('file = "', 'file = "../'), "should match pattern"),
        (lambda text: text.replace('name = "anchor"', 'name = "an chor"'), "should match pattern"),
        (lambda text: text.replace('version = "1.0"', 'version = "1.0 --hash=sha256:0"'), "should match pattern"),
        (lambda text: text + 'url = "https://example.org/a.whl"\n', "Extra inputs"),
        (lambda _: "", "Field required"),
    ],
)
def test_what_is_no_lock_is_refused_with_the_mending_command(edit: Callable[[str], str], reason: str) -> None:
    error = refused(edit(dump(lock())))
    assert error.message.startswith("this is not a lock that this Drydock can read: ")
    assert reason in error.message
    assert (error.hint, error.where) == ("make it again: drydock lock small", Where(PATH))


def test_the_lock_of_a_newer_drydock_is_not_to_be_made_again() -> None:
    error = refused(dump(lock()).replace("schema = 1", "schema = 2\nfuture = true"))
    assert isinstance(error, NewerLockError)
    assert error.message == "a newer Drydock has made this lock: its schema is 2, and this one reads 1"
    assert "drydock lock" not in str(error.hint)


def test_the_lock_of_another_profile_is_refused() -> None:
    error = refused(dump(lock()), "large")
    assert error.message == 'this is the lock of "small", not of "large"'
    assert error.hint == "make it again: drydock lock large"


# --- what a lock was made from -------------------------------------------------------------------------------------

DATA: dict[str, Any] = {
    "schema": 1,
    "name": "small",
    "target": {"platform": "linux-x86_64", "accelerator": "cpu", "glibc": "2.17"},
    "python": {"version": "3.11"},
    "packages": {"requires": ["anchor"], "index": {"anchor": "own"}},
    "indexes": {"own": "https://one.example.org/"},
    "patches": [
        {"package": "anchor", "versions": ">=1", "file": "a.patch", "proof": "a.py", "why": "it is wrong"},
    ],
    "trainer": {"command": ["python"]},
}


def changed(**tables: Any) -> Profile:
    """The profile with other tables; a table of the same name is merged."""
    data = {
        name: {**DATA[name], **table} if isinstance(table, dict) and name in DATA else table
        for name, table in tables.items()
    }
    return Profile.model_validate({**DATA, **data})


def digest_of(profile: Profile, patch: str = "text") -> str:
    return digest(profile, {"a.patch": patch})


PATCH = DATA["patches"][0]


@pytest.mark.parametrize(
    "tables",
    [
        {"env": {"OMP_NUM_THREADS": "3"}},
        {"trainer": {"command": ["python", "other.py"], "arguments": ["--x"]}},
        {"trainer": {"command": None, "file": "trainers/a.py"}},
        {"description": "another"},
        {"generated": {"run": "other.sh"}},
        {"indexes": {"own": "https://mirror.example.org/"}},
        {"target": {"match": {"chip": "*"}}},
        {"checks": [{"file": "a.py", "why": "x"}]},
        {"patches": [{**PATCH, "proof": "b.py", "why": "other words"}]},
        {"extends": ["base"]},
    ],
    ids=lambda tables: next(iter(tables)),
)
def test_the_digest_does_not_follow_what_decides_no_package(tables: dict[str, Any]) -> None:
    assert digest_of(changed(**tables)) == digest_of(changed())


@pytest.mark.parametrize(
    "tables",
    [
        {"packages": {"requires": ["anchor>=1"]}},
        {"packages": {"requires": ["anchor", "b"]}},
        {"packages": {"exclude-newer": "2025-07-01"}},
        {"packages": {"exclude-newer-package": {"anchor": "2025-07-01"}}},
        {"packages": {"overrides": [{"requirement": "b", "reason": "x"}]}},
        {"packages": {"build": {"anchor": ["setuptools"]}}},
        {"packages": {"index": {}}},
        {"target": {"glibc": "2.28"}},
        {"target": {"platform": "linux-arm64"}},
        {"target": {"accelerator": "cuda", "cuda": "12.4"}},
        {"python": {"version": "3.12"}},
        {"patches": []},
        {"patches": [{**PATCH, "versions": ">=2"}]},
        {"patches": [PATCH, PATCH]},
    ],
)
def test_the_digest_follows_what_decides_the_packages(tables: dict[str, Any]) -> None:
    assert digest_of(changed(**tables)) != digest_of(changed())


def test_the_digest_follows_the_text_of_a_patch() -> None:
    assert digest_of(changed(), "text") != digest_of(changed(), "text\n")


def test_a_stale_lock_is_refused_with_the_mending_command() -> None:
    fresh = lock(digest=digest_of(changed()))
    check_fresh(fresh, changed(env={"A": "1"}), {"a.patch": "text"}, PATH)
    with pytest.raises(LockError) as caught:
        check_fresh(fresh, changed(python={"version": "3.12"}), {"a.patch": "text"}, PATH)
    error = caught.value
    assert error.message == "the lock is stale: small has changed since it was made"
    assert (error.hint, error.where) == ("drydock lock small", Where(PATH))
    with pytest.raises(LockError):
        check_fresh(fresh, changed(), {"a.patch": "other text"}, PATH)


def test_line_ends_that_git_turned_are_named_and_only_where_they_are_the_whole_difference() -> None:
    fresh = lock(digest=digest_of(changed(), "text\n"))
    turned = {"a.patch": "text\r\n"}
    with pytest.raises(LockError) as caught:
        check_fresh(fresh, changed(), turned, PATH)
    assert caught.value.message == "a.patch: its line ends are CRLF here, and LF where small was locked"
    assert caught.value.hint is not None
    assert "git checkout -- a.patch;" in caught.value.hint
    with pytest.raises(LockError) as caught:
        check_fresh(fresh, changed(python={"version": "3.12"}), turned, PATH)
    assert caught.value.message.startswith("the lock is stale")


# --- what changed --------------------------------------------------------------------------------------------------


def test_changes_are_told_by_name() -> None:
    before = lock(artefact("kept"), artefact("older", "1"), artefact("gone", "3"), artefact("same", sha="a"))
    after = lock(
        artefact("same", sha="b", file="same-1.0-cp311-cp311-win32.whl"),
        artefact("older", "2", sha="b"),
        artefact("new", "4"),
        artefact("kept"),
    )
    assert [str(change) for change in changes(before, after)] == [
        "- gone 3",
        "+ new 4",
        "~ older 1 -> 2",
        "~ same 1.0 (same-1.0-py3-none-any.whl) -> 1.0 (same-1.0-cp311-cp311-win32.whl)",
    ]


def test_a_first_lock_adds_everything_and_the_same_lock_changes_nothing() -> None:
    assert [str(change) for change in changes(None, lock())] == ["+ anchor 1.0"]
    assert changes(lock(), lock(artefact(required_by=["somebody else"]))) == []


@given(LOCKS, LOCKS)
def test_changes_there_are_the_changes_back(one: Lock, two: Lock) -> None:
    there = {(change.name, change.before, change.after) for change in changes(one, two)}
    back = {(change.name, change.after, change.before) for change in changes(two, one)}
    assert there == back


# --- the locks that are committed ----------------------------------------------------------------------------------

COMMITTED = sorted((ROOT / "profiles").glob("*.lock.toml"))


def test_every_profile_that_can_be_built_has_its_lock() -> None:
    names = [path.name.removesuffix(".lock.toml") for path in COMMITTED]
    starters = ["cpu-arm64", "cuda12", "cuda13", "cuda13-arm64", "mac", "mlx"]
    newest = ["cuda-swarm-0-7", "mac-swarm-0-7"]
    assert sorted(names) == sorted(["arm64", "cpu-swarm", "cpu", "cuda", "m4-upstream", "m4", *newest, *starters])


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.name)
def test_a_committed_lock_names_no_place(path: Any) -> None:
    text = path.read_text()
    assert "://" not in text
    assert not re.search(r"\b(pypi|pythonhosted|download\.pytorch|github|[a-z0-9-]+\.(org|com|io|net|dev))\b", text)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.name)
def test_a_committed_lock_has_one_file_for_each_package_and_every_one_fits_its_target(path: Any) -> None:
    from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename

    name = path.name.removesuffix(".lock.toml")
    catalogue = Catalogue([ROOT / "profiles"])
    profile = catalogue.profile(name)
    one = catalogue.plan(name).lock  # fresh, or this raises
    tags = set(profile.target.wheel_tags(profile.python.version))
    for group in (one.packages, one.build_requires):
        names = [package.name for package in group]
        assert names == sorted(set(names))
        for package in group:
            assert package.size > 0
            if package.is_wheel:
                project, version, _, files = parse_wheel_filename(package.file)
                assert files & tags
            else:
                project, version = parse_sdist_filename(package.file)
                assert package.name in profile.packages.build
            assert (project, str(version)) == (canonicalize_name(package.name), package.version)
    assert {package.name for package in one.packages if package.index} == set(profile.packages.index)
    assert [patch.file for patch in one.patches] == [patch.file for patch in profile.patches]
    assert {patch.package for patch in one.patches} <= one.versions().keys()


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.name)
def test_who_requires_a_package_is_in_the_lock_too(path: Any) -> None:
    one = parse(path.read_text(), str(path), path.name.removesuffix(".lock.toml"))
    assert {name for package in one.packages for name in package.required_by} <= {"profile", *one.versions()}
    assert all(package.required_by for package in one.packages)


def test_writing_a_committed_lock_again_changes_no_byte() -> None:
    for path in COMMITTED:
        text = path.read_text()
        assert dump(parse(text, str(path), path.name.removesuffix(".lock.toml"))) == text
