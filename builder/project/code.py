"""A project's own code, found in its pyproject.toml and its folders: data is read, and nothing is run.

The name, the version and the entry points are those of PEP 621, or Poetry's. Where its packages are is what the build
backend is told (setuptools, Hatch, Poetry, Flit, PDM, uv, maturin), else the two layouts that all of them look for:
src/NAME and NAME.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from builder.errors import ProfileError, Where
from builder.files import display
from builder.project.document import Document
from builder.script.code import PROGRAMS, REFERENCE, Code

if TYPE_CHECKING:
    from builder.lock.model import Lock
    from builder.profile.model import Profile

FILE = "pyproject.toml"
OLD = ("setup.py", "setup.cfg")
"""Files of a package that has no pyproject.toml, of which setuptools alone knows what they say."""
UNKNOWN = "0+unknown"
"""The version of a project whose build backend alone knows it."""

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)
_PROGRAM_NAME = re.compile(r"(?!python|drydock)[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)
_GROUP = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*", re.ASCII)
_POINT = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.:/+-]*[A-Za-z0-9_])?", re.ASCII)
_VERSION = re.compile(r"^(?:__version__|VERSION|version)\s*(?::[^=]+)?=\s*[\"']([^\"'\n]+)[\"']", re.MULTILINE)
_NO_PACKAGES = ("setup", "conftest", "noxfile", "tasks")  # modules of a project's folder that nobody imports

Content = Callable[[Path], bytes | None]
"""What a file has; None where there is none. Raises ProfileError."""


def read(folder: Path, path: str, fallback: str, content: Content) -> Code:
    """The code in `path` below the `folder` of a project.

    `fallback` is a file of the project by which scripts know it where no package has a name. Raises ProfileError where
    no code is there, and where pyproject.toml says what cannot be.
    """
    return _Reader(folder, path, fallback, content).code()


def name_of(folder: Path, content: Content) -> str | None:
    """The name of the project in a folder, as indexes compare it; None where no pyproject.toml says one."""
    try:
        data = _document(folder, content)
    except ProfileError:  # which is another's to say: nothing may depend on this file
        return None
    name = _own(data.data).get("name") if data is not None else None
    return str(canonicalize_name(name)) if isinstance(name, str) else None


def check_not_required(name: str, profile: Profile, where: Callable[..., Where]) -> None:
    """Raise ProfileError where a profile requires `name`, that of its own project: an index may have anything by it."""
    for text in profile.packages.requires:
        if canonicalize_name(Requirement(text).name) == name:
            raise ProfileError(
                f"{text} is this project itself, and an index may have anything by that name",
                hint='remove it, and write [project] path = "."; what its extras require goes into requires',
                where=where("packages", "requires", name)._replace(key="packages.requires"),
            )


def required(profile: Profile, names: Sequence[str], where: Callable[..., Where]) -> Profile:
    """The profile of a project that is installed as a wheel: with the requirement on itself. Raises ProfileError.

    `names` are those of the project.
    """
    if profile.project is None or not names:
        raise ProfileError(
            "the project has no name to build a wheel by",
            hint='name it in pyproject.toml: [project] name, or import it from the working tree: mode = "tree"',
            where=where("project"),
        )
    itself = f"{names[-1]} @ ./{profile.project.path}"
    packages = profile.packages.model_copy(update={"requires": [*profile.packages.requires, itself]})
    return profile.model_copy(update={"packages": packages})


def check_not_locked(name: str, lock: Lock, where: Where) -> None:
    """Raise ProfileError where a package that is locked has the `name` of the project itself."""
    found = next((package for package in lock.packages if package.name == name and package.origin is None), None)
    if found is not None:
        by = ", ".join(found.required_by)
        raise ProfileError(
            f"{by or 'a package'} requires {name}, this project itself: an index may have anything by that name",
            hint=f"with the reason: [[packages.overrides]] requirement = \"{name}; python_version < '3'\"",
            where=where,
        )


def is_package(folder: Path, content: Content) -> bool:
    """Whether the pyproject.toml in `folder` is that of a package, to be imported. Raises ProfileError.

    Without one, a setup.py or setup.cfg is, where a package stands beside it or in src/.
    """
    document = _document(folder, content)
    if document is None and any((folder / name).is_file() for name in OLD):
        return any(package for _, package in _Reader(folder, ".", FILE, content).found())
    if document is None or not _own(document.data).get("name"):
        return False
    reader = _Reader(folder, ".", FILE, content)
    return "build-system" in document.data or next(reader.found(), None) is not None


def _document(folder: Path, content: Content) -> Document | None:
    text = content(folder / FILE)
    return None if text is None else Document(Path(display(folder / FILE)), text)


def _own(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The table with a project's name, version and programs."""
    return _table(data, "project") or _table(data, "tool", "poetry")


class _Reader:
    def __init__(self, folder: Path, path: str, fallback: str, content: Content) -> None:
        self._folder, self._path, self._fallback, self._content = folder, path, fallback, content
        self._top = folder / path
        if not self._top.resolve().is_relative_to(folder.resolve()) or not self._top.is_dir():
            raise ProfileError(f"{display(self._top)} is not a folder of the project", hint="[project] path names one")
        self._document = _document(self._top, content)
        self._data: Mapping[str, Any] = self._document.data if self._document is not None else {}
        name = _own(self._data).get("name")
        if self._document is not None and name is not None and not (isinstance(name, str) and _NAME.fullmatch(name)):
            raise self._error("not the name of a project", "name")
        self._name: str | None = name

    def code(self) -> Code:
        found = list(dict.fromkeys(self.found()))
        if not found:
            raise ProfileError(
                f"there is no code to import in {display(self._top)}: neither src/{self._module} nor {self._module}",
                hint="tell the build backend in pyproject.toml where it is, or remove [project] from the profile",
                where=Where(display(self._top / FILE)) if self._document is not None else None,
            )
        roots = dict.fromkeys(self._below(root) for root, _ in found)
        named = next((package for _, package in found if package), None)
        marker = self._below(self._file_of(named)) if named else self._fallback
        if self._name is None:
            return Code(tuple(roots), marker)
        return Code(tuple(roots), marker, self._name, self._version(), self._entry_points())

    def _file_of(self, package: str) -> str:
        return package if (self._top / package).is_dir() else f"{package}.py"

    @property
    def _module(self) -> str:
        return re.sub(r"[-.]+", "_", self._name) if self._name else "a package"

    def found(self) -> Iterator[tuple[str, str]]:
        """The folders to import from, each with a package or module of it; "" where that has no name of its own."""
        told = [(root, package) for root, package in self._declared() if self._is_there(root, package)]
        yield from told
        if not told:
            yield from self._by_convention()

    def _declared(self) -> Iterator[tuple[str, str]]:
        """What build backends are told."""
        setuptools = _table(self._data, "tool", "setuptools")
        find = _table(setuptools, "packages", "find")
        for root in (*_texts(find.get("where")), *_texts([_table(setuptools, "package-dir").get("")])):
            yield from ((root, package) for package in self._packages(root))
        for package in _texts(_table(self._data, "tool", "hatch", "build", "targets", "wheel").get("packages")):
            yield posixpath.dirname(package.rstrip("/")), package.rstrip("/")
        for row in _tables(_table(self._data, "tool", "poetry").get("packages")):
            root, package = str(row.get("from", "")), str(row.get("include", ""))
            yield root, posixpath.join(root, package.partition("/")[0])
        backend = _table(self._data, "tool", "uv", "build-backend")
        roots = [
            _table(self._data, "tool", "pdm", "build").get("package-dir"),
            _table(self._data, "tool", "maturin").get("python-source"),
            backend.get("module-root"),
        ]
        module = backend.get("module-name")
        for root in _texts(roots):
            named = module if isinstance(module, str) else self._module
            yield root, posixpath.join(root, named.replace(".", "/"))
        for module in _texts([_table(self._data, "tool", "flit", "module").get("name")]):
            yield from ((root, posixpath.join(root, module)) for root in ("src", ""))

    def _by_convention(self) -> Iterator[tuple[str, str]]:
        for root in ("src", ""):
            for module in dict.fromkeys((self._module, self._module.lower())) if self._name else ():
                if self._is_there(root, posixpath.join(root, module)):
                    yield root, posixpath.join(root, module)
                    return
        for root in ("src", ""):
            packages = list(self._packages(root))
            if packages:
                yield from ((root, package) for package in packages)
                return
        if self._document is None and any(self._top.glob("*.py")):
            yield "", ""

    def _packages(self, root: str) -> Iterator[str]:
        """The packages and modules right below a folder."""
        folder = self._inside(root)
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            is_module = path.suffix == ".py" and path.stem not in (*_NO_PACKAGES, "__init__") and root != ""
            if path.stem.isidentifier() and (is_module or (path / "__init__.py").is_file()):
                relative = posixpath.join(root, path.stem)
                if self._is_there(root, relative):
                    yield relative

    def _is_there(self, root: str, package: str) -> bool:
        """Whether a package or module is there; what says so is remembered, so that a move is noticed."""
        path = self._inside(package)
        self._inside(root)
        # A package needs no __init__.py (PEP 420).
        return (
            self._content(path / "__init__.py") is not None
            or self._content(path.with_name(f"{path.name}.py")) is not None
            or (path.is_dir() and package not in ("", ".") and any(path.glob("**/*.py")))
        )

    def _inside(self, path: str) -> Path:
        """A folder of the code. Raises ProfileError where it is outside of the project."""
        found = self._top / path
        outside = PurePosixPath(path).is_absolute() or not found.resolve().is_relative_to(self._folder.resolve())
        if outside or not path.isprintable() or not path.isascii() or ":" in path:
            raise ProfileError(
                f"{path!a} is not a folder of the project",
                hint="code is imported from the project's own folder only",
                where=Where(display(self._top / FILE)),
            )
        return found

    def _below(self, path: str) -> str:
        """A path of the code, relative to the project's folder; "" is that itself."""
        below = posixpath.normpath(posixpath.join(self._path, path))
        return "" if below == "." else below

    def _version(self) -> str:
        own = _own(self._data)
        said = own.get("version")
        if said is None and "version" in _strings(own.get("dynamic")):
            said = self._dynamic_version()
        try:
            return str(Version(str(said))) if said is not None else UNKNOWN
        except InvalidVersion:
            raise self._error(f"{str(said)!a} is not a version (PEP 440)", "version") from None

    def _dynamic_version(self) -> str | None:
        """The version in a file that the backend is told to read; None where only the backend can know it."""
        attribute = _table(self._data, "tool", "setuptools", "dynamic", "version").get("attr")
        path = _table(self._data, "tool", "hatch", "version").get("path")
        files = [path] if isinstance(path, str) else []
        if isinstance(attribute, str):
            module = attribute.rpartition(".")[0].replace(".", "/")
            files += [
                posixpath.join(root, f"{module}{end}") for root, _ in self.found() for end in (".py", "/__init__.py")
            ]
        if "flit" in str(_table(self._data, "build-system").get("build-backend")):
            files += [f"{package}{end}" for _, package in self.found() for end in (".py", "/__init__.py")]
        for file in files:
            text = self._content(self._inside(file)) or b""
            if found := _VERSION.search(text.decode("utf-8", "replace")):
                return found[1]
        return None

    def _entry_points(self) -> dict[str, dict[str, str]]:
        own = _own(self._data)
        groups = {
            "console_scripts": own.get("scripts"),
            "gui_scripts": own.get("gui-scripts"),
            **_table(own, "entry-points"),
            **_table(own, "plugins"),
        }
        made = {group: self._group(group, points) for group, points in groups.items() if points}
        return {group: points for group, points in made.items() if points}

    def _group(self, group: str, points: Any) -> dict[str, str]:
        if not _GROUP.fullmatch(group) or not isinstance(points, dict):
            raise self._error(f"{group!a} is not a group of entry points", group)
        made = {}
        for name, said in points.items():
            # Poetry has tables too, for files that are no entry points.
            if isinstance(said, dict) and said.get("type") == "file":
                continue
            reference = said.get("reference") if isinstance(said, dict) else said
            text = re.sub(r"\s*\[[\w\s,.-]*\]\s*$", "", str(reference)).replace(" ", "")  # extras, long deprecated
            found = REFERENCE.fullmatch(text)
            allowed = _PROGRAM_NAME if group in PROGRAMS else _POINT
            if found is None or (group in PROGRAMS and found["object"] is None):
                raise self._error(f"{str(reference)!a} is not what an entry point can be: module:function", name)
            if not allowed.fullmatch(name):
                raise self._error(f"{name!a} is not a name for an entry point", name)
            made[name] = text
        return made

    def _error(self, message: str, word: str) -> ProfileError:
        if self._document is None:
            return ProfileError(message)
        keys = (("project",), ("tool", "poetry"))
        tables = ((), ("scripts",), ("gui-scripts",), ("entry-points",), ("plugins",))
        own = keys[0] if "project" in self._data else keys[1]
        under = next((table for table in tables if word in _table(self._data, *own, *table)), ())
        return self._document.error(message, (*own, *under, word))


def _table(value: Any, *keys: str) -> Mapping[str, Any]:
    """The table below `keys`; an empty one where there is none: others write this file."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _tables(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _strings(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _texts(value: Any) -> list[str]:
    """The relative paths in a list, "." and "" as ""."""
    return ["" if (path := posixpath.normpath(one or ".")) == "." else path for one in _strings(value)]
