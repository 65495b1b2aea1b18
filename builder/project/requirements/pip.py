"""pip's requirement files (pip, "Requirements File Format"), nested ones too, inside their folder only.

A reader of our own: the one on PyPI (pip-requirements-parser) has had no release since 2022.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

from packaging.utils import canonicalize_name, parse_wheel_filename

from builder.errors import ProfileError, Where
from builder.project.requirements import indexes
from builder.project.requirements.model import Imported, name_in, requirement, safe_excerpt, table
from builder.project.requirements.pyproject import ALL, Wanted, read_pyproject
from builder.project.requirements.tomlfile import parsed

Read = Callable[[str, Where], str]
"""The text of a file by its path, relative to the folder of the first one; the place is that of its mention."""

_MOST_FILES = 50
_MOST_LINES = 20_000
_OPTION = re.compile(r"(--[a-z][a-z-]*)(?:=(.*))?|(-[a-zA-Z])=?(.*)", re.DOTALL)
_LONG = {"-r": "--requirement", "-c": "--constraint", "-i": "--index-url", "-e": "--editable", "-f": "--find-links"}
_WITH_VALUE = (
    *("--requirement", "--constraint", "--index-url", "--extra-index-url", "--editable", "--find-links"),
    *("--no-binary", "--only-binary", "--trusted-host", "--use-feature", "--hash", "--pypi-url"),
)
# Of one requirement, after it.
_PER_REQUIREMENT = re.compile(r"\s--(?:hash|config-settings?|global-option|install-option)\b.*$")
_REASONS = {
    "--find-links": "a folder or page of wheels is configured where the lock is made: export UV_FIND_LINKS there",
    "--no-index": "without any index is for a moment, not for a profile: export PIP_NO_INDEX=1 there",
    "--no-binary": "a profile allows a source by name, with what builds it: [packages.build]",
    "--pre": "a pre-release is locked where a requirement names one: >=2.0rc1",
}
_MEANT_ANYWAY = ("--require-hashes", "--prefer-binary", "--only-binary")


def read_requirements(path: str, text: str, read: Read, wanted: Wanted = ALL) -> Imported:
    """Return the contents of the requirement file at `path`; `read` returns the files that it names.

    `wanted` has the target and the Python, for projects that it names.

    Raises ProfileError for a line that is not a requirement, and for a path that leads out of the folder.
    """
    reader = _Reader(read, wanted=wanted)
    reader.file(path, text)
    indexes.use(reader.urls, reader.imported)
    reader.imported.settle_constraints()
    return reader.imported


def read_lines(
    lines: Iterator[tuple[int, str]], path: str, read: Read, imported: Imported, *, started_anywhere: bool = False
) -> None:
    """Add single lines, (number, text), as they stand in another format; the same rules.

    With `started_anywhere` nobody knows from which folder a file is named: one that is not found is left out.
    """
    reader = _Reader(read, imported)
    reader.started_anywhere = started_anywhere
    for number, line in lines:
        reader.line(line, Where(path, number), constraint=False)
    indexes.use(reader.urls, imported)


# A folder or a wheel, its extras, a marker.
_LOCAL = re.compile(r"(\.{1,2}/[^\s\[;]+|[^\s\[;]+\.whl)(\[[A-Za-z0-9._, -]*\])?\s*(?:;(.*))?")


class _Reader:
    def __init__(self, read: Read, imported: Imported | None = None, wanted: Wanted = ALL) -> None:
        self._read = read
        self._wanted = wanted
        self.imported = imported or Imported()
        self.urls: list[tuple[str, bool, Where]] = []
        self._seen: set[tuple[str, bool]] = set()
        self._lines = 0
        self.started_anywhere = False

    def file(self, path: str, text: str, *, constraint: bool = False) -> None:
        hashed: list[int] = []
        self._seen.add((path, constraint))
        for number, line in logical_lines(text):
            if re.search(r"\s--hash\b", line):
                hashed.append(number)
            self.line(line, Where(path, number), constraint=constraint)
        if hashed:
            why = "a lock has hashes, a profile has none: drydock lock writes those of the files that it chooses"
            self.imported.leave(f"the hashes of {len(hashed)} requirements", why, Where(path, hashed[0]), expected=True)

    def line(self, line: str, where: Where, *, constraint: bool) -> None:
        self._lines += 1
        if self._lines > _MOST_LINES:
            raise ProfileError(f"more than {_MOST_LINES} lines", hint="is this the right file?", where=where)
        if line.startswith("-"):
            self._option(line, where, constraint)
            return
        if "${" in line:
            self.imported.leave(line, "it depends on an environment variable", where, package=name_in(line))
            return
        if not line.isprintable():
            raise ProfileError(f"a line with characters that cannot be printed: {safe_excerpt(line)}", where=where)
        plain = _PER_REQUIREMENT.sub("", line)
        if re.search(r"\s--(config-settings?|global-option|install-option)\b", line):
            self.imported.leave(line, "its options for a build were taken out", where)
        if not constraint:
            if not self._here(plain, where):
                self.imported.require(plain, where)
            return
        parsed = requirement(plain, where)
        if parsed is None:
            self.imported.leave(plain, "a place, not a version", where)
        else:
            self.imported.constraints.append((parsed, where))

    def _here(self, line: str, where: Where) -> bool:
        """Whether a line is a folder or a wheel of the project, which says itself what it is called; it is required.

        pip takes a path as one from where it is started: the project's folder is tried first, then that of this file.
        """
        found, local = _LOCAL.fullmatch(line), self._wanted.local
        if found is None or local is None:
            return False
        with suppress(ProfileError, ValueError):  # InvalidWheelFilename, InvalidRequirement
            for place in (inside(found[1], where._replace(file="")), inside(found[1], where)):
                file = place if place.endswith(".whl") else f"{place}/pyproject.toml"
                if place == "." or not local(file):
                    continue
                if file == place:
                    name: object = parse_wheel_filename(posixpath.basename(file))[0]
                else:
                    name = table(parsed(file, self._read(file, where)).get("project")).get("name")
                if not isinstance(name, str):
                    continue
                marker = f" ;{found[3]}" if found[3] else ""
                self.imported.require_folder(f"{name}{found[2] or ''} @ ./{place}{marker}", where)
                return True
        return False

    def _option(self, line: str, where: Where, constraint: bool) -> None:
        """Read a line of options: pip takes several on one."""
        try:
            words = shlex.split(line)
        except ValueError:
            raise ProfileError(f"{safe_excerpt(line)} is not a line of a requirement file", where=where) from None
        while words:
            word = words.pop(0)
            found = _OPTION.fullmatch(word)
            if found is None:
                raise ProfileError(f"{safe_excerpt(line)} is not a line of a requirement file", where=where)
            option = found[1] or _LONG.get(found[3], found[3])
            value = found[2] if found[1] else found[4] or None
            if value is None and option in _WITH_VALUE:
                value = words.pop(0) if words else ""
            self._apply_option(option, value or "", where, constraint)

    def _apply_option(self, option: str, value: str, where: Where, constraint: bool) -> None:
        if option in ("--requirement", "--constraint"):
            self._nested(value, where, constraint or option == "--constraint")
        elif option in ("--index-url", "--extra-index-url"):
            self.urls.append((value, option == "--index-url", where))
        elif option == "--editable":
            self._editable(value, where)
        elif option not in _MEANT_ANYWAY:
            written = f"{option} {value}".strip()
            self.imported.leave(written, _REASONS.get(option, "an option of pip that a profile does not have"), where)

    def _nested(self, name: str, where: Where, constraint: bool) -> None:
        if self.started_anywhere:
            self._named_anywhere(name, where, constraint)
            return
        path = inside(name, where)
        if (path, constraint) in self._seen:
            return
        if len(self._seen) >= _MOST_FILES:
            raise ProfileError(f"more than {_MOST_FILES} files that name each other", where=where)
        self.file(path, self._read(path, where), constraint=constraint)

    def _named_anywhere(self, name: str, where: Where, constraint: bool) -> None:
        """Add a file that is named from the folder of all files, or of this one; one in neither is left out."""
        text = path = ""
        for at in (where._replace(file=""), where):
            with suppress(ProfileError):
                path = inside(name, at)
                text = self._read(path, where)
                break
        else:
            why = "not found in the project: import it by itself"
            self.imported.leave(f"-{'c' if constraint else 'r'} {name}", why, where, package="")
            return
        self.started_anywhere = False
        self.file(path, text, constraint=constraint)
        self.started_anywhere = True

    def _editable(self, name: str, where: Where) -> None:
        found = re.fullmatch(r"([^\[\]]+)(?:\[([A-Za-z0-9._, -]*)\])?", name)
        if found is None or "://" in name or re.match(r"[a-z]+\+", name):
            self.imported.require(name, where)
            return
        extras = [canonicalize_name(extra.strip()) for extra in (found[2] or "").split(",") if extra.strip()]
        why = "the project itself is not installed: start the trainer in its folder"
        try:
            path, text = self._project(found[1], where)
        except ProfileError as error:
            said = f"{why}; and its requirements are not known: {error.message}"
            self.imported.leave(f"-e {name}", said, where, package="")
            return
        self.imported.leave(f"-e {name}", f"{why}; its requirements are carried over", where, expected=True)
        self.imported.add(read_project(path, text, replace(self._wanted, extras=extras), self._read))

    def _project(self, folder: str, where: Where) -> tuple[str, str]:
        """The path and text of a project's file: pip takes its folder as one from where it is started.

        So the folder of all files is tried first, and that of this one after it.
        """
        from builder.project.requirements.setuptools import CONFIG, SCRIPT

        missing = None
        for one in dict.fromkeys((inside(folder, where._replace(file="")), inside(folder, where))):
            for name in ("pyproject.toml", CONFIG, SCRIPT):
                path = posixpath.normpath(posixpath.join(one, name))
                try:
                    return path, self._read(path, where)
                except ProfileError as error:
                    missing = missing or error
        raise missing or AssertionError


def read_project(path: str, text: str, wanted: Wanted, read: Read) -> Imported:
    """Return what a project requires, by the name of its file: pyproject.toml, setup.cfg or setup.py."""
    from builder.project.requirements.setuptools import CONFIG, SCRIPT, read_setup_cfg, read_setup_py

    name = posixpath.basename(path)
    if name in (CONFIG, SCRIPT):
        return (read_setup_cfg if name == CONFIG else read_setup_py)(path, text, wanted, read)
    return read_pyproject(path, text, wanted, read)


def inside(name: str, where: Where) -> str:
    """The path of a file that one at `where` names, relative to the folder of the first one.

    Raises ProfileError where it leads out of that folder, or is not a path.
    """
    if "://" in name:
        raise ProfileError(
            f"{safe_excerpt(name)} would be fetched, and nothing is", hint="fetch it, read it, import that", where=where
        )
    path = posixpath.normpath(posixpath.join(posixpath.dirname(where.file), name))
    if not name or not name.isprintable() or name.startswith(("/", "~")) or path == ".." or path.startswith("../"):
        raise ProfileError(
            f"{safe_excerpt(name) or 'an empty path'} leads out of the folder",
            hint="copy that file into the folder",
            where=where,
        )
    return path


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    r"""Lines as pip sees them, with their numbers: joined where one ends with a backslash, without comments.

    >>> list(logical_lines("a==1 \\\n  --hash=x  # why\n\n# no\nb\n"))
    [(1, 'a==1   --hash=x'), (5, 'b')]
    """
    start, held = 0, ""
    for number, line in enumerate(text.split("\n"), 1):
        start = start or number
        raw = line.removesuffix("\r")
        if raw.endswith("\\") and not raw.lstrip().startswith("#"):
            held += raw[:-1]
            continue
        whole = re.sub(r"(^|\s)#.*$", "", held + raw).strip()
        if whole:
            yield start, whole
        start, held = 0, ""
    if whole := held.strip():
        yield start, whole
