"""Why a package is there: paths in memory, and the program as a user asks it."""

from __future__ import annotations

import itertools
import json
import random

import pytest

from builder.cli import cli
from builder.errors import UsageError
from builder.lock.model import Artefact, Lock, LockedOverride
from builder.lock.why import paths, why
from tests.support import Sandbox


def lock(parents: dict[str, list[str]], *, build: tuple[str, ...] = (), overrides: tuple[str, ...] = ()) -> Lock:
    def artefact(name: str, required_by: list[str]) -> Artefact:
        file = f"{name}-1.0-py3-none-any.whl"
        return Artefact(name=name, version="1.0", file=file, size=1, sha256="0" * 64, required_by=required_by)

    return Lock(
        schema_=1,
        profile="small",
        digest="sha256:0",
        uv=artefact("uv", []),
        overrides=[LockedOverride(requirement=text, reason="too low upstream") for text in overrides],
        build_requires=[artefact(name, ["profile"]) for name in build],
        packages=[artefact(name, required_by) for name, required_by in parents.items()],
    )


def every_path(parents: dict[str, list[str]], package: str) -> list[tuple[str, ...]]:
    """The same by brute force."""
    found = []

    def walk(path: tuple[str, ...]) -> None:
        for parent in parents[path[0]]:
            if parent == "profile":
                found.append(path)
            elif parent in parents and parent not in path:
                walk((parent, *path))

    walk((package,))
    return sorted(found, key=lambda path: (len(path), path))


def test_paths_are_those_of_brute_force_in_the_same_order() -> None:
    chance = random.Random(7)
    for _ in range(200):
        names = "abcdefg"[: chance.randint(1, 7)]
        parents = {name: chance.sample([*names, "profile", "override"], chance.randint(0, 3)) for name in names}
        for package in names:
            wanted = every_path(parents, package)
            assert list(paths(parents, package)) == wanted, (parents, package)
            answer = why("small", lock(parents), package, limit=1)
            assert answer.paths == wanted[:1]
            assert answer.count in (len(wanted), None)


def test_a_package_that_the_profile_asks_for_by_itself() -> None:
    assert list(why("small", lock({"a": ["profile"]}), "a").lines()) == [
        "a 1.0: 1 path from small",
        "  small -> a 1.0",
    ]


def layers(depth: int, width: int) -> dict[str, list[str]]:
    parents = {f"l0-{column}": ["profile"] for column in range(width)}
    for layer, column in itertools.product(range(1, depth), range(width)):
        parents[f"l{layer}-{column}"] = [f"l{layer - 1}-{other}" for other in range(width)]
    return {**parents, "end": [f"l{depth - 1}-{column}" for column in range(width)]}


def test_more_paths_than_anyone_reads_are_counted_and_not_walked() -> None:
    answer = why("small", lock(layers(10, 10)), "end")
    assert (len(answer.paths), answer.count) == (20, 10**10)
    assert list(answer.lines())[-1] == f"  and {10**10 - 20} more"


def test_circles_end_and_cost_nothing() -> None:
    clique = [f"c{number}" for number in range(25)]
    parents = {one: [other for other in clique if other != one] for one in clique}
    # All ways into the clique and out of it go through `gate`, so that only one path is without a circle.
    parents = {**parents, "gate": ["a", *clique], "a": ["profile"], "end": ["gate"]}
    parents["c0"].append("gate")
    answer = why("small", lock(parents), "end")
    assert (answer.paths, answer.count) == ([("a", "gate", "end")], 1)


def test_where_circles_make_too_many_paths_there_is_no_count() -> None:
    clique = [f"c{number:02}" for number in range(25)]
    answer = why("small", lock({one: ["profile", *clique] for one in clique}), "c07")
    assert (answer.paths[0], len(answer.paths), answer.count) == (("c07",), 20, None)
    assert next(answer.lines()) == "c07 1.0: more than 20 paths from small"
    assert list(answer.lines())[-1] == "  and more"


def test_overrides_and_build_requirements_are_told() -> None:
    known = lock({"a": ["profile"], "my-b": ["a", "override"]}, build=("setuptools",), overrides=("My_B==1.0",))
    assert list(why("small", known, "my.b").lines()) == [
        "my-b 1.0: 1 path from small",
        "  overridden: My_B==1.0 (too low upstream)",
        "  small -> a 1.0 -> my-b 1.0",
    ]
    built = why("small", known, "setuptools")
    assert next(built.lines()) == "setuptools 1.0 (only to build source distributions): 1 path from small"
    assert built.as_json() == {
        "name": "small",
        "package": "setuptools",
        "version": "1.0",
        "role": "build",
        "required-by": ["profile"],
        "override": None,
        "paths": [["setuptools"]],
        "count": 1,
    }


def test_an_unknown_package_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match='small has no package "Nmpy"') as error:
        why("small", lock({"numpy": ["profile"]}), "Nmpy")
    assert error.value.hint == 'did you mean "numpy"?'
    with pytest.raises(UsageError) as error:
        why("small", lock({"numpy": ["profile"]}), "?!")
    assert error.value.hint == "no package of its lock has a similar name"


# --- as a user asks it ---------------------------------------------------------------------------------------------

BUILT_IN = """\
numpy 2.3.1: 2 paths from cpu
  cpu -> accelerate 1.1.1 -> numpy 2.3.1
  cpu -> transformers 4.52.4 -> numpy 2.3.1
"""


def test_why_there_is_numpy_in_the_built_in_profile(sandbox: Sandbox) -> None:
    shown = sandbox.drydock("why", "cpu", "NumPy").succeeded()
    assert (shown.stdout, shown.stderr) == (BUILT_IN, "")


def test_why_as_json(sandbox: Sandbox) -> None:
    data = json.loads(sandbox.drydock("why", "m4", "typing_extensions", "--json").succeeded().stdout)
    assert data["package"] == "typing-extensions"
    assert len(data["paths"]) == 20 < data["count"]
    assert data["paths"][0] == ["torch", "typing-extensions"]


def test_a_package_that_is_not_there_is_an_error_in_words(sandbox: Sandbox) -> None:
    sandbox.drydock("why", "cpu", "nmpy").failed(2, 'error: cpu has no package "nmpy"', 'hint: did you mean "numpy"?')


def test_a_generation_does_not_keep_who_requires_what(built: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRYDOCK_HOME", str(built.store.parent))
    with pytest.raises(UsageError, match="small@1 does not record which package requires which"):
        cli.main(["why", "small@1", "anchor"], standalone_mode=False)
