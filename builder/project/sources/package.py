"""A source in an installed Python package: found by its entry point, and never imported."""

from __future__ import annotations

import re
import sys
from importlib.machinery import PathFinder
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from builder.errors import SourceError
from builder.project.sources.pins import VERSION
from builder.project.sources.tree import Tree, files_in

GROUP = "drydock.profiles"


def copy(package: str, root: Path) -> str:
    """Copy the profiles of an installed package into the empty folder `root`; gives its version, "" for an odd one.

    Raises SourceError where it is not installed, or has no profiles.
    """
    try:
        found = distribution(package)
    except PackageNotFoundError:
        hint = f"install it beside Drydock: uv pip install --python {sys.executable} {package}"
        raise SourceError(f"the package {package} is not installed", hint=hint) from None
    points = found.entry_points.select(group=GROUP)
    values = sorted({point.value for point in points})
    if len(values) != 1 or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", values[0]):
        raise SourceError(
            f'the package {package} has not exactly one entry point in the group "{GROUP}" that names a package',
            hint=f'in its pyproject.toml: [project.entry-points."{GROUP}"] profiles = "my_package.profiles"',
        )
    folder = _folder(found, values[0])
    tree = Tree(root)
    for name, path in files_in(folder):
        if "__pycache__" not in name.split("/") and not name.endswith(".pyc"):
            with path.open("rb") as content:
                tree.add(name, content)
    return found.version if re.fullmatch(VERSION, found.version) else ""


def _folder(found: Distribution, module: str) -> Path:
    """The folder of a package, which is not imported for that: nothing of it may run."""
    parts = module.split(".")
    folder = Path(str(found.locate_file("/".join(parts))))
    if not folder.is_dir():  # as an editable installation has it
        spec = PathFinder.find_spec(parts[0])
        places = list(spec.submodule_search_locations or ()) if spec is not None else []
        folder = next((place for place in (Path(one, *parts[1:]) for one in places) if place.is_dir()), folder)
    if not folder.is_dir():
        raise SourceError(f"{module}, the entry point of {found.name}, is not a folder: {folder}")
    return folder
