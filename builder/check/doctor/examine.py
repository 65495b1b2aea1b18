"""The whole examination: facts are gathered here, and judged in the other modules of this folder."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from builder import process
from builder.check.doctor import facts, files, hardware, network, resources, wheels
from builder.check.doctor.diagnosis import Diagnosis
from builder.errors import DrydockError
from builder.files import read_regular
from builder.lock.builds import kernels_of
from builder.lock.model import Lock
from builder.machine import Machine
from builder.names import stem
from builder.profile.model import Profile
from builder.project import generated
from builder.project.catalogue import Catalogue, Entry
from builder.script.plan import Plan
from builder.store.layout import Store

if TYPE_CHECKING:
    from builder.report import Reporter


@dataclass(frozen=True)
class Examination:
    """The checks of the profile `name`, the most important first."""

    name: str
    diagnoses: list[Diagnosis]


def examine(
    name: str,
    catalogue: Catalogue,
    machine: Machine,
    report: Reporter,
    *,
    ask_network: bool = False,
    full: bool = False,
    timeout: float = facts.TIMEOUT,
) -> Examination:
    """Check this `machine` against the profile `name`.

    `ask_network` asks the indexes, `full` verifies the environment; nothing is written or changed but for the
    caches of evaluations and of checks of generated files. `timeout` is for the programs that are asked, in seconds.
    Raises ProfileError where the profile itself cannot be read.
    """
    entry = catalogue.entry(name)
    profile = entry.profile
    here = hardware.is_here(profile.target, machine)
    locked = _read_lock(entry)
    plan = locked.plan
    built = facts.built(name, plan.store_name, plan.lock) if plan is not None and here else None
    asked = here and not profile.python.standalone  # which is no Python of this machine's
    wanted = profile.python.version if asked and not (built is not None and built.usable) else None
    env = Store.here().path(built.store_name) if here and built is not None and built.usable else None
    programs = _Programs(wanted, env, mac=machine.system == "Darwin", network=ask_network, timeout=timeout)
    found: list[Diagnosis | None] = [hardware.platform(profile, machine)]
    after = [
        files.lock(name, locked.lock, locked.problem),
        _generated(entry, locked),
        *(_built(name, catalogue, locked, built, report, full=full) if here else ()),
        *_settings(entry, machine if here else None),
        _accelerate(catalogue, profile, locked.lock),
        resources.clock(
            profile,
            facts.made(name, entry.lock_path, plan.store_name if plan is not None else None),
            datetime.now(UTC),
        ),
    ]
    told = programs.told()
    if here:
        found += _machine(profile, locked.lock, machine, told, built)
    found += after
    found += _indexes(profile, locked.lock, told, report, ask_network=ask_network)
    return Examination(name, [one for one in found if one is not None])


class _Programs:
    """Programs that answer questions while other checks go on."""

    def __init__(self, python: str | None, env: Path | None, *, mac: bool, network: bool, timeout: float) -> None:
        self._told = facts.Told()
        self._timeout = timeout

        def ask() -> None:
            self._told = facts.told(python, env=env, mac=mac, network=network, timeout=timeout)

        self._thread = threading.Thread(target=ask, daemon=True)
        self._thread.start()

    def told(self) -> facts.Told:
        """Wait for the answers."""
        self._thread.join(self._timeout + 1)
        return self._told


@dataclass(frozen=True)
class _Locked:
    """A lock, as far as it can be read, and its plan where it is fresh; else the `problem`."""

    lock: Lock | None = None
    plan: Plan | None = None
    problem: DrydockError | None = None


def _read_lock(entry: Entry) -> _Locked:
    lock = None
    try:
        lock = entry.lock
        return _Locked(lock, entry.plan)
    except DrydockError as error:
        return _Locked(lock, problem=error)


def _machine(
    profile: Profile, lock: Lock | None, machine: Machine, told: facts.Told, built: files.Built | None
) -> Iterator[Diagnosis | None]:
    packages = lock.packages if lock is not None else []
    env = Store.here().path(built.store_name) if built is not None and built.usable else None
    yield hardware.translation(machine)
    yield hardware.chip(profile.target, machine)
    yield hardware.gpu(profile.target, machine)
    yield hardware.system(profile, wheels.system_need(packages), machine)
    yield hardware.cuda(profile.target, wheels.cuda_need(packages), machine)
    recorded = Store.here().architectures(env.name) if env is not None else ()
    yield hardware.kernels(profile.target, kernels_of(profile.target, packages, recorded), machine)
    yield hardware.gpu_memory(profile.target, machine)
    yield hardware.hidden(profile.target, told.visible_gpus)
    yield hardware.unused(profile.target, machine)
    yield hardware.compiler(packages, told.tools, machine)
    yield hardware.wired(machine)
    yield hardware.memory(profile, packages, machine)
    home, problem = facts.home()
    yield resources.store(home, problem, writable=facts.is_writable(home), built=env is not None)
    folds = facts.folds_case(home)
    clash = facts.case_clash(profile, lock) if folds and lock is not None else None
    yield from resources.place(home, facts.lacks(home), folds=folds, clash=clash)
    yield resources.cache(told.cache, writable=facts.is_writable(told.cache))
    if lock is not None and home is not None:
        store, cache = facts.place(home), facts.place(told.cache)
        yield from resources.disk(lock.size, store, cache, built=env is not None, linked=facts.links())
    if profile.python.standalone and lock is not None and lock.python is not None:
        yield resources.standalone(lock.python, facts.standalone(lock.python), told.interpreter)
    elif not profile.python.standalone:
        yield resources.python(profile.python.version, profile.target, told.interpreter)


def _generated(entry: Entry, locked: _Locked) -> Diagnosis:
    folder, problem = Path("generated") / stem(entry.name), None
    if folder.is_dir() and locked.plan is not None:
        try:
            generated.check_again(entry, folder)
        except DrydockError as error:
            problem = error
    return files.generated(entry.name, folder, there=folder.is_dir(), fresh=locked.plan is not None, problem=problem)


def _built(
    name: str, catalogue: Catalogue, locked: _Locked, built: files.Built | None, report: Reporter, *, full: bool
) -> Iterator[Diagnosis | None]:
    yield files.environment(name, built)
    yield files.patches(locked.lock.patches if locked.lock is not None else [], built)
    if not full:
        return
    if built is not None and built.usable:
        yield from _verified(name, catalogue, report)
    else:
        yield Diagnosis("verify", "skipped", "nothing is built")


def _verified(name: str, catalogue: Catalogue, report: Reporter) -> Iterator[Diagnosis]:
    """Yield the results of `drydock verify` for the environment of the lock."""
    from builder.build.script import script_of

    fix = "drydock store verify --repair"
    try:
        with report.busy(f"verifying {name}"):
            done = process.run(script_of(name, catalogue).command("--verify"))
    except DrydockError as error:
        yield Diagnosis("verify", "fail", error.message, "", error.hint or fix)
        return
    lines = re.findall(r"^(ok  |FAIL) (.+?): (.*)$", done.stdout, re.MULTILINE)
    for state, what, found in lines:
        good = state != "FAIL"
        yield Diagnosis(f"verify {what}", "ok" if good else "fail", found, "", "" if good else fix)
    if done.code and all(state != "FAIL" for state, _, _ in lines):
        last = (done.stderr or done.stdout).strip().rpartition("\n")[2]
        yield Diagnosis("verify", "fail", last or f"exit status {done.code}, and no output", "", fix)


def _settings(entry: Entry, machine: Machine | None) -> Iterator[Diagnosis]:
    profile, unlimited = entry.profile, entry.profile.unlimited
    where = entry.resolved.where("env", unlimited) if unlimited is not None else None
    return files.settings(profile, entry.warnings(), where, machine)


def _accelerate(catalogue: Catalogue, profile: Profile, lock: Lock | None) -> Diagnosis | None:
    version = lock.versions().get("accelerate") if lock is not None else None
    if version is None or not files.has_empty_loader(version):
        return None
    return files.accelerate(profile, version, list(_repaired(catalogue, profile)))


def _repaired(catalogue: Catalogue, profile: Profile) -> Iterator[str]:
    """Other profiles for the same kind of machine whose accelerate needs no patch."""
    kind = (profile.target.platform, profile.target.accelerator)
    for name in catalogue.names():
        try:
            # A text is searched in a tenth of the time that a profile takes to be read.
            version = facts.locked_version(_text(catalogue.lock_path(name)), "accelerate")
            if version is None or name == profile.name or files.has_empty_loader(version):
                continue
            own = _text(catalogue.path(name))
            target = catalogue.target(name) if all(word in own for word in kind) else None
        except (DrydockError, OSError, UnicodeDecodeError):
            continue  # theirs to fix
        if target is not None and (target.platform, target.accelerator) == kind:
            yield name


def _text(path: Path) -> str:
    return read_regular(path).decode("utf-8")


def _indexes(
    profile: Profile, lock: Lock | None, told: facts.Told, report: Reporter, *, ask_network: bool
) -> Iterator[Diagnosis]:
    if not ask_network:
        yield Diagnosis("indexes", "skipped", "not asked; --network does")
        return
    yield from network.settings()
    if lock is None:
        yield Diagnosis("indexes", "skipped", "without a lock there is nothing to ask for")
        return
    indexes = facts.indexes(profile, lock, told.default_index)
    asked = [one for one in indexes if not one.local and network.is_remote(one.url)]
    if facts.is_offline():
        yield Diagnosis("indexes", "skipped", "not asked: --offline, or UV_OFFLINE")
        return
    with report.busy("asking the indexes"):
        answers = dict(zip(asked, network.ask(asked), strict=True))
        verdicts = dict(zip(asked, network.ask_uv(asked, profile), strict=True))
    for one in indexes:
        yield network.index(one, answers.get(one), verdicts.get(one))
    if asked:
        peers = any(package.name == "hivemind" for package in lock.packages)
        yield network.clock(list(answers.values()), peers=peers)
