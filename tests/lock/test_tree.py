"""`drydock tree` and `drydock outdated`, on real wheels."""

from __future__ import annotations

import json

import pytest

from tests.support import Sandbox, make_wheel


@pytest.fixture
def desk(sandbox: Sandbox) -> Sandbox:
    """`small` needs anchor and rope; rope needs knot, which needs rope again, and chain; chain needs knot."""
    needs = {"rope": ["knot", "chain"], "knot": ["rope"], "chain": ["knot"]}
    for name, requires in needs.items():
        make_wheel(sandbox.wheels, name, "1.0", requires=requires)
    path = sandbox.profile("small")
    path.write_text(path.read_text().replace('["anchor"]', '["anchor", "rope<2"]'))
    sandbox.drydock("lock", "small").succeeded()
    return sandbox


def test_a_tree_ends_where_something_stands_already(desk: Sandbox) -> None:
    assert desk.drydock("tree", "small", env={"PYTHONIOENCODING": "utf-8"}).succeeded().stdout == (
        "small\n"
        "\u251c\u2500\u2500 anchor 1.0\n"
        "\u2514\u2500\u2500 rope 1.0\n"
        "    \u251c\u2500\u2500 chain 1.0\n"
        "    \u2502   \u2514\u2500\u2500 knot 1.0\n"
        "    \u2502       \u2514\u2500\u2500 rope 1.0 (*)\n"
        "    \u2514\u2500\u2500 knot 1.0 (*)\n"
    )


@pytest.mark.slow
def test_a_tree_of_one_package_and_of_some_levels(desk: Sandbox) -> None:
    plain = {"PYTHONIOENCODING": "ascii"}
    told = desk.drydock("tree", "small", "Chain", "--depth", "2", env=plain).succeeded().stdout
    assert told == "chain 1.0\n`-- knot 1.0\n"
    assert desk.drydock("tree", "small", "--depth", "1", env=plain).succeeded().stdout == (
        "small\n|-- anchor 1.0\n`-- rope 1.0\n"
    )
    desk.drydock("tree", "small", "ropes").failed(2, "ropes is not in the lock of small", "did you mean rope?")


def test_a_tree_as_json(desk: Sandbox) -> None:
    found = json.loads(desk.drydock("tree", "small", "--json").succeeded().stdout)
    assert found["requires"] == ["anchor", "rope"]
    assert {"name": "rope", "version": "1.0", "requires": ["chain", "knot"]} in found["packages"]


def test_what_is_outdated_is_listed_with_what_is_allowed_and_what_there_is(desk: Sandbox) -> None:
    assert desk.drydock("outdated", "small").succeeded().stdout == ""
    make_wheel(desk.wheels, "rope", "1.5")
    make_wheel(desk.wheels, "rope", "2.0")
    make_wheel(desk.wheels, "knot", "3.0", tag="py3-none-win_amd64")  # not for the target
    done = desk.drydock("outdated", "small").succeeded()
    assert done.stdout == "rope  1.0  1.5  2.0\n"
    assert "small: 1 package of 4 outdated" in done.stderr
    (found,) = json.loads(desk.drydock("outdated", "--json").succeeded().stdout)["small"]
    assert found == {"name": "rope", "locked": "1.0", "update": "1.5", "latest": "2.0"}
