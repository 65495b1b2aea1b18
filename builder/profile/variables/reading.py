"""How libraries read an environment variable: C's strtod, Python's int, "1" or else, ...

A reading says what a library makes of a text, and what is wrong where that is not what the text says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Reading:
    """What a library makes of a text: its value (None: nothing, the default holds), and what is wrong with that."""

    value: float | bool | str | None
    problem: str | None = None


@dataclass(frozen=True)
class Kind:
    """A way to read a variable: what may be written, in words, and the reading itself."""

    allowed: str
    read: Callable[[str], Reading]


IGNORED = "is ignored, with a message"
RAISES = "ends the program with an exception"
UNWRITTEN = "is not a documented value"

_SPACE = r"[ \t\n\v\f\r]*"
_FLOAT = re.compile(
    _SPACE + r"([+-]?(?:0[xX](?:[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)(?:[pP][+-]?[0-9]+)?"
    r"|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
    r"|[iI][nN][fF](?:[iI][nN][iI][tT][yY])?|[nN][aA][nN](?:\([0-9A-Za-z_]*\))?))"
)
_LONG = range(-(2**63), 2**63)
_INT = range(-(2**31), 2**31)


def strtod(text: str) -> tuple[float, str]:
    """The number that C's strtod reads from the front of `text` in the locale "C", and the rest; 0.0 for none.

    >>> strtod("0.7"), strtod("0,7"), strtod("abc")
    ((0.7, ''), (0.0, ',7'), (0.0, 'abc'))
    """
    found = _FLOAT.match(text)
    if found is None:
        return 0.0, text
    number = found[1].lower().split("(")[0]
    try:
        value = float.fromhex(number) if "x" in number else float(number)
    except OverflowError:
        value = float("-inf" if number.startswith("-") else "inf")
    return value, text[found.end() :]


def strtol(text: str, base: Literal[0, 10] = 10) -> tuple[int, str]:
    """The number that C's strtol (64 bits) reads from the front of `text`, and the rest; 0 for none.

    >>> strtol("4x"), strtol("true"), strtol("0x10", 0), strtol("010", 0)
    ((4, 'x'), (0, 'true'), (16, ''), (8, ''))
    """
    digits = r"(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)" if base == 0 else r"([0-9]+)"
    found = re.match(_SPACE + "([+-]?)" + digits, text)
    if found is None:
        return 0, text
    number = found[2].lower()
    radix = 16 if number.startswith("0x") else 8 if base == 0 and number.startswith("0") else 10
    value = int(number, radix) * (-1 if found[1] == "-" else 1)
    return min(max(value, _LONG[0]), _LONG[-1]), text[found.end() :]


def _strtod(text: str) -> Reading:
    value, rest = strtod(text)
    return Reading(value, f"is read as {value} (strtod)" if rest.strip() or not text.strip() else None)


def _strtol(text: str) -> Reading:
    value, rest = strtol(text, 0)
    return Reading(value, f"is read as {value} (strtol)" if rest.strip() or not text.strip() else None)


def _stoi(text: str) -> Reading:
    value, rest = strtol(text)
    if rest == text or value not in _INT:
        return Reading(None, f"is not an int (stoi), and {RAISES}")
    return Reading(value, f"is read as {value} (stoi)" if rest.strip() else None)


def _python_number(parse: Callable[[str], float]) -> Callable[[str], Reading]:
    def read(text: str) -> Reading:
        try:
            return Reading(parse(text))
        except ValueError:
            return Reading(None, f"is not a Python {parse.__name__}, and {RAISES}")

    return read


def _matching(pattern: str, otherwise: str) -> Callable[[str], Reading]:
    """A text of one form, or a number; `otherwise` says what becomes of another."""

    def read(text: str) -> Reading:
        word = text.strip()
        if not re.fullmatch(pattern, word):
            return Reading(None, otherwise)
        return Reading(int(word) if word.isascii() and word.isdigit() else word)

    return read


_YES = frozenset({"1", "true", "yes", "on", "y", "t"})
_NO = frozenset({"0", "false", "no", "off", "n", "f", ""})


def _flag(
    *, on: Collection[str] | None = None, off: Collection[str] | None = None, otherwise: str | None = None
) -> Callable[[str], Reading]:
    """A yes or no, in any case. What is not among `on` is off; given `off` alone, what is not among that is on.

    Given both, anything else is nothing, and `otherwise` says what becomes of it.
    """

    def read(text: str) -> Reading:
        word = text.lower()
        if on is not None and off is not None and word not in {*on, *off}:
            return Reading(None, otherwise)
        value = word in on if on is not None else word not in (off or ())
        meant = True if word.strip() in _YES else False if word.strip() in _NO else None
        if value == meant:
            return Reading(value)
        counts = f"counts as {'on' if value else 'off'}"
        return Reading(value, counts if meant is not None else f"is neither yes nor no, and {counts}")

    return read


def one_of(words: Collection[str], otherwise: str, *, any_case: bool = False) -> Kind:
    """One of some words; `otherwise` says what becomes of another."""

    def read(text: str) -> Reading:
        for word in words:
            if text == word or (any_case and text.lower() == word.lower()):
                return Reading(word)
        return Reading(None, otherwise)

    return Kind(", ".join(words), read)


def threads(otherwise: str) -> Kind:
    """A number of threads; `otherwise` says what becomes of anything else."""
    return Kind("a number of threads", _matching("[0-9]+", f"is not a number of threads, and {otherwise}"))


TEXT = Kind("text", Reading)
STRTOD = Kind("a number", _strtod)
STRTOL = Kind("an integer", _strtol)
STOI = Kind("an integer", _stoi)
INT = Kind("an integer", _python_number(int))
FLOAT = Kind("a number", _python_number(float))
# OpenMP takes a list, a number for each level of nesting; accelerate reads the same variable with Python's int.
THREADS = threads(IGNORED)
SIZE = Kind("a size such as 16M", _matching(r"[0-9]+ *[bkmgtBKMGT]?", IGNORED))
BLOCKTIME = Kind("milliseconds, or infinite", _matching(r"[0-9]+ *(ms|us|s|m|h|d)?|infinite", IGNORED))
BOOLEAN = one_of(("true", "false"), IGNORED, any_case=True)
BINDING = Kind(
    "true, false, or a list of close, spread, primary",
    _matching(r"(?i:true|false|(master|primary|close|spread)(\s*,\s*(master|primary|close|spread))*)", IGNORED),
)
# Yes or no, in the ways that there are.
ONE = Kind("1, 0", _flag(on={"1"}))
CHECK_ENV = Kind("1, 0", _flag(on={"1"}, off={"0"}, otherwise=IGNORED))
HUB = Kind("1, 0", _flag(on={"1", "on", "yes", "true"}))
WEIGHTS = Kind("1, 0", _flag(on={"1", "y", "yes", "true"}))
STRTOBOOL = Kind("1, 0", _flag(on=_YES, off=_NO - {""}, otherwise=f"is neither yes nor no, and {RAISES}"))
TOKENIZERS = Kind("true, false", _flag(off=_NO))
NOT_EMPTY = Kind("1, or { unset = true }", _flag(off={""}))
PRESENT = Kind(NOT_EMPTY.allowed, lambda text: Reading(True, None if text.strip().lower() in _YES else "counts as on"))
# PyTorch 2.5 takes any text for on, and 2.13 only "1".
COMPILE_DISABLE = Kind(
    NOT_EMPTY.allowed,
    lambda text: Reading(True, None if text == "1" else "counts as on in PyTorch 2.5, as off in 2.13"),
)
_OPTION = r"[a-z0-9_]+:(\[[^\]]*\]|[^:=,\[\]]+)"
ALLOC_CONF = Kind("option:value,...", _matching(f"{_OPTION}(, *{_OPTION})*", "is not of the form option:value,..."))
WORKSPACE = Kind(":SIZE:COUNT", _matching("(:[0-9]+:[0-9]+)+", "is not of the form :SIZE:COUNT"))
DEVICES = Kind(
    "numbers or UUIDs of GPUs",
    _matching(r"|-?[0-9]+(\s*,\s*-?[0-9]+)*|(GPU|MIG)-[^,]+(,(GPU|MIG)-[^,]+)*", "names no GPU: none is visible"),
)
HASH_SEED = Kind("random, or a number", _matching(r"random|[0-9]{1,10}|", "ends Python at its start"))
