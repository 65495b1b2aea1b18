"""What a person needs who looks for the cause of a failure on another machine: `drydock report`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from builder import log, process, uv
from builder.check.doctor import examine
from builder.embedded.secrets import is_secret
from builder.errors import DrydockError
from builder.machine import Machine
from builder.project.catalogue import Catalogue
from builder.report import Reporter, sanitized
from builder.resources import DISTRIBUTION, version

_OURS = ("UV_", "PIP_", "DRYDOCK_", "PYTHON", "CUDA_VISIBLE_DEVICES", "LANG", "LC_ALL", "SHELL", "TERM", "CI")


def report(name: str, catalogue: Catalogue, machine: Machine, reporter: Reporter) -> str:
    """Versions, machine, settings, what the doctor says of a profile, and the log of the last failure, as Markdown.

    Without secrets, and with ~ for the home folder; nothing is run but what the doctor runs.
    """
    parts = [
        "# Drydock report\n",
        *_section("Versions", _versions()),
        *_section("Machine", [str(machine), *machine.lines()]),
        *_section("Variables", _variables()),
        *_section(f"Doctor of {name}", _doctor(name, catalogue, machine, reporter)),
        *_section("Log of the last failure", _last_log()),
    ]
    return private("\n".join(parts)) + "\n"


def private(text: str) -> str:
    """A text without secrets, and without whose machine it is: ~ for the home folder, `user` for its owner's name."""
    text = sanitized(text)
    home = os.environ.get("HOME", "")
    if len(home) > 1:
        text = text.replace(home.rstrip("/"), "~")
    user = Path(home).name
    if len(user) > 2 and user != "root":
        text = re.sub(rf"(?<![\w.-]){re.escape(user)}(?![\w.-])", "user", text)
    node = os.uname().nodename
    return re.sub(rf"(?<![\w.-]){re.escape(node)}(?![\w.-])", "host", text) if len(node) > 2 else text


def _section(title: str, lines: Iterator[str] | list[str]) -> Iterator[str]:
    # A fence that no line of ours is: what programs printed may have one of their own.
    yield f"## {title}\n\n~~~~~text"
    yield from lines
    yield "~~~~~\n"


def _versions() -> Iterator[str]:
    yield f"{DISTRIBUTION} {version()}, in {Path(__file__).resolve().parents[1]}"
    yield f"Python {' '.join(sys.version.split())}, {sys.executable}"
    try:
        yield f"{process.run([uv.executable(), '--version']).stdout.strip()}, {uv.executable()}"
    except DrydockError as error:
        yield f"uv: {error.message}"
    yield " ".join(os.uname()[index] for index in (0, 2, 3, 4))


def _variables() -> Iterator[str]:
    for name, value in sorted(os.environ.items()):
        if name.startswith(_OURS):
            yield f"{name}={'(secret)' if is_secret(name) else value}"


def _doctor(name: str, catalogue: Catalogue, machine: Machine, reporter: Reporter) -> Iterator[str]:
    try:
        for one in examine(name, catalogue, machine, reporter).diagnoses:
            yield from one.lines()
    except DrydockError as error:
        yield f"error: {error.message}"


def _last_log() -> Iterator[str]:
    for path in log.files()[:1]:
        yield f"{path}"
        try:
            yield path.read_text(errors="replace").rstrip()
        except OSError as error:
            yield f"cannot be read: {error.strerror}"
        return
    yield "none"
