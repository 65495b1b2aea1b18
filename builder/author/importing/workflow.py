"""Make a profile from an environment: read it, choose a target, write a valid profile, list what is left out."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from builder.author.importing.own import command_of, own_code
from builder.author.importing.readers import Options, read, text_of
from builder.author.importing.target import Chosen, choose, of_cuda, with_cuda_of
from builder.author.importing.trainer import Trainer, find
from builder.author.importing.variables import settle
from builder.author.importing.write import profile_text
from builder.errors import DrydockError, UsageError, Where
from builder.files import display, write_atomically, write_new
from builder.lock.builds import CudaError
from builder.machine import Machine
from builder.names import NAME_PATTERN
from builder.profile import pytorch
from builder.profile.load import read_part, resolved
from builder.profile.source import Source
from builder.project.catalogue import Catalogue
from builder.project.discovery import PROFILES_VARIABLE, profile_folders
from builder.project.lock import relock
from builder.project.requirements.indexes import for_target
from builder.project.requirements.model import Imported, LeftOut, safe_excerpt
from builder.report import PlainReporter, Reporter


@dataclass(frozen=True)
class Made:
    """A written profile, and the items that it could not take."""

    name: str
    path: Path
    left_out: Sequence[LeftOut]
    notes: Sequence[str]


def import_profile(source: Path, options: Options, machine: Machine, report: Reporter) -> Made:
    """Write a profile with the contents of `source`, a file or a virtual environment; `machine` is this one.

    Where nothing says for which CUDA, it is that of the packages that the indexes have; a guess where none answers.
    Raises UsageError where a file is in the way, and ProfileError where `source` cannot be read or is invalid.
    """
    chosen = choose(machine, options.platform, options.accelerator)
    if options.name:  # before what is only read for it
        named(options, "")
    imported = read(source, chosen, options)
    chosen = with_cuda_of(chosen, imported, "" if source.is_dir() else text_of(source, by_hand=False))
    for_target(imported, chosen.target, Where(source.name))
    own = source.absolute().name if source.is_dir() else source.absolute().parent.name
    name, path = named(options, imported.name or own)
    own_project = own_code(source, path, imported)
    if own_project.code is not None and not imported.command:
        imported.command = command_of(own_project.code, path.absolute().parent.parent)
    found = set_trainer(imported, source, chosen)
    settle(imported, chosen.target, Where(source.name))
    for option in imported.options:  # a default that a variable has anyway
        setting = imported.env.get(option["from"])
        if not option["default"] and isinstance(setting, dict) and "default" in setting:
            option["default"] = setting["default"]

    def text_for(one: Chosen) -> str:
        about = f"made by drydock import {safe_excerpt(source.name)}"
        return profile_text(name, about, imported, one.table, project=own_project.path)

    check(name, text_for(chosen), path)
    write_new(path, text_for(chosen))
    if _can_ask(chosen, imported) and (release := _cuda_that_locks(name, report)) is not None:
        chosen = of_cuda(chosen, release)
        write_atomically(path, text_for(chosen))
    said = [*notes(imported, chosen, path), *([found] if found is not None else [])]
    return Made(name, path, imported.left_out, [*said, own_project.note] if own_project.note else said)


def _can_ask(chosen: Chosen, imported: Imported) -> bool:
    """Whether the CUDA is a guess that indexes can answer: nothing is fetched here from places that others wrote."""
    return bool(chosen.target.cuda and chosen.guessed) and not any(Requirement(one).url for one in imported.requires)


def _cuda_that_locks(name: str, report: Reporter) -> str | None:
    """The CUDA of the packages that a new profile would lock; None where that could not be found out."""
    with report.busy("asking the indexes for which CUDA the packages are"):
        try:
            relock(name, Catalogue(), PlainReporter(io.StringIO()), dry_run=True)
        except CudaError as error:
            return error.release
        except DrydockError:
            return None
    return Catalogue().profile(name).target.cuda


def set_trainer(imported: Imported, source: Path, chosen: Chosen) -> str | None:
    """Set the trainer of the repository that `source` is at the top of, if nothing else says it; returns a note on it.

    Only where one stands in it: its paths are relative to that folder.
    """
    if imported.command or source.is_dir() or source.absolute().parent != Path.cwd():
        return None
    trainer = find(Path.cwd(), chosen.target.accelerator)
    use(trainer, imported)
    return trainer.note


def use(trainer: Trainer, imported: Imported) -> None:
    """Take a trainer for that of a profile, and the commands beside it."""
    imported.command, imported.options = trainer.command, trainer.options
    imported.commands = {**trainer.commands, **imported.commands}


def check(name: str, text: str, path: Path) -> None:
    """Raise ProfileError where `text` is not a valid profile."""
    own = read_part(name, Source(display(path), text))
    entry = Catalogue().entry(name)
    _ = resolved(own, entry.part).profile


def notes(imported: Imported, chosen: Chosen, path: Path) -> list[str]:
    """Return notes on what to look at in the profile."""
    found = list(chosen.guessed)
    if not imported.command:
        found.append(
            f"no trainer was found: [trainer] of {display(path)} says python train.py, a file that does not exist; "
            "set the command there"
        )
    found += [
        f"{one} is not on the default index, and its own is not known: name it in [indexes] and "
        f'[packages] index = {{ {canonicalize_name(one.name)} = "..." }}'
        for one in map(Requirement, imported.requires)
        if "+" in str(one.specifier) and canonicalize_name(one.name) not in [*imported.index, *pytorch.PACKAGES]
    ]
    if path.parent.resolve() not in [folder.resolve() for folder in profile_folders()]:
        found.append(
            f"Drydock does not look for profiles in {display(path.parent)}: set {PROFILES_VARIABLE}, or move the file"
        )
    if not imported.requires:
        found.append(f"no package is required: [packages] of {display(path)} is empty")
    return found


def named(options: Options, proposed: str) -> tuple[str, Path]:
    """Return the name of the profile and its file, which must not exist. Raises UsageError."""
    name = options.name or (options.output.stem if options.output else slug(proposed))
    if not re.match(NAME_PATTERN, name) or not name.isprintable():
        raise UsageError(
            f"{safe_excerpt(name)} is not a name for a profile",
            hint="lower-case letters, digits and -, for instance --name desk",
        )
    path = options.output or profile_folders()[0] / f"{name}.toml"
    if path.name != f"{name}.toml":
        raise UsageError(f"the profile {name} must be in a file {name}.toml", hint=f"-o {path.with_name(name)}.toml")
    if path.exists() or path.is_symlink():
        raise UsageError(f"{display(path)} already exists", hint="use another name: --name")
    if options.name is None and options.output is None and name in Catalogue().names():
        raise UsageError(f'a profile "{name}" already exists', hint="use another name: --name")
    return name, path


def slug(text: str) -> str:
    """Return a profile's name for any other name.

    >>> slug("My_Project 2"), slug("../../x"), slug("-rf")
    ('my-project-2', 'x', 'rf')
    """
    plain = canonicalize_name(re.sub(r"[^A-Za-z0-9]+", "-", text)).strip("-")[:60].strip("-")
    return re.sub(r"-([0-9]+)-link$", r"-\1", plain) or "imported"
