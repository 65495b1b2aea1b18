"""The result of a reader: the contents of a profile, and the items that a profile cannot hold."""

from __future__ import annotations

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from builder.embedded.words import printable
from builder.errors import ProfileError, Where
from builder.profile.places import place_of

# The oldest for which all of today's packages for training have wheels, then the newer ones, and the old ones last.
_PYTHONS = ("3.11", "3.12", "3.13", "3.14", "3.15", "3.10", "3.9")
_MOST = 5000
_LONGEST = 2000
_NAMED = re.compile(r"\s*([A-Za-z0-9._-]+)\s*(?:\[[^\]]*\])?\s*@")
_ARCHIVES = (".whl", ".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


@dataclass(frozen=True)
class LeftOut:
    """An item that a profile cannot hold, or whose value is not known here: what, why, and where it stands.

    `package` is the name of a package that is required there, "" where it is not known which; None where nothing that
    is required is lost. `expected` is what nobody misses, who has chosen from the file.
    """

    what: str
    why: str
    where: Where
    package: str | None = None
    expected: bool = False

    def __str__(self) -> str:
        return printable(f"{self.where}: {self.what}: {self.why}")


@dataclass
class Imported:
    """The contents of a profile to be; the readers add to it, piece by piece.

    `requires` are requirements (PEP 508), `constraints` what holds for a package only if something requires it,
    `python` a version such as "3.11", `env` variables as a profile writes them and `env_at` where they stand, `indexes`
    logical name to URL, and `index` package to logical name. `command` and `options` are the trainer's, `commands`
    other programs by name. `places` says where each of `requires` stands, `python_range` which Pythons the file allows,
    and `python_at` where.
    """

    name: str | None = None
    requires: list[str] = field(default_factory=list)
    constraints: list[tuple[Requirement, Where]] = field(default_factory=list)
    overrides: list[tuple[str, str]] = field(default_factory=list)
    places: dict[str, Where] = field(default_factory=dict)
    python: str | None = None
    python_range: str | None = None
    python_at: Where | None = None
    env: dict[str, Any] = field(default_factory=dict)
    env_at: dict[str, Where] = field(default_factory=dict)
    indexes: dict[str, str] = field(default_factory=dict)
    index: dict[str, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    options: list[dict[str, str]] = field(default_factory=list)
    commands: dict[str, list[str]] = field(default_factory=dict)
    exclude_newer: str | None = None
    exclude_newer_package: dict[str, str | Literal[False]] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)

    def leave(self, what: str, why: str, where: Where, *, package: str | None = None, expected: bool = False) -> None:
        """Leave an item out; see LeftOut.

        `what` may come from anywhere: it is shown without passwords and control characters.
        """
        self.left_out.append(LeftOut(safe_excerpt(what), why, where, package, expected))

    def require(self, text: str, where: Where) -> None:
        """Add a requirement; one that names a place instead of a version is left out.

        Raises ProfileError where it is not a requirement.
        """
        if len(self.requires) >= _MOST:
            raise ProfileError(f"more than {_MOST} requirements", hint="is this the right file?", where=where)
        parsed = requirement(text, where)
        if parsed is None and (placed := _placed(text)) is not None:
            parsed = placed
        if parsed is None:
            why = "a place that a profile elsewhere cannot name"
            if "://" in text and not name_in(text):
                why = "a place without the name of its package: write NAME @ PLACE"
            self.leave(text, why, where, package=name_in(text))
        elif str(parsed) not in self.requires:
            self.requires.append(str(parsed))
            self.places[str(parsed)] = where

    def require_folder(self, text: str, where: Where) -> None:
        """Add a requirement on a place, which may be a folder of the project."""
        parsed = str(Requirement(text))
        if parsed not in self.requires:
            self.requires.append(parsed)
            self.places[parsed] = where

    def add(self, other: Imported) -> None:
        """Add what another file requires, and what it says of that; what is said here counts."""
        self.requires += [one for one in other.requires if one not in self.requires]
        self.places |= other.places
        self.constraints += other.constraints
        self.overrides += other.overrides
        self.index, self.indexes = {**other.index, **self.index}, {**other.indexes, **self.indexes}
        self.exclude_newer = self.exclude_newer or other.exclude_newer
        self.exclude_newer_package = {**other.exclude_newer_package, **self.exclude_newer_package}
        self.left_out += other.left_out
        if self.python is None:
            self.python, self.python_range, self.python_at = other.python, other.python_range, other.python_at

    def settle_constraints(self) -> None:
        """Constraints on what is required directly become requirements; the others are left out."""
        direct = {canonicalize_name(Requirement(text).name) for text in self.requires}
        for constraint, where in self.constraints:
            if canonicalize_name(constraint.name) in direct:
                if str(constraint) not in self.requires:
                    self.requires.append(str(constraint))
                    self.places[str(constraint)] = where
            else:
                why = "a constraint on a package that is not required directly; require it, if it must hold"
                self.leave(str(constraint), why, where)
        self.constraints.clear()


def requirement(text: str, where: Where) -> Requirement | None:
    """Return a requirement of an index; None for one by URL or path. Raises ProfileError for any other text.

    >>> requirement("torch >= 2 ; python_version > '3'", Where("a.txt", 1))
    <Requirement('torch>=2; python_version > "3"')>
    """
    line = text.strip()
    if not line.isprintable():
        raise ProfileError(f"a line with characters that cannot be printed: {safe_excerpt(line)}", where=where)
    # Brackets are read by recursion, there and later.
    if len(line) > _LONGEST or line.count("(") > _LONGEST // 100:
        raise ProfileError(f"longer than any requirement: {safe_excerpt(line)}", where=where)
    if _is_place(line):
        return None
    try:
        parsed = Requirement(line)
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        raise ProfileError(
            f"{safe_excerpt(line)} is not a requirement (PEP 508): {safe_excerpt(reason)}",
            hint="fix the line, or remove it",
            where=where,
        ) from None
    return parsed if parsed.url is None else None


def _placed(text: str) -> Requirement | None:
    """A requirement on a repository or a file on the web, as a profile may have it; None for another place.

    >>> str(_placed("git+https://host/anchor.git@v1#egg=anchor"))
    'anchor @ git+https://host/anchor.git@v1'
    >>> str(_placed("anchor@git+https://host/anchor@v1"))
    'anchor @ git+https://host/anchor@v1'
    """
    plain, _, marker = text.partition(" ;")
    if not _NAMED.match(plain) and (name := name_in(plain)):
        plain = f"{name} @ {re.sub('[#&]egg=[^&]*', '', plain.strip())}"
    try:
        parsed = Requirement(f"{plain} ;{marker}" if marker else plain)
        place = place_of(parsed)
    except ValueError:
        return None
    return parsed if place is not None and place.path is None else None


def name_in(place: str) -> str:
    """The package that a requirement by URL or path names; "" where it names none.

    >>> name_in("Anchor[x] @ https://host/a.whl"), name_in("git+https://host/x.git#egg=anchor"), name_in("./lib")
    ('anchor', 'anchor', '')
    """
    found = _NAMED.match(place) or re.search(r"[#&]egg=([A-Za-z0-9._-]+)", place)
    return str(canonicalize_name(found[1])) if found else ""


def _is_place(line: str) -> bool:
    """Whether pip would take it for a path or a URL, and not for a name."""
    first = line.split(";", 1)[0].split("[", 1)[0].strip()
    return (
        "://" in first.split("@", 1)[0]
        or re.match(r"(\.\.?|~)?[/\\]|file:|\.{1,2}$", first) is not None
        or first.lower().endswith(_ARCHIVES)
        or ("/" in first and "@" not in first)
    )


def pick_python(requires: str | None, imported: Imported, where: Where, preferred: str | None = None) -> str:
    """The Python for a range of versions: the `preferred` one where it fits, else the oldest of today's that does.

    >>> pick_python("<3.11", Imported(), Where("a")), pick_python(">=3.9", Imported(), Where("a"))
    ('3.10', '3.11')
    >>> pick_python(">=3.10", Imported(), Where("a"), "3.12"), pick_python(">=3.12", Imported(), Where("a"), "3.10")
    ('3.12', '3.12')
    """
    pythons = (preferred, *_PYTHONS) if preferred else _PYTHONS
    try:
        allowed = SpecifierSet(requires or "")
        # A minor release fits where one of its patch releases does: ">3.11.4" allows 3.11.
        fits = [one for one in pythons if any(allowed.contains(f"{one}.{patch}") for patch in range(30))]
    except ValueError:  # InvalidSpecifier, and a number of thousands of digits
        imported.leave(f"requires-python {requires}", f"not a range of versions; using {pythons[0]}", where)
        return pythons[0]
    if not fits:
        imported.leave(f"requires-python {requires}", f"no known Python fits; using {pythons[0]}", where)
    return fits[0] if fits else pythons[0]


def decoded(content: bytes, where: Where) -> str:
    """Return the text of a foreign file, in UTF-8, or in UTF-16 that begins with its mark, as PowerShell writes it.

    Raises ProfileError where it is neither, with the line.
    """
    marked = content.startswith((BOM_UTF16_LE, BOM_UTF16_BE))
    coding = "UTF-16" if marked or b"\0" in content else "ISO-8859-1"
    hint = f"save it as UTF-8: iconv -f {coding} -t UTF-8 {where.file} > new, and rename that"
    try:
        text = content.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ProfileError("not text in UTF-8", hint=hint, where=where._replace(line=line)) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ProfileError("not text: a NUL byte", hint=hint, where=where._replace(line=line))
    return text


def safe_excerpt(text: str) -> str:
    """Return foreign text for a message: one short line, without passwords and tokens in URLs.

    >>> safe_excerpt("git+https://me:hunter2@host/x?token=1")
    'git+https://***@host/x?***'
    """
    if len(text) > _LONGEST:
        return f"{len(text)} characters"
    line = " ".join(text.split())
    line = re.sub(r"//[^/\s]*@", "//***@", line)
    line = re.sub(r"(://[^\s?#]*)[?][^\s]+", r"\1?***", line)
    line = printable(line)
    return line if len(line) <= 160 else f"{line[:157]}..."


def placed_at(source: Mapping[str, Any]) -> str | None:
    """The place in a table of uv, Poetry or pixi, as a requirement has it; None where that is a folder or an index.

    >>> placed_at({"git": "https://host/x", "tag": "v1", "subdirectory": "lib"}), placed_at({"path": "../x"})
    ('git+https://host/x@v1#subdirectory=lib', None)
    """
    texts = {key: value for key, value in source.items() if isinstance(value, str)}
    if "git" in texts:
        revision = next((texts[key] for key in ("rev", "tag", "branch") if key in texts), None)
        url = re.sub(r"^git@([^:/]+):", r"ssh://git@\1/", texts["git"].removeprefix("git+"))
        place = f"git+{url}{f'@{revision}' if revision else ''}"
    elif "url" in texts:
        place = texts["url"]
    else:
        return None
    return f"{place}#subdirectory={texts['subdirectory']}" if "subdirectory" in texts else place


def table(value: Any) -> Mapping[str, Any]:
    """Return `value` if it is a table of TOML, else an empty one: a foreign file may have anything anywhere."""
    return value if isinstance(value, dict) else {}


def rows(value: Any) -> list[Mapping[str, Any]]:
    """Return the tables in `value`, if it is a list of tables."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
