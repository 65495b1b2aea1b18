"""`drydock lock --upgrade --prove`: an upgrade is kept where all holds with it, and else nothing has changed."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping

import pytest

from tests.support import Sandbox, make_wheel
from tests.support.alive import Mark
from tests.support.waiting import LONG, allowed

# Trains as the package says: its loss, pace and memory, and whether it reads its checkpoint. It saves every two steps.
TRAINER = """\
import pathlib, sys, time
import anchor
first, held = 1, bytearray(b"x") * (anchor.memory * 10**6)
if "--resume" in sys.argv and anchor.resumes:
    first = int(pathlib.Path(sys.argv[-1]).read_text()) + 1
pathlib.Path("out").mkdir(exist_ok=True)
for step in range(first, 9):
    time.sleep(anchor.pace)
    print("step", step, "loss", anchor.loss / step, flush=True)
    if step % 2 == 0:
        pathlib.Path(f"out/checkpoint-{step}").write_text(str(step))
"""
PARTS = """
[[checks]]
file = "proofs/whole.py"
why = "it was not, once"

[supervise]
resume = { flag = "--resume", newest = "out/checkpoint-*" }

[bench]
arguments = ["--quick"]
"""
PLAIN: Mapping[str, object] = {"loss": 4.0, "pace": 0.02, "memory": 60, "resumes": True, "whole": True}


def release(desk: Sandbox, version: str, **other: object) -> None:
    """A release of anchor with these properties."""
    told = {**PLAIN, "version": version, **other}
    text = "".join(f"{name} = {value!r}\n" for name, value in told.items())
    make_wheel(desk.wheels, "anchor", version, files={"anchor/__init__.py": text.replace("nan", "float('nan')")})


@pytest.fixture
def trained(sandbox: Sandbox) -> Sandbox:
    """A desk whose profile has a trainer that can be measured, locked with anchor 1.1."""
    release(sandbox, "1.1")
    sandbox.file("trainer.py", TRAINER)
    sandbox.file("proofs/whole.py", "import anchor\n\nassert anchor.whole, 'anchor is broken'\nprint('ok: whole')\n")
    command = 'command = ["python", "-c", "import anchor; print(\'trained with\', anchor.version)"]'
    profile = sandbox.profile("small", tail=PARTS)
    profile.write_text(profile.read_text().replace(command, 'file = "trainer.py"'))
    sandbox.drydock("lock", "small").succeeded()
    return sandbox


def files(desk: Sandbox) -> dict[str, bytes]:
    """All of the working directory, and which generation is the current one."""
    found = {str(path): path.read_bytes() for path in desk.work.rglob("*") if path.is_file()}
    profiles = desk.store.parent / "profiles"
    links = {str(path): os.fsencode(path.readlink()) for path in profiles.glob("*") if path.is_symlink()}
    return found | links


# A busy machine is not the fault of an upgrade.
PROVE = ("lock", "small", "--upgrade", "anchor", "--prove", "--limit", "speed=60%")


@pytest.mark.slow
def test_an_upgrade_that_holds_is_kept_and_reported(trained: Sandbox) -> None:
    trained.drydock("build", "small").succeeded()
    before = files(trained)
    release(trained, "1.2", loss=4.1)
    report = trained.root / "report.md"
    dry = trained.drydock(*PROVE, "--dry-run").succeeded()
    assert dry.stdout == "small: ~ anchor 1.1 -> 1.2\n"
    assert files(trained) == before
    done = trained.drydock(*PROVE, "--report", str(report)).succeeded()
    assert done.stdout == dry.stdout
    said = done.stderr.splitlines()
    assert any(
        re.fullmatch("ok   resume: (killed|ended), and went on from out/checkpoint-[248]", line) for line in said
    )
    assert "ok   loss: 1.02 (1.02 to 1.02) times the old one; allowed is at least 0.95 and at most 1.05" in said
    lock = str(trained.work / "profiles/small.lock.toml")
    after = files(trained)
    assert after.pop(lock) != before.pop(lock)
    assert after == before
    trained.drydock("lock", "small", "--check").succeeded()
    assert "small is built\n" in trained.drydock("build", "small").succeeded().stderr
    text = report.read_text()
    assert text.startswith(
        "## Upgrade of `small`: holds\n\n| proof | holds | found |\n| --- | --- | --- |\n| build | yes "
    )
    assert "| anchor | 1.1 (" in text
    assert "| training | " in text
    trained.drydock(*PROVE, "--report", str(report)).failed(2, "already exists")
    none = trained.drydock(*PROVE).succeeded()
    assert none.stdout == ""
    assert "nothing is newer" in none.stderr


SLOW = pytest.mark.slow
BROKEN = [
    pytest.param({"whole": False}, "verify: whole.py: AssertionError: anchor is broken", id="proof"),
    pytest.param({"resumes": False}, "it began anew, at step 1", id="resume"),
    pytest.param({"loss": float("nan")}, "loss: nan; it was 0.5", id="not-finite"),
    pytest.param(
        {"loss": 5.0}, "1.25 (1.25 to 1.25) times the old one; allowed is at least 0.95", id="loss", marks=SLOW
    ),
    pytest.param({"pace": 0.06}, "times the old one; allowed is at least 0.40", id="speed", marks=SLOW),
    pytest.param({"memory": 120}, "times the old one; allowed is at most 1.10", id="memory", marks=SLOW),
    pytest.param({"pace": "slow"}, "resume: it ended with exit status 1: TypeError: 'str' object", id="crash"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("other", "words"), BROKEN)
def test_an_upgrade_that_does_not_hold_changes_nothing(trained: Sandbox, other: dict[str, object], words: str) -> None:
    trained.drydock("build", "small").succeeded()
    before = files(trained)
    release(trained, "1.2", **other)
    report = trained.root / "report.md"
    done = trained.drydock(*PROVE, "--report", str(report))
    done.failed(1, "the upgrade of small does not hold", words, "nothing was changed")
    assert done.stdout == ""
    assert files(trained) == before
    assert "does not hold, and nothing was changed" in report.read_text()
    assert "| **no** |" in report.read_text()


@pytest.mark.slow
def test_limits_can_be_set(trained: Sandbox) -> None:
    release(trained, "1.2", loss=5.0, memory=120)
    trained.drydock(*PROVE, "--limit", "loss=30%", "--limit", "memory=200%").succeeded()
    trained.drydock(*PROVE, "--limit", "loss=30").failed(2, '"loss=30" is not a limit')
    for words in (["--limit", "loss=3%"], ["--report", "x.md"], ["other", "--prove"], ["--prove", "--check"]):
        trained.drydock("lock", "small", *words).failed(2, "--prove is for one profile")


def test_what_cannot_be_resolved_is_a_reason_too(trained: Sandbox) -> None:
    trained.profile("small", (trained.work / "profiles/small.toml").read_text())
    before = files(trained)
    make_wheel(trained.wheels, "anchor", "2.0", requires=["nowhere"])
    report = trained.root / "report.md"
    trained.drydock("lock", "small", "--upgrade-all", "--prove", "--report", str(report)).succeeded()
    assert "nothing is newer" in report.read_text()
    shutil.rmtree(trained.wheels)
    trained.wheels.mkdir()
    report.unlink()
    trained.drydock("lock", "small", "--upgrade-all", "--prove", "--report", str(report)).failed(1, "lock: ")
    assert "| lock | **no** | " in report.read_text()
    assert files(trained) == before


@pytest.mark.slow
def test_what_does_not_work_with_the_old_lock_is_no_fault_of_the_new_one(trained: Sandbox) -> None:
    proof = trained.work / "profiles/proofs/whole.py"
    proof.write_text("import anchor\n\nassert anchor.version > '1.1', 'never'\nprint('ok: new')\n")
    trained.drydock("lock", "small").succeeded()
    release(trained, "1.2")
    trained.drydock(*PROVE).failed(1, "the lock of small as it is cannot be verified: whole.py: AssertionError: never")


@pytest.mark.slow
def test_a_trainer_of_a_project_runs_in_a_copy_of_it(trained: Sandbox) -> None:
    profile = trained.work / "profiles/small.toml"
    profile.write_text(profile.read_text().replace('file = "trainer.py"', 'command = ["python", "train.py"]'))
    (trained.work / "train.py").write_text(TRAINER)
    trained.drydock("lock", "small").succeeded()
    release(trained, "1.2")
    trained.drydock(*PROVE, "--dry-run").failed(2, "git does not know which belong to it", "git init")
    trained.run(["git", "init", "-q"]).succeeded()
    before = files(trained)
    trained.drydock(*PROVE, "--dry-run").succeeded()
    assert files(trained) == before
    assert not (trained.work / "out").exists()


@pytest.mark.slow
def test_an_interrupt_ends_the_trainer_and_changes_nothing(trained: Sandbox) -> None:
    release(trained, "1.2", pace=60)
    before = files(trained)
    mark = Mark()
    proving = trained.start(*PROVE, env=mark.environment)
    assert proving.stderr is not None
    for line in proving.stderr:
        if b"one run of each" in line or b"resume" in line:
            break
    proving.terminate()
    proving.communicate(timeout=LONG)
    assert proving.returncode == 143
    assert not mark.gone(allowed(10))
    assert files(trained) == before


@pytest.mark.slow
def test_a_lock_that_changed_meanwhile_is_left_as_it_is(trained: Sandbox) -> None:
    release(trained, "1.2")
    lock = trained.work / "profiles/small.lock.toml"
    proving = trained.start(*PROVE)
    assert proving.stderr is not None
    for line in proving.stderr:
        if b"pair 1 of" in line:
            lock.write_text(lock.read_text() + "# mine\n")
            break
    said = proving.stderr.read()
    proving.communicate()
    assert b"the lock was changed while its upgrade was tried" in said
    assert lock.read_text().endswith("# mine\n")
