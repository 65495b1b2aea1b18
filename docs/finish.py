"""What the theme leaves to do on a page (a hook of MkDocs)."""

from __future__ import annotations

import re
from typing import Any

from mkdocs.exceptions import PluginError

_SEARCH = 'class="md-search" data-md-component="search" role="dialog"'
_SECTION = re.compile(r'(<nav class="md-nav" data-md-level="\d+") aria-labelledby="\w+" aria-expanded="\w+"')
_CONSOLE = re.compile(r'(<div class="language-console[^>]*>.*?<code>)(.*?)(</code>)', re.DOTALL)
_OUTPUT = re.compile(r'<span class="go">(.*)</span>')
_CONTINUED = re.compile(r"(&gt;)( ?)(.*)")


def on_page_content(html: str, **_: Any) -> str:
    """What was typed in a console apart from what was printed: a copy has the one only (docs/look/site.css)."""
    return _CONSOLE.sub(lambda console: console[1] + _console(console[2]) + console[3], html)


def _console(code: str) -> str:
    """The lines of a console. Those that go on with a command begin with ">": Pygments knows them as output."""
    lines, is_output = list[str](), False
    for line in code.split("\n"):
        output = _OUTPUT.fullmatch(line)
        continued = None if is_output or output is None else _CONTINUED.fullmatch(output[1])
        is_output = (output is not None or (is_output and not line)) and continued is None
        if continued is not None:
            lines.append(f'<span class="gp">{continued[1]}{continued[2]}</span>{continued[3]}\n')
        elif is_output:
            lines.append(f'<span class="go">{output[1] if output else ""}\n</span>')
        else:
            lines.append(f"{line}\n")
    return "".join(lines).removesuffix("\n")


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Name the dialog of the search, and make no landmark of each section of the navigation, for a screen reader.
    Raises PluginError where a newer theme has them otherwise.
    """
    if _SEARCH not in output or not _SECTION.search(output):
        raise PluginError(f"{page.file.src_path}: the theme is not what docs/finish.py knows")
    named = output.replace(_SEARCH, f'{_SEARCH} aria-label="Search"')
    return _SECTION.sub(r'\1 role="none"', named)
