"""Makes profiles/patches/*.releases.toml from the wheels: which releases a patch fits, and what it makes of each.

    just patch-releases [--check] [FILE.releases.toml ...]

A new file begins with its three lines (package, versions, fixed). Every release in the range is downloaded by pip,
without what it depends on, and nothing of it is run. A release that the patch does not fit exactly, but for a distance
that all of its lines have moved, is an error: narrow the range, or make a patch of its own for it.

That a text fits is not yet a proof that it works: tests/test_fix_mac.py runs the proofs in installations.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from builder.embedded.hashes import sha256
from builder.embedded.patches import FilePatch, apply_hunks, parse_patch
from builder.profile.releases import Release, ReleasedFile, Releases, dump, parse

PATCHES = Path(__file__).parents[1] / "patches"
FURTHEST = 2000  # lines that a file may have grown or shrunk


def pip(*arguments: str) -> str:
    """What pip says; its own words go to the user."""
    command = [sys.executable, "-m", "pip", *arguments, "--disable-pip-version-check"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def available(package: str) -> list[str]:
    """The releases of a package, the oldest first."""
    said = pip("index", "versions", package)
    words = next(line for line in said.splitlines() if line.startswith("Available versions:")).partition(":")[2]
    return sorted((word.strip() for word in words.split(",")), key=Version)


def wheel(package: str, version: str, folder: Path) -> zipfile.ZipFile:
    """The wheel of a release, downloaded to `folder`."""
    pip("download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(folder), f"{package}=={version}")
    return zipfile.ZipFile(next(folder.glob(f"{package.replace('-', '_')}-{version}-*.whl")))


def moved(patch: FilePatch, shift: int) -> FilePatch:
    """The patch for a file whose lines stand `shift` further down."""
    return patch._replace(hunks=tuple(hunk._replace(start=hunk.start + shift) for hunk in patch.hunks))


def fitted(patch: FilePatch, content: bytes) -> ReleasedFile | None:
    """What a patch makes of a file, by the least shift with which it fits; None where none does."""
    for shift in sorted(range(-FURTHEST, FURTHEST + 1), key=abs):
        after = apply_hunks(moved(patch, shift), content)
        if after is not None:
            return ReleasedFile(path=patch.path, shift=shift, preimage=sha256(content), postimage=sha256(after))
    return None


def released(patches: list[FilePatch], versions: list[str], package: str) -> Iterator[Release]:
    """One release after the other, those in a row that are alike together."""
    last: Release | None = None
    with tempfile.TemporaryDirectory() as folder:
        for version in versions:
            with wheel(package, version, Path(folder)) as archive:
                files = [fitted(patch, archive.read(patch.path)) for patch in patches]
            fitting = [file for file in files if file is not None]
            if len(fitting) < len(files):
                sys.exit(f"error: the patch does not fit {package} {version}; narrow the range")
            if last is not None and last.files == fitting:
                last = Release(versions=[*last.versions, version], files=fitting)
                continue
            if last is not None:
                yield last
            last = Release(versions=[version], files=fitting)
    if last is not None:
        yield last


def made(path: Path) -> str:
    """The text of a releases file, made again."""
    patch = path.with_name(path.name.replace(".releases.toml", ".patch"))
    head = parse(path.read_text(encoding="utf-8"), str(path))
    allowed = SpecifierSet(head.versions)
    versions = [version for version in available(head.package) if version in allowed]
    found = released(parse_patch(patch.read_text(encoding="utf-8")), versions, head.package)
    return dump(Releases(**{**head.model_dump(), "releases": list(found)}), patch.name)


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the lists of releases that patches fit, from the wheels.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 where one differs")
    parser.add_argument("files", nargs="*", type=Path, default=sorted(PATCHES.glob("*.releases.toml")))
    chosen = parser.parse_args()
    good = True
    for path in chosen.files:
        text = made(path)
        same = text == path.read_text(encoding="utf-8")
        print(f"{'same' if same else 'differs' if chosen.check else 'written'}: {path}", file=sys.stderr)
        good = good and (same or not chosen.check)
        if not chosen.check:
            path.write_text(text, encoding="utf-8")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
