"""The user's own configuration: what holds for all projects of theirs on this machine.

    store = "/big/drydock"                      where environments are kept (DRYDOCK_HOME)
    color = "never"                             auto, always or never (--color, NO_COLOR, FORCE_COLOR)

    [caches]                                    asked before any index (DRYDOCK_CACHE)
    places = ["/srv/drydock"]

    [indexes]                                   mirrors of the indexes of profiles (DRYDOCK_INDEX_NAME)
    pytorch-cpu = "https://mirror.example/whl/cpu"

It is config.toml in the folder drydock of XDG_CONFIG_HOME, or of ~/.config. Each setting is the default of a variable:
`apply` sets those that are not set, and everything else reads variables only. By hand, as drydock.toml is: the import
of pydantic takes longer than the command that a variable is read for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from builder.errors import ProfileError, UsageError
from builder.names import meant

KEYS = ("store", "color", "caches.places", "indexes.NAME")
_HOME, _CACHES, _INDEX = "DRYDOCK_HOME", "DRYDOCK_CACHE", "DRYDOCK_INDEX_"
_COLORS = {"auto": "", "always": "FORCE_COLOR", "never": "NO_COLOR"}
_HEAD = "# Settings of Drydock for all projects: drydock config --help\n\n"


class Setting(NamedTuple):
    """A setting in force: `source` is a variable, the file with the line, or "default"."""

    key: str
    value: str
    source: str
    is_ours: bool = False
    """Whether it comes from the file."""


def path(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The file, there or not; None without a home."""
    if config := environ.get("XDG_CONFIG_HOME"):
        return Path(config).absolute() / "drydock/config.toml"
    return Path(user).absolute() / ".config/drydock/config.toml" if (user := environ.get("HOME")) else None


def apply(environ: MutableMapping[str, str]) -> None:
    """Set the variables that the file has defaults for and that are not set. Raises ProfileError."""
    file = path(environ)
    if file is None or not os.path.lexists(file):
        return
    for setting in settings(environ, lines=False):
        if setting.is_ours and (variable := _variable(setting)):
            environ[variable] = "1" if setting.key == "color" else setting.value


def settings(environ: Mapping[str, str], *, lines: bool = True) -> list[Setting]:
    """All settings in force; without `lines`, which take longer than all the rest, the file alone is their source.

    Raises ProfileError.
    """
    from builder.store.layout import place

    file = path(environ)
    ours = _read(file, lines=lines) if file else {}

    def setting(key: str, variables: Mapping[str, str], default: str) -> Setting:
        for variable, value in variables.items():
            if environ.get(variable):
                return Setting(key, value or environ[variable], variable)
        if key in ours:
            return Setting(key, *ours[key], is_ours=True)
        return Setting(key, default, "default")

    indexes = {name for name in environ if name.startswith(_INDEX)}
    indexes |= {_index_variable(key) for key in ours if key.startswith("indexes.")}
    return [
        setting("store", {_HOME: ""}, str(place({**environ, _HOME: ""}))),
        setting("color", {"NO_COLOR": "never", "FORCE_COLOR": "always"}, "auto"),
        setting("caches.places", {_CACHES: ""}, ""),
        *(setting(_index_key(name), {name: ""}, "") for name in sorted(indexes)),
    ]


def change(key: str, values: Sequence[str], environ: Mapping[str, str] = os.environ) -> Path:
    """Set `key` in the file, or remove it where there are no `values`. Nothing is written that could not be read.

    Returns the file. Raises UsageError for an unknown key, and ProfileError for a wrong value.
    """
    import tomlkit

    from builder.files import write_atomically
    from builder.project.document import Document, content

    check_key(key)
    file = path(environ)
    if file is None:
        raise UsageError("no home was found", hint="set HOME, or XDG_CONFIG_HOME")
    before = content(file)
    text = _HEAD if before is None else Document(file, before).text
    document: Any = tomlkit.parse(text)
    table, _, name = key.rpartition(".")
    if len(values) > 1 and key != "caches.places":
        raise UsageError(f"{key} has one value", hint=f"drydock config set {key} {values[0]}")
    if not values:
        place = document.get(table, {}) if table else document
        if name not in place:
            raise UsageError(f"{key} is not set in {file}", hint="to list what is: drydock config list")
        del place[name]
        if table and not place:
            del document[table]
    else:
        if table and table not in document:
            document[table] = tomlkit.table()
        place = document[table] if table else document
        place[name] = list(values) if key == "caches.places" else values[0]
    new = tomlkit.dumps(document)
    try:
        _checked(Document(file, new.encode()))
    except ProfileError as error:
        raise ProfileError(error.message, hint=error.hint or f"nothing was written to {file}") from None
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, new)
    return file


def check_key(key: str) -> None:
    """Raise UsageError where there is no such setting."""
    if key in KEYS[:-1] or re.fullmatch(r"indexes\.[a-z0-9][a-z0-9-]*", key):
        return
    raise UsageError(f'no setting "{key}"', hint=meant(key, KEYS) or f"settings: {', '.join(KEYS)}")


def _read(file: Path, *, lines: bool) -> dict[str, tuple[str, str]]:
    """Each setting of the file, with where it stands there."""
    from builder.project.document import Document, content

    found = content(file)
    if found is None:
        return {}
    document = Document(file, found)
    return {
        key: (value, f"{file}:{document.line(tuple(key.split('.')))}" if lines else str(file))
        for key, value in _checked(document).items()
    }


def _checked(document: Any) -> dict[str, str]:
    """Each setting of a file. Raises ProfileError."""
    readers: dict[str, Callable[[Any, Any], dict[str, str]]] = {
        "store": _store,
        "color": _color,
        "caches": _caches,
        "indexes": _indexes,
    }
    document.known(readers)
    found: dict[str, str] = {}
    for name, value in document.data.items():
        found.update(readers[name](document, value))
    return {key: value for key, value in found.items() if value}


def _store(document: Any, value: Any) -> dict[str, str]:
    folder = Path(value if isinstance(value, str) else "")
    if folder.parts[:1] == ("~",):
        folder = Path.home() / Path(*folder.parts[1:])
    if not folder.is_absolute() or ":" in str(folder):
        raise document.error("must be the absolute path of a folder, without a colon", ("store",))
    return {"store": str(folder)}


def _color(document: Any, value: Any) -> dict[str, str]:
    if value not in _COLORS:
        raise document.error(f"must be one of {', '.join(_COLORS)}", ("color",))
    return {"color": value}


def _caches(document: Any, value: Any) -> dict[str, str]:
    from builder.project.config import read_caches

    return {"caches.places": " ".join(read_caches(document, value))}


def _indexes(document: Any, value: Any) -> dict[str, str]:
    from urllib.parse import urlsplit

    found = {}
    for name, url in document.table(value, ("indexes",)).items():
        key = ("indexes", name)
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
            raise document.error(f'"{name}" is not the name of an index: lower case letters, digits and -', key)
        try:
            parts = urlsplit(url if isinstance(url, str) else "")
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https", "file"):
            raise document.error("must be a URL: https://, http:// or file://", key)
        if parts.password is not None:
            raise document.error("a password is in the URL", key, hint="keep it out of files: netrc, or a keyring")
        found[f"indexes.{name}"] = url
    return found


def _variable(setting: Setting) -> str:
    """The variable whose default a setting is; "" where it changes nothing."""
    if setting.key == "color":
        return _COLORS[setting.value]
    named = {"store": _HOME, "caches.places": _CACHES}
    return named.get(setting.key) or _index_variable(setting.key)


def _index_variable(key: str) -> str:
    return _INDEX + key.partition(".")[2].upper().replace("-", "_")


def _index_key(variable: str) -> str:
    return "indexes." + variable.removeprefix(_INDEX).lower().replace("_", "-")
