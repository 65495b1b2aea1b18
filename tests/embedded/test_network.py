"""Where pip works, Drydock works: settings of the system, of pip and of uv, against real servers on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from builder.embedded import caches, installer, network
from builder.embedded.network_settings import read
from builder.embedded.web import RefusedError, open_url
from tests.support import Index, Result, Sandbox, Web, make_wheel
from tests.support.loopback import Loopback
from tests.support.mounts import tmpfs
from tests.support.proxy import Proxy
from tests.support.tls import Authority
from tests.support.waiting import allowed

NOTHING = "file:///nothing"
SYSTEM = Path("/etc/ssl/certs/ca-certificates.crt")


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "authority")


@pytest.fixture
def desk(sandbox: Sandbox, tmp_path: Path) -> Sandbox:
    """A desk with a profile that is not locked, a cache of its own, and no index named."""
    sandbox.profile("small")
    del sandbox.environment["UV_DEFAULT_INDEX"]
    sandbox.environment["UV_CACHE_DIR"] = str(tmp_path / "cache")
    sandbox.environment["XDG_CONFIG_DIRS"] = str(tmp_path / "xdg")
    return sandbox


@pytest.fixture
def secure(sandbox: Sandbox, authority: Authority) -> Iterator[Index]:
    """The index of the desk over TLS, by a certificate of the company's authority."""
    with Index(sandbox.wheels, authority.server_context()) as index:
        yield index


def elsewhere(files: Mapping[Path, Path]) -> list[str]:
    """The start of a command for a machine that has other files at these places, and no configuration of pip."""
    if os.geteuid() != 0:
        pytest.skip("only root can put other files there")
    script = 'while [ "$1" != -- ]; do mount --bind "$1" "$2"; shift 2; done; shift; exec "$@"'
    empty = {path: Path(__file__).parent / "__init__.py" for path in [Path("/etc/pip.conf")] if path.exists()}
    pairs = [str(one) for place, file in {**empty, **files}.items() for one in (file, place)]
    return ["unshare", "--mount", "sh", "-ec", script, "sh", *pairs, "--"]


def pip_conf(desk: Sandbox, text: str) -> Path:
    path = desk.home / ".config/pip/pip.conf"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def uv_toml(desk: Sandbox, text: str) -> None:
    path = desk.home / ".config/uv/uv.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


# --- which settings are in force -----------------------------------------------------------------------------------


def write(root: Path, path: str, text: str) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has other places")
def test_the_files_of_pip_overrule_each_other_as_with_pip(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path / "home"), "VIRTUAL_ENV": str(tmp_path / "venv")}
    files = ["etc/xdg/pip/pip.conf", "etc/pip.conf", "home/.pip/pip.conf", "home/.config/pip/pip.conf", "venv/pip.conf"]
    for number, path in enumerate(files):
        write(tmp_path, path, f"[global]\nindex-url = https://{number}.example/simple\n")
        found = read(environ, str(tmp_path))
        assert found.first("index") == f"https://{number}.example/simple"
        assert f'"index-url" in {tmp_path / path}' in str(found.lines())
    named = write(tmp_path, "named.conf", "[global]\nindex_url = https://named.example/simple\n")
    environ["PIP_CONFIG_FILE"] = str(named)
    assert read(environ, str(tmp_path)).first("index") == "https://named.example/simple"
    write(tmp_path, "venv/pip.conf", "[global]\ntimeout = 7.2\n")
    write(tmp_path, "named.conf", "[global]\n")
    assert read(environ, str(tmp_path)).first("index") == "https://1.example/simple", "a named file replaces the user's"
    assert read(environ, str(tmp_path)).first("timeout") == "8"
    write(tmp_path, "etc/pip.conf", "[install]\nindex-url = https://install.example\n[global]\nindex-url = https://g\n")
    assert read(environ, str(tmp_path)).first("index") == "https://install.example"
    environ["PIP_INDEX_URL"] = "https://variable.example"
    assert read(environ, str(tmp_path)).first("index") == "https://variable.example"
    assert read({**environ, "PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": ""}, str(tmp_path)).first("index") is None


def test_the_settings_of_uv_go_before_those_of_pip(tmp_path: Path) -> None:
    home = tmp_path / "home"
    write(home, ".config/pip/pip.conf", "[global]\nindex-url = https://pip\nextra-index-url = https://e1 https://e2\n")
    environ = {"HOME": str(home)}
    found = read(environ, str(tmp_path))
    assert (found.all("index"), found.all("extra-index")) == (["https://pip"], ["https://e1", "https://e2"])
    write(tmp_path, "etc/uv/uv.toml", 'index-url = "https://system"\nhttps-proxy = "http://proxy:1"\n')
    found = read(environ, str(tmp_path))
    assert (found.all("index"), found.all("extra-index")) == (["https://system"], [])
    assert found.first("https-proxy") == "http://proxy:1"
    text = '[[index]]\nname = "own"\nurl = "https://own"\n[[index]]\nurl = "https://user"\ndefault = true\n'
    write(home, ".config/uv/uv.toml", text)
    found = read(environ, str(tmp_path))
    assert (found.all("index"), found.all("extra-index")) == (["https://user"], ["own=https://own"])
    found = read({**environ, "UV_DEFAULT_INDEX": "https://variable"}, str(tmp_path))
    assert found.first("index") == "https://variable"
    assert read({**environ, "UV_NO_CONFIG": "1"}, str(tmp_path)).first("index") == "https://pip"


def test_what_decides_what_is_built_is_not_taken_over(tmp_path: Path) -> None:
    home = tmp_path / "home"
    write(home, ".config/uv/uv.toml", 'exclude-newer = "2000-01-01"\nlink-mode = "symlink"\nresolution = "lowest"\n')
    write(
        home, ".config/pip/pip.conf", "[global]\nconstraint = /c.txt\nprefix = /p\nuser = true\nonly-binary = :none:\n"
    )
    environ = {
        "HOME": str(home),
        "UV_EXCLUDE_NEWER": "2000-01-01",
        "UV_SOMETHING_NEW": "1",
        "UV_CONFIG_FILE": str(home / ".config/uv/uv.toml"),
        "PIP_TARGET": "/t",
        "UV_CACHE_DIR": "/cache",
        "UV_INDEX_OWN_PASSWORD": "p",
        "OTHER": "kept",
    }
    for made in (
        network.environment(environ, root=str(tmp_path)),
        network.pip_environment(environ, root=str(tmp_path)),
    ):
        assert "OTHER" in made
        text = str(made)
        for word in (
            "2000",
            "symlink",
            "lowest",
            "/c.txt",
            "/p'",
            ":none:",
            "SOMETHING",
            "CONFIG_FILE': '/home",
            "/t'",
        ):
            assert word not in text, word
    kept = network.environment(environ, root=str(tmp_path))
    assert (kept["UV_CACHE_DIR"], kept["UV_INDEX_OWN_PASSWORD"], kept["UV_NO_CONFIG"]) == ("/cache", "p", "1")


def test_an_environment_for_uv_stays_what_it_is_when_it_is_read_again(tmp_path: Path, authority: Authority) -> None:
    text = f"[global]\nindex-url = https://i\nextra-index-url = https://e\ncert = {authority.file}\nproxy = p:1\n"
    write(
        tmp_path,
        "home/.config/pip/pip.conf",
        text + f"trusted-host = a b:1\nfind-links = {tmp_path}/x,y {tmp_path}/z\nretries = 2\n",
    )
    for name in ("x,y", "z"):
        (tmp_path / name).mkdir()
    once = network.environment({"HOME": str(tmp_path / "home")}, root=str(tmp_path))
    assert once["SSL_CERT_FILE"] == str(authority.file)
    assert once["UV_FIND_LINKS"] == f"file://{tmp_path}/x%2Cy,{tmp_path}/z"
    assert network.environment(once, root=str(tmp_path)) == once
    assert network.environment(once, "https://only", str(tmp_path)) == {
        **{name: value for name, value in once.items() if name != "UV_INDEX"},
        "UV_DEFAULT_INDEX": "https://only",
    }


def test_no_password_is_said(tmp_path: Path) -> None:
    environ = {
        "HOME": str(tmp_path),
        "UV_DEFAULT_INDEX": "own=https://me:s3cret@host/simple?token=s3cret",
        "UV_INDEX_OWN_USERNAME": "me",
        "UV_INDEX_OWN_PASSWORD": "s3cret",
        "DRYDOCK_INDEX_TORCH": "https://s3cret@host/simple",
        "HTTPS_PROXY": "me:s3cret@proxy:3128",
        "PIP_PROXY": "http://me:s3cret@proxy:3128",
    }
    lines = read(environ, str(tmp_path)).lines()
    assert "s3cret" not in "".join(lines)
    assert "https-proxy: http://proxy:3128 (HTTPS_PROXY)" in lines


@pytest.mark.parametrize("kind", ["fifo", "folder", "large", "binary", "ini", "unreadable certificate"])
def test_files_that_cannot_be_read_are_said_and_passed_over(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "home/.config/pip/pip.conf"
    path.parent.mkdir(parents=True)
    environ = {"HOME": str(tmp_path / "home")}
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "unreadable certificate":
        environ["SSL_CERT_FILE"] = str(path)
    else:
        path.write_bytes({"large": b"#" * (2 << 20), "binary": b"\xff\xfe", "ini": b"index-url = x\n"}[kind])
    notes = read(environ, str(tmp_path)).notes
    assert len(notes) == 1
    assert "passed over" in notes[0]
    assert str(path) in notes[0]


def test_every_python_that_scripts_may_find_reads_them(tmp_path: Path) -> None:
    pythons = [path for path in Path.home().glob(".pyenv/versions/3.*/bin/python3") if path.parts[-3] >= "3.9"]
    pythons = [path for path in pythons if int(path.parts[-3].split(".")[1]) >= 9]
    if not pythons:
        pytest.skip("there is no pyenv with other Pythons")
    write(tmp_path, ".config/uv/uv.toml", 'index-url = "https://own.example"\n')
    code = (
        "import os; from builder.embedded import network, web; print(*network.read(os.environ, '/x').lines(), sep='|')"
    )
    for python in pythons:
        done = subprocess.run(
            [python, "-S", "-c", code],
            env={"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=False,
        )
        old = int(python.parts[-3].split(".")[1]) < 11
        assert ("cannot read it" if old else "index: https://own.example") in done.stdout, done.stderr


def test_a_build_that_asks_nobody_loads_nothing_that_asks() -> None:
    code = "import sys; from builder.embedded import stage; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    asking = ["caches", "certificates", "credentials", "examine", "installer", "network", "unpack", "web"]
    assert not {
        *(f"builder.embedded.{name}" for name in asking),
        "builder.embedded.network_settings",
        "ssl",
        "http.client",
        "tomllib",
    } & {*loaded}
    assert "builder.embedded.wheels" in loaded


# --- through the program -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_certificate_authority_that_only_the_system_has(desk: Sandbox, secure: Index, authority: Authority) -> None:
    """In a namespace where the system's store is the company's: nothing else names it."""
    if not SYSTEM.is_file():
        pytest.skip("this needs a Linux with ca-certificates")
    inside = [*elsewhere({SYSTEM.resolve(): authority.file}), sys.executable, "-m", "builder"]
    env = {"UV_DEFAULT_INDEX": secure.url}
    desk.drydock("lock", "small", env=env).failed(1, "invalid peer certificate", "drydock doctor --network")
    desk.run([*inside, "lock", "small"], env=env).succeeded()
    found = desk.run([*inside, "doctor", "small", "--network"], env=env)
    assert "ok   default index: https://127.0.0.1" in found.stdout
    assert f"ok   network, system-certificates: {SYSTEM}" in found.stdout
    assert "FAIL default index" in desk.drydock("doctor", "small", "--network", env=env).stdout


@pytest.mark.slow
@pytest.mark.parametrize("by", ["cert", "trusted-host", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_DIR", "uv"])
def test_an_index_of_pip_conf_with_a_certificate(desk: Sandbox, secure: Index, authority: Authority, by: str) -> None:
    ways = {
        "cert": f"cert = {authority.file}\n",
        "trusted-host": "trusted-host = 127.0.0.1\n",
    }
    pip_conf(desk, f"[global]\nindex-url = {secure.url}\n{ways.get(by, '')}")
    if by == "uv":
        uv_toml(desk, 'allow-insecure-host = ["127.0.0.1"]\n')
    if by.isupper():
        desk.environment[by] = str(authority.file.parent if by.endswith("DIR") else authority.file)
    # Where this machine has a pip.conf of its own, that goes before these variables.
    start = elsewhere({}) if by.endswith("BUNDLE") and Path("/etc/pip.conf").exists() else []

    def drydock(*arguments: str) -> Result:
        anew = [*start, sys.executable, "-m", "builder", *arguments]
        return desk.run(anew) if start else desk.drydock(*arguments)

    drydock("lock", "small").succeeded()
    assert "/simple/anchor/" in secure.requests
    assert desk.index.requests == []
    found = drydock("doctor", "small", "--network")
    assert "ok   default index: https://127.0.0.1" in found.stdout, found.stdout
    assert f'"index-url" in {desk.home}/.config/pip/pip.conf' in found.stdout


@pytest.mark.slow
def test_a_server_that_wants_a_certificate_of_its_clients(desk: Sandbox, authority: Authority) -> None:
    with Index(desk.wheels, authority.server_context(clients=True)) as index:
        pip_conf(desk, f"[global]\nindex-url = {index.url}\ncert = {authority.file}\n")
        desk.drydock("lock", "small").failed(1)
        desk.environment["PIP_CLIENT_CERT"] = str(authority.client)
        desk.drydock("lock", "small").succeeded()
        assert "ok   default index" in desk.drydock("doctor", "small", "--network").stdout


@pytest.mark.slow
def test_more_indexes_and_folders_of_pip_conf(desk: Sandbox, tmp_path: Path) -> None:
    other = tmp_path / "more"
    other.mkdir()
    make_wheel(other, "anchor", "7.0")
    text = f"[global]\nindex-url = {desk.index.url}\n"
    path = pip_conf(desk, f"{text}find-links =\n  {tmp_path}/gone\n  {other}\n")
    desk.drydock("lock", "small").succeeded()
    assert 'version = "7.0"' in (desk.work / "profiles/small.lock.toml").read_text()
    (desk.work / "profiles/small.lock.toml").unlink()
    with Index(other) as index:
        path.write_text(f"{text}extra-index-url = {index.url}\n")
        desk.drydock("lock", "small").succeeded()
        assert 'version = "7.0"' in (desk.work / "profiles/small.lock.toml").read_text()
        assert "ok   default index" in desk.drydock("doctor", "small", "--network").stdout
        # What fits comes from any index, as with pip; uv's own settings mean what they mean to uv.
        profile = (desk.work / "profiles/small.toml").read_text()
        desk.profile("small", profile.replace('"anchor"]', '"anchor==1.0"]'))
        desk.drydock("lock", "small").succeeded()
        assert 'version = "1.0"' in (desk.work / "profiles/small.lock.toml").read_text()
        (desk.work / "profiles/small.lock.toml").unlink()
        desk.drydock("lock", "small", env={"UV_INDEX": index.url}).failed(1, "first index")
        desk.profile("small", profile)
        desk.drydock("lock", "small").succeeded()
    path.write_text(f"{text}no-index = true\nfind-links = {desk.wheels}\n")
    before = len(desk.index.requests)
    desk.drydock("lock", "small", "--upgrade", "anchor").succeeded()
    assert len(desk.index.requests) == before


@pytest.mark.slow
@pytest.mark.parametrize("by", ["pip.conf", "uv.toml", "HTTPS_PROXY"])
def test_an_index_behind_a_proxy_with_a_password(desk: Sandbox, secure: Index, authority: Authority, by: str) -> None:
    with Proxy({"index.example:443": secure.port}) as proxy:
        url = "https://index.example/simple"
        pip_conf(desk, f"[global]\nindex-url = {url}\n" + (f"proxy = {proxy.url}\n" if by == "pip.conf" else ""))
        if by == "uv.toml":
            uv_toml(desk, f'https-proxy = "{proxy.url}"\n')
        env = {"SSL_CERT_FILE": str(authority.file), **({by: proxy.url} if by.isupper() else {})}
        desk.drydock("lock", "small", env=env).succeeded()
        assert set(proxy.requests) == {"index.example:443"}
        found = desk.drydock("doctor", "small", "--network", env=env)
        assert "ok   default index: https://index.example/simple/anchor/" in found.stdout, found.stdout
        assert proxy.password not in found.stdout + found.stderr
        desk.drydock("push", "small", str(desk.root / "mirror"), env=env).succeeded()
        env |= {"NO_PROXY": "index.example", "UV_CACHE_DIR": str(desk.root / "new")}
        desk.drydock("lock", "small", "--upgrade", "anchor", env=env).failed(1)


@pytest.mark.slow
@pytest.mark.parametrize("by", ["url", "netrc", "keyring", "uv"])
def test_an_index_that_wants_a_password(desk: Sandbox, tmp_path: Path, by: str) -> None:
    desk.index.password = "s3cret"
    url = desk.index.url
    if by == "url":
        pip_conf(desk, f"[global]\nindex-url = {url.replace('127', 'me:s3cret@127')}\n")
    elif by == "netrc":
        pip_conf(desk, f"[global]\nindex-url = {url}\n")
        write(desk.home, ".netrc", "machine 127.0.0.1 login me password s3cret\n").chmod(0o600)
    elif by == "keyring":
        pip_conf(desk, f"[global]\nindex-url = {url.replace('127', 'me@127')}\nkeyring-provider = subprocess\n")
        program = write(tmp_path, "bin/keyring", "#!/bin/sh\n[ \"$1 $3\" = 'get me' ] && echo s3cret\n")
        program.chmod(0o755)
        desk.environment["PATH"] = f"{program.parent}:{desk.environment['PATH']}"
    else:
        uv_toml(desk, f'[[index]]\nname = "own"\nurl = "{url}"\ndefault = true\n')
        desk.environment |= {"UV_INDEX_OWN_USERNAME": "me", "UV_INDEX_OWN_PASSWORD": "s3cret"}
    done = desk.drydock("lock", "small").succeeded()
    found = desk.drydock("doctor", "small", "--network")
    assert "ok   default index" in found.stdout, found.stdout
    pushed = desk.drydock("push", "small", str(desk.root / "mirror")).succeeded()
    assert "s3cret" not in "".join(one.stdout + one.stderr for one in (done, found, pushed))
    desk.index.password = "another"
    desk.drydock("lock", "small", "--upgrade", "anchor", env={"UV_CACHE_DIR": str(tmp_path / "new")}).failed(
        1, "a user and a password"
    )


@pytest.mark.slow
def test_a_password_is_in_no_argument(desk: Sandbox, tmp_path: Path) -> None:
    """Of the index of a profile: lock, the files that patches are made from, licences."""
    log = tmp_path / "log"
    spy = write(tmp_path, "spy", f'#!/bin/sh\necho "$@" >>{log}\nexec {desk.environment["DRYDOCK_UV"]} "$@"\n')
    spy.chmod(0o755)
    desk.index.password = "s3cret"
    text = desk.profile("small").read_text()
    text = text.replace("[packages]\n", '[packages]\nindex = { anchor = "own-index" }\n')
    desk.profile("small", text + '[indexes]\nown-index = "http://127.0.0.1:9/simple"\n')
    secret = desk.index.url.replace("127", "me:s3cret@127")
    desk.environment |= {"DRYDOCK_UV": str(spy), "DRYDOCK_INDEX_OWN_INDEX": secret, "UV_DEFAULT_INDEX": secret}
    desk.drydock("lock", "small").succeeded()
    desk.drydock("doctor", "small", "--network")
    desk.drydock("patch", "start", "small", "anchor").succeeded()
    said = log.read_text()
    assert "pip compile" in said
    assert "pip install" in said
    assert "s3cret" not in said


def test_the_configuration_of_uv_decides_nothing(desk: Sandbox) -> None:
    uv_toml(
        desk, f'exclude-newer = "2000-01-01"\nindex-url = "{desk.index.url}"\nno-binary = true\n[pip]\nno-deps = true\n'
    )
    (desk.work / "uv.toml").write_text("nonsense =")
    (desk.work / "pyproject.toml").write_text('[tool.uv]\nindex-url = "http://127.0.0.1:9"\n')
    desk.drydock("lock", "small").succeeded()


# --- asking --------------------------------------------------------------------------------------------------------


class Raw(Loopback):
    """Answers each path by a function of its own."""

    def __init__(self, answer: Callable[[BaseHTTPRequestHandler], None]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        super().__init__(Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def say(handler: BaseHTTPRequestHandler, code: int, body: bytes = b"", **headers: str) -> None:
    handler.send_response_only(code, "\x1b[31mred")
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def ask(url: str, *, limit: int = 1000, seconds: float = 10, environ: Mapping[str, str] | None = None) -> bytes:
    with open_url(url, limit=limit, seconds=seconds, environ=environ or {}) as answer:
        return answer.read()


@pytest.mark.slow
def test_an_answer_without_end_in_size_or_time_is_given_up() -> None:
    over = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response_only(200)
        if handler.path == "/head":
            handler.flush_headers()
        else:
            handler.end_headers()
        while not over.wait(0.05):
            handler.wfile.write(
                b"X: y\r\n" if handler.path == "/head" else b"." * (1 if handler.path == "/slow" else 9999)
            )

    with Raw(drip) as server:
        for path, words in (("/large", "it is more than 1000 bytes"), ("/slow", "in 0.5 s"), ("/head", "in 0.5 s")):
            begin = time.monotonic()
            with pytest.raises(OSError, match=words):
                ask(server.url + path, seconds=0.5)
            assert time.monotonic() - begin < allowed(5)
        over.set()


def test_a_mirror_whose_list_has_no_end_is_given_up(locked: Sandbox) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response_only(200)
        handler.end_headers()
        with suppress(OSError):
            while True:
                handler.wfile.write(b"0" * (1 << 20))

    with Raw(endless) as server:
        locked.drydock("pull", "small", server.url, timeout=60).failed(1, "it is more than 64 MiB")


def test_an_answer_that_is_cut_short_or_refused() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.path == "/cut":
            say(handler, 200, b"abc", **{"Content-Length": "10"})
        else:
            say(handler, 403)

    with Raw(answer) as server:
        with pytest.raises(OSError, match="ended after 3 of 10 bytes"):
            ask(server.url + "/cut")
        with pytest.raises(RefusedError) as caught:
            ask(server.url)
    assert str(caught.value) == "HTTP status 403, Forbidden", "the server's own words stay away from terminals"


def test_a_file_without_a_certificate_is_named(secure: Index, authority: Authority, tmp_path: Path) -> None:
    file = write(tmp_path, "nothing.pem", "nothing")
    with pytest.raises(OSError, match=r"nothing\.pem has no certificate"):
        ask(secure.url, environ={"SSL_CERT_FILE": str(file)})
    environ = {"SSL_CERT_FILE": str(authority.file), "SSL_CLIENT_CERT": str(tmp_path / "gone.pem")}
    with pytest.raises(OSError, match=r"gone\.pem has no certificate"):
        ask(secure.url, environ=environ)


def test_credentials_go_to_their_own_host_only() -> None:
    seen: list[tuple[str, str | None]] = []

    def other(handler: BaseHTTPRequestHandler) -> None:
        seen.append((handler.path, handler.headers.get("Authorization")))
        say(handler, 200, b"there")

    with Raw(other) as second:

        def first(handler: BaseHTTPRequestHandler) -> None:
            seen.append((handler.path, handler.headers.get("Authorization")))
            places = {"/a": "/b", "/b": f"{second.url}/c"}
            say(handler, 302, Location=places[handler.path])

        with Raw(first) as server:
            assert ask(server.url.replace("127", "me:s3cret@127") + "/a") == b"there"
    assert seen == [("/a", "Basic bWU6czNjcmV0"), ("/b", "Basic bWU6czNjcmV0"), ("/c", None)]


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/round"])
def test_redirections_that_are_not_followed(place: str) -> None:
    with Raw(lambda handler: say(handler, 302, Location=place)) as server:
        with pytest.raises(OSError, match="which is not followed"):
            ask(f"{server.url}/round")


def test_an_encrypted_place_leads_to_no_other(authority: Authority, tmp_path: Path) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            say(self, 302, Location="http://127.0.0.1:9/")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with Loopback(Handler, authority.server_context()) as server:
        with pytest.raises(OSError, match="which is not followed"):
            ask(f"https://localhost:{server.port}/", environ={"PIP_CERT": str(authority.file), "HOME": str(tmp_path)})


# --- pip, which fetches uv ------------------------------------------------------------------------------------------


def fetch(index: str, environ: Mapping[str, str], tmp_path: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """As a script fetches uv: by hash, with pip."""
    import hashlib

    wheel = folder / "anchor-1.0-py3-none-any.whl"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    wanted = write(tmp_path, "wanted.txt", f"anchor==1.0 --hash=sha256:{digest}\n")
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--no-cache-dir"]
    return subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(tmp_path / "out"), "-r", str(wanted)],
        env=network.pip_environment(environ, index or None),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_pip_fetches_from_a_plain_cache_whatever_its_configuration_says(desk: Sandbox, tmp_path: Path) -> None:
    with Proxy({"cache.example": desk.index.port}) as proxy:
        text = "constraint = /gone.txt\nprefix = /usr\nuser = true\nrequire-virtualenv = true\nno-index = true\n"
        pip_conf(desk, f"[global]\n{text}proxy = {proxy.url}\n")
        done = fetch("http://cache.example/simple/", desk.environment, tmp_path, desk.wheels)
        assert done.returncode == 0, done.stderr
        assert proxy.requests
    assert (tmp_path / "out/anchor/__init__.py").is_file()


@pytest.mark.slow
def test_pip_fetches_from_the_index_of_pip_conf(
    desk: Sandbox, secure: Index, authority: Authority, tmp_path: Path
) -> None:
    secure.password = "s3cret"
    url = secure.url.replace("127", "me:s3cret@127")
    pip_conf(desk, f"[install]\nindex-url = {url}\ncert = {authority.file}\n")
    done = fetch("", desk.environment, tmp_path, desk.wheels)
    assert done.returncode == 0, done.stderr
    assert "/simple/anchor/" in secure.requests


def bare(desk: Sandbox, tmp_path: Path, *, padding: str = "") -> dict[str, str]:
    """The environment of a machine without uv, after a lock whose uv hands on to the one here; it has the `padding`."""
    from uv import find_uv_bin

    (wheel,) = desk.wheels.glob("uv-*.whl")
    version = wheel.name.split("-")[1]
    program = f'#!/bin/sh\nexec {find_uv_bin()} "$@"\n'
    files = {f"uv-{version}.data/scripts/uv": program, "uv/padding": padding}
    make_wheel(desk.wheels, "uv", version, tag=wheel.stem.split("-", 2)[2], files=files)
    desk.drydock("lock", "small", env={"UV_DEFAULT_INDEX": desk.index.url}).succeeded()
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "python3").symlink_to(sys.executable)
    path = f"{programs}:/usr/bin:/bin"
    return {"DRYDOCK_UV": "", "PATH": path, "PIP_NO_CACHE_DIR": "1", "PYTHONPATH": str(tmp_path / "none")}


@pytest.mark.slow
def test_a_plain_cache_bootstraps_a_bare_host_whatever_pip_conf_says(desk: Sandbox, tmp_path: Path) -> None:
    environment = bare(desk, tmp_path)
    folder = tmp_path / "mirror"
    desk.drydock("push", "small", str(folder), env={"UV_DEFAULT_INDEX": desk.index.url}).succeeded()
    script = desk.script("small")
    desk.index.tamper = lambda _name, _content: b"not the index"
    text = "constraint = /gone.txt\nprefix = /usr\nuser = true\nrequire-virtualenv = true\nno-index = true\n"
    with Web(folder) as web, Proxy({"cache.example": web.port}) as proxy:
        pip_conf(desk, f"[global]\n{text}proxy = {proxy.url}\n")
        uv_toml(desk, 'required-version = ">=99"\n')
        done = desk.run(["sh", str(script)], env={**environment, "DRYDOCK_CACHE": "http://cache.example"})
        assert done.succeeded().stdout == "trained with 1.0\n"
        assert any("/uv-" in path for path in web.requests), web.requests
        assert proxy.requests
    assert (desk.store.parent / "tools").is_dir()


@pytest.mark.slow
def test_a_uv_that_cannot_be_fetched_is_not_a_python_that_is_missing(desk: Sandbox, tmp_path: Path) -> None:
    environment = {**bare(desk, tmp_path), "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"}
    done = desk.run(["sh", str(desk.script("small"))], env=environment)
    done.failed(
        1,
        "No matching distribution found for uv==",
        "could not be fetched; pip says above why",
        "PIP_INDEX_URL names a mirror",
    )
    assert "python3 with pip" not in done.stderr
    assert desk.environments() == []


@pytest.mark.slow
def test_a_disk_without_room_for_uv_is_said_before_pip_is_asked(desk: Sandbox, tmp_path: Path) -> None:
    environment = bare(desk, tmp_path)
    with tmpfs(tmp_path / "disk", "2m") as disk:
        done = desk.run(["sh", str(desk.script("small"))], env={**environment, "DRYDOCK_HOME": str(disk)})
        done.failed(
            1, f"error: 2 MB are free in {disk}, and uv takes 60", "hint: free some space, or name another disk"
        )
        assert "fetching" not in done.stderr
        assert not (disk / "tools").exists()


@pytest.mark.slow
def test_uv_is_unpacked_on_the_disk_where_it_stays(desk: Sandbox, tmp_path: Path) -> None:
    """A TMPDIR without room for it ended in pip's words and a hint on mirrors."""
    environment = bare(desk, tmp_path, padding=os.urandom(3 << 20).hex())
    environment |= {"PIP_INDEX_URL": desk.index.url, "UV_DEFAULT_INDEX": desk.index.url}
    with tmpfs(tmp_path / "small", "4m") as small:
        done = desk.run(["sh", str(desk.script("small"))], env={**environment, "TMPDIR": str(small)})
        assert done.succeeded().stdout == "trained with 1.0\n"
        assert list(small.iterdir()) == []


@pytest.mark.slow
def test_what_one_pip_left_of_uv_is_not_taken_for_whole_by_the_next(desk: Sandbox, tmp_path: Path) -> None:
    """pip leaves what is in its --target already as it is, and is content."""
    environment = {**bare(desk, tmp_path), "PIP_INDEX_URL": desk.index.url, "UV_DEFAULT_INDEX": desk.index.url}
    half = """#!/bin/sh
case " $* " in *" --target "*) ;; *) exec {real} "$@" ;; esac
while [ "$1" != --target ]; do shift; done
mkdir -p "$2/bin" && echo half >"$2/bin/uv"
exit 1
"""
    python = tmp_path / "half/python3"
    python.parent.mkdir()
    python.write_text(half.format(real=sys.executable))
    python.chmod(0o755)
    (python.parent / "python3.11").symlink_to(sys.executable)
    environment["PATH"] = f"{python.parent}:{environment['PATH']}"
    done = desk.run(["sh", str(desk.script("small"))], env=environment)
    assert done.succeeded().stdout == "trained with 1.0\n"
    # One that such a pip had left before.
    (tool,) = (desk.store.parent / "tools").iterdir()
    (tool / "bin/uv").chmod(0o644)
    for name in desk.environments():
        desk.remove(name)
    assert "fetching uv" in desk.run(["sh", str(desk.script("small"))], env=environment).succeeded().stderr
    assert os.access(tool / "bin/uv", os.X_OK)


@pytest.mark.slow
def test_a_pip_in_the_callers_folder_is_not_run(desk: Sandbox, tmp_path: Path) -> None:
    environment = {**bare(desk, tmp_path), "PIP_INDEX_URL": desk.index.url}
    (desk.work / "pip").mkdir()
    (desk.work / "pip/__main__.py").write_text("raise SystemExit('not this one')\n")
    (desk.work / "pip/__init__.py").write_text("raise SystemExit('not this one')\n")
    done = desk.run(["sh", str(desk.script("small"))], env={**environment, "UV_DEFAULT_INDEX": desk.index.url})
    assert done.succeeded().stdout == "trained with 1.0\n"
    assert "not this one" not in done.stderr


# --- caches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("/srv/a", ["/srv/a"]),
        ("/srv/b c", ["/srv/b", "/here/c"]),
        ("/srv/a,/srv/b", ["/srv/a", "/srv/b"]),
        ("/a  ,\n https://host/m/,file:///srv/m", ["/a", "https://host/m", "/srv/m"]),
        ("rel/x ./y", ["/here/rel/x", "/here/y"]),
        (",", []),
        ("", []),
        ("s3://b/*", ["s3://b/*"]),
    ],
)
@pytest.mark.parametrize("mirror", [False, True])
def test_which_caches_are_asked(tmp_path: Path, text: str, places: list[str], mirror: bool) -> None:
    if mirror:
        (tmp_path / "SHA256SUMS").touch()
        places = [str(tmp_path), *places]
    environ = {"DRYDOCK_CACHE": text, "DRYDOCK_FOLDER": "/here"}
    found = [caches.index_of(place) for place in installer.places(tmp_path, environ)]
    assert found == [f"{place}/simple/" for place in places]
