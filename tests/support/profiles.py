"""Profiles out of texts, without a disk."""

from __future__ import annotations

from collections.abc import Callable

from builder.profile.load import read_part, resolved
from builder.profile.model import Profile
from builder.profile.source import Source


def load(name: str, read: Callable[..., Source]) -> Profile:
    """The whole profile `name`, of what `read` returns for it and for what it extends, by name and scope."""
    return resolved(
        read_part(name, read(name)),
        lambda one, scope: read_part(one, read(one, scope) if scope else read(one)),
    ).profile
