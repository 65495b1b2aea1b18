"""Start a supervised run: from a profile to the request that the supervisor reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from builder import secrets
from builder.errors import BuildError
from builder.run.start import current_script, record_run
from builder.store import generations, roots
from builder.store.layout import Store

if TYPE_CHECKING:
    from builder.embedded.resume import Resume
    from builder.machine import Machine
    from builder.project.catalogue import Catalogue, Entry
    from builder.report import Reporter
    from builder.run.supervise.policy import Guard, Policy


def supervise(
    name: str, arguments: Sequence[str], catalogue: Catalogue, report: Reporter, *, quiet: bool = False
) -> NoReturn:
    """Become the supervisor of the trainer of `name`, built first where it never was.

    Raises DrydockError where `name` is supervised already.
    """
    from builder.run.supervise import runs

    environment, names = secrets.environment(arguments)
    entry = catalogue.entry(name)
    profile = entry.profile
    script = current_script(name, catalogue, report, to_run=True)
    lock = runs.claim(name)
    here = generations.current(name)
    if here is None:
        raise BuildError(f"{name} has no generation any more", exit_code=1)
    roots.hold(here.store_name)  # between two starts, when no trainer does
    record = record_run(name, "train", arguments, script, catalogue, environment, names, report, supervised=True)
    request = runs.Request(
        name=name,
        command=script.command("--", *arguments),
        root=str(roots.mark(here.store_name)),
        policy=policy_of(entry, built=_built(here.store_name)),
        gpus=profile.target.accelerator == "cuda",
        secrets=names,
        quiet=quiet,
        record="" if record is None else str(record),
    )
    runs.supervise(lock, request, environment)


def _built(store_name: str) -> float:
    """When an environment was built, in seconds since 1970; 0 where it is gone."""
    try:
        return (Store.here().path(store_name) / ".drydock/manifest.json").stat().st_mtime
    except OSError:
        return 0.0


def policy_of(entry: Entry, built: float = 0.0, machine: Machine | None = None) -> Policy:
    """All that a profile says of supervision, for this machine or another; `built` is when its environment was."""
    from builder.run.supervise.policy import Case, Policy

    said = entry.profile.supervise
    return Policy(
        cases=tuple(Case(key, tuple(case.codes), tuple(case.patterns)) for key, case in said.cases.items()),
        backoff=said.backoff,
        longest=said.longest_backoff,
        healthy=said.healthy,
        budget=said.budget,
        window=said.window,
        grace=said.grace,
        sample_every=said.sample_every,
        log_size=round(said.log_size * 1e6),
        log_files=said.log_files,
        guard=_guard(entry, machine),
        resume=resume_of(entry, built),
        losses=said.losses,
    )


def resume_of(entry: Entry, built: float = 0.0) -> Resume | None:
    """Where checkpoints are, for an environment that was built then; None where the profile does not say."""
    from builder.script import slurm

    found = slurm.resume_of(entry.profile, entry.lock)
    return None if found is None else replace(found, built=built)


def _guard(entry: Entry, machine: Machine | None) -> Guard | None:
    """The memory guard of a profile, for a machine; None where it has none, or the memory is unknown."""
    profile = entry.profile
    said = profile.memory_guard
    if said is None:
        return None
    from builder.machine import detect
    from builder.run.supervise.policy import Guard

    machine = machine or detect()
    sizes = [size for size in (machine.memory, machine.memory_limit) if size is not None]
    if not sizes:
        return None
    if profile.unlimited is not None:
        where = entry.resolved.where("env", profile.unlimited)
        advice = (
            f'set {profile.unlimited} = "0.7" with PYTORCH_MPS_LOW_WATERMARK_RATIO = "0.6", or make batches smaller'
        )
    elif profile.uses_mlx:
        where = entry.resolved.where("packages", "requires")
        advice = "have the trainer call mx.set_memory_limit and mx.set_cache_limit, or make batches smaller"
    else:
        where = entry.resolved.where("supervise", "memory-guard", "resident")
        advice = "make batches smaller, or give it more memory"
    return Guard(min(sizes), said.resident, said.swap, f"{where}: {advice}")
