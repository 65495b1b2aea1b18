"""From TOML texts to one whole profile: `extends`, merging, and errors that name file, line and key.

Pure: the caller says how a profile's text is read.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from builder.errors import ProfileError, Where
from builder.names import split
from builder.profile.carried import check_files
from builder.profile.explain import validated
from builder.profile.merge import Flat, flatten, merge, unflatten
from builder.profile.model import Profile, ProfilePart
from builder.profile.source import Read, Source
from builder.profile.toml_lines import loads
from builder.profile.variables import Finding, findings


def load(name: str, read: Read) -> Profile:
    """The whole profile `name`.

    `extends` is followed depth first. Later wins: a child over its parents. Tables merge key by key, requirement
    lists by package name, lists of tables append. Two parents that disagree on a value are an error, unless the
    child says which it is, or one of them replaced the other's word knowingly, by extending it.

    Raises ProfileError: no such profile, a cycle, a bad value, a disagreement, a part that cannot be built, or a
    variable that does what its author cannot mean.
    """
    source = read(name)
    flat = _flatten_tree(name, source, read, ())
    merged = unflatten(flat)
    for missing in ("target", "python", "trainer"):
        if missing not in merged:
            raise ProfileError(
                f'profile "{name}" is a part to extend: it has no [{missing}] and cannot be built',
                hint=f'extend it in a profile of your own: extends = ["{name}"]',
                where=source.where(),
            )
    profile = validated(Profile, merged, source)
    named = {("packages", "index", package): index for package, index in profile.packages.index.items()}
    named |= {("packages", "exclude-newer-index", index): index for index in profile.packages.exclude_newer_index}
    for place, index in named.items():
        if index not in profile.indexes:
            raise ProfileError(
                f'the index "{index}" is not among [indexes]',
                hint=f'name its place: [indexes] {index} = "https://..."',
                where=source.where(*place),
            )
    check_files(profile, lambda: files_of(name, read))
    for finding in _settings_findings(profile):
        if finding.refused:
            raise _refused(finding, _setting_at(finding.name, flat, source))
    return profile


def settings_warnings(name: str, read: Read) -> list[tuple[Where, Finding]]:
    """What is to be said of the environment variables of the profile `name`, which may be used all the same.

    Each with the place of the setting, in the file that it is from. Raises ProfileError, as `load` does.
    """
    source = read(name)
    part = load_part(name, source)
    flat = _flatten_tree(name, source, read, ())
    found = _settings_findings(part if part.target is None else load(name, read))
    for finding in found:
        if finding.refused:
            raise _refused(finding, _setting_at(finding.name, flat, source))
    return [(_setting_at(finding.name, flat, source), finding) for finding in found]


def where_is(name: str, read: Read, *key: str) -> Where:
    """The place of `key` of the profile `name`, in the file that it is from. Raises ProfileError."""
    source = read(name)
    flat = _flatten_tree(name, source, read, ())
    return (flat[key].source if key in flat else source).where(*key)


def files_of(name: str, read: Read) -> list[tuple[str, Source]]:
    """The files that the profile `name` names, each with the profile that does.

    Patches, their proofs and releases, checks, the trainer, and what is measured. Raises ProfileError.
    """
    source = read(name)
    flat = _flatten_tree(name, source, read, ())
    programs = (flat.get((table, "file")) for table in ("trainer", "bench"))
    named = [(program.value, program.source) for program in programs if program is not None]
    for one, data in _tree(source, read):
        tables = [*data.get("patches", ()), *data.get("checks", ())]
        named += [(table[key], one) for table in tables for key in ("file", "proof", "releases") if key in table]
    return named


def _tree(source: Source, read: Read) -> Iterator[tuple[Source, Mapping[str, Any]]]:
    """A profile and all that it extends, with their data; `_flatten_tree` has checked them."""
    data = loads(source.text)
    yield source, data
    for parent in data.get("extends", ()):
        yield from _tree(_read_parent(parent, source, read), read)


def _settings_findings(profile: ProfilePart) -> list[Finding]:
    """What is wrong with a profile's environment variables, and not acknowledged beside them.

    Of a part, only what is wrong on every target, and whatever the profiles that extend it say.
    """
    here = _findings({name: setting.text for name, setting in profile.env.items()}, profile)
    chosen = {name: setting.choice.then for name, setting in profile.env.items() if setting.choice is not None}
    there = _findings({name: chosen.get(name, setting.text) for name, setting in profile.env.items()}, profile)
    # What one machine has no use for, another may.
    needless = [finding for finding in (*here, *there) if finding.code == "unused-acknowledgement"]
    idle = [finding for finding in needless if finding in here and finding in there]
    found = [finding for finding in dict.fromkeys([*here, *there]) if finding not in needless or finding in idle]
    if profile.target is not None:
        return found
    return [finding for finding in found if finding.code not in {"watermarks", "unused-acknowledgement"}]


def _findings(env: Mapping[str, str | None], profile: ProfilePart) -> list[Finding]:
    """What is wrong with variables as one machine has them."""
    return findings(
        env,
        {name: setting.acknowledge for name, setting in profile.env.items() if setting.acknowledge},
        platform=profile.target.platform if profile.target else None,
        accelerator=profile.target.accelerator if profile.target else None,
    )


def _refused(finding: Finding, where: Where) -> ProfileError:
    return ProfileError(f"{finding.name}: {finding.message}", hint=finding.hint, where=where)


def _setting_at(name: str, flat: Flat, source: Source) -> Where:
    """Where a variable is set: in the profile itself, or in the one that it has it from."""
    key = ("env", name)
    return (flat[key].source if key in flat else source).where(*key)


def load_part(name: str, source: Source) -> ProfilePart:
    """One file by itself, checked. Raises ProfileError."""
    try:
        data = loads(source.text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"not TOML: {error}", where=Where(source.path, _line_in(str(error), source.text))) from None
    part = validated(ProfilePart, data, source)
    plain = split(name)[1]
    if part.name != plain:
        raise ProfileError(
            f'the file is called {plain}.toml, but its name is "{part.name}"',
            hint="give both the same name",
            where=source.where("name"),
        )
    return part


def _line_in(message: str, text: str) -> int:
    """The line that tomllib's message names; it ends with "(at line 3, column 5)" or "(at end of document)"."""
    found = re.search(r"\(at line (\d+)", message)
    return int(found[1]) if found else text.rstrip("\n").count("\n") + 1


def _flatten_tree(name: str, source: Source, read: Read, above: tuple[str, ...]) -> Flat:
    # A name means another profile in a source than outside of it.
    origin = f"{source.scope}:{name}" if source.scope and ":" not in name else name
    if origin in above:
        raise ProfileError(
            f"extends is circular: {' -> '.join((*above[above.index(origin) :], origin))}",
            hint="remove one of them from extends",
            where=source.where("extends"),
        )
    part = load_part(name, source)
    data = loads(source.text)
    own = flatten(data, origin, source)
    parents = [
        _flatten_tree(parent, _read_parent(parent, source, read), read, (*above, origin)) for parent in part.extends
    ]
    return merge(parents, own, source)


def _read_parent(parent: str, child: Source, read: Read) -> Source:
    try:
        return read(parent, child.scope) if child.scope else read(parent)
    except ProfileError as error:
        raise ProfileError(error.message, hint=error.hint, where=error.where or child.where("extends")) from None
