"""A source in a git repository: find its commit, fetch that, take its files out. Nothing of the repository's runs."""

from __future__ import annotations

import posixpath
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.embedded import git
from builder.embedded.errors import StageError
from builder.errors import SourceError, ToolError
from builder.project.sources.tree import MAX_BYTES
from builder.project.sources.unpack import untar


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
    said = _git_output(["ls-remote", "--quiet", "--", place, *named.values(), *peeled], place)
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
    named, pinned = f"+{ref.name}:{git.PIN}", ["--depth=1", f"+{commit}:{git.PIN}"]
    attempts = [["--depth=1", named], [named]] if ref.commit == commit else [pinned, [named]]
    try:
        packed = git.tar_of(place, commit, work, attempts if ref.kind != "commit" else ())
    except git.GoneError as error:
        raise SourceError(f"{error}: {ref}") from None
    except StageError as error:
        raise ToolError(str(error), hint=error.hint or None) from None
    files = work / "files"
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
    listed = _git_output(["config", "--file", str(files / ".gitmodules"), "--null", "--list"], place)
    modules: dict[str, dict[str, str]] = {}
    for row in listed.split("\0"):
        key, _, value = row.partition("\n")
        if key.startswith("submodule.") and "." in key[10:]:
            modules.setdefault(key[10:].rpartition(".")[0], {})[key.rpartition(".")[2]] = value
    tree = _git_output(["--git-dir", str(work / "git"), "ls-tree", "-r", "-z", "--full-tree", commit], place)
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
        or git.is_scp(url)
        or (url.startswith("file://") and place.startswith("file://"))
    ):
        raise SourceError(f"a submodule at {url!a} is not fetched: neither https:// nor ssh://")
    return url


def _git_output(arguments: Sequence[str], place: str) -> str:
    try:
        return git.call(arguments, place, git.environment_for(place))
    except StageError as error:
        raise ToolError(str(error), hint=error.hint or None) from None
