"""A Dockerfile: what it sets, installs and starts, read as the shell script that it comes to."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace

from builder.author.importing.shell import read_script
from builder.errors import Where
from builder.project.requirements.model import Imported, safe_excerpt
from builder.project.requirements.pip import Read

_INSTRUCTION = re.compile(r"\s*([A-Za-z]+)\s+(.*)", re.DOTALL)


def read_dockerfile(path: str, text: str, read: Read) -> Imported:
    """Return what a Dockerfile sets, installs and starts. Raises ProfileError for an invalid requirement."""
    lines = [""] * (text.count("\n") + 1)
    bases = []
    for number, instruction, value in _instructions(text):
        if instruction == "FROM" and (words := [word for word in value.split() if not word.startswith("--")]):
            bases.append((number, words[0]))
        elif (command := _as_shell(instruction, value)) is not None:
            for place, line in enumerate(command.split("\n"), number - 1):
                lines[min(place, len(lines) - 1)] = line
    imported = read_script(path, "\n".join(lines), read)
    image = bases[-1] if bases else None
    if image is not None:
        why = "the image has packages of its own, which a profile requires by name"
        imported.leave(f"FROM {safe_excerpt(image[1])}", why, Where(path, image[0]))
    # The words of the trainer are those of the shell script, whose messages name it.
    imported.left_out = [
        replace(one, why=one.why.replace("when the script runs", "when it runs")) for one in imported.left_out
    ]
    return imported


def _instructions(text: str) -> Iterator[tuple[int, str, str]]:
    """The instructions with the number of their first line; their lines as they are, without comments between."""
    start, held = 0, list[str]()
    for number, line in enumerate(text.split("\n"), 1):
        if held and line.lstrip().startswith("#"):
            held.append("\\")
            continue
        if not held and (not line.strip() or line.lstrip().startswith("#")):
            continue
        start = start or number
        held.append(line)
        if line.rstrip().endswith("\\"):
            continue
        if found := _INSTRUCTION.fullmatch("\n".join(held)):
            yield start, found[1].upper(), found[2]
        start, held = 0, []


def _as_shell(instruction: str, value: str) -> str | None:
    """An instruction as shell does it, with as many lines; None for one that sets, installs and starts nothing."""
    if instruction == "RUN":
        return re.sub(r"^(\s*--[a-z]+=\S+)+", "", value)
    if instruction in ("ENV", "ARG"):
        first, _, rest = value.partition(" ")
        old = instruction == "ENV" and "=" not in first
        if old:
            return f"export {first}={shlex.quote(rest.strip())}"
        return f"export {value}" if instruction == "ENV" else value if "=" in value else None
    if instruction in ("CMD", "ENTRYPOINT"):
        try:
            words = json.loads(value)
            return (
                shlex.join(str(word) for word in words) + "\n" * value.count("\n") if isinstance(words, list) else None
            )
        except (ValueError, RecursionError):
            return value
    return None
