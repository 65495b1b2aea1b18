"""The code of a run, as git knows it: commit, branch, what differs, what is untracked.

Nothing of the repository's own runs, nothing is fetched, and nothing in it is written. A large working tree is never
read whole: there are limits to what is listed, hashed and kept, and what they left out is said.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from builder import process, secrets
from builder.embedded import git
from builder.embedded.secrets import is_secret
from builder.run.records import folder
from builder.run.records.identity import FORM
from builder.run.supervise.redact import Redactor

_FILES = 1000
"""How many files are listed, of those that differ and of those that git does not know, each."""

_HASHED = 64 << 20
"""Bytes that are read to hash files."""

_KEPT = 1 << 20
"""Bytes of a difference that is kept."""

SUBMODULES = 200
"""How many submodules are recorded."""

_REMOTES = 16
_LISTED = 64_000_000  # bytes of the names of all files that git knows

_TIME = 20.0
"""Seconds for git, each time that it is asked."""

_GIT = ["git", "--no-pager", "--literal-pathspecs", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"]
# A file of a name like these may hold a secret that no variable has: neither its hash nor its content is kept.
PRIVATE = re.compile(
    r"(.*/)?(\.?(secrets?|credentials?)/.*|\.(ssh|aws|kaggle|gnupg|docker|huggingface)/.*"
    r"|[^/]*\.env(\.[^/]*)?|\.envrc|[._]netrc|\.npmrc|\.pypirc|\.pgpass|\.dockercfg|kaggle\.json|id_[a-z0-9]+"
    r"|[^/]*\.(pem|key|p12|pfx|kdbx|jks|keystore|ppk|gpg|asc|age)|([^/]*[._-])?token(\.(txt|json|ya?ml))?"
    r"|[^/]*service[_-]?account[^/]*\.json|[^/]*(secret|credential|passw)[^/]*)",
    re.IGNORECASE,
)
# A submodule is looked into by itself: git would run what its own settings name.
_STATUS = ["status", "--porcelain=v2", "-z", "--no-renames", "--ignore-submodules=dirty"]
DIRTY = re.compile(r" S.(M.|.U)")
"""How a submodule differs of which something was changed, or is new: beside its commit."""
_IS_PRIVATE = "its name is that of a secret"
_IS_ENCRYPTED = "git keeps it encrypted"
_ENCRYPTS = re.compile(r".*(crypt|secret|sops|gpg|vault|\bage\b).*", re.IGNORECASE)
MADE = re.compile(rf"(^|/)(__pycache__|\.?venv|node_modules|\.[a-z_]+_cache|[^/]+\.egg-info|rerun-{FORM})/|\.py[co]$")
"""What programs make again, and `drydock rerun` has made: no code."""
_UNDER_WAY = {
    "rebase-merge": "rebase",
    "rebase-apply": "rebase",
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "BISECT_LOG": "bisect",
}


def code_of(where: Path, since: float, hidden: Mapping[str, str]) -> dict[str, Any]:
    """The code in the repository around the folder `where`, for a run that began at `since`; `hidden` are secrets.

    `why` says what is not known. `digest` is over paths and content of all that differs from the commit, None where
    some of it was not hashed; `difference` has the object that `git apply` takes, where it is small.
    """
    environ = _environment(where)
    if isinstance(environ, str):
        return {"why": environ}
    top, git_folder, objects, repository = (Path(where, line) for line in environ.pop("ASKED").split("\n")[:4])
    with tempfile.TemporaryDirectory(prefix="drydock-") as work:
        index = _index(top, git_folder / "index", Path(work, "index"), environ)
        environ |= {} if index is None else {"GIT_INDEX_FILE": str(index)}
        places = _Places(top, git_folder, index or git_folder / "index", objects)
        return {"folder": str(top), "repository": str(repository), **_found(places, since, environ, hidden)}


class _Places(NamedTuple):
    """A working tree, its folder of git, the index that knows its files, and the objects."""

    top: Path
    git_folder: Path
    index_file: Path
    objects: Path


def _index(top: Path, index: Path, new: Path, environ: Mapping[str, str]) -> Path | None:
    """A copy of the index in which no file is left out whose change git is not to look at; None where none is so.

    Such a file has the bit assume-unchanged or skip-worktree, by which people hide changes of their own. A sparse
    checkout has the latter, too: for files that it does not have.
    """
    asked = [*_GIT, "-C", str(top)]
    (listed,) = process.run_all([_cut([*asked, "ls-files", "-v", "-z"], _LISTED)], timeout=_TIME, env=environ)
    rows = listed.stdout.split("\0")[:-1] if listed is not None else []
    names = [row[2:] for row in rows if (row[0].islower() or row[0] == "S") and os.path.lexists(top / row[2:])]
    if not names:
        return None
    shutil.copy2(index, new)
    own = {**environ, "GIT_INDEX_FILE": str(new)}
    for bit in ("assume-unchanged", "skip-worktree"):
        for first in range(0, len(names), _FILES):
            step = [*asked, "update-index", f"--no-{bit}", "--", *names[first : first + _FILES]]
            process.run_all([step], timeout=_TIME, env=own)
    return new


def _found(places: _Places, since: float, environ: Mapping[str, str], hidden: Mapping[str, str]) -> dict[str, Any]:
    """What `code_of` returns, of what is at these places."""
    top, git_folder = places.top, places.git_folder
    status = [*_GIT, "-C", str(top), *_STATUS, "--branch", "--untracked-files=no"]
    others = [*_GIT, "-C", str(top), "ls-files", "--others", "--exclude-standard", "-z"]
    known, unknown = process.run_all([status, _cut(others)], timeout=_TIME, env=environ)
    if known is None or known.code:
        return {"why": _reason(known.stderr) if known else f"git took longer than {_TIME:g} s"}
    found, changed = parse(known.stdout)
    listed = unknown.stdout.split("\0")[:-1] if unknown is not None else []
    names = [name for name in listed if not MADE.search(name)]
    found["submodules"] = _submodules(top, environ, hidden)
    changed = _with_dirty(top, changed, found["submodules"])
    reader = _Reader(top, since, found["submodules"], _encrypted(top, [*dict(changed), *names], environ))
    found["remotes"] = _remotes(top, environ, hidden)
    found["changed"] = [reader.file(path, how) for path, how in changed[:_FILES]]
    found["untracked"] = [reader.file(path) for path in names[:_FILES]]
    found["left-out"] = max(0, len(changed) - _FILES) + max(0, len(names) - _FILES)
    if unknown is None:
        found["why"] = f"files that git does not know were not found within {_TIME:g} s"
    untracked = [one for one in found["untracked"] if not one.get("late")]
    found["differs"] = bool(found["changed"] or untracked or found["left-out"])
    found["digest"] = None if found["left-out"] or unknown is None else _digest([*found["changed"], *untracked])
    under_way = [what for name, what in _UNDER_WAY.items() if (git_folder / name).exists()]
    if under_way:
        found["under-way"] = under_way[0]
    if found["differs"] and found["commit"]:
        found["difference"] = _difference(places, found["changed"], untracked, found["submodules"], environ, hidden)
    return found


def _environment(where: Path) -> dict[str, str] | str:
    """The environment for git there; or why there is none, in words.

    `ASKED` in it has lines: the root, the folder of git, that of its objects, and that which all working trees share.
    """
    environ = {key: value for key, value in os.environ.items() if key not in git.PLACES and not is_secret(key)}
    environ |= {"GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "none", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    ask = ["rev-parse", "--show-toplevel", "--absolute-git-dir", "--git-path", "objects", "--git-common-dir"]
    filters = ["config", "--local", "--name-only", "-z", "--get-regexp", r"^filter\..*\.(clean|process)$"]
    here, own = process.run_all(
        [[*_GIT, "-C", str(where), *words] for words in (ask, filters)], timeout=_TIME, env=environ
    )
    if here is None:
        return "git is not there"
    if here.code or here.stdout.count("\n") != 4:
        return _reason(here.stderr)
    # What the repository itself would have run on a file that is looked at; the user's own settings stay (git-lfs).
    keys = sorted(set((own.stdout if own is not None else "").split("\0")) - {""})
    settings = [(key, "") for key in keys] + [(f"{key.rpartition('.')[0]}.required", "false") for key in keys]
    there = environ.get("GIT_CONFIG_COUNT", "")
    first = int(there) if there.isdecimal() else 0
    for number, (key, value) in enumerate(settings, first):
        environ |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return {**environ, "GIT_CONFIG_COUNT": str(first + len(settings)), "ASKED": here.stdout}


def _submodules(
    top: Path, environ: Mapping[str, str], hidden: Mapping[str, str], inside: str = ""
) -> list[dict[str, Any]]:
    """The submodules that are checked out, with those in them: path in the repository `top`, commit, and remotes."""
    if not os.path.lexists(top / inside / ".gitmodules"):
        return []
    here = top / inside
    (listed,) = process.run_all(
        [_cut([*_GIT, "-C", str(here), "ls-files", "--stage", "-z"])], timeout=_TIME, env=environ
    )
    rows = listed.stdout.split("\0")[:-1] if listed is not None else []
    names = [row.partition("\t")[2] for row in rows if row.startswith("160000 ")][:SUBMODULES]
    ask = ["rev-parse", "--show-prefix", "HEAD"]
    done = process.run_all([[*_GIT, "-C", str(here / name), *ask] for name in names], timeout=_TIME, env=environ)
    found = []
    for name, one in zip(names, done, strict=True):
        # One that is not checked out is an empty folder, in which git finds the repository around it.
        prefix, _, commit = (one.stdout if one is not None and not one.code else "").strip("\n").rpartition("\n")
        if commit and not prefix:
            path = f"{inside}{name}"
            own = {"path": path, "commit": commit, "remotes": _remotes(top / path, environ, hidden)}
            found += [own, *_submodules(top, environ, hidden, f"{path}/")]
    return found[:SUBMODULES]


def _encrypted(top: Path, paths: Sequence[str], environ: Mapping[str, str]) -> set[str]:
    """Those of some files that git encrypts by a filter (git-crypt), which is not run here."""
    found = set()
    for first in range(0, min(len(paths), 2 * _FILES), _FILES):
        ask = [*_GIT, "-C", str(top), "check-attr", "-z", "filter", "--", *paths[first : first + _FILES]]
        (done,) = process.run_all([_cut(ask)], timeout=_TIME, env=environ)
        words = done.stdout.split("\0") if done is not None else []
        found |= {path for path, value in zip(words[::3], words[2::3], strict=False) if _ENCRYPTS.fullmatch(value)}
    return found


def _with_dirty(
    top: Path, changed: Iterable[tuple[str, str]], submodules: Iterable[Mapping[str, Any]]
) -> list[tuple[str, str]]:
    """What differs, with what differs inside the submodules, as git writes it: S, and C, M or U."""
    found = dict(changed)
    for path in (row["path"] for row in submodules):
        environ = _environment(top / path)
        if isinstance(environ, str):
            continue
        status = [*_GIT, "-C", str(top / path), *_STATUS, "--untracked-files=normal"]
        (done,) = process.run_all([_cut(status)], timeout=_TIME, env=environ)
        text = done.stdout if done is not None else ""
        inside = parse(text)[1]
        found |= {f"{path}/{name}": how for name, how in inside if " S" in how}
        is_modified = any(" S" not in how for _, how in inside)
        has_untracked = any(entry.startswith("? ") for entry in text.split("\0"))
        if is_modified or has_untracked:
            where, _, flags = found.get(path, ".M S...").partition(" ")
            found[path] = f"{where} {flags[:2]}{'M' if is_modified else '.'}{'U' if has_untracked else '.'}"
    return list(found.items())


def _remotes(top: Path, environ: Mapping[str, str], hidden: Mapping[str, str]) -> dict[str, str]:
    """Where else the repository is: the URLs of its remotes, by name, without secrets."""
    (done,) = process.run_all(
        [[*_GIT, "-C", str(top), "config", "--local", "-z", "--get-regexp", r"^remote\..*\.url$"]],
        timeout=_TIME,
        env=environ,
    )
    rows = [row.partition("\n") for row in (done.stdout if done is not None else "").split("\0")[:-1]]
    return {
        key[len("remote.") : -len(".url")]: secrets.redacted(url.partition("?")[0], hidden, hidden)
        for key, _, url in rows[:_REMOTES]
    }


def _cut(command: Sequence[str], limit: int = 4_000_000) -> list[str]:
    """A command of whose output the first bytes are read, up to the limit."""
    return ["/bin/sh", "-c", f'"$@" | head -c {limit}', "sh", *command]


def _reason(words: str) -> str:
    lines = words.strip().splitlines() or ["git does not say why"]
    return "it is in no repository of git" if "not a git repository" in words else lines[0].removeprefix("fatal: ")


def parse(status: str) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """What `git status --porcelain=v2 -z --branch` says: commit and branch, and each path with how it differs.

    >>> parse("# branch.oid 1f\\0# branch.head main\\0001 .M N... 100644 100644 100644 aa aa a b.py\\0")
    ({'commit': '1f', 'branch': 'main'}, [('a b.py', '.M')])
    >>> parse("# branch.oid (initial)\\0# branch.head (detached)\\0u UU N... 1 1 1 1 aa aa aa x\\0")
    ({'commit': None, 'branch': None}, [('x', 'UU')])
    """
    found: dict[str, Any] = {"commit": None, "branch": None}
    changed = []
    for entry in status.split("\0"):
        kind, _, rest = entry.partition(" ")
        if kind == "#":
            key, _, value = rest.partition(" ")
            if key == "branch.oid" and value != "(initial)":
                found["commit"] = value
            elif key == "branch.head" and value != "(detached)":
                found["branch"] = value
        elif kind in ("1", "u"):
            fields = rest.split(" ", 7 if kind == "1" else 9)
            submodule = fields[1] if fields[1].startswith("S") else ""
            changed.append((fields[-1], " ".join(filter(None, (fields[0], submodule)))))
    return found, changed


class _Reader:
    """Hashes files of a working tree, as long as there is room for that."""

    def __init__(
        self,
        top: Path,
        since: float,
        submodules: Iterable[Mapping[str, Any]] = (),
        encrypted: Collection[str] = (),
    ) -> None:
        self._top = top
        self._encrypted = encrypted
        self._commits = {one["path"]: one["commit"] for one in submodules}
        self._since, self._now = since, time.time() + 1
        self._left = _HASHED

    def file(self, path: str, how: str = "") -> dict[str, Any]:
        """What is known of a file: its size and sha256, or `why` not; `late` where it changed after the start."""
        row: dict[str, Any] = {"path": path, **({"how": how} if how else {})}
        full = self._top / path
        try:
            state = full.lstat()
        except (OSError, ValueError):
            return row if "D" in how else {**row, "why": "it cannot be read"}
        # What is of a time to come is no later than we are: a clock was set back.
        if any(self._since < at < self._now for at in (state.st_ctime, state.st_mtime)):
            row["late"] = True
        if PRIVATE.fullmatch(path):
            return {**row, "why": _IS_PRIVATE}
        if path in self._encrypted:
            return {**row, "why": _IS_ENCRYPTED}
        if stat.S_ISLNK(state.st_mode):
            return {**row, "sha256": hashlib.sha256(os.fsencode(full.readlink())).hexdigest(), "link": True}
        if stat.S_ISDIR(state.st_mode):
            if path.endswith("/"):  # as git writes one of its files that it does not know
                return {**row, "why": "it is a repository of its own, and no submodule"}
            return {**row, "commit": self._commits[path]} if path in self._commits else row  # a submodule
        row["size"] = state.st_size
        if not stat.S_ISREG(state.st_mode):
            return {**row, "why": "it is no regular file"}
        if state.st_size > self._left:
            return {**row, "why": "it is too large to be hashed"}
        self._left -= state.st_size
        found = self._hashed(full, state.st_size) or self._hashed(full, state.st_size)
        return {**row, "sha256": found} if found else {**row, "why": "it changed while it was read"}

    def _hashed(self, path: Path, limit: int) -> str | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            before = os.fstat(file.fileno())
            digest, left = hashlib.sha256(), limit
            try:
                while left > 0 and (piece := file.read(min(left, 1 << 20))):
                    digest.update(piece)
                    left -= len(piece)
            except OSError:
                return None
            after = os.fstat(file.fileno())
        same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns) == (limit, after.st_mtime_ns)
        return digest.hexdigest() if same else None


def _digest(files: Iterable[Mapping[str, Any]]) -> str | None:
    """The digest of what differs; None where something was not hashed. Of what may be a secret it has the name only."""
    rows = []
    for one in files:
        if one.get("why", _IS_PRIVATE) not in (_IS_PRIVATE, _IS_ENCRYPTED):
            return None
        rows.append([one["path"], one.get("sha256") or one.get("commit"), one.get("how", "")])
    return hashlib.sha256(json.dumps(sorted(rows)).encode()).hexdigest()


def _is_within(path: str, submodules: Iterable[Mapping[str, Any]]) -> bool:
    return any(path.startswith(f"{row['path']}/") for row in submodules)


def _difference(
    places: _Places,
    changed: Sequence[dict[str, Any]],
    untracked: Sequence[dict[str, Any]],
    submodules: Sequence[Mapping[str, Any]],
    environ: Mapping[str, str],
    hidden: Mapping[str, str],
) -> dict[str, Any]:
    """Keep what differs as a text that `git apply` takes, untracked files too; or say `why` it is not kept.

    `complete` is false where files were left out, each with its `why`; `redacted` is true where a secret was in it, and
    `without` are the files of which nothing is kept for that.
    """
    # Of a submodule only the commit is kept, by the repository that it is in.
    own_changes = [
        one for one in changed if not (one["how"].startswith(".M S.") or _is_within(one["path"], submodules))
    ]
    wanted = [one for one in (*own_changes, *untracked) if "why" not in one]
    left = _KEPT
    for one in sorted(wanted, key=lambda one: one.get("size", 0)):
        left -= one.get("size", 0)
        if left < 0:
            one["why"] = f"it is too large to be kept, with what else differs: {_KEPT >> 20} MiB is"
    new = [one["path"] for one in untracked]
    content = _patch(places, [one["path"] for one in wanted if "why" not in one], new, environ)
    if content == _TOO_LARGE:
        # What was deleted is in a patch as it was, and may be large.
        for one in wanted:
            if "D" in one.get("how", "") and "size" not in one:
                one["why"] = "it was deleted, and was too large to be kept"
        content = _patch(places, [one["path"] for one in wanted if "why" not in one], new, environ)
    if isinstance(content, str):
        return {"why": content}
    shown, without = _redacted(content, hidden)
    whole = not without and not any("why" in one or DIRTY.search(one.get("how", "")) for one in (*changed, *untracked))
    found = {"object": folder.keep(shown), "complete": whole, "redacted": shown != content}
    return {**found, **({"without": without} if without else {})}


def _patch(places: _Places, paths: Sequence[str], untracked: Iterable[str], environ: Mapping[str, str]) -> bytes | str:
    """What differs at some paths, some of which git does not know, as a patch; or in words why there is none."""
    unknown = set(untracked)
    new = [path for path in paths if path in unknown]
    with tempfile.TemporaryDirectory(prefix="drydock-") as work:
        # In an index of its own, in which the untracked files are noted; nothing is written to the repository.
        index, names, out = Path(work, "index"), Path(work, "names"), Path(work, "difference")
        own = {**environ, "GIT_INDEX_FILE": str(index), "GIT_OBJECT_DIRECTORY": work}
        own["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = str(places.objects)
        with suppress(OSError):
            # With its time, by which git knows files that changed right after it.
            shutil.copy2(places.index_file, index)
        names.write_bytes(b"\0".join(os.fsencode(name) for name in new))
        asked = [*_GIT, "-C", str(places.top)]
        add = [*asked, "add", "--intent-to-add", f"--pathspec-from-file={names}", "--pathspec-file-nul"]
        show = ["diff", "--binary", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--no-relative"]
        show.append("--ignore-submodules=dirty")
        limited = ["/bin/sh", "-c", 'ulimit -f 4096; exec "$@"', "sh", *asked, *show]
        steps = [add] if new else []
        out.touch()
        if paths:  # without paths git would take all, also what may be a secret
            steps.append([*limited, f"--output={out}", "HEAD", "--", *paths])
        for step in steps:
            (done,) = process.run_all([step], timeout=_TIME, env=own)
            if done is None or done.code:
                is_large = done is not None and out.stat().st_size >= 2 * _KEPT
                return _TOO_LARGE if is_large else _reason(done.stderr) if done else "git did not end in time"
        return _TOO_LARGE if out.stat().st_size > 2 * _KEPT else out.read_bytes()


_TOO_LARGE = f"it is larger than {2 * _KEPT >> 20} MiB"


def _redacted(patch: bytes, hidden: Mapping[str, str]) -> tuple[bytes, list[str]]:
    """A patch without secrets, and the files that are not in it any more.

    A line that is added may say something else. One that git looks for in the commit may not: that file is left out.
    """
    kept, without = [], []
    for before in re.split(rb"(?m)^(?=diff --git )", patch):
        redactor = Redactor(hidden)
        after = redactor.feed(before) + redactor.rest()
        if b"\nGIT binary patch\n" not in before:
            after = secrets.without_tokens(after.decode("latin-1")).encode("latin-1")
        pairs = zip(before.split(b"\n"), after.split(b"\n"), strict=False)
        if any(one != other and not one.startswith(b"+") for one, other in pairs):
            head = before.partition(b"\n")[0].removeprefix(b"diff --git a/").decode(errors="replace")
            without.append(head[: (len(head) - len(" b/")) // 2])
        else:
            kept.append(after)
    return b"".join(kept), without
