"""The user's own settings: a file, whose values are the defaults of variables, and the command for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import Sandbox


@pytest.fixture
def desk(locked: Sandbox) -> Sandbox:
    """With a home whose settings are empty, and no store that is named."""
    locked.environment.pop("DRYDOCK_HOME", None)
    locked.environment["XDG_CONFIG_HOME"] = str(locked.work / "config")
    return locked


@pytest.fixture
def file(desk: Sandbox) -> Path:
    return Path(desk.drydock("config", "path").succeeded().stdout.strip())


def listed(desk: Sandbox, **environ: str) -> dict[str, tuple[str, str]]:
    found = json.loads(desk.drydock("config", "list", "--json", env=environ).succeeded().stdout)
    return {one["key"]: (one["value"], one["source"]) for one in found}


@pytest.mark.slow
def test_a_setting_is_the_default_of_a_variable_which_wins(desk: Sandbox, file: Path, tmp_path: Path) -> None:
    before = listed(desk)
    assert before["store"][1] == "default"
    desk.drydock("config", "set", "store", str(tmp_path / "mine")).succeeded()
    assert listed(desk)["store"] == (str(tmp_path / "mine"), f"{file}:2")
    built = desk.drydock("build", "small").succeeded().stdout
    assert built.startswith(f"{tmp_path / 'mine'}/store/")
    theirs = {"DRYDOCK_HOME": str(tmp_path / "theirs")}
    assert desk.drydock("build", "small", env=theirs).succeeded().stdout.startswith(f"{tmp_path / 'theirs'}/store/")
    assert listed(desk, **theirs)["store"] == (str(tmp_path / "theirs"), "DRYDOCK_HOME")
    said = desk.drydock("config", "set", "store", "/elsewhere", env=theirs).succeeded().stderr
    assert f"warning: DRYDOCK_HOME is set, and wins: store is {tmp_path / 'theirs'}" in said
    desk.drydock("config", "unset", "store").succeeded()
    assert listed(desk) == before


def test_caches_and_mirrors_of_indexes_are_settings(desk: Sandbox, file: Path) -> None:
    desk.drydock("config", "set", "caches.places", "/srv/one", "https://wheels.example/two").succeeded()
    desk.drydock("config", "set", "indexes.pytorch-cpu", "https://mirror.example/cpu").succeeded()
    assert listed(desk)["caches.places"] == ("/srv/one https://wheels.example/two", f"{file}:4")
    assert listed(desk)["indexes.pytorch-cpu"][0] == "https://mirror.example/cpu"
    assert listed(desk, DRYDOCK_INDEX_PYTORCH_CPU="https://here.example")["indexes.pytorch-cpu"] == (
        "https://here.example",
        "DRYDOCK_INDEX_PYTORCH_CPU",
    )
    assert desk.drydock("config", "get", "caches.places").succeeded().stdout == "/srv/one https://wheels.example/two\n"
    desk.drydock("config", "unset", "indexes.pytorch-cpu").succeeded()
    assert "indexes" not in file.read_text()


@pytest.mark.slow
def test_a_cache_of_the_settings_is_asked_by_a_build(desk: Sandbox, tmp_path: Path) -> None:
    desk.drydock("push", "small", str(tmp_path / "mirror")).succeeded()
    desk.drydock("config", "set", "caches.places", str(tmp_path / "mirror")).succeeded()
    assert f"from {tmp_path / 'mirror'}" in desk.drydock("build", "small").succeeded().stderr


def test_colour_is_a_setting_and_the_option_wins(desk: Sandbox) -> None:
    desk.drydock("config", "set", "color", "always").succeeded()
    assert "\x1b[1;31merror:" in desk.drydock("build", "smal").stderr
    assert "\x1b" not in desk.drydock("--color", "never", "build", "smal").stderr
    assert "\x1b" not in desk.drydock("build", "smal", env={"NO_COLOR": "1"}).stderr


def test_what_a_person_wrote_into_the_file_stays(desk: Sandbox, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('# mine\ncolor = "never" # not here\n\n[caches]\nplaces = []\n')
    desk.drydock("config", "set", "store", "/srv/store").succeeded()
    assert file.read_text() == '# mine\ncolor = "never" # not here\nstore = "/srv/store"\n\n[caches]\nplaces = []\n'


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stor = 1", ['unknown key "stor"', 'did you mean "store"?', "config.toml:1"]),
        ('\nstore = "relative"', ["must be the absolute path of a folder", "config.toml:2: store"]),
        ('color = "blue"', ["must be one of auto, always, never", "config.toml:1: color"]),
        ('[indexes]\na = "x"', ["must be a URL", "config.toml:2: indexes.a"]),
        ('[indexes]\na = "https://me:hush@x.example"', ["a password is in the URL", "config.toml:2: indexes.a"]),
        ('[caches]\nplaces = ["a b"]', ["has white space or a comma in it", "config.toml:2: caches.places"]),
        ("store = ", ["not TOML", "config.toml:1"]),
    ],
)
def test_an_error_in_the_file_has_line_and_key_and_the_command_still_helps(
    desk: Sandbox, file: Path, text: str, words: list[str]
) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    failed = desk.drydock("build", "small").failed(1, *words)
    assert "hush" not in failed.stderr
    assert desk.drydock("config", "path").succeeded().stdout == f"{file}\n"
    desk.drydock("help", "variables").succeeded()
    desk.drydock("--help").succeeded()


def test_a_wrong_setting_is_refused_and_nothing_is_written(desk: Sandbox, file: Path) -> None:
    desk.drydock("config", "set", "colour", "never").failed(2, 'no setting "colour"', 'did you mean "color"?')
    desk.drydock("config", "set", "color", "blue").failed(
        1, "must be one of auto, always, never", "nothing was written"
    )
    desk.drydock("config", "set", "store", "/a", "/b").failed(2, "store has one value")
    desk.drydock("config", "unset", "store").failed(2, "store is not set in")
    desk.drydock("config", "get", "caches.places").failed(1, "caches.places is not set")
    assert not file.exists()
