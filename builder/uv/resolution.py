"""Resolution for any target: `uv pip compile`, and what it says in PEP 751."""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import tomli_w

from builder import process
from builder.consent import Builds
from builder.embedded import installer
from builder.embedded.network_settings import read
from builder.errors import ToolError
from builder.uv.command import Platform, environment, executable, hint, message
from builder.uv.log import LOGGED, parents, without_version
from builder.uv.questions import UNASKED

# Spelled out, so that no configuration file decides them.
_DEFAULTS = ("--resolution", "highest", "--prerelease", "if-necessary-or-explicit")

_PYLOCK = ("--format", "pylock.toml")  # PEP 751

Said = Mapping[str, Mapping[str, Sequence[str]]]
"""Package to version to what that requires: metadata that somebody has read."""


@dataclass(frozen=True)
class Universe:
    """What a resolution may choose from.

    `sources` are packages that are taken as source distributions, for which `builds` is needed, as their metadata may
    have to be built, with what `tools` has for each beside what it declares. Those in `said` are taken as source
    distributions too, and nothing of them is run: it says what each version requires, under "" what the other versions
    do. `exclude_newer` and its per-package exceptions are RFC 3339 times; "false" for a package: whatever time. `index`
    maps a package to an index URL or folder of wheels that it alone comes from.
    """

    target: Platform
    python: str
    sources: Sequence[str] = ()
    builds: Builds = None
    tools: Mapping[str, Sequence[str]] = field(default_factory=dict)
    said: Said = field(default_factory=dict)
    exclude_newer: str | None = None
    exclude_newer_package: Mapping[str, str] = field(default_factory=dict)
    index: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """A file of a package as an index or a folder offers it, under one of maybe several URLs.

    `hashes` are hexadecimal, by the name of their algorithm, and `size` in bytes: as far as the index says them.
    `uploaded` is when, where it says so.
    """

    file: str
    url: str
    hashes: Mapping[str, str] = field(default_factory=dict)
    size: int | None = None
    uploaded: datetime | None = None

    @property
    def is_wheel(self) -> bool:
        """Whether the file is a wheel."""
        return self.file.endswith(".whl")

    @property
    def sha256(self) -> str | None:
        """The sha256, where the index says it."""
        return self.hashes.get("sha256")

    @property
    def path(self) -> Path | None:
        """Where it is on this machine; None where it is elsewhere."""
        parts = urlparse(self.url)
        return Path(unquote(parts.path)) if parts.scheme == "file" else None


@dataclass(frozen=True)
class Pin:
    """One resolved package, and who requires it; its `files`, where whoever resolved it knows all of them."""

    name: str
    version: str
    required_by: tuple[str, ...]
    files: tuple[Candidate, ...] = ()


def resolve(
    requirements: Sequence[str],
    universe: Universe,
    folder: Path,
    *,
    overrides: Sequence[str] = (),
    preferred: Mapping[str, Sequence[str]] | None = None,
    upgrade: Iterable[str] = (),
    unusable: Callable[[str], None] | None = None,
    impatient: bool = False,
) -> list[Pin]:
    """The closure of `requirements`; `preferred` versions are kept where they fit, except those in `upgrade`.

    Of several for a package, the first that fits. `unusable` hears, as a requirement, of each package without a version
    that can be used in a range where one was looked for, also where it fails. Where it is `impatient`, an index that
    does not answer is not asked again.

    `folder` is an empty one to work in. Raises ToolError with uv's own explanation.
    """
    output = folder / "pylock.toml"
    # A version is preferred with the index that it comes from alone.
    places = {
        name: place if "://" in place else Path(place).absolute().as_uri() for name, place in universe.index.items()
    }
    kept = [
        {"name": name, "version": version, **({"index": places[name]} if name in places else {})}
        for name, versions in (preferred or {}).items()
        for version in versions
    ]
    if kept:
        output.write_text(tomli_w.dumps({"lock-version": "1.0", "created-by": "drydock", "packages": kept}))
    arguments = [*_PYLOCK, "--output-file", str(output)]
    for package in upgrade:
        arguments += ["--upgrade-package", package]
    if overrides:
        (folder / "overrides.txt").write_text("".join(f"{line}\n" for line in overrides))
        arguments += ["--overrides", str(folder / "overrides.txt")]
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    log = ""

    def heard(said: str) -> None:
        nonlocal log
        log = said
        for requirement in without_version(said) if unusable else ():
            unusable(requirement)  # type: ignore[misc]

    _compile(requirements, universe, folder, arguments, heard, impatient=impatient)
    rows = tomllib.loads(output.read_text()).get("packages", [])
    direct, overridden = (
        {canonicalize_name(Requirement(text).name) for text in some} for some in (requirements, overrides)
    )
    above = parents(log, {row["name"]: row["version"] for row in rows}, direct, overridden)
    # Of several indexes, each may have other files under the names of one version.
    whole = not read(os.environ).all("extra-index")
    return [
        Pin(row["name"], row["version"], above[row["name"]], _files(row) if whole else ())
        for row in sorted(rows, key=lambda row: str(row["name"]))
    ]


def candidates(pins: Sequence[Pin], universe: Universe, folder: Path) -> dict[str, list[Candidate]]:
    """The files of each pinned package, by its name. Raises ToolError."""
    with candidates_beside(pins, universe, folder) as found:
        return found()


@contextmanager
def candidates_beside(
    pins: Sequence[Pin], universe: Universe, folder: Path
) -> Iterator[Callable[[], dict[str, list[Candidate]]]]:
    """The same, asked for while we do something else: what it hands out waits for the answer. Raises ToolError."""
    output = folder / "pylock.toml"
    requirements = [f"{pin.name}=={pin.version}" for pin in pins]
    # A version comes from the first index that has it, which is where it was resolved.
    arguments = ["--no-deps", *_PYLOCK, "--output-file", str(output), *installer.SEARCHES]
    command, env = _question(requirements, universe, folder, arguments)
    with process.beside(command, env=env) as ended:

        def found() -> dict[str, list[Candidate]]:
            _check(ended())
            return {row["name"]: list(_files(row)) for row in tomllib.loads(output.read_text())["packages"]}

        yield found


def why_unusable(requirement: str, universe: Universe, folder: Path) -> str | None:
    """In uv's words why no version of one requirement can be installed; None where one can, whatever that requires.

    Raises ToolError where it is not known, as an index was not reached.
    """
    try:
        _compile([requirement], universe, folder, ["--no-deps", "--output-file", str(folder / "pins.txt")])
    except ToolError as error:
        if "No solution found" not in error.message or re.search(UNASKED, error.message):
            raise
        return error.message
    return None


def newer(package: str, version: str, universe: Universe, folder: Path) -> list[str]:
    """The versions of a package that are newer than `version`, oldest first; without prereleases.

    Each is asked for by itself, the newest first: some 0.1 s for each after the first, which asks the index. Raises
    ToolError where nobody answers.
    """
    from packaging.version import Version

    # A local part (2.13.0+cpu) has no place in a comparison (PEP 440).
    above = Version(version).public
    found: list[str] = []
    while True:
        below = f",<{found[0]}" if found else ""
        pins = folder / f"newer-{len(found)}.txt"
        try:
            _compile(
                [f"{package}>{above}{below}"],
                universe,
                folder,
                ["--no-deps", "--no-annotate", "--output-file", str(pins)],
            )
        except ToolError as error:
            # Of what it could not look at, uv says that there is none of it, too.
            if "No solution found" in error.message and not re.search(UNASKED, error.message):
                return found
            raise
        newest = pins.read_text().strip().partition("==")[2].partition(" ")[0]
        if Version(newest).is_prerelease:
            return found
        found.insert(0, newest)


def _compile(
    requirements: Sequence[str],
    universe: Universe,
    folder: Path,
    arguments: Sequence[str],
    heard: Callable[[str], None] | None = None,
    *,
    impatient: bool = False,
) -> None:
    """Run `uv pip compile`; `heard` gets the log of its resolver, also where it fails. Raises ToolError."""
    command, env = _question(requirements, universe, folder, arguments)
    log = {} if heard is None else {"RUST_LOG": "uv_resolver=debug"}
    once = {"UV_HTTP_RETRIES": "0", "UV_HTTP_CONNECT_TIMEOUT": "3"} if impatient else {}
    with process.beside(command, env={**env, **log, **once}) as ended:
        done = ended()
    if heard is not None:
        heard(done.stderr)
    _check(done)


def _check(done: process.Done) -> None:
    """Raise ToolError where `uv pip compile` has failed."""
    if done.code:
        said = "".join(line for line in done.stderr.splitlines(keepends=True) if not LOGGED.match(line))
        raise ToolError(f"uv says: {message(said)}", hint=hint(said))


def _question(
    requirements: Sequence[str], universe: Universe, folder: Path, arguments: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """The command `uv pip compile`, and its environment."""
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
        "--no-config",
        *_settings(universe, folder),
        *_DEFAULTS,
        "--quiet",
        "--no-header",
        "--only-binary",
        ":all:",
        str(folder / "pyproject.toml"),
    ]
    command += ["--python-platform", universe.target.uv_platform, "--python-version", universe.python]
    # Where nothing is built any Python will do; asked for no one, uv downloads that of the target.
    command += ["--python", sys.executable] if universe.builds is None else []
    if universe.exclude_newer:
        command += ["--exclude-newer", universe.exclude_newer]
    for package, day in universe.exclude_newer_package.items():
        command += ["--exclude-newer-package", f"{package}={day}"]
    for package in (*(universe.sources if universe.builds is not None else ()), *universe.said):
        command += ["--no-binary", package]
    if "--index-strategy" not in arguments:
        command += ["--index-strategy", read(os.environ).first("index-strategy") or "first-index"]
    env = environment(universe.target.uv_environment(), builds=universe.builds)
    return [*command, *arguments], env


def _settings(universe: Universe, folder: Path) -> list[str]:
    """The option that names a file with what is said of source distributions: uv takes it from no other place."""
    tools = universe.tools if universe.builds is not None else {}
    rows = [
        {"name": name, "requires-dist": list(requires), **({"version": version} if version else {})}
        for name, versions in universe.said.items()
        for version, requires in versions.items()
    ]
    path = folder / "uv.toml"
    tables = {
        "dependency-metadata": rows,
        "extra-build-dependencies": {name: list(some) for name, some in tools.items()},
    }
    if not any(tables.values()):
        return []
    path.write_text(tomli_w.dumps({name: table for name, table in tables.items() if table}))
    return ["--config-file", str(path)]


def _files(row: Mapping[str, Any]) -> tuple[Candidate, ...]:
    """The files of a package as PEP 751 lists them."""
    return tuple(map(_candidate, [*row.get("wheels", ()), *([row["sdist"]] if "sdist" in row else [])]))


def _candidate(row: Mapping[str, Any]) -> Candidate:
    """A file as PEP 751 lists it."""
    name = unquote(urlparse(row["url"]).path).rsplit("/", 1)[-1]
    found = Candidate(name, row["url"], row.get("hashes", {}), row.get("size"), row.get("upload-time"))
    # Folders of wheels, and indexes without PEP 700, say no size.
    if found.size is None and found.path is not None:
        return replace(found, size=found.path.stat().st_size)
    return found
