"""A profile with another lock than its own: its environment is built in the store, and becomes no generation.

Neither the lock that is committed nor the current generation changes; what nobody holds any more, a collection takes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from builder.build.script import Script, build_script
from builder.embedded.hashes import sha256
from builder.errors import LockError
from builder.files import write_atomically
from builder.profile.model import Check
from builder.project.carried import carried
from builder.project.sources import consent
from builder.script.plan import Plan, make_plan
from builder.script.templates import rendered_run_script
from builder.store import roots
from builder.store.layout import Store, home

if TYPE_CHECKING:
    from builder.lock.model import Lock
    from builder.project.catalogue import Entry
    from builder.report import Reporter


@dataclass(frozen=True)
class Candidate:
    """A profile with a lock that is tried: `script` builds its environment and runs what is in it."""

    plan: Plan
    script: Script

    @property
    def path(self) -> Path:
        """The folder of the environment, built or not."""
        return Store.here().path(self.plan.store_name)

    @property
    def is_built(self) -> bool:
        """Whether the environment exists."""
        return Store.here().is_built(self.plan.store_name)

    def build(self, report: Reporter) -> bool:
        """Build the environment; returns whether that was needed. It is held as long as this process lives.

        Raises BuildError.
        """
        roots.hold(self.plan.store_name)
        if self.is_built:
            return False
        build_script(self.plan.profile.name, self.script, report)
        return True


def candidate(entry: Entry, lock: Lock) -> Candidate:
    """The profile of `entry` with `lock`; only its script is written.

    A patch of the profile that the lock does not have is left out, and what proves it stays. Raises ProfileError,
    ConsentError, and LockError where the lock has a patch that the profile does not have.
    """
    agreed = consent.check(entry.name, entry.content)
    profile, texts = entry.profile, entry.texts
    known = {patch.file: sha256(texts[patch.file].encode()) for patch in profile.patches}
    for pin in lock.patches:
        if known.get(pin.file) != pin.sha256:
            raise LockError(
                f"a lock of {entry.name} has the patch {pin.file}, which the profile does not have as it was then",
                hint="put the patch back into the profile",
            )
    pinned = {pin.file for pin in lock.patches}
    left = [patch for patch in profile.patches if patch.file not in pinned]
    profile = profile.model_copy(
        update={
            "patches": [patch for patch in profile.patches if patch.file in pinned],
            "checks": [*profile.checks, *(Check(file=patch.proof, why=patch.why) for patch in left)],
        }
    )
    plan = make_plan(profile, lock, texts, entry.code)
    text = rendered_run_script(plan, carried(remember=True))
    script = home() / "cache" / "scripts" / hashlib.sha256(text.encode()).hexdigest()[:16] / profile.run_script
    write_atomically(script, text, executable=True)
    return Candidate(plan, Script(script, agreed, entry.project_folder))
