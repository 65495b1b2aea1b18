"""Look at every file of the store, and put what is damaged in order, from the lock."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.build.rebuild import built_beside
from builder.build.script import Script
from builder.embedded.errors import StageError
from builder.embedded.examine import Examined, Problem, examine, look
from builder.embedded.folders import make_writable, remove_path, take_away
from builder.embedded.installed import site_packages
from builder.embedded.manifest import read_manifest
from builder.embedded.stage import put_in_place
from builder.embedded.workers import on_all_cores
from builder.errors import BuildError, DrydockError, UsageError
from builder.files import exchange, hash_of, owner, remove_tree
from builder.names import SOURCE_END
from builder.project.sources import consent
from builder.report import Meter, waiting
from builder.store import generations, roots
from builder.store.layout import Store

if TYPE_CHECKING:
    from builder.report import Reporter


@dataclass(frozen=True)
class Outcome:
    """What came of one environment, or of the shared bytecode: `problems` found, and whether they are mended now."""

    store_name: str
    files: int
    size: int
    problems: Sequence[Problem]
    mended: bool = False

    @property
    def good(self) -> bool:
        """Whether there is nothing wrong with it now."""
        return self.mended or not self.problems

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        problems = [{"path": one.path, "what": one.what} for one in self.problems]
        return {
            "path": self.store_name,
            "files": self.files,
            "size": self.size,
            "problems": problems,
            "good": self.good,
        }


def _damaged_bytecode(bytecode: Path) -> list[Path]:
    """The files of the shared bytecode that do not end with the seal of what is in them and of their names."""
    files = [
        (f"{folder}/{name}", f"{Path(folder).name}{name[:-4]}")
        for folder, _, names in os.walk(bytecode)
        for name in names
        if name.endswith(".pyc")
    ]
    jobs = [(path, f"pyc {digest}") for path, digest in files]
    found = on_all_cores(look, jobs, [20_000] * len(jobs), grain=8_000_000)
    return [Path(path) for (path, _), (what, _) in zip(jobs, found, strict=True) if what]


def verify_store(keys: Sequence[str], report: Reporter, *, repair: bool = False) -> Iterator[Outcome]:
    """Check every file of the environments whose key begins with one of `keys`, else of all, and the shared bytecode.

    With `repair`, a damaged one is built again beside the store and takes its place; where that fails, `report` is told
    why. Raises UsageError for a key that nothing has.
    """
    store = Store.here()
    envs = _chosen(store, keys)
    if not keys or repair:
        damaged = _damaged_bytecode(store.bytecode)
        if repair:
            for path in damaged:
                path.unlink(missing_ok=True)  # compiled again when it is needed
        problems = [Problem(str(path.relative_to(store.home)), "is not whole") for path in damaged]
        if problems:
            yield Outcome("bytecode", len(problems), 0, problems, mended=repair)
        yield from _trainers(store, repair=repair)
        yield from _data(store, repair=repair)
    for env in envs:
        roots.hold(env.name)
    try:
        for found in _examined(envs, report):
            if not found.env.exists():
                continue  # collected meanwhile
            outcome = Outcome(found.env.name, found.files, found.bytes, found.problems)
            if repair and outcome.problems:
                outcome = replace(outcome, mended=_is_rebuilt(found.env, report))
            yield outcome
    finally:
        for env in envs:
            roots.release(env.name)


def _trainers(store: Store, *, repair: bool) -> Iterator[Outcome]:
    """Trainers' own code whose content was changed; with `repair` it is removed, and fetched when it is needed."""
    for path in sorted(store.built.glob(f"*/*{SOURCE_END}")):
        if hash_of(path) != path.parent.name:
            if repair:
                path.unlink(missing_ok=True)
            yield Outcome(path.name, 1, 0, [Problem(str(path), "was changed")], mended=repair)


def _data(store: Store, *, repair: bool) -> Iterator[Outcome]:
    """Files of models and data sets whose content was changed; with `repair` they are removed with the views that have
    them, and fetched by the next start.
    """
    for path in sorted((store.data / "files").glob("*")):
        if re.fullmatch(r"[0-9a-f]{64}", path.name) is None or hash_of(path) == path.name:
            continue
        views = [view for view in (store.data / "views").glob("*-*") if repair and _has(view, path)]
        for one in (*views, path) if repair else ():
            remove_path(one)
        yield Outcome(f"data {path.name[:12]}", 1, 0, [Problem(str(path), "was changed")], mended=repair)


def _has(view: Path, path: Path) -> bool:
    """Whether a file is in a folder, under whatever name."""
    return any(path.samefile(Path(top, name)) for top, _, names in os.walk(view) for name in names)


def _chosen(store: Store, keys: Sequence[str]) -> list[Path]:
    there = [store.path(name) for name in store.names()]
    if not keys:
        return there
    chosen = []
    for key in keys:
        fitting = [path for path in there if path.name.startswith(key.rpartition("/")[2])]
        if not fitting:
            raise UsageError(f"no environment of the store has a key that begins with {key}", hint="drydock store du")
        chosen += fitting
    return sorted(set(chosen))


def _examined(envs: Sequence[Path], report: Reporter) -> list[Examined]:
    """Like `integrity.examine`, where a manifest may be damaged too."""
    unreadable = {}
    for env in envs:
        try:
            read_manifest(env)
            site_packages(env)
        except StageError as error:
            unreadable[env] = Examined(env, 0, 0, [Problem(".drydock/manifest.json", str(error))])
    meter = Meter(report, "checking files")
    whole = [env for env in envs if env not in unreadable]
    with waiting(report, meter.what):
        found = examine(whole, lambda done, of: meter(done, of, is_size=False))
    readable = {each.env: each for each in found}
    return [unreadable.get(env) or readable[env] for env in envs]


def _is_rebuilt(env: Path, report: Reporter) -> bool:
    """Build an environment again; False, and a word to the user, where it cannot be."""
    try:
        _rebuild(env, report)
    except DrydockError as error:
        report.warn(f"{error.message}{f' ({error.hint})' if error.hint else ''}")
        return False
    return True


def _rebuild(env: Path, report: Reporter) -> None:
    """Build an environment again and swap it in.

    uv links files from its cache, so who wrote into one wrote into the other: a build notices that and fetches again.
    """
    if os.geteuid() not in (0, env.stat().st_uid):
        raise DrydockError(
            f"{env.name} belongs to {owner(env)}, and cannot be exchanged by anybody else",
            hint="they repair it: drydock store verify --repair",
        )
    report.step(f"building {env.name} again")
    script = _script_of(env.name)
    try:
        with built_beside(env.name, script, report, share_bytecode=True) as new:
            problems = examine([new])[0].problems
            if problems:
                found = "; ".join(str(problem) for problem in problems[:5])
                raise DrydockError(f"{env.name} is still damaged after a new build: {found}")
            _swap(new, env)
    except BuildError:
        if script.path.exists():
            raise
        _rebuild(env, report)  # somebody deleted that generation meanwhile: another script has the key, or none


def _swap(new: Path, env: Path) -> None:
    """Put `new` in the place of `env`: in one step where the system has it, for trainers that run there."""
    make_writable(env)
    new.chmod(0o755)
    if exchange(new, env):
        env.chmod(0o555)
        return
    old = env.with_name(f".trash-{time.time_ns()}")
    if env.exists():
        take_away(env, old)
    put_in_place(new, env)
    remove_tree(old)


def _script_of(store_name: str) -> Script:
    """A script that builds `store_name`: of a generation, or one that was run. Raises DrydockError."""
    scripts = [one.script for one in generations.of_store_name(store_name)]
    scripts += [script for name, script in roots.scripts() if name == store_name]
    key = store_name.partition("-")[0]
    for script in scripts:
        if roots.is_of(script, key):
            return Script(script, consent.of_environment(store_name))
    name = store_name.partition("-")[2]
    raise DrydockError(
        f"{store_name} cannot be built again: no generation and no script has this key",
        hint=f"drydock build {name}, or delete it: drydock store gc",
    )
