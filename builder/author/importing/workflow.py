"""Make a profile from an environment: read it, choose a target, write a valid profile, list what is left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from builder.author.importing.model import Imported, LeftOut, shown
from builder.author.importing.own import command_of, own_code
from builder.author.importing.target import Chosen, choose
from builder.author.importing.variables import settle
from builder.author.importing.write import profile_text
from builder.errors import ProfileError, UsageError, Where
from builder.files import display, write_new
from builder.machine import Machine
from builder.names import NAME_PATTERN
from builder.profile.load import read_part, resolved
from builder.profile.source import Source
from builder.project.catalogue import Catalogue
from builder.project.discovery import PROFILES_VARIABLE, profile_folders

_LARGEST = 16 << 20
_LARGEST_BY_HAND = 1 << 20
_KNOWN = (
    "requirements.txt, pyproject.toml, uv.lock, pylock.toml, environment.yml, a virtual environment, a shell script"
)


@dataclass(frozen=True)
class Options:
    """The options of the user: a name, a place, a target other than this machine, extras and dependency groups."""

    name: str | None = None
    output: Path | None = None
    platform: str | None = None
    accelerator: str | None = None
    extras: Sequence[str] = ()
    groups: Sequence[str] = ()


@dataclass(frozen=True)
class Made:
    """A written profile, and the items that it could not take."""

    name: str
    path: Path
    left_out: Sequence[LeftOut]
    notes: Sequence[str]


def import_profile(source: Path, options: Options, machine: Machine) -> Made:
    """Write a profile with the contents of `source`, a file or a virtual environment; `machine` is this one.

    Raises UsageError where a file is in the way, and ProfileError where `source` cannot be read or is invalid.
    """
    chosen = choose(machine, options.platform, options.accelerator)
    if options.name:  # before what is only read for it
        named(options, "")
    imported = read(source, chosen, options)
    own = source.absolute().name if source.is_dir() else source.absolute().parent.name
    name, path = named(options, imported.name or own)
    own_project = own_code(source, path, imported)
    if own_project.code is not None and not imported.command:
        imported.command = command_of(own_project.code, path.absolute().parent.parent)
    settle(imported, chosen.target, Where(source.name))
    for option in imported.options:  # a default that a variable has anyway
        setting = imported.env.get(option["from"])
        if not option["default"] and isinstance(setting, dict) and "default" in setting:
            option["default"] = setting["default"]
    text = profile_text(
        name, f"made by drydock import {shown(source.name)}", imported, chosen.table, project=own_project.path
    )
    check(name, text, path)
    write_new(path, text)
    said = notes(imported, chosen, path)
    return Made(name, path, imported.left_out, [*said, own_project.note] if own_project.note else said)


def read(source: Path, chosen: Chosen, options: Options) -> Imported:
    """Return the contents of `source`, read as the kind of file that its name says. Raises ProfileError."""
    if source.is_dir():
        _refuse_choice(options, source)
        from builder.author.importing.venv import read_venv

        return read_venv(source)
    text = text_of(source, by_hand=source.suffix not in (".toml", ".lock"))
    name, folder = source.name, Folder(source.absolute().parent)
    if name == "pyproject.toml":
        from builder.author.importing.pyproject import read_pyproject

        return read_pyproject(name, text, extras=options.extras, groups=options.groups)
    if name == "uv.lock" or re.fullmatch(r"pylock(\..+)?\.toml", name):
        from builder.author.importing.locks import read_pylock, read_uv_lock

        reader = read_uv_lock if name == "uv.lock" else read_pylock
        return reader(name, text, chosen.target, extras=options.extras, groups=options.groups)
    _refuse_choice(options, source)
    if source.suffix in (".yml", ".yaml"):
        from builder.author.importing.conda import read_environment

        return read_environment(name, text, folder.text)
    if source.suffix in (".sh", ".bash", ".zsh") or re.match(r"#!.*\b(ba|da|z|k)?sh\b", text):
        from builder.author.importing.shell import read_script

        return read_script(name, text, folder.text)
    if source.suffix in (".txt", ".in"):
        from builder.author.importing.requirements import read_requirements

        return read_requirements(name, text, folder.text)
    raise ProfileError("unknown kind of file", hint=f"known: {_KNOWN}", where=Where(display(source)))


def check(name: str, text: str, path: Path) -> None:
    """Raise ProfileError where `text` is not a valid profile."""
    own = read_part(name, Source(display(path), text))
    entry = Catalogue().entry(name)
    _ = resolved(own, entry.part).profile


def notes(imported: Imported, chosen: Chosen, path: Path) -> list[str]:
    """Return notes on what to look at in the profile."""
    found = list(chosen.guessed)
    if not imported.command:
        found.append(f"the command of the trainer is not known: [trainer] of {display(path)} says python train.py")
    found += [
        f"{one} is not on the default index, and its own is not known: name it in [indexes] and "
        f'[packages] index = {{ {canonicalize_name(one.name)} = "..." }}'
        for one in map(Requirement, imported.requires)
        if "+" in str(one.specifier) and canonicalize_name(one.name) not in imported.index
    ]
    if path.parent.resolve() not in [folder.resolve() for folder in profile_folders()]:
        found.append(
            f"Drydock does not look for profiles in {display(path.parent)}: set {PROFILES_VARIABLE}, or move the file"
        )
    if not imported.requires:
        found.append(f"no package is required: [packages] of {display(path)} is empty")
    return found


class Folder:
    """Files of one folder and those below it, and no others, whatever a link says."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def text(self, path: str, mentioned: Where) -> str:
        """The text of a file. Raises ProfileError, with the place where it is mentioned."""
        file = self._root / path
        if not file.resolve().is_relative_to(self._root.resolve()):
            raise ProfileError(
                f"{shown(path)} leads out of the folder", hint="copy that file into the folder", where=mentioned
            )
        try:
            return text_of(file, by_hand=True)
        except ProfileError as error:
            raise ProfileError(f"{shown(path)}: {error.message}", hint=error.hint, where=mentioned) from None


def text_of(path: Path, *, by_hand: bool) -> str:
    """Return the text of a foreign file. Raises ProfileError where it is not text, or too large."""
    where = Where(display(path))
    largest = _LARGEST_BY_HAND if by_hand else _LARGEST
    try:
        if path.exists() and not path.is_file():  # a device or a pipe never ends
            raise ProfileError("not a file", where=where)
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except OSError as error:
        raise ProfileError(f"cannot be read: {error.strerror}", where=where) from None
    if len(content) > largest:
        raise ProfileError(f"larger than {largest >> 20} MiB: not a file of this kind", where=where)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ProfileError("not text in UTF-8", where=where._replace(line=line)) from None
    if "\0" in text:
        raise ProfileError("not text: a NUL byte", where=where._replace(line=text[: text.index("\0")].count("\n") + 1))
    return text


def named(options: Options, proposed: str) -> tuple[str, Path]:
    """Return the name of the profile and its file, which must not exist. Raises UsageError."""
    name = options.name or (options.output.stem if options.output else slug(proposed))
    if not re.match(NAME_PATTERN, name) or not name.isprintable():
        raise UsageError(
            f"{shown(name)} is not a name for a profile",
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


def _refuse_choice(options: Options, source: Path) -> None:
    if options.extras or options.groups:
        raise UsageError(
            f"--extra and --group are for projects and their locks, and {source.name} is neither", hint="remove them"
        )
