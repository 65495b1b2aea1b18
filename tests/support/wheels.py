"""Small real wheels and source distributions."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from builder.embedded.hashes import record_hash


def make_wheel(
    folder: Path,
    name: str,
    version: str,
    *,
    files: Mapping[str, str] | None = None,
    requires: Sequence[str] = (),
    tag: str = "py3-none-any",
    entry_points: str = "",
    metadata: Sequence[str] = (),
) -> Path:
    """A wheel of `name` in `folder`; `files` maps paths to texts, by default one module that knows its version.

    `metadata` are more lines of its METADATA.
    """
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    head = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *metadata]
    head += [f"Requires-Dist: {requirement}" for requirement in requires]
    contents = dict(files if files is not None else {f"{module}/__init__.py": f"version = {version!r}\n"})
    contents[f"{info}/METADATA"] = "\n".join(head) + "\n"
    contents[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n"
    if entry_points:
        contents[f"{info}/entry_points.txt"] = entry_points
    record = [f"{path},{record_hash(text.encode())},{len(text.encode())}" for path, text in contents.items()]
    contents[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,"]) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{module}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in contents.items():
            entry = zipfile.ZipInfo(file, (2020, 1, 1, 0, 0, 0))
            entry.external_attr = (0o100755 if ".data/scripts/" in file else 0o100600) << 16
            archive.writestr(entry, text)
    return path


def make_sdist(folder: Path, name: str, version: str, files: dict[str, str] | None = None) -> Path:
    """A source distribution that setuptools builds, with more `files` in it."""
    module = name.replace("-", "_")
    root = f"{module}-{version}"
    contents = {
        f"{root}/PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{root}/setup.py": "from setuptools import setup\n"
        f"setup(name={name!r}, version={version!r}, py_modules=[{module!r}])\n",
        f"{root}/{module}.py": f"version = {version!r}\n",
        **{f"{root}/{path}": text for path, text in (files or {}).items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{root}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for file, text in contents.items():
            member = tarfile.TarInfo(file)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return path
