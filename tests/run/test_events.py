"""Losses in event files of TensorBoard: as the real writers have written them, and as they are damaged."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from builder.run.records import events
from tests.support import Sandbox

CAPTURED = Path(__file__).parent.parent / "captured"
NAME = "events.out.tfevents.1795733945.here.7.0"


def placed(folder: Path, captured: str, name: str = NAME) -> Path:
    """A captured event file where a trainer would have written it."""
    path = folder / "runs/one" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(CAPTURED / captured, path)
    return path


def test_scalars_of_the_real_writers_are_read(tmp_path: Path) -> None:
    placed(tmp_path, "tensorboardx.tfevents")
    assert events.logged(tmp_path, 0) == [("train/loss", value) for value in (2.5, 2.25, 2.0, 1.75, 1.5)]
    shutil.rmtree(tmp_path / "runs")
    placed(tmp_path, "torch.tfevents")
    found = events.logged(tmp_path, 0)
    assert [one.name for one in found] == ["Loss/train", "Loss/val", "Loss/double"] * 3
    for name, first in (("Loss/train", 1), ("Loss/val", 2), ("Loss/double", 3)):
        values = [one.value for one in found if one.name == name]
        assert values == pytest.approx([first, first / 2, first / 3])


def test_files_of_before_links_and_hidden_folders_are_not_read(tmp_path: Path) -> None:
    path = placed(tmp_path, "tensorboardx.tfevents")
    os.utime(path, (1000, 1000))
    assert events.logged(tmp_path, 1001) == []
    assert len(events.logged(tmp_path, 1000)) == 5
    path.with_name("events.out.tfevents.9.there").symlink_to(path)
    (tmp_path / ".cache").mkdir()
    shutil.copyfile(path, tmp_path / ".cache" / NAME)
    assert len(events.logged(tmp_path, 0)) == 5
    # A resumed trainer begins a file anew; they count in the order in which they were begun.
    placed(tmp_path, "torch.tfevents", "events.out.tfevents.1795733900.here.7.0")
    assert [one.name for one in events.logged(tmp_path, 0)][-1] == "train/loss"


def test_what_is_cut_off_or_damaged_costs_no_more_than_itself(tmp_path: Path) -> None:
    path = placed(tmp_path, "tensorboardx.tfevents")
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])  # a kill
    assert len(events.logged(tmp_path, 0)) in (4, 5)
    path.write_bytes(whole + (1 << 60).to_bytes(8, "little") + b"1234")
    assert len(events.logged(tmp_path, 0)) == 5
    chance = random.Random(7)
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 20)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged[: chance.randrange(len(damaged))])
        assert all(one.name.isprintable() for one in events.logged(tmp_path, 0))


def test_a_supervised_run_that_prints_no_loss_has_those_of_its_event_files(built: Sandbox) -> None:
    code = f"import pathlib, shutil\npath = pathlib.Path('tb/{NAME}')\npath.parent.mkdir()\n"
    code += f"shutil.copyfile({str(CAPTURED / 'tensorboardx.tfevents')!r}, path)\n"
    built.trainer(code)
    built.drydock("run", "small", "--supervise", env={"DRYDOCK_RECORDS": "1"}).succeeded()
    try:
        seen = built.drydock("runs", "show", "last").succeeded().stdout
        assert "train/loss:  2.5 -> 1.5, lowest 1.5, 5 printed" in seen
    finally:
        shutil.rmtree(built.work / "tb")


@pytest.mark.slow
def test_the_newest_writer_is_read(tmp_path: Path) -> None:
    """From its own wheel: the captured files are of one release."""
    uv = shutil.which("uv")
    assert uv is not None
    place = ["--target", str(tmp_path / "packages"), "--python-version", "3.11", "--only-binary", ":all:"]
    subprocess.run([uv, "pip", "install", "--quiet", *place, "tensorboardX"], check=True)
    code = "import sys, tensorboardX\nwriter = tensorboardX.SummaryWriter('tb')\n"
    code += "for step in range(4):\n    writer.add_scalar('val_loss', 4.0 - step, step)\nwriter.close()\n"
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "packages")}
    subprocess.run(["python3.11", "-c", code], cwd=tmp_path, env=env, check=True)
    assert events.logged(tmp_path, 0) == [("val_loss", value) for value in (4.0, 3.0, 2.0, 1.0)]
