"""Which profile each host of a fleet is to have."""

from __future__ import annotations

from dataclasses import replace

from builder.machine import Machine
from builder.project.catalogue import Catalogue


class Choice:
    """The profile `name`, or, where that is auto, for each machine the one that is for it."""

    def __init__(self, name: str, catalogue: Catalogue) -> None:
        self.name = name
        self._catalogue = catalogue
        self._chosen: dict[Machine, str] = {}

    def of(self, machine: Machine) -> str:
        """Returns the name of a profile. Raises DrydockError where none is for this machine."""
        if self.name != "auto":
            return self.name
        # What changes by the minute decides nothing.
        same = replace(machine, disk_free=None, memory_free=None)
        if same not in self._chosen:
            from builder.project.auto import pick

            self._chosen[same] = pick(same, self._catalogue).name
        return self._chosen[same]
