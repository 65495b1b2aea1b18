"""The whole examination: facts are gathered here, and judged in the other modules of this folder."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from builder import process
from builder.check.doctor import facts, files, hardware, network, resources, wheels
from builder.check.doctor.diagnosis import Diagnosis
from builder.errors import DrydockError
from builder.files import read_regular
from builder.lock.outline import Outline, Package, load
from builder.machine import Machine
from builder.names import stem
from builder.project.catalogue import Catalogue, Entry
from builder.project.evaluate import remembered
from builder.store.layout import Store

if TYPE_CHECKING:
    from builder.profile.architectures import Kernels
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
    known = _known(entry, catalogue)
    profile, fresh = known.profile, known.store_name
    here = hardware.is_here(profile.target, machine)
    built = facts.built(name, fresh, profile.lock) if fresh is not None and profile.lock is not None and here else None
    asked = here and not profile.standalone  # which is no Python of this machine's
    wanted = profile.python if asked and not (built is not None and built.usable) else None
    env = Store.here().path(built.store_name) if here and built is not None and built.usable else None
    programs = _Programs(wanted, env, mac=machine.system == "Darwin", network=ask_network, timeout=timeout)
    found: list[Diagnosis | None] = [hardware.platform(profile, machine)]
    after = [
        files.lock(name, profile.lock, known.problem),
        _generated(entry, fresh=fresh is not None),
        *(_built(name, catalogue, profile, built, report, full=full) if here else ()),
        *files.settings(profile, machine if here else None),
        _accelerate(catalogue, profile),
        resources.clock(profile, facts.times_made(name, entry.lock_path, fresh), datetime.now(UTC)),
    ]
    answers = programs.answers()
    if here:
        found += _machine(entry, profile, machine, answers, built)
    found += after
    found += _indexes(entry, profile, answers, report, ask_network=ask_network)
    return Examination(name, [one for one in found if one is not None])


class _Programs:
    """Programs that answer questions while other checks go on."""

    def __init__(self, python: str | None, env: Path | None, *, mac: bool, network: bool, timeout: float) -> None:
        self._answers = facts.Answers()
        self._timeout = timeout

        def ask() -> None:
            self._answers = facts.ask_programs(python, env=env, mac=mac, network=network, timeout=timeout)

        self._thread = threading.Thread(target=ask, daemon=True)
        self._thread.start()

    def answers(self) -> facts.Answers:
        """Wait for the answers."""
        self._thread.join(self._timeout + 1)
        return self._answers


@dataclass(frozen=True)
class _Known:
    """A profile, and the name of its store path where its lock is fresh; else the `problem`."""

    profile: Outline
    store_name: str | None = None
    problem: DrydockError | None = None


def _known(entry: Entry, catalogue: Catalogue) -> _Known:
    """What is remembered of a profile that was evaluated as it is; else what its files say. Raises ProfileError."""
    with suppress(DrydockError):  # there is no home
        found = remembered(entry.name, catalogue)
        profile = load(found.outline) if found is not None else None
        if found is not None and profile is not None:
            return _Known(profile, found.store_name)
    profile = entry.outline
    try:
        return _Known(profile, entry.plan.store_name)
    except DrydockError as error:
        return _Known(profile, problem=error)


def _machine(
    entry: Entry, profile: Outline, machine: Machine, answers: facts.Answers, built: files.Built | None
) -> Iterator[Diagnosis | None]:
    lock = profile.lock
    packages = lock.packages if lock is not None else []
    env = Store.here().path(built.store_name) if built is not None and built.usable else None
    yield hardware.translation(machine)
    yield hardware.chip(profile.target, machine)
    yield hardware.gpu(profile.target, machine)
    yield hardware.system(profile, wheels.system_need(packages), machine)
    yield hardware.cuda(profile.target, wheels.cuda_need(packages), machine)
    yield hardware.kernels(profile.target, _kernels(profile, packages, env), machine)
    yield hardware.gpu_memory(profile.target, machine)
    yield hardware.hidden(profile.target, answers.visible_gpus)
    yield hardware.unused(profile.target, machine)
    yield hardware.compiler(packages, answers.tools, machine)
    yield hardware.wired(machine)
    yield hardware.memory(profile, packages, machine)
    home, problem = facts.home()
    yield resources.store(home, problem, writable=facts.is_writable(home), built=env is not None)
    folds = facts.folds_case(home)
    # What is built there has come through.
    clash = facts.case_clash(entry) if folds and lock is not None and env is None else None
    yield from resources.place(home, facts.lacks(home), folds=folds, clash=clash)
    yield resources.cache(answers.cache, writable=facts.is_writable(answers.cache))
    if lock is not None and home is not None:
        store, cache = facts.place(home), facts.place(answers.cache)
        yield from resources.disk(lock.size, store, cache, built=env is not None, linked=facts.links())
    if profile.standalone and lock is not None and lock.python is not None:
        yield resources.standalone(lock.python, facts.standalone(lock.python), answers.interpreter)
    elif not profile.standalone:
        yield resources.python(profile.python, profile.target, answers.interpreter)


def _kernels(profile: Outline, packages: Sequence[Package], env: Path | None) -> Kernels | None:
    if profile.target.accelerator != "cuda":
        return None
    from builder.lock.cuda import kernels_of

    recorded = Store.here().architectures(env.name) if env is not None else ()
    return kernels_of(profile.target.machine, packages, recorded)


def _generated(entry: Entry, *, fresh: bool) -> Diagnosis:
    folder, problem = Path("generated") / stem(entry.name), None
    if folder.is_dir() and fresh:
        from builder.project import generated

        try:
            generated.check_again(entry, folder)
        except DrydockError as error:
            problem = error
    return files.generated(entry.name, folder, there=folder.is_dir(), fresh=fresh, problem=problem)


def _built(
    name: str, catalogue: Catalogue, profile: Outline, built: files.Built | None, report: Reporter, *, full: bool
) -> Iterator[Diagnosis | None]:
    yield files.environment(name, built)
    yield files.patches(profile.lock.patches if profile.lock is not None else [], built)
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


def _accelerate(catalogue: Catalogue, profile: Outline) -> Diagnosis | None:
    version = profile.lock.version("accelerate") if profile.lock is not None else None
    if version is None or not files.has_empty_loader(version):
        return None
    return files.accelerate(profile, version, list(_repaired(catalogue, profile)))


def _repaired(catalogue: Catalogue, profile: Outline) -> Iterator[str]:
    """Other profiles for the same kind of machine whose accelerate needs no patch."""
    kind = (profile.target.platform, profile.target.accelerator)
    for name in catalogue.names():
        try:
            # A text is searched in a tenth of the time that a profile takes to be read.
            version = facts.locked_version(_text(catalogue.lock_path(name)), "accelerate")
            if version is None or name == profile.name or files.has_empty_loader(version):
                continue
            own = _text(catalogue.path(name))
            if all(word in own for word in kind) and _kind(own) == kind:
                yield name
        except (DrydockError, OSError, ValueError):
            continue  # theirs to fix


def _kind(text: str) -> tuple[str | None, str | None]:
    """The platform and the accelerator of a profile, by its text: the model takes longer. Raises ValueError."""
    import tomllib

    target = tomllib.loads(text).get("target", {})
    return target.get("platform"), target.get("accelerator")


def _text(path: Path) -> str:
    return read_regular(path).decode("utf-8")


def _indexes(
    entry: Entry, profile: Outline, answers: facts.Answers, report: Reporter, *, ask_network: bool
) -> Iterator[Diagnosis]:
    if not ask_network:
        yield Diagnosis("indexes", "skipped", "not asked; --network does")
        return
    yield from network.settings()
    if profile.lock is None:
        yield Diagnosis("indexes", "skipped", "without a lock there is nothing to ask for")
        return
    indexes = facts.indexes(entry, answers.default_index)
    asked = [one for one in indexes if not one.local and network.is_remote(one.url)]
    if facts.is_offline():
        yield Diagnosis("indexes", "skipped", "not asked: --offline, or UV_OFFLINE")
        return
    with report.busy("asking the indexes"):
        replies = dict(zip(asked, network.ask(asked), strict=True))
        verdicts = dict(zip(asked, network.ask_uv(asked, entry.profile), strict=True))
    for one in indexes:
        yield network.index(one, replies.get(one), verdicts.get(one))
    if asked:
        peers = any(package.name == "hivemind" for package in profile.lock.packages)
        yield network.clock(list(replies.values()), peers=peers)
