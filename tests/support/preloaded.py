"""The Python of an environment, with modules that take seconds to import: it forks for each program.

    with Preloaded(env / "bin/python", ["torch"]) as warm:
        done = warm.run(program, "--steps", "2")        # as `python -I program --steps 2`

Importing torch and what is used with it takes nearly all of the time of a program of a few steps. A program is what it
is when it is started anew: a process of its own, with its own arguments, environment, folder, files and exit status. A
test that is about the start, about signals, or about what is read while a module is imported, starts a Python.

This file is both ends: run as a program, by a Python of any environment, it is the process that forks.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn, Self

LONGEST = 300.0
"""Seconds that a program may take."""


class Preloaded:
    """Such a Python, started with the environment `env`, in isolation (`-I`) unless `isolated` is False."""

    def __init__(
        self, python: Path, modules: Sequence[str], *, env: Mapping[str, str] | None = None, isolated: bool = True
    ) -> None:
        self._env = dict(os.environ if env is None else env)
        command = [str(python), *(["-I"] if isolated else []), str(Path(__file__).resolve()), *modules]
        self._server = subprocess.Popen(
            command, env=self._env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate()

    def run(
        self, *command: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `python PROGRAM ARGUMENTS`, or `python -c CODE ARGUMENTS`, to its end, with `env` on top of its own."""
        words = list(map(str, command))
        with tempfile.TemporaryDirectory() as folder:
            names = [str(Path(folder, name)) for name in ("stdout", "stderr")]
            request = [words, {**self._env, **(env or {})}, str(cwd or Path.cwd()), names, LONGEST]
            assert self._server.stdin is not None
            assert self._server.stdout is not None
            self._server.stdin.write(json.dumps(request) + "\n")
            self._server.stdin.flush()
            code = self._server.stdout.readline()
            assert code, f"the Python that forks has ended: {self._server.communicate()[1]}"
            out, err = (Path(name).read_text() for name in names)
        return subprocess.CompletedProcess(words, int(code), out, err)


# --- the process that forks, in the Python of an environment -------------------------------------------------------


def _serve() -> list[str]:
    """Fork for each request until there are no more; returns the words of a command, in its own process."""
    for line in sys.stdin:
        words, environment, cwd, names, longest = json.loads(line)
        pid = os.fork()
        if not pid:
            for number, name in enumerate((os.devnull, *names)):
                file = os.open(name, os.O_RDWR | os.O_CREAT)
                os.dup2(file, number)
                os.close(file)
            sys.stdin = open(0)  # noqa: SIM115  what stood in the buffer is for the one that forks
            os.environ.clear()
            os.environ.update(environment)
            os.chdir(cwd)
            tempfile.tempdir = None  # it is asked for again
            return list(words)
        ended = threading.Timer(longest, os.kill, (pid, 9))
        ended.start()
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        ended.cancel()
        print(code, flush=True)
    sys.exit()


def _become(words: list[str]) -> None:
    """Be the program of a command."""
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    if words[0] == "-c":
        sys.argv[:] = ["-c", *words[2:]]
        code = compile(words[1], "<string>", "exec")
    else:
        sys.argv[:] = words
        main.__file__ = words[0]
        code = compile(Path(words[0]).read_bytes(), words[0], "exec")
    if not sys.flags.isolated:
        sys.path[0] = "" if words[0] == "-c" else str(Path(words[0]).resolve().parent)
    exec(code, main.__dict__)


def _main() -> NoReturn:
    for name in sys.argv[1:]:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # or each program would copy what a collection looks at
    words = _serve()
    code = 1
    try:
        _become(words)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if code and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)


if __name__ == "__main__":
    _main()
