"""A fleet as drydock.toml has it: which hosts, and what is deployed to them. Users, ports and jumps are ssh_config's.

[fleets.lab]
hosts = ["mac[01-10]", "gpu-a", "gpu-b"]    # names of ssh_config, in the node set syntax of ClusterShell
profile = "auto"                            # for each host the one that is for it
folder = "training"                         # where trainers run, below the home there (default: drydock/PROFILE)
meet = { "gpu-a" = "10.0.0.1" }             # where trainers meet, if not at the name that ssh has
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from builder.names import is_reference
from builder.project.document import Document

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
# A name of a host, with ranges; no group of ClusterShell's, whose configuration may run programs.
_HOSTS = re.compile(r"[A-Za-z0-9_.\[]([A-Za-z0-9_.,\[\]/-]*)")
_ADDRESS = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?")
_PATH = re.compile(r"[A-Za-z0-9_.]([A-Za-z0-9_./ -]*[A-Za-z0-9_.-])?")


@dataclass(frozen=True)
class Fleet:
    """Hosts by their patterns, and what is deployed to them; `profile` may be auto."""

    name: str
    hosts: tuple[str, ...]
    profile: str = "auto"
    folder: str = ""
    meet: Mapping[str, str] = field(default_factory=dict)


def read(document: Document, value: Any) -> dict[str, Fleet]:
    """The table `fleets`. Raises ProfileError."""
    table = document.table(value, ("fleets",), 'has a table for each fleet: [fleets.lab] hosts = ["mac[01-10]"]')
    return {name: _fleet(document, name, fleet) for name, fleet in table.items()}


def _fleet(document: Document, name: str, value: Any) -> Fleet:
    key = ("fleets", name)
    if not _NAME.fullmatch(name):
        raise document.error(f'"{name}" is not a name: small letters, digits and dashes', key)
    table = document.table(value, key)
    document.keys(table, ("hosts", "profile", "folder", "meet"), key)
    profile = table.get("profile", "auto")
    if not isinstance(profile, str) or not is_reference(profile):
        raise document.error('must be the name of a profile, or "auto"', (*key, "profile"))
    folder = table.get("folder", "")
    if not isinstance(folder, str) or (folder and (not _PATH.fullmatch(folder) or ".." in folder.split("/"))):
        raise document.error("must be a folder below the home of a host", (*key, "folder"))
    return Fleet(name, _hosts(document, table, key), profile, folder, _meet(document, table.get("meet", {}), key))


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


def _meet(document: Document, value: Any, key: tuple[str, ...]) -> Mapping[str, str]:
    table = document.table(value, (*key, "meet"), 'must be a table: meet = { "gpu-a" = "10.0.0.1" }')
    for host, address in table.items():
        if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
            raise document.error("must be an address, or the name of a host", (*key, "meet", host))
    return table
