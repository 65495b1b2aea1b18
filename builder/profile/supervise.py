"""What a profile says of supervised runs."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from builder.embedded.resume import PLACE
from builder.profile.fields import (
    COUNT,
    CheckpointPattern,
    LossName,
    LossPattern,
    Model,
    Name,
    Pattern,
    RelativePath,
    Seconds,
    Share,
    Text,
)


class RestartCase(Model):
    """When a trainer that failed is started again: on one of these exit statuses, or a last line that matches."""

    codes: list[Annotated[int, Field(ge=1, le=255, strict=True)]] = []
    """Exit statuses as a shell gives them: 137 for SIGKILL."""
    patterns: list[Pattern] = []
    """Regular expressions of Python, looked for in each of the last lines (64 KiB of them)."""


_RESTART = {
    # SIGABRT, SIGFPE, SIGKILL, SIGSEGV, and SIGBUS of Linux and of macOS; 137 is also what the kernel does when memory
    # runs out. Not SIGTERM: somebody meant it.
    "killed": RestartCase(codes=[134, 135, 136, 137, 138, 139]),
    # PyTorch's own words, for CUDA and for MPS, and those of the C library.
    "out-of-memory": RestartCase(patterns=["OutOfMemoryError", "out of memory", "Cannot allocate memory"]),
    # huggingface/accelerate pull request 3659: an accelerate without our patch, and a stage without data.
    "empty-loader": RestartCase(patterns=["UnboundLocalError: .*current_batch"]),
}


class MemoryGuard(Model):
    """Stops the trainer while it can still end well, by shares of the memory that there is, or that the control groups
    allow.
    """

    resident: Share = 0.9
    """When it holds more than this."""
    swap: Share = 0.25
    """When swap has grown by this."""


class Resume(Model):
    """How a trainer goes on from where it was: at each start it gets `flag` and its newest whole checkpoint, or
    `arguments`; nothing, where there is none.
    """

    flag: Text | None = Field(default=None, pattern=r"^--?[A-Za-z0-9][A-Za-z0-9_-]*$")
    """The argument before the checkpoint's path, for instance "--resume_from_checkpoint"."""
    arguments: Annotated[list[Text], Field(min_length=1)] | None = None
    """Instead of `flag`, for a trainer that wants it in another way: ["--init_from=resume"], or, with the checkpoint's
    path, ["ckpt_path={checkpoint}"]."""
    newest: CheckpointPattern
    """Where checkpoints are, relative to the working directory, for instance "out/checkpoint-*"; the newest has the
    greatest last number in its name."""
    has: list[RelativePath] = []
    """What a whole one has, beside files that are not cut off: for transformers ["trainer_state.json"], which it writes
    last."""

    @model_validator(mode="after")
    def _has_one_way(self) -> Self:
        if (self.flag is None) == (self.arguments is None):
            raise ValueError('either flag, as in "--resume", or arguments, as in ["--init_from=resume"]')
        return self

    @property
    def words(self) -> tuple[str, ...]:
        """The arguments, with "{checkpoint}" for its path."""
        return (self.flag, PLACE) if self.flag is not None else tuple(self.arguments or ())


class Supervise(Model):
    """How `drydock run NAME --supervise` looks after the trainer; times in seconds.

    Nothing of this is in the key, in a lock or in a script.
    """

    restart: dict[Name, RestartCase] = {}
    """When a failed trainer is started again; one of the same name replaces one of those that are always there: killed,
    out-of-memory, empty-loader.
    """
    backoff: Seconds = 5.0
    """To the first restart; then twice that, and so on."""
    longest_backoff: Seconds = Field(default=300.0, alias="longest-backoff")
    """The longest to a restart."""
    healthy: Seconds = 600.0
    """A run that lasts so long begins the backoff anew."""
    budget: int = Field(default=10, ge=0, le=COUNT, strict=True)
    """It is given up after so many restarts within `window`."""
    window: Seconds = 3600.0
    """In which the restarts of `budget` are counted."""
    grace: Seconds = 30.0
    """From the signal to stop to the kill."""
    sample_every: Annotated[float, Field(ge=0.5, le=3600, strict=True)] = Field(default=5.0, alias="sample-every")
    """How often what it uses is written down."""
    memory_guard: MemoryGuard | None = Field(default=None, alias="memory-guard")
    """There where it is given, where a setting acknowledges mps-unlimited-memory, and where MLX trains on a Mac."""
    resume: Resume | None = None
    """Where its checkpoints are, so that a start goes on from the newest; one that is half-written is passed over."""
    losses: Annotated[dict[LossName, LossPattern], Field(max_length=8)] = {}
    """Losses that the trainer prints in a form of its own, by name, for records and replays: regular expressions whose
    group is the number, looked for in each line. One replaces what else is read by that name, for instance `loss`.
    """
    log_size: Annotated[float, Field(gt=0, le=10**5, strict=True)] = Field(default=10.0, alias="log-size")
    """MB of one log file."""
    log_files: int = Field(default=5, ge=0, le=1000, alias="log-files", strict=True)
    """How many older ones are kept."""

    @property
    def cases(self) -> dict[str, RestartCase]:
        """All cases, the profile's own first."""
        return {**self.restart, **{name: case for name, case in _RESTART.items() if name not in self.restart}}
