"""Mirrors and bundles: a push of nothing new, and a build from one beside uv's own from the very same, a bundle."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.common import Row, drydock, run, work_folder
from benchmarks.measure import Command, side_by_side
from benchmarks.store import Desk
from builder import uv
from tests.support.remote import free_port


def mirrors(rounds: int) -> list[Row]:
    """`drydock push` of what is there, and builds from a web server on loopback with an empty cache of uv's."""
    with work_folder() as work:
        desk = Desk(work)
        mirror = work / "mirror"
        push = [*drydock(), "push", "cpu", str(mirror)]
        run(push, desk.env)
        with serve(mirror) as url:
            cache = work / "uv-cache"
            # The bytecode of these sources is there after the first round, as it is after any first build.
            commands = [
                Command("push", push, desk.env),
                Command(
                    "uv",
                    [
                        "sh",
                        "-c",
                        f"{uv.executable()} venv -q --python 3.11 {desk.venv} && {uv.executable()} pip sync -q "
                        f"--require-hashes --python {desk.venv} {work}/parts/requirements*.txt",
                    ],
                    {"UV_CACHE_DIR": str(cache), "UV_DEFAULT_INDEX": f"{url}/simple/", "PIP_FIND_LINKS": ""},
                    prepare=both(desk.aside(desk.venv), desk.aside(cache)),
                ),
                Command(
                    "ours",
                    ["sh", str(desk.script), "--build-only"],
                    {**desk.env, "UV_CACHE_DIR": str(cache), "DRYDOCK_CACHE": url, "PIP_FIND_LINKS": ""},
                    prepare=both(desk.aside(desk.home / "store"), desk.aside(cache)),
                ),
            ]
            done = side_by_side(commands, rounds)
    pushed = done["push"].median * 1000
    peer, ours = done["uv"].median, done["ours"].median
    return [
        Row(
            "push of nothing new to a folder",
            f"{pushed:.0f} ms",
            f"best {done['push'].best * 1000:.0f} ms",
            "<= 300 ms",
            pushed <= 300,
        ),
        Row(
            "a build from a web server on loopback over uv's from the same, caches empty",
            f"{ours / peer:.2f}",
            f"uv {peer:.2f} s, ours {ours:.2f} s; best {done['uv'].best:.2f}, {done['ours'].best:.2f} s",
            "<= 1.1",
            ours <= 1.1 * peer,
        ),
    ]


def bundles(rounds: int) -> list[Row]:
    """A bundle beside the wheels in it: its size, and an installation without a network and with empty caches."""
    with work_folder() as work:
        desk = Desk(work)
        file = work / "cpu.run"
        run([*drydock(), "bundle", "cpu", "-o", str(file)], desk.env)
        wheels = work / "wheels"
        wheels.mkdir()
        run([*drydock(), "push", "cpu", str(work / "mirror")], desk.env)
        for wheel in (work / "mirror").glob("files/*/*/*.whl"):
            wheel.rename(wheels / wheel.name)
        locked = sum(wheel.stat().st_size for wheel in wheels.iterdir())
        cache = work / "uv-cache"
        offline = {"UV_CACHE_DIR": str(cache), "UV_OFFLINE": "1", "PIP_FIND_LINKS": ""}
        commands = [
            Command(
                "uv",
                [
                    "sh",
                    "-c",
                    f"{uv.executable()} venv -q --python 3.11 {desk.venv} && {uv.executable()} pip sync -q --no-index "
                    f"--find-links {wheels} --require-hashes --python {desk.venv} {work}/parts/requirements*.txt",
                ],
                offline,
                prepare=both(desk.aside(desk.venv), desk.aside(cache)),
            ),
            Command(
                "bundle",
                ["sh", str(file), "--build-only"],
                {**desk.env, **offline},
                prepare=both(desk.aside(desk.home / "store"), desk.aside(cache)),
            ),
        ]
        done = side_by_side(commands, rounds)
        size = file.stat().st_size
    peer, ours = done["uv"].median, done["bundle"].median
    return [
        Row(
            "a bundle over the bytes of the wheels in it",
            f"{size / locked:.3f}",
            f"{size / 1e6:.1f} MB, wheels {locked / 1e6:.1f} MB",
            "<= 1.02",
            size <= 1.02 * locked,
        ),
        Row(
            "a bundle, installed, over `uv pip sync` from a folder of its wheels, caches empty",
            f"{ours / peer:.2f}",
            f"uv {peer:.2f} s, bundle {ours:.2f} s; best {done['uv'].best:.2f}, {done['bundle'].best:.2f} s",
            "<= 1.3",
            ours <= 1.3 * peer,
        ),
    ]


def both(one: Callable[[], None], other: Callable[[], None]) -> Callable[[], None]:
    def prepare() -> None:
        one()
        other()

    return prepare


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """A web server in a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"{url}/SHA256SUMS").close()
                break
            except urllib.error.URLError:
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait()
