"""What the desk brings to hosts before a trainer starts: killed half-way, and begun again at once."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from builder.fleet import launcher
from tests.fleet.conftest import Lab
from tests.support.fleet import Host
from tests.support.mounts import tmpfs
from tests.support.waiting import LONG, until

FILES = {"train.py": b"print('new')\n" * 2_000, "part.py": b"word = 'new'\n"}


def rows(files: dict[str, bytes]) -> list[list[object]]:
    return [[name, len(content), hashlib.sha256(content).hexdigest(), False] for name, content in files.items()]


def tarred(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return base64.b64encode(made.getvalue())


class Receiver:
    """A launcher of a host whose home is a folder, in the hands of a desk that writes to `input`."""

    def __init__(self, home: Path, do: str, files: dict[str, bytes] = FILES, command: str = "") -> None:
        environment = {**os.environ, "HOME": str(home), "TMPDIR": str(home)}
        words = [sys.executable, "-I", "-S", launcher.__file__, "x"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, env=environment)
        assert self.process.stdin is not None
        self.input = self.process.stdin
        self.write(
            json.dumps(
                {"do": do, "folder": "code", "files": rows(files), "command": command or os.urandom(4).hex()}
            ).encode()
        )

    def write(self, text: bytes) -> None:
        self.input.write(text + b"\n")
        self.input.flush()

    def ends(self, *, desk_is_gone: bool = False) -> tuple[int, str, str]:
        if not desk_is_gone:
            self.process.wait(LONG)
        out, err = self.process.communicate(timeout=LONG)
        return self.process.returncode, out.decode(), err.decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The trainer's folder on a host, with an older file."""
    made = tmp_path / "code"
    made.mkdir()
    (made / "part.py").write_text("word = 'old'\n")
    return made


def stages(folder: Path) -> list[Path]:
    return list(folder.glob(".drydock-bring.*"))


def half_way(home: Path, command: str = "") -> Receiver:
    """Half of it has come, and the receiver waits for the rest."""
    receiver = Receiver(home, "bring", command=command)
    receiver.write(tarred(FILES)[:20_000])
    until(lambda: any((stage / "0").exists() for stage in stages(home / "code")))
    return receiver


def brings(home: Path) -> None:
    receiver = Receiver(home, "bring")
    receiver.write(tarred(FILES))
    receiver.write(b".")
    code, out, err = receiver.ends()
    assert (code, out, err) == (0, "@x brought\n", "")
    for name, content in FILES.items():
        assert (home / "code" / name).read_bytes() == content
    assert not stages(home / "code")


def test_what_was_killed_half_way_leaves_no_half_file_and_is_removed_by_the_next(tmp_path: Path, folder: Path) -> None:
    receiver = half_way(tmp_path)
    receiver.process.kill()
    receiver.ends()
    assert {path.name for path in folder.iterdir() if path.is_file()} == {"part.py"}
    assert (folder / "part.py").read_text() == "word = 'old'\n"
    assert stages(folder)
    asked = Receiver(tmp_path, "compare")
    assert asked.ends() == (0, "@x lacks 0 1\n@x compared\n", "")
    assert not stages(folder)
    receiver = half_way(tmp_path)
    receiver.process.kill()
    receiver.ends()
    brings(tmp_path)


def test_where_the_desk_is_gone_nothing_is_replaced(tmp_path: Path, folder: Path) -> None:
    receiver = half_way(tmp_path)
    code, out, err = receiver.ends(desk_is_gone=True)
    assert (code, out) == (1, "")
    assert err == f"drydock: error: {folder}: the connection broke\n"
    # Also where all of it has come: there is a newer desk, or none.
    receiver = Receiver(tmp_path, "bring")
    receiver.write(tarred(FILES))
    receiver.input.write(b".\n")
    assert receiver.ends(desk_is_gone=True)[0] == 1
    assert (folder / "part.py").read_text() == "word = 'old'\n"
    assert not stages(folder)


def test_the_next_does_not_wait_for_one_that_hears_nothing_any_more(tmp_path: Path, folder: Path) -> None:
    lost = half_way(tmp_path)
    brings(tmp_path)
    code, _, err = lost.ends()
    assert code == 1
    assert "nobody waits for this any more" in err
    assert (folder / "part.py").read_bytes() == FILES["part.py"]


def test_hosts_that_share_a_folder_do_not_disturb_one_another(tmp_path: Path, folder: Path) -> None:
    # Each has a /tmp of its own, so that the lock of one is not seen by the other.
    first = half_way(tmp_path, "one")
    (tmp_path / next(path.name for path in tmp_path.glob("drydock-*.lock"))).unlink()
    second = Receiver(tmp_path, "bring", command="one")
    for receiver, rest in ((second, tarred(FILES)), (first, tarred(FILES)[20_000:])):
        receiver.write(rest)
        receiver.write(b".")
        assert receiver.ends() == (0, "@x brought\n", "")
    assert (folder / "part.py").read_bytes() == FILES["part.py"]
    assert not stages(folder)


def test_what_was_placed_before_it_was_killed_is_deleted_once_it_is_not_brought(tmp_path: Path, folder: Path) -> None:
    # All the folders that it makes are one: it cannot place the second file.
    files = {"first.py": b"1", "there/second.py": b"2"}
    (folder / "there").write_text("in the way")
    receiver = Receiver(tmp_path, "bring", files)
    receiver.write(tarred(files))
    receiver.write(b".")
    code, _, err = receiver.ends()
    assert code == 1
    assert "there" in err
    assert (folder / "first.py").exists()
    receiver = Receiver(tmp_path, "compare", {"part.py": b"word = 'old'\n"})
    assert receiver.ends()[1] == "@x lacks -1\n@x compared\n"


# --- by a desk -----------------------------------------------------------------------------------------------------

# It passes on what comes until there is less room than it wants, and the rest where somebody lets it.
VALVE = """\
import os, sys, time
passed = 0
while True:
    while passed > 600_000 and os.path.exists({shut!r}):
        time.sleep(0.05)
    piece = os.read(0, 1 << 15)
    if not piece:
        break
    passed += len(piece)
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
"""
TRAIN = "import sys; sys.exit(len(open('data.bin', 'rb').read()) - 3_000_000)"


def code_of(host: Host) -> Path:
    return host.home / "drydock/small"


def shut(host: Host) -> Path:
    """Have a valve in front of what comes to a host, shut as long as the file is there that is returned."""
    path = host.folder / "shut"
    valve = host.folder / "valve.py"
    valve.write_text(VALVE.format(shut=str(path)))
    command = (host.folder / "command").read_text().partition("\n")[2]
    pipe = f"{host.folder}/pipe.$$"
    words = f"mkfifo {pipe}\nexec 3<&0\n{sys.executable} {valve} <&3 2>/dev/null >{pipe} &"
    host.answers(f"{words}\nexec 3<&- <{pipe}\n{command}")
    path.touch()
    return path


@pytest.fixture
def bringing(lab: Lab) -> Lab:
    """Three megabytes come along, which the trainer counts."""
    lab.desk.trainer(TRAIN)
    lab.deploy().succeeded()
    lab.fleet('[fleets.lab]\nhosts = ["h[1-3]"]\nprofile = "small"\nbring = ["data.bin"]\n')
    (lab.desk.work / "data.bin").write_bytes(os.urandom(3_000_000))
    return lab


@pytest.mark.slow
def test_who_does_not_wait_after_a_kill_on_either_side_gets_what_is_here_now(bringing: Lab) -> None:
    h1, h2 = bringing.hosts["h1"], bringing.hosts["h2"]
    valves = [shut(h1), shut(h2)]
    desk = bringing.desk.start("run", "small", "--on", "lab")
    until(lambda: all(stages(code_of(host)) for host in (h1, h2)))
    desk.kill()
    desk.communicate()
    # At once, with newer bytes; the receivers of the killed desk are still there, behind their valves.
    (bringing.desk.work / "data.bin").write_bytes(content := os.urandom(3_000_000))
    for host in (h1, h2):
        host.behaves()
    bringing.desk.drydock("run", "small", "--on", "lab", timeout=LONG).succeeded()
    for valve in valves:
        valve.unlink()
    until(lambda: all(len(host.processes()) == 1 for host in bringing.hosts.values()))
    for host in bringing.hosts.values():
        assert (code_of(host) / "data.bin").read_bytes() == content
        assert not stages(code_of(host))

    # The receiver is killed: its host is named, and the same command again works.
    (bringing.desk.work / "data.bin").write_bytes(os.urandom(3_000_000))
    valve = shut(h2)
    desk = bringing.desk.start("run", "small", "--on", "lab")
    until(lambda: stages(code_of(h2)))
    for process in h2.processes():
        if "-c" in process.cmdline() and "compare which of some files" in " ".join(process.cmdline()):
            process.send_signal(signal.SIGKILL)
    valve.unlink()
    _, err = desk.communicate(timeout=LONG)
    assert desk.returncode == 1
    assert b"h2: the files from here did not come" in err
    assert b"2 of 3 hosts of lab have the code of small" in err
    assert (code_of(h2) / "data.bin").read_bytes() == content
    h2.behaves()
    bringing.desk.drydock("run", "small", "--on", "lab").succeeded()
    assert not stages(code_of(h2))


@pytest.mark.slow
def test_a_full_disk_is_named_and_nothing_half_made_is_left(bringing: Lab) -> None:
    h3 = code_of(bringing.hosts["h3"])
    h3.mkdir(parents=True)
    with tmpfs(h3, "2m"):
        (h3 / "data.bin").write_text("as it was")
        done = bringing.desk.drydock("run", "small", "--on", "lab").failed(1)
        assert f"h3: the files from here did not come: {h3}: No space left on device" in done.stderr
        assert "2 of 3 hosts of lab have the code of small" in done.stderr
        assert [path.name for path in h3.iterdir()] == ["data.bin"]
        assert (h3 / "data.bin").read_text() == "as it was"
    bringing.desk.drydock("run", "small", "--on", "lab").succeeded()
