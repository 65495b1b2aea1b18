"""Pythons that uv knows: on this machine, and archives of python-build-standalone for any."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from builder import process
from builder.embedded import installer
from builder.errors import ToolError
from builder.uv.command import environment, executable, hint, message
from builder.uv.questions import questions


def known_pythons(version: str) -> list[dict[str, Any]]:
    """The Pythons of a series, or of one release, that uv can fetch for any platform, newest first. Raises ToolError.

    They are those of `uv python list`: of a series the newest release.
    """
    command = [executable(), "python", "list", "--no-config", "--only-downloads", "--all-platforms"]
    done = process.run([*command, "--output-format", "json", version], env=_for_pythons({}))
    if done.code:
        raise ToolError(f"uv says: {message(done.stderr)}")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def python_url(version: str, file: str) -> str:
    """Where an archive of python-build-standalone is: among those of uv's list. `version` is as in a lock.

    Raises ToolError where uv knows no Python of its series.
    """
    release, _, day = version.partition("+")
    for known in (release, release.rpartition(".")[0]):
        for row in known_pythons(known):
            url = str(row["url"])
            if unquote(url.rpartition("/")[2]) == file:
                return url
            if row["implementation"] == "cpython" and url.count("/") >= 4:
                # That list has the newest build of each release only; an older one is where it was.
                return "/".join([url.rsplit("/", 2)[0], day, quote(file)])
    raise ToolError(f"uv does not know where {file} is", hint="UV_PYTHON_DOWNLOADS_JSON_URL names a list that has it")


def fetch_python(key: str, folder: Path) -> Path:
    """Have uv fetch one of the Pythons that it knows, by its key, for any platform; returns the archive, in `folder`.

    uv has compared it with the sha256 of its own list, which is part of uv. Raises ToolError.
    """
    archives = folder / "archives"
    places = {"UV_PYTHON_CACHE_DIR": str(archives), "UV_PYTHON_INSTALL_DIR": str(folder / "unpacked")}
    env = _for_pythons({**places, "UV_PYTHON_INSTALL_BIN": "0"})
    # Not quietly: then it does not say what went wrong either.
    done = process.run([executable(), "--project", "/", "python", "install", "--no-config", key], env=env)
    if done.code:
        said = done.stderr[max(done.stderr.find("error:"), 0) :]
        raise ToolError(f"uv says: {message(said)}", hint=hint(said))
    found = list(archives.iterdir())
    if len(found) != 1:
        raise ToolError(f"uv has fetched {key}, and kept {len(found)} archives", hint="is this uv too old?")
    return found[0]


def _for_pythons(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment for Pythons that are asked for: which ones uv is to prefer, says nothing about these."""
    env = environment({**extra, "UV_PYTHON_DOWNLOADS": "manual"})
    return {name: value for name, value in env.items() if name not in installer.PREFERENCES}


def finds_python(version: str) -> bool:
    """Whether there is a Python of this version on this machine. Raises ToolError without a uv."""
    return process.run(questions(version)["python"], env=environment()).code == 0
