"""The trainer of a repository: what its shell scripts start, or the script whose name says that it trains.

Only what exists is chosen, and nothing of it is run. Where several are as likely, none is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from builder.author.importing.shell import may_train, read_script
from builder.errors import DrydockError, ProfileError, Where
from builder.files import display
from builder.project.requirements.model import decoded

_NAMES = ("train.py", "main.py", "run.py")
_FOLDERS = (".", "scripts", "runs", "run", "bin", "examples", "src", "tools", "recipes", "training", "slurm")
_MOST_FILES = 200
_LARGEST = 1 << 20
_STARTS = re.compile(r"^if __name__\s*==|^\s*(?:app|main|fire\.Fire|tyro\.cli|typer\.run)\(", re.MULTILINE)
_SMALL = re.compile(r"(^|[-_.])?(cpu|mps|mac|local|single)", re.IGNORECASE)


@dataclass(frozen=True)
class Trainer:
    """A trainer's command with its options and the commands beside it, and what is to be said of the choice."""

    command: list[str] = field(default_factory=list)
    options: list[dict[str, str]] = field(default_factory=list)
    commands: dict[str, list[str]] = field(default_factory=dict)
    note: str | None = None


def find(folder: Path, accelerator: str) -> Trainer:
    """Return the trainer of the repository in `folder`, for a machine with that accelerator; without a command where
    none is found.
    """
    if (name := next((one for one in _NAMES if (folder / one).is_file()), None)) is not None:
        return Trainer(["python", name])
    if (found := _of_scripts(folder, accelerator)) is not None:
        return found
    likely = [path for path in _python_files(folder) if may_train(_dotted(path, folder))]
    exact = [path for path in likely if path.stem.lower() == "train"]
    top = [path for path in likely if path.parent == folder]
    chosen = next((some for some in (exact, top) if len(some) == 1), likely)
    if not chosen:
        chosen = [path for path in folder.glob("*.py") if _starts(path)]
    if len(chosen) == 1:
        return Trainer(_command_of(chosen[0], folder))
    if chosen:
        names = ", ".join(display(path) for path in chosen[:6]) + (" and more" if chosen[6:] else "")
        return Trainer(note=f"several scripts may be the trainer: {names}")
    return Trainer()


def _of_scripts(folder: Path, accelerator: str) -> Trainer | None:
    """What the likeliest shell script starts that is there."""
    found = []
    for path in _files(folder, ".sh", ".bash", ".sbatch", ".slurm"):
        try:
            read = read_script(display(path), _text(path), lambda *_: "")  # what it installs is not asked for
        except DrydockError:
            continue
        script = _script_of(read.command)
        if script is None or not _is_file(script, folder):
            continue
        trains = may_train(script)
        if trains or re.match(r"(run|start|launch)", path.stem):
            fits = (accelerator == "cuda") != bool(_SMALL.search(path.stem) or read.command[0] == "python")
            unknown = sum("[trainer]" in one.why for one in read.left_out)
            found.append((not trains, not fits, unknown, len(path.parts), display(path), read))
    if not found:
        return None
    *_, name, read = min(found, key=lambda one: one[:5])
    others = sorted(one[4] for one in found if one[4] != name)
    more = f"; others: {', '.join(others[:5])}{' and more' if others[5:] else ''}" if others else ""
    note = f"the trainer is what {name} starts (its variables: drydock import {name}){more}"
    commands = {
        name: command
        for name, command in read.commands.items()
        if (script := _script_of(command)) is not None and _is_file(script, folder)
    }
    return Trainer(read.command, read.options, commands, note)


def _script_of(command: Sequence[str]) -> str | None:
    """The script or module that a command starts, a module with dots; None for a program."""
    for before, word in pairwise(command):
        if before in ("-m", "--module") or word.endswith(".py"):
            return word
    return None


def _is_file(script: str, folder: Path) -> bool:
    """Whether a script or module is in the repository."""
    if script.endswith(".py"):
        return (folder / script).is_file()
    module = folder / script.replace(".", "/")
    return module.with_suffix(".py").is_file() or (module / "__main__.py").is_file()


def _files(folder: Path, *suffixes: str) -> Iterator[Path]:
    """The files of a repository that end so, in the folders where such things are, in their order."""
    count = 0
    for place in _FOLDERS:
        for path in sorted((folder / place).glob("*")) if (folder / place).is_dir() else ():
            if path.suffix in suffixes and path.is_file() and not path.is_symlink():
                count += 1
                if count > _MOST_FILES:
                    return
                yield path


def _python_files(folder: Path) -> Iterator[Path]:
    packages = [path.parent for root in ("", "src/") for path in sorted(folder.glob(f"{root}*/__init__.py"))]
    inner = (path for package in packages[:20] for path in sorted(package.glob("*.py")))
    for path in dict.fromkeys([*_files(folder, ".py"), *inner]):
        if not re.match(r"test_|conftest|setup$|__", path.stem) and _starts(path):
            yield path


def _starts(path: Path) -> bool:
    try:
        return _STARTS.search(_text(path)) is not None
    except DrydockError:
        return False


def _dotted(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix().rpartition("/")[2]


def _command_of(path: Path, folder: Path) -> list[str]:
    """How a script is started: one of a package as a module."""
    relative = path.relative_to(folder)
    if (path.parent / "__init__.py").is_file() and path.parent != folder:
        parts = relative.with_suffix("").parts
        return ["python", "-m", ".".join(parts[1:] if parts[0] == "src" else parts)]
    return ["python", relative.as_posix()]


def _text(path: Path) -> str:
    where = Where(display(path))
    try:
        with path.open("rb") as file:
            return decoded(file.read(_LARGEST), where)
    except OSError as error:
        raise ProfileError(f"cannot be read: {error.strerror}", where=where) from None
