"""What the batch script of a profile knows of its job and of checkpoints (templates/slurm.sh.j2)."""

from __future__ import annotations

import math
from typing import Any

from builder.embedded.resume import Resume
from builder.lock.model import Lock
from builder.profile.model import Profile

_NOTICE = 60
"""Seconds before the end of a job's time from which it is requeued, at least: Slurm looks once in so many."""


def batch_script(profile: Profile) -> str:
    """File name of the batch script."""
    name = profile.run_script
    return f"{name.removesuffix('.sh')}_slurm.sh"


def resume_of(profile: Profile, lock: Lock) -> Resume | None:
    """Where checkpoints are, and how the trainer goes on from one; None where the profile does not say."""
    said, trainer = profile.supervise.resume, profile.trainer
    if said is None:
        return None
    copy = ""
    if trainer.source is not None and lock.trainer is not None:
        copy = "/".join(filter(None, (lock.trainer.folder, trainer.source.folder)))
    return Resume(said.words, said.newest, tuple(said.has), copy, trainer.needs or "")


def job_of(profile: Profile) -> dict[str, Any]:
    """What the job is: options of sbatch, seconds of notice before its time is over, how often it starts again in which
    time.
    """
    launch, supervise = profile.launch, profile.supervise
    return {
        "options": launch.slurm,
        "notice": max(_NOTICE, math.ceil(supervise.grace) + _NOTICE),
        "budget": supervise.budget,
        "window": math.ceil(supervise.window),
        "fewest": launch.fewest or 1,
    }
