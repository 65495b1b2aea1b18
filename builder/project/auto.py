"""Which profile `auto` means on a machine, in a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import UsageError

if TYPE_CHECKING:
    from builder.machine import Fit, Machine
    from builder.profile.architectures import Kernels
    from builder.project.catalogue import Catalogue


@dataclass(frozen=True)
class Picked:
    """The profile that `auto` means, and why; `unused` says which GPU it does nothing with, and why, "" for none."""

    name: str
    why: str
    unused: str = ""


def pick(machine: Machine, catalogue: Catalogue, folder: Path | None = None) -> Picked:
    """The profile that `auto` means on a machine, in a folder or here. Raises UsageError where none fits."""
    fits = choices(machine, catalogue, folder)
    best, found = next(iter(fits.items()), (None, None))
    if best is None or found is None or found.score is None:
        raise UsageError(f"no profile is for this machine ({machine})", hint="drydock profile detect says why")
    return Picked(best, found.why, unused(best, machine, catalogue, fits))


def choices(machine: Machine, catalogue: Catalogue, folder: Path | None = None) -> dict[str, Fit]:
    """All profiles that can be built, with how well they fit a machine; the best first, those that do not, last.

    One of the project's own that fits is better than any that is built in; then one whose trainer needs what is in the
    folder. One whose trainer lacks what it needs does not fit, unless all of the project's own that would fit lack it:
    then one of these is meant, and says so when it is run, and not the trainer of another project.
    """
    from builder.machine import Fit, fit
    from builder.project.discovery import own_profile_folders, profile_names

    targets = {name: catalogue.target(name) for name in catalogue.names()}
    fits = {
        name: fit(target, machine, _kernels(name, catalogue, machine) if target.accelerator == "cuda" else None)
        for name, target in targets.items()
        if target is not None
    }
    own = set(profile_names(own_profile_folders()))
    at_home, lacking = set(), {}
    for name, found in fits.items():
        needs = catalogue.profile(name).trainer.needs if found.score is not None else None
        if needs is None:
            continue
        if (Path.cwd() if folder is None else folder).joinpath(needs).exists():
            at_home.add(name)
            fits[name] = Fit(found.score, f"{found.why}, and {needs} is here")
        else:
            lacking[name] = found
            fits[name] = Fit(None, f"its trainer needs {needs}, which is not in this folder")
    if not any(fits[name].score is not None for name in own & fits.keys()):
        fits |= {
            name: Fit(found.score, f"{found.why}; {fits[name].why}") for name, found in lacking.items() if name in own
        }
    rank = {
        name: (found.score is not None, name in own, name in at_home, found.score or 0, name)
        for name, found in fits.items()
    }
    return {name: fits[name] for name in sorted(fits, key=rank.__getitem__, reverse=True)}


def unused(name: str, machine: Machine, catalogue: Catalogue, fits: dict[str, Fit]) -> str:
    """Which GPU a profile for processors leaves unused, and why no profile for it fits; "" where there is none."""
    from builder.machine.model import counted

    target = catalogue.target(name)
    if target is None or target.accelerator != "cpu":
        return ""
    if machine.gpus is None:
        return "nvidia-smi fails, so that a GPU of NVIDIA may go unused: run it, and read what it says"
    kinds = {gpu.accelerator for gpu in machine.others} | ({"cuda"} if machine.gpus else set())
    names = counted([gpu.name for gpu in machine.gpus] + [str(gpu) for gpu in machine.others])
    if not names:
        return ""
    others = {one: catalogue.target(one) for one in fits}
    reasons = [
        f"{one} uses it" if fits[one].score is not None else f"{one}: {fits[one].why}"
        for one, other in others.items()
        if other is not None and other.platform == machine.platform and other.accelerator in kinds
    ]
    reasons += [
        f'no profile has accelerator = "{kind}", whose wheels PyTorch has on an index of its own'
        for kind in sorted(kinds)
        if not any(other is not None and other.accelerator == kind for other in others.values())
    ]
    return f"{', '.join(names)} goes unused: {'; '.join(reasons)}"


def _kernels(name: str, catalogue: Catalogue, machine: Machine) -> Kernels | None:
    """The kernels that are locked for a profile, as recorded in its environment where that is built.

    Not asked for where there is no GPU that they could be for.
    """
    from builder.errors import DrydockError
    from builder.lock.cuda import kernels_of
    from builder.store.layout import Store

    target = catalogue.target(name)
    if not machine.gpus or target is None or target.platform != machine.platform:
        return None
    try:
        recorded = Store.here().architectures(catalogue.plan(name).store_name)
        return kernels_of(target.machine, catalogue.lock(name).packages, recorded)
    except DrydockError:  # it has no lock, or a broken one: a build says so
        return None
