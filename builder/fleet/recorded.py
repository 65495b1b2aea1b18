"""What is recorded at the desk of a run on a fleet: a record for each profile that runs, completed at the end.

Of one training on several hosts the losses are those that its first host prints. Where each host is for itself, each
has its own: `h1 loss`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from builder import secrets
from builder.files import hash_of
from builder.project.catalogue import Catalogue
from builder.project.evaluate import evaluate
from builder.project.fleets import Fleet
from builder.run.records.begin import begin, finish
from builder.run.records.summary import Summary
from builder.run.supervise.policy import Policy

_HOSTS = 16
"""Of how many hosts that train by themselves the losses are kept."""


class Recorded:
    """The record of one profile on some hosts, which are to run the script of that sha256."""

    def __init__(
        self,
        name: str,
        hosts: Sequence[str],
        script: str,
        store_name: str,
        fleet: Fleet,
        catalogue: Catalogue,
        arguments: Sequence[str],
        policy: Policy,
        *,
        together: bool,
        supervised: bool,
    ) -> None:
        self._together = together
        self._summaries = {host: Summary(policy.losses) for host in ([""] if together else hosts[:_HOSTS])}
        evaluation, entry = evaluate(name, catalogue), catalogue.entry(name)
        # What was deployed is what runs; of an older one the desk has no script and no lock any more.
        same = evaluation.store_name == store_name and hash_of(evaluation.script) == script
        environment, names = secrets.environment(arguments)
        self._path = begin(
            name,
            "train",
            arguments,
            store_name=store_name,
            generation=0,
            script=[],
            script_path=evaluation.script if same else None,
            lock=evaluation.lock if evaluation.store_name == store_name else None,
            project=entry.project_folder if entry.is_of_project else None,
            environment=environment,
            names=names,
            supervised=supervised,
            fleet={"name": fleet.name, "hosts": list(hosts), "together": together},
        )

    def read(self, host: str, line: str, *, is_first: bool) -> None:
        """Take a line that a host's trainer has printed; `is_first` of those that train together."""
        if self._together and not is_first:
            return
        summary = self._summaries.get("" if self._together else host)
        if summary is not None:
            summary.read(line.encode(errors="replace") + b"\n")

    def finish(self, code: int, why: str, restarts: int) -> None:
        """Complete it."""
        finish(self._path, exit=code, why=why, restarts=restarts, **self._summary())

    def _summary(self) -> Mapping[str, Any]:
        found: dict[str, dict[str, Any]] = {"losses": {}, "curves": {}}
        for host, summary in self._summaries.items():
            data = summary.data()
            for part, rows in found.items():
                rows.update((f"{host} {name}".strip(), row) for name, row in data[part].items())
        return found
