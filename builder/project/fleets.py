"""A fleet as drydock.toml has it: which hosts, and what is deployed to them. Users, ports and jumps are ssh_config's.

[fleets.lab]
hosts = ["mac[01-10]", "gpu-a", "gpu-b"]    # names of ssh_config, in the node set syntax of ClusterShell
profile = "auto"                            # for each host the one that is for it
folder = "training"                         # where trainers run, below the home there (default: drydock/PROFILE)
bring = ["*.py", "config"]                  # files and folders beside drydock.toml that come along before each start
send = "copies"                             # the desk's unpacked wheels, or "wheels" (default: the quicker at 1 Gbit/s)
meet = { "gpu-a" = "10.0.0.1" }             # where trainers meet, if not at the name that ssh has
[fleets.lab.env."mac[01-05]"]               # variables of some hosts' trainers; no secrets
MEMORY = "low"
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from builder.embedded.secrets import is_secret
from builder.names import is_reference
from builder.project.document import Document

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
# A name of a host, with ranges; no group of ClusterShell's, whose configuration may run programs.
_HOSTS = re.compile(r"[A-Za-z0-9_.\[]([A-Za-z0-9_.,\[\]/-]*)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ADDRESS = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?")
_PATH = re.compile(r"[A-Za-z0-9_.]([A-Za-z0-9_./ -]*[A-Za-z0-9_.-])?")


@dataclass(frozen=True)
class Fleet:
    """Hosts by their patterns, and what comes to them; `profile` may be auto; `bring` has patterns below `root`."""

    name: str
    hosts: tuple[str, ...]
    profile: str = "auto"
    folder: str = ""
    meet: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    bring: tuple[str, ...] = ()
    root: Path = Path()
    send: str = ""


def read(document: Document, value: Any) -> dict[str, Fleet]:
    """The table `fleets`. Raises ProfileError."""
    table = document.table(value, ("fleets",), 'has a table for each fleet: [fleets.lab] hosts = ["mac[01-10]"]')
    return {name: _fleet(document, name, fleet) for name, fleet in table.items()}


def _fleet(document: Document, name: str, value: Any) -> Fleet:
    key = ("fleets", name)
    if not _NAME.fullmatch(name):
        raise document.error(f'"{name}" is not a name: small letters, digits and dashes', key)
    table = document.table(value, key)
    document.keys(table, ("hosts", "profile", "folder", "bring", "send", "meet", "env"), key)
    profile = table.get("profile", "auto")
    if not isinstance(profile, str) or not is_reference(profile):
        raise document.error('must be the name of a profile, or "auto"', (*key, "profile"))
    folder = table.get("folder", "")
    if not isinstance(folder, str) or (folder and (not _PATH.fullmatch(folder) or ".." in folder.split("/"))):
        raise document.error("must be a folder below the home of a host", (*key, "folder"))
    meet, env = _meet(document, table.get("meet", {}), key), _env(document, table.get("env", {}), (*key, "env"))
    bring = _bring(document, table.get("bring", []), (*key, "bring"))
    send = table.get("send", "")
    if send not in ("", "copies", "wheels"):
        raise document.error('must be "copies" or "wheels"', (*key, "send"))
    root = document.file.absolute().parent
    return Fleet(name, _hosts(document, table, key), profile, folder, meet, env, bring, root, send)


def _hosts(document: Document, table: Mapping[str, Any], key: tuple[str, ...]) -> tuple[str, ...]:
    hosts = table.get("hosts")
    if not isinstance(hosts, list) or not hosts or not all(isinstance(word, str) for word in hosts):
        raise document.error('must be a list of hosts: hosts = ["mac[01-10]", "gpu-a"]', (*key, "hosts"))
    for word in hosts:
        if not _HOSTS.fullmatch(word):
            raise document.error(
                f"{word!a} is not a host, or hosts as in mac[01-10]",
                (*key, "hosts"),
                hint="use letters, digits, dots and dashes; users, ports and jumps stand in ~/.ssh/config",
            )
    return tuple(hosts)


def _bring(document: Document, value: Any, key: tuple[str, ...]) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) and word.isprintable() and word for word in value):
        raise document.error('must be a list of files and folders: bring = ["*.py", "config"]', key)
    for word in value:
        path = PurePosixPath(word)
        if path.is_absolute() or ".." in path.parts:
            raise document.error(f"{word!a} is not below the folder of this file", key)
    return tuple(value)


def _meet(document: Document, value: Any, key: tuple[str, ...]) -> Mapping[str, str]:
    table = document.table(value, (*key, "meet"), 'must be a table: meet = { "gpu-a" = "10.0.0.1" }')
    for host, address in table.items():
        if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
            raise document.error("must be an address, or the name of a host", (*key, "meet", host))
    return table


def _env(document: Document, value: Any, key: tuple[str, ...]) -> Mapping[str, Mapping[str, str]]:
    table = document.table(value, key, 'has a table for some of the hosts: [fleets.lab.env."mac[01-05]"]')
    for hosts, variables in table.items():
        if not _HOSTS.fullmatch(hosts):
            raise document.error(f"{hosts!a} is not a host, or hosts as in mac[01-10]", (*key, hosts))
        for name, text in document.table(variables, (*key, hosts)).items():
            where = (*key, hosts, name)
            if not _VARIABLE.fullmatch(name):
                raise document.error(f"{name!a} is not the name of a variable", where)
            if is_secret(name):
                raise document.error(
                    f"{name} is a secret, and this file is read by others",
                    where,
                    hint="put it into ~/.config/drydock/secrets of that host, with mode 0600",
                )
            if not isinstance(text, str) or not text.isprintable():
                raise document.error("must be a text of one line", where)
    return table
