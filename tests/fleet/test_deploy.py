"""A fleet: what is deployed, to which hosts, and what becomes of those that fail."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from builder.embedded import wheels
from builder.fleet.ssh import program
from tests.fleet.conftest import Lab
from tests.support import make_wheel
from tests.support.waiting import LONG, allowed, until


@pytest.mark.slow
def test_all_hosts_are_built_then_switched_and_are_the_same(lab: Lab) -> None:
    done = lab.deploy().succeeded()
    (name,) = set(lab.current())
    assert name.endswith("-small")
    assert done.stdout.startswith(f"h[1-3]: small {name[:8]} is switched (Python 3.11.")
    assert done.stdout.count("\n") == 1
    again = lab.deploy("--json").succeeded()
    rows = json.loads(again.stdout)["hosts"]
    assert {row["state"] for row in rows.values()} == {"current"}
    assert {row["sent"] for row in rows.values()} == {0}
    assert len({row["files"] for row in rows.values()}) == 1


@pytest.mark.slow
def test_what_a_host_has_is_not_sent_again(lab: Lab) -> None:
    lab.deploy().succeeded()
    assert (lab.hosts["h1"].drydock / f"tools/uv-{version('uv')}/bin/uv").exists()
    make_wheel(lab.desk.wheels, "buoy", "1.0", files={"buoy/__init__.py": f"# {'x' * 5000}\n"})
    lab.desk.profile("small", lab.desk.profile("small").read_text().replace('["anchor"]', '["anchor", "buoy"]'))
    lab.desk.drydock("lock", "small").succeeded()
    before = lab.current()
    done = lab.deploy("--json").succeeded()
    rows = json.loads(done.stdout)["hosts"]
    script = next((lab.desk.root / "home").glob(".local/share/drydock/cache/scripts/*/*.sh"))
    wheel = (lab.desk.wheels / "buoy-1.0-py3-none-any.whl").stat().st_size
    for row in rows.values():
        assert row["state"] == "switched"
        assert row["sent"] < wheel + len(gzip.compress(script.read_bytes())) * 1.1 + 8_000
    assert set(before).isdisjoint(lab.current())
    assert not list(lab.hosts["h1"].drydock.glob("fleet/.new-*"))
    assert list((lab.hosts["h1"].drydock / "fleet/scripts").iterdir()) == []


@pytest.mark.slow
def test_data_comes_to_each_host_once(lab: Lab) -> None:
    folder = lab.desk.work / "rows"
    folder.mkdir()
    (folder / "rows.bin").write_bytes(os.urandom(500_000))
    tail = '[data.rows]\nfolder = "rows"\n'
    lab.desk.profile("small", tail=tail)
    lab.desk.drydock("lock", "small").succeeded()
    lab.deploy().succeeded()
    for host in lab.hosts.values():
        (rows,) = host.drydock.glob("data/views/*-small/data/rows/rows.bin")
        assert rows.read_bytes() == (folder / "rows.bin").read_bytes()
    make_wheel(lab.desk.wheels, "buoy", "1.0")
    lab.desk.profile(
        "small", lab.desk.profile("small", tail=tail).read_text().replace('["anchor"]', '["anchor", "buoy"]')
    )
    lab.desk.drydock("lock", "small").succeeded()
    told = json.loads(lab.deploy("--json").succeeded().stdout)["hosts"].values()
    assert {row["state"] for row in told} == {"switched"}
    assert all(row["sent"] < 300_000 for row in told), told
    # Other data is no other environment, and is sent all the same.
    before = lab.current()
    (folder / "rows.bin").write_bytes(os.urandom(400_000))
    lab.desk.drydock("lock", "small").succeeded()
    told = json.loads(lab.deploy("--json").succeeded().stdout)["hosts"].values()
    assert all(400_000 < row["sent"] < 700_000 for row in told), told
    assert lab.current() == before
    for host in lab.hosts.values():
        views = host.drydock.glob("data/views/*-small/data/rows/rows.bin")
        assert (folder / "rows.bin").read_bytes() in [rows.read_bytes() for rows in views]


@pytest.mark.slow
def test_what_was_damaged_on_a_host_is_sent_again(lab: Lab) -> None:
    lab.deploy().succeeded()
    make_wheel(lab.desk.wheels, "buoy", "1.0")
    lab.desk.profile("small", lab.desk.profile("small").read_text().replace('["anchor"]', '["anchor", "buoy"]'))
    lab.desk.drydock("lock", "small").succeeded()
    (note,) = [path for path in lab.hosts["h1"].drydock.glob("wheels/*/*.json") if "anchor" in path.read_text()]
    note.write_text("")
    (module,) = lab.hosts["h2"].drydock.glob("wheels/*/*/lib/python3.11/site-packages/anchor/__init__.py")
    module.chmod(0o644)
    module.write_text("evil = True\n")
    done = lab.deploy().succeeded()
    assert "h2: anchor was damaged there, and comes again" in done.stderr
    assert "h1: anchor" not in done.stderr  # what cannot be read is not known there
    assert len(set(lab.current())) == 1
    for host in lab.hosts.values():
        (current,) = host.drydock.glob("profiles/small/lib/python3.11/site-packages/anchor/__init__.py")
        assert "evil" not in current.read_text()


@pytest.mark.slow
def test_what_the_desk_has_unpacked_is_copied_and_looked_at_like_a_wheel(lab: Lab) -> None:
    files = {"cargo/data.txt": "x" * 11_000_000, "cargo/__init__.py": "def main():\n    print('loaded')\n"}
    # As numpy has them: bytecode of its own, which the store's takes the place of, and some that has no source.
    files |= {f"cargo/__pycache__/{name}.cpython-311.pyc": "theirs" for name in ("__init__", "lone")}
    entry = "[console_scripts]\nload = cargo:main\n"
    make_wheel(lab.desk.wheels, "cargo", "1.0", files=files, entry_points=entry)
    lab.desk.profile("small", lab.desk.profile("small").read_text().replace('["anchor"]', '["anchor", "cargo"]'))
    lab.desk.drydock("lock", "small").succeeded()
    own = lab.desk.home / ".local/share/drydock"
    lab.desk.drydock("build", "small").succeeded()
    fleet = '[fleets.lab]\nhosts = ["h[1-3]"]\nprofile = "small"\n'
    lab.fleet(f'{fleet}send = "copies"\n[fleets.two]\nhosts = ["h[1-2]"]\nprofile = "small"\n')
    done = lab.deploy("--verify").succeeded()
    assert re.search(r"h\S+: receives 11.\d MB unpacked", done.stderr)
    assert "cannot be used" not in done.stderr
    host = lab.hosts["h3"].drydock
    assert "loaded" in lab.desk.run([str(host / "profiles/small/bin/load")]).succeeded().stdout
    (compiled,) = host.glob("wheels/*/*/lib/python3.11/site-packages/cargo/__pycache__/__init__*.pyc")
    assert compiled.read_bytes() in [path.read_bytes() for path in host.glob("bytecode/*/??/*.pyc")]
    # What was changed at the desk is noticed where it comes, and the wheel itself is sent.
    (data,) = own.glob("wheels/*/*/lib/python3.11/site-packages/cargo/data.txt")
    data.chmod(0o644)
    data.write_text("y" * 11_000_000)
    shutil.rmtree(host, onerror=_unprotect)
    done = lab.deploy("--verify").succeeded()
    assert "h3: what is unpacked here cannot be used there, so it builds: cargo came damaged" in done.stderr
    assert len(set(re.findall(r"files \w+", done.stdout))) == 1
    assert not list(host.glob("fleet/.new-*")) + list(host.glob("wheels/*/.new-*"))
    # Three hosts share a network on which a copy pays for two.
    for one in lab.hosts.values():
        shutil.rmtree(one.drydock, onerror=_unprotect)
    data.write_text("x" * 11_000_000)
    lab.desk.drydock("build", "small").succeeded()
    assert "unpacked" in lab.deploy(fleet="two").succeeded().stderr
    lab.fleet(fleet)
    assert "unpacked" not in lab.deploy().succeeded().stderr
    lab.fleet(f'{fleet}send = "all"\n')
    lab.deploy().failed(1, 'must be "copies" or "wheels"')


# What comes by ssh, a block of 64 kB every so often, so that a copy lasts for seconds.
SLOWLY = """\
import os, time
while block := os.read(0, 1 << 16):
    time.sleep(0.02)
    while block:
        block = block[os.write(1, block):]
"""


@pytest.mark.slow
def test_a_copy_that_is_killed_half_way_comes_again(lab: Lab) -> None:
    files = {f"cargo/data{number}.txt": str(number) * 2_000_000 for number in range(6)}
    make_wheel(lab.desk.wheels, "cargo", "1.0", files=files)
    lab.desk.profile("small", lab.desk.profile("small").read_text().replace('["anchor"]', '["anchor", "cargo"]'))
    lab.desk.drydock("lock", "small").succeeded()
    lab.desk.drydock("build", "small").succeeded()
    lab.fleet('[fleets.lab]\nhosts = ["h1"]\nprofile = "small"\n')
    host = lab.hosts["h1"]
    (host.folder / "slowly.py").write_text(SLOWLY)
    fast = (host.folder / "command").read_text()
    host.answers(fast.partition("\n")[2].replace("exec env", f"{host.python} {host.folder}/slowly.py | env"))

    def half_way() -> subprocess.Popen[bytes]:
        desk = lab.desk.start("deploy", "lab")
        until(lambda: bool(list(host.drydock.glob("wheels/*/.new-*/lib/python3.11/site-packages/cargo/data2.txt"))))
        assert not list(host.drydock.glob("wheels/*/.new-*/lib/python3.11/site-packages/cargo/data5.txt"))
        return desk

    # At the desk: the host notices, and leaves nothing.
    desk = half_way()
    desk.kill()
    desk.communicate()
    until(lambda: len(host.processes()) == 1)
    assert not list(host.drydock.glob("fleet/.new-*")) + list(host.drydock.glob("wheels/*/.new-*"))
    # What had come whole before stays.
    assert list(host.drydock.glob("wheels/*/*/lib/python3.11/site-packages/anchor"))
    assert not list(host.drydock.glob("wheels/*/*/lib/python3.11/site-packages/cargo"))
    # At the host: what it left is passed over, and swept.
    desk = half_way()
    host.pull_the_plug()
    out, _ = desk.communicate(timeout=60)
    assert desk.returncode == 1
    assert b"h1: lost" in out
    assert list(host.drydock.glob("wheels/*/.new-*"))
    (host.folder / "command").write_text(fast)
    host.start()
    done = lab.deploy("--verify").succeeded()
    assert re.search(r"h1: receives 12.\d MB unpacked", done.stderr)
    assert "cannot be used" not in done.stderr
    assert not list(host.drydock.glob("wheels/*/.new-*"))


def _unprotect(remove: Callable[[str], object], path: str, _: object) -> None:
    Path(path).parent.chmod(0o755)
    Path(path).chmod(0o755)
    remove(path)


@pytest.mark.slow
def test_a_setting_is_deployed_without_a_build(lab: Lab) -> None:
    lab.deploy().succeeded()
    before = lab.current()
    lab.desk.profile("small", tail='[env]\nDEPTH = "7"\n')
    assert "would be switched" in lab.deploy("--dry-run").succeeded().stdout
    lab.deploy().succeeded()
    assert lab.current() == before
    script = (lab.hosts["h2"].drydock / "profiles/small-1-run.sh").read_text()
    assert "export DEPTH='7'" in script


@pytest.mark.slow
def test_a_dry_run_shows_what_differs_and_changes_nothing(lab: Lab) -> None:
    done = lab.deploy("--dry-run").succeeded()
    assert "h[1-3]: small" in done.stdout
    assert "would be built" in done.stdout
    assert not any(host.drydock.exists() for host in lab.hosts.values())


@pytest.mark.slow
def test_where_one_host_fails_none_is_switched_and_only_that_one_is_asked_again(lab: Lab) -> None:
    full = lab.hosts["h3"].drydock
    full.parent.mkdir(parents=True)
    full.write_text("in the way")
    done = lab.deploy().failed(1, "lab: 2 of 3 hosts", "nothing was switched", "drydock deploy lab --only-failed")
    assert "h3: failed:" in done.stdout
    assert str(full) in done.stdout
    assert "h[1-2]: small" in done.stdout
    assert lab.current() == ["", "", ""]
    full.unlink()
    lab.hosts["h1"].answers("echo it was asked >&2; exit 9")  # to be built; switching is another matter
    again = lab.deploy("--only-failed").failed(1)
    assert "it was asked" in again.stdout  # it was built already, and must be switched
    assert lab.current() == ["", "", ""]  # as one of them could not be
    lab.hosts["h1"].behaves()
    lab.deploy("--only-failed").succeeded()
    assert len(set(lab.current())) == 1
    assert lab.current()[0]


@pytest.mark.slow
def test_so_many_hosts_are_enough_where_that_is_said(lab: Lab) -> None:
    lab.hosts["h2"].pull_the_plug()
    done = lab.deploy("--fewest", "2").failed(1, "lab: 2 of 3 hosts")
    assert "h2: unreachable: ssh: connect to host 127.0.0.1" in done.stdout
    assert lab.current()[1] == ""
    assert lab.current()[0] == lab.current()[2] != ""
    assert "h2" in lab.deploy("--only-failed").failed(1).stdout
    lab.hosts["h2"].start()
    lab.deploy("--only-failed").succeeded()
    assert len(set(lab.current())) == 1


@pytest.mark.slow
def test_all_go_back_in_one_command(lab: Lab) -> None:
    lab.deploy("--rollback").failed(1, "0 of 3 hosts")
    lab.deploy().succeeded()
    first = lab.current()
    make_wheel(lab.desk.wheels, "anchor", "2.0")
    lab.desk.drydock("lock", "small", "--upgrade", "anchor").succeeded()
    lab.deploy("--verify").succeeded()
    assert set(first).isdisjoint(lab.current())
    done = lab.deploy("--rollback").succeeded()
    assert done.stdout.startswith(f"h[1-3]: small {first[0][:8]}")
    assert lab.current() == first
    assert "would be switched, 0.0 MB to send" in lab.deploy("--dry-run").succeeded().stdout
    assert "small" in lab.deploy().succeeded().stdout  # and forward again, without a build
    assert set(first).isdisjoint(lab.current())


@pytest.mark.slow
def test_hosts_that_share_their_home_are_deployed_rolled_back_and_run(lab: Lab) -> None:
    first = lab.hosts["h1"]
    for name in ("h2", "h3"):
        lab.hosts[name].home.rmdir()
        lab.hosts[name].home.symlink_to(first.home)
    lab.desk.trainer("import anchor; print('has', anchor.version, open('word.txt').read())")
    lab.fleet('[fleets.lab]\nhosts = ["h[1-3]"]\nprofile = "small"\nbring = ["word.txt"]\n')
    (lab.desk.work / "word.txt").write_text("one")
    done = lab.deploy().succeeded()
    assert "lab: 3 of 3 hosts" in done.stderr
    make_wheel(lab.desk.wheels, "anchor", "2.0")
    lab.desk.drydock("lock", "small", "--upgrade", "anchor").succeeded()
    before = first.current("small")
    lab.deploy().succeeded()
    assert len(list(first.drydock.glob("profiles/small-*-link"))) == 2
    assert lab.desk.drydock("run", "small", "--on", "lab").succeeded().stdout.count("has 2.0 one") == 3
    lab.deploy("--rollback").succeeded()
    assert first.current("small") == before
    (lab.desk.work / "word.txt").write_text("two")
    assert lab.desk.drydock("run", "small", "--on", "lab").succeeded().stdout.count("has 1.0 two") == 3
    assert not list(first.home.glob("drydock/small/.drydock-bring.*"))


@pytest.mark.slow
def test_old_generations_go_on_all_hosts_and_what_only_they_needed(lab: Lab) -> None:
    names = []
    for version_ in ("1.0", "2.0", "3.0"):
        make_wheel(lab.desk.wheels, "anchor", version_)
        lab.desk.drydock("lock", "small", "--upgrade", "anchor").succeeded()
        lab.deploy().succeeded()
        names.append(lab.current()[0])
    store = lab.hosts["h2"].drydock / "store"
    assert {path.name for path in store.iterdir() if path.name.endswith("-small")} == set(names)
    done = lab.deploy("--gc").succeeded()
    assert re.search(r"^h\[1-3\]: \d+ paths? deleted, [0-9.]+ MB$", done.stdout, re.MULTILINE)
    assert {path.name for path in store.iterdir() if path.name.endswith("-small")} == set(names[1:])
    assert lab.current() == [names[2]] * 3
    lab.deploy("--rollback").succeeded()
    assert lab.current() == [names[1]] * 3
    assert not list(lab.hosts["h2"].drydock.glob("fleet/.new-*"))
    lab.deploy("--gc", "--verify").failed(2, "by themselves")


@pytest.mark.slow
def test_auto_is_decided_at_the_desk_for_each_host(lab: Lab) -> None:
    text = lab.desk.profile("small").read_text().replace("[python]", '[target.match]\nchip = "*"\n\n[python]')
    lab.desk.profile("small", text)
    lab.fleet('[fleets.lab]\nhosts = ["h1", "h2"]\n')
    lab.desk.drydock("lock", "small").succeeded()
    # One of them says that it is a Mac: what is not for it is not sent.
    mac = lab.hosts["h2"].folder / "bin"
    mac.mkdir()
    (mac / "uname").write_text("#!/bin/sh\ncase $1 in -s) echo Darwin ;; -m) echo arm64 ;; *) echo 24.0 ;; esac\n")
    (mac / "uname").chmod(0o755)
    command = lab.hosts["h2"].folder / "command"
    command.write_text(command.read_text().replace("PATH=/usr/local/bin", f"PATH={mac}:/usr/local/bin"))
    done = lab.deploy("--fewest", "1").failed(1)
    assert "h1: small" in done.stdout
    assert "h2: failed: no profile is for this machine (Darwin arm64)" in done.stdout
    assert "h2: failed: small is for linux-x86_64, and this is Darwin arm64" in lab.deploy("small").failed(1).stdout
    lab.desk.drydock("run", "--on", "lab").failed(1, "h2: no profile is for this machine", "1 of 2 hosts")


@pytest.mark.slow
def test_auto_runs_on_each_host_what_is_for_it(lab: Lab) -> None:
    text = lab.desk.profile("small").read_text()
    matched = '[target.match]\nchip = "{}"\n\n[python]'
    lab.desk.profile("small", text.replace("[python]", matched.format("*")))
    other = text.replace('"small"', '"other"').replace(
        "print('trained with', anchor.version)", "import os; print('deep', os.environ['DEPTH'])"
    )
    lab.desk.profile("other", other.replace("[python]", matched.format("Other*")))
    lab.desk.drydock("lock", "small", "other").succeeded()
    lab.fleet('[fleets.lab]\nhosts = ["h[1-2]"]\n[fleets.lab.env.h2]\nDEPTH = "7"\n')
    chip = lab.hosts["h2"].folder / "bin"
    chip.mkdir()
    (chip / "head").write_text(
        '#!/bin/sh\n[ "$3" = /proc/cpuinfo ] || exec /usr/bin/head "$@"\necho "model name : Other 1"\n'
    )
    (chip / "head").chmod(0o755)
    command = lab.hosts["h2"].folder / "command"
    command.write_text(command.read_text().replace("PATH=/usr/local/bin", f"PATH={chip}:/usr/local/bin"))
    lab.deploy().succeeded()
    ran = lab.desk.drydock("run", "--on", "lab").succeeded()  # one that is not named is the fleet's
    assert "auto: small on h1" in ran.stderr
    assert "h1 | trained with 1.0" in ran.stdout
    assert "h2 | deep 7" in ran.stdout
    seen = lab.desk.drydock("run", "auto", "--on", "lab", "--status").succeeded().stdout
    assert "  h1: small ended, exit status 0" in seen
    assert "  h2: other ended, exit status 0" in seen
    lab.fleet('[fleets.lab]\nhosts = ["h1"]\n[fleets.lab.env.h3]\nDEPTH = "7"\n')
    lab.desk.drydock("run", "--on", "lab").failed(2, "h3 is not a host of lab")


def test_a_host_says_which_wheels_are_of_the_format_that_scripts_read() -> None:
    assert f"""'^{{"format":{wheels.FORMAT},'""" in program()


# --- enemies -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_host_with_another_key_is_not_spoken_to(lab: Lab) -> None:
    key = (lab.hosts["h2"].folder / "key.pub").read_text().split()[1]
    other = (lab.hosts["h1"].folder / "key.pub").read_text().split()[1]
    known = lab.hosts["h1"].folder.parent / "known_hosts"
    known.write_text(known.read_text().replace(key, other))
    done = lab.deploy().failed(1)
    assert "h2: unreachable: its host key has changed" in done.stdout
    known.write_text("")
    assert "h[1-3]: unreachable: its host key is not known here" in lab.deploy().failed(1).stdout


@pytest.mark.slow
def test_what_would_ask_for_a_password_is_said_at_once(lab: Lab) -> None:
    config = lab.hosts["h1"].folder / "config"
    config.write_text(config.read_text().replace("user.pub", "nobody.pub"))
    lab.hosts["h1"].pull_the_plug()
    lab.hosts["h1"].start()
    begin = time.monotonic()
    done = lab.deploy("--dry-run").failed(1)
    assert "h1: unreachable:" in done.stdout
    assert "Permission denied" in done.stdout
    assert "ssh may not ask for a password here" in done.stdout
    assert time.monotonic() - begin < allowed(20)


@pytest.mark.slow
def test_a_frozen_host_stops_none_of_the_others(lab: Lab) -> None:
    lab.hosts["h1"].freeze()
    done = lab.deploy("--fewest", "2").failed(1)
    lab.hosts["h1"].thaw()
    assert "h1: unreachable:" in done.stdout
    assert lab.current()[1] == lab.current()[2] != ""


@pytest.mark.slow
def test_a_flood_is_stopped_and_what_steers_terminals_is_shown_as_text(lab: Lab) -> None:
    lab.hosts["h1"].answers("yes 'more and more'")
    lab.hosts["h2"].answers("head -c 30000000 /dev/zero")
    lab.hosts["h3"].answers("printf 'look: \\033[2J\\033]0;mine\\007\\n' >&2; exit 3")
    done = lab.deploy().failed(1, "0 of 3 hosts")
    assert "h[1-2]: failed: it says more than 1 MiB, and was stopped" in done.stdout
    assert "h3: failed: look: \\x1b[2J" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.slow
def test_greetings_and_lies_are_not_answers(lab: Lab) -> None:
    command = lab.hosts["h1"].folder / "command"
    lab.hosts["h1"].answers("echo Welcome; echo '@0000 built'\n" + command.read_text().partition("\n")[2])
    lab.hosts["h2"].answers("echo '@0 uname Linux x86_64'; echo '@0 store /'; echo '@0 end'; exit 0")
    done = lab.deploy("--fewest", "2").failed(1)
    assert "h2: failed: @0 end" in done.stdout
    assert lab.current()[0] == lab.current()[2] != ""


@pytest.mark.slow
def test_a_host_without_a_python_says_so(lab: Lab) -> None:
    lab.hosts["h1"].python = "/nowhere/python3.11"
    lab.hosts["h1"].behaves()
    assert "h1: failed:" in lab.deploy().failed(1).stdout


@pytest.mark.slow
def test_two_deployments_of_a_fleet_do_not_cross(lab: Lab) -> None:
    lab.hosts["h1"].freeze()
    first = lab.desk.start("deploy", "lab")
    lock = lab.desk.home / ".local/share/drydock/fleet/desk/lab.lock"
    until(lock.exists)
    time.sleep(1)
    lab.deploy().failed(1, "another command works on the fleet lab")
    lab.hosts["h1"].thaw()
    first.communicate(timeout=LONG)


@pytest.mark.slow
def test_when_the_desk_is_killed_nothing_goes_on_and_nothing_half_made_is_left(lab: Lab) -> None:
    # A build that takes its time: its Python sleeps.
    python = lab.hosts["h1"].folder / "slow-python"
    python.write_text(f'#!/bin/sh\nsleep 60\nexec {lab.hosts["h1"].python} "$@"\n')
    python.chmod(0o755)
    for host in lab.hosts.values():
        host.python = str(python)
        host.behaves()
    desk = lab.desk.start("deploy", "lab")
    until(lambda: all(list(host.drydock.glob("fleet/.new-*/end")) for host in lab.hosts.values()))
    desk.kill()
    desk.communicate()
    until(lambda: all(len(host.processes()) == 1 for host in lab.hosts.values()), allowed(15))
    assert not any(list(host.drydock.glob("fleet/.new-*")) for host in lab.hosts.values())
    assert not any(list(host.drydock.glob("store/*")) for host in lab.hosts.values())


# --- what is written in drydock.toml -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        ('["-oProxyCommand=touch x"]', "is not a host"),
        ('["a b"]', "is not a host"),
        ('["h1;touch x"]', "is not a host"),
        ('["h\'1"]', "is not a host"),
        ('["\\u001b[2Jh1"]', "is not a host"),
        ('["@all"]', "is not a host"),
        ('["user@h1"]', "~/.ssh/config"),
        ('["h[1-"]', "names no hosts"),
        ('["h[1-2]-[1-99999]"]', "is the most"),
        ("[]", "must be a list of hosts"),
        ('["[1-2],-x"]', "is not the name of a host"),
    ],
)
def test_names_that_no_host_has(lab: Lab, hosts: str, words: str) -> None:
    lab.fleet(f"[fleets.lab]\nhosts = {hosts}\n")
    done = lab.deploy("small")
    assert done.code in (1, 2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr


def test_a_fleet_that_is_not_there(lab: Lab) -> None:
    lab.deploy(fleet="lub").failed(2, 'no fleet "lub"', 'did you mean "lab"?')
    lab.fleet("")
    lab.deploy().failed(2, "drydock.toml")
    lab.fleet('[fleets.lab]\nhost = ["h1"]\n')
    lab.deploy().failed(1, 'unknown key "host"', 'did you mean "hosts"?')


@pytest.mark.slow
def test_without_clustershell_the_line_that_installs_it_is_said(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "path/ClusterShell").mkdir(parents=True)
    (tmp_path / "path/ClusterShell/__init__.py").write_text("raise ImportError('not here')\n")
    done = lab.desk.run([sys.executable, "-m", "builder", "deploy", "lab"], env={"PYTHONPATH": str(tmp_path / "path")})
    done.failed(1, "fleets need ClusterShell, which is not installed", "uv tool install 'drydock-env[fleet]'")


def test_a_store_that_this_user_cannot_write_is_said(lab: Lab) -> None:
    if os.geteuid() == 0:
        pytest.skip("root writes everywhere")
    lab.hosts["h1"].drydock.mkdir(parents=True)
    lab.hosts["h1"].drydock.chmod(0o500)
    assert "cannot be written" in lab.deploy().failed(1).stdout
    lab.hosts["h1"].drydock.chmod(0o700)


@pytest.mark.slow
def test_a_disk_that_is_full_is_said_and_stops_nobody_else(lab: Lab) -> None:
    home = lab.hosts["h2"].drydock
    home.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(home)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        done = lab.deploy("--fewest", "2").failed(1, "2 of 3 hosts")
        assert re.search(r"h2: failed: .*(disk full|No space left)", done.stdout)
        assert not list(home.glob("fleet/.new-*"))
        assert lab.current()[0] == lab.current()[2] != ""
    finally:
        subprocess.run(["umount", str(home)], check=True)


@pytest.mark.slow
def test_a_host_whose_clock_is_wrong_is_built_and_named(lab: Lab) -> None:
    wrong = lab.hosts["h1"].folder / "bin"
    wrong.mkdir()
    (wrong / "date").write_text('#!/bin/sh\n[ "$1" != +%s ] || { echo 1000000000; exit 0; }\nexec /bin/date "$@"\n')
    (wrong / "date").chmod(0o755)
    command = lab.hosts["h1"].folder / "command"
    command.write_text(command.read_text().replace("PATH=/usr/local/bin", f"PATH={wrong}:/usr/local/bin"))
    lab.deploy().succeeded()
    assert "the clock of h1 is" in lab.deploy("--dry-run").succeeded().stderr


@pytest.mark.slow
def test_what_ends_at_once_is_not_waited_for_without_end(tmp_path: Path) -> None:
    """The shell that watches the connection is ended as soon as the work is, which may be before it has begun."""
    code = (Path(__file__).parents[2] / "builder/fleet/host.sh").read_text()
    watched = code[code.index("\nwatched() {") : code.index("# end_tree PID")]
    os.mkfifo(tmp_path / "connection")
    loop = "_try=0; while [ $_try -lt 500 ]; do _try=$((_try + 1)); watched true; done; echo $_try"
    script = f"trap 'exit 143' TERM; _new=$PWD; exec 3<>connection\n{watched}\n{loop}"
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=LONG, check=False)
    assert done.stdout == "500\n", done.stderr
