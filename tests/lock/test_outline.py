"""What is remembered of a profile for checks of a machine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from builder.lock.outline import dump, load
from builder.project.catalogue import Catalogue
from tests.conftest import ROOT


@pytest.mark.parametrize("name", ["cpu", "cuda", "m4", "m4-upstream"])
def test_what_is_read_is_what_was_written(name: str) -> None:
    found = Catalogue([ROOT / "profiles"]).entry(name).outline
    assert load(json.loads(json.dumps(dump(found)))) == found


def test_what_has_another_shape_is_not_read() -> None:
    text = json.dumps(dump(Catalogue([ROOT / "profiles"]).entry("m4").outline))
    for damaged in _damaged(json.loads(text)):
        assert load(damaged) is None
    assert load(None) is None
    assert load({**json.loads(text), "more": 1}) == load(json.loads(text))


def _damaged(data: dict[str, Any]) -> list[dict[str, Any]]:
    """The same with one key less, or one value of another type; also further down."""
    found = [{key: value for key, value in data.items() if key != left_out} for left_out in data]
    found += [{**data, key: [[value]]} for key, value in data.items()]
    for key, value in data.items():
        if isinstance(value, dict):
            found += [{**data, key: one} for one in _damaged(value)]
    return found
