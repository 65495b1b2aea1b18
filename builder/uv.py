"""The only caller of uv: resolving for any target, and installing for one.

uv is Drydock's resolver and installer; it comes as a dependency, so its version is known.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sys
import tempfile
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, unquote, urlparse

import tomli_w
from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from builder import process
from builder.consent import Builds, Consent
from builder.embedded import installer, network, venv
from builder.embedded.network_settings import read, without_name
from builder.embedded.secrets import cleaned, is_secret
from builder.errors import ToolError

# Spelled out, so that no configuration file decides them.
_DEFAULTS = ("--resolution", "highest", "--prerelease", "if-necessary-or-explicit")
_HINTS = (
    (
        r"invalid peer certificate",
        "which certificates are trusted, and who says so: drydock doctor --network; SSL_CERT_FILE names others, "
        "UV_SYSTEM_CERTS=0 takes those of uv",
    ),
    (
        r"\((401|403|407) |valid authentication credentials",
        "it wants a user and a password: in a netrc file, a keyring, or the URL of the index",
    ),
    (
        r"error sending request|dns error|operation timed out",
        "is the network there? UV_DEFAULT_INDEX names a mirror, UV_FIND_LINKS a folder of wheels; "
        "drydock doctor --network says what is in force",
    ),
    (
        r"[Nn]etwork (connectivity )?(is|was) disabled",
        "do it once without --offline, or name a folder that has the wheels: UV_FIND_LINKS",
    ),
    (r"No space left on device|os error 28\b", "free some space, or name another disk: DRYDOCK_HOME, UV_CACHE_DIR"),
    (r"Hash mismatch", "the index has another file under this name than the one that was locked: find out why"),
    (r"are incompatible", "change one of them, or override it and say why: [[packages.overrides]]"),
)
_UNASKED = "Network connectivity is disabled|was not found|error sending request"
_PYLOCK = ("--format", "pylock.toml")  # PEP 751


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
            raise ToolError(f"DRYDOCK_UV names {named}, which is not a program", hint="unset it: Drydock has its own")
        return named
    from uv import find_uv_bin

    return str(find_uv_bin())


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
    return re.search(rf"{_UNASKED}|Failed to fetch|Request failed|HTTP status", said) is not None


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


def parse_default_index(text: str) -> str | None:
    """The index that uv takes where nobody names another, from its own help.

    >>> parse_default_index("The default package index (by default: <https://packages.example/simple>)")
    'https://packages.example/simple'
    """
    found = re.search(r"default package index \(by default: <(https?://[^>\s]+)>\)", " ".join(text.split()))
    return found[1] if found else None


def default_index() -> str | None:
    """The index that the user has named for uv or pip, in a variable or a file; None where they have not."""
    named = read(os.environ).first("index")
    return without_name(named) if named else None


def version() -> str:
    """The version of the uv that came with Drydock."""
    from importlib.metadata import version as of

    return of("uv")


def environment(
    extra: Mapping[str, str] | None = None, index: str | None = None, *, builds: Builds = None
) -> dict[str, str]:
    """What uv runs with: our environment, without what would change its answers, and how indexes are reached.

    `index` is the only index to ask, instead of those that are configured. Where something may be built, it has no
    secrets.
    """
    found = network.environment(os.environ, index)
    return {**(found if builds is None else cleaned(found)), **(extra or {})}


def hint(said: str) -> str | None:
    """What a user can do about what uv said; None where its words speak for themselves.

    >>> hint("error: failed to write to file `x`: No space left on device (os error 28)")
    'free some space, or name another disk: DRYDOCK_HOME, UV_CACHE_DIR'
    """
    known = next((words for pattern, words in _HINTS if re.search(pattern, said)), None)
    return known or _missing_hint(said) or _source_hint(said) or _undated_hint(said)


def _missing_hint(said: str) -> str | None:
    """Of a package that no index has: it is misspelt, or private, or a folder of somebody's own.

    >>> said = _missing_hint("Because se3 was not found in the package registry and profile depends on se3, we can")
    >>> (said or "").partition(", or")[0]
    'if se3 is not misspelt, say where it is in its requirement: "se3 @ ./FOLDER"'
    """
    missing = re.search(r"Because (\S+) was not found in the package registry", said)
    if missing is None:
        return None
    name = missing[1]
    return (
        f'if {name} is not misspelt, say where it is in its requirement: "{name} @ ./FOLDER", or a URL of git or of a '
        f'wheel; or name its index: [packages] index = {{ {name} = "NAME" }}, [indexes] NAME = "URL"'
    )


def _source_hint(said: str) -> str | None:
    source = re.search(r"Wheels are required for `([^`]+)`", said)
    return f'where its source may be built, say so: [packages.build] {source[1]} = ["setuptools"]' if source else None


def _undated_hint(said: str) -> str | None:
    """Of an index without upload times: of what is too new, uv says the day."""
    undated = re.findall(r"`([^`]+)` was filtered by `exclude-newer`[^\n]*? requirement is v[^,\s]+\. ", said)
    if not undated:
        return None
    return (
        f"the index does not say when its files were uploaded; except {undated[0]} from the day: "
        f"[packages.exclude-newer-package] {undated[0]} = false; or all that comes from one of [indexes]: "
        "[packages.exclude-newer-index] NAME = false; or everything: [packages] exclude-newer = false"
    )


def index_url(name: str, url: str) -> str:
    """Where the logical index `name` is: DRYDOCK_INDEX_NAME, else the `url` of the profile."""
    return installer.index_url(name, url, os.environ)


def find_links() -> list[Path]:
    """The folders of wheels that the settings of uv and pip name, as far as they exist."""
    return installer.folders_of_wheels(os.environ)


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
    log = ""

    def heard(said: str) -> None:
        nonlocal log
        log = said
        for requirement in _unusable(said) if unusable else ():
            unusable(requirement)  # type: ignore[misc]

    _compile(requirements, universe, folder, arguments, heard, impatient=impatient)
    rows = tomllib.loads(output.read_text()).get("packages", [])
    direct, overridden = (
        {canonicalize_name(Requirement(text).name) for text in some} for some in (requirements, overrides)
    )
    above = _parents(log, {row["name"]: row["version"] for row in rows}, direct, overridden)
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
    index: str | None = None,
) -> None:
    """Install below `folder`, which is ours, for a target that may not be this machine: `uv pip install`.

    `arguments` name a place relative to `folder`, in which uv stands. Without `builds` wheels alone are installed.
    `index` is the only one to ask, instead of those that are configured. Raises ToolError.
    """
    if builds is None and "--no-binary" in arguments:
        raise ValueError("nobody has agreed to a build")
    command = [executable(), "pip", "install", "--no-config", "--quiet", "--no-deps"]
    command += ["--python-platform", target.uv_platform, "--python-version", python]
    own, rest = _apart(arguments)
    rest += ["--only-binary", ":all:"] if builds is None else []
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _checked([*command, *rest], target, builds=builds, folder=descriptor, index=index or own)
    finally:
        os.close(descriptor)


def create_venv(folder: Path, python: str) -> str:
    """An empty relocatable virtual environment in a new `folder`; returns the path of the Python that it is of.

    Raises ToolError, FileExistsError.
    """
    with tempfile.TemporaryDirectory(prefix="drydock-") as work:
        frame = Path(work) / "frame"
        command = [executable(), "venv", "--no-config", "--no-project", "--quiet", "--relocatable"]
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


def build_wheel(
    source: Path,
    constraints: Path,
    out: Path,
    consent: Consent,
    *,
    python: str | None = None,
    complete: bool = False,
    indexes: Sequence[str] | None = None,
    version: str | None = None,
) -> Path:
    """Build the wheel of a source distribution, or of a folder, into the folder `out`, without a network.

    Its build requirements are those of the file `constraints`, by hash, from the folder of `source`; where `indexes`
    are given, from the index and these, before it is built. With `complete` all of them are installed, whatever it
    declares. `python` is the one to build with, and `version` what is said to those who ask a repository for one.
    Raises ToolError.
    """
    near = ["--no-index", "--find-links", str(source.parent)]
    # Not quietly: then it does not say what a build has said.
    command = [executable(), "build", "--no-config", *near, "--wheel", "--no-create-gitignore", "--out-dir", str(out)]
    env = _without_passwords(consent)
    for name in _VERSIONS if version else ():
        env[name] = str(version)
    if complete:
        frame = constraints.parent / f"tools-{out.name}"
        _make_tools(frame, constraints, near if indexes is None else _WHEELS, python, indexes or ())
        command += ["--no-build-isolation", "--python", str(frame / "bin/python")]
        env["PATH"] = f"{frame / 'bin'}{os.pathsep}{env.get('PATH', os.defpath)}"
    else:
        command += ["--python", python] if python else []
        command += ["--build-constraints", str(constraints), "--require-hashes"] if constraints.stat().st_size else []
    done = process.run([*command, str(source)], env=env)
    found = sorted(out.glob("*.whl"))
    if done.code or len(found) != 1:
        said = "\n".join(done.stderr.strip().splitlines()[-_LAST_LINES:])
        raise ToolError(f"{source.name} cannot be built; the last that was said:\n{said}")
    return found[0]


_LAST_LINES = 20
# What setuptools-scm, hatch-vcs, pdm and poetry-dynamic-versioning ask before a repository that is not there.
_VERSIONS = ("SETUPTOOLS_SCM_PRETEND_VERSION", "PDM_BUILD_SCM_VERSION", "POETRY_DYNAMIC_VERSIONING_BYPASS")
_WHEELS = ("--only-binary", ":all:", *installer.SEARCHES)


def _make_tools(frame: Path, wanted: Path, options: Sequence[str], python: str | None, indexes: Sequence[str]) -> None:
    """A virtual environment with all that builds something: wheels, of which nothing is run. Raises ToolError."""
    env = environment()
    if indexes:
        env["UV_INDEX"] = " ".join([*env.get("UV_INDEX", "").split(), *indexes])
    which = ["--python", python] if python else []
    made = process.run([executable(), "venv", "--no-config", "--no-project", "--quiet", *which, str(frame)], env=env)
    install = [executable(), "pip", "install", "--no-config", "--quiet", "--no-deps", *options]
    install += ["--python", str(frame / "bin/python"), "--require-hashes", "-r", str(wanted)]
    done = process.run(install, env=env) if made.code == 0 and wanted.stat().st_size else made
    if done.code:
        raise ToolError(f"its build requirements cannot be installed: {_said(done.stderr)}", hint=hint(done.stderr))


def _without_passwords(consent: Consent) -> dict[str, str]:
    """The environment of a build that asks no index, and so needs no password of one either."""
    kept = {name: value for name, value in environment(builds=consent).items() if not is_secret(name)}
    return {**kept, "SOURCE_DATE_EPOCH": "315532800", "PYTHONHASHSEED": "0"}


def known_pythons(version: str) -> list[dict[str, Any]]:
    """The Pythons of a series, or of one release, that uv can fetch for any platform, newest first. Raises ToolError.

    They are those of `uv python list`: of a series the newest release.
    """
    command = [executable(), "python", "list", "--no-config", "--only-downloads", "--all-platforms"]
    done = process.run([*command, "--output-format", "json", version], env=_for_pythons({}))
    if done.code:
        raise ToolError(f"uv says: {_said(done.stderr)}")
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
        raise ToolError(f"uv says: {_said(said)}", hint=hint(said))
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


def audit(packages: Sequence[tuple[str, str]], python: str, folder: Path, service: str | None) -> list[dict[str, Any]]:
    """What `uv audit` finds for packages, each by name and version; rows of its "vulnerabilities".

    `service` is where OSV's API is, instead of its own place. `folder` is an empty one. Raises ToolError where it could
    not be asked.
    """
    registry = {
        "registry": default_index() or parse_default_index(process.run(question_of_default_index()).stdout) or ""
    }
    rows = [{"name": name, "version": version, "source": registry} for name, version in packages]
    project = {"name": "profile", "version": "0", "requires-python": f"=={python}.*"}
    (folder / "pyproject.toml").write_text(tomli_w.dumps({"project": project}))
    own = {"name": "profile", "version": "0", "source": {"virtual": "."}, "dependencies": rows}
    lock = {"version": 1, "requires-python": project["requires-python"], "package": [*rows, own]}
    (folder / "uv.lock").write_text(tomli_w.dumps(lock))
    command = [executable(), "audit", "--no-config", "--preview-features", "audit-command,json-output", "--frozen"]
    command += ["--output-format", "json", "--directory", str(folder)]
    command += ["--service-url", service] if service else []
    done = process.run(command, env=environment({"NO_COLOR": "1"}))
    try:
        found = json.loads(done.stdout)["vulnerabilities"]
    except (ValueError, KeyError, TypeError):
        raise ToolError(f"uv says: {_said(done.stderr)}", hint=hint(done.stderr)) from None
    return [row for row in found if isinstance(row, dict)]


def forget(packages: Iterable[str]) -> None:
    """Delete what uv's cache has of some packages (`uv cache clean`). Raises ToolError."""
    done = process.run([executable(), "cache", "clean", "--no-config", "--quiet", *sorted(packages)], env=environment())
    if done.code:
        raise ToolError(f"uv's cache cannot be cleaned: {_said(done.stderr)}")


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
        said = "".join(line for line in done.stderr.splitlines(keepends=True) if not _LOGGED.match(line))
        raise ToolError(f"uv says: {_said(said)}", hint=hint(said))


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


_LOGGED = re.compile(r"(DEBUG|INFO|TRACE|WARN) ")
_SEARCHING = re.compile(r"DEBUG Searching for a compatible version of ([A-Za-z0-9._-]+)(?:\[[^\]]*\])? \((.*)\)$")
_SELECTING = re.compile(r"DEBUG Selecting: ([A-Za-z0-9._-]+)")


def _unusable(log: str) -> list[str]:
    """The packages that uv has looked for a version of, and selected none: it says so in its log alone.

    Each with the first range that it looked in, where that is one.

    >>> _unusable("DEBUG Searching for a compatible version of chess (*)\\nDEBUG Tried 1 versions")
    ['chess']
    >>> _unusable("DEBUG Searching for a compatible version of chess (>=4.9.dev0, <4.10.dev0)\\n")
    ['chess>=4.9.dev0,<4.10.dev0']
    """
    found: dict[str, str] = {}
    open_: tuple[str, str] | None = None
    for line in log.splitlines():
        if searching := _SEARCHING.match(line):
            if open_ is not None:
                found.setdefault(*open_)
            open_ = searching[1], searching[2]
        elif _SELECTING.match(line):
            open_ = None
    if open_ is not None:
        found.setdefault(*open_)
    return [_requirement(name, said.replace(" ", "")) for name, said in found.items()]


_ADDING = re.compile(r"DEBUG Adding (?:direct|transitive) dependency(?: for (\S+)==(\S+))?: ([A-Za-z0-9._-]+)")


def _parents(
    log: str, versions: Mapping[str, str], direct: Collection[str], overridden: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """Who requires each of the pinned packages, sorted: packages, "profile" and "override", by the resolver's log.

    Of the same log is what builds a source, whose requirements are `direct` too, but not of the profile.

    >>> log = "DEBUG Adding direct dependency: a*\\nDEBUG Adding direct dependency: b\\n"
    >>> log += "DEBUG Adding transitive dependency for a==1: b>=1\\n"
    >>> _parents(log + "DEBUG Adding transitive dependency for a==2: c*", {"a": "1", "b": "3"}, {"a"}, {"b"})
    {'a': ('profile',), 'b': ('a', 'override')}
    """
    found: dict[str, set[str]] = {name: {"override"} if name in overridden else set() for name in versions}
    for line in log.splitlines():
        if (adding := _ADDING.match(line)) and (name := adding[3]) in found:
            parent = adding[1] or "profile"
            # What was tried and dropped again is in the log too; an extra requires its own package.
            if name in direct if parent == "profile" else parent != name and versions.get(parent) == adding[2]:
                found[name].add(parent)
    return {name: tuple(sorted(parents)) for name, parents in found.items()}


def _requirement(name: str, said: str) -> str:
    """A requirement on a range as uv's log writes it; on any version, where that is not one of PEP 440.

    >>> _requirement("a", ">=1,<2"), _requirement("a", ">=1.0,<1.0+"), _requirement("a", "<1|>1")
    ('a>=1,<2', 'a', 'a')
    """
    try:
        _ = SpecifierSet(said)
    except InvalidSpecifier:
        return name
    return f"{name}{said}"


def _apart(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The URL of the one index to ask, and the other arguments: it may have a password in it, and arguments are seen.

    >>> _apart(["--no-deps", "--default-index", "https://host/simple", "-r", "x.txt"])
    ('https://host/simple', ['--no-deps', '-r', 'x.txt'])
    """
    if "--default-index" not in arguments:
        return None, list(arguments)
    at = arguments.index("--default-index")
    return arguments[at + 1], [*arguments[:at], *arguments[at + 2 :]]


def _checked(
    command: Sequence[str], target: Platform, *, builds: Builds, folder: int | None = None, index: str | None = None
) -> None:
    done = process.run(command, env=environment(target.uv_environment(), index, builds=builds), folder=folder)
    if done.code:
        raise ToolError(f"uv says: {_said(done.stderr)}", hint=hint(done.stderr))


def _said(stderr: str) -> str:
    said = re.sub(r"^error: ", "", stderr.strip())
    return re.sub(r"\n\s*\n\s*hint: ", "\n  uv's hint: ", said) or "nothing"


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
