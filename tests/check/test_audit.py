"""`drydock audit`, through the program, on advisories in OSV's format."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from builder.check.audit import _affects
from tests.support import Sandbox

FIXED = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}]


def advisory(name: str = "anchor", **more: Any) -> dict[str, Any]:
    affected = {"package": {"ecosystem": "PyPI", "name": name}, "ranges": FIXED}
    return {
        "id": "PYSEC-2026-1",
        "aliases": ["CVE-2026-1"],
        "modified": "2026-11-20T10:00:00Z",
        "summary": "anchor drags",
        "affected": [{**affected, **more}],
    }


def snapshot(folder: Path, *advisories: dict[str, Any]) -> str:
    folder.mkdir(exist_ok=True)
    for number, one in enumerate(advisories):
        (folder / f"{number}.json").write_text(json.dumps(one))
    return str(folder)


def test_what_is_known_of_a_locked_release_fails(locked: Sandbox, tmp_path: Path) -> None:
    found = locked.drydock("audit", "small", "--advisories", snapshot(tmp_path / "osv", advisory())).failed(1)
    assert found.stdout == "FOUND anchor 1.0: PYSEC-2026-1, CVE-2026-1: anchor drags (fixed in 1.1)\n"
    assert "looked for in 1 advisories, the newest of 2026-11-20: 1 open, 0 known" in found.stderr


def test_a_zip_is_read_and_json_is_for_programs(locked: Sandbox, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("PYSEC-2026-1.json", json.dumps(advisory("Anchor")))
    found = locked.drydock("audit", "small", "--advisories", str(tmp_path / "all.zip"), "--json").failed(1)
    told = json.loads(found.stdout)
    assert (told["ok"], told["findings"][0]["advisory"], told["newest"]) == (False, "PYSEC-2026-1", "2026-11-20")


def test_what_is_acknowledged_with_a_reason_passes_and_makes_no_lock_stale(locked: Sandbox, tmp_path: Path) -> None:
    path = locked.work / "profiles/small.toml"
    before = path.read_text()
    path.write_text(
        before + '\n[packages.acknowledge]\nCVE-2026-1 = "it is not thrown here"\nCVE-1999-1 = "long gone"\n'
    )
    done = locked.drydock("audit", "small", "--advisories", snapshot(tmp_path / "osv", advisory()))
    path.write_text(before)
    done = done.succeeded()
    assert done.stdout.startswith("known anchor 1.0: PYSEC-2026-1")
    assert done.stdout.endswith("; acknowledged: it is not thrown here\n")
    assert "CVE-1999-1 is acknowledged, and is about nothing that is locked" in done.stderr


def test_a_release_that_is_repaired_or_an_advisory_that_is_withdrawn_is_nothing(
    locked: Sandbox, tmp_path: Path
) -> None:
    repaired = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.0"}]}]
    gone = {**advisory(), "id": "PYSEC-2026-2", "withdrawn": "2026-11-01T00:00:00Z"}
    folder = snapshot(tmp_path / "osv", advisory(ranges=repaired), gone)
    assert locked.drydock("audit", "small", "--advisories", folder).succeeded().stdout == ""


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "has no advisory about a package of PyPI"),
        (
            {"a.json": '{"id": "X-1", "affected": [{"package": {"ecosystem": "npm", "name": "anchor"}}]}'},
            "has no advisory",
        ),
        ({"a.json": "not json"}, "a.json is no advisory of OSV"),
        ({"a.json": json.dumps(advisory()), "b.json": "{}"}, "b.json is no advisory of OSV"),
    ],
)
def test_it_fails_where_nothing_was_looked_for(
    locked: Sandbox, tmp_path: Path, files: dict[str, str], words: str
) -> None:
    (tmp_path / "osv").mkdir()
    for name, text in files.items():
        (tmp_path / "osv" / name).write_text(text)
    locked.drydock("audit", "small", "--advisories", str(tmp_path / "osv")).failed(1, words)


def test_what_is_no_snapshot_is_wrong_use(locked: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "all.zip").write_bytes(b"PK cut off")
    locked.drydock("audit", "small", "--advisories", str(tmp_path / "all.zip")).failed(2, "cannot be read", "OSV's")
    locked.drydock("audit", "small", "--advisories", str(tmp_path / "none.zip")).failed(2, "cannot be read")


@pytest.mark.parametrize(
    ("events", "affected"),
    [
        ([{"introduced": "0"}], True),
        ([{"introduced": "1.5"}], False),
        ([{"introduced": "0"}, {"fixed": "0.5"}], False),
        ([{"introduced": "0"}, {"fixed": "0.5"}, {"introduced": "1.0"}, {"fixed": "1.2"}], True),
        ([{"introduced": "0"}, {"last_affected": "1.0"}], True),
        ([{"introduced": "0"}, {"last_affected": "0.9"}], False),
        ([{"introduced": "what?"}], True),
    ],
)
def test_a_range_goes_by_its_events_and_what_cannot_be_told_is_affected(
    events: list[dict[str, str]], *, affected: bool
) -> None:
    assert _affects({"ranges": [{"type": "ECOSYSTEM", "events": events}]}, "1.0") == affected
