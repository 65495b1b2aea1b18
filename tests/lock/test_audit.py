"""What an advisory in OSV's form says of a version."""

from __future__ import annotations

from typing import Any

import pytest

from builder.lock.audit import Advisory, _merged, matching


def verdict(version: str, **said: Any) -> str | None:
    """The doubt of what a record finds in anchor, "" for none; None where it finds nothing."""
    affected = {"package": {"ecosystem": "PyPI", "name": "anchor"}, **said}
    found = list(matching({"id": "A", "affected": [affected]}, [("anchor", version)]))
    return found[0].doubt if found else None


@pytest.mark.parametrize(
    ("events", "version", "affected"),
    [
        ([{"introduced": "0"}], "1.0", True),
        ([{"introduced": "0"}, {"fixed": "1.0"}], "1.0", False),
        ([{"introduced": "0"}, {"fixed": "1.0"}], "1.0rc1", True),
        ([{"introduced": "1.0"}, {"last_affected": "2.0"}], "2.0", True),
        ([{"introduced": "1.0"}, {"last_affected": "2.0"}], "2.0.1", False),
        ([{"introduced": "1.0"}, {"fixed": "1.5"}, {"introduced": "2.0"}], "1.7", False),
        ([{"introduced": "2.0"}, {"introduced": "1.0"}, {"fixed": "1.5"}], "2.1", True),
        ([{"introduced": "1!0"}], "9.0", False),
        ([{"introduced": "0"}, {"fixed": "1.0"}], "0.dev1", True),
    ],
)
def test_ranges(events: list[dict[str, str]], version: str, affected: bool) -> None:
    assert verdict(version, ranges=[{"type": "ECOSYSTEM", "events": events}]) == ("" if affected else None)


@pytest.mark.parametrize(
    ("said", "doubt"),
    [
        ({"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "no version"}]}]}, '"no version" is no version'),
        ({"ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}, {"fixed": "2.x"}]}]}, '"2.x" is no version'),
        ({"ranges": [{"type": "ECOSYSTEM", "events": [{"fixed": "2.0"}]}]}, "has no beginning"),
        ({"ranges": [{"type": "ECOSYSTEM", "events": "all"}], "versions": ["0.9"]}, "has no beginning"),
        ({"ranges": [{"type": "GIT", "events": [{"introduced": "0"}]}]}, "names no versions"),
        ({}, "names no versions"),
    ],
)
def test_what_cannot_be_judged_is_said(said: dict[str, Any], doubt: str) -> None:
    assert doubt in (verdict("1.0", **said) or "")


def test_a_list_of_versions_is_enough_beside_commits() -> None:
    commits = {"type": "GIT", "events": [{"introduced": "0"}]}
    assert verdict("1.0", ranges=[commits], versions=["0.9"]) is None
    assert verdict("0.9", ranges=[commits], versions=["0.9"]) == ""


def test_what_one_database_knows_is_not_in_doubt_for_another() -> None:
    plain, doubtful = (
        Advisory("anchor", "1.0", name, ("CVE-1",), "", (), doubt) for name, doubt in (("A", ""), ("B", "?"))
    )
    for both in ((plain, doubtful), (doubtful, plain)):
        (one,) = _merged(both)
        assert one.doubt == ""


@pytest.mark.parametrize(
    "affected", [None, [None], [{"package": None}], [{"package": {"ecosystem": "PyPI", "name": 3}}]]
)
def test_a_record_of_another_form_says_nothing(affected: object) -> None:
    assert list(matching({"id": "A", "affected": affected}, [("anchor", "1.0")])) == []
