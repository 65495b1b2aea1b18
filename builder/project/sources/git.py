"""A source in a git repository: find its commit, fetch that, take its files out. Nothing of the repository's runs."""

from __future__ import annotations

import os
import posixpath
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder import process
from builder.errors import SourceError, ToolError
from builder.project.folders import GIT_PLACES
from builder.project.sources.declared import is_scp
from builder.project.sources.tree import MAX_BYTES
from builder.project.sources.unpack import untar

_TIME = 300.0  # seconds for one call
_BLOCKS = 2**19  # of 512 bytes: no file that git writes, a pack for one, grows beyond 256 MB
_LIMITED = ["/bin/sh", "-c", f'ulimit -f {_BLOCKS} 2>/dev/null; exec "$@"', "sh"]
_GIT = [
    *("git", "--no-pager"),
    *("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "core.symlinks=false"),
    *("-c", "protocol.ext.allow=never", "-c", "transfer.fsckObjects=true", "-c", "fetch.recurseSubmodules=false"),
    *("-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=30", "-c", "gc.auto=0", "-c", "maintenance.auto=false"),
]
# The files as they are in the commit, whatever .gitattributes says: no filter, no LFS, no line ends of this system.
_ATTRIBUTES = "* -text !eol -filter -ident -export-ignore -export-subst -working-tree-encoding\n"


@dataclass(frozen=True)
class Ref:
    """What a revision is there: a `tag`, a `branch`, the default branch (`HEAD`) or a `commit`; its name and commit."""

    kind: str
    name: str
    commit: str

    def __str__(self) -> str:
        return f"the {self.kind} {self.name.rpartition('/')[2]} is {self.commit}"


def resolve(place: str, rev: str | None) -> Ref:
    """What `rev` is in the repository at `place`, a URL or a path; None is its default branch.

    A tag comes before a branch of that name. Raises SourceError and ToolError.
    """
    if rev is not None and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", rev):
        return Ref("commit", rev, rev)
    named = {"HEAD": "HEAD"} if rev is None else {"tag": f"refs/tags/{rev}", "branch": f"refs/heads/{rev}"}
    peeled = [f"{name}^{{}}" for name in named.values()]
    said = _git(["ls-remote", "--quiet", "--", place, *named.values(), *peeled], place, _environment(place))
    rows = (line.partition("\t") for line in said.splitlines())
    found = {name: commit for commit, _, name in rows}
    for kind, name in named.items():
        commit = found.get(f"{name}^{{}}", found.get(name, ""))
        if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", commit):
            return Ref(kind, name, commit)
    if rev is None:
        raise SourceError("the repository is empty: it has no default branch")
    hint = "give all 40 characters of a commit" if re.fullmatch(r"[0-9a-f]{7,39}", rev) else None
    raise SourceError(f'the repository has no tag and no branch "{rev}"', hint=hint)


def fetch(
    place: str, ref: Ref, commit: str, work: Path, leave_out: Callable[[str], None], *, most: int = MAX_BYTES
) -> Path:
    """The files of `commit`, which `ref` is or was, in a new folder in `work`; `leave_out` is told of links in it.
    They have `most` bytes at most.

    Raises SourceError where the repository does not have it any more, and ToolError.
    """
    bare = work / "git"
    here = ["--git-dir", str(bare)]
    environment = _environment(place)
    algorithm = "sha256" if len(commit) == 64 else "sha1"
    _git(["init", "--quiet", "--bare", "--template=", f"--object-format={algorithm}", str(bare)], place, environment)
    problem: ToolError | None = None
    for wanted in _attempts(ref, commit):
        options = ["--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--force"]
        try:
            _git([*here, "fetch", *options, *wanted[:-1], "--", place, wanted[-1]], place, environment)
            problem = None
        except ToolError as error:
            problem = error
        if _has(here, commit, environment):
            break
    else:
        raise problem or SourceError(f"the repository does not have commit {commit} any more: {ref}")
    (bare / "info").mkdir(exist_ok=True)
    (bare / "info" / "attributes").write_text(_ATTRIBUTES)
    packed, files = work / "files.tar", work / "files"
    # From here on it is about files: no setting of the user's belongs to that.
    alone = {"HOME": str(work), "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_ATTR_NOSYSTEM": "1"}
    quiet = {key: value for key, value in environment.items() if not key.startswith(("GIT_CONFIG", "XDG_"))} | alone
    _git([*here, "archive", "--format=tar", f"--output={packed}", commit], place, quiet)
    files.mkdir()
    with packed.open("rb") as stream:
        untar(stream, files, leave_out=leave_out, most=most)
    return files


def add_submodules(
    place: str,
    commit: str,
    work: Path,
    files: Path,
    leave_out: Callable[[str], None],
    *,
    most: int = MAX_BYTES,
    depth: int = 0,
) -> None:
    """Add the files of the submodules of `commit`, and of theirs, to its `files`: `git submodule update --recursive`.

    `work` is the folder that it was fetched in. Raises SourceError where one cannot be had, and ToolError.
    """
    if not (files / ".gitmodules").is_file():
        return
    environment = _environment(place)
    listed = _git(["config", "--file", str(files / ".gitmodules"), "--null", "--list"], place, environment)
    modules: dict[str, dict[str, str]] = {}
    for row in listed.split("\0"):
        key, _, value = row.partition("\n")
        if key.startswith("submodule.") and "." in key[10:]:
            modules.setdefault(key[10:].rpartition(".")[0], {})[key.rpartition(".")[2]] = value
    tree = _git(["--git-dir", str(work / "git"), "ls-tree", "-r", "-z", "--full-tree", commit], place, environment)
    links = dict(row.split("\t")[::-1] for row in tree.split("\0") if row.startswith("160000 "))
    wanted = [one for one in modules.values() if one.get("path") in links and one.get("update") != "none"]
    if depth >= _DEEPEST or len(wanted) > _MOST_SUBMODULES:
        raise SourceError("more submodules than a package has")
    for number, one in enumerate(wanted):
        path, pinned = one["path"], links[one["path"]].split()[2]
        target, url = files / path, _url_of_submodule(one.get("url", ""), place)
        inner = work / f"submodule-{number}"
        inner.mkdir()
        try:
            found = fetch(url, Ref("commit", pinned, pinned), pinned, inner, leave_out, most=most)
            add_submodules(url, pinned, inner, found, leave_out, most=most, depth=depth + 1)
        except SourceError as error:
            error.message = f"its submodule {path!a}: {error.message}"
            raise
        # What was unpacked has no links, and its names are plain: nothing leads out of it.
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        found.rename(target)


_DEEPEST, _MOST_SUBMODULES = 8, 100


def _url_of_submodule(url: str, place: str) -> str:
    """Where a submodule is, of a repository at `place`: one that is not on this machine names none of it (git,
    CVE-2022-39253). Raises SourceError.

    >>> _url_of_submodule("../b.git", "https://host/team/a.git"), _url_of_submodule("https://host/b", "file:///a")
    ('https://host/team/b.git', 'https://host/b')
    """
    if url.startswith(("./", "../")):
        head, _, path = place.partition("://")
        host, _, path = path.partition("/") if head != "file" else ("", "", path.lstrip("/"))
        return f"{head}://{host}/{posixpath.normpath(posixpath.join(path, url)).lstrip('./')}"
    if not url.isprintable() or not (
        url.startswith(("https://", "ssh://"))
        or is_scp(url)
        or (url.startswith("file://") and place.startswith("file://"))
    ):
        raise SourceError(f"a submodule at {url!a} is not fetched: neither https:// nor ssh://")
    return url


def _attempts(ref: Ref, commit: str) -> list[Sequence[str]]:
    """Options and refspec of one `git fetch` after the other, until one has brought the commit.

    A server may know nothing of shallow clones (the dumb HTTP protocol), or give out no commit but by a name.
    """
    to = "refs/drydock/pin"
    named = f"+{ref.name}:{to}"
    if ref.kind != "commit" and ref.commit == commit:
        return [["--depth=1", named], [named]]
    every = ["+refs/*:refs/drydock/*"] if ref.kind == "commit" else [named]
    return [["--depth=1", f"+{commit}:{to}"], every]


def _has(here: Sequence[str], commit: str, environment: Mapping[str, str]) -> bool:
    return process.run([*_GIT, *here, "cat-file", "-e", f"{commit}^{{commit}}"], env=environment).code == 0


def _environment(place: str) -> dict[str, str]:
    environment = {key: value for key, value in os.environ.items() if key not in GIT_PLACES}
    if "GIT_SSH_COMMAND" not in environment and not process.run(["git", "config", "core.sshCommand"]).stdout:
        environment["GIT_SSH_COMMAND"] = "ssh -o BatchMode=yes -o ConnectTimeout=30"
    if place.startswith(("https://", "ssh://")) or is_scp(place):
        allowed = "https:ssh"  # a user's own insteadOf may make one of the other
    else:
        allowed = place.partition("://")[0] if "://" in place else "file"
    return environment | {
        "GIT_ALLOW_PROTOCOL": allowed,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "LC_ALL": "C",
    }


def _git(arguments: Sequence[str], place: str, environment: Mapping[str, str]) -> str:
    try:
        done = process.run([*_LIMITED, *_GIT, *arguments], env=environment, timeout=_TIME)
    except ToolError as error:
        raise ToolError(error.message.replace("/bin/sh", "git"), hint=f"git fetches {place}") from None
    if done.code == 127:
        raise ToolError("git is not there", hint="install it: a source in a repository is fetched with git")
    if done.code:
        asked = re.search(r"terminal prompts disabled|Authentication failed|Permission denied", done.stderr)
        hint = "it is fetched as by your own git, which may not ask: a credential helper has the password, or ssh a key"
        raise ToolError(f"git cannot fetch {place}: {_reason(done.stderr)}", hint=hint if asked else None)
    return done.stdout


def _reason(said: str) -> str:
    """What git says went wrong, without secrets."""
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["it does not say why"]
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "ssh:")) or "denied" in line] or lines
    return re.sub(r"://[^/@\s]+@", "://", "; ".join(dict.fromkeys(telling[:3])))[:500]
