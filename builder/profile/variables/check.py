"""Findings about environment variables: each by itself, and against each other."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from builder.embedded.secrets import is_secret
from builder.profile.variables.known import FOLKLORE, KNOWN, Variable
from builder.profile.variables.reading import UNWRITTEN

Acknowledgeable = Literal[
    "caution",
    "default",
    "deprecated",
    "mps-unlimited-memory",
    "near-miss",
    "nothing-reads-it",
    "other-target",
    "secret",
    "shadowed",
    "unknown-value",
]
"""The codes of findings that are settled by naming them: `acknowledge = ["..."]` beside the value."""

_HIGH = "PYTORCH_MPS_HIGH_WATERMARK_RATIO"
_LOW = "PYTORCH_MPS_LOW_WATERMARK_RATIO"


@dataclass(frozen=True)
class Finding:
    """What is wrong with the setting of the variable `name`.

    `refused`: it does what its author cannot mean, and the profile is not used. `source` says where the fact is
    written; it is empty for a rule of ours.
    """

    code: str
    name: str
    message: str
    hint: str | None = None
    source: str = ""
    refused: bool = False

    def __str__(self) -> str:
        words = [
            self.message,
            *([self.hint] if self.hint else []),
            *([f"source: {self.source}"] if self.source else []),
        ]
        return "; ".join(words)


def findings(
    env: Mapping[str, str | None],
    acknowledged: Mapping[str, Collection[str]] | None = None,
    *,
    platform: str | None = None,
    accelerator: str | None = None,
) -> list[Finding]:
    """What is wrong with `env`, in its order: name to value, None for a variable that is removed.

    `acknowledged` has the codes that are settled for a variable; one that settles nothing is a finding itself.
    `platform` and `accelerator` are those of a profile's target; without them every reader may be there.

    >>> [finding.message for finding in findings({"PYTORCH_MPS_HIGH_WATERMARK_RATIO": "0,7"})]
    ['"0,7" is read as 0.0 (strtod)']
    """
    here = {part for part in (platform, accelerator) if part}
    found = [finding for name, value in env.items() for finding in _alone(name, value, here)]
    if not any(finding.code == "value" for finding in found):
        found += _together(env, here)
    settled = {(name, code) for name, codes in (acknowledged or {}).items() for code in codes}
    order = list(env)
    left = [finding for finding in found if (finding.name, finding.code) not in settled]
    for name, code in sorted(settled - {(finding.name, finding.code) for finding in found}):
        left.append(Finding("unused-acknowledgement", name, f'there is no "{code}" to acknowledge', "remove it"))
    return sorted(left, key=lambda finding: order.index(finding.name))


def advise(name: str, value: str, *, platform: str | None = None, accelerator: str | None = None) -> list[Finding]:
    """What is wrong with one setting by itself, as it stands in a recipe that somebody copied.

    >>> [finding.code for finding in advise("PYTORCH_MPS_ALLOCATOR_POLICY", "garbage_collection")]
    ['nothing-reads-it']
    """
    return list(_alone(name, value, {part for part in (platform, accelerator) if part}))


def _alone(name: str, value: str | None, here: Collection[str]) -> Iterator[Finding]:
    if value is None:
        return
    if name in FOLKLORE:
        yield Finding("nothing-reads-it", name, "nothing reads it", FOLKLORE[name])
    elif name not in KNOWN:
        if value and is_secret(name):
            yield Finding(
                "secret",
                name,
                "a secret has no place in a profile, which is shared",
                "remove it, and export it where the trainer runs",
                refused=True,
            )
        elif near := _near(name):
            yield Finding("near-miss", name, f"not a variable that is known here; did you mean {near}?")
    elif not _is_there(KNOWN[name], here):
        variable = KNOWN[name]
        needed = "accelerator" if "cuda" in variable.on else "platform"
        message = f"nothing reads it on this target: {variable.reader} needs {needed} {' or '.join(variable.on)}"
        yield Finding("other-target", name, message, source=variable.source)
    else:
        yield from _read(KNOWN[name], value)


def _read(variable: Variable, value: str) -> Iterator[Finding]:
    """What is wrong with the value of a variable that is read."""
    name, source, reading = variable.name, variable.source, variable.read(value)
    if reading.problem is not None:
        message = f'"{value}" {reading.problem}'
        hint = f"allowed: {variable.allowed}" if value else "to remove a variable, write { unset = true }"
        if reading.problem == UNWRITTEN:
            yield Finding("unknown-value", name, message, hint, source)
        else:
            yield Finding("value", name, message, hint, source, refused=True)
        return
    if name == _HIGH and reading.value == 0.0:
        yield Finding(
            "mps-unlimited-memory",
            name,
            "0.0 lifts PyTorch's limit on memory: when it runs out, macOS may kill the trainer or freeze",
            f"set this and {_LOW} to cap the memory; or, if that is meant, write beside the value "
            'acknowledge = ["mps-unlimited-memory"]',
            source,
            refused=True,
        )
    if variable.instead is not None:
        yield Finding("deprecated", name, f"{variable.instead} has replaced it", source=source)
    if variable.caution is not None and _same(variable.caution[0], reading.value):
        yield Finding("caution", name, f'"{value}" {variable.caution[1]}', source=source)
    if variable.default is not None and _same(variable.read(variable.default).value, reading.value):
        yield Finding("default", name, f'"{value}" is the default of {variable.reader}', source=source)


def _same(one: object, other: object) -> bool:
    return one == other if not (isinstance(one, str) and isinstance(other, str)) else one.lower() == other.lower()


def _is_there(variable: Variable, here: Collection[str]) -> bool:
    return not variable.on or not here or any(place in here for place in variable.on)


def _together(env: Mapping[str, str | None], here: Collection[str]) -> Iterator[Finding]:
    """What is wrong between settings that are well by themselves."""
    if _is_there(KNOWN[_HIGH], here):
        yield from _watermarks(env)
    omp, mkl = env.get("OMP_NUM_THREADS"), env.get("MKL_NUM_THREADS")
    if omp is not None and mkl is not None and omp.strip() != mkl.strip():
        yield Finding(
            "shadowed",
            "OMP_NUM_THREADS",
            f"PyTorch uses MKL_NUM_THREADS={mkl} instead",
            "set both to the same value, or remove MKL_NUM_THREADS: { unset = true }",
            KNOWN["MKL_NUM_THREADS"].source,
        )
    forced, forbidden = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
    if all(KNOWN[name].read(env.get(name) or "0").value for name in (forced, forbidden)):
        message = f"with {forced} as well, torch.load ends with an exception"
        yield Finding("value", forbidden, message, "remove one of them", KNOWN[forbidden].source, refused=True)


def _watermarks(env: Mapping[str, str | None]) -> Iterator[Finding]:
    """PyTorch refuses a low watermark above the high one, and each has a default; a high one of 0.0 counts as 2.0."""

    def ratio(name: str) -> float:
        value = env.get(name)
        reading = KNOWN[name].read(value if value is not None else KNOWN[name].default or "").value
        return reading if isinstance(reading, float) else 0.0

    low, high = ratio(_LOW), ratio(_HIGH) or 2.0
    if low <= high:
        return
    message = f"PyTorch refuses a low watermark ({low:g}) above the high one ({high:g})"
    source = KNOWN[_LOW].source
    if env.get(_LOW) is None:
        message += f": without {_LOW} its default is {low:g}"
        yield Finding("watermarks", _HIGH, message, f'set it too: {_LOW} = "{high * 0.85:.2g}"', source, refused=True)
    else:
        if env.get(_HIGH) is None:
            message += f": without {_HIGH} its default is {high:g}"
        yield Finding("watermarks", _LOW, message, f"set it to {high:.12g} or less", source, refused=True)


def _near(name: str) -> str | None:
    """The known variable that `name` is probably meant to be: two letters off at most, or spelt another way."""
    for known in (*KNOWN, *FOLKLORE):
        if name.upper().replace("_", "") == known.replace("_", ""):
            return known
    if len(name) < 8:
        return None
    families = {known.split("_")[0] for known in KNOWN}
    family = name.split("_")[0]
    candidates = [known for known in KNOWN if family not in families or known.startswith(f"{family}_")]
    best = min(((_distance(name.upper(), known, 2), known) for known in candidates), default=(3, ""))
    return best[1] if best[0] <= 2 else None


def _distance(one: str, other: str, limit: int) -> int:
    """The edits from `one` to `other`: letters added, removed, changed, or swapped with the next; over `limit`: more.

    >>> _distance("OMP_NUM_THREAD", "OMP_NUM_THREADS", 2), _distance("WANBD", "WANDB", 2)
    (1, 1)
    """
    if abs(len(one) - len(other)) > limit:
        return limit + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        above, before, row = before, row, [i]
        for j, opposite in enumerate(other, 1):
            edits = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != opposite))
            if above and j > 1 and letter == other[j - 2] and one[i - 2] == opposite:
                edits = min(edits, above[j - 2] + 1)
            row.append(edits)
    return row[-1]
