"""The program `drydock`, started warm: a process that has its modules forks for each call.

Importing takes most of the time of most calls of the program, and a test makes many. What a call does is what it does
when it is started anew: it is a process of its own, with its own environment, folder, files, signals and exit status. A
test that is about the start itself, or about who inherits what, starts the program anew (`Sandbox.start` and
`Sandbox.run`). With `DRYDOCK_TESTS_COLD=first` in the environment so does the first call of each command in each
process of tests, and with `DRYDOCK_TESTS_COLD=all` each call.

This file is the client; run as a program it is the process that forks.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NoReturn

COLD = "DRYDOCK_TESTS_COLD"
# What Python and the libraries below it read once, when they start; and what marks a process for /proc.
_AT_THE_START = ("LANG", "LC_", "LD_", "MALLOC_", "PYTHON", "DRYDOCK_TESTS_", "TESTS_", "COVERAGE_")
_ENVIRONMENT = {"LANG": "C.UTF-8", "PATH": "/usr/local/bin:/usr/bin:/bin"}
_LIMIT = 2**20


_started: set[str] = set()


def is_possible(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Whether a call with this environment may be forked from a process that was started with another one."""
    early = {name: value for name, value in environment.items() if name.startswith(_AT_THE_START)}
    cold, command = os.environ.get(COLD, ""), next(iter(arguments), "")
    if early != {"LANG": _ENVIRONMENT["LANG"]} or cold == "all" or (cold == "first" and command not in _started):
        _started.add(command)
        return False
    return True


def run(
    arguments: Sequence[str], environment: Mapping[str, str], cwd: Path, timeout: float
) -> tuple[int, bytes, bytes]:
    """Call `drydock ARGUMENTS` and wait: its exit status (minus a signal's number), its stdout and its stderr.

    Raises subprocess.TimeoutExpired, when the call is killed.
    """
    request = json.dumps([list(arguments), dict(environment), str(cwd)]).encode()
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection,
        Path(os.devnull).open("rb") as stdin,
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
    ):
        connection.connect(str(_server()))
        files = [stdin.fileno(), stdout.fileno(), stderr.fileno()]
        socket.send_fds(connection, [len(request).to_bytes(4, "big")], files)
        connection.sendall(request)
        pid = int.from_bytes(_read(connection, 4), "big")
        connection.settimeout(timeout)
        try:
            code = int.from_bytes(_read(connection, 4), "big", signed=True)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(["drydock", *arguments], timeout) from None
        stdout.seek(0)
        stderr.seek(0)
        return code, stdout.read(), stderr.read()


_servers: list[subprocess.Popen[bytes]] = []


@cache
def _server() -> Path:
    """The socket of the process that forks. It ends when nobody holds its stdin any more."""
    folder = Path(tempfile.mkdtemp(prefix="drydock-warm-"))
    command = [sys.executable, str(Path(__file__).resolve()), str(folder)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_ENVIRONMENT, cwd="/")
    assert server.stdout is not None
    with server.stdout:
        assert server.stdout.read() == b"ready\n"
    _servers.append(server)
    return folder / "socket"


def stop() -> None:
    """End the process that forks, where there is one."""
    while _servers:
        with _servers.pop() as server:
            assert server.stdin is not None
            server.stdin.close()


def _read(connection: socket.socket, size: int) -> bytes:
    whole = b""
    while len(whole) < size:
        block = connection.recv(size - len(whole))
        assert block, "the process that forks has ended"
        whole += block
    return whole


# --- the process that forks ----------------------------------------------------------------------------------------


def _serve(folder: Path) -> list[str]:
    """Fork for each connection until stdin is closed; returns the arguments of a call, in its own process."""
    calls: dict[int, socket.socket] = {}
    ended, woken = socket.socketpair()
    for end in (ended, woken):
        end.setblocking(False)
    signal.set_wakeup_fd(woken.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, selectors.DefaultSelector() as selector:
        listener.bind(str(folder / "socket"))
        listener.listen(64)
        for ready in (listener, ended, sys.stdin.buffer):
            selector.register(ready, selectors.EVENT_READ)
        os.write(1, b"ready\n")
        os.close(1)
        os.open(os.devnull, os.O_WRONLY)
        while True:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    size, files, _, _ = socket.recv_fds(connection, 4, 3)
                    arguments, environment, cwd = json.loads(_read(connection, int.from_bytes(size, "big")))
                    pid = os.fork()
                    if not pid:
                        _become(files, environment, cwd)
                        return list(arguments)
                    for file in files:
                        os.close(file)
                    calls[pid] = connection
                    connection.sendall(pid.to_bytes(4, "big"))
                elif key.fileobj is ended:
                    ended.recv(_LIMIT)
                    _answer(calls)
                else:
                    _end(folder)


def _answer(calls: dict[int, socket.socket]) -> None:
    """Tell those who wait for calls that have ended."""
    while calls:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with calls.pop(pid) as connection:
            try:
                connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(4, "big", signed=True))
            except OSError:
                continue  # who asked did not wait


def _become(files: Sequence[int], environment: Mapping[str, str], cwd: str) -> None:
    """Be as a program is that was started with these files, this environment and this folder."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)


def _end(folder: Path) -> NoReturn:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    sys.exit()


def _main() -> None:
    import importlib
    import pkgutil

    del sys.path[0]  # the folder of this file
    import plumbum

    import builder

    for module in pkgutil.walk_packages(builder.__path__, "builder."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    # It keeps the environment and the folder that it was imported in.
    assert plumbum.local.cwd == "/"
    for name in ("plumbum.machines.local", "plumbum.machines", "plumbum"):
        del sys.modules[name]
    from builder.script.templates import make_carried, templates

    # Or each call that renders, in a new home, would make and compile them again.
    make_carried()
    for name in templates().list_templates():
        templates().get_template(name)
    gc.collect()
    gc.freeze()  # or each call would copy what a collection looks at
    arguments = _serve(Path(sys.argv[1]))
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
    sys.argv[:] = [str(Path(builder.__path__[0], "__main__.py")), *arguments]
    _end_as_python_does()


def _end_as_python_does() -> NoReturn:
    """Run the program and end, whatever it has left: to take its modules apart costs more than starting anew."""
    from builder.cli import run_program

    code = 1
    try:
        run_program()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)


if __name__ == "__main__":
    _main()
