"""A source in a git repository: find its commit, fetch that, take its files out. Nothing of the repository's runs."""

from __future__ import annotations

import re
from collections.abc import Callable
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
    try:
        asked = ["ls-remote", "--quiet", "--", place, *named.values(), *peeled]
        said = git.call(asked, place, git.environment_for(place))
    except StageError as error:
        raise ToolError(str(error), hint=error.hint or None) from None
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
