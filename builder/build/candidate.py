"""A profile with another lock than its own: its environment is built in the store, and becomes no generation.

Neither the lock that is committed nor the current generation changes; what nobody holds any more, a collection takes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from builder import process
from builder.build.script import Script, build_script
from builder.embedded.hashes import sha256
from builder.errors import LockError
from builder.project.evaluate import write_script
from builder.project.sources import consent
from builder.script.plan import Plan, make_plan
from builder.store import roots
from builder.store.layout import Store

if TYPE_CHECKING:
    from builder.lock.model import Lock
    from builder.project.catalogue import Entry
    from builder.report import Reporter


@dataclass(frozen=True)
class Candidate:
    """A profile with a lock that is tried: `script` builds its environment and runs what is in it."""

    plan: Plan
    script: Script
    left: Mapping[str, str]
    """The proofs of the patches that are left out, with their texts."""

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

    def verify(self, longest: float) -> list[str]:
        """What is wrong with the environment that is built: of its verification, and of the proofs that are left.

        Each may take `longest` seconds. Raises ToolError where one takes longer.
        """
        done = process.run(self.script.command("--verify"), timeout=longest)
        lines = done.stdout.splitlines()
        bad = [line.removeprefix("FAIL ") for line in lines if line.startswith("FAIL ")]
        if done.code and not bad:
            bad = [f"exit status {done.code}: {(done.stderr.strip().splitlines() or ['it says nothing'])[-1]}"]
        with tempfile.TemporaryDirectory(prefix="drydock-proofs-") as folder:
            for name, text in self.left.items():
                # Isolated, as the verification of an environment runs it; it is not patched, and is not said to be.
                proof = Path(folder, Path(name).name)
                proof.write_text(text, encoding="utf-8")
                done = process.run(
                    self.script.command("--shell", "--", "python", "-I", "-B", str(proof)), timeout=longest
                )
                said = (done.stderr.strip() or done.stdout.strip()).splitlines()
                bad += [f"{proof.name}: {said[-1] if said else f'exit status {done.code}'}"] if done.code else []
        return bad


def candidate(entry: Entry, lock: Lock) -> Candidate:
    """The profile of `entry` with `lock`; only its script is written.

    A patch of the profile that the lock does not have is left out, and its proof is run without it.

    Raises ProfileError, ConsentError, and LockError where the lock has a patch that the profile does not have.
    """
    agreed = consent.check(entry.name, entry.content)
    profile, texts = entry.profile, entry.texts
    known = {patch.file: sha256(texts[patch.file].encode()) for patch in profile.patches}
    for pin in lock.patches:
        if known.get(pin.file) != pin.sha256:
            raise LockError(
                f"a lock of {entry.name} has the patch {pin.file}, which the profile no longer has in that form",
                hint="put the patch back into the profile",
            )
    pinned = {pin.file for pin in lock.patches}
    left = [patch for patch in profile.patches if patch.file not in pinned]
    profile = profile.model_copy(update={"patches": [patch for patch in profile.patches if patch.file in pinned]})
    plan = make_plan(profile, lock, texts, entry.code)
    script, _ = write_script(plan)
    proofs = {patch.proof: texts[patch.proof] for patch in left}
    return Candidate(plan, Script(script, agreed, entry.project_folder), proofs)
