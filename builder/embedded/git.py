"""One commit of a git repository, fetched by git into a tar of its files. Nothing of the repository's runs."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from builder.embedded import lifeline
from builder.embedded.errors import StageError


class GoneError(StageError):
    """A repository does not have a commit any more."""


PLACES = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY"),
    *("GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE", "GIT_SHALLOW_FILE", "GIT_GRAFT_FILE"),
)
"""Variables that lead git to another repository than its arguments name, as in a hook of git's that we are run by."""

PIN = "refs/drydock/pin"
"""The name that a commit gets here."""

PATIENCE = 300.0
"""Seconds for one call."""

_BLOCKS = 2**19  # of 512 bytes: no file that git writes, a pack for one, grows beyond 256 MB
_GIT = [
    *("/bin/sh", "-c", f'ulimit -f {_BLOCKS} 2>/dev/null; exec "$@"', "sh", "git", "--no-pager"),
    *("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "core.symlinks=false"),
    *("-c", "protocol.ext.allow=never", "-c", "transfer.fsckObjects=true", "-c", "fetch.recurseSubmodules=false"),
    *("-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=30", "-c", "gc.auto=0", "-c", "maintenance.auto=false"),
]
# The files as they are in the commit, whatever .gitattributes says: no filter, no LFS, no line ends of this system.
_ATTRIBUTES = "* -text !eol -filter -ident -export-ignore -export-subst -working-tree-encoding\n"


def tar_of(
    place: str, commit: str, work: Path, attempts: Sequence[Sequence[str]] = (), seconds: float = PATIENCE
) -> Path:
    """The files of `commit` in the repository at `place`, as a tar in the folder `work`.

    `attempts` are options and refspec of one `git fetch` after the other, until one has brought it; without, it is
    asked for by itself, then all there is: a server may know nothing of shallow clones (the dumb HTTP protocol), or
    has commits by names only. Raises StageError.
    """
    bare = work / "git"
    here = ["--git-dir", str(bare)]
    environment = environment_for(place)
    algorithm = "sha256" if len(commit) == 64 else "sha1"
    call(["init", "--quiet", "--bare", "--template=", f"--object-format={algorithm}", str(bare)], place, environment)
    gone = GoneError(f"the repository does not have commit {commit} any more")
    problem: StageError = gone
    for wanted in attempts or [["--depth=1", f"+{commit}:{PIN}"], ["+refs/*:refs/drydock/*"]]:
        options = ["--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--force"]
        try:
            call([*here, "fetch", *options, *wanted[:-1], "--", place, wanted[-1]], place, environment, seconds)
            problem = gone
        except StageError as error:
            problem = error
        if _run([*here, "cat-file", "-e", f"{commit}^{{commit}}"], place, environment)[0] == 0:
            break
        if re.search("resolve host|did not end|onnect", str(problem)):  # no other way leads there
            raise problem
    else:
        raise problem
    (bare / "info").mkdir(exist_ok=True)
    (bare / "info" / "attributes").write_text(_ATTRIBUTES)
    packed = work / "files.tar"
    # From here on it is about files: no setting of the user's belongs to that.
    alone = {"HOME": str(work), "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_ATTR_NOSYSTEM": "1"}
    quiet = {key: value for key, value in environment.items() if not key.startswith(("GIT_CONFIG", "XDG_"))}
    quiet.update(alone)
    call([*here, "archive", "--format=tar", f"--output={packed}", commit], place, quiet)
    return packed


def environment_for(place: str) -> dict[str, str]:
    """Variables for a git that asks `place` and nothing else, and never a person."""
    environment = {key: value for key, value in os.environ.items() if key not in PLACES}
    if "GIT_SSH_COMMAND" not in environment and not _run(["config", "core.sshCommand"], place, environment)[1]:
        environment["GIT_SSH_COMMAND"] = "ssh -o BatchMode=yes -o ConnectTimeout=30"
    if place.startswith(("https://", "ssh://")) or is_scp(place):
        allowed = "https:ssh"  # a user's own insteadOf may make one of the other
    else:
        allowed = place.partition("://")[0] if "://" in place else "file"
    environment.update(
        GIT_ALLOW_PROTOCOL=allowed,
        GIT_TERMINAL_PROMPT="0",
        GIT_OPTIONAL_LOCKS="0",
        GIT_NO_LAZY_FETCH="1",
        GIT_NO_REPLACE_OBJECTS="1",
        GIT_LFS_SKIP_SMUDGE="1",
        LC_ALL="C",
    )
    return environment


def is_scp(place: str) -> bool:
    """Whether git reads a place as `user@host:path`, and not as a path (git-fetch(1), GIT URLS)."""
    return "://" not in place and ":" in place.partition("/")[0]


def call(arguments: Sequence[str], place: str, environment: Mapping[str, str], seconds: float = PATIENCE) -> str:
    """What git says. Raises StageError where it fails, is not there, or does not end in these `seconds`."""
    code, said, errors = _run(arguments, place, environment, seconds)
    if code == 127:
        raise StageError("git is not there", "install it: a source in a repository is fetched with git")
    if code:
        raise StageError(f"git cannot fetch {place}: {_reason(errors)}", _remedy(errors))
    return said


def _run(
    arguments: Sequence[str], place: str, environment: Mapping[str, str], seconds: float = PATIENCE
) -> tuple[int, str, str]:
    import subprocess  # here, because most of what asks for PLACES runs nothing

    try:
        process = subprocess.Popen(
            [*_GIT, *arguments],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise StageError(f"git cannot be run: {error.strerror or error}") from None
    lifeline.add(process.pid)
    try:
        said, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise StageError(f"git did not end within {seconds:g} seconds", f"git fetches {place}") from None
    finally:
        if process.returncode is None:
            lifeline.kill(process.pid)
            process.wait()
        lifeline.drop(process.pid)
    return process.returncode, said.decode(errors="replace"), errors.decode(errors="replace")


def _reason(said: str) -> str:
    """What git says went wrong, without secrets."""
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["it does not say why"]
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "ssh:")) or "denied" in line] or lines
    return re.sub(r"://[^/@\s]+@", "://", "; ".join(dict.fromkeys(telling[:3])))[:500]


def _remedy(said: str) -> str:
    if "terminal prompts disabled" in said or "denied" in said or "Authentication failed" in said:
        return "it may be private, or not there: git's credential helper, a netrc file or an SSH key lets you in"
    return ""
