"""What uv makes: wheels of sources, virtual environments, and what is installed for a target."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from builder import process
from builder.consent import Builds, Consent
from builder.embedded import installer, venv
from builder.embedded.secrets import is_secret
from builder.errors import ToolError
from builder.uv.command import Platform, environment, executable, hint, message


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
        raise ToolError(f"uv says: {message(done.stderr)}", hint=hint(done.stderr))


def create_venv(folder: Path, python: str) -> str:
    """An empty relocatable virtual environment in a new `folder`; returns the path of the Python that it is of.

    Raises ToolError, FileExistsError.
    """
    with tempfile.TemporaryDirectory(prefix="drydock-") as work:
        frame = Path(work) / "frame"
        command = [executable(), "venv", "--no-config", "--no-project", "--quiet", "--relocatable"]
        done = process.run([*command, "--python", python, str(frame)], env=environment())
        if done.code:
            raise ToolError(f"no virtual environment of Python {python}: {message(done.stderr)}")
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
        raise ToolError(f"its build requirements cannot be installed: {message(done.stderr)}", hint=hint(done.stderr))


def _without_passwords(consent: Consent) -> dict[str, str]:
    """The environment of a build that asks no index, and so needs no password of one either."""
    kept = {name: value for name, value in environment(builds=consent).items() if not is_secret(name)}
    return {**kept, "SOURCE_DATE_EPOCH": "315532800", "PYTHONHASHSEED": "0"}
