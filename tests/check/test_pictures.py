"""Pictures: in characters for a terminal, and as SVG files."""

from __future__ import annotations

import io
import os
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from builder.check.bench.compare import Comparison, Measure
from builder.check.pictures import svg
from builder.check.pictures.plot import Curve, Plot, Ratio, plots, together
from builder.check.pictures.terminal import ASCII, UNICODE, Marks, bar, curves, intervals
from builder.cli import bench, cli
from builder.cli.pictures import show_changes, show_tree
from builder.lock.diff import Side, compare
from builder.lock.tree import Branch
from builder.store.usage import Total, Usage
from tests.support import Sandbox
from tests.support.terminal import on_terminal

FALLING = [(float(step), 4.0 / step) for step in range(1, 101)]
RISING = [(float(step), step / 25) for step in range(1, 51)]
LOSS = Plot("loss", [Curve("loss", FALLING)], ("1", "printed 100 times"))
BOTH = Plot("loss", [Curve("one", FALLING), Curve("other", RISING)], ("1", "printed 100 times"))
RATIOS = [Ratio("start-up", 0.5, 0.4, 0.6, (0.4, 0.5, 0.6), "50% less"), Ratio("memory", 1.0, 0.9, 1.1, (0.9, 1.1), "")]
EVIL = "</svg><script>\x1b[2J&\ud800"
SVG = "{http://www.w3.org/2000/svg}"
DRYDOCK = [sys.executable, "-m", "builder"]
_SGR = re.compile("\x1b\\[[0-9;]*m")


class Terminal(io.StringIO):
    """A terminal with an encoding."""

    def __init__(self, encoding: str) -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return True


def screen(
    patch: pytest.MonkeyPatch, arguments: list[str], *, columns: int = 80, encoding: str = "utf-8", **env: str
) -> str:
    """What a command draws on a terminal, in this process."""
    terminal = Terminal(encoding)
    with patch.context() as now:
        for name in ("NO_COLOR", "FORCE_COLOR"):
            now.delenv(name, raising=False)
        for name, value in {"COLUMNS": str(columns), "TERM": "dumb", **env}.items():
            now.setenv(name, value)
        now.setattr(sys, "stdout", terminal)
        cli.main(arguments, standalone_mode=False)
    return terminal.getvalue()


# --- in characters -------------------------------------------------------------------------------------------------


def test_a_falling_curve_falls_from_its_highest_number_to_its_lowest() -> None:
    lines = curves(LOSS._replace(lines=5), 40, ASCII, is_coloured=False)
    assert lines == [
        "loss",
        "   4 +*",
        "     |*",
        "2.02 +*",
        "     | **",
        "0.04 +  *******************************",
        "     +---------------------------------",
        "      1               printed 100 times",
    ]


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize("marks", [ASCII, UNICODE], ids=["ascii", "unicode"])
def test_a_plot_fits_and_colour_changes_no_character(width: int, marks: Marks) -> None:
    plain = curves(BOTH, width, marks, is_coloured=False)
    assert max(map(len, plain)) <= width
    assert len(plain) == 1 + 8 + 2
    assert [_SGR.sub("", line) for line in curves(BOTH, width, marks, is_coloured=True)] == plain
    assert all(line.isascii() for line in plain) or marks is UNICODE


def test_two_curves_are_told_apart_without_colour() -> None:
    legend, *rest = curves(BOTH, 60, ASCII, is_coloured=False)
    assert legend == "loss  *** one  ooo other"
    assert {"*", "o"} <= set("".join(rest))
    legend, _, *rest = curves(BOTH, 60, UNICODE, is_coloured=False)
    assert legend == "loss  ─── one  ╌╌╌ other"
    alone = curves(Plot("loss", BOTH.curves[1:], ("", "")), 60, UNICODE, is_coloured=False)
    dots = [
        sum((ord(one) - 0x2800).bit_count() for one in "".join(lines) if ord(one) >= 0x2800) for lines in (rest, alone)
    ]
    assert dots[0] < dots[1] + dots[1] / 2, "the second curve has gaps"


def test_a_flat_curve_and_one_of_two_points_are_drawn() -> None:
    flat = Plot("loss", [Curve("", [(1, 2.0), (2, 2.0)])], ("1", "2"))
    assert any("*" * 20 in line for line in curves(flat, 40, ASCII, is_coloured=False))
    assert svg.document("flat", "", [svg.plot(flat)])


def test_intervals_stand_where_their_ratios_are() -> None:
    axis, startup, memory = intervals(RATIOS, 60, ASCII)
    assert axis.split() == ["0.5", "0.75", "1", "1.33"]
    assert startup.index("o") in range(axis.index("0.5"), axis.index("0.5") + 3)
    assert memory.rindex("o") == axis.index(" 1 ") + 1 == startup.index("|")
    assert "=" in startup
    assert max(map(len, (axis, startup, memory))) <= 60


@pytest.mark.parametrize(
    ("own", "whole", "most", "drawn"), [(0, 0, 9, ""), (9, 9, 9, "########"), (1, 900, 900, "#.......")]
)
def test_a_bar_is_as_long_as_its_share(own: int, whole: int, most: int, drawn: str) -> None:
    assert bar(own, whole, most, 8, ASCII) == drawn


# --- of runs -------------------------------------------------------------------------------------------------------


def run(number: str, curve: list[list[object]], use: list[list[object]]) -> dict[str, object]:
    return {"id": number, "curves": {"loss": curve}, "use": use, "losses": {"loss": {"count": 1 + len(curve)}}}


def test_plots_of_runs_leave_out_what_is_no_curve() -> None:
    good = run("a", [[1, 2.0], [2, 1.0]], [[10.0, 1.5, 2e9], [20.0, 1.5, 3e9]])
    assert [(one.title, one.curves[0].points) for one in plots(good, "10 s")] == [
        ("loss", [(1, 2.0), (2, 1.0)]),
        ("memory, MB", [(10.0, 2000.0), (20.0, 3000.0)]),
        ("cores in use", [(10.0, 1.5), (20.0, 1.5)]),
    ]
    assert plots(good, "10 s")[0].ends == ("1", "printed 3 times"), "a curve leaves out some of its numbers"
    assert plots(run("a", [["x", 1], [1, "x"], [2]], []), "") == []
    wild = plots(run("a", [[1, 1e308], [2, 1e299], [3, float("inf")], [4, -1e299], [5, 10**400]], []), "")
    assert [one.curves[0].points for one in wild] == [[(2, 1e299), (4, -1e299)]]
    assert curves(wild[0], 60, UNICODE, is_coloured=False)
    assert svg.plot(wild[0])
    longer = run("b", [[1, 2.0], [9, 1.0]], [])
    assert [(one.title, len(one.curves), one.ends) for one in together(good, longer)] == [
        ("loss", 2, ("1", "printed 9 times"))
    ]
    assert together(good, {"id": "c", "curves": {}, "use": [], "losses": {}}) == []


# --- as SVG --------------------------------------------------------------------------------------------------------


def every_form() -> Iterator[svg.Part]:
    yield svg.tree(Branch(EVIL, [Branch("a 1", [Branch("c 1", kind="found")]), Branch("b 1")], "head"))
    yield svg.plot(BOTH)
    yield svg.bars([svg.Bar(EVIL, 1, 2, "2 MB"), svg.Bar("other", 0, 1, "1 MB")], "its own", "shared")
    yield svg.ratios(RATIOS)


def test_a_picture_is_for_both_schemes_for_a_phone_and_for_those_who_hear_it() -> None:
    text = svg.document(EVIL, f"said: {EVIL}", list(every_form()))
    root = ElementTree.fromstring(text)
    named = {part.attrib["id"]: part.text for part in root if part.tag in (f"{SVG}title", f"{SVG}desc")}
    assert all(named[name] for name in root.attrib["aria-labelledby"].split())
    assert "prefers-color-scheme: dark" in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"@font-face|@import|url\(|href|<script|<image", text)
    narrow = ElementTree.fromstring(svg.document("a", "b", [svg.plot(BOTH), svg.ratios(RATIOS)]))
    assert 14 * 360 / float(narrow.attrib["width"]) >= 10, "on a phone"


def test_what_is_drawn_stays_within_the_picture() -> None:
    root = ElementTree.fromstring(svg.document("a", "b", list(every_form())))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for group in root.iter(f"{SVG}g"):
        for point in group.iter(f"{SVG}polyline"):
            assert all(0 <= float(x) <= width - 32 for x in re.findall(r"([\d.]+),", point.attrib["points"]))
    tops = [float(group.attrib["transform"].split()[1][:-1]) for group in root.findall(f"{SVG}g")]
    assert tops == sorted(tops)
    assert tops[-1] < height


# --- of commands ---------------------------------------------------------------------------------------------------


@pytest.fixture
def here(built: Sandbox, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in built.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(built.work)
    return monkeypatch


def test_why_is_a_tree_on_a_terminal_and_paths_in_a_pipe(here: pytest.MonkeyPatch) -> None:
    assert screen(here, ["why", "small", "anchor"]) == "anchor 1.0: 1 path from small\nsmall\n└── anchor 1.0\n"
    assert screen(here, ["why", "small", "anchor"], encoding="ascii").endswith("\n`-- anchor 1.0\n")
    coloured = screen(here, ["why", "small", "anchor"], FORCE_COLOR="1")
    assert "\x1b[1;32manchor 1.0\x1b[0m" in coloured
    told = CliRunner().invoke(cli, ["why", "small", "anchor"]).stdout
    assert told == "anchor 1.0: 1 path from small\n  small -> anchor 1.0\n"


def test_the_store_has_bars_and_a_name_without_room_beside_stands_below(here: pytest.MonkeyPatch) -> None:
    sizes = [Usage(f"{'k' * 32}-small", 22, 300_000_000, 100_000_000), Usage(f"{'j' * 32}-m4", 9, 150_000_000, 0)]
    here.setattr("builder.store.usage.usage", lambda: Total(sizes, 0, 0, 450_000_000, 350_000_000))
    first, big, small, *_ = screen(here, ["store", "du"], columns=100).splitlines()
    assert first.split() == ["SIZE", "OWN", "FILES", "█", "OWN", "░", "SHARED", "ENVIRONMENT"]
    assert (big.count("█"), big.count("░")) == (11, 21)
    assert (small.count("█"), small.count("░")) == (0, 16)
    assert "#" in screen(here, ["store", "du"], columns=100, encoding="ascii")
    narrow = screen(here, ["store", "du"], columns=60)
    assert narrow.splitlines()[2].endswith("█" * 11 + "░" * 21)
    assert narrow.splitlines()[3] == f"    {'k' * 32}-small"
    assert "█" not in screen(here, ["store", "du"], columns=40)
    assert max(map(len, narrow.splitlines())) < 60
    assert "█" not in CliRunner().invoke(cli, ["store", "du"]).stdout


def test_changes_have_their_sign_in_words_and_in_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    def wheel(version: str, tag: str, size: int) -> dict[str, object]:
        return {"version": version, "file": f"a-{version}-{tag}.whl", "sha256": tag, "size": size}

    old = {"a": wheel("1", "py3-none-any", 10_000), "b": wheel("1", "cp311-cp311-macosx_11_0_arm64", 500)}
    new = {"b": wheel("1", "cp311-cp311-linux_x86_64.any", 2_000_500), "c": wheel("2", "py3-none-any", 999)}
    found = compare(Side("old", "lock", {"packages": old}), Side("new", "lock", {"packages": new}))
    for name, mark in (("NO_COLOR", "+"), ("FORCE_COLOR", "\x1b[32m+\x1b[0m")):
        terminal = Terminal("utf-8")
        with monkeypatch.context() as now:
            now.delenv("NO_COLOR", raising=False)
            now.setenv(name, "1")
            now.setenv("COLUMNS", "80")
            now.setattr(sys, "stdout", terminal)
            show_changes(found.head, found.blocks())
        assert f"{mark} c    +999 B  2\n" in terminal.getvalue()
    assert _SGR.sub("", terminal.getvalue()).splitlines()[2:] == [
        "  - a  -10.0 kB  1",
        "  ~ b   +2.0 MB  1: macosx_11_0_arm64 -> linux_x86_64",
        "  + c    +999 B  2",
    ]


def test_a_tree_shows_nothing_that_could_steer_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal("utf-8")
    monkeypatch.setattr(sys, "stdout", terminal)
    show_tree(Branch("a\x1b[2J"))
    assert "\x1b[2J" not in terminal.getvalue()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["why", "small", "anchor"], ["small", "anchor 1.0"]),
        (["tree", "small"], ["small", "anchor 1.0"]),
        (["diff", "small", "small"], ["small and small: no difference"]),
        (["store", "du"], ["its own", "shared"]),
    ],
    ids=lambda value: value[0],
)
def test_one_option_draws_them_all(
    arguments: list[str], words: list[str], here: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "x.svg"
    done = CliRunner().invoke(cli, [*arguments, "--svg", str(path)], catch_exceptions=False)
    assert f"drawn: {path}" in done.stderr
    assert done.stdout
    texts = [one.text for one in ElementTree.parse(path).iter(f"{SVG}text")]
    assert all(word in texts for word in words), texts
    again = CliRunner().invoke(cli, [*arguments, "--svg", str(path)])
    assert "x.svg already exists" in str(again.exception)
    assert os.listdir(tmp_path) == ["x.svg"]


def test_a_measurement_has_its_intervals_below_the_table_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    measures = (Measure("start-up", "s", (1.0,) * 5, (2.0,) * 5), Measure("peak memory", "MB", (9.0,) * 5, (9.0,) * 5))
    found, terminal, pipe = Comparison("small", "plain", 5, 2, 0.0, measures), Terminal("utf-8"), io.StringIO()
    monkeypatch.setenv("COLUMNS", "60")
    for stream in (terminal, pipe):
        monkeypatch.setattr(sys, "stdout", stream)
        bench._show(found)
    assert "●" in terminal.getvalue()
    assert max(map(len, terminal.getvalue().splitlines()[:-4])) < 100
    assert re.search("^start-up +1.00 s +2.00 s  0.50 \\(0.50 to 0.50\\) +50% less$", pipe.getvalue(), re.MULTILINE)
    assert "●" not in pipe.getvalue()


TRAINER = """
import os, time
for step in range(1, 60):
    print("step", step, "loss", float(os.environ["FIRST"]) / step, flush=True)
    time.sleep(0.03)
"""


@pytest.mark.slow
def test_runs_have_curves_and_two_of_them_are_on_one_plot(built: Sandbox, tmp_path: Path) -> None:
    built.trainer(TRAINER)
    profile = built.work / "profiles/small.toml"
    profile.write_text(f"{profile.read_text()}\n[supervise]\nsample-every = 0.5\n")
    for first in ("4", "2"):
        built.drydock("run", "small", "--supervise", env={"DRYDOCK_RECORDS": "1", "FIRST": first}).succeeded()
    built.drydock("run", "small", env={"DRYDOCK_RECORDS": "1", "FIRST": "1"}).succeeded()
    ids = [line.split()[0] for line in built.drydock("runs", "list").succeeded().stdout.splitlines()]
    env = {**built.environment, "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}

    def drawn(*arguments: str) -> list[str]:
        return on_terminal([*DRYDOCK, *arguments], env=env, cwd=built.work, columns=60).text.splitlines()

    alone = drawn("runs", "show", ids[0])
    assert {"loss", "memory, MB", "cores in use"} < set(alone)
    assert any(line.lstrip().startswith("4 ┤") for line in alone), "the first loss is the highest"
    both = drawn("diff", ids[0], ids[1])
    assert f"loss  ─── {ids[0][-8:]}  ╌╌╌ {ids[1][-8:]}" in both
    assert "┤" not in "".join(drawn("runs", "show", ids[2])), "a run that nobody watched has no curves"
    for command in (["runs", "show", ids[0]], ["diff", *ids[:2]]):
        assert "┤" not in built.drydock(*command).succeeded().stdout
        path = tmp_path / f"{command[0]}.svg"
        built.drydock(*command, "--svg", str(path)).succeeded()
        assert len(list(ElementTree.parse(path).iter(f"{SVG}polyline"))) == (3 if command[0] == "runs" else 2)
    built.drydock("runs", "show", ids[2], "--svg", "x.svg").failed(2, "has no curves", "--supervise")
    assert not (built.work / "x.svg").exists()
