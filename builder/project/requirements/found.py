"""A profile with what the files of its `[packages] requires-from` require: imported without their readers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import Where
from builder.profile.model import Profile, RequiresFrom

if TYPE_CHECKING:
    from builder.project.requirements.model import LeftOut


@dataclass(frozen=True)
class Asked:
    """An entry of `requires-from`, the `folder` of the project that its file is in, and where it stands."""

    entry: RequiresFrom
    folder: Path
    where: Where


@dataclass
class Found:
    """The whole `profile`, where packages are required that it does not name itself, and what it cannot hold."""

    profile: Profile
    places: dict[str, Where] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
