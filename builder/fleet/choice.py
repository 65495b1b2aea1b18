"""Which profile each host of a fleet is to have."""

from __future__ import annotations

from builder.machine import Machine
from builder.project.catalogue import Catalogue


class Choice:
    """The profile `name`, or, where that is auto, for each machine the one that is for it."""

    def __init__(self, name: str, catalogue: Catalogue) -> None:
        self.name = name
        self._catalogue = catalogue
        self._chosen: dict[str, str] = {}

    def of(self, machine: Machine) -> str:
        """Returns the name of a profile. Raises DrydockError where none is for this machine."""
        if self.name != "auto":
            return self.name
        alike = repr(machine.lasting())  # what changes by the minute decides nothing
        if alike not in self._chosen:
            from builder.project.auto import pick

            self._chosen[alike] = pick(machine, self._catalogue).name
        return self._chosen[alike]
