"""The reference pages, made from the program itself while the site is built (a hook of MkDocs)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
from mkdocs.structure.files import File, Files

from builder.cli import cli
from builder.cli.help import STATUSES, VARIABLES
from builder.profile import schema
from builder.profile.variables import KNOWN


def on_files(files: Files, config: Any) -> Files:
    """Add the pages under reference/."""
    for name, lines in {"cli": _commands(), "profile": _profile(), "variables": _variables()}.items():
        files.append(File.generated(config, f"reference/{name}.md", content="\n".join(lines) + "\n"))
    return files


# --- the command line ----------------------------------------------------------------------------------------------


def _commands() -> Iterator[str]:
    yield "# Command line\n"
    yield "stdout is data, stderr is talk.\n\n| exit status | what it means |\n| --- | --- |"
    yield from (f"| {status} | {what} |" for status, what in STATUSES.items())
    yield "\n`NO_COLOR`, `FORCE_COLOR` and `--color` are honoured. `-v` prints the programs that are run,"
    yield "`-vv` also what they say. A command that fails after it ran a program leaves a log, whose place is said, in"
    yield "`~/.local/state/drydock/log` (or `XDG_STATE_HOME`), without secrets; the newest twenty are kept.\n"
    yield from _command(click.Context(cli, info_name="drydock"), 2)


def _command(context: click.Context, level: int) -> Iterator[str]:
    command = context.command
    yield f"{'#' * level} {context.command_path}\n"
    yield "```text\n" + command.get_help(context) + "\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            one = command.get_command(context, name)
            if one is not None:
                yield from _command(click.Context(one, info_name=name, parent=context), min(level + 1, 4))


# --- profiles ------------------------------------------------------------------------------------------------------


def _profile() -> Iterator[str]:
    import json

    whole = json.loads(schema.text())
    definitions = whole["definitions"]
    yield "# Profiles\n"
    yield "One TOML file, `profiles/NAME.toml`. Everything that is not named here is refused, with the nearest name.\n"
    yield from _table("The file", whole, definitions)
    for name, one in definitions.items():
        if "properties" in one or "description" in one:
            yield from _table(name, one, definitions)


def _table(title: str, model: dict[str, Any], definitions: dict[str, Any]) -> Iterator[str]:
    yield f"## {title}\n"
    yield _plain(model.get("description", "")) + "\n"
    rows = model.get("properties", {})
    if not rows:
        return
    yield "| key | value | default | what it is |\n| --- | --- | --- | --- |"
    for key, value in rows.items():
        told = _plain(value.get("description", "")).replace("\n", " ").replace("|", "\\|")
        needed = "required" if key in model.get("required", ()) else _default(value)
        yield f"| `{key}` | {_type(value, definitions)} | {needed} | {told} |"
    yield ""


def _default(value: dict[str, Any]) -> str:
    default = value.get("default")
    return f"`{default!r}`".replace("|", "\\|") if default not in (None, [], {}) else ""


def _type(value: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})" if name in definitions else name
    for key in ("anyOf", "allOf", "oneOf"):
        if key in value:
            return " or ".join(dict.fromkeys(_type(one, definitions) for one in value[key] if one != {"type": "null"}))
    if "enum" in value:
        return ", ".join(f"`{one}`" for one in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    if value.get("type") == "array":
        return f"list of {_type(value.get('items', {}), definitions)}"
    if value.get("type") == "object" and isinstance(value.get("additionalProperties"), dict):
        return f"table of {_type(value['additionalProperties'], definitions)}"
    return str(value.get("type", "any"))


def _plain(text: str) -> str:
    return text.replace("<", "&lt;").strip()


# --- environment variables -----------------------------------------------------------------------------------------


def _variables() -> Iterator[str]:
    yield "# Environment variables\n"
    yield "## Of Drydock\n\n| variable | what it is |\n| --- | --- |"
    for name, what in VARIABLES.items():
        yield f"| `{name}` | {what} |"
    yield "\nWhat uv and pip read counts too: see [Work in a company's network](../how-to/company-network.md).\n"
    yield "## Of libraries\n"
    yield "What libraries read, and profiles are checked against as they are loaded.\n"
    yield "| variable | read by | when | allowed | default |\n| --- | --- | --- | --- | --- |"
    for one in KNOWN.values():
        cells = (one.reader, one.when, one.allowed, "" if one.default is None else one.default or "unset")
        yield f"| `{one.name}` | " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
