"""Build an environment, and what is done with one: run the trainer, open a shell, verify. All through one script."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from builder import process, store
from builder.errors import BuildError, UsageError
from builder.evaluate import Evaluation, evaluate
from builder.report import Reporter

if TYPE_CHECKING:
    from builder.probe import Machine

_SH = "/bin/sh"


def build(name: str, report: Reporter, *, dry_run: bool = False) -> Path:
    """Build the environment of the profile `name` where it is not there, and give its path.

    Raises ProfileError, LockError, or BuildError with the script's own words.
    """
    name = resolve_auto(name, report)
    evaluation = evaluate(name)
    path = store.environment_path(evaluation.store_name)
    if store.is_built(evaluation.store_name):
        report.step(f"{name} is built")
    elif dry_run:
        report.step(f"{name} would be built")
    else:
        _run_build(name, evaluation, report)
    return path


def run(name: str, arguments: Sequence[str], report: Reporter) -> NoReturn:
    """Become the trainer of `name`, built first where it is not there."""
    name = resolve_auto(name, report)
    evaluation = evaluate(name)
    if not store.is_built(evaluation.store_name):
        _run_build(name, evaluation, report)
    _become(evaluation, ["--", *arguments])


def shell(name: str, report: Reporter) -> NoReturn:
    """Become a shell in the environment of `name`, built first where it is not there."""
    name = resolve_auto(name, report)
    evaluation = evaluate(name)
    if not store.is_built(evaluation.store_name):
        _run_build(name, evaluation, report)
    _become(evaluation, ["--shell"])


def verify(name: str, report: Reporter) -> NoReturn:
    """Become the verification of `name`: a line per finding, exit status 1 where one is bad."""
    _become(evaluate(resolve_auto(name, report)), ["--verify"])


def resolve_auto(name: str, report: Reporter) -> str:
    """The profile that `auto` means on this machine; any other name is itself. Raises UsageError where none fits."""
    if name != "auto":
        return name
    from builder import probe

    machine = probe.detect()
    best = pick(machine)
    if best is None:
        raise UsageError(f"no profile is for this machine ({machine})", hint="drydock profile list shows them all")
    report.step(f"auto: {best} ({machine})")
    return best


def pick(machine: Machine) -> str | None:
    """The profile whose [target.match] fits a machine best; None where none does."""
    from builder import probe
    from builder.catalogue import Catalogue

    catalogue = Catalogue()
    fitting = []
    for name in catalogue.names():
        target = catalogue.target(name)
        score = None if target is None else probe.fit(target, machine)
        if score is not None:
            fitting.append((score, name))
    return max(fitting)[1] if fitting else None


def _run_build(name: str, evaluation: Evaluation, report: Reporter) -> None:
    """Run the script through plumbum; its steps become ours, and its error our error."""
    from builder import uv

    errors: list[str] = []
    hints: list[str] = []
    details: list[str] = []

    def line(text: str) -> None:
        if text.startswith("drydock: error: "):
            errors.append(text.removeprefix("drydock: error: "))
        elif text.startswith("drydock:   hint: "):
            hints.append(text.removeprefix("drydock:   hint: "))
        elif text.startswith("drydock: "):
            report.step(text.removeprefix("drydock: "))
        elif text.strip():
            details.append(text)
            report.detail(text.strip())

    # The uv that came with Drydock: none is fetched.
    environment = {**os.environ, "DRYDOCK_UV": uv.executable()}
    with report.busy(f"building {name}"):
        code = process.stream([_SH, str(evaluation.script), "--build-only"], line, env=environment)
    if code:
        report.failed()
        hint = uv.hint("\n".join(details)) or "; ".join(hints) or None
        raise BuildError("; ".join(errors) or _ended(name, code), exit_code=code, hint=hint)


def _ended(name: str, code: int) -> str:
    if code in (128 + number for number in signal.Signals):
        return f"the build of {name} was stopped by {signal.Signals(code - 128).name}"
    return f"the build of {name} ended with exit status {code}"


def _become(evaluation: Evaluation, arguments: Sequence[str]) -> NoReturn:
    process.replace([_SH, str(evaluation.script), *arguments])
