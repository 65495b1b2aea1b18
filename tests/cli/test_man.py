"""The manual pages are those of the program, and are shipped where `man` looks for them."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from tests.cli.test_snapshots import WRITES
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def man() -> ModuleType:
    spec = importlib.util.spec_from_file_location("man", ROOT / "docs/man.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_those_of_the_program(man: ModuleType) -> None:
    pages = man.pages()
    if WRITES:
        shutil.rmtree(man.FOLDER, ignore_errors=True)
        man.FOLDER.mkdir()
        for name, text in pages.items():
            (man.FOLDER / name).write_text(text)
    there = {path.name: path.read_text() for path in man.FOLDER.iterdir()}
    assert there == pages, "if this is meant: just snapshots"


def test_a_page_has_what_its_command_says(man: ModuleType) -> None:
    page = man.pages()["drydock-cache.1"]
    assert "\ndrydock\\-cache \\- Measure and remove what is kept to be quicker\n" in page
    assert '.SS "drydock cache clean [OPTIONS] [CACHE]..."\n' in page
    assert ".TP\n.B \\-n, \\-\\-dry\\-run\n" in page
    assert "DRYDOCK_HOME" in man.pages()["drydock.1"]


def test_man_renders_every_page_without_a_warning(man: ModuleType) -> None:
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("no groff here, which man renders pages with")
    for path in sorted(man.FOLDER.iterdir()):
        done = subprocess.run(
            [groff, "-man", "-Tascii", "-ww", str(path)], capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stderr == "", path.name
        assert re.search("D.*E.*S.*C.*R.*I.*P.*T.*I.*O.*N", done.stdout)


def test_the_pages_are_in_the_wheel_and_in_the_source() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    assert build["wheel"]["shared-data"] == {"man": "share/man/man1"}
    assert "man" in build["sdist"]["include"]
    assert Path(ROOT / "man/drydock.1").is_file()
