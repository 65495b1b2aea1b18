"""`drydock audit`: by uv, of a server that speaks OSV's API, and in copies of its data."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.support import Sandbox


def record(name: str = "GHSA-aaaa-bbbb-cccc", **others: Any) -> dict[str, Any]:
    """A record of OSV about anchor before 2.0."""
    events = [{"introduced": "0"}, {"fixed": "2.0"}]
    package = {"ecosystem": "PyPI", "name": "Anchor"}
    return {
        "id": name,
        "modified": "2026-01-01T00:00:00Z",
        "published": "2025-01-01T00:00:00Z",
        "aliases": ["CVE-2026-1"],
        "summary": "the chain breaks",
        "affected": [{"package": package, "ranges": [{"type": "ECOSYSTEM", "events": events}]}],
        **others,
    }


class Service:
    """OSV's API, version 1, on loopback: it knows one record, of anchor."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.status = 200
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))["queries"]
                service.asked += asked
                rows = [{"vulns": [{"id": record()["id"], "modified": record()["modified"]}]}, {}]
                self._answer({"results": [rows[one["package"]["name"] != "anchor"] for one in asked]})

            def do_GET(self) -> None:
                self._answer(record())

            def _answer(self, data: dict[str, Any]) -> None:
                content = json.dumps(data).encode()
                self.send_response(service.status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def service() -> Iterator[Service]:
    one = Service()
    yield one
    one.close()


@pytest.mark.slow
def test_uv_asks_for_all_that_is_locked(locked: Sandbox, service: Service) -> None:
    done = locked.drydock("audit", "small", "--service", service.url)
    done.failed(1, "1 known vulnerability in small", "[audit.acknowledge] in small.toml")
    assert done.stdout == ("FAIL anchor 1.0: GHSA-aaaa-bbbb-cccc (CVE-2026-1), fixed in 2.0: the chain breaks\n")
    assert {one["package"]["name"] for one in service.asked} == {"anchor", "uv"}
    found = json.loads(locked.drydock("audit", "small", "--json", "--service", service.url).stdout)["small"]
    assert [one["id"] for one in found["found"]] == ["GHSA-aaaa-bbbb-cccc"]


def test_what_is_acknowledged_has_a_reason_and_changes_no_lock(locked: Sandbox, service: Service) -> None:
    path = locked.work / "profiles/small.toml"
    path.write_text(path.read_text() + '\n[audit.acknowledge]\nCVE-2026-1 = "no chain here"\nCVE-2020-9 = "gone"\n')
    locked.drydock("lock", "--check", "small").succeeded()
    done = locked.drydock("audit", "small", "--service", service.url).succeeded()
    assert done.stdout.startswith("ok   anchor 1.0: GHSA-aaaa-bbbb-cccc")
    assert done.stdout.endswith("(acknowledged: no chain here)\n")
    assert "[audit.acknowledge] CVE-2020-9 is of no package of the lock any more: remove it" in done.stderr
    path.write_text(path.read_text().replace('"no chain here"', '""'))
    locked.drydock("audit", "small", "--service", service.url).failed(1, "small.toml", "audit.acknowledge")


@pytest.mark.slow
def test_where_nobody_answers_nothing_is_known(locked: Sandbox, service: Service) -> None:
    words = ("nothing is known of the packages of small, as OSV was not reached", "--data PATH")
    locked.drydock("audit", "small", "--service", "http://127.0.0.1:9/", env={"UV_HTTP_RETRIES": "0"}).failed(1, *words)
    service.status = 500
    locked.drydock("audit", "small", "--service", service.url, env={"UV_HTTP_RETRIES": "0"}).failed(1, *words)
    locked.drydock("--offline", "audit", "small", "--service", service.url).failed(1, *words)


YAML = """\
id: PYSEC-2026-1
details: |
  The chain breaks.
  Badly.
affected:
- package: {ecosystem: PyPI, name: anchor}
  versions: ["0.9", "1.0"]
aliases: [CVE-2026-1]
"""


@pytest.mark.parametrize("kind", ["folder", "zip", "yaml"])
def test_a_copy_of_the_data_needs_no_network(locked: Sandbox, kind: str) -> None:
    """A folder, an archive as OSV offers one, and records of the Python Packaging Advisory Database."""
    place = locked.work / "osv"
    place.mkdir()
    other = record("GHSA-2", affected=[{"package": {"ecosystem": "npm", "name": "anchor"}, "versions": ["1.0"]}])
    if kind == "yaml":
        (place / "PYSEC-2026-1.yaml").write_text(YAML)
    for name, one in (("a", record()), ("b", other), ("c", record("GHSA-3", withdrawn="2026-01-01T00:00:00Z"))):
        (place / f"{name}.json").write_text(json.dumps(one))
    if kind == "zip":
        with zipfile.ZipFile(locked.work / "all.zip", "w") as archive:
            for path in place.iterdir():
                archive.write(path, path.name)
        place = locked.work / "all.zip"
    done = locked.drydock("--offline", "audit", "small", "--data", str(place))
    done.failed(1, "1 known vulnerability in small")
    assert done.stdout.startswith("FAIL anchor 1.0: ")
    assert done.stdout.count("\n") == 1, "one name of it is that of the other: it is one"


@pytest.mark.parametrize(
    ("name", "content"),
    [("x.json", b'{"affected": ["anchor"'), ("x.yaml", b"affected: [anchor"), ("x.json", b"{}"), ("x.zip", b"PK\5\6")],
)
def test_what_is_no_copy_of_the_data_is_an_error(locked: Sandbox, name: str, content: bytes) -> None:
    path: Path = locked.work / "osv" / name
    path.parent.mkdir()
    path.write_bytes(content)
    for place in (path, path.parent):
        done = locked.drydock("audit", "small", "--data", str(place))
        assert done.code == 2
        assert "Traceback" not in done.stderr
        assert done.stderr.startswith("asking for vulnerabilities of small\nerror: ")


def test_a_record_that_is_too_large_is_not_passed_over(locked: Sandbox) -> None:
    place = locked.work / "all.zip"
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", json.dumps(record(details="x" * (9 << 20))))
    done = locked.drydock("audit", "small", "--data", str(place))
    done.failed(2, "all.zip cannot be read: a.json is larger than any advisory")


def test_an_advisory_that_cannot_be_judged_is_not_passed_over(locked: Sandbox) -> None:
    events = [{"introduced": "r1"}, {"fixed": "r2"}]
    package = {"ecosystem": "PyPI", "name": "anchor"}
    affected = [{"package": package, "ranges": [{"type": "ECOSYSTEM", "events": events}]}]
    place = locked.work / "a.json"
    place.write_text(json.dumps(record(affected=affected)))
    done = locked.drydock("audit", "small", "--data", str(place))
    done.failed(1, "no known vulnerability, and 1 advisory that could not be judged in small")
    doubt = 'could not be judged, as "r1" is no version of PEP 440: the chain breaks'
    assert done.stdout == f"FAIL anchor 1.0: GHSA-aaaa-bbbb-cccc (CVE-2026-1), {doubt}\n"
    path = locked.work / "profiles/small.toml"
    path.write_text(path.read_text() + '\n[audit.acknowledge]\nCVE-2026-1 = "read by hand: before 1.0"\n')
    locked.drydock("audit", "small", "--data", str(place)).succeeded()


def test_a_reason_of_a_part_is_not_missed_in_each_profile_that_extends_it(locked: Sandbox) -> None:
    part = 'schema = 1\nname = "known"\n[audit.acknowledge]\nCVE-2026-1 = "no chain here"\nCVE-2020-9 = "of others"\n'
    locked.profile("known", part)
    path = locked.work / "profiles/small.toml"
    path.write_text(path.read_text().replace("[target]", 'extends = ["known"]\n[target]', 1))
    place = locked.work / "a.json"
    place.write_text(json.dumps(record()))
    done = locked.drydock("audit", "small", "--data", str(place)).succeeded()
    assert "1 acknowledged" in done.stderr
    assert "CVE-2020-9" not in done.stderr
