"""The recording of the documents: drawn as a terminal draws it, and of the commands that the README begins with."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.conftest import ROOT
from tests.shipped import recording
from tests.support.terminal import Line, Screen

# A spinner that is removed, a line that is written over, one that is longer than the terminal.
DRAWS = f"""\
#!{sys.executable}
from rich.console import Console
import sys, time
console = Console()
with console.status("building"):
    time.sleep(0.3)
    console.print("[bold]1[/] of [green]2[/]", highlight=False)
print("loading: 1 s", end="", flush=True)
print("\\r\\x1b[Kloss 3.4 -> 0.6 <&> ä")
print("x" * {recording.COLUMNS + 4})
"""
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def drawn(tmp_path: Path) -> list[Line]:
    (tmp_path / "draws").write_text(DRAWS)
    (tmp_path / "draws").chmod(0o755)
    return recording.record(["./draws", "echo in $HOME"], tmp_path, recording.environment(tmp_path))


def test_a_recording_has_what_is_left_on_the_terminal(drawn: list[Line]) -> None:
    assert [line.text for line in drawn] == [
        "\x1b[1m$ ./draws\x1b[0m",
        "\x1b[1m1\x1b[0m of \x1b[32m2\x1b[0m",
        "loss 3.4 -> 0.6 <&> ä",
        "x" * recording.COLUMNS,
        "xxxx",
        "\x1b[1m$ echo in $HOME\x1b[0m",
        "in /home/you",
    ]
    assert drawn[-1].seconds > 0.3


def test_its_picture_says_the_same_in_both_schemes(drawn: list[Line]) -> None:
    text = recording.picture(drawn, title="a title", description="what is <seen>")
    lines = [[part.text or "" for part in line] for line in ElementTree.fromstring(text).iter(f"{SVG}g")][1:]
    assert lines[1] == ["1", "\xa0of\xa0", "2"]
    assert lines[2] == ["loss\xa03.4\xa0->\xa00.6\xa0<&>\xa0ä"]
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "url(" not in text
    dark = text.partition("prefers-color-scheme: dark")[2]
    assert "#1a7331" in text.partition("prefers-color-scheme: dark")[0], "green on white"
    assert "#56d364" in dark, "green on black"


def test_a_long_pause_of_a_session_is_none_of_its_recording() -> None:
    lines = [Line(0, "a"), Line(0.1, "b"), Line(30, "c"), Line(30, "d")]
    text = recording.picture(lines, title="a", description="b")
    begins = [line.attrib["style"] for line in ElementTree.fromstring(text).iter(f"{SVG}g") if "style" in line.attrib]
    assert begins == [f"animation-delay: {seconds}s" for seconds in ("0.00", "0.10", "0.50", "0.50")]


def test_what_is_cut_off_in_a_read_is_put_together() -> None:
    screen = Screen(20)
    for byte in "\x1b[31mä\x1b[0m → b".encode():
        screen.write(bytes([byte]), 1)
    assert [line.text for line in screen.lines()] == ["\x1b[31mä\x1b[0m → b"]


def test_a_line_above_is_written_over_and_those_below_stay() -> None:
    screen = Screen(20)
    screen.write(b"one\r\ntwo\r\n\x1b[2A\r\x1b[2K1\x1b[1B\x1b[1B\rthree", 1)
    assert [line.text for line in screen.lines()] == ["1", "two", "three"]


def test_a_sequence_that_is_not_known_is_not_left_out() -> None:
    with pytest.raises(ValueError, match=r"unknown sequence: ESC \[ 2 J"):
        Screen(20).write(b"\x1b[2J", 0)


def test_a_session_that_fails_is_no_recording(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="exit status 3"):
        recording.record(["exit 3"], tmp_path, recording.environment(tmp_path))


def test_the_recording_is_small_and_of_what_the_readme_begins_with() -> None:
    texts = ["".join(part.itertext()) for part in ElementTree.parse(recording.PICTURE).iter(f"{SVG}g")]
    readme = (ROOT / "README.md").read_text()
    for command in recording.COMMANDS:
        assert command in readme
        assert any(f"$ {command}".replace(" ", "\xa0") == text for text in texts)
    assert any("the\xa0loss\xa0fell" in text for text in texts)
    assert recording.PICTURE.stat().st_size < 60_000
