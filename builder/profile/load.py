"""From TOML texts to one whole profile: `extends`, merging, and errors that name file, line and key.

Pure: the caller says how a profile's text is read.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from builder.errors import ProfileError, Where
from builder.profile import pytorch
from builder.profile.clashes import check_files
from builder.profile.detect import Choice, Detect
from builder.profile.explain import validated
from builder.profile.merge import Flat, flatten, merge, unflatten
from builder.profile.model import Profile, ProfilePart, Setting
from builder.profile.source import Source
from builder.profile.toml_lines import hint_for, line_in, loads
from builder.profile.variables import Finding, findings
from builder.profile.variables.determinism import strict


@dataclass(frozen=True)
class Part:
    """One file of a profile: its text, its data, and that as a checked model. `origin` is its name in messages."""

    origin: str
    source: Source
    data: Mapping[str, Any]
    model: ProfilePart

    def within(self, scope: str) -> Part:
        """The same file as it is in a source, or outside of all where `scope` is ""."""
        if scope == self.source.scope:
            return self
        return replace(self, origin=_origin(self.model.name, scope), source=replace(self.source, scope=scope))


Read = Callable[[str, str], Part]
"""Returns the part of that name, and in that scope of a source, "" for none. Raises ProfileError."""


@dataclass(frozen=True)
class Resolved:
    """A profile after `extends`: `own` is its own file, `parts` all files, each behind those that it extends."""

    own: Part
    parts: tuple[Part, ...]
    flat: Flat

    @cached_property
    def profile(self) -> Profile:
        """The whole profile.

        Raises ProfileError: a part that cannot be built, a bad value, or a variable that does what its author cannot
        mean.
        """
        source, merged = self.own.source, unflatten(self.flat)
        for missing in ("target", "python", "trainer"):
            if missing not in merged:
                name = self.own.origin
                raise ProfileError(
                    f'profile "{name}" is a part to extend: it has no [{missing}] and cannot be built',
                    hint=f'extend it in a profile of your own: extends = ["{name}"]',
                    where=source.where(),
                )
        profile = with_strict(validated(Profile, merged, source))
        named = {("packages", "index", package): index for package, index in profile.packages.index.items()}
        named |= {("packages", "exclude-newer-index", index): index for index in profile.packages.exclude_newer_index}
        for place, index in named.items():
            if index not in profile.indexes and pytorch.url(index) is None:
                raise ProfileError(
                    f'the index "{index}" is not among [indexes]',
                    hint=f'name its place: [indexes] {index} = "https://..."',
                    where=source.where(*place),
                )
        check_files(profile, self.files)
        self._refuse(_settings_findings(profile))
        return profile

    def warnings(self) -> list[tuple[Where, Finding]]:
        """What is to be said of the environment variables, which may be used all the same.

        Each with the place of the setting, in the file that it is from. Raises ProfileError, as `profile` does.
        """
        own = self.own.model
        found = _settings_findings(own if own.target is None else self.profile)
        self._refuse(found)
        return [(self.where("env", finding.name), finding) for finding in found]

    def where(self, *key: str) -> Where:
        """The place of `key`, in the file that it is from."""
        return (self.flat[key].source if key in self.flat else self.own.source).where(*key)

    def files(self) -> list[tuple[str, Source]]:
        """Return the files that are named, each with the profile that does.

        Patches, their proofs and releases, checks, the trainer, and what is measured.
        """
        programs = (self.flat.get((table, "file")) for table in ("trainer", "bench"))
        named = [(program.value, program.source) for program in programs if program is not None]
        for part in self.parts:
            tables = [*part.data.get("patches", ()), *part.data.get("checks", ())]
            keys = ((table, key) for table in tables for key in ("file", "proof", "releases"))
            named += [(table[key], part.source) for table, key in keys if key in table]
        return named

    def _refuse(self, found: list[Finding]) -> None:
        for finding in found:
            if finding.refused:
                where = self.where("env", finding.name)
                raise ProfileError(f"{finding.name}: {finding.message}", hint=finding.hint, where=where)


def with_strict(profile: Profile) -> Profile:
    """The profile with the variables that its `determinism` sets."""
    if profile.determinism is None:
        return profile
    env = {name: setting.text for name, setting in profile.env.items()}
    wanted = strict(env, detected(profile), profile.target.accelerator)
    made = {
        name: Setting(unset=True) if value is None else _always(value, profile.env.get(name))
        for name, value in wanted.items()
        if name not in env or env[name] is not None
    }
    return profile.model_copy(update={"env": {**profile.env, **made}})


def _always(value: str, before: Setting | None) -> Setting:
    """A setting that no caller overrides, with what stands beside it in the profile."""
    if before is None:
        return Setting(value=value)
    return before.model_copy(update={"value": value, "default": None, "follows": None})


def detected(profile: ProfilePart) -> set[str]:
    """The variables whose values the script finds out on its machine."""
    values = ((name, (one.value, one.default)) for name, one in profile.env.items())
    return {name for name, both in values if any(isinstance(value, Detect | Choice) for value in both)}


def resolved(own: Part, read: Read) -> Resolved:
    """A profile with all that its own file extends; each part is asked for by `read`.

    `extends` is followed depth first. Later wins: a child over its parents. Tables merge key by key, requirement
    lists by package name, lists of tables append. Two parents that disagree on a value are an error, unless the
    child says which it is, or one of them replaced the other's word knowingly, by extending it.

    Raises ProfileError: no such profile, a cycle, a bad value in a part, a disagreement.
    """
    parts: dict[str, Part] = {}
    flat = _flatten_tree(own, read, (), parts)
    return Resolved(own, tuple(parts.values()), flat)


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


def read_part(name: str, source: Source) -> Part:
    """The file NAME.toml by itself, parsed and checked. Raises ProfileError."""
    try:
        data = loads(source.text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(
            f"not TOML: {error}", hint=hint_for(source.text), where=Where(source.path, line_in(error, source.text))
        ) from None
    model = validated(ProfilePart, data, source)
    if model.name != name:
        raise ProfileError(
            f'the file is called {name}.toml, but its name is "{model.name}"',
            hint="give both the same name",
            where=source.where("name"),
        )
    return Part(_origin(name, source.scope), source, data, model)


def _origin(name: str, scope: str) -> str:
    # A name means another profile in a source than outside of it.
    return f"{scope}:{name}" if scope else name


def _flatten_tree(part: Part, read: Read, above: tuple[str, ...], parts: dict[str, Part]) -> Flat:
    origin, source = part.origin, part.source
    if origin in above:
        raise ProfileError(
            f"extends is circular: {' -> '.join((*above[above.index(origin) :], origin))}",
            hint="remove one of them from extends",
            where=source.where("extends"),
        )
    parents = [
        _flatten_tree(_read_parent(parent, source, read), read, (*above, origin), parts)
        for parent in part.model.extends
    ]
    parts.setdefault(origin, part)
    return merge(parents, flatten(part.data, origin, source), source)


def _read_parent(parent: str, child: Source, read: Read) -> Part:
    try:
        return read(parent, child.scope)
    except ProfileError as error:
        raise ProfileError(error.message, hint=error.hint, where=error.where or child.where("extends")) from None
