"""The manual pages, man/*.1, made from the program itself: `just snapshots` writes them.

Own, because click-man (0.6) finds no command of a group that imports its commands when they are asked for, cuts off the
sentence of NAME, joins lines that are to stay apart, and writes the day.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from builder.cli import _SECTIONS, cli
from builder.cli.examples import PREFIX
from builder.cli.help import FILES, STATUSES, VARIABLES

FOLDER = Path(__file__).parent.parent / "man"


def pages() -> dict[str, str]:
    """Each page by the name of its file: drydock.1, and one for each command, with those below it."""
    root = click.Context(cli, info_name="drydock", **cli.context_settings)
    found = {"drydock.1": "".join(_program(root))}
    for name in cli.list_commands(root):
        context = _below(root, name)
        found[f"drydock-{name}.1"] = "".join(_page(context))
    return found


def _below(context: click.Context, name: str) -> click.Context:
    command = context.command.get_command(context, name) if isinstance(context.command, click.Group) else None
    if command is None:
        raise LookupError(name)
    return click.Context(command, info_name=name, parent=context)


def _program(context: click.Context) -> Iterator[str]:
    yield from _head(context, "drydock")
    yield from _description(context.command)
    yield from _options(context)
    for heading, names in _SECTIONS.items():
        yield f".SH {_quoted(heading.upper())}\n"
        for name in names:
            yield f".TP\n.BR {_text(f'drydock-{name}')} (1)\n{_text(_summary(_below(context, name).command))}\n"
    yield from _table("ENVIRONMENT", VARIABLES)
    yield from _table("EXIT STATUS", STATUSES)
    yield from _table("FILES", FILES)


def _page(context: click.Context) -> Iterator[str]:
    yield from _head(context, f"drydock-{context.info_name}")
    yield from _description(context.command)
    yield from _options(context)
    yield from _example(context.command, ".SH EXAMPLE\n")
    if isinstance(context.command, click.Group):
        yield ".SH COMMANDS\n"
        for name in context.command.list_commands(context):
            below = _below(context, name)
            yield f".SS {_quoted(_usage(below))}\n"
            yield from _paragraphs(below.command)
            yield from _list_of_options(below)
            yield from _example(below.command, ".PP\nExample:\n")
    yield ".SH SEE ALSO\n.BR drydock (1)\n"


def _head(context: click.Context, name: str) -> Iterator[str]:
    yield f'.TH {_quoted(name.upper())} 1 "" Drydock Drydock\n'
    yield f".SH NAME\n{_text(name)} \\- {_text(_summary(context.command).rstrip('.'))}\n"
    yield f".SH SYNOPSIS\n.B {_text(_usage(context))}\n"


def _usage(context: click.Context) -> str:
    return " ".join([context.command_path, *context.command.collect_usage_pieces(context)])


def _summary(command: click.Command) -> str:
    return command.get_short_help_str(1000)


def _description(command: click.Command) -> Iterator[str]:
    yield ".SH DESCRIPTION\n"
    yield from _paragraphs(command)


def _paragraphs(command: click.Command) -> Iterator[str]:
    for number, text in enumerate(inspect.cleandoc(command.help or "").split("\n\n")):
        yield ".PP\n" if number else ""
        if text.startswith("\b\n"):
            yield f".nf\n{_text(text[2:])}\n.fi\n"
        else:
            yield f"{_text(' '.join(text.split()))}\n"


def _example(command: click.Command, heading: str) -> Iterator[str]:
    if command.epilog:
        yield f"{heading}.B {_text(command.epilog.removeprefix(PREFIX))}\n"


def _options(context: click.Context) -> Iterator[str]:
    options = "".join(_list_of_options(context))
    yield f".SH OPTIONS\n{options}" if options else ""


def _list_of_options(context: click.Context) -> Iterator[str]:
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1]:
            yield f".TP\n.B {_text(record[0])}\n{_text(record[1])}\n"


def _table(heading: str, rows: Mapping[str, str]) -> Iterator[str]:
    yield f".SH {_quoted(heading)}\n"
    for name, what in rows.items():
        yield f".TP\n.B {_text(name)}\n{_text(what)}\n"


def _text(text: str) -> str:
    """A text that roff prints as it is: no control line, and a hyphen that can be copied."""
    lines = text.replace("\\", "\\e").replace("-", "\\-").splitlines()
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in lines)


def _quoted(text: str) -> str:
    """An argument of a macro."""
    return '"' + _text(text).replace('"', "\\(dq") + '"'
