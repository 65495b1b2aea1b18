"""The recording of a terminal, docs/images/recording.svg: `just recording` runs COMMANDS and draws what they show.

They run in a clone with an empty home, on a terminal, as for someone who begins; ./drydockw has installed the tools
before, which uv lists one by one. In the picture each line lights up when it was written, without long pauses, and all
at once where a reader wants no motion.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from xml.sax.saxutils import escape

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from tests.conftest import ROOT
from tests.support.terminal import Line, Screen, on_terminal

PICTURE = ROOT / "docs/images/recording.svg"
COMMANDS = ["./drydockw drydock run auto"]
COLUMNS = 56  # so that a phone shows letters of 10 px
_HOME = b"/home/you"
_LONGEST_PAUSE = 0.4  # seconds

# Ground, text, and the eight colours, each at least 4.5:1 against its ground; bright ones are the same.
_COLOURS = {
    "light": "ffffff 1f2328 1f2328 c2202e 1a7331 855c00 095bc8 7846be 0f6b75 57606a",
    "dark": "0d1117 e6edf3 7d8590 ff7b72 56d364 e3b341 6ea8fe bc8cff 56d4dd e6edf3",
}
# Of what rich draws: its rules and its text. Its frame has a font from another host.
_PARTS = "{styles}\f{matrix}"
_LETTER, _ASPECT, _LINE = 20, 0.6, 24.4  # height of a letter, its width to its height, distance of lines, as in rich
_SCALE, _EDGE = 0.75, 16
_TEXT = re.compile(r'(<text [^>]*) clip-path="url\(#t-line-(\d+)\)"(>[^<\n]+</text>)')
_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{shown}" height="{high}" viewBox="0 0 {width} {height}" role="img" \
aria-labelledby="title desc">
  <title id="title">{title}</title>
  <desc id="desc">{description}</desc>
  <style>
    svg {{ color-scheme: light dark }}
    text {{ font: 20px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace }}
    .ground {{ fill: #ffffff; stroke: #d0d7de }}
{light}
    @media (prefers-color-scheme: dark) {{
    .ground {{ fill: #0d1117; stroke: #3d444d }}
{dark}
    }}
    @keyframes appear {{ from {{ opacity: .2 }} }}
    @media (prefers-reduced-motion: no-preference) {{ .line {{ animation: appear 10ms both }} }}
  </style>
  <rect class="ground" x="1" y="1" width="{inner_width}" height="{inner_height}" rx="11"/>
  <g transform="translate({edge} {edge})">
{lines}
  </g>
</svg>
"""


def record(commands: Sequence[str], cwd: Path, env: Mapping[str, str]) -> list[Line]:
    """Run commands in a folder, one after the other: what a terminal shows in the end, with $HOME as `_HOME`."""
    screen, began = Screen(COLUMNS), 0.0
    for command in commands:
        screen.write(f"\x1b[1m$ {command}\x1b[0m\r\n".encode(), began)
        seen = on_terminal(["sh", "-c", command], env=env, cwd=cwd, columns=COLUMNS, seconds=600)
        if seen.code:
            raise RuntimeError(f"{command}: exit status {seen.code}\n{seen.text}")
        for seconds, content in seen.pieces:
            screen.write(content.replace(env["HOME"].encode(), _HOME), began + seconds)
        began += seen.pieces[-1][0] if seen.pieces else 0.0
    return screen.lines()


def picture(lines: Sequence[Line], *, title: str, description: str) -> str:
    """An SVG of lines for both colour schemes, which asks no host for anything."""
    (light, text), (dark, again) = (_drawn(lines, _theme(colours)) for colours in _COLOURS.values())
    if text != again:
        raise ValueError("two styles look alike in one colour scheme and not in the other")
    width, height = COLUMNS * _LETTER * _ASPECT + 2 * _EDGE, len(lines) * _LINE + 2 * _EDGE
    return _SVG.format(
        shown=round(width * _SCALE),
        high=round(height * _SCALE),
        width=f"{width:g}",
        height=f"{height:g}",
        inner_width=f"{width - 2:g}",
        inner_height=f"{height - 2:g}",
        edge=_EDGE,
        title=escape(title),
        description=escape(description),
        light=light,
        dark=dark,
        lines="\n".join(_timed(text, lines)),
    )


def _theme(colours: str) -> TerminalTheme:
    ground, text, *eight = ((int(one[:2], 16), int(one[2:4], 16), int(one[4:], 16)) for one in colours.split())
    return TerminalTheme(ground, text, eight)


def _drawn(lines: Sequence[Line], theme: TerminalTheme) -> tuple[str, str]:
    """The rules and the text of lines, by rich."""
    console = Console(record=True, file=io.StringIO(), width=COLUMNS, force_terminal=True, color_system="truecolor")
    for line in lines:
        console.print(Text.from_ansi(line.text), soft_wrap=True)
    drawn = console.export_svg(title="", theme=theme, code_format=_PARTS, font_aspect_ratio=_ASPECT, unique_id="t")
    rules, _, text = drawn.partition("\f")
    return "\n".join(f"    {rule}" for rule in rules.splitlines()), text


def _timed(text: str, lines: Sequence[Line]) -> Iterator[str]:
    """Each line of a text in an element of its own, which lights up in its time."""
    parts: dict[int, list[str]] = {}
    for found in _TEXT.finditer(text):
        parts.setdefault(int(found[2]), []).append(found[1] + found[3])
    begins = _begins([line.seconds for line in lines])
    for number, texts in parts.items():
        yield f'    <g class="line" style="animation-delay: {begins[number]:.2f}s">{"".join(texts)}</g>'


def _begins(times: Sequence[float]) -> list[float]:
    """When each line lights up: as it was written, but after no pause that is longer than `_LONGEST_PAUSE`."""
    begins = [0.0]
    for before, after in pairwise(times):
        begins.append(begins[-1] + min(max(after - before, 0.0), _LONGEST_PAUSE))
    return begins


def environment(home: Path) -> dict[str, str]:
    """That of the caller, with another home, and without what changes how Drydock looks and where it keeps things."""
    ours = re.compile(r"(DRYDOCK|XDG|PYTHON|PYTEST)_?.*|NO_COLOR|FORCE_COLOR|CI|COLUMNS|LINES|VIRTUAL_ENV|UV_CACHE_DIR")
    kept = {name: value for name, value in os.environ.items() if not ours.fullmatch(name)}
    outside = [folder for folder in kept["PATH"].split(os.pathsep) if not Path(folder).is_relative_to(ROOT)]
    return kept | {"HOME": str(home), "TERM": "xterm-256color", "PATH": os.pathsep.join(outside)}


def main() -> None:
    """Record COMMANDS in a clone of this checkout, and write the picture."""
    with tempfile.TemporaryDirectory(prefix="recording-") as name:
        folder = Path(name).resolve()
        (folder / "home").mkdir()
        subprocess.run(["git", "clone", "--quiet", ROOT, folder / "drydock"], check=True)
        env = environment(folder / "home")
        subprocess.run(["./drydockw", "drydock", "--version"], cwd=folder / "drydock", env=env, check=True)
        lines = record(COMMANDS, folder / "drydock", env)
    last = Text.from_ansi(lines[-1].text).plain
    said = f"{COMMANDS[0]} finds out what the machine is, builds an environment and trains. Its last line: {last}"
    PICTURE.write_text(picture(lines, title="The first training, on a terminal", description=said))


if __name__ == "__main__":
    main()
