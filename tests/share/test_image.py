"""Images: one file with an environment, mounted by its script where DRYDOCK_IMAGE names it."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import SHELLS, Result, Sandbox
from tests.support.waiting import until

WHERE = "import anchor, os; print(anchor.__file__, 'DRYDOCK_IMAGE' in os.environ)"

pytestmark = pytest.mark.skipif(shutil.which("mksquashfs") is None, reason="no mksquashfs")


@pytest.fixture
def desk(sandbox: Sandbox) -> Iterator[Sandbox]:
    """A desk with a built profile, whose trainer says where its package is, and a folder for mounts."""
    sandbox.environment["TMPDIR"] = str(sandbox.root / "temporary")
    (sandbox.root / "temporary").mkdir()
    sandbox.profile("small")
    sandbox.trainer(WHERE)
    sandbox.drydock("lock", "small").succeeded()
    sandbox.drydock("build", "small").succeeded()
    yield sandbox
    for mount in mounts(sandbox):
        subprocess.run(["umount", "--lazy", mount], check=True)


@pytest.fixture
def image(desk: Sandbox) -> Path:
    return desk.work / desk.drydock("image", "small").succeeded().stdout.strip()


def mounts(desk: Sandbox) -> list[str]:
    """What is mounted below a desk, as this process sees it."""
    lines = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return [mount for _, mount, *_ in lines if mount.startswith(str(desk.root))]


def train(desk: Sandbox, image: Path, *arguments: str, around: tuple[str, ...] = (), home: str = "empty") -> Result:
    """Run the script with an image, where nothing was built."""
    env = {
        "DRYDOCK_IMAGE": str(image),
        "DRYDOCK_HOME": str(desk.root / home),
        "UV_DEFAULT_INDEX": "http://127.0.0.1:9/",
    }
    return desk.run([*around, "sh", str(desk.script("small")), *arguments], env=env)


def key_name(desk: Sandbox) -> str:
    return next(name for name in desk.environments() if name.endswith("-small"))


def can_mount(kind: str) -> tuple[str, ...]:
    """The start of a command that sees the kernel's own squashfs, or a root without it, as in a container of a user's;
    skips the test where there is none.
    """
    around = ("unshare", "--mount") if kind == "kernel" else ("unshare", "--user", "--map-root-user", "--mount")
    if os.geteuid() != 0 or subprocess.run([*around, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no namespaces here")
    if kind == "kernel" and "squashfs" not in Path("/proc/filesystems").read_text():
        pytest.skip("no squashfs in the kernel")
    if kind == "squashfuse" and not (shutil.which("squashfuse_ll") and os.access("/dev/fuse", os.W_OK)):
        pytest.skip("no squashfuse_ll, or no FUSE")
    return around


# --- what is written ------------------------------------------------------------------------------------------------


def test_an_image_is_the_same_bytes_again_and_says_its_hash(desk: Sandbox, image: Path) -> None:
    assert image.name == f"{key_name(desk)}.squashfs"
    again = desk.drydock("image", "small", "-o", "there/again.img", env={"SOURCE_DATE_EPOCH": "5"}).succeeded()
    assert hashlib.sha256(image.read_bytes()).hexdigest() in again.stderr
    assert (desk.work / "there/again.img").read_bytes() == image.read_bytes()
    assert [path.name for path in (desk.work / "there").iterdir()] == ["again.img"]


def test_only_a_whole_environment_is_written_and_only_over_an_image(desk: Sandbox) -> None:
    (desk.work / "notes").write_text("mine")
    desk.drydock("image", "small", "-o", "notes").failed(2, "is not an image")
    assert (desk.work / "notes").read_text() == "mine"
    env = {"PATH": str(desk.root / "temporary")}
    desk.drydock("image", "small", "-o", "new", env=env).failed(1, "mksquashfs", "apt-get install squashfs-tools")
    module = next((desk.store / key_name(desk)).glob("lib/*/site-packages/anchor/__init__.py"))
    module.unlink()
    desk.drydock("image", "small", "-o", "new").failed(1, "anchor/__init__.py", "store verify", "--repair")
    desk.remove(key_name(desk))
    desk.drydock("image", "small", "-o", "new").failed(2, "small is not built", "drydock build small")
    assert not (desk.work / "new").exists()


# --- what runs from it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["kernel", "squashfuse"])
def test_a_script_trains_from_an_image_and_verifies_it(desk: Sandbox, image: Path, kind: str) -> None:
    around = can_mount(kind)
    # In one namespace, as on a machine that goes on.
    script = desk.script("small")
    mounted = f"{desk.root}/temporary/drydock-images-0/{key_name(desk)}"
    both = f"sh {script} && sh {script} --verify >&2 && sh {script} --build-only && grep -c {mounted} /proc/self/mounts"
    done = desk.run(
        [*around, "sh", "-c", f"{both} || true; umount {mounted} 2>/dev/null || true"],
        env={"DRYDOCK_IMAGE": f"./{image.name}", "DRYDOCK_HOME": str(desk.root / "empty")},
    ).succeeded()
    train_line, built, count = done.stdout.splitlines()
    assert train_line.startswith(f"{mounted}/lib/")
    assert train_line.endswith(" False")
    assert built == mounted
    # The kernel's has gone with each of them; squashfuse waits for the next.
    assert count == ("0" if kind == "kernel" else "1")
    assert not (desk.root / "empty/store").exists()
    assert mounts(desk) == []


def test_a_kernels_mount_is_gone_with_a_killed_trainer(desk: Sandbox, image: Path) -> None:
    can_mount("kernel")
    desk.trainer("import time; print('on', flush=True); time.sleep(60)")
    env = {**desk.environment, "DRYDOCK_IMAGE": str(image), "DRYDOCK_HOME": str(desk.root / "empty")}
    script = str(desk.script("small"))
    with subprocess.Popen(["sh", script], env=env, cwd=desk.work, stdout=subprocess.PIPE) as trainer:
        assert trainer.stdout is not None
        assert trainer.stdout.readline() == b"on\n"
        assert str(image) in looped()
        trainer.send_signal(signal.SIGKILL)
    until(lambda: str(image) not in looped())


def looped() -> list[str]:
    """The files of all loop devices."""
    files = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):  # ended meanwhile
            files.append(path.read_text().strip())
    return files


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kernel", "squashfuse"])
def test_every_shell_takes_an_image_with_any_name(desk: Sandbox, image: Path, kind: str) -> None:
    around = can_mount(kind)
    name = '-it\'s "an" $image; a'
    image.rename(desk.work / name)
    desk.trainer("import sys, anchor; print(anchor.__file__, sys.argv[1:])")
    script = shlex.quote(str(desk.script("small")))
    env = {"DRYDOCK_IMAGE": name, "DRYDOCK_HOME": str(desk.root / "an empty one")}
    for shell in SHELLS.values():
        command = f"{shlex.join(shell)} {script} -- \"a b\" '$c' --build-only; umount ../temporary/drydock-images-0/*"
        done = desk.run([*around, "sh", "-c", command], env=env)
        path, _, arguments = done.stdout.strip().partition(" ")
        assert path.startswith(f"{desk.root}/temporary/drydock-images-0/"), (shell, done)
        assert arguments == "['a b', '$c', '--build-only']"


def test_where_a_squashfuse_was_killed_another_is_started(desk: Sandbox, image: Path) -> None:
    around = can_mount("squashfuse")
    mounted = f"{desk.root}/temporary/drydock-images-0/{key_name(desk)}"
    # Its process is the one that has the image open.
    script = desk.script("small")
    twice = f"""sh {script} --build-only
        for one in /proc/[0-9]*; do
            [ "$(cat $one/comm)" != squashfuse_ll ] || ! grep -qF {image} $one/cmdline || kill -9 ${{one##*/}}
        done 2>/dev/null
        sleep 0.2; ls {mounted} && exit 9
        sh {script}; umount {mounted}"""
    done = desk.run([*around, "sh", "-c", twice], env={"DRYDOCK_IMAGE": str(image)}).succeeded()
    assert "not connected" in done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"{mounted}/lib/")


def test_a_folder_where_an_image_is_mounted_is_used(desk: Sandbox) -> None:
    folder = desk.root / "elsewhere"
    shutil.copytree(desk.store / key_name(desk), folder, symlinks=True)
    assert train(desk, folder).succeeded().stdout.startswith(f"{folder}/lib/")


def test_what_is_no_image_of_this_key_is_refused(desk: Sandbox, image: Path, tmp_path: Path) -> None:
    train(desk, tmp_path / "nothing").failed(1, "nothing is not found", "drydock image small")
    (tmp_path / "empty/.drydock").mkdir(parents=True)
    (tmp_path / "empty/.drydock/manifest.json").write_text('{\n "key": "another"\n}\n')
    train(desk, tmp_path / "empty").failed(1, f"is not an image of {key_name(desk)}")
    around = can_mount("squashfuse")
    make = ["mksquashfs", str(tmp_path / "empty"), str(tmp_path / "other.img"), "-quiet", "-no-progress"]
    subprocess.run(make, check=True, capture_output=True)
    # Of another key: the right one can be mounted over it.
    other, script = tmp_path / "other.img", desk.script("small")
    both = f"DRYDOCK_IMAGE={other} sh {script} || true; exec sh {script}"
    done = desk.run([*around, "sh", "-c", both], env={"DRYDOCK_IMAGE": str(image)}).succeeded()
    assert f"{other} is not an image of {key_name(desk)}" in done.stderr
    assert "/temporary/drydock-images-0/" in done.stdout
    # Nor is one mounted where somebody else could exchange it.
    mine, theirs = desk.root / "temporary/drydock-images-0", tmp_path / "theirs"
    shutil.rmtree(mine, ignore_errors=True)
    theirs.mkdir()
    mine.symlink_to(theirs)
    train(desk, image, around=around).failed(1, "is not a folder of yours")
    assert not any(theirs.glob("*/*"))


def test_what_cannot_be_mounted_is_said_and_the_store_is_used(desk: Sandbox, image: Path) -> None:
    image.write_bytes(image.read_bytes()[:100])
    done = desk.run(["sh", str(desk.script("small"))], env={"DRYDOCK_IMAGE": str(image)}).succeeded()
    assert "cannot be mounted here" in done.stderr
    assert done.stdout.startswith(str(desk.store))
