"""Build an environment, and what is done with one: run the trainer, open a shell, verify. All through one script."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from builder import process, secrets
from builder.build.script import SH, build_script
from builder.errors import BuildError, DrydockError, UsageError
from builder.project.evaluate import Evaluation, evaluate
from builder.project.sources import consent
from builder.store import generations, roots
from builder.store.layout import environment_path, home, is_built

if TYPE_CHECKING:
    from builder.machine import Fit, Machine
    from builder.profile.model import Profile
    from builder.project.catalogue import Catalogue
    from builder.report import Reporter
    from builder.run.supervise.policy import Guard


def build(name: str, report: Reporter, *, dry_run: bool = False) -> Path:
    """Build the environment of the profile `name` where it is not there, and give its path.

    It becomes the current generation of `name`. Raises ProfileError, LockError, or BuildError with the script's own
    words.
    """
    name = resolve_auto(name, report)
    evaluation = evaluate(name, report.step)
    path = environment_path(evaluation.store_name)
    if dry_run:
        report.step(f"{name} {'is' if is_built(evaluation.store_name) else 'would be'} built")
        return path
    consent.check(name, evaluation.content)
    # Ours until the generation is made: a collection may run at any time.
    roots.hold(evaluation.store_name)
    if is_built(evaluation.store_name):
        report.step(f"{name} is built")
    else:
        _pull_from_afar(name, report)
        build_script(name, evaluation.script, report)
    before = generations.current(name)
    made = generations.add(name, evaluation.store_name, evaluation.script.read_text(encoding="utf-8"))
    if before is not None and before.number != made.number:
        report.step(f"generation {made.number} of {name}; to go back: drydock generation rollback {name}")
    return path


def _pull_from_afar(name: str, report: Reporter) -> None:
    """Bring what is locked from those caches that a script cannot read (ssh, S3), as far as they have all of it."""
    from builder.project.caches import cache_places, is_read_by_scripts

    for place in cache_places():
        if not is_read_by_scripts(place):
            from builder.share.mirror import pull

            try:
                pull([name], place, report)
                return
            except DrydockError as error:
                report.warn(f"{error.message}; going on without this cache")


def run(name: str, arguments: Sequence[str], report: Reporter) -> NoReturn:
    """Become the trainer of `name`, built first where it never was. Its secrets are in its environment."""
    environment, _ = secrets.environment(arguments)
    process.replace([SH, str(_script(name, report)), "--", *arguments], environment)


def supervise(name: str, arguments: Sequence[str], report: Reporter, *, quiet: bool = False) -> NoReturn:
    """Become the supervisor of the trainer of `name`, built first where it never was.

    Raises DrydockError where `name` is supervised already.
    """
    from builder.project.catalogue import Catalogue
    from builder.run.supervise import runs
    from builder.run.supervise.policy import Case, Policy

    name = resolve_auto(name, report)
    environment, names = secrets.environment(arguments)
    catalogue = Catalogue()
    profile = catalogue.profile(name)
    said = profile.supervise
    script = _script(name, report)
    lock = runs.claim(name)
    here = generations.current(name)
    if here is None:
        raise BuildError(f"{name} has no generation any more", exit_code=1)
    roots.hold(here.store_name)  # between two starts, when no trainer does
    cases = tuple(Case(key, tuple(case.codes), tuple(case.patterns)) for key, case in said.cases.items())
    request = runs.Request(
        name=name,
        command=[SH, str(script), "--", *arguments],
        root=str(roots.mark(here.store_name)),
        policy=Policy(cases, said.backoff, said.longest_backoff, said.healthy, said.budget, said.window),
        grace=said.grace,
        interval=said.sample_every,
        log_size=round(said.log_size * 1e6),
        log_files=said.log_files,
        guard=_guard(name, profile, catalogue),
        gpus=profile.target.accelerator == "cuda",
        secrets=names,
        quiet=quiet,
    )
    runs.supervise(lock, request, environment)


def _guard(name: str, profile: Profile, catalogue: Catalogue) -> Guard | None:
    """The memory guard of a profile, for this machine; None where it has none, or the memory is unknown."""
    said = profile.memory_guard
    if said is None:
        return None
    from builder.machine import detect
    from builder.profile.load import where_is
    from builder.run.supervise.policy import Guard

    machine = detect()
    sizes = [size for size in (machine.memory, machine.memory_limit) if size is not None]
    if not sizes:
        return None
    if profile.unlimited is not None:
        where = where_is(name, catalogue.source, "env", profile.unlimited)
        advice = (
            f'set {profile.unlimited} = "0.7" with PYTORCH_MPS_LOW_WATERMARK_RATIO = "0.6", or make batches smaller'
        )
    else:
        where = where_is(name, catalogue.source, "supervise", "memory-guard", "resident")
        advice = "make batches smaller, or let it have more"
    return Guard(min(sizes), said.resident, said.swap, f"{where}: {advice}")


def shell(name: str, report: Reporter, command: Sequence[str] = ()) -> NoReturn:
    """Become a shell, or `command`, in the environment of `name`, built first where it never was."""
    process.replace([SH, str(_script(name, report)), "--shell", "--", *command])


def print_environment(name: str, report: Reporter) -> NoReturn:
    """Become what prints the environment of `name`, built first where it never was, as shell commands."""
    process.replace([SH, str(_script(name, report)), "--print-env"])


def ensure(name: str, report: Reporter) -> str:
    """Build `name` where it never was; gives the profile that `auto` means."""
    name = resolve_auto(name, report)
    _script(name, report)
    return name


def scratch(name: str, report: Reporter, command: Sequence[str] = ()) -> NoReturn:
    """Become a shell, or `command`, in a new writable environment on top of that of `name`: for experiments.

    What is installed there stays there, and the store path below it stays as it is.
    """
    from builder import uv
    from builder.stage import site_packages

    script = _script(name, report)
    below = Path(process.run([SH, str(script), "--where"]).stdout.rstrip("\n"))
    roots.hold(below.name)
    folder = home() / "scratch" / f"{below.name}-{os.getpid()}"
    uv.create_venv(folder, str(below / "bin" / "python"))
    (site_packages(folder) / "drydock-below.pth").write_text(f"{site_packages(below)}\n", encoding="utf-8")
    report.step(f"a writable environment on top of {name}: {folder}")
    report.step("install with: uv pip install PACKAGE; remove the folder when you are done")
    process.replace([SH, "-c", _SCRATCH, "sh", str(script), str(folder), *command])


# The settings of the profile, then the scratch environment before the one below it.
_SCRATCH = """\
eval "$("$1" --print-env)"
export VIRTUAL_ENV="$2" PATH="$2/bin:$PATH"
shift 2
[ $# -eq 0 ] || exec "$@"
exec "${SHELL:-/bin/sh}"
"""


def verify(name: str, report: Reporter) -> NoReturn:
    """Become the verification of `name`: a line per finding, exit status 1 where one is bad."""
    name = resolve_auto(name, report)
    here = generations.current(name)
    process.replace([SH, str(here.script if here is not None else _evaluated(name, report).script), "--verify"])


def _evaluated(name: str, report: Reporter) -> Evaluation:
    """What `name` comes to, for running it. Raises ConsentError where nobody has agreed to that yet."""
    evaluation = evaluate(name, report.step)
    consent.check(name, evaluation.content)
    return evaluation


def _script(name: str, report: Reporter) -> Path:
    """The script of the current generation of `name`, which is built first where there is none.

    Settings that changed since are taken over at once; another environment only by a build, so that a rollback holds.
    """
    name = resolve_auto(name, report)
    here = generations.current(name)
    if here is None:
        build(name, report)
        here = generations.current(name)
    if here is None:
        raise BuildError(f"{name} has no generation, and its build made none", exit_code=1)
    try:
        evaluation = evaluate(name, report.step)
    except DrydockError as error:
        report.warn(f"{name} cannot be evaluated now ({error.message}); this is generation {here.number}")
        return here.script
    if evaluation.store_name == here.store_name:
        consent.check(name, evaluation.content)
        return evaluation.script
    report.warn(f"{name} is not what generation {here.number} was built from; to build it: drydock build {name}")
    return here.script


def resolve_auto(name: str, report: Reporter, machine: Machine | None = None) -> str:
    """The profile that `auto` means on this machine, which is looked at where `machine` is not given; any other name
    is itself. Raises UsageError where none fits.
    """
    if name != "auto":
        return name
    if machine is None:
        from builder.machine import detect

        machine = detect()
    best, why = next(iter(choices(machine).items()), (None, None))
    if best is None or why is None or why.score is None:
        raise UsageError(f"no profile is for this machine ({machine})", hint="drydock profile detect says why")
    report.step(f"auto: {best} ({machine})")
    return best


def choices(machine: Machine) -> dict[str, Fit]:
    """All profiles that can be built, with how well they fit a machine; the best first, those that do not, last.

    One of the project's own that fits is better than any that is built in.
    """
    from builder.machine import fit
    from builder.project.catalogue import Catalogue
    from builder.project.discovery import own_profile_folders, profile_names

    catalogue = Catalogue()
    targets = {name: catalogue.target(name) for name in catalogue.names()}
    fits = {name: fit(target, machine) for name, target in targets.items() if target is not None}
    own = set(profile_names(own_profile_folders()))
    rank = {name: (found.score is not None, name in own, found.score or 0, name) for name, found in fits.items()}
    return {name: fits[name] for name in sorted(fits, key=rank.__getitem__, reverse=True)}
