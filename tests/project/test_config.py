"""drydock.toml: one file for all that is said of a project, found from every folder below it."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import ProfileError
from builder.project import config
from builder.project.caches import cache_places
from builder.report import explain
from builder.resources import version
from tests.support import Sandbox

BOTH = '[sources.team]\npath = "../team"\n\n[caches]\nplaces = ["wheels", "/srv/wheels", "https://wheels.example/x"]\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, whose name has a space."""
    made = tmp_path / "a project"
    made.mkdir()
    monkeypatch.chdir(made)
    monkeypatch.delenv("DRYDOCK_CACHE", raising=False)
    return made


def said(folder: Path, text: str) -> str:
    """What a user is told of a drydock.toml that is wrong."""
    (folder / "drydock.toml").write_text(text)
    with pytest.raises(ProfileError) as caught:
        config.find()
    return explain(caught.value)


def test_every_table_stands_beside_the_others(folder: Path) -> None:
    (folder / "drydock.toml").write_text(BOTH)
    found = config.find()
    assert found.file == folder / "drydock.toml"
    assert found.sources["team"].path == "../team"
    assert found.caches == ("wheels", "/srv/wheels", "https://wheels.example/x")


def test_the_first_one_upwards_is_meant(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "drydock.toml").write_text(BOTH)
    (folder / "below/further").mkdir(parents=True)
    monkeypatch.chdir(folder / "below/further")
    assert config.find().file == folder / "drydock.toml"
    # A folder of wheels is named from where drydock.toml is, and DRYDOCK_CACHE comes first.
    monkeypatch.setenv("DRYDOCK_CACHE", "/first")
    assert cache_places() == ["/first", "../../wheels", "/srv/wheels", "https://wheels.example/x"]
    (folder / "below/drydock.toml").write_text("")
    assert config.find() == config.Config(folder / "below/drydock.toml")


def test_without_one_nothing_is_said(folder: Path) -> None:
    seen: dict[Path, bytes | None] = {}
    assert config.find(seen) == config.Config()
    assert seen[folder / "drydock.toml"] is None
    assert len(seen) == len((folder / "x").parents)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[source.team]\n", ['unknown key "source"', 'did you mean "sources"?', "drydock.toml:1: source"]),
        ("\n[hosts]\n", ['unknown key "hosts"', "known here: sources, caches", "drydock.toml:2: hosts"]),
        (
            '[fleets.lab]\nhosts = ["h"]\nenv = { h = { HF_TOKEN = "x" } }\n',
            ["HF_TOKEN is a secret", "fleets.lab.env.h.HF_TOKEN", "~/.config/drydock/secrets"],
        ),
        ('[fleets.lab]\nhosts = ["h"]\nenv = { "-h" = { A = "x" } }\n', ["'-h' is not a host"]),
        ('[fleets.lab]\nhosts = ["h"]\nenv = { h = { "A=B" = "x" } }\n', ["is not the name of a variable"]),
        ('[fleets.lab]\nhosts = ["h"]\nenv = { h = { A = "x\\ny" } }\n', ["must be a text of one line"]),
        ("[fleets.lab]\nhosts = []\n", ["must be a list of hosts", "drydock.toml:2: fleets.lab.hosts"]),
        ("[caches]\nplace = []\n", ['unknown key "place"', 'did you mean "places"?', "drydock.toml:2: caches.place"]),
        ("caches = 1\n", ['[caches] places = ["/srv/drydock"]', "drydock.toml:1: caches"]),
        ('[caches]\n\nplaces = "x"\n', ["must be a list", "drydock.toml:3: caches.places"]),
        ('[caches]\nplaces = ["a b"]\n', ["white space", "write %20", "drydock.toml:2: caches.places"]),
        ("[sources]\nteam = 1\n", ["must be a table", "drydock.toml:2: sources.team"]),
        ('[sources.team]\npat = "x"\n', ['did you mean "path"?', "drydock.toml:2: sources.team.pat"]),
        ("[caches\n", ["not TOML", "drydock.toml"]),
    ],
)
def test_what_is_wrong_is_named_with_file_line_and_the_nearest(folder: Path, text: str, words: list[str]) -> None:
    told = said(folder, text)
    for word in words:
        assert word in told


def test_the_program_takes_sources_and_caches_from_one_file(sandbox: Sandbox) -> None:
    team = sandbox.root / "team/profiles"
    team.mkdir(parents=True)
    (team / "extra.toml").write_text('schema = 1\nname = "extra"\n')
    sandbox.profile("small")
    (sandbox.work / "drydock.toml").write_text(
        f'[sources.team]\npath = "../team"\n[caches]\nplaces = ["{sandbox.wheels}"]\n'
    )
    assert "team:extra" in sandbox.drydock("profile", "list").succeeded().stdout
    sandbox.drydock("lock", "small").succeeded()
    sandbox.drydock("build", "small").succeeded()


# --- required-version ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ['required-version = "new"', "required-version = 3", 'required-version = ">=1,"'])
def test_a_version_that_is_no_range_is_an_error(folder: Path, text: str) -> None:
    if text.endswith('1,"'):
        (folder / "drydock.toml").write_text(text)
        assert config.find().required_version == ">=1"
        return
    told = said(folder, text)
    assert "not a range of versions" in told
    assert "drydock.toml:1: required-version" in told


def test_a_project_for_another_drydock_is_not_worked_on(locked: Sandbox) -> None:
    locked.drydock("build", "small").succeeded()
    file = locked.work / "drydock.toml"
    file.write_text('required-version = ">=99"\n')
    told = f"this project is for Drydock >=99, and this is {version()}"
    for command in ("build", "render", "lock"):
        locked.drydock(command, "small").failed(1, told, "uv tool install 'drydock-env>=99'")
    assert told in locked.drydock("run", "small").succeeded().stderr  # of what was built before
    file.write_text(f'required-version = ">={version()}"\n')
    locked.drydock("run", "small").succeeded()


def test_a_team_with_two_versions_is_told_so(locked: Sandbox) -> None:
    locked.drydock("render", "small").succeeded()
    (script,) = (locked.work / "generated/small").glob("run_*.sh")
    script.write_text(script.read_text().replace(f"# Drydock {version()},", "# Drydock 99.0,"))
    locked.drydock("render", "small", "--check").failed(1, "by Drydock 99.0", "required-version")
    done = locked.drydock("render", "small").succeeded()
    assert f"was rendered by Drydock 99.0, and this is {version()}" in done.stderr
    assert "Drydock 99.0" not in locked.drydock("render", "small").succeeded().stderr
