"""A Python of python-build-standalone by its sha256: locked, fetched, checked, kept, mirrored, bundled, and collected.

uv's list of downloads is one of ours, on loopback, as UV_PYTHON_DOWNLOADS_JSON_URL names one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support import SHELLS, Sandbox, make_wheel, python_3_11
from tests.support.kept import link
from tests.support.standalone import DAY, Standalone, standalone
from tests.support.web import Web


@pytest.fixture(scope="session")
def archive() -> Standalone:
    return standalone()


@pytest.fixture
def web(tmp_path: Path, archive: Standalone) -> Iterator[Web]:
    """A server that has the archive."""
    folder = tmp_path / "pythons"
    (folder / DAY).mkdir(parents=True)
    link(str(archive.path), str(folder / DAY / archive.file))
    with Web(folder) as server:
        yield server


@pytest.fixture
def desk(sandbox: Sandbox, web: Web, archive: Standalone) -> Sandbox:
    """A desk with a profile that wants a Python by its bytes; uv's list has the archive, on the web."""
    listed(sandbox, {archive.key: archive.row(web.url)})
    del sandbox.environment["DRYDOCK_PYTHON"]
    path = sandbox.profile("small")
    path.write_text(path.read_text().replace('version = "3.11"', 'version = "3.11"\nstandalone = true'))
    return sandbox


def listed(desk: Sandbox, rows: dict[str, dict[str, object]]) -> None:
    path = desk.root / "downloads.json"
    path.write_text(json.dumps(rows))
    desk.environment["UV_PYTHON_DOWNLOADS_JSON_URL"] = str(path)


def dated(content: bytes) -> bytes:
    """The same archive with another time in the head of gzip."""
    return content[:4] + bytes([content[4] ^ 1]) + content[5:]


def home(desk: Sandbox) -> Path:
    return desk.store.parent


def python_of(env: str) -> Path:
    return (Path(env) / "bin/python").resolve()


def fetched(web: Web) -> list[str]:
    return [path for path in web.requests if path.endswith(".tar.gz")]


@pytest.mark.slow
def test_it_is_locked_fetched_checked_and_built_on(desk: Sandbox, web: Web, archive: Standalone) -> None:
    desk.drydock("lock", "small").succeeded()
    lock = (desk.work / "profiles/small.lock.toml").read_text()
    for line in (
        f'file = "{archive.file}"',
        f"size = {archive.size}",
        f'sha256 = "{archive.sha256}"',
        f'version = "{archive.release}+{DAY}"',
        'index = "python-build-standalone"',
    ):
        assert line in lock
    assert "127.0.0.1" not in lock
    # No Python of this machine is needed, or asked.
    bare = {"PATH": "/usr/bin:/bin", "UV_PYTHON_PREFERENCE": "only-system"}
    script = desk.script("small")
    built = desk.run(["sh", str(script), "--build-only"], env=bare).succeeded()
    assert f"fetching {archive.file}" in built.stderr
    env = built.stdout.strip()
    place = home(desk) / "pythons" / archive.sha256
    assert python_of(env).is_relative_to(place / archive.key)
    assert sorted(path.name for path in place.iterdir()) == [archive.key, "manifest.json"]
    assert all(path.is_symlink() or not path.stat().st_mode & 0o222 for path in place.rglob("*"))
    assert any(place.rglob("__pycache__/os.cpython-311.pyc")), "the standard library is compiled once"
    plan = json.loads((Path(env) / ".drydock/manifest.json").read_text())["plan"]
    assert (plan["python-build"]["file"], plan["python-build"]["sha256"]) == (archive.file, archive.sha256)
    assert plan["interpreter"] == archive.release
    # Once for all environments.
    times = len(fetched(web))
    desk.remove(Path(env).name)
    assert "fetching" not in desk.drydock("build", "small").succeeded().stderr
    assert len(fetched(web)) == times
    assert desk.drydock("run", "small").succeeded().stdout == "trained with 1.0\n"
    assert f"ok   python: {archive.file}" in desk.drydock("verify", "small").succeeded().stdout


@pytest.mark.slow
def test_the_key_names_its_bytes(desk: Sandbox, web: Web, archive: Standalone) -> None:
    desk.drydock("lock", "small").succeeded()
    first = desk.drydock("build", "small").succeeded().stdout.strip()
    # The same release, built again by upstream: another archive.
    again = web.folder / DAY / archive.file.replace(f"+{DAY}", "+20251101")
    again.write_bytes(dated(archive.path.read_bytes()))
    other = Standalone(again, archive.release, hashlib.sha256(again.read_bytes()).hexdigest())
    listed(desk, {archive.key: other.row(web.url)})
    assert "fresh" in desk.drydock("lock", "small").succeeded().stderr
    before = (desk.work / "profiles/small.lock.toml").read_text()
    said = desk.drydock("lock", "small", "--upgrade", "python").succeeded()
    assert f"~ python {archive.release}+{DAY} -> {archive.release}+20251101" in said.stdout + said.stderr
    second = desk.drydock("build", "small").succeeded().stdout.strip()
    assert Path(first).name != Path(second).name
    assert python_of(second).is_relative_to(home(desk) / "pythons" / other.sha256)
    said = desk.drydock("diff", "small@1", "small@2")
    assert f"~ python {archive.release}+{DAY} -> {archive.release}+20251101" in said.stdout
    # The older build, which the list has no more, is where it was.
    (desk.work / "profiles/small.lock.toml").write_text(before)
    subprocess.run(["chmod", "-R", "u+w", str(home(desk))], check=True)
    shutil.rmtree(home(desk))
    assert Path(desk.drydock("build", "small").succeeded().stdout.strip()).name == Path(first).name


@pytest.mark.slow
def test_other_bytes_are_refused(desk: Sandbox, web: Web, archive: Standalone) -> None:
    desk.drydock("lock", "small").succeeded()
    place = web.folder / DAY / archive.file
    content = place.read_bytes()
    place.unlink()
    place.write_bytes(dated(content))
    desk.drydock("build", "small").failed(1, "does not have the sha256 that the lock names", "nothing was left")
    place.write_bytes(content[: len(content) // 2])
    desk.drydock("build", "small").failed(1, "cannot be unpacked: it was cut short", "nothing was left")
    assert desk.environments() == []
    assert not list((home(desk) / "pythons").rglob("bin/python3.11"))
    place.unlink()
    desk.drydock("build", "small").failed(1, f"{archive.file} could not be fetched", "UV_PYTHON_INSTALL_MIRROR")
    desk.drydock("--offline", "build", "small").failed(1, "no network is to be used", "drydock pull small")
    place.write_bytes(content)
    desk.drydock("build", "small").succeeded()


@pytest.mark.slow
def test_what_cannot_be_locked(desk: Sandbox, web: Web, archive: Standalone) -> None:
    lock = desk.work / "profiles/small.lock.toml"
    listed(desk, {archive.key: archive.row(web.url, sha256="0" * 64)})
    desk.drydock("lock", "small").failed(1, "Hash mismatch")
    listed(
        desk,
        {archive.key.replace("x86_64", "aarch64"): archive.row(web.url, arch={"family": "aarch64", "variant": None})},
    )
    desk.drydock("lock", "small").failed(1, "knows no Python 3.11 of python-build-standalone for linux-x86_64")
    mac = archive.file.replace("x86_64-unknown-linux-gnu", "aarch64-apple-darwin")
    link(str(archive.path), str(web.folder / DAY / mac))
    listed(desk, {archive.key: archive.row(web.url) | {"url": f"{web.url}/{DAY}/{mac}"}})
    desk.drydock("lock", "small").failed(1, "is not Python 3.11 for linux-x86_64")
    listed(desk, {archive.key: archive.row(f"{web.url}/nothing")})
    desk.drydock("lock", "small").failed(1, "404")
    assert not lock.exists()


@pytest.mark.slow
def test_a_mirror_a_cache_and_a_bundle_bring_it(desk: Sandbox, web: Web, archive: Standalone, tmp_path: Path) -> None:
    program = {f"uv-{version('uv')}.data/scripts/uv": f'#!/bin/sh\nexec {desk.environment["DRYDOCK_UV"]} "$@"\n'}
    make_wheel(desk.wheels, "uv", version("uv"), tag="py3-none-manylinux_2_17_x86_64", files=program)
    desk.drydock("lock", "small").succeeded()
    mirror = tmp_path / "mirror+1"
    desk.drydock("push", "small", str(mirror)).succeeded()
    sums = (mirror / "SHA256SUMS").read_text()
    assert archive.file in sums
    assert not [path.name for path in (mirror / "simple").iterdir() if "cpython" in path.name]
    desk.drydock("bundle", "small", "-o", "small.run").succeeded()
    (web.folder / DAY / archive.file).unlink()
    bundled = {"DRYDOCK_HOME": str(tmp_path / "bundled"), "PATH": "/usr/bin:/bin", "UV_CACHE_DIR": str(tmp_path / "c1")}
    assert desk.run(["sh", "small.run"], env=bundled).succeeded().stdout == "trained with 1.0\n"
    cached = {"DRYDOCK_HOME": str(tmp_path / "cached"), "UV_OFFLINE": "1", "DRYDOCK_CACHE": str(mirror)}
    desk.drydock("build", "small", env=cached).succeeded()
    with Web(mirror) as far:
        served = {"DRYDOCK_HOME": str(tmp_path / "served"), "DRYDOCK_CACHE": far.url}
        desk.drydock("build", "small", env=served).succeeded()
        far.fault = "wrong"
        wrong = {"DRYDOCK_HOME": str(tmp_path / "wrong"), "DRYDOCK_CACHE": far.url}
        desk.drydock("build", "small", env=wrong).failed(
            1, "a cache has another file under the name", "could not be fetched"
        )
    pulled = {"DRYDOCK_HOME": str(tmp_path / "pulled")}
    desk.drydock("pull", "small", str(mirror), env=pulled).succeeded()
    env = desk.drydock("--offline", "build", "small", env=pulled).succeeded().stdout.strip()
    assert python_of(env).is_relative_to(tmp_path / "pulled/pythons" / archive.sha256)


@pytest.mark.slow
def test_a_mirror_of_upstreams_kind(desk: Sandbox, web: Web, archive: Standalone, tmp_path: Path) -> None:
    """UV_PYTHON_INSTALL_MIRROR and python-install-mirror, by which uv finds all of its own list."""
    desk.drydock("lock", "small").succeeded()
    environment = {name: text for name, text in desk.environment.items() if name != "UV_PYTHON_DOWNLOADS_JSON_URL"}
    desk.environment.clear()
    desk.environment.update(environment)
    mirrored = {"UV_PYTHON_INSTALL_MIRROR": web.url}
    desk.drydock("build", "small", env=mirrored).succeeded()
    settings = desk.home / ".config/uv/uv.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text(f'python-install-mirror = "{web.url}"\n')
    desk.drydock("build", "small", env={"DRYDOCK_HOME": str(tmp_path / "second")}).succeeded()
    assert {path.partition("/cpython")[0] for path in fetched(web)} == {f"/{DAY}"}


@pytest.mark.slow
def test_a_python_that_was_changed_is_found(desk: Sandbox, archive: Standalone) -> None:
    desk.drydock("lock", "small").succeeded()
    desk.drydock("build", "small").succeeded()
    place = home(desk) / "pythons" / archive.sha256 / archive.key
    module, extra = place / "lib/python3.11/colorsys.py", place / "lib/python3.11/sitecustomize.py"
    for path in (module, module.parent):
        path.chmod(0o755)
    module.write_text(module.read_text() + "\nHACK = 1\n")
    extra.write_text("")
    verified = desk.drydock("verify", "small")
    assert verified.code == 1
    assert "FAIL python: not as unpacked" in verified.stdout
    assert "lib/python3.11/colorsys.py was changed" in verified.stdout
    assert "lib/python3.11/sitecustomize.py was added" in verified.stdout


@pytest.mark.slow
def test_it_is_kept_as_long_as_an_environment_needs_it(desk: Sandbox, archive: Standalone) -> None:
    desk.drydock("lock", "small").succeeded()
    env = Path(desk.drydock("build", "small").succeeded().stdout.strip())
    place = home(desk) / "pythons" / archive.sha256
    long_ago = time.time() - 7200
    os.utime(place, (long_ago, long_ago))
    assert archive.sha256 not in desk.drydock("store", "gc").succeeded().stdout
    assert python_of(str(env)).is_file()
    for path in (home(desk) / "profiles").iterdir():
        path.unlink()
    assert f"{archive.sha256}: no environment is built on this Python" in desk.drydock("store", "gc").succeeded().stdout
    assert not place.exists()
    desk.drydock("build", "small").succeeded()


@pytest.mark.slow
def test_two_builds_at_once_and_one_that_was_killed(desk: Sandbox, archive: Standalone) -> None:
    desk.drydock("lock", "small").succeeded()
    twin = desk.work / "profiles/twin.toml"
    twin.write_text(desk.profile("other").read_text().replace('"other"', '"twin"').replace("a small one", "a twin"))
    twin.write_text(twin.read_text().replace('version = "3.11"', 'version = "3.11"\nstandalone = true'))
    desk.drydock("lock", "twin").succeeded()
    place = home(desk) / "pythons" / archive.sha256
    started = desk.start("build", "small")
    deadline = time.monotonic() + 30
    while not any(place.glob(".temp/*")) and not (place / "manifest.json").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    started.kill()
    started.communicate()
    both = [desk.start("build", name) for name in ("small", "twin")]
    ends = [one.communicate() for one in both]
    assert [one.returncode for one in both] == [0, 0], ends
    assert sorted(path.name for path in place.iterdir()) == [archive.key, "manifest.json"]
    desk.drydock("verify", "twin").succeeded()


@pytest.mark.slow
def test_doctor_and_the_bill_say_it(desk: Sandbox, archive: Standalone) -> None:
    desk.drydock("lock", "small").succeeded()

    def doctor() -> dict[str, str]:
        found = json.loads(desk.drydock("doctor", "small", "--json").stdout)
        (said,) = [one for one in found["diagnoses"] if one["what"] == "Python"]
        return dict(said)

    assert doctor()["state"] == "ok"
    assert f"{archive.release}, {archive.file}, is fetched by the build" in doctor()["found"]
    desk.drydock("build", "small").succeeded()
    assert archive.sha256 in doctor()["found"]
    bill = json.loads(desk.drydock("export", "small", "--format", "sbom").succeeded().stdout)
    (python,) = [one for one in bill["components"] if one["name"] == "cpython"]
    assert python["version"] == f"{archive.release}+{DAY}"
    assert python["hashes"] == [{"alg": "SHA-256", "content": archive.sha256}]


@pytest.mark.slow
def test_another_python_is_not_taken_for_it(desk: Sandbox) -> None:
    desk.drydock("lock", "small").succeeded()
    built = desk.drydock("build", "small", env={"DRYDOCK_PYTHON": python_3_11()}).succeeded()
    assert "and not on DRYDOCK_PYTHON" in built.stderr
    assert "pythons" in str(python_of(built.stdout.strip()))


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_fetches_it(desk: Sandbox, web: Web, archive: Standalone, tmp_path: Path, shell: str) -> None:
    desk.drydock("lock", "small").succeeded()
    command = [*SHELLS[shell], str(desk.script("small")), "--build-only"]
    env = desk.run(command).succeeded().stdout.strip()
    assert python_of(env).is_relative_to(home(desk) / "pythons" / archive.sha256)
    (web.folder / DAY / archive.file).unlink()
    desk.run(command, env={"DRYDOCK_HOME": str(tmp_path / "other")}).failed(1, "could not be fetched: HTTP status")
