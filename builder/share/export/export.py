"""Export a profile's lock: find the facts that the format needs, write it, list what it cannot hold."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.errors import UsageError
from builder.files import replace_ours
from builder.project.catalogue import Entry
from builder.script.plan import Plan
from builder.share.export.header import mark
from builder.share.export.licences import find_licences
from builder.share.export.pylock import pylock
from builder.share.export.requirements import requirements
from builder.share.export.sbom import is_of, sbom
from builder.share.export.urls import find_places, in_folder

FORMATS = ("requirements", "pylock", "sbom")


@dataclass(frozen=True)
class Exported:
    """The `text` of an export, and notes on what it leaves out of the profile."""

    text: str
    left_out: Sequence[str]


def export(entry: Entry, form: str, *, beside: Path, wheels: Path | None = None) -> Exported:
    """The lock of a profile in one of the FORMATS; `beside` is the folder that the file will be in.

    Files are looked for in the folder `wheels` first. Raises ProfileError, LockError, and UsageError.
    """
    plan = entry.plan
    if form == "requirements":
        return Exported(requirements(plan, in_folder(wheels, plan.lock.packages)), _not_installed(plan))
    if form == "pylock":
        places = find_places(entry, wheels)
        left_out = [f"{place.path} is a path of this machine" for place in places.values() if place.path and not wheels]
        if any(place.secret for place in places.values()):
            left_out.append("the password or the query of the index's URLs: to install from this, use a netrc file")
        return Exported(pylock(plan, places, beside.resolve()), [*_not_installed(plan), *left_out])
    licences = find_licences(entry, wheels)
    unknown = [package.name for package in plan.lock.packages if package.name not in licences]
    notes = [f"the licence of {', '.join(unknown)}: not known"] if unknown else []
    return Exported(sbom(plan, licences, _epoch()), notes)


def save(path: Path, text: str, name: str) -> None:
    """Write an export of the profile `name`, over an older one at most. Raises UsageError where another file is."""
    made: Callable[[str], bool] = lambda there: there.startswith(f"# {mark(name)}\n") or is_of(there, name)  # noqa: E731
    replace_ours(path, text, made, "-o", f"Drydock for {name}")


def _not_installed(plan: Plan) -> list[str]:
    """Return notes on what another installer does not install: the environment would differ."""
    profile, lock = plan.profile, plan.lock
    notes = [
        f"{patch.file}: {patch.package} comes without this patch"
        + (f" ({profile.fix_patches_script} of drydock render --standalone applies it)" if lock.patches else "")
        for patch in lock.patches
    ]
    if profile.env:
        notes.append(f"the environment variables: {', '.join(profile.env)} ({profile.name}.env has them)")
    sources = [package.name for package in lock.packages if not package.is_wheel]
    if sources:
        notes.append(
            f"what builds {', '.join(sources)}: the build requirements are locked here, and whatever is newest there"
        )
    return notes


def _epoch() -> int | None:
    """SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch/), where it is set."""
    said = os.environ.get("SOURCE_DATE_EPOCH")
    if not said:
        return None
    if not said.isdecimal() or int(said) >= 253402300800:  # the year 10000
        raise UsageError(f"SOURCE_DATE_EPOCH is {said!r}, not a number of seconds")
    return int(said)
