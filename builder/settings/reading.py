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
    """A way to read a variable: `name` as programmers know it, and the reading itself."""

    name: str
    read: Callable[[str], Reading]


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
    return Reading(value, f"is read as {value}" if rest.strip() or not text.strip() else None)


def _strtol(text: str) -> Reading:
    value, rest = strtol(text, 0)
    return Reading(value, f"is read as {value}" if rest.strip() or not text.strip() else None)


def _stoi(text: str) -> Reading:
    value, rest = strtol(text)
    if rest == text or value not in _INT:
        return Reading(None, "is no int: the program ends with an exception")
    return Reading(value, f"is read as {value}" if rest.strip() else None)


def _python_number(parse: Callable[[str], float]) -> Callable[[str], Reading]:
    def read(text: str) -> Reading:
        try:
            return Reading(parse(text))
        except ValueError:
            return Reading(None, f"is no number: {RAISES}")

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
        return Reading(value, counts if meant is not None else f"is no yes or no, and {counts}")

    return read


def one_of(words: Collection[str], otherwise: str, *, any_case: bool = False) -> Callable[[str], Reading]:
    """One of some words; `otherwise` says what becomes of another."""

    def read(text: str) -> Reading:
        for word in words:
            if text == word or (any_case and text.lower() == word.lower()):
                return Reading(word)
        return Reading(None, f"is not one of {', '.join(words)}: {otherwise}")

    return read


def threads(otherwise: str) -> Kind:
    """A number of threads; `otherwise` says what becomes of anything else."""
    return Kind("number of threads", _matching("[0-9]+", otherwise))


IGNORED = "is ignored, with a message"
RAISES = "the program ends with an exception"

TEXT = Kind("text", Reading)
STRTOD = Kind("strtod", _strtod)
STRTOL = Kind("strtol, base 0", _strtol)
STOI = Kind("stoi", _stoi)
INT = Kind("Python's int", _python_number(int))
FLOAT = Kind("Python's float", _python_number(float))
# OpenMP takes a list, a number for each level of nesting; accelerate reads the same variable with Python's int.
THREADS = threads("is no number of threads, and is ignored")
SIZE = Kind("size, 16M", _matching(r"[0-9]+ *[bkmgtBKMGT]?", IGNORED))
BLOCKTIME = Kind("milliseconds or infinite", _matching(r"[0-9]+ *(ms|us|s|m|h|d)?|infinite", IGNORED))
BOOLEAN = Kind("true or false", one_of(("true", "false"), IGNORED, any_case=True))
BINDING = Kind(
    "true, false, or a list of close, spread, primary",
    _matching(r"(?i:true|false|(master|primary|close|spread)(\s*,\s*(master|primary|close|spread))*)", IGNORED),
)
ONE = Kind('"1" or else', _flag(on={"1"}))
CHECK_ENV = Kind('"1" or "0"', _flag(on={"1"}, off={"0"}, otherwise="is neither 1 nor 0, and " + IGNORED))
HUB = Kind("1, ON, YES, TRUE or else", _flag(on={"1", "on", "yes", "true"}))
WEIGHTS = Kind("1, y, yes, true or else", _flag(on={"1", "y", "yes", "true"}))
STRTOBOOL = Kind("yes or no", _flag(on=_YES, off=_NO - {""}, otherwise=f"is no yes or no: {RAISES}"))
NOT_EMPTY = Kind("anything but empty", _flag(off={""}))
PRESENT = Kind("set at all", lambda text: Reading(True, None if text.strip().lower() in _YES else "counts as on"))
TOKENIZERS = Kind("off, false, f, no, n, 0, empty or else", _flag(off=_NO))
# PyTorch 2.5: any text is on; 2.13: only "1" is.
COMPILE_DISABLE = Kind('"1"', lambda text: Reading(text == "1", None if text == "1" else "is on or off by the version"))
_OPTION = r"[a-z0-9_]+:(\[[^\]]*\]|[^:=,\[\]]+)"
ALLOC_CONF = Kind("option:value,...", _matching(f"{_OPTION}(, *{_OPTION})*", "is not of the form option:value,..."))
WORKSPACE = Kind(":SIZE:COUNT", _matching("(:[0-9]+:[0-9]+)+", "is not of the form :SIZE:COUNT"))
DEVICES = Kind(
    "numbers or UUIDs of GPUs",
    _matching(r"|-?[0-9]+(\s*,\s*-?[0-9]+)*|(GPU|MIG)-[^,]+(,(GPU|MIG)-[^,]+)*", "names no GPU: none is visible"),
)
HASH_SEED = Kind('"random" or number', _matching(r"random|[0-9]{1,10}|", "ends Python at its start"))
