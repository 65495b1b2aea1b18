"""The tests stand as the house does: who knows where a module is knows where its tests are."""

from __future__ import annotations

from tests.conftest import LONGEST, ROOT

# What is no wing of the package: the files of this repository as they stand, here and on other machines, and what is
# fed to readers of every wing.
BESIDES = {"shipped", "emulation", "gpu", "fuzz", "programs", "support"}


def test_each_folder_of_tests_is_that_of_a_wing() -> None:
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/*.py")} - BESIDES
    assert folders == {path.parent.name for path in (ROOT / "builder").glob("*/__init__.py")}


def test_each_file_of_tests_outside_of_a_folder_is_that_of_a_module_or_of_the_repository() -> None:
    of_modules = {f"test_{path.stem}.py" for path in (ROOT / "builder").glob("*.py")}
    assert {path.name for path in (ROOT / "tests").glob("test_*.py")} - of_modules == {
        "test_house.py",
        "test_wrapper.py",
    }


def test_what_is_begun_first_exists() -> None:
    for name in LONGEST:
        path, _, function = name.partition("::")
        assert f"def {function}" in (ROOT / path).read_text(), name
