"""The target of an imported profile: this machine, unless another is named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from builder.errors import UsageError
from builder.machine import Machine
from builder.profile.target import Target

_OLDEST_GLIBC = "2.28"  # what the wheels of PyTorch 2.6 and newer are built for
_OLDEST_MACOS = "14.0"
_CUDA = "12.4"


@dataclass(frozen=True)
class Chosen:
    """A target, as a profile writes it, and the guesses in it."""

    table: dict[str, Any]
    target: Target
    guessed: tuple[str, ...]


def choose(machine: Machine, platform: str | None, accelerator: str | None) -> Chosen:
    """Return the target for `machine`, or the named one. Raises UsageError where there is no such target."""
    platform = platform or machine.platform
    if platform is None:
        raise UsageError(
            f"there are no profiles for {machine.system} {machine.machine}", hint="name a target: --platform"
        )
    here = platform == machine.platform
    table: dict[str, Any] = {"platform": platform}
    guessed = []
    if platform == "macos-arm64":
        table |= {"accelerator": accelerator or "mps", "min-os": _OLDEST_MACOS}
    else:
        table["accelerator"] = accelerator or ("cuda" if here and machine.gpus else "cpu")
        old = here and machine.glibc is not None and _numbers(machine.glibc) < _numbers(_OLDEST_GLIBC)
        table["glibc"] = machine.glibc if old else _OLDEST_GLIBC
    if table["accelerator"] == "cuda":
        table["cuda"] = (machine.cuda if here else None) or _CUDA
        if not (here and machine.cuda):
            guessed.append(f'cuda = "{_CUDA}" is a guess: say in [target] what the wheels are built for')
    try:
        return Chosen(table, Target.model_validate(table), tuple(guessed))
    except ValidationError as error:
        reason = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise UsageError(f"no such target: {platform}, {table['accelerator']}: {reason}") from None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())
