"""Bundles: one file that builds what its profile says, without a network, and only if all of it is as it was made."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from builder.share.bundle import _as_gzip
from builder.store import roots
from tests.support import SHELLS, Result, Sandbox, Web, make_wheel, python_3_11

SYSTEM = "/usr/local/bin:/usr/bin:/bin"


@pytest.fixture
def desk(sandbox: Sandbox) -> Sandbox:
    """A desk whose wheel of uv has the real one in it, by way of a script."""
    files = {f"uv-{version('uv')}.data/scripts/uv": f'#!/bin/sh\nexec {sandbox.environment["DRYDOCK_UV"]} "$@"\n'}
    make_wheel(sandbox.wheels, "uv", version("uv"), tag="py3-none-manylinux_2_17_x86_64", files=files)
    sandbox.profile("small")
    sandbox.drydock("lock", "small").succeeded()
    return sandbox


@pytest.fixture
def bundle(desk: Sandbox) -> Path:
    return make(desk)


def make(desk: Sandbox, *arguments: str) -> Path:
    done = desk.drydock("bundle", "small", *arguments).succeeded()
    return desk.work / done.stdout.strip()


def run(desk: Sandbox, home: Path, *command: str, path: str = SYSTEM, **env: str) -> Result:
    """Run a program on a machine that has a Python and nothing else: no network where that can be had."""
    home.mkdir(exist_ok=True)
    offline = ["unshare", "-n"] if os.geteuid() == 0 and shutil.which("unshare") else []
    only = ["env", "-i", f"HOME={home}", f"PATH={path}", f"DRYDOCK_PYTHON={python_3_11()}"]
    return desk.run([*offline, *only, *(f"{name}={value}" for name, value in env.items()), *command])


# --- what it does --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_without_a_network_it_builds_the_very_environment_and_runs(desk: Sandbox, bundle: Path, tmp_path: Path) -> None:
    home = tmp_path / "it's a home"
    store = home / ".local/share/drydock/store"
    assert (bundle.name, os.access(bundle, os.X_OK)) == ("small.run", True)
    built = run(desk, home, "sh", str(bundle), "--build-only").succeeded()
    ours = Path(desk.drydock("build", "small").succeeded().stdout.strip())
    assert built.stdout == f"{store / ours.name}\n"
    assert "from " in built.stderr
    assert run(desk, home, "sh", str(bundle), "--verify").succeeded()
    assert run(desk, home, str(bundle), "--", "more").succeeded().stdout == "trained with 1.0\n"
    assert list((store.parent / "tools").iterdir()) == []
    assert (store.parent / f"gcroots/scripts/{ours.name}.{roots.host()}").read_text() == f"{bundle}\n"


@pytest.mark.slow
def test_it_is_the_run_script_in_every_shell(desk: Sandbox, bundle: Path, tmp_path: Path) -> None:
    for number, (shell, command) in enumerate(SHELLS.items()):
        built = run(desk, tmp_path / str(number), *command, str(bundle), "--build-only").succeeded()
        assert re.fullmatch(r"/.*-small\n", built.stdout), shell


@pytest.mark.slow
def test_the_tools_of_busybox_are_enough(desk: Sandbox, bundle: Path, tmp_path: Path) -> None:
    if shutil.which("busybox") is None:
        pytest.skip("there is no busybox here")
    tools = tmp_path / "tools"
    tools.mkdir()
    subprocess.run(["busybox", "--install", "-s", str(tools)], check=True)
    (tools / "getconf").symlink_to("/usr/bin/getconf")
    run(desk, tmp_path / "away", str(tools / "sh"), str(bundle), "--build-only", path=str(tools)).succeeded()


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["openssl", "sha256sum", "shasum", "python3"])
def test_any_tool_that_knows_sha256_will_do(desk: Sandbox, bundle: Path, tmp_path: Path, tool: str) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for (
        name
    ) in f"{tool} cat chmod dd env find getconf gzip head ln mkdir mv perl rm sed sh sleep tail tar uname wc".split():
        if (found := shutil.which(name, path=f"{SYSTEM}:{Path(python_3_11()).parent}")) is not None:
            (tools / name).symlink_to(found)
        elif name == tool:
            pytest.skip(f"there is no {tool} here")
    run(desk, tmp_path / "away", "sh", str(bundle), "--build-only", path=str(tools)).succeeded()
    content = bytearray(bundle.read_bytes())
    content[-2000] ^= 1
    bundle.write_bytes(content)
    run(desk, tmp_path / "other", "sh", str(bundle), "--build-only", path=str(tools)).failed(1, "changed or damaged")


# --- what it is ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_lock_gives_the_same_bytes(desk: Sandbox, bundle: Path) -> None:
    other = make(desk, "-o", "elsewhere/again.run")
    assert other.read_bytes() == bundle.read_bytes()
    os.utime(next(desk.wheels.glob("anchor*")), (1, 1))
    make(desk)
    assert other.read_bytes() == bundle.read_bytes()


def test_what_follows_the_script_is_a_plain_archive(bundle: Path) -> None:
    content = bundle.read_bytes()
    start = int(re.search(rb"^_bundle_start=(\d+)", content, re.MULTILINE)[1])  # type: ignore[index]
    assert content[: start - 1].endswith(b"exit 1  # what follows is no script\n")
    with tarfile.open(fileobj=io.BytesIO(content[start - 1 :])) as archive:
        members = archive.getmembers()
    assert {(member.mtime, member.uid, member.gid, member.uname) for member in members} == {(0, 0, 0, "")}
    assert "uv.gz" in {member.name for member in members}
    assert not any("uv-" in member.name for member in members)
    wheels = sum(member.size for member in members if member.name.endswith(".whl"))
    assert wheels > 0


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("size", [0, 65535, 200_001])
def test_a_member_of_a_zip_becomes_a_gzip_file(method: int, size: int) -> None:
    content = bytes(number * number % 251 for number in range(size))
    packed, out = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        archive.writestr("first", b"x" * 100)
        archive.writestr("a/uv", content)
        entry = archive.getinfo("a/uv")
    _as_gzip(entry, packed, out)
    assert gzip.decompress(out.getvalue()) == content


# --- what it refuses -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_one_that_was_cut_short_or_changed_writes_nothing(desk: Sandbox, bundle: Path, tmp_path: Path) -> None:
    whole = bundle.read_bytes()
    start = int(re.search(rb"^_bundle_start=(\d+)", whole, re.MULTILINE)[1])  # type: ignore[index]
    cuts = [whole[: start - 1], whole[: start + 700], whole[:-1], whole + b"x"]
    places = (start - 1, start + 5000, len(whole) - 1)
    changes = [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in places]
    # In the script itself: in what is said, in the plan, and after all that runs.
    for old in (b"# It is a bundle", b'"accelerator":', b"# what follows is no script"):
        assert whole.count(old, 0, start) == 1
        changes.append(whole.replace(old, old.swapcase(), 1))
    for number, content in enumerate([*cuts, *changes]):
        bundle.write_bytes(content)
        home = tmp_path / f"home{number}"
        words = "cut short or changed" if number < len(cuts) else "changed or damaged"
        for option in ("--build-only", "--"):
            run(desk, home, "sh", str(bundle), option).failed(1, words, "hint: copy it again")
        assert list(home.rglob("*")) == []


@pytest.mark.slow
def test_it_is_compared_with_what_the_lock_makes(desk: Sandbox, bundle: Path, tmp_path: Path) -> None:
    """Also where whoever changed it has seen to it that it does not notice itself."""
    whole = bundle.read_bytes()
    desk.drydock("bundle", "small", "--verify", "small.run").succeeded()
    assert bundle.read_bytes() == whole
    start = int(re.search(rb"^_bundle_start=(\d+)", whole, re.MULTILINE)[1])  # type: ignore[index]
    evil = whole.replace(b"\ncheck_bundle() {\n", b"\ncheck_bundle() {\n_checked=yes; return\n", 1)
    moved = start + len(evil) - len(whole)
    bundle.write_bytes(evil.replace(b"_bundle_start=%d" % start, b"_bundle_start=%d" % moved, 1))
    refused = desk.drydock("bundle", "small", "--verify", "small.run").failed(1, "is not the bundle of small", "line ")
    assert "of its script is '_checked=yes; return', and should be" in refused.stderr
    # Another uv, and all sums as they should be for it.
    at = whole.index(b"\x1f\x8b", start)
    content = whole[: at + 10] + bytes([whole[at + 10] ^ 1]) + whole[at + 11 :]
    sums = [hashlib.sha256(one[start - 1 :]).hexdigest().encode() for one in (whole, content)]
    content = content.replace(sums[0], sums[1])
    script = re.compile(rb"^_bundle_script=.*\n", re.MULTILINE)
    own = [hashlib.sha256(script.sub(b"", one[: start - 1])).hexdigest().encode() for one in (whole, content)]
    bundle.write_bytes(content.replace(own[0], own[1]))
    run(desk, tmp_path / "away", "sh", str(bundle), "--where").succeeded()
    desk.drydock("bundle", "small", "--verify", "small.run").failed(1, "'uv.gz' in it is another one")
    bundle.write_bytes(whole[:-1] + b"x")
    desk.drydock("bundle", "small", "--verify", "small.run").failed(1, "the archive in it is another one")
    bundle.write_bytes(b"#!/bin/sh\n")
    desk.drydock("bundle", "small", "--verify", "small.run").failed(1, "small.run is not a bundle")
    desk.drydock("bundle", "small", "--verify", "small.run", "-o", "x").failed(2, "--verify writes nothing")


@pytest.mark.slow
def test_a_signature_is_asked_for_where_a_key_is_given(desk: Sandbox, tmp_path: Path) -> None:
    if shutil.which("minisign") is None:
        pytest.skip("there is no minisign here")
    public = {}
    for name in ("ours", "other"):
        subprocess.run(
            ["minisign", "-G", "-W", "-p", f"{tmp_path}/{name}.pub", "-s", f"{tmp_path}/{name}.key"],
            check=True,
            capture_output=True,
        )
        public[name] = (tmp_path / f"{name}.pub").read_text().splitlines()[1]
    bundle = make(desk, "--sign", f"{tmp_path}/ours.key")
    signature = Path(f"{bundle}.minisig")
    command, home = ["sh", str(bundle), "--build-only"], tmp_path / "away"
    home.mkdir()

    def with_key(name: str) -> Result:
        return run(desk, home, *command, DRYDOCK_MINISIGN_PUBKEY=public[name])

    with_key("other").failed(1, "is not signed by the key in DRYDOCK_MINISIGN_PUBKEY")
    whole = bundle.read_bytes()
    bundle.write_bytes(whole.replace(b"# It is a bundle", b"# It is A bundle", 1))
    with_key("ours").failed(1, "is not signed by the key")
    bundle.write_bytes(whole)
    text = signature.read_text()
    signature.unlink()
    with_key("ours").failed(1, "is not signed: there is no ")
    signature.write_text(text)
    assert list(home.rglob("*")) == []
    with_key("ours").succeeded()
    # Another bundle under this name, signed by the same key; and another comment over this one.
    path = desk.work / "profiles/small.toml"
    (desk.work / "profiles/other.toml").write_text(path.read_text().replace('name = "small"', 'name = "other"'))
    desk.drydock("lock", "other").succeeded()
    other = desk.work / desk.drydock("bundle", "other", "--sign", f"{tmp_path}/ours.key").succeeded().stdout.strip()
    bundle.write_bytes(other.read_bytes())
    signature.write_text(Path(f"{other}.minisig").read_text())
    with_key("ours").failed(1, "is signed as a bundle of other", "call it other.run")
    bundle.write_bytes(whole)
    resign = ["minisign", "-S", "-s", f"{tmp_path}/ours.key", "-m", str(bundle), "-x", str(signature)]
    subprocess.run([*resign, "-t", "drydock bundle small 0123"], check=True, capture_output=True)
    with_key("ours").failed(1, "says: drydock bundle small 0123")
    signature.write_text(text)
    key = Path(run(desk, home, "sh", str(bundle), "--where").succeeded().stdout).name.partition("-")[0]
    asked = {"DRYDOCK_MINISIGN_PUBKEY": public["ours"], "DRYDOCK_BUNDLE_KEY": key}
    run(desk, home, *command, **asked).succeeded()
    asked["DRYDOCK_BUNDLE_KEY"] = key[::-1]
    run(desk, home, *command, **asked).failed(1, "DRYDOCK_BUNDLE_KEY asks for", "is it an older one?")
    signature.unlink()
    with_key("ours").failed(1, "is not signed")  # also where it is built
    run(desk, home, *command).succeeded()
    make(desk, "--sign", f"{tmp_path}/ours.key")
    make(desk)
    assert not signature.exists(), "an old signature beside a new bundle"
    desk.drydock("bundle", "small", "--sign", str(bundle)).failed(1, "minisign failed: exit status")
    assert bundle.read_bytes() == whole


@pytest.mark.slow
def test_a_file_of_the_users_is_not_overwritten(desk: Sandbox, bundle: Path) -> None:
    mine = desk.work / "mine"
    mine.write_text("mine")
    desk.drydock("bundle", "small", "-o", "mine").failed(2, "mine is not a bundle of small", "-o")
    assert mine.read_text() == "mine"
    make(desk)
    assert sorted(path.name for path in desk.work.iterdir()) == ["mine", "profiles", "small.run"]


# --- with a Python -------------------------------------------------------------------------------------------------


def python_archive(path: Path, release: str = "") -> Path:
    """An archive as python-build-standalone lays one out, whose Python is this machine's by way of a script.

    With a `release`, its header says that it is that one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    script = f'#!/bin/sh\nexec {python_3_11()} "$@"\n'.encode()
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("python/bin/python3.11")
        member.size, member.mode = len(script), 0o755
        archive.addfile(member, io.BytesIO(script))
        if release:
            header = f'#define PY_MINOR_VERSION 11\n#define PY_VERSION             "{release}"\n'.encode()
            member = tarfile.TarInfo("python/include/python3.11/patchlevel.h")
            member.size = len(header)
            archive.addfile(member, io.BytesIO(header))
    return path


@pytest.mark.slow
def test_a_python_can_come_along(desk: Sandbox, tmp_path: Path) -> None:
    archive = python_archive(tmp_path / "python.tar.gz")
    bundle = make(desk, f"--with-python={archive}")
    home = tmp_path / "away"
    run(desk, home, "sh", str(bundle), "--build-only", DRYDOCK_PYTHON="").succeeded()
    (tool,) = (home / ".local/share/drydock/tools").iterdir()
    assert tool.name.startswith("python-")
    assert (tool / "python/bin/python3.11").is_file()
    assert run(desk, home, "sh", str(bundle)).succeeded().stdout == "trained with 1.0\n"


@pytest.mark.slow
def test_the_python_is_fetched_from_where_uv_would(desk: Sandbox, tmp_path: Path) -> None:
    with Web(tmp_path / "pythons") as web:
        env = {"UV_PYTHON_INSTALL_MIRROR": web.url}
        missing = desk.drydock("bundle", "small", "--with-python", env=env)
        found = re.search(rf"{web.url}/(\d+/cpython-3\.11\.\d+\S*-x86_64-unknown-linux-gnu-\S*)", missing.stderr)
        missing.failed(1, "cannot be fetched", "--with-python=FILE")
        assert found is not None
        python_archive(tmp_path / "pythons" / found[1].replace("%2B", "+"))
        desk.drydock("bundle", "small", "--with-python", env=env).succeeded()
    assert sorted(path.name for path in desk.work.iterdir()) == ["profiles", "small.run"]


def test_the_python_of_another_release_is_refused(desk: Sandbox, tmp_path: Path) -> None:
    path = desk.profile("small")
    path.write_text(path.read_text().replace('version = "3.11"', 'version = "3.11.13"'))
    desk.drydock("lock", "small").succeeded()
    archive = python_archive(tmp_path / "python.tar.gz", "3.11.9")
    refused = desk.drydock("bundle", "small", f"--with-python={archive}")
    refused.failed(2, "is Python 3.11.9, and the profile wants 3.11.13", "use that of 3.11.13")
    python_archive(archive, "3.11.13")
    desk.drydock("bundle", "small", f"--with-python={archive}").succeeded()


def test_what_is_no_such_archive_is_refused(desk: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(b"no archive")
    refused = desk.drydock("bundle", "small", f"--with-python={tmp_path}/x.tar.gz")
    refused.failed(2, "is not a Python 3.11 of python-build-standalone", "install_only")
    assert sorted(path.name for path in desk.work.iterdir()) == ["profiles"]
