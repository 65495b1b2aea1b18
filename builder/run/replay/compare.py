"""Compares what two runs of a trainer printed, as text: no number is parsed, so none is rounded."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from builder.run.records.summary import Losses

STEP = r"\bsteps?\W{1,4}([0-9]+)"
"""How a line says which step it is of, where the profile does not say how."""

_NUMBER = r"[-+]?[0-9]+(?:[.,][0-9]+)*(?:e[-+]?[0-9]+)?"
# What differs from run to run and is no result: clocks, times taken, speeds, memory, addresses.
_VOLATILE = re.compile(
    "|".join(
        (
            r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ]?",
            r"\b[0-9]{1,3}(?::[0-9]{2}){1,2}(?:[.,][0-9]+)?\b",
            r"\b0x[0-9a-f]{6,}\b",
            rf"(?<=[\"' ,{{(\[])[\w./-]*(?:time|elapsed|seconds|runtime|duration|per_second|per_sec|speed|throughput|"
            rf"timestamp|memory|pid)[\"']?\s*[:=]\s*[\"']?{_NUMBER}",
            rf"(?<![\w.]){_NUMBER}\s*(?:[a-z]+/s(?:ec(?:ond)?)?|s/[a-z]+|[kmg]i?b|ms|s|secs?|seconds?|minutes?|mins?|"
            r"hours?)\b",
            r"\?[a-z]+/s\b",  # tqdm, before it knows
            # Speed by other names: mfu 0.02% of nanoGPT, tok/sec: 34,000 of nanochat, ms/batch 23.80 and
            # "Time  0.456 ( 0.512)" of PyTorch's examples, wps=1234 of fairseq, "elapsed time (ms): 12.3".
            rf"\b(?:[mh]fu|[a-z]?flops|[a-z]+/s(?:ec(?:onds?)?)?|(?:m?s|secs?|seconds?)/[a-z]+)\b\s*[:=]?\s*{_NUMBER}%?",
            rf"\b(?:wps|ups|(?:train_)?wall)\s*[:=]\s*{_NUMBER}",
            rf"\b(?:time|data)\s+{_NUMBER}\s+\(\s*{_NUMBER}\s*\)",
            rf"\belapsed[\w ()]{{0,40}}:\s*{_NUMBER}",
        )
    ),
    re.I,
)
_MASK = "…"


@dataclass(frozen=True)
class Difference:
    """The first line that differs, counted from 1 among those compared; None for a run that has printed no such line.

    `step` is the step that the line names, or "".
    """

    line: int
    step: str
    first: str | None
    second: str | None


@dataclass(frozen=True)
class Comparison:
    """How many lines were compared, with losses or all, how many were the same, and the first difference, if any."""

    losses: bool
    compared: int
    same: int
    difference: Difference | None


def masked(line: str) -> str:
    """A line without what differs from run to run and is no result.

    >>> masked("step  12  loss 2.530  37.9 steps/s")
    'step  12  loss 2.530  …'
    >>> masked("{'loss': 0.25, 'grad_norm': 1.5, 'train_runtime': 3.2, 'epoch': 1.0}")
    "{'loss': 0.25, 'grad_norm': 1.5, '…, 'epoch': 1.0}"
    >>> masked("iter 10: loss 3.7334, time 75.57ms, mfu -100.00%"), masked("loss: 2.5 | tok/sec: 34,000 | mfu: 2.1")
    ('iter 10: loss 3.7334, time …, …', 'loss: 2.5 | … | …')
    >>> masked("| lr 5.00 | ms/batch 12.03 | loss  6.27"), masked("Time  0.456 ( 0.512)\\tLoss 6.9e+00 (7.0e+00)")
    ('| lr 5.00 | … | loss  6.27', '…\\tLoss 6.9e+00 (7.0e+00)')
    >>> masked("2026-11-26 13:15:28,123 loss=1.5e-3 [00:01<00:10, 5.1it/s]")
    '…… loss=1.5e-3 […<…, …]'
    """
    return _VOLATILE.sub(_MASK, line)


def lines(output: bytes) -> list[str]:
    """The lines of an output as a screen has them in the end, without those that are empty.

    >>> lines(b"1/3\\r2/3\\r3/3 loss=1\\nend\\n")
    ['3/3 loss=1', 'end']
    """
    found = (line.rstrip("\r").rpartition("\r")[2].strip() for line in output.decode(errors="replace").split("\n"))
    return [line for line in found if line]


def compare(
    first: Sequence[bytes], second: Sequence[bytes], step: str = STEP, patterns: Mapping[str, str] | None = None
) -> Comparison:
    """Compare the outputs of two runs, each with its stdout and its stderr.

    Where one has printed a loss, the lines with losses are compared, and nothing else; else all of stdout. Warnings and
    progress are no results. `step` is a regular expression whose group is the number of a step; `patterns` are those of
    losses, by name, that the profile has.
    """
    printed_losses = Losses(patterns)

    def losses_of(line: str) -> list[str]:
        return [found.text for found in printed_losses.find(line.encode())]

    printed = [[[masked(line) for line in lines(stream)] for stream in run] for run in (first, second)]
    losses = any(losses_of(line) for run in printed for stream in run for line in stream)
    if losses:
        chosen = [[line for stream in run for line in stream if losses_of(line)] for run in printed]
    else:
        chosen = [run[0] for run in printed]
    pairs = list(zip_longest(*chosen))
    for number, (one, other) in enumerate(pairs):
        if one != other:
            named = re.search(step, one or other or "", re.I)
            shown = _parted(one, other, losses_of)
            return Comparison(losses, len(pairs), number, Difference(number + 1, named[1] if named else "", *shown))
    return Comparison(losses, len(pairs), len(pairs), None)


def _parted(one: str | None, other: str | None, losses_of: Callable[[str], list[str]]) -> tuple[str | None, str | None]:
    """What to show of two lines that differ: their losses, where it is these that differ; else all of them."""
    if one is not None and other is not None:
        found = [losses_of(line) for line in (one, other)]
        if found[0] and found[0] != found[1]:
            return ", ".join(found[0]), ", ".join(found[1])
    return one, other
