"""A scratch environment in which the package that a patch is for is now one release, now another.

Everything else in it is as the profile has it, linked from uv's cache. It is beside the store, and gone after the
`with`; nothing of it is in an environment that somebody uses.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from builder import process, uv
from builder.consent import Consent
from builder.embedded.errors import StageError
from builder.embedded.installed import distributions, read_record, site_packages
from builder.embedded.patches import patch_package
from builder.embedded.secrets import is_secret
from builder.embedded.words import printable
from builder.errors import PatchError, ToolError
from builder.files import write_files
from builder.isolation import LEAKS
from builder.lock.finder import Artefacts
from builder.lock.model import Artefact, LockedPatch
from builder.project.install import install
from builder.script.plan import Plan
from builder.store.layout import home
from builder.store.scratch import scratch

_LONGEST = 1800.0
"""Seconds that a proof may take: with an untried release it may hang."""


@dataclass(frozen=True)
class Answer:
    """The result of a proof: whether it passed, and its last line."""

    passed: bool
    said: str


class Trial:
    """An environment of `plan` in `folder`; `files` finds the packages."""

    def __init__(self, plan: Plan, folder: Path, files: Artefacts, consent: Consent) -> None:
        self._consent = consent
        self._plan = plan
        self._folder = folder
        self._files = files
        self._parts = folder / ".drydock"
        self._python = folder / "bin" / "python"
        self._base = uv.create_venv(folder, plan.profile.python.version)
        write_files(self._parts, plan.texts)
        install(plan, folder, self._base, consent)
        self._patch(plan.lock.patches)

    def ask(self, proof: str, package: Artefact, patches: Iterable[LockedPatch]) -> Answer:
        """Run the proof with that release of a package, which has `patches` and no others. Raises ToolError."""
        arguments = ["--prefix", ".", "--python", self._base, "--reinstall", *self._files.requirement(package)]
        target, python = self._plan.profile.target, self._plan.profile.python.version
        uv.install(arguments, self._folder, target, python, builds=None if package.is_wheel else self._consent)
        self._forget_bytecode(package.name)
        patches = list(patches)
        self._patch(patches)
        # Nothing of the caller's Python, and, as some of this code is locked nowhere, none of the caller's secrets.
        environment = {name: value for name, value in os.environ.items() if name not in LEAKS and not is_secret(name)}
        environment |= {"PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": ""}
        # As the verification of an environment does: a proof of ours may ask for more than upstream's repair.
        environment |= {"DRYDOCK_PATCHED": "1"} if patches else {}
        command = [str(self._python), "-I", str(self._parts / proof)]
        try:
            done = process.run(command, env=environment, cwd=self._folder, timeout=_LONGEST)
        except ToolError as error:
            return Answer(False, error.message)
        said = (done.stdout if done.code == 0 else done.stderr or done.stdout).strip().splitlines()
        return Answer(done.code == 0, _output_line(said[-1]) if said else f"exit status {done.code}, and no output")

    def _forget_bytecode(self, package: str) -> None:
        """Delete the bytecode of a package: of the release before, its sources may have the same time and size."""
        site = site_packages(self._folder)
        for folder in {(site / row[0]).parent for row in read_record(distributions(site)[package]) if row}:
            shutil.rmtree(folder / "__pycache__", ignore_errors=True)

    def _patch(self, patches: Iterable[LockedPatch]) -> None:
        try:
            for patch in patches:
                patch_package(site_packages(self._folder), patch.model_dump(), self._plan.texts[patch.file])
        except StageError as error:
            raise PatchError(str(error)) from None


def _output_line(text: str) -> str:
    """Return a line of a program's output, which must not steer a terminal."""
    return printable(text)[:500]


@contextmanager
def trial(plan: Plan, files: Artefacts, consent: Consent) -> Iterator[Trial]:
    """Yield a scratch environment of `plan`. Raises ToolError where a package cannot be fetched."""
    with scratch(home() / "store", f".stage-{plan.key}-") as folder:
        yield Trial(plan, folder / "env", files, consent)
