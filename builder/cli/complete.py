"""Completions of the shells besides commands and options: asked for at every Tab, so quick, and silent on errors.

Nothing here imports pydantic. click shows everything that a function returns; the function selects what fits.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from builder.errors import DrydockError
from builder.project import user_config

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# A name from a folder of somebody else: a shell puts it on the line as it is, and would run code in it.
_PLAIN = r"[A-Za-z0-9_][A-Za-z0-9._:-]*"

_Complete = Callable[[click.Context, click.Parameter, str], "list[CompletionItem]"]


def _fitting(words: Callable[[click.Context, click.Parameter], Iterable[str]]) -> _Complete:
    """Return a completer for those of `words` that begin with the typed text; none where they cannot be found."""

    @wraps(words)
    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        found: list[str] = []
        with suppress(OSError, DrydockError, ValueError, KeyError, TypeError):
            user_config.apply(os.environ)  # the store may be elsewhere
            found = list(words(context, parameter))
        before = context.params.get(parameter.name or "")
        taken = before if isinstance(before, tuple) else ()
        return [
            CompletionItem(word)
            for word in found
            if word.startswith(incomplete) and word not in taken and re.fullmatch(_PLAIN, word)
        ]

    return complete


@_fitting
def profiles(_context: click.Context, parameter: click.Parameter) -> list[str]:
    """The names of profiles, and `auto` where a command takes it."""
    from builder.project.catalogue import Catalogue

    names = Catalogue().at_hand()
    return sorted([*names, "auto"]) if parameter.default == "auto" else names


def _first(file: str) -> dict[str, Any]:
    """The data of the first file of that name where profiles are; nothing where there is none."""
    import tomllib

    from builder.project.discovery import profile_folders

    paths = (folder / file for folder in profile_folders())
    found = next((path for path in paths if path.is_file()), None)
    return tomllib.loads(found.read_text(encoding="utf-8")) if found is not None else {}


@_fitting
def packages(context: click.Context, _parameter: click.Parameter) -> list[str]:
    """The packages in the lock of the profile that was named."""
    return [package["name"] for package in _first(f"{context.params['name']}.lock.toml").get("packages", ())]


DASHED = "drydock.dashed"
"""In the `meta` of a context: what comes now is another program's."""


def commands(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """A command of the profile, or after the dashes what `files` completes."""
    complete = files if context.meta.get(DASHED) else _commands
    return complete(context, parameter, incomplete)


@_fitting
def _commands(context: click.Context, _parameter: click.Parameter) -> list[str]:
    """The commands in the file of the profile that was named, and train, the trainer."""
    return ["train", *_first(f"{context.params['name']}.toml").get("commands", {})]


@_fitting
def numbers(context: click.Context, _parameter: click.Parameter) -> list[str]:
    """The generations of the profile that was named, the newest first."""
    from builder.store import generations

    return [str(one.number) for one in reversed(generations.generations(context.params["name"]))]


@_fitting
def runs(_context: click.Context, _parameter: click.Parameter) -> list[str]:
    """The ids of runs, the newest first."""
    from builder.run.records import folder

    return [one.id for one in reversed(folder.heads())]


@_fitting
def variables(_context: click.Context, _parameter: click.Parameter) -> Iterable[str]:
    """The environment variables that are known."""
    from builder.profile.variables import KNOWN

    return KNOWN


@_fitting
def keys(_context: click.Context, _parameter: click.Parameter) -> list[str]:
    """The keys of what is built."""
    from builder.store.layout import home

    names = (path.name for path in (home() / "store").iterdir())
    return sorted(name.partition("-")[0] for name in names if not name.startswith("."))


@_fitting
def settings(_context: click.Context, _parameter: click.Parameter) -> list[str]:
    """The settings of the user, but for mirrors, whose names are theirs."""
    return list(user_config.KEYS[:-1])


@_fitting
def caches(_context: click.Context, _parameter: click.Parameter) -> list[str]:
    """The caches that can be removed."""
    from builder.store.caches import CACHES

    return [one.name for one in CACHES]


def files(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files, as the shell itself completes them: for another program's arguments."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]
