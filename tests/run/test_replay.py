"""`drydock replay`: a trainer run twice, and what it printed and saved compared."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.profile.variables.determinism import causes
from builder.run.replay.compare import compare
from tests.support import Sandbox
from tests.support.waiting import LONG, until

# Steps with a clock, a speed, and a place of its own; a random number from `odd` on; weights in the working directory.
STEPS = """
import os, pathlib, random, time
odd = {odd}
place = pathlib.Path('out'); place.mkdir(); print('in', place.absolute())
for step in range(1, 7):
    loss = random.random() if step >= odd else 1 / step
    print(f"{{time.time_ns() % 97}} s: step {{step}} loss={{loss}} {{time.time_ns() % 89}}.5 steps/s", flush=True)
    print(f"{{step}}/6 {{os.getpid()}}", end="\\r")
(place / 'model.safetensors').write_bytes({weights})
(place / 'training_args.bin').write_bytes(os.urandom(9))
"""


@pytest.fixture
def desk(built: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """The built desk; what it keeps of a replay comes into `tmp` of its own."""
    before = {*built.work.iterdir()}
    shutil.rmtree(built.root / "tmp", ignore_errors=True)
    (built.root / "tmp").mkdir()
    monkeypatch.setitem(built.environment, "TMPDIR", str(built.root / "tmp"))
    yield built
    for path in {*built.work.iterdir()} - before:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def kept(desk: Sandbox) -> list[Path]:
    return list((desk.root / "tmp").glob("drydock-replay-*"))


def test_losses_of_the_form_that_the_profile_names_are_compared() -> None:
    first, second = ([b"start %d\nppl 4.%d | step 3\n" % (number, number), b""] for number in (1, 2))
    patterns = {"perplexity": "ppl ([0-9.]+)"}
    found = compare(first, second, patterns=patterns)
    assert found.losses
    assert found.difference is not None
    assert (found.difference.step, found.difference.first, found.difference.second) == ("3", "ppl 4.1", "ppl 4.2")
    assert compare(first, first, patterns=patterns).compared == 1


def test_a_trainer_that_repeats_itself_is_the_same(desk: Sandbox) -> None:
    desk.trainer(STEPS.format(odd=99, weights="b'w'"))
    before = sorted(desk.work.iterdir())
    done = desk.drydock("replay", "small").succeeded()
    assert done.stdout == "the same, bit by bit as printed: 6 lines with a loss and 1 file of weights\n"
    assert not kept(desk)
    assert sorted(desk.work.iterdir()) == before
    into = desk.root / "both"
    found = json.loads(desk.drydock("replay", "small", "--json", "--into", str(into)).succeeded().stdout)
    assert found["same"]
    assert found["weights"] == ["out/model.safetensors"]
    assert (into / "1/out/model.safetensors").read_bytes() == (into / "2/out/model.safetensors").read_bytes()
    assert f"in {into}/run/out\n" in (into / "1.out").read_text()
    assert f"in {into}/run/out\n" in (into / "2.out").read_text()
    desk.drydock("replay", "small", "--into", str(into)).failed(2, "already exists")


def test_the_first_step_that_differs_is_named_with_what_may_cause_it(desk: Sandbox) -> None:
    desk.trainer(STEPS.format(odd=3, weights="os.urandom(4)"))
    done = desk.drydock("replay", "small")
    assert done.code == 1, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "different from step 3, line 3 of 6 lines with a loss"
    first, second = lines[1:3]
    assert first.startswith("  first: loss=0.")
    assert second.startswith("  second: loss=0.")
    assert lines[3] == "out/model.safetensors differs"
    assert any(line.startswith("  PYTHONHASHSEED: not set") for line in lines)
    (place,) = kept(desk)
    assert lines[-1] == f"both runs are in {place}"
    assert "step 3" in (place / "2.out").read_text()


def test_a_trainer_that_fails_is_that_and_no_difference(desk: Sandbox) -> None:
    desk.trainer("import sys; print('loss=1'); sys.exit('no data: hf_abcdefgh')")
    desk.drydock("replay", "small", env={"HF_TOKEN": "hf_abcdefgh"}).failed(
        1, "the first run ended with exit status 1: no data: [HF_TOKEN]", "1.out and .err"
    )
    once = desk.root / "once"
    desk.trainer(f"import os; print('loss=1'); os.path.exists({str(once)!r}) and os._exit(7); open({str(once)!r}, 'w')")
    desk.drydock("replay", "small").failed(7, "the second run ended with exit status 7")
    desk.trainer("pass")
    desk.drydock("replay", "small").failed(1, "there is nothing to compare")


def test_a_trainer_that_works_on_the_working_directory_runs_there(desk: Sandbox) -> None:
    desk.trainer("import pathlib, sys; print('read', pathlib.Path(sys.argv[1]).read_text())")
    (desk.work / "data.txt").write_text("seven")
    desk.drydock("replay", "small", "--", "data.txt").failed(1, "No such file", "working directory: --here")
    done = desk.drydock("replay", "small", "--here", "--", "data.txt").succeeded()
    assert done.stdout == "the same, bit by bit as printed: 1 line\n"
    assert f"both run in {desk.work}" in done.stderr
    path = desk.profile("small")
    path.write_text(path.read_text().partition("[trainer]")[0] + '[trainer]\ncommand = ["python", "show.py"]\n')
    (desk.work / "show.py").write_text("print('loss', 1.5)")
    done = desk.drydock("replay", "small").succeeded()
    assert f"both run in {desk.work}" in done.stderr
    assert "1 line with a loss" in done.stdout


def test_what_a_run_has_written_is_not_overwritten(desk: Sandbox) -> None:
    desk.trainer("import pathlib, sys; pathlib.Path(sys.argv[1]).write_bytes(b'new')")
    (desk.work / "best.pt").write_text("old")
    done = desk.drydock("replay", "small", "--", "best.pt").succeeded()
    assert done.stdout == "the same, bit by bit as printed: 1 file of weights\n"
    assert (desk.work / "best.pt").read_text() == "old"


def test_no_secret_is_in_what_is_shown(desk: Sandbox) -> None:
    desk.trainer("import os, time; print('with', os.environ['HF_TOKEN'], time.time_ns() % 10**9)")
    for words in ([], ["--json"]):
        done = desk.drydock("replay", "small", *words, env={"HF_TOKEN": "hf_abcdefgh"})
        assert done.code == 1
        assert "with [HF_TOKEN] " in done.stdout
        assert "hf_abcdefgh" not in done.stdout + done.stderr
    place = desk.root / "both"
    desk.trainer("import os, sys; print(os.environ['HF_TOKEN'], file=sys.stderr); sys.exit(sys.argv[1])")
    arguments = ("--into", str(place), "--", "x.token=hush-hush")
    assert desk.drydock("replay", "small", *arguments, env={"HF_TOKEN": "hf_abcdefgh"}).code == 1
    assert (place / "1.err").read_text() == "[HF_TOKEN]\nx.token=[X_TOKEN]\n"


@pytest.mark.slow
def test_an_interrupt_ends_the_trainer_and_leaves_nothing(desk: Sandbox) -> None:
    number = desk.root / "number"
    desk.trainer(
        f"import os, time, pathlib; pathlib.Path({str(number)!r}).write_text(str(os.getpid())); time.sleep(99)"
    )
    replay = desk.start("replay", "small")
    until(number.read_text)
    replay.send_signal(signal.SIGINT)
    assert b"interrupted" in replay.communicate(timeout=LONG)[1]
    assert replay.returncode == 130
    with pytest.raises(ProcessLookupError):
        os.kill(int(number.read_text()), 0)
    assert not kept(desk)


def test_a_recorded_run_is_replayed_with_its_code(desk: Sandbox) -> None:
    desk.trainer("import pathlib; print('loss', float(pathlib.Path('lr.txt').read_text()))")
    (desk.work / "lr.txt").write_text("2.5")
    (desk.work / "old.pt").write_text("of the code, and not saved by a run")
    for words in (
        ["init", "-q"],
        ["add", "lr.txt", "old.pt"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm1"],
    ):
        desk.run(["git", *words]).succeeded()
    records = desk.store.parent / "runs/.records"
    try:
        desk.drydock("run", "small", env={"DRYDOCK_RECORDS": "1"}).succeeded()
        until(lambda: '"seeds"' in next(records.glob("2*.json")).read_text())
        (desk.work / "lr.txt").unlink()
        into = desk.root / "again"
        done = desk.drydock("replay", "last", "--into", str(into)).succeeded()
        assert done.stdout == "the same, bit by bit as printed: 1 line with a loss\n"
        assert (into / "1.out").read_text() == "loss 2.5\n"
        desk.drydock("replay", "last", "--", "--lr", "1").failed(2, "its own arguments")
    finally:
        shutil.rmtree(records)


# --- pure --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "difference"),
    [
        (b"{'loss': 1.50, 'train_runtime': 2.1}", b"{'loss': 1.50, 'train_runtime': 3.9}", None),
        (b"{'loss': 1.5, 'grad_norm': 2.25}", b"{'loss': 1.5, 'grad_norm': 2.26}", (1, "grad_norm")),
        (b"loss 1.50", b"loss 1.5", (1, "loss 1.50")),
        (b"loss nan", b"loss 1.5", (1, "loss nan")),
        (b"loss 1\nloss 2", b"loss 1", (2, "loss 2")),
        (b"loss 1\nsaved in 3", b"loss 1\nsaved in 4", None),
        (b"reward 3", b"reward 4", (1, "reward 3")),
        (b"10:31:07 reward 3, 12 ms", b"10:31:09 reward 3, 19 ms", None),
        (b"\xff loss 1", b"\xff loss 1", None),
    ],
)
def test_numbers_are_compared_as_text_and_times_are_not(
    first: bytes, second: bytes, difference: tuple[int, str] | None
) -> None:
    found = compare([first, b""], [second, b"a warning"]).difference
    if difference is None:
        assert found is None
    else:
        assert found is not None
        assert found.line == difference[0]
        assert difference[1] in (found.first or "")
        assert found.first != found.second


def test_losses_on_stderr_are_compared_too() -> None:
    found = compare([b"start", b"step 4 loss 1.0"], [b"start", b"step 4 loss 1.1"]).difference
    assert found is not None
    assert (found.step, found.first, found.second) == ("4", "loss 1.0", "loss 1.1")


def test_causes_are_those_of_the_settings_and_the_target() -> None:
    def names(*packages: str, **more: object) -> list[str]:
        return [cause.name for cause in causes(packages=packages, **more)]  # type: ignore[arg-type]

    fixed = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "4", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    assert names(env=fixed, seeded=True) == []
    assert names(env={}, seeded=True) == ["PYTHONHASHSEED"]
    assert names("torch", env=fixed, seeded=True, accelerator="cpu") == []
    assert "CUBLAS_WORKSPACE_CONFIG" in names("torch", env={}, accelerator="cuda")
    assert "CUBLAS_WORKSPACE_CONFIG" not in names("torch", env=fixed, accelerator="cuda")
    assert "MPS" in names("torch", env=fixed, accelerator="mps")
    assert names("torch", env=fixed, detected=["OMP_NUM_THREADS"], seeded=True) == ["OMP_NUM_THREADS"]
    for cause in causes({}, packages=["torch"], accelerator="cuda"):
        assert cause.source, cause
