"""`drydock help`: the help of a command, or a topic that belongs to no command alone."""

from __future__ import annotations

import click

from builder.errors import UsageError
from builder.names import meant

VARIABLES = {
    "DRYDOCK_HOME": "where everything is kept; default: $XDG_DATA_HOME/drydock, else ~/.local/share/drydock",
    "DRYDOCK_PROFILES": "folders of profiles, instead of ./profiles; several with a colon between them",
    "DRYDOCK_PYTHON": "the Python that environments are built on, and that scripts use for their own work",
    "DRYDOCK_UV": "the uv to use, instead of the one that came with Drydock",
    "DRYDOCK_CACHE": "places of locked files, asked before any index: folders, http, https; white space between them",
    "DRYDOCK_INDEX_NAME": "a mirror of the index NAME of a profile's [indexes]",
    "DRYDOCK_SECRETS": "the file of a trainer's secrets; default: ~/.config/drydock/secrets",
    "DRYDOCK_PROJECT": "the folder of the project whose code a script imports",
    "DRYDOCK_ANY_GPU": "1: a script for CUDA goes on where its wheels do not fit the GPU or the driver",
    "DRYDOCK_RECORDS": "0: runs are not recorded",
    "DRYDOCK_IMAGE": "an image of `drydock image` that a script trains from, or the folder where it is mounted",
    "DRYDOCK_BUNDLE": "the bundle that a job of Slurm copies to its nodes, to build from",
    "DRYDOCK_BUNDLE_KEY": "the key that the environment of a bundle must have, or it does not run",
    "DRYDOCK_MINISIGN_PUBKEY": "the minisign key that must have signed a bundle, or it does not run",
}
"""Drydock's own variables that people set."""

INTERNAL = {
    "DRYDOCK_DATA_NAME",
    "DRYDOCK_END",
    "DRYDOCK_FOLDER",
    "DRYDOCK_FOR",
    "DRYDOCK_PATCHED",
    "DRYDOCK_PROGRESS",
    "DRYDOCK_SUPERVISED",
}
"""Names that Drydock gives to what it starts itself."""

STATUSES = {
    "0": "done",
    "1": "failed; the message says what, where, and what to do",
    "2": "the command line, or a profile's file name, is wrong: nothing was begun",
    "130": "interrupted (SIGINT); 128 + N for another signal N",
    "any": "of `run` and `shell`: the program's own",
}
"""What a command exits with."""

FILES = {
    "profiles/NAME.toml": "a profile: what you write",
    "profiles/NAME.lock.toml": "its lock: each file by sha256; `drydock lock` writes it, you commit it",
    "generated/NAME/": "its scripts: `drydock render` writes them, you commit them",
    "drydock.toml": "the project: sources, caches, [project], required-version",
    "drydock.lock.toml": "the pinned sources; `drydock sources lock` writes it",
    "~/.local/share/drydock/": "the store and what belongs to it (DRYDOCK_HOME)",
    "~/.config/drydock/config.toml": "your settings for all projects; `drydock config` writes it",
    "~/.config/drydock/secrets": "secrets of trainers, NAME=value, mode 0600",
    "~/.local/state/drydock/log/": "logs of the last twenty commands that failed",
}
"""Which files there are."""

_TOPICS = {"variables": VARIABLES, "exit-status": STATUSES, "files": FILES}


@click.command("help")
@click.argument("words", metavar="[TOPIC | COMMAND...]", nargs=-1)
@click.pass_context
def help(  # noqa: A001 it is the name of the command
    context: click.Context, words: tuple[str, ...]
) -> None:
    """Show the help of a command, or of a topic.

    Topics: variables, exit-status, files.
    """
    whole = context.find_root()
    if len(words) == 1 and words[0] in _TOPICS:
        from builder.cli.tables import show_table

        show_table(("NAME", "WHAT IT IS"), list(_TOPICS[words[0]].items()))
        return
    here = click.Context(whole.command, info_name="drydock", **whole.command.context_settings)
    for number, word in enumerate(words):
        found = here.command.get_command(here, word) if isinstance(here.command, click.Group) else None
        if found is None:
            group = here.command
            known = [
                *(_TOPICS if number == 0 else ()),
                *(group.list_commands(here) if isinstance(group, click.Group) else ()),
            ]
            raise UsageError(
                f'no command and no topic "{" ".join(words[: number + 1])}"',
                hint=meant(word, known) or f"topics: {', '.join(_TOPICS)}",
            )
        here = click.Context(found, info_name=word, parent=here)
    click.echo(here.get_help())
    if not words:
        click.echo(f"\nTopics of drydock help: {', '.join(_TOPICS)}.")
