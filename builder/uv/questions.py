"""What the doctor, and an audit, ask of uv beside other programs, and of what it answers."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from urllib.parse import urlparse

from builder.embedded import installer
from builder.embedded.network_settings import read
from builder.uv.command import Platform, environment, executable

UNASKED = "Network connectivity is disabled|was not found|error sending request"
"""What uv says of an index that it could not ask, and of a package that none has: it does not tell the two apart."""


def questions(python: str) -> dict[str, list[str]]:
    """Commands that ask uv something, to be run beside others: where its cache is, and which Python a build would take,
    where `python` is a version; where it is a path, also of which version that is. Raises ToolError without a uv.
    """
    common = [executable(), "--no-config"]
    find = [*common, "python", "find", "--no-project", "--no-python-downloads", "--system", python]
    # One that was asked for by its version has it; to look for it twice would take twice as long.
    version = {} if python[0].isdigit() else {"version": [*find, "--show-version"]}
    return {"cache": [*common, "cache", "dir"], "python": find, **version}


def question_of_default_index() -> list[str]:
    """The command whose help names uv's own default index. Raises ToolError where there is no uv."""
    return [executable(), "pip", "install", "--help"]


def parse_default_index(text: str) -> str | None:
    """The index that uv takes where nobody names another, from its own help.

    >>> parse_default_index("The default package index (by default: <https://packages.example/simple>)")
    'https://packages.example/simple'
    """
    found = re.search(r"default package index \(by default: <(https?://[^>\s]+)>\)", " ".join(text.split()))
    return found[1] if found else None


def question_of_index(
    requirement: str, target: Platform, python: str, index: str | None, folder: str
) -> tuple[list[str], dict[str, str]]:
    """A command that asks an index for a wheel as a build does, and its environment; nothing is kept, or tried again.

    `index` is the only one to ask, None stands for all that are configured. `folder` is an empty one. Raises ToolError.
    """
    wanted = Path(folder, "wanted.txt")
    wanted.write_text(f"{requirement}\n")
    command = [executable(), "pip", "compile", "--no-config", "--quiet", "--no-deps", "--no-header", "--no-cache"]
    command += ["--python-platform", target.uv_platform, "--python-version", python, "--only-binary", ":all:"]
    env = environment({**target.uv_environment(), "UV_HTTP_RETRIES": "0", "NO_COLOR": "1"}, index)
    return [*command, *installer.SEARCHES, str(wanted)], env


def reason(stderr: str) -> str:
    """The last cause that uv names, in one line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    hints = [line for line in lines if line.startswith("hint:")]
    causes = [line.partition(": ")[2] for line in lines if line.startswith("cause:")]
    return (hints or causes[-1:] or lines or ["it says nothing"])[0].removeprefix("hint: ").removeprefix("error: ")


def is_out_of_reach(said: str) -> bool:
    """Whether it says that an index was not reached, or does not have a package at all."""
    return re.search(rf"{UNASKED}|Failed to fetch|Request failed|HTTP status", said) is not None


def answers(url: str) -> bool:
    """Whether something takes a connection where an index is, within three seconds; of a proxy nothing is asked.

    One that does not is not worth uv's four tries, each of which may take ten seconds.
    """
    found, parts = read(os.environ), urlparse(url)
    if parts.hostname is None or found.first("https-proxy") or found.first("http-proxy"):
        return True
    try:
        with socket.create_connection((parts.hostname, parts.port or (80 if parts.scheme == "http" else 443)), 3):
            return True
    except (OSError, ValueError):
        return False
