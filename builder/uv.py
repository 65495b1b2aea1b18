"""The only caller of uv: resolving for any target, and installing for one.

uv is Drydock's resolver and installer; it comes as a dependency, so its version is known.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import tomli_w

from builder import process
from builder.errors import ToolError
from builder.isolation import DECISIVE_VARIABLES
from builder.target import Target


def executable() -> str:
    """The uv that came with Drydock, or DRYDOCK_UV."""
    named = os.environ.get("DRYDOCK_UV")
    if named:
        return named
    from uv import find_uv_bin

    return str(find_uv_bin())


def version() -> str:
    """The version of the uv that came with Drydock."""
    from importlib.metadata import version as of

    return of("uv")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our environment without what would change uv's answers."""
    kept = {name: value for name, value in os.environ.items() if name not in DECISIVE_VARIABLES}
    return {**kept, **(extra or {})}


@dataclass(frozen=True)
class Universe:
    """What a resolution may choose from.

    `sources` are source distributions that may be built; `exclude_newer` and its per-package exceptions are RFC 3339
    times. `index` maps a package to an index URL or folder of wheels that it alone comes from.
    """

    target: Target
    python: str
    sources: Sequence[str] = ()
    exclude_newer: str | None = None
    exclude_newer_package: Mapping[str, str] = field(default_factory=dict)
    index: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pin:
    """One resolved package, and who requires it."""

    name: str
    version: str
    required_by: tuple[str, ...]


def resolve(
    requirements: Sequence[str],
    universe: Universe,
    folder: Path,
    *,
    overrides: Sequence[str] = (),
    preferred: Mapping[str, str] | None = None,
    upgrade: Iterable[str] = (),
) -> list[Pin]:
    """The closure of `requirements`; `preferred` versions are kept where they fit, except those in `upgrade`.

    `folder` is an empty one to work in. Raises ToolError with uv's own explanation.
    """
    pins = folder / "pins.txt"
    pins.write_text("".join(f"{name}=={version}\n" for name, version in (preferred or {}).items()))
    arguments = ["--annotation-style", "line", "--output-file", str(pins)]
    for package in upgrade:
        arguments += ["--upgrade-package", package]
    if overrides:
        (folder / "overrides.txt").write_text("".join(f"{line}\n" for line in overrides))
        arguments += ["--overrides", str(folder / "overrides.txt")]
    _compile(requirements, universe, folder, arguments)
    return sorted((_pin(line) for line in pins.read_text().splitlines() if line), key=lambda pin: pin.name)


def artefacts(pins: Sequence[Pin], universe: Universe, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The files of each pinned package, as PEP 751 lists them (`url`, `size`, `hashes`), and their `file` name."""
    output = folder / "pylock.toml"
    requirements = [f"{pin.name}=={pin.version}" for pin in pins]
    _compile(requirements, universe, folder, ["--no-deps", "--format", "pylock.toml", "--output-file", str(output)])
    found: dict[str, list[dict[str, Any]]] = {}
    for package in tomllib.loads(output.read_text())["packages"]:
        files = [*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else [])]
        found[package["name"]] = [_with_size({**file, "file": _file_name(file["url"])}) for file in files]
    return found


def install(arguments: Sequence[str], target: Target, python: str) -> None:
    """Install for a target that may not be this machine (`uv pip install`). Raises ToolError."""
    command = [executable(), "pip", "install", "--quiet", "--no-deps", "--python-platform", target.uv_platform]
    command += ["--python-version", python, *arguments]
    _checked(command, target)


def create_venv(folder: Path, python: str) -> None:
    """An empty relocatable virtual environment. Raises ToolError."""
    done = process.run(
        [executable(), "venv", "--quiet", "--relocatable", "--python", python, str(folder)], env=environment()
    )
    if done.code:
        raise ToolError(f"no virtual environment of Python {python}: {_said(done.stderr)}")


def _compile(requirements: Sequence[str], universe: Universe, folder: Path, arguments: Sequence[str]) -> None:
    project: dict[str, Any] = {
        "project": {"name": "profile", "version": "0", "dependencies": list(requirements)},
    }
    indexes = {url: f"index-{number}" for number, url in enumerate(sorted(set(universe.index.values())))}
    if indexes:
        project["tool"] = {
            "uv": {
                "sources": {package: {"index": indexes[url]} for package, url in universe.index.items()},
                "index": [
                    {"name": name, "url": url, "explicit": True, "format": "simple" if "://" in url else "flat"}
                    for url, name in indexes.items()
                ],
            }
        }
    (folder / "pyproject.toml").write_text(tomli_w.dumps(project))
    command = [
        executable(),
        "pip",
        "compile",
        "--quiet",
        "--no-header",
        "--only-binary",
        ":all:",
        str(folder / "pyproject.toml"),
    ]
    command += ["--python-platform", universe.target.uv_platform, "--python-version", universe.python]
    if universe.exclude_newer:
        command += ["--exclude-newer", universe.exclude_newer]
    for package, day in universe.exclude_newer_package.items():
        command += ["--exclude-newer-package", f"{package}={day}"]
    for package in universe.sources:
        command += ["--no-binary", package]
    _checked([*command, *arguments], universe.target)


def _checked(command: Sequence[str], target: Target) -> None:
    done = process.run(command, env=environment(target.uv_environment()))
    if done.code:
        raise ToolError(f"uv says: {_said(done.stderr)}")


def _said(stderr: str) -> str:
    return re.sub(r"^error: ", "", stderr.strip()) or "nothing"


def _pin(line: str) -> Pin:
    pinned, _, via = line.partition("#")
    name, _, version = pinned.strip().partition("==")
    # "# via accelerate, profile (pyproject.toml)"; the profile itself is shown as such
    parents = [parent.strip() for parent in via.strip().removeprefix("via").split(",") if parent.strip()]
    return Pin(name, version, tuple("profile" if parent.startswith("profile ") else parent for parent in parents))


def _file_name(url: str) -> str:
    return unquote(urlparse(url).path).rsplit("/", 1)[-1]


def _with_size(file: dict[str, Any]) -> dict[str, Any]:
    # Folders of wheels, and indexes without PEP 700, give no size.
    if "size" not in file and file["url"].startswith("file://"):
        file["size"] = Path(unquote(urlparse(file["url"]).path)).stat().st_size
    return file
