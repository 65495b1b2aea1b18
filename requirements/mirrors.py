"""Where pip and uv fetch from: the user's mirrors, certificates, proxies and caches, and no other settings of theirs.

What pip and uv install is decided by our own arguments and hashes. So neither reads a configuration file of its own:
what may be kept of the files and variables is passed on in the environment, never as an argument (a URL may have a
password in it). Standard library only; Python 3.11.
"""

from __future__ import annotations

import configparser
import os
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# pip, "Configuration": what says where files come from. The rest (target, constraint, no-binary, ...) is not kept.
_PIP = {
    "cache-dir", "cert", "client-cert", "extra-index-url", "find-links", "index-url", "keyring-provider",
    "no-cache-dir", "no-index", "proxy", "retries", "timeout", "trusted-host",
}  # fmt: skip
# uv, "Environment variables": the same.
_UV = re.compile(
    r"UV_(DEFAULT_INDEX|INDEX|INDEX_URL|EXTRA_INDEX_URL|FIND_LINKS|INDEX_\w+_(USERNAME|PASSWORD)|CACHE_DIR|NO_CACHE"
    r"|CONCURRENT_\w+|CREDENTIALS_DIR|HTTP_\w+|INSECURE_HOST|KEYRING_PROVIDER|LINK_MODE|LOCK_TIMEOUT|NATIVE_TLS"
    r"|NO_PROGRESS|OFFLINE|REQUEST_TIMEOUT|SYSTEM_CERTS)"
)
# Keys of uv.toml that have a variable.
_UV_KEYS = {
    "allow-insecure-host": "UV_INSECURE_HOST",
    "cache-dir": "UV_CACHE_DIR",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "http-proxy": "HTTP_PROXY",
    "https-proxy": "HTTPS_PROXY",
    "index-url": "UV_DEFAULT_INDEX",
    "keyring-provider": "UV_KEYRING_PROVIDER",
    "link-mode": "UV_LINK_MODE",
    "native-tls": "UV_NATIVE_TLS",
    "no-cache": "UV_NO_CACHE",
    "no-index": "NO_INDEX",
    "no-proxy": "NO_PROXY",
    "offline": "UV_OFFLINE",
    "system-certs": "UV_SYSTEM_CERTS",
}
# What pip knows, as uv takes it.
_PIP_FOR_UV = {
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "index-url": "UV_DEFAULT_INDEX",
    "no-index": "NO_INDEX",
    "proxy": "ALL_PROXY",
    "trusted-host": "UV_INSECURE_HOST",
}
_UV_INDEXES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "NO_INDEX")
# Both are run in another folder than the caller's.
_PATHS = {"UV_CACHE_DIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "SSL_CLIENT_CERT", *_UV_INDEXES}
_PIP_PATHS = {"cache-dir", "cert", "client-cert", "extra-index-url", "find-links", "index-url"}
# These would let another Python, or its packages, into ours (builder/isolation.py has them too).
_PYTHON = re.compile(r"PYTHON(?!IOENCODING|UTF8|UNBUFFERED)\w*|__PYVENV_LAUNCHER__|VIRTUAL_ENV|CONDA_PREFIX")


def for_pip(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for pip."""
    settings = {f"PIP_{name.upper().replace('-', '_')}": value for name, value in _pip_settings(environ).items()}
    return {
        **_without_settings(environ),
        **settings,
        "PIP_CONFIG_FILE": os.devnull,  # which means: read none at all
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
    }


def for_uv(environ: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The environment for uv, and the options for which uv has no variable.

    Where the user named no index for uv, pip's are taken.
    """
    named = {name: value for name, value in environ.items() if _UV.fullmatch(name)}
    for path in _uv_files(environ):
        _add(named, _uv_file(path))
    if not any(name in named for name in _UV_INDEXES):
        pip = _pip_settings(environ)
        taken = {variable: pip[name] for name, variable in _PIP_FOR_UV.items() if name in pip}
        taken["UV_FIND_LINKS"] = ",".join(taken.get("UV_FIND_LINKS", "").split())
        _add(named, {name: value for name, value in taken.items() if value and not environ.get(name)})
    no_index = named.pop("NO_INDEX", "false").lower() in ("1", "true", "yes", "on")
    separator = {"UV_FIND_LINKS": ","}
    for name in _PATHS & set(named):
        named[name] = _absolute(named[name], Path.cwd(), separator.get(name, " "))
    kept = {**_without_settings(environ), **named, "UV_NO_CONFIG": "1", "UV_PYTHON_DOWNLOADS": "never"}
    return kept, ["--no-index"] if no_index else []


def _without_settings(environ: Mapping[str, str]) -> dict[str, str]:
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith(("PIP_", "UV_")) and not _PYTHON.match(name)
    }
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1"}  # not even bytecode is written beside a Python that is not ours


def _add(named: dict[str, str], more: Mapping[str, str]) -> None:
    """Add settings: lists become longer, and of others the first one counts."""
    for name, value in more.items():
        separator = {"UV_FIND_LINKS": ",", "UV_INDEX": " ", "UV_INSECURE_HOST": " "}.get(name)
        if name not in named:
            named[name] = value
        elif separator:
            named[name] += separator + value


def _absolute(value: str, folder: Path, separator: str) -> str:
    """The paths in a list made absolute; URLs stay.

    >>> _absolute("wheels,https://mirror.example/a", Path("/home/me"), ",")
    '/home/me/wheels,https://mirror.example/a'
    >>> _absolute("own=../index /other", Path("/home/me"), " ")
    'own=/home/me/../index /other'
    """
    items = [re.fullmatch(r"([\w.-]+=)?(.+)", item) for item in value.split(separator) if item]
    parts = [(item[1] or "", item[2]) for item in items if item]  # uv gives an index a name: NAME=URL
    return separator.join(
        name + (place if "://" in place else str(folder / Path(place).expanduser())) for name, place in parts
    )


def _pip_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """What pip's files and variables say of where files come from: the command's section over [global], later files
    over earlier ones, variables over all (pip, "Configuration").
    """
    files = []
    for path in _pip_files(environ):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (OSError, ValueError, configparser.Error) as error:
            raise ValueError(f"{path} cannot be read: {error}") from None
        files.append(parser)
    found: dict[str, str] = {}
    for section in ("global", "download", "install"):
        for parser in files:
            found |= dict(parser.items(section)) if parser.has_section(section) else {}
    found |= {name.removeprefix("PIP_"): value for name, value in environ.items() if name.startswith("PIP_") and value}
    named = {name.lower().lstrip("-").replace("_", "-"): " ".join(value.split()) for name, value in found.items()}
    if "default-timeout" in named:
        named["timeout"] = named["default-timeout"]
    return {
        name: _absolute(value, Path.cwd(), " ") if name in _PIP_PATHS else value
        for name, value in named.items()
        if name in _PIP
    }


def _pip_files(environ: Mapping[str, str]) -> Iterator[Path]:
    """The configuration files of pip, the strongest last (pip, "Configuration", "Location")."""
    own = environ.get("PIP_CONFIG_FILE")
    if own == os.devnull:
        return
    home = Path(environ.get("HOME") or "/nonexistent")
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    library = Path("Library/Application Support/pip/pip.conf")
    mac = sys.platform == "darwin"
    if mac:
        yield "/" / library
    else:
        for folder in (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":"):
            yield Path(folder, "pip/pip.conf")
    yield Path("/etc/pip.conf")
    if not (own and Path(own).exists()):
        yield home / ".pip/pip.conf"
        yield home / library if mac and (home / library).parent.is_dir() else config / "pip/pip.conf"
    yield Path(sys.prefix, "pip.conf")
    if own:
        yield Path(own)


def _uv_files(environ: Mapping[str, str]) -> Iterator[Path]:
    """The configuration files of uv, the strongest first (uv, "Configuration files")."""
    if environ.get("UV_NO_CONFIG", "").lower() in ("1", "true", "yes", "on"):
        return
    if own := environ.get("UV_CONFIG_FILE"):
        yield Path(own)
        return
    home = Path(environ.get("HOME") or "/nonexistent")
    yield Path(environ.get("XDG_CONFIG_HOME") or home / ".config", "uv/uv.toml")
    folders = (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")
    yield from [*(Path(folder, "uv/uv.toml") for folder in folders), Path("/etc/uv/uv.toml")]


def _uv_file(path: Path) -> dict[str, str]:
    """The variables that say what a uv.toml says of where files come from. Raises ValueError where it is no TOML."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    found: dict[str, str] = {}
    for table in (content.get("pip", {}), content):
        _add(found, dict(_uv_indexes(table.get("index", []), path.parent)))
        for key in _UV_KEYS.keys() & table.keys():
            variable, value = _UV_KEYS[key], table[key]
            separator = "," if variable == "UV_FIND_LINKS" else " "
            text = separator.join(value) if isinstance(value, list) else str(value)
            text = text.lower() if isinstance(value, bool) else text
            _add(
                found,
                {variable: _absolute(text, path.parent, separator) if variable in _PATHS - {"NO_INDEX"} else text},
            )
    return found


def _uv_indexes(indexes: list[dict[str, Any]], folder: Path) -> Iterator[tuple[str, str]]:
    """The variable and its value for the [[index]] tables of a uv.toml: default, flat ones, others."""
    others = [index for index in indexes if not index.get("explicit")]
    default = [_named(index, folder) for index in others if index.get("default")]
    flat = [_absolute(index["url"], folder, " ") for index in others if index.get("format") == "flat"]
    more = [_named(index, folder) for index in others if not index.get("default") and index.get("format") != "flat"]
    for variable, values in (("UV_DEFAULT_INDEX", default[:1]), ("UV_FIND_LINKS", flat), ("UV_INDEX", more)):
        if values:
            yield variable, ("," if variable == "UV_FIND_LINKS" else " ").join(values)


def _named(index: Mapping[str, Any], folder: Path) -> str:
    url = _absolute(index["url"], folder, " ")
    return f"{index['name']}={url}" if "name" in index else url
