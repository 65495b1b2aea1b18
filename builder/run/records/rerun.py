"""Run again what was run: the recorded script and lock, the code in a folder of its own, the arguments as they were.

All that cannot be had is found before anything starts. Neither the profile nor the environment has to be there any
more: the record has the script, which builds the environment of the same key.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from builder import process, secrets
from builder.build.script import Script, build_script
from builder.embedded import git, state
from builder.errors import DrydockError, ToolError, UsageError
from builder.files import beside
from builder.project.sources import consent
from builder.run.records import folder
from builder.run.records.begin import begin
from builder.run.records.caller import as_it_was
from builder.run.records.code import DIRTY, MADE, SUBMODULES
from builder.store import roots
from builder.store.layout import Store

if TYPE_CHECKING:
    from builder.report import Reporter

_GIT = ["git", "--no-pager", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false"]


_IGNORED = 1000
_POINTER = 1024  # bytes of a file of git-lfs without its content, at most


class Submodule(NamedTuple):
    """A submodule: where in the code, which commit, and the repository on this disk that has it."""

    path: str
    commit: str
    source: Path


@dataclass(frozen=True)
class Again:
    """What a rerun is made of: `script` runs it, `code` is the repository with its `commit` and `patch`, if it has one.

    `submodules` are those that were checked out. `inside` is where in the repository the run was started. `lacks` is
    what cannot be had, in words; `ignored` are files beside the code that git ignores: the trainer may have read them.
    """

    record: folder.Record
    script: Path
    code: Path | None = None
    commit: str = ""
    patch: bytes | None = None
    submodules: Sequence[Submodule] = ()
    inside: Path = Path()
    lacks: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    @property
    def lacks_commit(self) -> bool:
        """Whether the commit of its code is known, and not where it was."""
        return self.code is None and bool((self.record.get("code") or {}).get("commit"))

    def as_json(self) -> dict[str, Any]:
        """It in plain JSON types."""
        return {
            "run": self.record["id"],
            "store-name": self.record["store-name"],
            "arguments": self.record["arguments"],
            "code": None if self.code is None else str(self.code),
            "commit": self.commit or None,
            "submodules": [{"path": one.path, "commit": one.commit} for one in self.submodules],
            "lacks": self.lacks,
            "ignored": self.ignored,
        }


def prepare(word: str, repository: Path | None = None) -> Again:
    """Find what a rerun of the run that `word` means needs; starts nothing.

    The code is that of `repository`, or else of the recorded one, or of a remote of it on this disk.
    Raises DrydockError where there is no such run, or its script was not kept.
    """
    record = folder.completed(folder.find(word).id)
    name = (record.get("script") or {}).get("object", "")
    if folder.read_object(name) is None:
        raise DrydockError(f"the script of run {record['id']} was not kept, or is damaged")
    lacks = []
    if "***" in "".join(record["arguments"]) or any(
        f"[{one}]" in text for one in _names(record) for text in record["arguments"]
    ):
        lacks.append(f"an argument that was a secret: {shlex.join(record['arguments'])}")
    there, names = secrets.environment([])
    hidden = [one for one in _names(record) if not there.get(one)]
    lacks += [
        f"{one}, which is not set now" for one in (*hidden, *as_it_was(record.get("environment"), there, names)[2])
    ]
    if fleet := record.get("fleet"):
        lacks.append(f"its hosts: it ran on {', '.join(fleet['hosts'])}, and would run on this machine alone")
    found = {"record": record, "script": folder.place() / "objects" / name}
    return Again(**found, **_code(record, repository, lacks), lacks=lacks, ignored=_ignored(record))


def _names(record: Mapping[str, Any]) -> list[str]:
    names = record.get("secrets")
    return [one for one in names if isinstance(one, str)] if isinstance(names, list) else []


def _code(record: Mapping[str, Any], repository: Path | None, lacks: list[str]) -> dict[str, Any]:
    """Where the code comes from; what of it cannot be had is added to `lacks`."""
    code = record.get("code") or {"why": "it was not recorded"}
    if not code.get("commit"):
        lacks.append(f"its code: {code.get('why', 'nothing was committed')}")
        return {}
    top, commit = Path(str(code.get("folder", ""))), str(code["commit"])
    remotes = code.get("remotes") or {}
    own = [top, *(Path(str(one)) for one in [code.get("repository")] if one)]
    places = [*own, *(_on_this_disk(top, url) for url in remotes.values())] if repository is None else [repository]
    try:
        source = next((place for place in places if place is not None and _has(place, commit)), None)
    except ToolError as error:
        lacks.append(f"its code: {error.message}")
        return {}
    if source is None:
        lacks.append(f"its code: {places[0]} has no commit {commit} any more{_cloned(remotes)}")
        return {}
    started = Path(str(record.get("folder", "")))
    inside = started.relative_to(top) if started.is_relative_to(top) else Path()
    patch = _patch(code, lacks)
    submodules = _submodules(code, source, lacks)
    return {"code": source, "commit": commit, "inside": inside, "patch": patch, "submodules": submodules}


def _ignored(record: Mapping[str, Any]) -> list[str]:
    """What git ignores in the folder of the code, as far as it is there, but for what programs make again."""
    folder_ = str((record.get("code") or {}).get("folder", ""))
    if not Path(folder_, ".git").exists():
        return []
    ask = ["-C", folder_, "ls-files", "--others", "--ignored", "--exclude-standard", "--directory", "-z"]
    try:
        done = _git(ask)
    except ToolError:
        return []
    return [name for name in done.stdout.split("\0")[:-1] if not MADE.search(name)][:_IGNORED]


def _on_this_disk(top: Path, url: str) -> Path | None:
    """The folder that the URL of a remote of `top` names; None where it names no folder."""
    if "://" in url and not url.startswith("file://"):
        return None
    place = top / url.removeprefix("file://")
    return place if place.is_dir() else None


def _has(repository: Path, commit: str) -> bool:
    """Whether a folder is a repository, by itself and not within another, that has a commit. Raises ToolError."""
    if not repository.is_dir():
        return False
    # A repository of a submodule names a working tree that may be gone, which git would refuse.
    ask = ["-C", str(repository), "--work-tree=.", "cat-file", "-e", f"{commit}^{{commit}}"]
    return _git(ask, ceiling=repository.resolve().parent).code == 0


def _submodules(code: Mapping[str, Any], source: Path, lacks: list[str]) -> list[Submodule]:
    """The submodules of a run, from the repository `source`, or the recorded one; what is gone is added to `lacks`."""
    found = []
    rows = code.get("submodules") or ()
    for row in rows:
        path, commit, top = row["path"], row["commit"], Path(str(code["folder"])) / row["path"]
        inside = PurePosixPath(path)
        if inside.is_absolute() or {"..", ".git"} & {*inside.parts} or not re.fullmatch(r"[0-9a-f]{40,64}", commit):
            lacks.append(f"submodule {path}: it is not recorded as git has one")
            continue
        # Kept in the repository of the code, also where its working tree is gone.
        kept = source / ".git/modules" / "/modules/".join(_levels(path, rows))
        remotes = (_on_this_disk(top, url) for url in row["remotes"].values())
        place = next((one for one in (source / path, kept, top, *remotes) if one and _has(one, commit)), None)
        if place is None:
            lacks.append(f"submodule {path}: {top} has no commit {commit} any more{_cloned(row['remotes'])}")
        else:
            found.append(Submodule(path, commit, place))
    if len(rows) >= SUBMODULES:
        lacks.append(f"submodules after the first {SUBMODULES}")
    return found


def _cloned(remotes: Mapping[str, str]) -> str:
    return "; it was cloned from " + ", ".join(remotes.values()) if remotes else ""


def _levels(path: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The parts of a submodule's path, one for each submodule on the way.

    >>> [*_levels("a/b/c", [{"path": "a/b"}, {"path": "a/b/c"}])]
    ['a/b', 'c']
    """
    begin = 0
    for end in sorted(len(row["path"]) for row in rows if f"{path}/".startswith(f"{row['path']}/")):
        yield path[begin:end]
        begin = end + 1


def _patch(code: Mapping[str, Any], lacks: list[str]) -> bytes | None:
    """What differed from the commit."""
    if not code["differs"]:
        return None
    difference = code.get("difference") or {}
    patch = folder.read_object(difference.get("object", ""))
    if patch is None:
        lacks.append(f"what differed from its commit: {difference.get('why', 'it is gone')}")
    else:
        left = [one["path"] for one in (*code["changed"], *code["untracked"]) if one.get("why")]
        lacks += [f"files that were not kept: {', '.join(left[:5])}"] if left else []
        without = [str(one) for one in difference.get("without") or ()]
        lacks += [f"what differed in {', '.join(without[:5])}, where there is a secret"] if without else []
        lacks += ["a secret that was in its code"] if difference.get("redacted") and not without else []
    # Another commit of a submodule can be had: what differs in it was not kept.
    for path, how in ((one["path"], str(one.get("how"))) for one in code["changed"] if not one.get("late")):
        if DIRTY.search(how):
            lacks.append(f"what differed from the commit of submodule {path}")
        elif " SC" in how and all(row["path"] != path for row in code.get("submodules") or ()):
            lacks.append(f"submodule {path}: which commit it had was not recorded")
    return patch


def environment_of(record: Mapping[str, Any], report: Reporter) -> tuple[dict[str, str], list[str]]:
    """The environment for a trainer that is run again, with what was exported then, and the names of its secrets.

    Says what that changes. Raises DrydockError as `secrets.environment` does.
    """
    environ, names = secrets.environment(record["arguments"])
    environ, changed, _ = as_it_was(record.get("environment"), environ, names)
    if changed:
        report.step(f"as it was exported then: {', '.join(changed)}")
    return environ, names


def rerun(again: Again, target: Path, report: Reporter) -> NoReturn:
    """Build the environment of a run where it is not there, bring its code into the new folder `target`, become it.

    Raises DrydockError; then `target` is not there.
    """
    record = again.record
    store_name = record["store-name"]
    where = target.absolute() / again.inside
    script = Script(again.script, consent.of_run(store_name), where)
    if os.path.lexists(target):
        raise UsageError(f"{target} already exists", hint="move it away, or name another folder: --into")
    if not Store.here().is_built(store_name) or Store.here().lacks_data(again.script):
        build_script(record["name"], script, report)
    bring(again, target.absolute())
    if found := pointers(target):
        report.warn(f"git-lfs did not bring the content of {', '.join(found[:5])}: install it; there: git lfs pull")
    report.step(f"run {record['id']} again, in {target}")
    words = [] if record["command"] == "train" else [record["command"]]
    environment, names = environment_of(record, report)
    os.chdir(where)
    environment["PWD"] = str(where)
    lock = (record.get("lock") or {}).get("object")
    roots.hold(store_name)
    begin(
        record["name"],
        record["command"],
        record["arguments"],
        store_name=store_name,
        generation=record.get("generation", 0),
        script=script.command("--print-env"),
        script_path=again.script,
        lock=folder.place() / "objects" / lock if lock else None,
        project=where,
        environment=environment,
        names=names,
        of=record["id"],
        warn=report.warn,
    )
    process.replace(script.command(*words, "--", *record["arguments"]), environment)


def bring(again: Again, target: Path) -> None:
    """Make `target` a clone with the commit and what differed from it, whole or not at all.

    Where the code was not recorded it is an empty folder. Raises ToolError where git cannot do it, and OSError.
    """
    new = beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if again.code is None:
            new.mkdir()
        else:
            _checked(["clone", "--quiet", "--no-checkout", "--template=", "--", str(again.code), str(new)])
            _checked(["-C", str(new), "checkout", "--quiet", "--detach", again.commit])
            if again.patch:
                patch = new / ".git" / "difference"
                patch.write_bytes(again.patch)
                _checked(["-C", str(new), "apply", "--whitespace=nowarn", str(patch)])
            for submodule in again.submodules:
                _bring_submodule(submodule, new)
        (new / again.inside).mkdir(parents=True, exist_ok=True)
        new.rename(target)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def pointers(target: Path) -> list[str]:
    """The files of a checkout that are those of git-lfs, and have only where it keeps their content."""
    done = _git(["-C", str(target), "ls-files", "-z", "--", ":(top,attr:filter=lfs)"])
    names = done.stdout.split("\0")[:-1] if not done.code else []
    begin = b"version https://git-lfs.github.com/spec/"
    return [one for one in names if (state.read_bytes(target / one, _POINTER) or b"").startswith(begin)]


def _bring_submodule(submodule: Submodule, new: Path) -> None:
    """Check a submodule out in the empty folder that git has made for it; raises as `bring`."""
    place = new / submodule.path
    if not place.resolve().is_relative_to(new.resolve()) or not place.is_dir() or any(place.iterdir()):
        raise ToolError(f"submodule {submodule.path} cannot be brought: {place} is not an empty folder")
    source = str(submodule.source.absolute())
    _checked(["clone", "--quiet", "--no-checkout", "--template=", "--", source, str(place)])
    _checked(["-C", str(place), "checkout", "--quiet", "--detach", submodule.commit])


def _checked(words: list[str]) -> None:
    done = _git(words)
    if done.code:
        said = done.stderr.strip().splitlines() or ["git does not say why"]
        raise ToolError(f"the code cannot be brought: {said[0].removeprefix('fatal: ')}")


def _git(words: list[str], ceiling: Path | None = None) -> process.Done:
    """Run git on repositories of this disk; above the folder `ceiling` it looks for none. Raises ToolError."""
    environ = {key: value for key, value in os.environ.items() if key not in git.PLACES}
    environ |= {"GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "file", "LC_ALL": "C"}
    environ |= {} if ceiling is None else {"GIT_CEILING_DIRECTORIES": str(ceiling)}
    return process.run([*_GIT, *words], env=environ)
