"""Three hosts, each a real sshd, and a desk that reaches them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support import Result, Sandbox, make_wheel
from tests.support import fleet as support
from tests.support.fleet import Host

NAMES = ["h1", "h2", "h3"]


@dataclass
class Lab:
    """A desk and its hosts; the fleet of all of them is `lab`, of the profile `small`."""

    desk: Sandbox
    hosts: dict[str, Host]

    def deploy(self, *arguments: str, fleet: str = "lab", timeout: float = 120) -> Result:
        return self.desk.drydock("deploy", fleet, *arguments, timeout=timeout)

    def current(self, profile: str = "small") -> list[str]:
        return [host.current(profile) for host in self.hosts.values()]

    def fleet(self, text: str) -> None:
        (self.desk.work / "drydock.toml").write_text(text)


@pytest.fixture
def lab(locked: Sandbox, tmp_path: Path) -> Iterator[Lab]:
    """The profile `small` is locked at the desk, and nothing is built anywhere."""
    desk = locked
    files = {f"uv-{version('uv')}.data/scripts/uv": f'#!/bin/sh\nexec {desk.environment["DRYDOCK_UV"]} "$@"\n'}
    make_wheel(desk.wheels, "uv", version("uv"), tag="py3-none-manylinux_2_17_x86_64", files=files)
    desk.drydock("lock", "small", "--upgrade", "uv")
    with support.hosts(tmp_path / "hosts", NAMES) as (hosts, path):
        desk.environment["PATH"] = f"{path}:{desk.environment['PATH']}"
        made = Lab(desk, hosts)
        made.fleet('[fleets.lab]\nhosts = ["h[1-3]"]\nprofile = "small"\n')
        yield made
