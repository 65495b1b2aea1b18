"""The documentation: every command in it does what it says, and the site builds."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest
import yaml

from builder.cli import cli
from tests.conftest import ROOT
from tests.shipped import profiles_table
from tests.support import pages, python_3_11, tool
from tests.support.kept import link_tree

DOCS = ROOT / "docs"
README = "../README.md"
PAGES = [README, *sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))]
RUN = [page for page in PAGES if any(isinstance(one, pages.Command) for one in pages.read(DOCS / page))]
# A page whose reader has built with torch before: its bytecode is there.
EXPERIENCED = {"how-to/project.md"}
# A page whose reader has files already: another page's.
FILES_OF = {README: ("tutorial.md", ("train.py", "requirements.txt"))}


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_a_reader_who_does_what_a_page_says_sees_what_it_says(
    page: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """In an empty folder with an empty home and store, in one shell; wheels come from the real index."""
    home, work, said = tmp_path / "home", tmp_path / "work", tmp_path / "said"
    for folder in (home, work, said):
        folder.mkdir()
    if page in EXPERIENCED:
        link_tree(request.getfixturevalue("compiled"), home / ".local/share/drydock/bytecode")
    script = ["set +e"]
    commands: list[pages.Command] = []
    other, names = FILES_OF.get(page, (page, ()))
    brought = [one for one in pages.read(DOCS / other) if isinstance(one, pages.File) and one.name in names]
    for one in [*brought, *pages.read(DOCS / page)]:
        if isinstance(one, pages.File):
            script.append(_written(one))
        elif isinstance(one, pages.Command):
            number = len(commands)
            script.append(f"{{ {one.text}\n}} >'{said}/{number}' 2>&1; echo $? >'{said}/{number}.code'")
            commands.append(one)
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=work,
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
    # OLDPWD: where a `cd` has failed, `cd -` would lead to this checkout, and `git commit` there.
    ours = ("DRYDOCK_", "XDG_", "PYTHON", "VIRTUAL_ENV", "PYTEST_", "OLDPWD")
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


def test_every_command_is_in_the_table_of_commands_and_no_other() -> None:
    table = (DOCS / "commands.md").read_text()
    rows = [row.split(" | ")[0] for row in table.splitlines() if row.startswith("| `")]
    named = {name for row in rows for span in _spans(row) for name in _commands_in(span)}
    assert named == set(cli.list_commands(click.Context(cli)))


def _commands_in(span: str) -> list[str]:
    """The commands that a cell names: `drydock lock NAME`, or several, as in `drydock add PKG, remove PKG`."""
    if not span.startswith("drydock "):
        return []
    first, *others = (part.split()[0] for part in span.removeprefix("drydock ").split(", "))
    return [first, *(other for other in others if other in cli.list_commands(click.Context(cli)))]


def test_the_table_of_profiles_is_what_the_profiles_say() -> None:
    _, _, rest = (DOCS / "profiles.md").read_text().partition("<!-- python -m tests.shipped.profiles_table -->\n")
    assert rest.partition("\n\n")[0] + "\n" == profiles_table.table()


@pytest.mark.parametrize("picture", sorted((DOCS / "images").glob("*.svg")), ids=lambda path: path.stem)
def test_a_picture_is_for_both_schemes_for_a_phone_and_for_those_who_hear_it(picture: Path) -> None:
    text, svg = picture.read_text(), ElementTree.parse(picture).getroot()
    assert "prefers-color-scheme: dark" in text
    smallest = min(float(size) for size in re.findall(r"([\d.]+)px", text))
    assert smallest * min(int(svg.attrib["width"]), 360) / float(svg.attrib["viewBox"].split()[2]) >= 10, "on a phone"
    named = {part.attrib["id"]: part.text for part in svg if part.tag.endswith(("}title", "}desc"))}
    assert all(named[name] for name in svg.attrib["aria-labelledby"].split())
    assert "http" not in text.replace("http://www.w3.org/2000/svg", ""), "a picture asks no host for anything"
    assert not re.search(r"@font-face|@import|url\(|href|<script|<image", text), "nor its own"


def test_the_readme_is_one_screen_and_a_half() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 100


# --- for those who carry on ----------------------------------------------------------------------------------------

FOR_CONTRIBUTORS = [
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "RELEASING.md",
    "SECURITY.md",
    "STYLE.md",
    *sorted(str(path.relative_to(ROOT)) for path in (DOCS / "decisions").glob("*.md")),
]
_CODE = re.compile(r"```\w*\n(.*?)```|`([^`\n]+)`", re.DOTALL)
_PATH = re.compile(r"\.?[A-Za-z_][\w.*-]*(?:/[\w.*-]*)+|[\w-]+\.(?:py|md|toml|yml|j2|sh)")
# What a page names that is no file of this repository.
_ELSEWHERE = {"dist/", "drydock.toml"}


def _spans(text: str) -> list[str]:
    """What stands in backquotes, in a line or in a block."""
    return [block or span for block, span in _CODE.findall(text)]


def _paths(text: str) -> list[str]:
    """The paths of this repository that a text names: in backquotes, and as links."""
    spans = [span.removesuffix(":") for span in _spans(text) if _PATH.fullmatch(span)]
    return sorted({*spans} - _ELSEWHERE)


@pytest.mark.parametrize("page", FOR_CONTRIBUTORS)
def test_every_path_that_a_page_names_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    missing = [path for path in _paths(text) if not any(ROOT.glob(path.rstrip("/")))]
    missing += [link for link in _links(text) if not ((ROOT / page).parent / link).exists()]
    assert not missing, f"{page} names what is not there: {', '.join(missing)}"


def test_every_name_that_the_map_gives_stands_in_its_file() -> None:
    """Such as `digest` in `builder/lock/model.py`; and a row that was cut has its backquotes in other places."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    named = re.findall(r"`([\w.]+)` (?:of|in) `([\w/.]+\.(?:py|toml|j2|sh))`", text)
    assert len(named) > 12
    assert [f"{name} in {path}" for name, path in named if name not in (ROOT / path).read_text()] == []
    assert [span for span in re.findall(r"`([^`\n]+)`", text) if span != span.strip(" ,;")] == []


def _links(text: str) -> list[str]:
    return [link.partition("#")[0] for link in re.findall(r"\]\(([^)#:]+(?:#[^)]*)?)\)", text)]


def test_the_pages_name_many_paths() -> None:
    """A pattern that finds nothing would find nothing missing."""
    assert len(_paths((ROOT / "ARCHITECTURE.md").read_text())) > 60
    assert len(_paths((ROOT / "CONTRIBUTING.md").read_text())) > 20
    assert _paths("`builder/nowhere.py`, `docs/`, `a b/c`, `$HOME/x`, `drydock lock`, `STYLE.md`") == [
        "STYLE.md",
        "builder/nowhere.py",
        "docs/",
    ]


def test_the_files_that_follow_one_profile_exist_and_stand_in_order() -> None:
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("## Follow one profile\n")[2].partition("\n## ")[0]
    named = [span for span in _spans(section) if _PATH.fullmatch(span)]
    assert len(named) > 8
    assert [path for path in named if not (ROOT / path).exists()] == []
    journey = (ROOT / "ARCHITECTURE.md").read_text().partition("## The journey of a profile")[2].partition("\n## ")[0]
    assert [path for path in named if path.startswith("builder/") and path not in _spans(journey)] == []


@pytest.mark.parametrize("page", ["README.md", *FOR_CONTRIBUTORS])
def test_every_recipe_that_a_page_names_exists(page: str) -> None:
    just = Path(sys.executable).parent / "just"
    done = subprocess.run([just, "--summary"], cwd=ROOT, capture_output=True, text=True, check=True)
    spans = _spans((ROOT / page).read_text())
    named = {name for span in spans for name in re.findall(r"(?:^|\s)just\s+([a-z][a-z-]*)", span)}
    assert named <= set(done.stdout.split()), page


def test_the_drawing_of_the_house_is_the_import_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(one["layers"] for one in contracts if one["type"] == "layers")
    drawing = (ROOT / "ARCHITECTURE.md").read_text().partition("## The house\n")[2].partition("\n## ")[0]
    lines = next(span for span in _spans(drawing) if "\n" in span).splitlines()
    drawn = [re.split(r" {2,}", line)[0] for line in lines]
    assert drawn == layers


def test_the_hooks_before_a_commit_are_the_lines_of_just_check() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [one["repo"] for one in hooks] == ["local"], "nothing is fetched from a host"
    entries = [shlex.split(hook["entry"]) for hook in hooks[0]["hooks"]]
    just = Path(sys.executable).parent / "just"
    done = subprocess.run([just, "--dry-run", "check"], cwd=ROOT, capture_output=True, text=True, check=True)
    checks = [shlex.split(line) for line in done.stderr.splitlines()]
    assert [shlex.split(entry[2]) if entry[:2] == ["sh", "-c"] else entry for entry in entries] == checks


@pytest.mark.slow
def test_the_hooks_before_a_commit_and_the_updates_are_well_formed() -> None:
    check = [*tool("check-jsonschema==0.37.1"), "check-jsonschema", "--builtin-schema"]
    subprocess.run([*check, "vendor.dependabot", ".github/dependabot.yml"], cwd=ROOT, check=True, timeout=300)
    hooks = [*tool("pre-commit==4.7.0"), "pre-commit", "validate-config"]
    subprocess.run([*hooks, ".pre-commit-config.yaml"], cwd=ROOT, check=True, timeout=300)


def test_troubleshooting_goes_by_words_that_drydock_says() -> None:
    known = re.findall(r"^`(.+)`\n:   ", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(known) > 15
    code = [*(ROOT / "builder").rglob("*.py"), *(ROOT / "templates").iterdir()]
    texts = re.sub(r"\"\s*\n?\s*f?\"|\" \\\\\n\s*\"", "", "\n".join(path.read_text() for path in code))
    assert [words for words in known if words not in texts] == []
