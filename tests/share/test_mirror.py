"""Mirrors: what `drydock push` writes, pip and uv install from; what goes wrong there, a build survives."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.share.mirror import pages
from tests.support import Sandbox, Web, make_sdist, make_wheel
from tests.support.remote import s3, sshd
from tests.support.waiting import LONG

TWO = """\
schema = 1
name = "two"
extends = ["small"]
[packages]
requires = ["Second_Thing"]
"""
NO_INDEX = {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0"}
"""Nothing listens there."""


@pytest.fixture
def mirror(locked: Sandbox, tmp_path: Path) -> Path:
    """A folder that has what `small` needs."""
    folder = tmp_path / "mirror"
    locked.drydock("push", "small", str(folder)).succeeded()
    return folder


@pytest.fixture
def web(mirror: Path) -> Iterator[Web]:
    with Web(mirror) as server:
        yield server


def two(desk: Sandbox) -> None:
    """A second profile, with one more package."""
    make_wheel(desk.wheels, "Second_Thing", "2.0", requires=["anchor"])
    desk.profile("two", TWO)
    desk.drydock("lock", "two").succeeded()


def empty(tmp_path: Path, name: str = "again") -> dict[str, str]:
    """The environment of a machine that has nothing yet, and no index."""
    return {**NO_INDEX, "DRYDOCK_HOME": str(tmp_path / name), "UV_CACHE_DIR": str(tmp_path / f"{name}-uv")}


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- what is written -----------------------------------------------------------------------------------------------


def test_the_files_of_a_lock_become_an_index_that_names_them_by_hash(locked: Sandbox, tmp_path: Path) -> None:
    folder = tmp_path / "mirror"
    done = locked.drydock("push", "small", str(folder)).succeeded()
    assert re.fullmatch(rf"{re.escape(str(folder))}: 2 files, \d+\.\d MB; pushed 2, \d+\.\d MB\n", done.stdout)
    wheel = next(locked.wheels.glob("anchor-*.whl"))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    path = f"files/{digest[:2]}/{digest}/{wheel.name}"
    assert (folder / path).read_bytes() == wheel.read_bytes()
    assert (folder / f"{path}.metadata").read_text().startswith("Metadata-Version: 2.1\nName: anchor\n")
    assert f'href="../../{path}#sha256={digest}"' in (folder / "simple/anchor/index.html").read_text()
    page = json.loads((folder / "simple/anchor/index.json").read_text())
    assert page["name"] == "anchor"
    assert [(row["filename"], row["url"], row["hashes"]) for row in page["files"]] == [
        (wheel.name, f"../../{path}", {"sha256": digest})
    ]
    assert re.findall('href="([^"]*)"', (folder / "simple/index.html").read_text()) == ["anchor/", "uv/"]
    assert subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=False).returncode == 0
    assert not list(folder.glob(".incoming*"))


def test_a_second_push_moves_nothing_and_writes_nothing(locked: Sandbox, mirror: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in mirror.rglob("*")}
    done = locked.drydock("push", "small", str(mirror), env=NO_INDEX).succeeded()
    assert done.stdout.endswith("pushed 0, 0.0 MB\n")
    assert {path: path.stat().st_mtime_ns for path in mirror.rglob("*")} == before


@pytest.mark.slow
def test_pushes_of_several_profiles_merge_in_any_order(locked: Sandbox, tmp_path: Path, mirror: Path) -> None:
    two(locked)
    locked.drydock("push", "two", str(mirror)).succeeded()
    locked.drydock("push", "two", "small", str(tmp_path / "other")).succeeded()
    assert everything(mirror) == everything(tmp_path / "other")
    assert (mirror / "simple/second-thing/index.html").is_file()


@pytest.mark.slow
def test_pushes_at_the_same_time_make_one_whole_index(locked: Sandbox, tmp_path: Path) -> None:
    two(locked)
    folder = tmp_path / "mirror"
    started = [locked.start("push", name, str(folder)) for name in ("small", "two") * 2]
    assert [process.wait(LONG) for process in started] == [0] * 4, [process.communicate() for process in started]
    for process in started:
        process.communicate()
    locked.drydock("push", "small", "two", str(tmp_path / "other")).succeeded()
    assert everything(folder) == everything(tmp_path / "other")


def test_a_push_that_was_killed_goes_on(locked: Sandbox, mirror: Path) -> None:
    two(locked)
    wheel = next(mirror.rglob("anchor-*.whl"))
    wheel.write_bytes(wheel.read_bytes()[:100])  # as a place without a rename leaves it
    (mirror / f".incoming-{_host()}-999999999").mkdir()
    done = locked.drydock("push", "small", "two", str(mirror)).succeeded()
    assert "pushed 2, " in done.stdout
    assert subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=mirror, check=False).returncode == 0
    assert not list(mirror.glob(".incoming*"))


@pytest.mark.slow
def test_a_push_killed_at_any_moment_leaves_an_index_of_whole_files(locked: Sandbox, tmp_path: Path) -> None:
    two(locked)
    for number, pause in enumerate((0.25, 0.4, 0.5, 0.6, 0.8)):
        folder = tmp_path / f"mirror{number}"
        process = locked.start("push", "two", str(folder))
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for found in folder.glob("files/*/*/*.whl"):
            assert hashlib.sha256(found.read_bytes()).hexdigest() == found.parent.name
        locked.drydock("push", "two", str(folder)).succeeded()
        assert len(pages.parse_sums((folder / "SHA256SUMS").read_text())) == 3


def test_a_dry_run_names_the_files_and_writes_nothing(locked: Sandbox, tmp_path: Path) -> None:
    done = locked.drydock("push", "small", str(tmp_path / "mirror"), "--dry-run").succeeded()
    assert done.stdout.splitlines()[0] == "anchor-1.0-py3-none-any.whl"
    assert "would push 2, " in done.stdout
    assert not (tmp_path / "mirror").exists()


def test_the_summary_as_json(locked: Sandbox, mirror: Path) -> None:
    found = json.loads(locked.drydock("push", "small", str(mirror), "--json").succeeded().stdout)
    assert (found["place"], found["files"], found["moved"], found["moved_size"]) == (str(mirror), 2, [], 0)


def test_the_index_has_what_it_was_locked_from_no_more(locked: Sandbox, tmp_path: Path) -> None:
    make_wheel(locked.wheels, "anchor", "1.0", files={"anchor/__init__.py": "another = True\n"})
    refused = locked.drydock("push", "small", str(tmp_path / "mirror"))
    refused.failed(1, "anchor-1.0-py3-none-any.whl was not found", "lock again")
    assert "anchor" not in {path.name for path in (tmp_path / "mirror").rglob("*")}


@pytest.mark.slow
def test_a_web_server_is_read_only(locked: Sandbox, web: Web) -> None:
    two(locked)
    locked.drydock("push", "two", web.url).failed(2, "is read-only", "push to the folder")


@pytest.mark.parametrize("file", ["simple/index.html", "SHA256SUMS"])
def test_an_index_of_somebody_else_is_left_alone(locked: Sandbox, tmp_path: Path, file: str) -> None:
    theirs = tmp_path / "theirs" / file
    theirs.parent.mkdir(parents=True)
    theirs.write_text("<a href=x>x</a>")
    refused = locked.drydock("push", "small", str(tmp_path / "theirs"))
    refused.failed(2, f"has {file}, which drydock push did not write", "a folder of its own")
    assert everything(tmp_path / "theirs") == {file: b"<a href=x>x</a>"}


def test_a_place_that_nothing_reaches(locked: Sandbox, tmp_path: Path) -> None:
    locked.drydock("push", "small", "carrier-pigeon://home/loft").failed(2, "carrier-pigeon://", "s3://")
    (tmp_path / "file").write_text("")
    locked.drydock("push", "small", str(tmp_path / "file")).failed(1, str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == ""


# --- who can read it -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_pip_and_uv_install_from_any_static_web_server(locked: Sandbox, web: Web, tmp_path: Path) -> None:
    for number, tool in enumerate(([sys.executable, "-m", "pip"], [locked.environment["DRYDOCK_UV"], "pip"])):
        for url in (f"{web.url}/simple/", f"file://{web.folder}/simple/"):
            target = tmp_path / f"{number}{url[:4]}"
            command = [*tool, "install", "--index-url", url, "--target", str(target), "anchor"]
            locked.run(command, env={"PIP_CONFIG_FILE": "/dev/null", "UV_DEFAULT_INDEX": ""}).succeeded()
            assert (target / "anchor/__init__.py").is_file()
    assert any(path.endswith(".metadata") for path in web.requests)


ODD = """\
import os, time, zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    info = "odd-1.0.dist-info"
    with zipfile.ZipFile(f"{folder}/odd-1.0-WHERE.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("odd.py", "WHAT")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: odd\\nVersion: 1.0\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nGenerator: odd\\nRoot-Is-Purelib: true\\nTag: WHERE\\n")
        wheel.writestr(f"{info}/RECORD", "odd.py,,\\n")
    return "odd-1.0-WHERE.whl"
"""


def odd(desk: Sandbox, what: str = "x = 1", where: str = "py3-none-any") -> None:
    """A profile with a source distribution."""
    backend = ODD.replace('"WHAT"', what if what.startswith("str") else repr(what)).replace("WHERE", where)
    project = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    make_sdist(desk.wheels, "odd", "1.0", {"pyproject.toml": project, "backend.py": backend})
    text = desk.profile("odd").read_text()
    desk.profile("odd", text.replace('["anchor"]', '["anchor", "odd"]\n[packages.build]\nodd = []\n'))
    desk.drydock("lock", "odd").succeeded()


@pytest.mark.slow
def test_a_source_distribution_is_there_as_it_is_and_as_a_wheel_that_everybody_gets(
    locked: Sandbox, tmp_path: Path
) -> None:
    odd(locked)
    for name in ("one", "two"):
        locked.drydock("push", "odd", str(tmp_path / name)).succeeded()
        time.sleep(1)
    assert everything(tmp_path / "one") == everything(tmp_path / "two")
    page = (tmp_path / "one/simple/odd/index.html").read_text()
    assert re.findall(r">(odd-[^<]*)<", page) == ["odd-1.0-py3-none-any.whl", "odd-1.0.tar.gz"]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "one").rglob("*")}
    assert "building" not in locked.drydock("push", "odd", str(tmp_path / "one")).succeeded().stderr
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "one").rglob("*")} == before
    env = {**empty(tmp_path), "DRYDOCK_CACHE": str(tmp_path / "one")}
    built = Path(locked.drydock("--offline", "build", "odd", env=env).succeeded().stdout.strip())
    assert (built / "lib/python3.11/site-packages/odd.py").read_text() == "x = 1"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "where", "why"),
    [
        ("str(time.time_ns())", "py3-none-any", "that differs each time"),
        ("x = 1", "py3-none-linux_x86_64", "for this machine only"),
    ],
)
def test_a_wheel_that_not_everybody_gets_is_left_out(
    locked: Sandbox, tmp_path: Path, what: str, where: str, why: str
) -> None:
    odd(locked, what, where)
    assert why in locked.drydock("push", "odd", str(tmp_path / "mirror")).succeeded().stderr
    assert [path.name for path in (tmp_path / "mirror").rglob("odd-*.whl")] == []
    assert why not in locked.drydock("push", "odd", str(tmp_path / "mirror")).succeeded().stderr


# --- builds from it ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "url", "file-url", "drydock.toml"])
def test_a_build_takes_from_a_cache_and_asks_no_index(locked: Sandbox, web: Web, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "a folder" if kind == "drydock.toml" else web.folder
    place = {"folder": str(folder), "url": web.url, "file-url": f"file://{folder}", "drydock.toml": str(web.folder)}
    env = empty(tmp_path)
    if kind == "drydock.toml":
        (locked.work / "drydock.toml").write_text(f'[caches]\nplaces = ["{place[kind]}"]\n')
    else:
        env["DRYDOCK_CACHE"] = f"/nowhere/at/all, {place[kind]}"
    locked.drydock("build", "small", env=env).succeeded()
    assert locked.drydock("run", "small", env=env).succeeded().stdout == "trained with 1.0\n"
    assert locked.drydock("verify", "small", env=env).succeeded()


@pytest.mark.slow
def test_a_bare_script_builds_the_same_files_from_any_cache(locked: Sandbox, web: Web, tmp_path: Path) -> None:
    script = locked.script("small")
    built = []
    for name, place in (("web", web.url), ("folder", str(web.folder))):
        env = {**empty(tmp_path, name), "DRYDOCK_CACHE": place}
        done = locked.run(["sh", str(script), "--build-only"], env=env).succeeded()
        built.append(everything(Path(done.stdout.strip())))
    assert built[0] == built[1]
    assert not any(path.endswith("uv_cache.json") for path in built[0])


@pytest.mark.slow
def test_what_a_cache_does_not_have_comes_from_the_next_and_then_the_index(
    locked: Sandbox, web: Web, tmp_path: Path
) -> None:
    two(locked)
    env = {**empty(tmp_path), "UV_DEFAULT_INDEX": locked.index.url, "DRYDOCK_CACHE": web.url}
    locked.index.requests.clear()
    locked.drydock("build", "two", env=env).succeeded()
    assert any("anchor" in path for path in web.requests)
    assert {path.split("/")[2] for path in locked.index.requests if path.startswith("/simple/")} == {"second-thing"}


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["wrong", "cut", "stall", "500", "redirect"])
def test_a_cache_that_fails_is_named_and_passed_over(locked: Sandbox, web: Web, tmp_path: Path, fault: str) -> None:
    web.fault = fault
    env = {**empty(tmp_path), "DRYDOCK_CACHE": web.url, "UV_HTTP_TIMEOUT": "2"}
    failed = locked.drydock("build", "small", env=env).failed(
        1, f"going on without {web.url}", "could not be installed"
    )
    assert "Traceback" not in failed.stderr
    assert [path.name for path in (tmp_path / "again/store").iterdir()] == []
    done = locked.drydock("build", "small", env={**env, "UV_DEFAULT_INDEX": locked.index.url}).succeeded()
    assert f"going on without {web.url}" in done.stderr
    assert locked.drydock("verify", "small", env=env).succeeded()


def test_a_cache_that_is_not_there_is_named_and_passed_over(locked: Sandbox, tmp_path: Path) -> None:
    env = {**empty(tmp_path), "UV_DEFAULT_INDEX": locked.index.url, "DRYDOCK_CACHE": "http://127.0.0.1:9/x s3://a/b"}
    done = locked.run(["sh", str(locked.script("small")), "--build-only"], env=env).succeeded()
    assert "warning: the cache http://127.0.0.1:9/x cannot be used: " in done.stderr
    assert "warning: the cache s3://a/b cannot be used: a script cannot read it; drydock pull can" in done.stderr


@pytest.mark.slow
def test_a_password_is_used_and_never_said_or_written(locked: Sandbox, web: Web, tmp_path: Path) -> None:
    web.password = "hunter2hunter2"
    env = {**empty(tmp_path), "DRYDOCK_CACHE": web.url}
    said = locked.drydock("build", "small", env=env).succeeded().stderr
    said += locked.drydock("pull", "small", web.url, env=empty(tmp_path, "third")).succeeded().stderr
    web.fault = "500"
    said += locked.drydock("build", "small", env={**env, **empty(tmp_path, "fourth")}).failed(1, "going on").stderr
    assert web.password not in said
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert web.password.encode() not in path.read_bytes(), path


def test_a_password_in_a_file_is_refused(locked: Sandbox, tmp_path: Path) -> None:
    (locked.work / "drydock.toml").write_text('[caches]\nplaces = ["https://me:word@host/x"]\n')
    refused = locked.drydock("build", "small", env=empty(tmp_path))
    refused.failed(1, "a password", "drydock.toml:2: caches.places", "DRYDOCK_CACHE")
    assert "word@" not in refused.stderr
    (locked.work / "drydock.toml").write_text('[caches]\nplace = "x"\n')
    locked.drydock("build", "small", env=empty(tmp_path)).failed(
        1, 'unknown key "place"', 'did you mean "places"?', "drydock.toml:2: caches.place"
    )


# --- the way back --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "url"])
def test_what_was_pulled_is_built_without_a_network(locked: Sandbox, web: Web, tmp_path: Path, kind: str) -> None:
    env = empty(tmp_path)
    done = locked.drydock("pull", "small", web.url if kind == "url" else str(web.folder), env=env).succeeded()
    assert "pulled 2, " in done.stdout
    web.requests.clear()
    locked.drydock("--offline", "build", "small", env=env).succeeded()
    locked.drydock(
        "--offline", "build", "small", "--check", env={**env, "UV_CACHE_DIR": str(tmp_path / "u")}
    ).succeeded()
    again = locked.drydock("pull", "small", web.url, env=env).succeeded()
    assert "pulled 0, " in again.stdout
    assert web.requests == []


@pytest.mark.slow
def test_a_script_fetches_its_uv_from_a_cache(locked: Sandbox, web: Web, tmp_path: Path) -> None:
    script = locked.script("small")
    env = {**empty(tmp_path), "DRYDOCK_CACHE": web.url, "DRYDOCK_UV": "", "PATH": "/usr/bin:/bin"}
    done = locked.run(["sh", str(script), "--build-only"], env={**env, "PIP_CONFIG_FILE": "/dev/null"})
    # The uv of these tests is an empty wheel: that it was asked for is what is seen here.
    assert any("/uv-" in path for path in web.requests), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["wrong", "cut", "endless", "500", "redirect"])
def test_a_pull_from_a_mirror_that_fails_keeps_nothing_wrong(
    locked: Sandbox, web: Web, tmp_path: Path, fault: str
) -> None:
    web.fault = fault
    env = empty(tmp_path)
    locked.drydock("pull", "small", web.url, env=env).failed(1, web.url)
    assert not list((tmp_path / "again").rglob("*.whl"))


@pytest.mark.slow
def test_a_pull_of_what_a_mirror_does_not_have(locked: Sandbox, web: Web, tmp_path: Path) -> None:
    two(locked)
    refused = locked.drydock("pull", "two", web.url, env=empty(tmp_path))
    refused.failed(1, f"{web.url} does not have Second_Thing-2.0-py3-none-any.whl", "hint: drydock push two")
    locked.drydock("pull", "two", f"{web.url}/simple", env=empty(tmp_path)).failed(1, "not a mirror", "SHA256SUMS")


# --- far away ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_over_ssh_the_known_keys_decide(locked: Sandbox, tmp_path: Path, mirror: Path) -> None:
    with sshd(tmp_path / "sshd", locked.home) as host:
        url = f"ssh://{host}{tmp_path}/far"
        assert "pushed 2, " in locked.drydock("push", "small", url).succeeded().stdout
        assert everything(tmp_path / "far") == everything(mirror)
        assert "pushed 0, " in locked.drydock("push", "small", url).succeeded().stdout
        env = empty(tmp_path)
        (locked.work / "drydock.toml").write_text(f'[caches]\nplaces = ["{url}"]\n')
        locked.drydock("build", "small", env=env).succeeded()
        (locked.home / ".ssh/known_hosts").write_text("")
        refused = locked.drydock("push", "small", f"ssh://{host}{tmp_path}/other")
        refused.failed(1, "Host key is not trusted", "connect to it once")
        assert not (tmp_path / "other").exists()
        away = locked.drydock("build", "small", env={**empty(tmp_path, "b"), "UV_DEFAULT_INDEX": locked.index.url})
        assert "going on without this cache" in away.succeeded().stderr


@pytest.mark.slow
def test_at_s3_and_back(locked: Sandbox, tmp_path: Path, mirror: Path) -> None:
    with s3(tmp_path / "s3") as account:
        locked.drydock("push", "small", "s3://nobody/has/this", env=account).failed(1, "s3://nobody/has/this: ")
        two(locked)
        for names, moved in ((["small"], 2), (["small", "two"], 1), (["two"], 0)):
            done = locked.drydock("push", *names, "s3://bucket/wheels", env=account).succeeded()
            assert f"pushed {moved}, " in done.stdout
        env = empty(tmp_path)
        locked.drydock("pull", "two", "s3://bucket/wheels", env={**env, **account}).succeeded()
        locked.drydock("push", "two", str(mirror)).succeeded()
        assert everything(tmp_path / "again/cache/mirror") == everything(mirror)
        locked.drydock("--offline", "build", "two", env=env).succeeded()
        refused = locked.drydock("push", "small", "s3://key:hunter2hunter2@bucket/wheels", env=account)
        assert "hunter2" not in refused.failed(2, "the URL has credentials", "AWS_ACCESS_KEY_ID").stderr


@pytest.mark.slow
def test_a_back_end_that_is_not_installed_is_named_with_its_extra(locked: Sandbox, tmp_path: Path) -> None:
    for scheme, module, extra in (("s3", "s3fs", "s3"), ("ssh", "sshfs", "ssh")):
        hidden = tmp_path / scheme
        hidden.mkdir()
        (hidden / f"{module}.py").write_text("raise ImportError('hidden')\n")
        refused = locked.drydock("push", "small", f"{scheme}://host/x", env={"PYTHONPATH": str(hidden)})
        refused.failed(1, f"{scheme}:// needs a package", f"pip install 'drydock-env[{extra}]'")


# --- pages ---------------------------------------------------------------------------------------------------------


def test_lines_that_lead_out_of_a_mirror_are_no_files() -> None:
    digest = "a" * 64
    good = f"{digest}  files/aa/{digest}/x-1-py3-none-any.whl"
    bad = [f"{digest}  files/aa/{digest}/../../x.whl", f"{digest}  files/bb/{digest}/x.whl", f"{digest}  /etc/x.whl"]
    assert [file.file for file in pages.parse_sums("\n".join([*bad, good, ""]))] == ["x-1-py3-none-any.whl"]


def _host() -> str:
    import socket

    return socket.gethostname()
