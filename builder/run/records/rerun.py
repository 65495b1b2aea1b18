"""Run again what was run: the recorded script and lock, the code in a folder of its own, the arguments as they were.

All that cannot be had is found before anything starts. Neither the profile nor the environment has to be there any
more: the record has the script, which builds the environment of the same key.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from builder import process, secrets
from builder.build.script import Script, build_script
from builder.embedded import git
from builder.errors import DrydockError, ToolError, UsageError
from builder.files import beside
from builder.project.sources import consent
from builder.run.records import folder
from builder.run.records.begin import begin
from builder.store import roots
from builder.store.layout import Store

if TYPE_CHECKING:
    from builder.report import Reporter

_GIT = ["git", "--no-pager", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false"]


@dataclass(frozen=True)
class Again:
    """What a rerun is made of: `script` runs it, `code` is the repository with its `commit` and `patch`, if it has one.

    `inside` is where in the repository the run was started. `lacks` is what cannot be had, in words.
    """

    record: folder.Record
    script: Path
    code: Path | None = None
    commit: str = ""
    patch: bytes | None = None
    inside: Path = Path()
    lacks: list[str] = field(default_factory=list)


def prepare(word: str) -> Again:
    """Find what a rerun of the run that `word` means needs; starts nothing.

    Raises DrydockError where there is no such run, or its script was not kept.
    """
    record = folder.read(folder.find(word).id)
    name = (record.get("script") or {}).get("object", "")
    if folder.kept(name) is None:
        raise DrydockError(f"the script of run {record['id']} was not kept, or is damaged")
    lacks = []
    if "***" in "".join(record["arguments"]) or any(
        f"[{one}]" in text for one in _names(record) for text in record["arguments"]
    ):
        lacks.append(f"an argument that was a secret: {shlex.join(record['arguments'])}")
    there, _ = secrets.environment([])
    lacks += [f"{one}, which is not set now" for one in _names(record) if not there.get(one)]
    found = {"record": record, "script": folder.place() / "objects" / name}
    return Again(**found, **_code(record, lacks), lacks=lacks)


def _names(record: Mapping[str, Any]) -> list[str]:
    names = record.get("secrets")
    return [one for one in names if isinstance(one, str)] if isinstance(names, list) else []


def _code(record: Mapping[str, Any], lacks: list[str]) -> dict[str, Any]:
    """Where the code comes from; what of it cannot be had is added to `lacks`."""
    code = record.get("code") or {"why": "it was not recorded"}
    if not code.get("commit"):
        lacks.append(f"its code: {code.get('why', 'nothing was committed')}")
        return {}
    top, commit = Path(str(code.get("folder", ""))), str(code["commit"])
    try:
        known = _git(["-C", str(top), "cat-file", "-e", f"{commit}^{{commit}}"]).code == 0
    except ToolError as error:
        lacks.append(f"its code: {error.message}")
        return {}
    if not known:
        lacks.append(f"its code: {top} has no commit {commit} any more")
        return {}
    started = Path(str(record.get("folder", "")))
    inside = started.relative_to(top) if started.is_relative_to(top) else Path()
    return {"code": top, "commit": commit, "inside": inside, "patch": _patch(code, lacks)}


def _patch(code: Mapping[str, Any], lacks: list[str]) -> bytes | None:
    """What differed from the commit."""
    if not code["differs"]:
        return None
    difference = code.get("difference") or {}
    patch = folder.kept(difference.get("object", ""))
    if patch is None:
        lacks.append(f"what differed from its commit: {difference.get('why', 'it is gone')}")
    else:
        left = [one["path"] for one in (*code["changed"], *code["untracked"]) if one.get("why")]
        lacks += [f"files that were not kept: {', '.join(left[:5])}"] if left else []
        lacks += ["a secret that was in its code"] if difference.get("redacted") else []
    lacks += [f"submodule {one['path']}" for one in code["changed"] if " S" in str(one.get("how"))]
    return patch


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
    data = Store.here().data_of(again.script)
    if not Store.here().is_built(store_name) or (data is not None and not data.is_dir()):
        build_script(record["name"], script, report)
    bring(again, target.absolute())
    report.step(f"run {record['id']} again, in {target}")
    words = [] if record["command"] == "train" else [record["command"]]
    environment, names = secrets.environment(record["arguments"])
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
        (new / again.inside).mkdir(parents=True, exist_ok=True)
        new.rename(target)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _checked(words: list[str]) -> None:
    done = _git(words)
    if done.code:
        said = done.stderr.strip().splitlines() or ["git does not say why"]
        raise ToolError(f"the code cannot be brought: {said[0].removeprefix('fatal: ')}")


def _git(words: list[str]) -> process.Done:
    environ = {key: value for key, value in os.environ.items() if key not in git.PLACES}
    environ |= {"GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "file", "LC_ALL": "C"}
    return process.run([*_GIT, *words], env=environ)
