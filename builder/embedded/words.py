"""What every part of the program writes in one way: numbers with their nouns, and texts that others wrote."""

from __future__ import annotations


def plural(count: int, noun: str) -> str:
    """Return a number with its noun, as every message writes it.

    >>> plural(1, "package"), plural(2, "package"), plural(0, "patch")
    ('1 package', '2 packages', '0 patches')
    """
    ending = "es" if noun.endswith(("ch", "s", "x")) else "s"
    return f"{count} {noun}{'' if count == 1 else ending}"


def printable(text: str, kept: str = "") -> str:
    """Return a text without what could steer a terminal, wherever it came from; the characters of `kept` stay.

    >>> print(printable("a server said \\x1b[2J\\n"))
    a server said \\x1b[2J\\n
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in kept else ascii(one)[1:-1] for one in text)
