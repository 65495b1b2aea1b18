"""The configuration files of uv and of pip, as far as they say how to reach indexes; found as uv and pip find them.

Sources: uv 0.13, "Configuration files"; pip 25, "Configuration".
"""

from __future__ import annotations

import os
import stat
import sys
from typing import Any, Dict, List, Mapping, Optional, Tuple

_LARGEST = 1 << 20  # bytes of a configuration file


def uv_tables(environ: Mapping[str, str], root: str, notes: List[str]) -> List[Tuple[str, Dict[str, Any]]]:
    """Path and content of each uv.toml, the user's before the system's; UV_CONFIG_FILE names the only one."""
    if is_true(environ.get("UV_NO_CONFIG", "")):
        return []
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", "/"), ".config")
    system = [os.path.join(folder, "uv", "uv.toml") for folder in _shared(environ, root)]
    system = [path for path in (*system, os.path.join(root, "etc/uv/uv.toml")) if os.path.exists(path)][:1]
    named = environ.get("UV_CONFIG_FILE")
    found = []
    for path in [named] if named else [os.path.join(home, "uv", "uv.toml"), *system]:
        text = text_of(path, notes)
        table = _toml(path, text, notes) if text is not None else None
        if table is not None:
            found.append((path, table))
    return found


def _shared(environ: Mapping[str, str], root: str) -> List[str]:
    named = [folder for folder in environ.get("XDG_CONFIG_DIRS", "").split(":") if folder]
    return named or [os.path.join(root, "etc/xdg")]


def _toml(path: str, text: str, notes: List[str]) -> Optional[Dict[str, Any]]:
    try:
        import tomllib
    except ImportError:  # Python 3.9 and 3.10
        notes.append(f"passed over: {path}, as a Python before 3.11 cannot read it; UV_ variables say the same")
        return None
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        notes.append(f"passed over: {path}, which is not TOML")
        return None


def pip_options(environ: Mapping[str, str], root: str, notes: List[str]) -> Dict[str, Tuple[str, str]]:
    """The options of pip: name to value and source. Each file overrules the ones before it, variables all of them."""
    found: Dict[str, Tuple[str, str]] = {}
    texts = [(path, text_of(path, notes)) for path in _pip_files(environ, root)]
    tables = [(path, _ini(path, text, notes)) for path, text in texts if text is not None]
    # What is said for `pip install` goes before what is said for all commands, wherever it is said.
    for section in ("global", "install"):
        for path, table in tables:
            if table is not None and table.has_section(section):
                rows = ((name.replace("_", "-"), value) for name, value in table.items(section) if value)
                found.update({name: (value.strip(), f'"{name}" in {path}') for name, value in rows})
    for name, value in environ.items():
        if name.startswith("PIP_") and value:
            found[name[4:].lower().replace("_", "-")] = (value, name)
    return found


def _pip_files(environ: Mapping[str, str], root: str) -> List[str]:
    """The system's, the user's, that of the virtual environment, and what PIP_CONFIG_FILE names."""
    named = environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return []
    home = environ.get("HOME", "/")
    if sys.platform == "darwin":
        system = [os.path.join(root, "Library/Application Support/pip")]
        support = os.path.join(home, "Library/Application Support/pip")
        own = support if os.path.isdir(support) else os.path.join(home, ".config/pip")
    else:
        system = [*(os.path.join(folder, "pip") for folder in _shared(environ, root)), os.path.join(root, "etc")]
        own = os.path.join(environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config"), "pip")
    active = environ.get("VIRTUAL_ENV") or environ.get("CONDA_PREFIX")
    users = [] if named and os.path.exists(named) else [os.path.join(home, ".pip"), own]
    folders = [*system, *users, *([active] if active else [])]
    return [*(os.path.join(folder, "pip.conf") for folder in folders), *([named] if named else [])]


def _ini(path: str, text: str, notes: List[str]) -> Any:
    import configparser  # here, because most machines have no such file, and its import takes 6 ms

    table = configparser.RawConfigParser()
    try:
        table.read_string(text)
    except configparser.Error:
        notes.append(f"passed over: {path}, which pip cannot read either")
        return None
    return table


def text_of(path: str, notes: List[str]) -> Optional[str]:
    """A configuration file; None where there is none. One that cannot be read is noted."""
    try:
        # Without waiting: it may be a FIFO.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            content = file.read(_LARGEST + 1) if regular else b""
        if regular and len(content) <= _LARGEST:
            return content.decode("utf-8-sig")
        why = f"is larger than {_LARGEST >> 20} MiB" if regular else "is not a file"
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
    except ValueError:
        why = "is not UTF-8"
    notes.append(f"passed over: {path}, which {why}")
    return None


def is_true(value: str) -> bool:
    """Whether a variable or an option says yes.

    >>> is_true("True"), is_true("0"), is_true("")
    (True, False, False)
    """
    return value.strip().lower() in ("1", "true", "t", "yes", "y", "on")
