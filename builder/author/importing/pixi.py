"""`pixi.toml`: what a workspace of pixi has for all of its environments, for one target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from builder.author.importing.conda import package
from builder.errors import ProfileError, Where
from builder.profile.target import Target
from builder.project.requirements.model import Imported, placed_at, safe_excerpt, table
from builder.project.requirements.tomlfile import Places, parsed

_PLATFORMS = {
    "macos-arm64": ("unix", "osx", "osx-arm64"),
    "linux-x86_64": ("unix", "linux", "linux-64"),
    "linux-arm64": ("unix", "linux", "linux-aarch64"),
}
_PLACES = ("git", "url", "path")


def read_pixi(path: str, text: str, target: Target) -> Imported:
    """Return what a workspace of pixi requires on a target. Raises ProfileError where it is not one."""
    data, at = parsed(path, text), Places(path, text).where
    own = next((key for key in ("workspace", "project") if key in data), None)
    if own is None:
        raise ProfileError("not a pixi.toml: no [workspace]", where=Where(path))
    imported = Imported()
    name = table(data[own]).get("name")
    imported.name = name if isinstance(name, str) else None
    for keys, part in _parts(data, target):
        for key, value in table(part.get("dependencies")).items():
            _conda(str(key), value, at(*keys, "dependencies", str(key)), imported)
        for key, value in table(part.get("pypi-dependencies")).items():
            _pypi(str(key), value, at(*keys, "pypi-dependencies", str(key)), imported)
        for key, value in table(table(part.get("activation")).get("env")).items():
            imported.env[str(key)] = str(value)
            imported.env_at[str(key)] = at(*keys, "activation", "env", str(key))
    if others := [str(one) for one in table(data.get("feature"))]:
        why = (
            "a profile has what all environments have; for those of a feature: pixi list, or uv pip freeze, in its own"
        )
        imported.leave(f"the feature{'s' if others[1:] else ''} {', '.join(others)}", why, at("feature"))
    return imported


def _parts(data: Mapping[str, Any], target: Target) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    yield (), data
    for name, value in table(data.get("target")).items():
        if name in _PLATFORMS[target.platform]:
            yield ("target", str(name)), table(value)


def _conda(name: str, value: Any, where: Where, imported: Imported) -> None:
    wanted = {"version": value} if isinstance(value, str) else table(value)
    if place := next((key for key in _PLACES if key in wanted), None):
        imported.leave(name, f"comes from a {place}, not from an index", where)
        return
    version, channel = str(wanted.get("version", "*")), wanted.get("channel")
    package(name, version, channel if isinstance(channel, str) else None, imported, where)


def _pypi(name: str, value: Any, where: Where, imported: Imported) -> None:
    wanted = {"version": value} if isinstance(value, str) else table(value)
    extras = wanted.get("extras")
    named = f"{name}[{','.join(map(str, extras))}]" if isinstance(extras, list) and extras else name
    if (url := placed_at(wanted)) is not None:
        imported.require(f"{named} @ {url}", where)
        return
    if place := next((key for key in _PLACES if key in wanted), None):
        own = place == "path" and wanted[place] in (".", "./")
        why = "the project itself" if own else f"comes from a {place}, not from an index"
        imported.leave(name, why, where, package=None if own else name, expected=own)
        return
    version = str(wanted.get("version", "*"))
    imported.require(f"{named}{'' if version == '*' else version}", where)
    if "index" in wanted:
        imported.leave(f"the index of {name}", f"name it in [indexes]: {safe_excerpt(str(wanted['index']))}", where)
