"""Names of the files that an environment is made of: no two of a profile may be one on some machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from builder.errors import ProfileError
from builder.profile.toml_lines import loads

if TYPE_CHECKING:
    from builder.errors import Where
    from builder.profile.model import Profile
    from builder.profile.source import Source


def check_files(profile: Profile, named: Callable[[], Iterable[tuple[str, Source]]]) -> None:
    """Raise ProfileError where two names differ in case alone, or one is a folder of the other.

    A Mac has one file for two such names. `named` has each file with the profile that names it: for an error.
    """
    seen: dict[str, str] = {}
    for file in _files(profile):
        seen.setdefault(file.casefold(), file)
    for file in _files(profile):
        folded = file.casefold()
        above = [folded[:at] for at, char in enumerate(folded) if char == "/"]
        other = seen[folded] if seen[folded] != file else next((seen[one] for one in above if one in seen), None)
        if other is not None:
            why = "differ in case alone" if other.casefold() == folded else "cannot be a file and a folder"
            raise ProfileError(
                f"{other} and {file} {why}: on some machines they are one",
                hint="rename one of them",
                where=next((_where(file, source) for one, source in named() if one == file), None),
            )


def _files(profile: Profile) -> Iterator[str]:
    for patch in profile.patches:
        yield from (one for one in (patch.file, patch.proof, patch.releases) if one is not None)
    yield from (check.file for check in profile.checks)
    yield from (one.file for one in (profile.trainer, profile.bench) if one is not None and one.file is not None)


def _where(file: str, source: Source) -> Where:
    """The place of a file's name in the profile that has it."""
    data = loads(source.text)
    for table in ("patches", "checks", "trainer", "bench"):
        rows = data.get(table, [])
        for number, row in enumerate(rows if isinstance(rows, list) else [rows]):
            for key, value in row.items():
                if value == file:
                    return source.where(*((table, number, key) if isinstance(rows, list) else (table, key)))
    return source.where()
