"""What a source distribution says is read within limits: a hostile one is an error in words, soon, in little memory."""

from __future__ import annotations

import bz2
import gzip
import io
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builder.errors import LockError
from builder.lock import sdist

ZEROS = bytes(2**20)
MEMORY = 400  # MiB, of which Python and packaging take about a tenth


def header(name: str, size: int | bytes, kind: bytes = b"0") -> bytes:
    """One block of a tar that says whatever it likes of its size."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = size if isinstance(size, bytes) else b"%011o\0" % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def whole(text: bytes) -> bytes:
    return text + bytes(-len(text) % 512)


def records(count: int, start: int = 0) -> bytes:
    return b"".join(b"%d %s\n" % (len(text) + 4, text) for text in (b"k%08d=v" % (start + n) for n in range(count)))


def a_file(size: int) -> Iterator[bytes]:
    yield header("x-1/big", size)
    yield from (ZEROS for _ in range(size // len(ZEROS)))


def long_header(kind: bytes) -> Iterator[bytes]:
    size = 300 * len(ZEROS)
    yield header("x", size, kind)
    yield from (ZEROS for _ in range(300))
    yield header("x-1/setup.py", 0)


def many_globals() -> Iterator[bytes]:
    for number in range(400):
        text = records(2000, 2000 * number)
        yield header("g", len(text), b"g") + whole(text) + header(f"x-1/{number}", 0)


def sparse() -> Iterator[bytes]:
    text = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n25 GNU.sparse.name=x-1/a\n"
    yield header("x", len(text), b"x") + whole(text) + header("x-1/a", 2**28)
    yield from (b"1" * len(ZEROS) for _ in range(256))


TARS: dict[str, Callable[[], Iterator[bytes]]] = {
    "a bomb": lambda: a_file(2**30),
    "a file that is read, of 900 MB": lambda: (
        b for b in (header("x-1/setup.py", 9 * 10**8), *(ZEROS for _ in range(900)))
    ),
    "a header of PAX": lambda: long_header(b"x"),
    "a header for all": lambda: long_header(b"g"),
    "a long name": lambda: long_header(b"L"),
    "a long link": lambda: long_header(b"K"),
    "a chain of headers": lambda: iter([(header("x", 1, b"L") + whole(b"x")) * 50_000]),
    "many headers for all": many_globals,
    "a sparse file": sparse,
    "a negative size": lambda: iter([header("x-1/setup.py", b"\xff" * 12), header("x-1/a", 0)]),
    "a huge size": lambda: iter([header("x-1/setup.py", b"\x80" + b"\x7f" * 11), header("x-1/a", 0)]),
    "a negative size of PAX": lambda: iter([header("x", 11, b"x") + whole(b"11 size=-9\n") + header("x-1/a", 0)]),
    "many files": lambda: iter([header("x-1/a", 0) * 150_000]),
    "many texts": lambda: (header(f"x-1/{n}/a.egg-info/requires.txt", 2**20) + ZEROS for n in range(300)),
    "no tar": lambda: iter([b"not a tar" * 1000]),
    "nothing": lambda: iter([]),
}


def packed(path: Path, pieces: Iterator[bytes]) -> Path:
    with gzip.open(path, "wb", compresslevel=1) as file:
        for piece in pieces:
            file.write(piece)
        file.write(bytes(1024))
    return path


def read(path: Path) -> tuple[int, str, float]:
    """Read it in a process of its own: the status, what it says, and the seconds that it computes."""
    code = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_AS, ({MEMORY << 20},) * 2)\n"
        "from pathlib import Path\nfrom builder.errors import LockError\nfrom builder.lock import sdist\n"
        "import resource as r, builder.archives\nbefore = r.getrusage(r.RUSAGE_SELF).ru_utime\n"
        "try: print(sdist.read(Path(sys.argv[1])).requires)\n"
        "except LockError as error: print('LockError', error)\n"
        "print(r.getrusage(r.RUSAGE_SELF).ru_utime - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    *said, took = (done.stdout or "0").splitlines()
    return done.returncode, "\n".join(said) + done.stderr, float(took)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARS)
def test_a_hostile_tar_is_an_error_soon(name: str, tmp_path: Path) -> None:
    status, said, took = read(packed(tmp_path / "x-1.tar.gz", TARS[name]()))
    assert (status, said.startswith("LockError x-1.tar.gz")) == (0, True), said
    assert took < 2


def zipped(**files: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(f"x-1/{name}", content)
    return held.getvalue()


def zip_of(kind: int) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", kind) as file:
        file.writestr("x-1/setup.py", bytes(10**6))
    return held.getvalue()


def encrypted() -> bytes:
    data = bytearray(zipped(**{"setup.py": b"x"}))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    return bytes(data)


def named_much() -> bytes:
    """A central directory of 200 MB."""
    entry = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, 5, 60_000, 60_000, 0, 0, 0, 0)
    rows = (entry + b"x-1/a" + bytes(120_000)) * 1700
    return rows + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1700, 1700, len(rows), 0, 0)


ZIPS: dict[str, Callable[[], bytes]] = {
    "many files": lambda: b"PK\x01\x02" * 200_000 + zipped(a=b""),
    "encrypted": encrypted,
    "bzip2": lambda: zip_of(zipfile.ZIP_BZIP2),
    "lzma": lambda: zip_of(zipfile.ZIP_LZMA),
    "much named": named_much,
    "no zip": lambda: b"PK" * 1000,
    "cut off": lambda: zipped(a=b"x" * 1000)[:-30],
    "bzip2 instead": lambda: bz2.compress(b"x"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ZIPS)
def test_a_hostile_zip_is_an_error_soon(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x-1.zip"
    path.write_bytes(ZIPS[name]())
    status, said, took = read(path)
    assert (status, said.startswith("LockError x-1.zip")) == (0, True), said
    assert took < 2


TEXTS = {
    "pyproject.toml": [
        b"[" * 100_000,
        b"a" + b".a" * 100_000 + b" = 1\n",
        b"a = " + b"[" * 8000,
        b'[build-system]\nrequires = ["a ; ' + b"(" * 5000 + b'"]\n',
        b"[build-system]\nrequires = [" + b'"a",' * 60_000 + b"]\n",
    ],
    "setup.py": [b"(" * 100_000, b"-" * 100_000 + b"1", b"a.b\n" * 200_000, b"\0", b"-" * 8000 + b"1"],
    "PKG-INFO": [b"Requires-Dist: a\n" * 60_000, b"Requires-Dist: a ; " + b"(" * 50_000 + b"\n", b"a" * 10**6],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name in TEXTS for text in TEXTS[name]])
def test_a_hostile_text_says_nothing_soon(name: str, text: bytes, tmp_path: Path) -> None:
    before = time.process_time()
    found = sdist.of(["x-1/setup.py"], {name: text.decode()})
    assert found.build_requires in ((), ("setuptools",)) or len(found.build_requires) <= 2000
    assert found.requires == ()
    assert time.process_time() - before < 2


def test_links_are_not_followed_and_what_is_whole_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x-1.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        link = tarfile.TarInfo("x-1/setup.py")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        text = b"Metadata-Version: 2.1\nName: x\nVersion: 1\nRequires-Dist: a\n"
        info = tarfile.TarInfo("x-1/PKG-INFO")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
    assert sdist.read(path).requires == ("a",)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(LockError, match=r"x-1.tar.gz cannot be read: it is not a whole"):
        sdist.read(path)
