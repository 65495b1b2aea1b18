"""The reader for a file, by what it is called; what it names is read in its folder alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.author.importing.target import Chosen
from builder.errors import ProfileError, UsageError, Where
from builder.files import display
from builder.project.requirements.files import paths_of
from builder.project.requirements.model import Imported, decoded, safe_excerpt
from builder.project.requirements.pyproject import Wanted

_LARGEST = 16 << 20
_LARGEST_BY_HAND = 1 << 20
KNOWN = (
    "requirements.txt, pyproject.toml, setup.cfg, setup.py, uv.lock, poetry.lock, pylock.toml, environment.yml, "
    "pixi.toml, Dockerfile, a virtual environment, a shell script, a Python script with a block of requirements"
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
class _Asked:
    """A file to read: its path from the folder of the project, its text, and what is wanted of it."""

    path: str
    text: str
    folder: Folder
    wanted: Wanted
    chosen: Chosen


def read(source: Path, chosen: Chosen, options: Options) -> Imported:
    """Return the contents of `source`, read as the kind of file that its name says. Raises ProfileError."""
    if source.is_dir():
        _refuse_choice(options, source)
        from builder.author.importing.venv import read_venv

        return read_venv(source)
    text = text_of(source, by_hand=source.suffix not in (".toml", ".lock"))
    reader = _reader(source.name, text)
    if reader is None:
        raise ProfileError("unknown kind of file", hint=f"known: {KNOWN}", where=Where(display(source)))
    if reader not in _WITH_EXTRAS:
        _refuse_choice(options, source)
    root = folder_of(source)
    path = source.absolute().relative_to(root).as_posix()
    python = python_of(source.absolute().parent) or python_of(root)
    # A profile has paths from the folder of its project, which is where one stands, unless it is written elsewhere.
    here = options.output is None or options.output.absolute().parent.parent == Path.cwd()
    local = paths_of(root) if here and root == Path.cwd() else None
    wanted = Wanted(options.extras, options.groups, chosen.target, python, local=local)
    found = reader(_Asked(path, text, Folder(root), wanted, chosen))
    found.python = found.python or python
    return found


def folder_of(source: Path) -> Path:
    """The folder whose files a file may name: where one stands, if it is there or below, else its own."""
    here = Path.cwd()
    return here if source.absolute().is_relative_to(here) and ".." not in source.parts else source.absolute().parent


def python_of(folder: Path) -> str | None:
    """The Python that a `.python-version` names, such as "3.12"; None where there is none."""
    try:
        with (folder / ".python-version").open("rb") as file:
            text = file.read(1000).decode("utf-8", "replace")
    except OSError:
        return None
    found = re.search(r"^\s*(?:cpython-|python-?)?(3\.\d+)(?:\.\d+)?\s*$", text, re.MULTILINE)
    return found[1] if found else None


def _reader(name: str, text: str) -> Callable[[_Asked], Imported] | None:
    for pattern, reader in _READERS.items():
        if re.fullmatch(pattern, name):
            return reader
    return _script if re.match(r"#!.*\b(ba|da|z|k)?sh\b", text) else None


def _pyproject(asked: _Asked) -> Imported:
    from builder.project.requirements.pip import read_project

    return read_project(asked.path, asked.text, asked.wanted, asked.folder.text)


def _uv_lock(asked: _Asked) -> Imported:
    from builder.author.importing.locks import read_uv_lock

    wanted, target = asked.wanted, asked.chosen.target
    return read_uv_lock(
        asked.path, asked.text, target, extras=wanted.extras, groups=wanted.groups, python=wanted.python
    )


def _pylock(asked: _Asked) -> Imported:
    from builder.author.importing.locks import read_pylock

    wanted, target = asked.wanted, asked.chosen.target
    return read_pylock(asked.path, asked.text, target, extras=wanted.extras, groups=wanted.groups, python=wanted.python)


def _poetry_lock(asked: _Asked) -> Imported:
    from builder.author.importing.locks import read_poetry_lock

    wanted = asked.wanted
    if wanted.extras:
        raise UsageError("--extra is not for a poetry.lock", hint="import its pyproject.toml")
    return read_poetry_lock(asked.path, asked.text, asked.chosen.target, groups=wanted.groups, python=wanted.python)


def _conda(asked: _Asked) -> Imported:
    from builder.author.importing.conda import read_environment

    return read_environment(asked.path, asked.text, asked.folder.text)


def _pixi(asked: _Asked) -> Imported:
    from builder.author.importing.pixi import read_pixi

    return read_pixi(asked.path, asked.text, asked.chosen.target)


def _dockerfile(asked: _Asked) -> Imported:
    from builder.author.importing.dockerfile import read_dockerfile

    return read_dockerfile(asked.path, asked.text, asked.folder.text)


def _script(asked: _Asked) -> Imported:
    from builder.author.importing.shell import read_script

    return read_script(asked.path, asked.text, asked.folder.text)


def _requirements(asked: _Asked) -> Imported:
    from builder.project.requirements.pip import read_requirements

    return read_requirements(asked.path, asked.text, asked.folder.text, asked.wanted)


def _inline(asked: _Asked) -> Imported:
    from builder.project.requirements.pyproject import read_inline

    return read_inline(asked.path, asked.text, asked.wanted)


_READERS: dict[str, Callable[[_Asked], Imported]] = {
    r"pyproject\.toml|setup\.(cfg|py)": _pyproject,
    r"uv\.lock": _uv_lock,
    r"poetry\.lock": _poetry_lock,
    r"pylock(\..+)?\.toml": _pylock,
    r"pixi\.toml": _pixi,
    r".+\.ya?ml": _conda,
    r"(?i:dockerfile|containerfile)([.-].+)?|.+\.(?i:dockerfile)": _dockerfile,
    r".+\.(sh|bash|zsh|sbatch|slurm)": _script,
    r".+\.(txt|in)": _requirements,
    r".+\.py": _inline,
}
_WITH_EXTRAS = (_pyproject, _uv_lock, _pylock, _poetry_lock)


class Folder:
    """Files of one folder and those below it, and no others, whatever a link says."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def text(self, path: str, mentioned: Where) -> str:
        """The text of a file. Raises ProfileError, with the place where it is mentioned."""
        file = self._root / path
        if not file.resolve().is_relative_to(self._root.resolve()):
            raise ProfileError(
                f"{safe_excerpt(path)} leads out of the folder", hint="copy that file into the folder", where=mentioned
            )
        try:
            return text_of(file, by_hand=True)
        except ProfileError as error:
            raise ProfileError(f"{safe_excerpt(path)}: {error.message}", hint=error.hint, where=mentioned) from None


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
    return decoded(content, where)


def _refuse_choice(options: Options, source: Path) -> None:
    if options.extras or options.groups:
        raise UsageError(
            f"--extra and --group are for projects and their locks, and {source.name} is neither", hint="remove them"
        )
