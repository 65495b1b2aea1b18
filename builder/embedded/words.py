"""Words of messages that every part of the program writes in one way."""

from __future__ import annotations


def plural(count: int, noun: str) -> str:
    """Return a number with its noun, as every message writes it.

    >>> plural(1, "package"), plural(2, "package"), plural(0, "patch")
    ('1 package', '2 packages', '0 patches')
    """
    ending = "es" if noun.endswith(("ch", "s", "x")) else "s"
    return f"{count} {noun}{'' if count == 1 else ending}"
