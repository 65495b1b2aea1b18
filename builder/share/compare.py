"""Whether a file is the bundle of a profile: it is made again, and compared.

That needs no signature, and finds what a script cannot find out about itself: that it is another one.
"""

from __future__ import annotations

import itertools
import re
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from builder.errors import DrydockError
from builder.files import display
from builder.project.catalogue import Catalogue
from builder.report import Reporter
from builder.script.machinery import canonical
from builder.share.bundle import write_bundle

LARGEST_SCRIPT = 1 << 24
_START = re.compile(r"^_bundle_start=([0-9]{1,9})  #", re.MULTILINE)
# What depends on how well a zlib compresses the machinery, which is compared as it is; and on what follows, as that is.
_COUNTED = re.compile(r"^(_bundle_(?:start|size|sha256|script)=)[0-9a-f]{1,64}(?=  #|$)", re.MULTILINE)


def verify_bundle(
    name: str, file: Path, catalogue: Catalogue, report: Reporter, *, python: str | None = None, data: bool = True
) -> None:
    """Compare a file with the bundle of the profile `name`, made again; `python` and `data` are as for `write_bundle`.

    Raises DrydockError where it is another one, and says where.
    """
    with tempfile.TemporaryDirectory(prefix="drydock-bundle-") as work:
        ours = write_bundle(name, Path(work) / f"{name}.run", catalogue, report, python=python, data=data).path
        with file.open("rb") as given, ours.open("rb") as made:
            where = _difference(_script(given, file), _script(made, ours), given, made)
    if where is not None:
        raise DrydockError(
            f"{display(file)} is not the bundle of {name}: {where}",
            hint="it was changed, or made of another lock, by another Drydock, or with another --with-python",
        )


def _script(file: IO[bytes], path: Path) -> str:
    """The script of a bundle; afterwards the file stands at what follows. Raises DrydockError."""
    text = file.read(LARGEST_SCRIPT).decode("latin-1")
    found = _START.search(text)
    if found is None or int(found[1]) > len(text):
        raise DrydockError(f"{display(path)} is not a bundle", hint="drydock bundle NAME makes one")
    file.seek(int(found[1]) - 1)
    return text[: int(found[1]) - 1]


def _difference(given: str, made: str, given_rest: IO[bytes], made_rest: IO[bytes]) -> str | None:
    """Where two bundles differ, in words; None where they do not."""
    pair = [_COUNTED.sub(r"\1", canonical(text)).splitlines() for text in (given, made)]
    for number, (one, other) in enumerate(itertools.zip_longest(*pair), 1):
        if one != other:
            return f"line {number} of its script is {_quoted(one)}, and should be {_quoted(other)}"
    at = given_rest.tell(), made_rest.tell()
    if all(one == other for one, other in itertools.zip_longest(_blocks(given_rest), _blocks(made_rest))):
        return None
    given_rest.seek(at[0])
    made_rest.seek(at[1])
    return f"{_member(given_rest, made_rest)} in it is another one"


def _quoted(line: str | None) -> str:
    return "missing" if line is None else ascii(line[:100])


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    return iter(lambda: file.read(1 << 20), b"")


def _member(given: IO[bytes], made: IO[bytes]) -> str:
    """The first file of two archives that differs; "the archive" where that cannot be said."""
    try:
        with tarfile.open(fileobj=given, mode="r|") as one, tarfile.open(fileobj=made, mode="r|") as other:
            for first, second in itertools.zip_longest(one, other):
                if first is None or second is None or first.name != second.name:
                    return ascii((second or first).name)
                files = one.extractfile(first), other.extractfile(second)
                if first.size != second.size or (files[0] and files[1] and files[0].read() != files[1].read()):
                    return ascii(second.name)
    except (tarfile.TarError, OSError):
        pass
    return "the archive"
