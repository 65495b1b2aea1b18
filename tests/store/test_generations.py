"""Generations, on links in a temporary home."""

from __future__ import annotations

import itertools
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from builder.embedded import claim
from builder.errors import UsageError
from builder.store import generations


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DRYDOCK_HOME", str(tmp_path / "my drydock"))
    return tmp_path / "my drydock"


def add(*letters: str) -> None:
    for letter in letters:
        generations.add("cpu", f"{letter * 32}-cpu", f"# script of {letter}\n")


def numbers() -> list[tuple[int, str, bool]]:
    return [(one.number, one.key[0], one.current) for one in generations.generations("cpu")]


def test_a_new_key_makes_a_new_generation_and_the_same_key_none() -> None:
    add("a", "a", "b")
    assert numbers() == [(1, "a", False), (2, "b", True)]


def test_the_same_key_with_other_settings_keeps_the_generation_and_renews_its_script() -> None:
    add("a")
    generations.add("cpu", f"{'a' * 32}-cpu", "# other settings\n")
    here = generations.current("cpu")
    assert here is not None
    assert (here.number, here.script.read_text()) == (1, "# other settings\n")


def test_rolling_back_and_building_again() -> None:
    add("a", "b", "c")
    assert generations.rollback("cpu").number == 2
    assert generations.rollback("cpu").number == 1
    with pytest.raises(UsageError, match="no generation before"):
        generations.rollback("cpu")
    add("b")
    assert numbers()[-1] == (4, "b", True)


def test_switching_to_what_is_not_there_says_what_is() -> None:
    add("a", "b")
    with pytest.raises(UsageError, match="no generation 7") as error:
        generations.switch("cpu", 7)
    assert error.value.hint == "it has: 1, 2"


def test_nothing_behind_a_rollback() -> None:
    with pytest.raises(UsageError):
        generations.rollback("cpu")


def test_deleting_never_takes_the_current_one() -> None:
    add("a", "b", "c")
    with pytest.raises(UsageError, match="generation 3 of cpu is the current one"):
        generations.delete("cpu", ["1", "3"])
    assert len(numbers()) == 3
    assert [one.number for one in generations.delete("cpu", ["old"])] == [1, 2]
    assert numbers() == [(3, "c", True)]


def test_deleting_by_age_keeps_what_is_from_the_future(home: Path) -> None:
    add("a", "b", "c")
    now = 2_000_000_000.0
    for number, age in ((1, 31), (2, -400), (3, 90)):
        link = home / f"profiles/cpu-{number}-link"
        os.utime(link, (now - age * 86400,) * 2, follow_symlinks=False)
    assert [one.number for one in generations.delete("cpu", ["30d"], now=now)] == [1]


def test_numbers_are_not_used_twice_while_a_later_one_is_there() -> None:
    add("a", "b", "c")
    generations.delete("cpu", ["1", "2"])
    add("a")
    assert numbers() == [(3, "c", False), (4, "a", True)]


def test_profiles_whose_names_look_like_generations_are_told_apart() -> None:
    generations.add("cpu-2", f"{'a' * 32}-cpu-2", "")
    add("b")
    assert [one.name for one in generations.generations("cpu-2")] == ["cpu-2"]
    assert numbers() == [(1, "b", True)]


def test_many_at_once_end_with_one_order() -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda letter: generations.add("cpu", f"{letter * 32}-cpu", letter), "abcdabcdabcd" * 3))
    found = numbers()
    assert [number for number, _, _ in found] == list(range(1, len(found) + 1))
    assert sum(is_current for _, _, is_current in found) == 1
    assert all(one[1] != other[1] for one, other in itertools.pairwise(found))


def test_every_generation_is_a_root() -> None:
    add("a", "b")
    assert generations.roots() == {f"{'a' * 32}-cpu", f"{'b' * 32}-cpu"}


def test_what_a_dead_process_began_is_removed_by_the_next_change(home: Path) -> None:
    add("a")
    left = home / "profiles/.cpu-2-link.7"
    left.symlink_to("../store/nowhere")
    now = home / "profiles/.cpu-2-run.sh.8"
    now.touch()
    minutes_ago = time.time() - 120
    os.utime(left, (minutes_ago, minutes_ago), follow_symlinks=False)
    add("b")
    assert sorted(path.name for path in (home / "profiles").glob(".*")) == [now.name, ".lock"]


def test_where_no_lock_holds_a_number_is_never_used_for_two_things(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "lock", lambda *_, **__: None)
    with ThreadPoolExecutor(8) as pool:
        made = list(
            pool.map(lambda letter: generations.add("cpu", f"{letter * 32}-cpu", letter).generation, "abcd" * 5)
        )
    store_names = {one.number: one.store_name for one in made}
    assert {one.number: one.store_name for one in generations.generations("cpu")} == store_names
    assert all(one.script.read_text() == one.store_name[0] for one in made)
