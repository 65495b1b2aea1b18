"""The documentation: every command in it does what it says, and the site builds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support import pages, python_3_11

DOCS = ROOT / "docs"
PAGES = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))
RUN = [page for page in PAGES if any(isinstance(one, pages.Command) for one in pages.read(DOCS / page))]


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_a_reader_who_does_what_a_page_says_sees_what_it_says(page: str, tmp_path: Path) -> None:
    """In an empty folder with an empty home and store, in one shell; wheels come from the real index."""
    home, work, said = tmp_path / "home", tmp_path / "work", tmp_path / "said"
    for folder in (home, work, said):
        folder.mkdir()
    script = ["set +e", f"cd '{work}'"]
    commands: list[pages.Command] = []
    for one in pages.read(DOCS / page):
        if isinstance(one, pages.File):
            script.append(_written(one))
        elif isinstance(one, pages.Command):
            number = len(commands)
            script.append(f"{{ {one.text}\n}} >'{said}/{number}' 2>&1; echo $? >'{said}/{number}.code'")
            commands.append(one)
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        env=_environment(home),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.stderr == "", done.stderr
    for number, command in enumerate(commands):
        where = f"docs/{page}:{command.line}: $ {command.text}"
        seen = _of_a_reader((said / str(number)).read_text(errors="replace"), home)
        code = int((said / f"{number}.code").read_text())
        assert command.matches(seen), f"{where}\nsays:\n{command.expected}\nprints ({code}):\n{seen}"
        failed = any(line.startswith(("error:", "FAIL", "fail ")) for line in command.expected.splitlines())
        assert (code != 0) == failed, f"{where}\nexit status {code}\n{seen}"


def _written(file: pages.File) -> str:
    return f"mkdir -p \"$(dirname '{file.name}')\"\ncat >'{file.name}' <<'END_OF_FILE'\n{file.text}END_OF_FILE"


def _environment(home: Path) -> dict[str, str]:
    ours = ("DRYDOCK_", "XDG_", "PYTHON", "VIRTUAL_ENV", "PYTEST_")
    passed = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    # Where uv keeps its wheels and Pythons is the machine's business: they come once for all tests.
    passed.setdefault("UV_CACHE_DIR", str(Path.home() / ".cache/uv"))
    passed.setdefault("UV_PYTHON_INSTALL_DIR", str(Path.home() / ".local/share/uv/python"))
    python = python_3_11()
    path = f"{Path(python).parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    who = {"GIT_AUTHOR_NAME": "You", "GIT_AUTHOR_EMAIL": "you@example.org"}
    who |= {"GIT_COMMITTER_NAME": "You", "GIT_COMMITTER_EMAIL": "you@example.org"}
    return {**passed, **who, "HOME": str(home), "PATH": path, "DRYDOCK_PYTHON": python}


def _of_a_reader(text: str, home: Path) -> str:
    return text.replace(str(home), "/home/you").replace(str(home.parent / "work"), "/home/you/work")


def test_what_is_not_run_says_why() -> None:
    for page in PAGES:
        text = (DOCS / page).read_text()
        blocks = re.findall(rf"^ *```(?:{'|'.join(pages.COMMANDS)})\b", text, re.MULTILINE)
        known = [one for one in pages.read(DOCS / page) if not isinstance(one, pages.File)]
        assert len(known) >= len(blocks), f"{page} has a block of commands that is neither run nor says why"


def test_the_site_builds_without_a_broken_link(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    reference = (tmp_path / "site/reference/cli/index.html").read_text()
    assert "drydock store verify" in reference
    profile = (tmp_path / "site/reference/profile/index.html").read_text()
    assert "performance-cores" in profile
