"""What in a profile, its lock and its trainer's code contradicts `determinism = "strict"`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from builder.embedded import state
from builder.errors import DrydockError, Where
from builder.files import display
from builder.profile.detect import Choice, Detect
from builder.profile.load import detected
from builder.profile.model import Profile
from builder.profile.variables import Finding
from builder.profile.variables.determinism import contradictions as found_in
from builder.project.catalogue import Entry


def contradictions(entry: Entry) -> Iterator[tuple[Where, Finding]]:
    """What contradicts it, each with its place. Raises ProfileError."""
    profile = entry.profile
    file, code = _code(entry)
    found = found_in(
        {name: setting.text for name, setting in profile.env.items() if setting.text is not None},
        packages=_packages(entry),
        detected=[*sorted(detected(profile)), *_detected_arguments(profile)],
        arguments=" ".join(_arguments(profile)),
        code=code,
        accelerator=profile.target.accelerator,
    )
    for line, finding in found:
        own = ("env", finding.name) if finding.name in profile.env else ("determinism",)
        yield (Where(file, line) if line is not None else entry.resolved.where(*own)), finding


def _packages(entry: Entry) -> set[str]:
    """The packages of the lock; of a profile without one those that it requires."""
    with suppress(DrydockError):
        return set(entry.lock.versions())
    return {canonicalize_name(Requirement(text).name) for text in entry.profile.packages.requires}


def _arguments(profile: Profile) -> Iterator[str]:
    trainer = profile.trainer
    yield from trainer.command or ()
    yield from (one if isinstance(one, str) else str(one.fallback) for one in trainer.arguments)
    yield from (option.flag for option in trainer.options)


def _detected_arguments(profile: Profile) -> Iterator[str]:
    """The words before those that are detected: --workers, of --workers N."""
    before = ""
    for one in profile.trainer.arguments:
        if isinstance(one, Detect | Choice):
            yield before
        else:
            before = one
    yield from (option.flag for option in profile.trainer.options if isinstance(option.default, Detect | Choice))


def _code(entry: Entry) -> tuple[str, str | None]:
    """The file with the trainer's code, and its text; None where it is a module, or not of this project."""
    trainer = entry.profile.trainer
    if trainer.file is not None:
        beside = entry.path.with_name(trainer.file)
        return display(beside) if beside.is_file() else trainer.file, entry.texts[trainer.file]
    for word in trainer.command or ():
        path = Path(entry.project_folder, word)
        if word.endswith(".py") and path.resolve().is_relative_to(entry.project_folder.resolve()):
            return display(path), state.read_text(path, follow=True)
    return "", None
