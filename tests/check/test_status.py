"""What is on this machine, on a terminal and as a page: a real supervised run, a real server, and a real browser."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from builder.check.status.page import page, run_page
from builder.check.status.serve import server
from tests.support import Sandbox
from tests.support.browser import AXE, CHROMIUM, needs_axe, needs_browser, of_a_browser
from tests.support.waiting import LONG, until

RECORDED = {"DRYDOCK_RECORDS": "1"}
TRAINER = """
import pathlib, time
for step in range(400):
    print('step', step, 'loss', 3 / (step + 1), flush=True)
    time.sleep(0.05)
    if pathlib.Path('enough').exists():
        break
"""
EVIL = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"


@pytest.fixture
def desk(built: Sandbox) -> Iterator[Sandbox]:
    """A desk whose trainer prints losses until it is enough, sampled often."""
    built.trainer(TRAINER)
    path = built.work / "profiles/small.toml"
    path.write_text(f"{path.read_text()}\n[supervise]\nsample-every = 0.5\n")
    yield built
    (built.work / "enough").unlink(missing_ok=True)


def status(desk: Sandbox) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(desk.drydock("status", "--json").succeeded().stdout)
    return found


@pytest.mark.slow
def test_a_run_is_seen_while_it_goes_on_and_sent_as_a_page_when_it_has_ended(desk: Sandbox) -> None:
    process = desk.start("run", "small", "--supervise", env=RECORDED)
    try:
        until(lambda: any(len(run.get("curves", {}).get("loss", ())) > 3 for run in status(desk)["runs"]))
        live = status(desk)["runs"][-1]
        assert live["state"] == "running"
        assert live["losses"]["loss"]["first"] == 3.0
        assert live["losses"]["loss"]["last"] < 1.0
        shown = desk.drydock("status").succeeded().stdout
        assert re.search(r"^\d{8}-\d{6}-[0-9a-f]{8}  small  running", shown, re.MULTILINE), shown
    finally:
        (desk.work / "enough").touch()
        process.communicate(timeout=LONG)
    ended = status(desk)["runs"][-1]
    assert (ended["state"], ended["exit"]) == ("ended", 0)
    points = ended["curves"]["loss"]
    assert points[0] == [1, 3.0]
    assert [number for number, _ in points] == sorted(number for number, _ in points)
    assert status(desk)["profiles"][0]["name"] == "small"
    assert status(desk)["profiles"][0]["there"]

    desk.drydock("runs", "note", "last", EVIL).succeeded()
    file = desk.work / "run.html"
    assert desk.drydock("runs", "export", "last", "run.html", "--html").succeeded().stdout == "run.html\n"
    text = file.read_text()
    assert "<polyline" in text
    assert "&lt;script&gt;" in text
    assert "<script" not in text
    assert not re.search(r"<[^>]*(?:src|href)=|url\(|@import", text), "it asks nobody for anything"
    desk.drydock("runs", "export", "last", "run.html", "--html").failed(2, "run.html already exists")
    file.unlink()


def test_looking_changes_nothing(desk: Sandbox) -> None:
    desk.drydock("status").succeeded()  # the index of the records, and what profiles say of themselves
    before = _files(desk.store.parent)
    desk.drydock("status", "--json").succeeded()
    assert _files(desk.store.parent) == before


def _files(place: Path) -> set[tuple[str, int, int]]:
    return {
        (str(path), path.lstat().st_mtime_ns, path.lstat().st_size)
        for path in place.rglob("*")
        if "gcroots" not in path.parts
    }


DATA: dict[str, Any] = {
    "drydock": "0.1.0",
    "time": "2026-01-02T03:04:05.000Z",
    "profiles": [
        {
            "name": "small",
            "target": "linux-x86_64, cpu",
            "generation": 2,
            "generations": 2,
            "built": "2026-01-02T03:04:05+00:00",
            "key": "k" * 32,
            "there": True,
        }
    ],
    "runs": [
        {
            "id": "20260102-030405-00000000",
            "name": "small",
            "command": "train",
            "arguments": [EVIL],
            "state": "ended",
            "started": "2026-01-02T03:04:05.000Z",
            "ended": "2026-01-02T03:14:05.000Z",
            "exit": 1,
            "why": EVIL,
            "store-name": f"{'k' * 32}-small",
            "drydock": "0.1.0",
            "tags": ["lr"],
            "note": EVIL,
            "machine": {"os": EVIL, "chip": "", "gpus": None, "others": []},
            "code": {},
            "settings": {"A": EVIL},
            "seeds": {},
            "losses": {"loss": {"first": 3.0, "last": 1.0, "lowest": 0.5, "count": 3, "not-finite": 0}},
            "curves": {"loss": [[1, 3.0], [2, 0.5], [3, 1.0]]},
            "used": {"resident": 2_000_000_000, "cores": 1.5},
            "use": [[0.0, 1.0, 1_000_000_000], [60.0, 2.0, 2_000_000_000]],
        },
        {"id": "20260102-030406-00000000", "name": "small", "state": "damaged"},
    ],
    "machine": ["machine: Linux x86_64", "memory: 8.0 GiB"],
    "store": {"home": "/srv/store", "environments": 1, "free": None},
}


@pytest.fixture
def served() -> Iterator[tuple[str, list[str]]]:
    """The address of a page, whose profile has another name each time that it is asked for; and the times."""
    asked: list[str] = []

    def made(nonce: str) -> str:
        asked.append(nonce)
        profile = {**DATA["profiles"][0], "name": f"asked-{len(asked)}"}
        return page({**DATA, "profiles": [profile]}, nonce=nonce, every=0.5)

    found, address = server(0, made)
    with found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield address, asked
        found.shutdown()


def ask(address: str, method: str = "GET", path: str = "", **headers: str) -> http.client.HTTPResponse:
    place = urlsplit(address)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=10)
    connection.request(method, path or place.path, headers=headers)
    return connection.getresponse()


def test_the_page_is_for_who_has_the_token_and_asks_this_host(served: tuple[str, list[str]]) -> None:
    address, asked = served
    assert address.startswith("http://127.0.0.1:")
    assert len(urlsplit(address).path) > 30
    answer = ask(address)
    assert answer.status == 200
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["Cache-Control"] == "no-store"
    assert ask(address, path="/").status == 404
    assert ask(address, path=f"{urlsplit(address).path}x").status == 404
    assert ask(address, Host="evil.example").status == 421
    assert ask(address, method="POST").status == 501
    assert len(asked) == 1, "no other question reaches what is behind it"


def test_the_command_says_where_the_page_is_and_an_interrupt_ends_it(desk: Sandbox) -> None:
    process = desk.start("status", "--web")
    assert process.stdout is not None
    try:
        address = process.stdout.readline().decode().strip()
        answer = ask(address)
        assert answer.status == 200
        assert b"Drydock on this machine" in answer.read()
    finally:
        process.send_signal(2)
        _, said = process.communicate(timeout=LONG)
    assert process.returncode == 130
    assert b"Traceback" not in said
    desk.drydock("status", "--port", "1").failed(2, "--port goes with --web")
    desk.drydock("status", "--web", "--json").failed(2, "--web and --json do not go together")


def dump(address: str, *options: str) -> tuple[str, str]:
    """The page as a browser has it after some seconds, and what the browser says."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", *options]
    done = subprocess.run(
        [*command, "--dump-dom", address], capture_output=True, text=True, check=True, timeout=120, env=of_a_browser()
    )
    return done.stdout, done.stderr


@pytest.mark.slow
@needs_browser
def test_a_browser_shows_the_page_keeps_it_new_and_runs_nothing_of_others(served: tuple[str, list[str]]) -> None:
    address, asked = served
    seen, said = dump(address, "--virtual-time-budget=4000")
    assert len(asked) > 1, "it asks again by itself"
    assert re.search(r"asked-([2-9]|\d\d)", seen)
    assert "<title>Drydock on this machine</title>" in seen
    assert "CONSOLE" not in said, said
    assert seen.count("<polyline") == 0, "of an older run its numbers are enough"
    assert EVIL not in seen


@pytest.mark.slow
@needs_browser
def test_a_browser_shows_the_page_of_a_run(tmp_path: Path) -> None:
    file = tmp_path / "run.html"
    file.write_text(run_page(DATA["runs"][0]))
    seen, said = dump(file.as_uri())
    assert "CONSOLE" not in said, said
    assert "<title>small, run 20260102-030405-00000000</title>" in seen
    assert seen.count("<polyline") == 3
    assert "✗ failed (1)" in seen


@needs_browser
@needs_axe
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_have_no_serious_finding_of_axe(tmp_path: Path, width: int, scheme: str) -> None:
    check = "axe.run().then(found => document.body.append('AXE' + JSON.stringify(found.violations) + 'END'))"
    for name, text in {"status": page(DATA), "run": run_page(DATA["runs"][0])}.items():
        file = tmp_path / f"{name}.html"
        text = re.sub("<meta http-equiv=.*?>", "", text)
        file.write_text(text.replace("</body>", f"<script>{AXE.read_text()}</script><script>{check}</script></body>"))
        colours = f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"
        seen, _ = dump(file.as_uri(), colours, f"--window-size={width},1400", "--virtual-time-budget=8000")
        found = re.search(r"AXE(\[.*?\])END", seen, re.DOTALL)
        assert found is not None
        assert found[1] == "[]"
