"""Wheels of what is installed: a machine with a GPU and no network has torch, and no file that it came from.

What comes out is stored, not compressed, and has the files that the installed RECORD names, but for what an installer
adds (the binary distribution format; PEP 376 for RECORD).
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import Distribution, distribution
from pathlib import Path, PurePosixPath

_BY_AN_INSTALLER = {"INSTALLER", "REQUESTED", "RECORD", "direct_url.json", "uv_cache.json"}


def repack(python: str, folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Make wheels in `folder` of packages that another Python has, and of all that they need there: name to version."""
    command = [python, "-I", __file__, str(folder), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made: dict[str, str] = json.loads(done.stdout)
    return made


def _closure(names: Iterable[str]) -> Iterator[Distribution]:
    # In the interpreter that has them, which brings packaging with it.
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    seen: set[tuple[str, str]] = set()
    found: set[str] = set()
    todo = [Requirement(name) for name in names]
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        for extra in ("", *wanted.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            installed = distribution(wanted.name)
            needs = map(Requirement, installed.requires or ())
            todo += [need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})]
            if name not in found:
                found.add(name)
                yield installed


def _repack(folder: Path, installed: Distribution) -> tuple[str, str]:
    wheel = [line for line in (installed.read_text("WHEEL") or "").splitlines() if line.strip()]
    # A wheel that was built on the spot says linux_x86_64, which no lock takes.
    wheel = [line.replace("-linux_x86_64", "-manylinux_2_28_x86_64") for line in wheel]
    tags = [line.partition(": ")[2].split("-") for line in wheel if line.startswith("Tag: ")]
    tag = "-".join(".".join(dict.fromkeys(parts)) for parts in zip(*tags, strict=True))
    files = {PurePosixPath(str(file)): Path(str(installed.locate_file(file))) for file in installed.files or ()}
    info = next(file.parent for file in files if file.name == "METADATA" and file.parent.suffix == ".dist-info")
    starters = {point.name for point in installed.entry_points}
    record = []
    with zipfile.ZipFile(folder / f"{info.stem}-{tag}.whl", "w") as archive:

        def add(name: str, content: bytes, mode: int = 0o644) -> None:
            entry = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            entry.external_attr = (0o100000 | mode) << 16
            archive.writestr(entry, content)
            record.append(f"{name},{record_hash(content)},{len(content)}")

        for file, path in files.items():
            if "__pycache__" in file.parts or (file.parent == info and file.name in {*_BY_AN_INSTALLER, "WHEEL"}):
                continue
            name, content = str(file), path.read_bytes()
            if file.parts[0] == "..":
                inside = [part for part in file.parts if part != ".."]
                if inside[0] == "bin" and inside[-1] in starters:
                    continue
                kind = "scripts" if inside[0] == "bin" else "data"
                rest = inside[1:] if kind == "scripts" else inside
                name = "/".join([f"{info.stem}.data", kind, *rest])
                if kind == "scripts" and content.startswith(b"#!") and b"python" in content.partition(b"\n")[0]:
                    content = b"#!python\n" + content.partition(b"\n")[2]
            add(name, content, path.stat().st_mode & 0o755)
        add(f"{info}/WHEEL", "".join(f"{line}\n" for line in wheel).encode())
        last = zipfile.ZipInfo(f"{info}/RECORD", (2020, 1, 1, 0, 0, 0))
        archive.writestr(last, "".join(f"{line}\n" for line in [*record, f"{info}/RECORD,,"]))
    return installed.metadata["Name"], installed.version


def main(folder: str, *names: str) -> None:
    """Print what was made, as JSON."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(8) as pool:
        print(json.dumps(dict(pool.map(lambda one: _repack(Path(folder), one), _closure(names)))))


if __name__ == "__main__":
    # Read by its path: `python -I` finds nothing of this repository.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from builder.embedded.hashes import record_hash

    main(*sys.argv[1:])
