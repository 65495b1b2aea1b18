"""The only caller of uv: resolving for any target, and installing for one.

uv is Drydock's resolver and installer; it comes as a dependency, so its version is known.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlparse

import tomli_w
from packaging.version import Version

from builder import process
from builder.consent import Builds, Consent
from builder.embedded import installer, venv
from builder.embedded.secrets import cleaned, is_secret
from builder.errors import ToolError
from builder.isolation import DECISIVE_VARIABLES

# A uv.toml or pyproject.toml of the project in whose folder Drydock is called has no say: uv looks for them from the
# folder that comes after this option. The user's own (~/.config/uv) stays in force: it names mirrors.
_UNCONFIGURED = ("--project",)
# With these uv would forget which index a package comes from, and take another project's file of that name.
_SOURCES_VARIABLES = ("UV_NO_SOURCES", "UV_NO_SOURCES_PACKAGE")
# Spelled out, so that no configuration file decides them.
_DEFAULTS = ("--resolution", "highest", "--prerelease", "if-necessary-or-explicit", "--index-strategy", "first-index")
_HINTS = (
    (
        r"error sending request|dns error|operation timed out",
        "is the network there? UV_DEFAULT_INDEX names a mirror, UV_FIND_LINKS a folder of wheels",
    ),
    (
        r"Network connectivity is disabled",
        "do it once without --offline, or name a folder that has the wheels: UV_FIND_LINKS",
    ),
    (r"No space left on device|os error 28\b", "free some space, or name another disk: DRYDOCK_HOME, UV_CACHE_DIR"),
    (r"Hash mismatch", "the index has another file under this name than the one that was locked: find out why"),
    (r"are incompatible", "change one of them, or override it and say why: [[packages.overrides]]"),
)
_UNASKED = "Network connectivity is disabled|was not found|error sending request"
# How `uv pip compile` speaks of the files that it was given.
_FILES = {"profile": "profile", "--override": "override"}


class Platform(Protocol):
    """What uv asks of the machine that wheels are for."""

    @property
    def uv_platform(self) -> str:
        """The value for `--python-platform`."""

    def uv_environment(self) -> dict[str, str]:
        """What it reads from the environment to choose wheels."""


def executable() -> str:
    """The uv that came with Drydock, or DRYDOCK_UV. Raises ToolError where that is no program."""
    named = os.environ.get("DRYDOCK_UV")
    if named:
        if shutil.which(named) is None:
            raise ToolError(f"DRYDOCK_UV names {named}, which is no program", hint="unset it: Drydock has its own uv")
        return named
    from uv import find_uv_bin

    return str(find_uv_bin())


def questions(python: str) -> dict[str, list[str]]:
    """Commands that ask uv something, to be run beside others: where its cache is, and which Python a build would take,
    where `python` is a version; where it is a path, also of which version that is. Raises ToolError without a uv.
    """
    common = [executable(), *_UNCONFIGURED, "/"]
    find = [*common, "python", "find", "--no-python-downloads", "--system", python]
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


def default_index() -> str | None:
    """The index that the user has named for uv, in its environment or its configuration; None where they have not."""
    if named := os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("UV_INDEX_URL"):
        return named
    folder = os.environ.get("XDG_CONFIG_HOME") or Path(os.environ.get("HOME", "/")) / ".config"
    for path in (Path(folder, "uv/uv.toml"), Path("/etc/uv/uv.toml")):
        try:
            settings = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        indexes = [one for one in settings.get("index", ()) if isinstance(one, dict) and one.get("default") is True]
        if named := next((one.get("url") for one in indexes), None) or settings.get("index-url"):
            return str(named)
    return None


def version() -> str:
    """The version of the uv that came with Drydock."""
    from importlib.metadata import version as of

    return of("uv")


def environment(extra: Mapping[str, str] | None = None, *, builds: Builds = None) -> dict[str, str]:
    """Our environment without what would change uv's answers, and without secrets where something may be built."""
    ours = os.environ if builds is None else cleaned(os.environ)
    kept = {name: value for name, value in ours.items() if name not in (*DECISIVE_VARIABLES, *_SOURCES_VARIABLES)}
    return {**kept, **(extra or {})}


def hint(said: str) -> str | None:
    """What a user can do about what uv said; None where its words speak for themselves.

    >>> hint("error: failed to write to file `x`: No space left on device (os error 28)")
    'free some space, or name another disk: DRYDOCK_HOME, UV_CACHE_DIR'
    """
    return next((words for pattern, words in _HINTS if re.search(pattern, said)), None) or _source_hint(said)


def _source_hint(said: str) -> str | None:
    source = re.search(r"Wheels are required for `([^`]+)`", said)
    return f'where its source may be built, say so: [packages.build] {source[1]} = ["setuptools"]' if source else None


def index_url(name: str, url: str) -> str:
    """Where the logical index `name` is: DRYDOCK_INDEX_NAME, else the `url` of the profile."""
    return installer.index_url(name, url, os.environ)


def find_links() -> list[Path]:
    """The folders of wheels that UV_FIND_LINKS and PIP_FIND_LINKS name, separated by commas or spaces."""
    return installer.folders_of_wheels(os.environ)


@dataclass(frozen=True)
class Universe:
    """What a resolution may choose from.

    `sources` are packages that are taken as source distributions, for which `builds` is needed, as their metadata may
    have to be built; `exclude_newer` and its per-package exceptions are RFC 3339
    times. `index` maps a package to an index URL or folder of wheels that it alone comes from.
    """

    target: Platform
    python: str
    sources: Sequence[str] = ()
    builds: Builds = None
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


def newer(package: str, version: str, universe: Universe, folder: Path) -> list[str]:
    """The versions of a package that are newer than `version`, oldest first; without prereleases.

    Each is asked for by itself, the newest first: some 0.1 s for each after the first, which asks the index. Raises
    ToolError where nobody answers.
    """
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
            if "No solution found" in error.message and not re.search(_UNASKED, error.message):
                return found
            raise
        newest = pins.read_text().strip().partition("==")[2].partition(" ")[0]
        if Version(newest).is_prerelease:
            return found
        found.insert(0, newest)


def install(
    arguments: Sequence[str],
    folder: Path,
    target: Platform,
    python: str,
    *,
    builds: Builds,
    env: Mapping[str, str] | None = None,
) -> None:
    """Install below `folder`, which is ours, for a target that may not be this machine: `uv pip install`.

    `arguments` name a place relative to `folder`, in which uv stands. Without `builds` wheels alone are installed.
    Raises ToolError.
    """
    if builds is None and "--no-binary" in arguments:
        raise ValueError("nobody has agreed to a build")
    command = [executable(), "pip", "install", *_UNCONFIGURED, "/", "--quiet", "--no-deps"]
    command += ["--python-platform", target.uv_platform, "--python-version", python, *arguments]
    command += ["--only-binary", ":all:"] if builds is None else []
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _checked(command, target, builds=builds, folder=descriptor, env=env)
    finally:
        os.close(descriptor)


def create_venv(folder: Path, python: str) -> str:
    """An empty relocatable virtual environment in a new `folder`; returns the path of the Python that it is of.

    Raises ToolError, FileExistsError.
    """
    with tempfile.TemporaryDirectory(prefix="drydock-") as work:
        frame = Path(work) / "frame"
        command = [executable(), "venv", *_UNCONFIGURED, "/", "--no-project", "--quiet", "--relocatable"]
        done = process.run([*command, "--python", python, str(frame)], env=environment())
        if done.code:
            raise ToolError(f"no virtual environment of Python {python}: {_said(done.stderr)}")
        folder.mkdir(parents=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            venv.take_over(frame, descriptor)
        finally:
            os.close(descriptor)
        return str((frame / "bin" / "python").readlink())


def build_wheel(source: Path, constraints: Path, out: Path, consent: Consent) -> Path:
    """Build the wheel of a source distribution into the folder `out`, without a network.

    Its build requirements are those of the file `constraints`, by hash, from the folder of `source`. Raises ToolError.
    """
    command = [executable(), "build", *_UNCONFIGURED, "/", "--quiet", "--wheel", "--no-index", "--no-create-gitignore"]
    command += ["--find-links", str(source.parent), "--out-dir", str(out), str(source)]
    if constraints.stat().st_size:
        command += ["--build-constraints", str(constraints), "--require-hashes"]
    done = process.run(command, env=_without_passwords(consent))
    found = sorted(out.glob("*.whl"))
    if done.code or len(found) != 1:
        raise ToolError(f"{source.name} cannot be built: {_said(done.stderr)}")
    return found[0]


def _without_passwords(consent: Consent) -> dict[str, str]:
    """The environment of a build that asks no index, and so needs no password of one either."""
    kept = {name: value for name, value in environment(builds=consent).items() if not is_secret(name)}
    return {**kept, "SOURCE_DATE_EPOCH": "315532800", "PYTHONHASHSEED": "0"}


def known_pythons(version: str) -> list[dict[str, Any]]:
    """The Pythons of a series that uv can fetch for any platform, newest first (`uv python list`). Raises ToolError."""
    command = [executable(), "python", "list", *_UNCONFIGURED, "/", "--only-downloads", "--all-platforms"]
    done = process.run(
        [*command, "--output-format", "json", version], env=environment({"UV_PYTHON_DOWNLOADS": "manual"})
    )
    if done.code:
        raise ToolError(f"uv says: {_said(done.stderr)}")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def forget(packages: Iterable[str]) -> None:
    """Delete what uv's cache has of some packages (`uv cache clean`). Raises ToolError."""
    done = process.run([executable(), "cache", "clean", *_UNCONFIGURED, "/", "--quiet", *sorted(packages)])
    if done.code:
        raise ToolError(f"uv's cache cannot be cleaned: {_said(done.stderr)}")


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
        *_UNCONFIGURED,
        str(folder),
        *_DEFAULTS,
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
    for package in universe.sources if universe.builds is not None else ():
        command += ["--no-binary", package]
    _checked([*command, *arguments], universe.target, builds=universe.builds)


def _checked(
    command: Sequence[str],
    target: Platform,
    *,
    builds: Builds,
    folder: int | None = None,
    env: Mapping[str, str] | None = None,
) -> None:
    whole = environment({**target.uv_environment(), **(env or {})}, builds=builds)
    done = process.run(command, env=whole, folder=folder)
    if done.code:
        raise ToolError(f"uv says: {_said(done.stderr)}", hint=hint(done.stderr))


def _said(stderr: str) -> str:
    return re.sub(r"^error: ", "", stderr.strip()) or "nothing"


def _pin(line: str) -> Pin:
    pinned, _, via = line.partition("#")
    name, _, version = pinned.strip().partition("==")
    # "# via accelerate, profile (pyproject.toml), --override overrides.txt"; the files are ours and temporary
    parents = [parent.strip() for parent in via.strip().removeprefix("via").split(",") if parent.strip()]
    return Pin(name, version, tuple(_FILES.get(parent.split(" ")[0], parent) for parent in parents))


def _file_name(url: str) -> str:
    return unquote(urlparse(url).path).rsplit("/", 1)[-1]


def _with_size(file: dict[str, Any]) -> dict[str, Any]:
    # Folders of wheels, and indexes without PEP 700, give no size.
    if "size" not in file and file["url"].startswith("file://"):
        file["size"] = Path(unquote(urlparse(file["url"]).path)).stat().st_size
    return file
