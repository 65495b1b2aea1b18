"""An agent of launchd on a host of a fleet, as far as that can be shown without a Mac.

The property list is read by plistlib; `launchctl` is a stand-in that does what its manual says of print, bootstrap and
bootout, and starts what the list says, as it says it.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import json
import os
import plistlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from builder.embedded import claim
from builder.errors import DrydockError
from builder.fleet import launcher, services, units
from builder.run import service
from builder.run.supervise.policy import Policy
from tests.support.waiting import until

LAUNCHCTL = """\
#!{python}
import os, pathlib, plistlib, signal, subprocess, sys
jobs, verb, words = pathlib.Path({jobs!r}), sys.argv[1], sys.argv[2:]
def job(target):
    path = jobs / target.replace("/", "_")
    if not path.exists():
        sys.exit(113)
    number, file = path.read_text().split("\\n")
    return path, int(number), file
if verb == "print" and words[0].count("/") == 1:
    sys.exit(0 if words[0] == f"gui/{{os.getuid()}}" else 113)
elif verb == "print":
    _, number, file = job(words[0])
    alive = "State:\\tZ" not in pathlib.Path(f"/proc/{{number}}/status").read_text()
    print(f"{{words[0]}} = {{{{\\n\\tpath = {{file}}\\n\\tstate = {{'running' if alive else 'not running'}}\\n}}}}")
elif verb == "bootstrap":
    agent = plistlib.loads(pathlib.Path(words[1]).read_bytes())
    log = open(agent["StandardErrorPath"], "ab")
    env = {{"HOME": os.environ["HOME"], "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", **agent["EnvironmentVariables"]}}
    started = subprocess.Popen(agent["ProgramArguments"], cwd=agent["WorkingDirectory"], env=env, stdout=log,
                               stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
    (jobs / f"{{words[0]}}/{{agent['Label']}}".replace("/", "_")).write_text(f"{{started.pid}}\\n{{words[1]}}")
elif verb == "bootout":
    path, number, _ = job(words[0])
    os.kill(number, signal.SIGTERM)
    while os.path.exists(f"/proc/{{number}}") and "State:\\tZ" not in open(f"/proc/{{number}}/status").read():
        pass
    path.unlink()
"""
RUN = """\
#!/bin/sh
echo "ran $* with $DEPTH in $PWD"
exec sleep 100
"""


class Mac:
    """A host that says it is a Mac, on which the profile `small` is built."""

    def __init__(self, folder: Path) -> None:
        self.home, self.store = folder / "a home", folder / "a home/store & <more>"
        (self.store / "store/key-small/bin").mkdir(parents=True)
        (self.store / "store/key-small/bin/python").symlink_to(sys.executable)
        (self.store / "profiles").mkdir()
        (self.store / "profiles/small-1-link").symlink_to("../store/key-small")
        (self.store / "profiles/small").symlink_to("small-1-link")
        (self.store / "profiles/small-1-run.sh").write_text(RUN)
        (folder / "bin").mkdir()
        (folder / "jobs").mkdir()
        (folder / "bin/launchctl").write_text(LAUNCHCTL.format(python=sys.executable, jobs=str(folder / "jobs")))
        (folder / "bin/launchctl").chmod(0o755)
        self.env = {**os.environ, "HOME": str(self.home), "PATH": f"{folder}/bin:{os.environ['PATH']}"}
        self.file = self.home / "Library/LaunchAgents/drydock.small.plist"
        self.services = self.store / "fleet/services/small"

    def asked(self, do: str, fleet: str = "lab") -> dict[str, Any]:
        unit = service.rendered(
            "small",
            "launchd",
            folder=f"{self.home}/drydock/small",
            environment={"DRYDOCK_HOME": str(self.store)},
            command=[
                f"{self.store}/profiles/small/bin/python",
                "-I",
                "-S",
                f"{self.services}/service.pyz",
                str(self.services),
            ],
            grace=5,
            log=f"{self.services}/service.log",
            fleet=fleet,
        )
        settings: dict[str, Any] = {
            "name": "small",
            "stem": "small",
            "fleet": fleet,
            "store": str(self.store),
            "arguments": ["--more"],
        }
        settings |= {"environment": {"DEPTH": "<7>"}, "policy": asdict(Policy(grace=5))}
        carried = base64.b64encode(services._carried()).decode()
        asked = {"do": do, "stem": "small", "fleet": fleet, "folder": "drydock/small", "grace": 5, "unit": unit}
        return {**asked, "pyz": carried, "settings": settings, "lines": 10}

    def does(self, do: str, fleet: str = "lab") -> tuple[dict[str, Any], str]:
        """What it answers, and its error."""
        code = services._units().replace("from __future__ import annotations", "import sys; sys.platform = 'darwin'")
        words = [sys.executable, "-I", "-S", "-c", code, "mark", str(self.store), f"{self.store}/fleet"]
        text = json.dumps(self.asked(do, fleet)) + "\n"
        done = subprocess.run(words, input=text, env=self.env, capture_output=True, text=True, timeout=60)
        rows = [
            json.loads(line[len("@mark row ") :]) for line in done.stdout.splitlines() if line.startswith("@mark row ")
        ]
        return (rows[0] if rows else {}), done.stderr


def test_an_agent_is_installed_updated_and_taken_back(tmp_path: Path) -> None:
    mac = Mac(tmp_path)
    assert mac.does("check") == ({"identities": [], "kind": "launchd"}, "")
    row, wrong = mac.does("install")
    assert (row["installed"], row["manager"], row["state"]["phase"], wrong) == (True, "running", "running", "")
    agent = plistlib.loads(mac.file.read_bytes())
    assert agent["Label"] == "drydock.small"
    assert (agent["RunAtLoad"], agent["KeepAlive"]) == (True, {"Crashed": True})
    log = mac.services / "log"
    until(log.read_text)
    assert log.read_text() == f"ran -- --more with <7> in {mac.home}/drydock/small\n"
    assert mac.does("install")[0]["started"] is False
    (mac.store / "profiles/small-1-run.sh").write_text(RUN.replace("ran", "ran again"))  # a changed setting
    assert mac.does("restart")[0]["started"] is True
    assert "is a service of the fleet lab here" in mac.does("install", "other")[1]
    ours = mac.file.read_bytes()
    mac.file.write_bytes(ours.replace(b"Interactive", b"Background"))
    assert "was changed by hand, and is left alone" in mac.does("install")[1]
    assert "was changed by hand" in mac.does("status")[0]["note"]
    mac.file.write_bytes(ours)
    number = mac.does("status")[0]["state"]["trainer"]
    row, why = mac.does("remove")
    assert [run["phase"] for run in row.pop("runs")][-1] == "ended"
    assert (row, why) == ({"installed": False, "removed": True}, "")
    assert not mac.file.exists()
    assert not Path(f"/proc/{number}/cmdline").exists() or not Path(f"/proc/{number}/cmdline").read_bytes()
    assert log.exists()
    assert not list((tmp_path / "jobs").iterdir())


def test_a_mac_where_nobody_is_logged_in_says_so(tmp_path: Path) -> None:
    mac = Mac(tmp_path)
    (tmp_path / "bin/launchctl").write_text("#!/bin/sh\necho 'Could not find domain for'\nexit 113\n")
    assert "launchd has no session of this user: log in at the screen of this Mac" in mac.does("install")[1]
    assert not mac.file.exists()


@pytest.mark.parametrize("ask", [launcher.is_free, units.is_free, claim.lock])
def test_who_has_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Callable[..., bool | None]) -> None:
    ours, theirs = (os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT) for _ in range(2))
    fcntl.flock(theirs, fcntl.LOCK_SH)
    assert (ask(ours, shared=True), ask(ours)) == (True, False)
    os.close(theirs)
    assert ask(ours) is True

    def without(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", without)
    assert ask(ours) is None, "nobody is known to have it"
    os.close(ours)


def test_code_comes_to_a_host_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fcntl, "flock", without)
    monkeypatch.setattr(launcher, "SILENCE", -1000.0)  # it would give up at once
    launcher.refuse_trainer()


def test_what_a_host_says_of_its_service_is_text() -> None:
    for lie in (
        {"installed": True, "warnings": 7, "identities": {"a": 1}, "state": [1]},
        {
            "installed": True,
            "state": {"phase": "running", "store_name": None, "restarts": [], "sample": {"memory": "x"}},
        },
        {"installed": True, "state": {"phase": "ended", "last_exit": "0", "why": "\x1b[2J", "last_lines": [3]}},
        {"installed": 1, "note": "\x1b]0;mine\x07", "state": {"phase": {}}},
    ):
        row = services.Row("small")
        asked = services._Ask(row, "h1", {"do": "status"})
        asked.read_answer(f"row {json.dumps(lie)}")
        one = {"profile": "small", "why": "", **row.found}
        told = "".join(services.describe({"fleet": "lab", "name": "small", "services": {"h1": one}}))
        assert "h1: small" in told
        assert "\x1b" not in told


@pytest.mark.parametrize("kind", ["systemd", "launchd"])
def test_each_unit_has_one_stamp_which_a_change_breaks(kind: service.Manager) -> None:
    values = {"folder": "/h", "environment": {"A": "drydock-unit"}, "command": ["/p"], "grace": 5.0, "log": "/l"}
    text = service.rendered("small", kind, fleet="lab", **values).encode()  # type: ignore[arg-type]
    assert len(units._STAMP.findall(text)) == 1
    stamped = units._STAMP.sub(rb"\g<1>" + units.stamp(text), text)
    assert units.stamp(stamped) == units.stamp(text) != units.stamp(stamped + b"\n")
    with pytest.raises(DrydockError, match="cannot express"):
        service.rendered("small", kind, fleet="lab", **{**values, "environment": {"A": "\0"}})  # type: ignore[arg-type]
