"""Kinds of machines that a project trains on, and what a project's file says of them: for `drydock init`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from builder.author.importing.target import Chosen, choose
from builder.errors import UsageError
from builder.machine import Machine

KINDS = ("mac", "cuda", "cpu")
_ACCELERATORS = {"mac": "mps", "cuda": "cuda", "cpu": "cpu"}
# What only such machines have a use for.
_HINTS = {
    "mac": r"\bmlx(?:-lm)?\b|platform_machine *== *[\"']arm64",
    "cuda": r"(?:\+|/whl/)cu[0-9]{3}\b|\b(?:flash[-_]attn|xformers|vllm|deepspeed)\b|\bnvidia-[a-z-]+-cu[0-9]+"
    r"|\bcuda1[0-9]\b",
    "cpu": r"(?:\+|/whl/)cpu\b",
}
_EXTRAS = {"mac": r"mps|mac|macos|metal|mlx|apple", "cuda": r"gpu|cuda|nvidia|cu[0-9]+", "cpu": r"cpu"}


def kinds_in(text: str) -> list[str]:
    """The kinds in a list such as "mac,cuda". Raises UsageError."""
    found = list(dict.fromkeys(one.strip().lower() for one in text.split(",") if one.strip()))
    for one in found:
        if one not in KINDS:
            near = difflib.get_close_matches(one, KINDS, 1)
            hint = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(KINDS)}"
            raise UsageError(f'"{one}" is not a kind of machine', hint=hint)
    if not found:
        raise UsageError("--for names no machine", hint=f"for instance --for {','.join(KINDS)}")
    return found


def here(machine: Machine) -> str:
    """The kind of this machine."""
    if machine.platform == "macos-arm64":
        return "mac"
    return "cuda" if machine.gpus else "cpu"


def sensible(machine: Machine, text: str, extras: Sequence[str]) -> list[str]:
    """This machine's kind, and those that a file of requirements hints at, by its packages, indexes and extras."""
    hinted = [kind for kind in KINDS if re.search(_HINTS[kind], text) or extra_for(kind, extras, exactly=True)]
    return list(dict.fromkeys([here(machine), *hinted]))


def extra_for(kind: str, extras: Sequence[str], *, exactly: bool = False) -> str | None:
    """The extra of a project that is for a kind of machine; for a Mac also that for processors, unless `exactly`.

    >>> extra_for("cuda", ["gpu", "dev"]), extra_for("mac", ["cpu", "gpu"]), extra_for("mac", ["cpu"], exactly=True)
    ('gpu', 'cpu', None)
    """
    found = next((one for one in extras if re.fullmatch(_EXTRAS[kind], one, re.IGNORECASE)), None)
    return extra_for("cpu", extras) if found is None and kind == "mac" and not exactly else found


def target_for(kind: str, machine: Machine) -> Chosen:
    """The target for a kind of machine, which is this `machine` where that is one."""
    linux = machine.platform if machine.platform in ("linux-x86_64", "linux-arm64") else "linux-x86_64"
    return choose(machine, "macos-arm64" if kind == "mac" else linux, _ACCELERATORS[kind])


def match_for(kind: str) -> dict[str, str]:
    """So that `auto` picks the profile on such machines."""
    return {"gpu": "*"} if kind == "cuda" else {}
