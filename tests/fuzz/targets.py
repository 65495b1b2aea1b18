"""What is fed with damaged input: every reader of a file that somebody else may have written.

A target takes bytes and an empty folder, and may raise the errors that are said in words, no others.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.embedded import claim, manifest, patches, plan, wheels
from builder.embedded.errors import StageError
from builder.errors import DrydockError
from tests.conftest import ROOT
from tests.support.profiles import load
from tests.support.sandbox import MINIMAL_PROFILE

IN_WORDS = (DrydockError, StageError)


@dataclass(frozen=True)
class Target:
    """A reader, and whole inputs to begin with."""

    read: Callable[[bytes, Path], object]
    seeds: Sequence[bytes]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def profile(data: bytes, folder: Path) -> None:
    from builder.profile.source import Source

    load("small", lambda *_: Source(str(folder / "small.toml"), _text(data)))


def lock(data: bytes, folder: Path) -> None:
    from builder.lock.model import parse

    parse(_text(data), str(folder / "small.lock.toml"), "cpu")


def project(data: bytes, folder: Path) -> None:
    from builder.project import config
    from builder.project.document import Document

    config._read(Document(folder / "drydock.toml", data))


def pins(data: bytes, folder: Path) -> None:
    from builder.project import config
    from builder.project.sources import pins

    (folder / "drydock.lock").write_bytes(data)
    pins.read(config.Config(folder / "drydock.toml"), {})


def patch(data: bytes, folder: Path) -> None:
    for one in patches.parse_patch(_text(data)):
        patches.apply_hunks(one, b"a = 1\nb = 2\n")


def archive(kind: str) -> Callable[[bytes, Path], None]:
    def read(data: bytes, folder: Path) -> None:
        from builder.project.sources.unpack import unpack

        (folder / "packed").write_bytes(data)
        (folder / "files").mkdir()
        unpack(folder / "packed", kind, folder / "files")

    return read


def sdist(kind: str) -> Callable[[bytes, Path], None]:
    def read(data: bytes, folder: Path) -> None:
        from builder.lock.sdist import read

        (folder / kind).write_bytes(data)
        read(folder / kind)

    return read


def imported(name: str) -> Callable[[bytes, Path], None]:
    def read(data: bytes, folder: Path) -> None:
        from builder.author.importing.readers import Options
        from builder.author.importing.readers import read as read_import
        from builder.author.importing.target import choose
        from builder.machine.model import Machine

        (folder / name).write_bytes(data)
        chosen = choose(Machine(system="Linux", machine="x86_64", glibc="2.36"), "linux-x86_64", "cpu")
        for one in read_import(folder / name, chosen, Options()).left_out:
            str(one)

    return read


def sealed(data: bytes, folder: Path) -> None:
    (folder / "manifest.json").write_bytes(data)
    manifest.read_sealed(folder / "manifest.json")


def parts(data: bytes, folder: Path) -> None:
    (folder / "plan.json").write_bytes(data)
    plan.read_plan(folder)


def wheel(data: bytes, folder: Path) -> None:
    (folder / "x").mkdir()
    (folder / "x.json").write_bytes(data)
    found = wheels.known(folder, "x", "anchor")
    if found is not None:
        (folder / "top").mkdir()
        top = os.open(folder / "top", os.O_RDONLY)
        try:
            wheels.link([found], top)
        except wheels.ChangedError:
            pass
        finally:
            os.close(top)


def note(data: bytes, folder: Path) -> None:
    (folder / claim.NOTE).write_bytes(data)
    claim.is_dead(folder)


def layout(data: bytes, folder: Path) -> None:
    from builder.store.layout import Store

    (folder / "format").write_bytes(data)
    Store.here({"DRYDOCK_HOME": str(folder)})


def gcroots(data: bytes, folder: Path) -> None:
    """The input is a file of each kind, and the names of some."""
    from builder.store import gc, roots

    os.environ["DRYDOCK_HOME"] = str(folder)
    key = f"{'a' * 32}-small"
    for kind, name in (("scripts", key), ("sources", "b" * 64), ("running", f"{key}.7")):
        (folder / "gcroots" / kind).mkdir(parents=True)
        (folder / "gcroots" / kind / f"{name}.{roots.host()}").write_bytes(data)
        named = _text(data).replace("/", "").replace("\0", "")[:60]
        if named not in ("", ".", ".."):
            (folder / "gcroots" / kind / named).touch()
            (folder / "gcroots" / kind / f"{key}.{named}"[:200]).touch()
    (folder / "gcroots/collecting").write_bytes(data)
    roots._someone_collects()
    gc.collect()


def generation(data: bytes, folder: Path) -> None:
    from builder.store import generations, history

    os.environ["DRYDOCK_HOME"] = str(folder)
    (folder / "profiles").mkdir()
    name = _text(data).replace("/", "").replace("\0", "")[:60]
    for link in {f"small-{name}-link", f"{name}-1-link", f"small-{name}-run.sh", "small", "small-1-link"}:
        (folder / "profiles" / link).symlink_to(_text(data).replace("\0", "")[:99] or "x")
    generations.roots()
    for one in history.rows(generations.generations("small")):
        str(one)


def run(file: str) -> Callable[[bytes, Path], None]:
    def read(data: bytes, folder: Path) -> None:
        from builder.run.supervise import runs

        os.environ["DRYDOCK_HOME"] = str(folder)
        (folder / "runs/small").mkdir(parents=True)
        (folder / "runs/small/state.json").write_bytes(_STATE)
        (folder / "runs/small/samples.jsonl").write_bytes(_SAMPLE)
        (folder / "runs/small" / file).write_bytes(data)
        try:
            list(runs.describe(runs.status("small")))
        finally:
            runs.stop("small", lambda _: None)

    return read


def evaluation(data: bytes, folder: Path) -> None:
    from builder.project.catalogue import Catalogue
    from builder.project.evaluate import _recall

    (folder / "memory.json").write_bytes(data)
    _recall(folder / "memory.json", Catalogue([folder]))


def patching(data: bytes, folder: Path) -> None:
    from builder.author.patching.worktree import MARK, read_mark

    (folder / MARK).write_bytes(data)
    read_mark(folder)


def sums(data: bytes, folder: Path) -> None:
    from builder.embedded.caches import has
    from builder.share.mirror.pages import parse_sums

    (folder / "SHA256SUMS").write_bytes(data)
    has(str(folder))
    parse_sums(_text(data))


_SOURCE = {"one/profiles/a.toml": "hello" * 20, "one/profiles/deep/b.txt": "there"}
_SDIST = {
    "x-1/PKG-INFO": "Metadata-Version: 2.1\nName: x\nVersion: 1\nRequires-Dist: a>=1 ; extra == 'b'\n",
    "x-1/pyproject.toml": '[build-system]\nrequires = ["setuptools>=61", "torch"]\n',
    "x-1/setup.py": "import torch\nfrom setuptools import setup\nsetup()\n",
    "x-1/x.egg-info/requires.txt": "a\n[b:python_version > '3']\nc\n",
    "x-1/csrc/a.cu": "",
}


def _tar(mode: str, files: Mapping[str, str] = _SOURCE) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as tar:  # type: ignore[call-overload]
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return packed.getvalue()


def _zip(files: Mapping[str, str] = _SOURCE) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in files.items():
            file.writestr(name, text)
    return packed.getvalue()


def _json(data: object) -> bytes:
    return json.dumps(data, indent=1).encode()


_STATE = _json(
    {
        "name": "small",
        "supervisor": 7,
        "began": 1.5,
        "restarts": 1,
        "phase": "running",
        "since": 1.5,
        "trainer": 999999999,
        "trainer_began": 1.5,
        "last_exit": 1,
        "why": "budget",
        "next_start": 2.5,
    }
)
_SAMPLE = b'{"time": 1.5, "cores": 0.5, "resident": 1000, "processes": 1, "used": 1, "swap": 0}\n'
_PLAN = {"format": 1, "python": "3.11", "packages": [], "files": [], "patches": [], "build-requires": []}
_KEY = plan.key_of(_PLAN)
_PATCH = b"--- a/x/y.py\n+++ b/x/y.py\n@@ -1,2 +1,2 @@\n-a = 1\n+a = 2\n b = 2\n"


def _import(name: str, seed: str | None = None) -> Target:
    return Target(imported(name), [(Path(__file__).parent / "seeds" / (seed or name)).read_bytes()])


TARGETS = {
    "profile": Target(
        profile,
        [MINIMAL_PROFILE.format(name="small", head="", tail="").encode()]
        + [(ROOT / f"profiles/{name}.toml").read_bytes() for name in ("m4", "cpu")],
    ),
    "lock": Target(lock, [(ROOT / "profiles/cpu.lock.toml").read_bytes()]),
    "drydock.toml": Target(
        project,
        [b'[sources.team]\ngit = "https://forge.example/team"\nrev = "v1"\n[caches]\nplaces = ["/srv", "s3://a/b"]\n'],
    ),
    "drydock.lock": Target(
        pins, [b'schema = 1\n[sources.team]\ngit = "https://forge.example/team"\nsha256 = "%s"\n' % (b"0" * 64)]
    ),
    "patch": Target(patch, [_PATCH, b"diff --git a/x b/x\nindex 1..2\n" + _PATCH]),
    "archive.tar.gz": Target(archive("x.tar.gz"), [_tar("w:gz")]),
    "archive.tar.xz": Target(archive("x.tar.xz"), [_tar("w:xz")]),
    "archive.zip": Target(archive("x.zip"), [_zip()]),
    "sdist.tar.gz": Target(sdist("x-1.tar.gz"), [_tar("w:gz", _SDIST)]),
    "sdist.zip": Target(sdist("x-1.zip"), [_zip(_SDIST)]),
    "requirements": _import("requirements.txt"),
    "conda": _import("environment.yml"),
    "shell": _import("run.sh"),
    "pyproject": _import("pyproject.toml"),
    "pylock": _import("pylock.toml"),
    "uv.lock": _import("uv.lock"),
    "setup.py": _import("setup.py", "setup.txt"),
    "setup.cfg": _import("setup.cfg"),
    "pixi": _import("pixi.toml"),
    "poetry.lock": _import("poetry.lock"),
    "Dockerfile": _import("Dockerfile"),
    "manifest": Target(sealed, [_json(manifest.sealed({"key": _KEY, "name": "small", "plan": _PLAN}))]),
    "plan": Target(parts, [_json({"key": _KEY, "name": "small", "plan": _PLAN})]),
    "wheel": Target(
        wheel,
        [
            _json({"format": wheels.FORMAT, "files": files, "own": {"a": "b"}, "uncompiled": ["c"]})
            for files in ({"lib": ["a.py", "1 2 3"]}, {"": ["a/b", "1 2 3 4 5 6"], "lib/a": ["c", "7 8 9"]})
        ],
    ),
    "note": Target(note, [_json({"host": "here", "boot": "x", "pid": 7, "user": "me"})]),
    "format": Target(layout, [b"1\n", b"2\n"]),
    "gcroots": Target(gcroots, [b"/elsewhere/run.sh\n/x\n", b"7 here 0\n", b"here.0.7"]),
    "generation": Target(generation, [b"1", b"../store/%s-small" % (b"a" * 32)]),
    "state.json": Target(run("state.json"), [_STATE]),
    "request.json": Target(run("request.json"), [_json({"name": "small", "grace": 0.1})]),
    "samples.jsonl": Target(run("samples.jsonl"), [_SAMPLE]),
    "lock of a run": Target(run("lock"), [b"7\n"]),
    "evaluation": Target(
        evaluation,
        [
            _json(
                {
                    "store_name": "a",
                    "script": "b",
                    "sha256": "c",
                    "lock": "d",
                    "content": None,
                    "inputs": {"e": "f"},
                    "folders": [],
                }
            )
        ],
    ),
    "patch mark": Target(
        patching,
        [_json({"profile": "small", "package": "a", "version": "1", "sha256": "0" * 64, "files": ["a.py"]})],
    ),
    "SHA256SUMS": Target(sums, [b"%s  files/aa/bb/x.whl\n" % (b"0" * 64)]),
}
