"""Two users of a group: a store that their desks share, and one that their accounts on a host share."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support import Result, make_wheel
from tests.support import fleet as support
from tests.support.fleet import Host
from tests.support.members import GROUP, PYTHON, Member, NoMembersError, two_members

pytestmark = pytest.mark.slow

UMASKS = ("077", "002")
CAPTURED = Path(__file__).parent.parent / "captured"
EVENTS = "events.out.tfevents.1795733945.here.7.0"
TRAIN = """\
import os, pathlib, anchor
pathlib.Path("out").mkdir(exist_ok=True)
pathlib.Path("out/own.txt").write_text(str(os.getuid()))
print("loss=%s" % os.getuid(), "anchor", anchor.version, pathlib.Path("word.txt").read_text(), flush=True)
"""


class Colleague:
    """A user: a desk, and an account on the host."""

    def __init__(self, member: Member, account: Host, umask: str) -> None:
        self.member, self.account, self.umask = member, account, umask

    def drydock(self, *arguments: str) -> Result:
        """By a desk whose user has a name, as ssh wants it."""
        mount = 'mount --bind "$0" /etc/passwd && exec "$@"'
        named = ["unshare", "-m", "sh", "-c", mount, str(self.member.desk.root / "passwd")]
        start = ["sh", "-c", f'umask {self.umask}; exec "$@"', "sh", PYTHON, "-m", "builder", *arguments]
        return self.member.desk.run([*named, *self.member.become, *start])


@pytest.fixture
def colleagues() -> Iterator[tuple[Colleague, Colleague]]:
    """Both have the same project, and deploy it to `lab`: their own account."""
    try:
        with two_members() as pair:
            root = pair[0].desk.root.parent
            (root / "fleet").mkdir()
            os.chown(root / "fleet", pair[0].number, GROUP)
            (root / "fleet").chmod(0o2775)
            uv = pair[0].desk.environment["DRYDOCK_UV"]
            files = {f"uv-{version('uv')}.data/scripts/uv": f'#!/bin/sh\nexec {uv} "$@"\n'}
            make_wheel(root / "wheels", "uv", version("uv"), tag="py3-none-manylinux_2_17_x86_64", files=files)
            with support.hosts(root / "hosts", ["a", "b"]) as (accounts, path):
                yield tuple(  # type: ignore[misc]
                    _colleague(member, account, umask, root / "fleet", path)
                    for member, account, umask in zip(pair, accounts.values(), UMASKS, strict=True)
                )
    except NoMembersError as error:
        pytest.skip(str(error))


def _colleague(member: Member, account: Host, umask: str, store: Path, path: Path) -> Colleague:
    become = " ".join(member.become)
    env = f"env -i HOME={account.home} PATH=/usr/bin:/bin DRYDOCK_PYTHON={PYTHON} UV_OFFLINE=1 DRYDOCK_HOME={store}"
    account.answers(
        f"umask {umask}; cd {account.home} && exec {become} {env} UV_CACHE_DIR={account.home}/uv-cache "
        'sh -c "$SSH_ORIGINAL_COMMAND"'
    )
    # ssh uses a key that is its user's alone.
    desk = member.desk
    (desk.root / "bin").mkdir()
    for name in ("user", "ssh_config", "known_hosts"):
        text = (path.parent / name).read_text()
        (desk.root / name).write_text(text.replace(str(path.parent), str(desk.root)))
        (desk.root / name).chmod(0o600)
    (desk.root / "bin/ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {desk.root}/ssh_config "$@"\n')
    (desk.root / "bin/ssh").chmod(0o755)
    (desk.root / "ssh_config").write_text((desk.root / "ssh_config").read_text() + "  User root\n")
    name = f"user{member.number}:x:{member.number}:{member.number}::{desk.home}:/bin/sh\n"
    (desk.root / "passwd").write_text(Path("/etc/passwd").read_text() + name)
    desk.environment |= {"PATH": f"{desk.root}/bin:/usr/bin:/bin", "DRYDOCK_RECORDS": "1"}
    desk.trainer(TRAIN)
    (desk.work / "drydock.toml").write_text(
        f'[fleets.lab]\nhosts = ["{account.name}"]\nprofile = "small"\nbring = ["word.txt"]\n'
    )
    (desk.work / "word.txt").write_text(f"of {member.number}")
    member.own()
    subprocess.run(["chown", "-R", f"{member.number}:{member.number}", str(account.home)], check=True)
    return Colleague(member, account, umask)


def test_each_deploys_runs_sees_its_own_and_goes_back(colleagues: tuple[Colleague, Colleague]) -> None:
    for one in colleagues:
        one.drydock("lock", "small", "--upgrade", "uv")
        one.drydock("deploy", "lab").succeeded()
        number = one.member.number
        done = one.drydock("run", "small", "--on", "lab").succeeded()
        assert f"{one.account.name} | loss={number} anchor 1.0 of {number}" in done.stdout
        listed = one.drydock("runs", "list").succeeded().stdout.splitlines()
        assert len(listed) == 1
        assert f"{one.account.name} loss {number}" in listed[0]
        assert "ended: done" in one.drydock("run", "small", "--on", "lab", "--status").succeeded().stdout
        assert "ended: done" in one.drydock("run", "small", "--on", "lab", "--logs").succeeded().stdout
    # What one has built and switched the other updates, and goes back from; the first one trains on.
    first, second = colleagues
    make_wheel(second.member.desk.wheels, "anchor", "2.0")
    second.drydock("lock", "small", "--upgrade", "anchor").succeeded()
    second.drydock("deploy", "lab", "--verify").succeeded()
    assert "anchor 2.0" in second.drydock("run", "small", "--on", "lab").succeeded().stdout
    first.drydock("deploy", "lab", "--rollback").succeeded()
    assert "anchor 1.0" in first.drydock("run", "small", "--on", "lab").succeeded().stdout
    for one in colleagues:
        one.drydock("deploy", "lab", "--gc").succeeded()
        one.drydock("run", "small", "--on", "lab").succeeded()
        assert (one.account.home / "drydock/small/out/own.txt").read_text() == str(one.member.number)

    # A folder that is closed is named, without a traceback.
    (root := first.member.desk.root.parent / "store/cache/mirror/files").chmod(0o700)
    make_wheel(second.member.desk.wheels, "anchor", "3.0")
    second.drydock("lock", "small", "--upgrade", "anchor").succeeded()
    done = second.drydock("deploy", "lab").failed(1, str(root), "Permission denied")
    assert "Traceback" not in done.stderr
    assert "it is not yours" in done.stderr


def test_a_store_of_another_user_is_left_alone(colleagues: tuple[Colleague, Colleague]) -> None:
    first, second = colleagues
    closed = first.member.desk.root.parent / "closed"
    closed.mkdir(mode=0o755)
    os.chown(closed, first.member.number, first.member.number)
    command = second.account.folder / "command"
    shared = first.member.desk.root.parent / "fleet"
    command.write_text(command.read_text().replace(f"DRYDOCK_HOME={shared}", f"DRYDOCK_HOME={closed}"))
    second.drydock("lock", "small", "--upgrade", "uv")
    done = second.drydock("deploy", "lab").failed(1)
    assert f"b: failed: {closed} cannot be written: set DRYDOCK_HOME for this user" in done.stdout
    assert not list(closed.iterdir())


def test_each_has_the_losses_of_its_own_event_files(colleagues: tuple[Colleague, Colleague]) -> None:
    first, second = colleagues
    # In the folder of the second one the first one has written, too, for itself alone.
    for name, mode in (("theirs", 0o700), ("open", 0o755)):
        file = second.member.desk.work / name / EVENTS
        file.parent.mkdir()
        shutil.copyfile(CAPTURED / "torch.tfevents", file)
        for path in (file, file.parent):
            os.chown(path, first.member.number, first.member.number)
        file.chmod(0o600)
        file.parent.chmod(mode)
    for one in (first, second):
        one.member.desk.trainer(
            "import anchor, pathlib, shutil\npathlib.Path('tb').mkdir()\n"
            f"shutil.copyfile({str(CAPTURED / 'tensorboardx.tfevents')!r}, 'tb/{EVENTS}')\n"
        )
        one.drydock("lock", "small").succeeded()
        one.drydock("run", "small", "--supervise").succeeded()
        assert "train/loss" in one.drydock("runs", "show", "last").succeeded().stdout
        assert len(one.drydock("runs", "list").succeeded().stdout.splitlines()) == 1
