"""How a trainer is started on a host, and on several at once: [launch] of a profile."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from builder.profile.fields import COUNT, Model

# One option of sbatch in one word: what ends a line, quotes, or begins a comment in a line of #SBATCH is left out.
_OPTION = r"^--[a-z][a-z0-9-]*(=[A-Za-z0-9_.,:;/@%+=*~^!|&()\[\]{}<>?-]+)?$"
# Those that the batch script sets itself (templates/slurm.sh.j2), or that sbatch takes only from its command line.
_OURS = frozenset(
    {"array", "export", "export-file", "job-name", "no-requeue", "ntasks", "ntasks-per-node", "open-mode", "requeue"}
    | {"parsable", "quiet", "signal", "test-only", "wait", "wrap", "help", "usage", "version"}
)


def _sbatch_option(value: str) -> str:
    if not re.fullmatch(_OPTION, value):
        raise ValueError('must be one option of sbatch in its long form, for instance "--partition=gpu"')
    name = value[2:].partition("=")[0]
    if name in _OURS:
        raise ValueError(f"--{name} is set by the batch script itself, or belongs on the command line of sbatch")
    return value


SbatchOption = Annotated[str, Field(pattern=_OPTION), AfterValidator(_sbatch_option)]


class Launch(Model):
    """How the trainer is started; nothing of this is in the key or in a lock."""

    # The name of the key is a word of Python's.
    launcher: Literal["none", "torchrun"] = Field(default="none", alias="with")
    """"torchrun": by the environment's own torchrun, whose options are the variables PET_*; a host for which none of
    them says otherwise is by itself. "none": as it is, each host for itself."""
    processes: Annotated[int, Field(ge=1, le=COUNT, strict=True)] | Literal["accelerators"] = "accelerators"
    """How many processes torchrun starts on a host: a number, or one for each GPU that is visible there, else one. What
    the profile sets OMP_NUM_THREADS to is divided by it."""
    fewest: int | None = Field(default=None, ge=1, le=COUNT, strict=True)
    """With how many hosts training goes on when others are lost; without it, with all of them only."""
    slurm: list[SbatchOption] = Field(default=[])
    """Options of sbatch in their long form, for `drydock run NAME --slurm`: "--partition=gpu", "--nodes=4"."""

    @property
    def by_torchrun(self) -> bool:
        """Whether torchrun starts the trainer."""
        return self.launcher == "torchrun"

    @property
    def per_accelerator(self) -> bool:
        """Whether there is a process for each accelerator of a host."""
        return self.processes == "accelerators"
