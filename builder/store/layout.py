"""The store: where finished environments are, each in a folder named by its key, and what is kept beside them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from builder.embedded import state
from builder.embedded.folders import is_shared
from builder.errors import UsageError

FORMAT = "1"
"""How the store is laid out; the generated scripts know this one too (templates/run.sh.j2, check_format)."""

_STORE_NAME = r"[0-9a-z]{32}-[^/]+"
_VIEWS = "_data=$_drydock/data/views/"


class Store(NamedTuple):
    """Everything below Drydock's own folder, `home`. An environment is named by its store name, KEY-NAME."""

    home: Path

    @classmethod
    def here(cls, environ: Mapping[str, str] = os.environ) -> Store:
        """The user's: in DRYDOCK_HOME, else XDG_DATA_HOME/drydock, else ~/.local/share/drydock.

        The generated scripts have the same rule (templates/_facts.sh.j2). Raises UsageError where none is set, and
        where a newer Drydock has laid it out.
        """
        folder = _named(environ)
        _check_format(folder)
        return cls(folder)

    @property
    def environments(self) -> Path:
        """The folder that has the environments, finished and not."""
        return self.home / "store"

    @property
    def wheels(self) -> Path:
        """The folder of unpacked wheels."""
        return self.home / "wheels"

    @property
    def pythons(self) -> Path:
        """The folder of the Pythons that locks name, each by the sha256 of its archive."""
        return self.home / "pythons"

    @property
    def built(self) -> Path:
        """The folder of the wheels that were made of what requirements name by a place, each by its sha256."""
        return self.home / "cache" / "built"

    @property
    def data(self) -> Path:
        """The folder of models and data sets (builder/embedded/data.py)."""
        return self.home / "data"

    def data_of(self, script: Path) -> Path | None:
        """Where the models and data sets are, or will be, that a run script names; None where it names none."""
        text = state.read_text(script, state.LARGE, follow=True) or ""
        if _VIEWS not in text:
            return None
        found = re.search(rf"^{re.escape(_VIEWS)}([0-9a-f]{{64}}-[a-z0-9-]+)$", text, re.MULTILINE)
        return self.data / "views" / found[1] if found is not None else None

    def lacks_data(self, script: Path) -> bool:
        """Whether a run script names models and data sets that are not here yet."""
        data = self.data_of(script)
        return data is not None and not data.is_dir()

    @property
    def bytecode(self) -> Path:
        """The folder of shared bytecode."""
        return self.home / "bytecode"

    @property
    def profiles(self) -> Path:
        """The folder of the generations."""
        return self.home / "profiles"

    @property
    def roots(self) -> Path:
        """The folder of the garbage collection roots."""
        return self.home / "gcroots"

    @property
    def fleet(self) -> Path:
        """The folder of what a desk knows of its fleets: in a store of a group, each member has one of their own."""
        base = self.home / "fleet"
        return base / str(os.getuid()) if is_shared(self.home) else base

    @property
    def runs(self) -> Path:
        """The folder of the user's runs: in a store of a group, each member has one of their own."""
        base = self.home / "runs"
        return base / str(os.getuid()) if is_shared(base) else base

    def path(self, store_name: str) -> Path:
        """The folder of an environment, built or not."""
        return self.environments / store_name

    def architectures(self, store_name: str) -> tuple[str, ...]:
        """What its build wrote down that the torch of an environment was built for; none where it did not."""
        from builder.embedded.architectures import RECORD

        try:
            with (self.path(store_name) / RECORD).open(encoding="ascii") as file:
                names = tuple(file.readline().split())
        except (OSError, ValueError):
            return ()
        return names if all(re.fullmatch("(sm|compute)_[0-9]{2,}[af]?", name) for name in names) else ()

    def names(self) -> list[str]:
        """The store names of the environments that are there, and the names of those that somebody renamed.

        What else lies in their folder is not ours.
        """
        try:
            with os.scandir(self.environments) as entries:
                return sorted(one.name for one in entries if _is_environment(one))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def is_built(self, store_name: str) -> bool:
        """Whether an environment is there, with its Python; only the last step of a build, one rename, makes it so.

        Reads nothing: asked before every run.
        """
        # As builder.embedded.manifest.is_usable, which takes 10 ms to import.
        env = self.path(store_name)
        return (env / ".drydock" / "manifest.json").is_file() and os.access(env / "bin" / "python", os.X_OK)

    def manifest(self, store_name: str) -> dict[str, Any]:
        """The manifest of an environment, checked against its seal, its key and its folder. Raises StageError."""
        from builder.embedded.manifest import read_manifest

        return read_manifest(self.path(store_name))


def _is_environment(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
        return False
    return re.fullmatch(_STORE_NAME, entry.name) is not None or (Path(entry.path) / ".drydock").is_dir()


def home() -> Path:
    """Drydock's own folder. Raises UsageError, as `Store.here`."""
    return Store.here().home


@cache
def _check_format(folder: Path) -> None:
    found = (state.read_text(folder / "format", follow=True) or "").partition("\n")[0].strip()
    if found not in ("", FORMAT):
        found = found[:40] if found.isalnum() else ascii(found[:40])
        raise UsageError(
            f"{folder} is a store of format {found}, and this Drydock knows format {FORMAT}",
            hint="use the newer Drydock, or name another folder: DRYDOCK_HOME",
        )


def _named(environ: Mapping[str, str]) -> Path:
    found = place(environ)
    if ":" in str(found):
        raise UsageError(
            f"the store cannot be in {found}, as PATH has no folder with a colon", hint="DRYDOCK_HOME names another"
        )
    return found


def place(environ: Mapping[str, str]) -> Path:
    """Where an environment says that the store is. Raises UsageError where it says nothing."""
    if named := environ.get("DRYDOCK_HOME"):
        return Path(named).absolute()
    if data := environ.get("XDG_DATA_HOME"):
        return Path(data).absolute() / "drydock"
    if user := environ.get("HOME"):
        return Path(user).absolute() / ".local/share/drydock"
    raise UsageError("there is no place for the store", hint="set HOME or DRYDOCK_HOME")
