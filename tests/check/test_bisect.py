"""`drydock bisect`: the package, or the pair, between two locks that breaks a test."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from builder.check.bisect.search import search
from builder.check.bisect.sets import mixture, needs
from builder.embedded.hashes import sha256
from builder.lock.model import Artefact, Lock, LockedPatch, PatchedFile, dump
from tests.conftest import desk as make_desk
from tests.conftest import real_environment
from tests.support import Sandbox, make_wheel
from tests.support.alive import Mark
from tests.support.waiting import allowed, until

NAMES = [f"part-{number:02}" for number in range(1, 21)]
EVERY = {name: frozenset((name,)) for name in NAMES}


# --- the search ----------------------------------------------------------------------------------------------------


def counted(broken: Callable[[frozenset[str]], bool], rules: dict[str, frozenset[str]] = EVERY) -> tuple[Any, int]:
    """What the search finds, and in how many tests."""
    asked: set[frozenset[str]] = set()

    def ask(chosen: frozenset[str]) -> Any:
        asked.add(chosen)
        return "fail" if broken(chosen) else "pass"

    found = search(rules, ask)
    return frozenset[str]().union(*found.culprits), len(asked)


def test_one_of_twenty_is_found_in_six_tests_and_a_pair_in_twelve() -> None:
    for name in NAMES:
        culprits, tests = counted(frozenset((name,)).issubset)
        assert culprits == {name}
        assert tests <= 6
    for pair in itertools.combinations(NAMES, 2):
        culprits, tests = counted(frozenset(pair).issubset)
        assert culprits == set(pair)
        assert tests <= 12


@given(
    rules=st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), max_size=30),
    broken=st.sets(st.sampled_from(NAMES), min_size=1, max_size=4),
)
def test_every_set_that_is_tried_fits_and_what_is_found_fails_alone(
    rules: list[tuple[str, str]], broken: set[str]
) -> None:
    reached = {name: {name} for name in NAMES}
    for _ in NAMES:
        for one, other in rules:
            for found in reached.values():
                if one in found:
                    found.add(other)
    closed = {name: frozenset(found) for name, found in reached.items()}

    def ask(chosen: frozenset[str]) -> Any:
        assert all(closed[name] <= chosen for name in chosen)
        return "fail" if chosen >= broken else "pass"

    result = search(closed, ask)
    assert result.failing >= broken
    assert not result.passing >= broken
    assert result.failing == frozenset[str]().union(*(closed[name] for group in result.culprits for name in group))
    assert result.failing == frozenset[str]().union(*(closed[name] for name in broken))


def test_what_cannot_be_tested_is_passed_over_and_named_where_it_hides_the_culprit() -> None:
    def ask(chosen: frozenset[str]) -> Any:
        if len(chosen) in (7, 8):
            return "skip"
        return "fail" if "part-08" in chosen else "pass"

    found = search(EVERY, ask)
    assert found.culprits == (frozenset(("part-07", "part-08", "part-09")),)


def lock_of(**versions: str) -> Lock:
    def artefact(name: str, version: str) -> Artefact:
        file = f"{name}-{version}-py3-none-any.whl"
        return Artefact(name=name, version=version, file=file, size=1, sha256=sha256(file.encode()))

    packages = [artefact(name, version) for name, version in versions.items()]
    return Lock(schema_=1, profile="small", digest="", uv=artefact("uv", "1"), packages=packages)


def test_packages_that_need_each_other_change_together() -> None:
    old, new = lock_of(a="1", b="1", c="1", d="1"), lock_of(a="2", b="2", c="2", d="2", e="1")
    requires = {
        "old": {"a": ["b"], "b": ["a<2", "c"], "d": ["c; extra == 'all'"]},
        "new": {"a": ["b>=2"], "c": ["e"], "d": ["c>=2; extra == 'all'", "a>=2; sys_platform == 'win32'"]},
    }
    sides = [{name: [Requirement(one) for one in some] for name, some in side.items()} for side in requires.values()]
    mixed = mixture(old, new)
    assert mixed.names == ("a", "b", "c", "d", "e")
    plain = needs(mixed, sides[0], sides[1], [], {"sys_platform": "linux"})
    assert plain == {name: frozenset(all_) for name, all_ in zip("abcde", ("ab", "b", "ce", "d", "e"), strict=True)}
    extra = needs(mixed, sides[0], sides[1], [Requirement("d[all]")], {"sys_platform": "linux"})
    assert extra["d"] == frozenset("dce")
    chosen = mixed.lock({"a", "b"})
    assert chosen.versions() == {"a": "2", "b": "2", "c": "1", "d": "1"}


def test_a_patch_goes_with_the_package_that_it_is_for() -> None:
    digest = "0" * 64
    old, new = (
        lock_of(a=version, b=version).model_copy(
            update={
                "patches": [
                    LockedPatch(
                        package=package,
                        file=f"patches/{package}-{version}.patch",
                        sha256=digest,
                        files=[PatchedFile(path="x.py", preimage=digest, postimage=digest)],
                    )
                    for package in packages
                ]
            }
        )
        for version, packages in (("1", "ab"), ("2", "b"))
    )
    mixed = mixture(old, new)
    pinned = {tuple(chosen): [pin.file for pin in mixed.lock(chosen).patches] for chosen in ("", "a", "b", "ab")}
    assert pinned == {
        (): ["patches/a-1.patch", "patches/b-1.patch"],
        ("a",): ["patches/b-1.patch"],
        ("b",): ["patches/a-1.patch", "patches/b-2.patch"],
        ("a", "b"): ["patches/b-2.patch"],
    }
    assert dump(mixed.lock(())) == dump(old.model_copy(update={"profile": "small"}))


# --- real environments ---------------------------------------------------------------------------------------------


PROFILE = """\
schema = 1
name = "parts"
[target]
platform = "linux-x86_64"
accelerator = "cpu"
glibc = "2.17"
[python]
version = "3.11"
[packages]
requires = [{requires}]
[trainer]
command = ["python", "-c", "pass"]
"""


def newer(*names: str) -> list[str]:
    """A test that fails where all of these are new."""
    modules = [name.replace("-", "_") for name in names]
    code = f"import {', '.join(modules)}; bad = all(one.version == '2.0' for one in [{', '.join(modules)}])"
    return ["python", "-c", f"{code}; print('loss is nan' if bad else 'fine'); raise SystemExit(bad)"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, uv_cache: Path) -> Iterator[Sandbox]:
    """A desk where two locks differ in twenty packages: old.lock.toml is the older one, in the first commit too."""
    with make_desk(tmp_path_factory.mktemp("parts"), uv_cache) as desk:
        for name in NAMES:
            make_wheel(desk.wheels, name, "1.0")
        desk.profile("parts", PROFILE.format(requires=", ".join(f'"{name}"' for name in NAMES)))
        desk.drydock("lock", "parts").succeeded()
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
        desk.run(["git", "init", "-q"]).succeeded()
        desk.run([*git, "add", "profiles"]).succeeded()
        desk.run([*git, "commit", "-qm1"]).succeeded()
        shutil.copy(desk.work / "profiles/parts.lock.toml", desk.work / "old.lock.toml")
        for name in NAMES:
            make_wheel(desk.wheels, name, "2.0")
        desk.drydock("lock", "parts", "--upgrade-all").succeeded()
        desk.run([*git, "commit", "-qam2"]).succeeded()
        yield desk


def begun(desk: Sandbox) -> list[Path]:
    return list((desk.store.parent / "cache/bisect").glob("*"))


@pytest.mark.slow
@pytest.mark.parametrize("culprits", [("part-01",), ("part-20",), ("part-13",), ("part-04", "part-17")])
def test_the_culprits_among_twenty_packages_are_found(parts: Sandbox, culprits: tuple[str, ...]) -> None:
    for path in parts.store.iterdir() if parts.store.is_dir() else ():
        parts.remove(path.name)
    before = (parts.work / "profiles/parts.lock.toml").read_bytes()
    done = parts.drydock("bisect", "parts", "--good", "HEAD~1", "--json", "--", *newer(*culprits)).succeeded()
    found = json.loads(done.stdout)
    assert sorted(one["name"] for group in found["culprits"] for one in group) == list(culprits)
    assert found["changed"] == 20
    assert found["words"] == "loss is nan"
    # The two ends are built besides.
    assert found["builds"] == len(parts.environments()) - 2
    assert found["builds"] <= (6 if len(culprits) == 1 else 12)
    assert not begun(parts)
    assert (parts.work / "profiles/parts.lock.toml").read_bytes() == before
    assert not (parts.store.parent / "profiles").exists()


@pytest.mark.slow
def test_ends_are_files_too_and_a_repair_is_found_as_a_fault_is(parts: Sandbox) -> None:
    test = ["python", "-c", "import part_02, sys; sys.exit('too old' if part_02.version == '1.0' else 0)"]
    done = parts.drydock("bisect", "parts", "--good", "parts", "--bad", "old.lock.toml", "--", *test).succeeded()
    assert done.stdout == "broken by: ~ part-02 2.0 -> 1.0\nthe test then says: too old\n"
    assert "20 differences: " in done.stderr


def written(desk: Sandbox, text: str) -> list[str]:
    """A test as a program of sh: `is_new NAME` says whether that is new, and `log` has a line for each run."""
    path = desk.work / "test.sh"
    path.write_text(
        'is_new() { [ -d "$(echo "$VIRTUAL_ENV"/lib/python*/site-packages/part_"$1"-2.0.dist-info)" ]; }\n'
        f'echo "$VIRTUAL_ENV" >>{desk.work}/log\n{text}\n'
    )
    (desk.work / "log").unlink(missing_ok=True)
    return ["sh", "test.sh"]


def runs(desk: Sandbox) -> list[str]:
    path = desk.work / "log"
    return path.read_text().splitlines() if path.is_file() else []


COMMAND = ("bisect", "parts", "--good", "HEAD~1", "--bad", "HEAD:parts")


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on(parts: Sandbox) -> None:
    whole = written(parts, "if is_new 09; then exit 3; fi")
    said = parts.drydock(*COMMAND, "--", *whole).succeeded().stdout
    needed = len(runs(parts))
    assert said == "broken by: ~ part-09 1.0 -> 2.0\nthe test then says: exit status 3, and no output\n"
    for words in ([], ["--reset"]):
        test = written(parts, 'sleep "${PAUSE-0}"; if is_new 09; then exit 3; fi')
        search = parts.start(*COMMAND, "--", *test, env={"PAUSE": "0.2"})
        until(lambda: len(runs(parts)) >= 7)
        search.send_signal(signal.SIGKILL)
        search.communicate()
        assert len(begun(parts)) == 1
        killed = len(runs(parts))
        again = parts.drydock(*COMMAND, *words, "--", *test).succeeded()
        assert again.stdout == said
        if words:
            assert len(runs(parts)) == killed + needed
        else:
            assert "going on with 4 answers from before" in again.stderr
            # The one that was cut off runs again.
            assert len(runs(parts)) == needed + 1
        assert not begun(parts)


@pytest.mark.slow
def test_a_flaky_test_is_found_and_said(parts: Sandbox) -> None:
    once = f"[ -e {parts.work}/$(basename $VIRTUAL_ENV) ] || {{ touch {parts.work}/$(basename $VIRTUAL_ENV); exit 4; }}"
    test = written(parts, once)
    parts.drydock(*COMMAND, "--", *test).failed(
        1, "the test is flaky: with HEAD~1 it says fail, and then pass (exit status 4, and no output;"
    )
    # The two ends are as they should be, and what is found between them is not.
    test = written(parts, f"is_new 05 || exit 0; if is_new 01 && is_new 20; then exit 1; fi; {once}")
    parts.drydock(*COMMAND, "--", *test).failed(1, "the test is flaky: with 1 change of part-05 it says fail, and then")
    # One that is so only now and then.
    runs = f"{parts.work}/runs-$(basename $VIRTUAL_ENV)"
    thrice = f"echo >>{runs}; [ $(wc -l <{runs}) -gt 2 ] || exit 4"
    test = written(parts, f"is_new 05 || exit 0; if is_new 01 && is_new 20; then exit 1; fi; {thrice}")
    parts.drydock(*COMMAND, "--", *test).failed(1, "the test is flaky: with 1 change of part-05 it says fail, and then")
    assert not begun(parts)


@pytest.mark.slow
def test_a_test_that_never_ends_fails_and_leaves_nothing(parts: Sandbox) -> None:
    mark = Mark()
    test = written(parts, "if is_new 03; then sleep 600 & wait; fi")
    done = parts.drydock(*COMMAND, "--timeout", "2", "--", *test, env=mark.environment).succeeded()
    assert done.stdout == "broken by: ~ part-03 1.0 -> 2.0\nthe test then says: it did not end within 2 s\n"
    assert not mark.gone(allowed(5))
    always = written(parts, "sleep 600")
    parts.drydock(*COMMAND, "--timeout", "1", "--", *always).failed(
        1, "the test fails with the good lock, HEAD~1: it did not end within 1 s"
    )


@pytest.mark.slow
def test_what_a_test_cannot_tell_is_passed_over(parts: Sandbox) -> None:
    test = written(parts, "is_new 06 && is_new 07 || ! is_new 06 || exit 125; if is_new 07; then exit 1; fi")
    done = parts.drydock(*COMMAND, "--", *test).succeeded()
    assert done.stdout.splitlines()[:3] == [
        "broken by one of:",
        "  ~ part-06 1.0 -> 2.0",
        "  ~ part-07 1.0 -> 2.0",
    ]


@pytest.mark.slow
def test_ends_that_do_not_differ_or_are_the_wrong_way_round_are_an_error(parts: Sandbox) -> None:
    test = newer("part-01")
    parts.drydock("bisect", "parts", "--good", "parts", "--", *test).failed(2, "have the same packages")
    parts.drydock("bisect", "parts", "--good", "parts", "--bad", "old.lock.toml", "--", *test).failed(
        1, "the test fails with the good lock, parts: loss is nan", "it must pass with --good and fail with --bad"
    )
    parts.drydock("bisect", "parts", "--good", "HEAD~1", "--", "true").failed(1, "the test passes with the bad lock")
    parts.drydock("bisect", "parts", "--good", "HEAD~9", "--", "true").failed(1, "there is no HEAD~9:parts")
    parts.drydock("bisect", "parts", "--good", "nowhere.toml", "--", "true").failed(1, "nowhere.toml")
    other = parts.work / "other.lock.toml"
    parts.profile("other", PROFILE.format(requires='"part-01"').replace("parts", "other"))
    parts.drydock("lock", "other").succeeded()
    shutil.copy(parts.work / "profiles/other.lock.toml", other)
    parts.drydock("bisect", "parts", "--good", str(other), "--", "true").failed(1, "is the lock of other, and not of")
    # A profile that does not have its proofs to break: what verify says is good at both ends.
    parts.drydock("bisect", "parts", "--good", "HEAD~1").failed(1, "the test passes with the bad lock, parts: all")


@pytest.mark.slow
def test_packages_that_need_each_other_are_tried_together_and_proofs_are_a_test(sandbox: Sandbox) -> None:
    """plugin 2.0 wants base 2.0, and base 2.0 does not go with plugin 1.0; extra comes with base 2.0."""
    make_wheel(sandbox.wheels, "base", "1.0")
    make_wheel(sandbox.wheels, "plugin", "1.0", requires=["base<2"])
    make_wheel(sandbox.wheels, "lone", "1.0")
    proof = "import base, sys; sys.exit('base is broken' if base.version == '2.0' else 0)\n"
    sandbox.file("proofs/base.py", proof)
    checks = '[[checks]]\nfile = "proofs/base.py"\nwhy = "it broke once"\n'
    sandbox.profile("parts", PROFILE.format(requires='"plugin", "lone"') + checks)
    sandbox.drydock("lock", "parts").succeeded()
    lock = sandbox.work / "profiles/parts.lock.toml"
    shutil.copy(lock, sandbox.work / "old.lock.toml")
    make_wheel(sandbox.wheels, "extra", "1.0")
    make_wheel(sandbox.wheels, "base", "2.0", requires=["extra"])
    make_wheel(sandbox.wheels, "plugin", "2.0", requires=["base>=2"])
    make_wheel(sandbox.wheels, "lone", "2.0")
    sandbox.drydock("lock", "parts", "--upgrade-all").succeeded()
    done = sandbox.drydock("bisect", "parts", "--good", "old.lock.toml").succeeded()
    assert done.stdout.splitlines() == [
        "broken by one of:",
        "  ~ base 1.0 -> 2.0",
        "  ~ plugin 1.0 -> 2.0",
        "  which needs: + extra 1.0",
        "the test then says: base.py: base is broken",
    ]


# --- what happened -------------------------------------------------------------------------------------------------

EMPTY_LOADER = """\
from accelerate import Accelerator
from torch.utils.data import DataLoader

print(list(Accelerator(cpu=True).prepare(DataLoader([], batch_size=2))))
"""
TRAINS = """\
import tempfile

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=16, n_positions=8))
rows = [{"input_ids": torch.zeros(4, dtype=torch.long), "labels": torch.zeros(4, dtype=torch.long)}] * 4
with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(folder, max_steps=1, use_cpu=True, report_to=[], save_strategy="no")
    Trainer(model, arguments, train_dataset=rows).train()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("good", "bad", "program", "culprits", "words"),
    [
        (
            ("accelerate==1.9.0", "transformers==4.53.0"),
            ("accelerate==1.8.1", "transformers==4.52.4"),
            EMPTY_LOADER,
            ["accelerate"],
            "UnboundLocalError: cannot access local variable 'current_batch'",
        ),
        (
            ("accelerate==1.3.0", "transformers==4.48.3"),
            ("accelerate==1.1.1", "transformers==4.52.4"),
            TRAINS,
            ["accelerate", "transformers"],
            "unwrap_model() got an unexpected keyword argument 'keep_torch_compile'",
        ),
    ],
)
def test_the_seeds_own_faults_are_found(
    good: tuple[str, ...],
    bad: tuple[str, ...],
    program: str,
    culprits: list[str],
    words: str,
    tmp_path: Path,
    drydock_home: Path,
    cpu_env: Path,
) -> None:
    """accelerate before 1.9.0 and the empty loader; transformers 4.52 with accelerate 1.1.1, which fail together.

    In the store of `cpu`, which has unpacked and compiled the same torch.
    """
    assert cpu_env.is_dir()
    text = """\
schema = 1
name = "seed"
[target]
platform = "linux-x86_64"
accelerator = "cpu"
glibc = "2.28"
[python]
version = "3.11"
[packages]
requires = {requires}
exclude-newer = "{day}"
exclude-newer-index = {{ pytorch-cpu = false }}
index = {{ torch = "pytorch-cpu" }}
[indexes]
pytorch-cpu = "https://download.pytorch.org/whl/cpu"
[trainer]
command = ["python", "-c", "pass"]
"""
    (tmp_path / "profiles").mkdir()
    (tmp_path / "test.py").write_text(program)
    environment = {**real_environment(), "DRYDOCK_HOME": str(drydock_home), "DRYDOCK_RECORDS": "0"}
    del environment["DRYDOCK_PROFILES"]

    def drydock(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "builder", *words]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)

    for requires, day, name in ((bad, "2025-07-15", "bad"), (good, "2025-08-01", "good")):
        wanted = json.dumps(["torch==2.13.0+cpu", *requires])
        (tmp_path / "profiles/seed.toml").write_text(text.format(requires=wanted, day=day))
        done = drydock("lock", "seed", "--upgrade-all")
        assert done.returncode == 0, done.stderr
        shutil.copy(tmp_path / "profiles/seed.lock.toml", tmp_path / f"{name}.lock.toml")
    test = ["python", "test.py"]
    done = drydock("bisect", "seed", "--good", "good.lock.toml", "--bad", "bad.lock.toml", "--json", "--", *test)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert sorted(one["name"] for group in found["culprits"] for one in group) == culprits
    assert words in found["words"]
    assert found["changed"] > len(culprits)
