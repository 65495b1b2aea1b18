"""The hosts of a fleet, and sets of them in a few words, both in the node set syntax of ClusterShell."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from builder.errors import ToolError, UsageError
from builder.project.fleets import Fleet
from builder.resources import DISTRIBUTION

_MOST = 5_000
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def _node_set(pattern: str) -> Any:
    """A set of ClusterShell's, without groups: these are what other programs say. Raises UsageError, ToolError."""
    try:
        from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet, NodeSetException
    except ImportError:
        raise ToolError(
            "fleets need ClusterShell, which is not installed",
            hint=f"install it with Drydock: uv tool install '{DISTRIBUTION}[fleet]'",
        ) from None
    try:
        return NodeSet(pattern, resolver=RESOLVER_NOGROUP)
    except NodeSetException as error:
        raise UsageError(f"{pattern!a} names no hosts: {error}", hint="write hosts as in mac[01-10]") from None


def hosts_of(fleet: Fleet) -> list[str]:
    """The hosts of a fleet, each once, in order. Raises UsageError, and ToolError where the extra is missing."""
    found = _node_set(",".join(fleet.hosts))
    if len(found) > _MOST:
        raise UsageError(f"{fleet.name} has {len(found)} hosts, and {_MOST} is the most", hint="make several fleets")
    names = [str(name) for name in found]
    for name in names:
        if not _HOST.fullmatch(name):
            raise UsageError(f"{name!a} is not the name of a host", hint="it would be an option of ssh, or a user")
    return names


def variables_of(fleet: Fleet, host: str) -> dict[str, str]:
    """What the fleet sets for the trainer of a host; later tables win. Raises UsageError for hosts it does not have."""
    hosts = set(hosts_of(fleet))
    found: dict[str, str] = {}
    for pattern, variables in fleet.env.items():
        some = {str(name) for name in _node_set(pattern)}
        if not some <= hosts:
            raise UsageError(
                f"{folded(some - hosts)} is not a host of {fleet.name}, and has variables in [fleets.{fleet.name}.env]"
            )
        if host in some:
            found.update(variables)
    return found


def folded(hosts: Iterable[str]) -> str:
    """A set of hosts in a few words.

    >>> folded(["h1", "h2", "h3", "gpu"])
    'gpu,h[1-3]'
    """
    return str(_node_set(",".join(hosts)))
