"""Which profile `auto` means on a machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.errors import UsageError

if TYPE_CHECKING:
    from builder.machine import Fit, Machine
    from builder.project.catalogue import Catalogue


def pick(machine: Machine, catalogue: Catalogue) -> str:
    """The profile that `auto` means on a machine. Raises UsageError where none fits."""
    best, why = next(iter(choices(machine, catalogue).items()), (None, None))
    if best is None or why is None or why.score is None:
        raise UsageError(f"no profile is for this machine ({machine})", hint="drydock profile detect says why")
    return best


def choices(machine: Machine, catalogue: Catalogue) -> dict[str, Fit]:
    """All profiles that can be built, with how well they fit a machine; the best first, those that do not, last.

    One of the project's own that fits is better than any that is built in.
    """
    from builder.machine import fit
    from builder.project.discovery import own_profile_folders, profile_names

    targets = {name: catalogue.target(name) for name in catalogue.names()}
    fits = {name: fit(target, machine) for name, target in targets.items() if target is not None}
    own = set(profile_names(own_profile_folders()))
    rank = {name: (found.score is not None, name in own, found.score or 0, name) for name, found in fits.items()}
    return {name: fits[name] for name in sorted(fits, key=rank.__getitem__, reverse=True)}
