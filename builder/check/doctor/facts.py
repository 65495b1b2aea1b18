"""Facts for the diagnoses, besides those of the probes. Nothing raises, and nothing that is written stays."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from builder import process, uv
from builder.check.doctor.files import Built
from builder.check.doctor.network import Index
from builder.check.doctor.resources import Interpreter, Place
from builder.embedded import interpreter
from builder.embedded import place as place_of
from builder.embedded.config_files import is_true
from builder.embedded.errors import StageError
from builder.embedded.network_settings import read
from builder.embedded.place import Lack
from builder.errors import DrydockError, ToolError, UsageError
from builder.lock.outline import Locked, Package
from builder.store import generations, layout

if TYPE_CHECKING:
    from builder.lock.model import Artefact
    from builder.project.catalogue import Entry

_TOOLS = ("xcode-select", "-p")
TIMEOUT = 10.0
"""Seconds for all programs together."""


@dataclass(frozen=True)
class Answers:
    """Answers of programs and of the environment; None where there was no answer.

    `cache` is uv's, `default_index` is the one that it has where nobody names another, `tools` are those of Xcode,
    `visible_gpus` is CUDA_VISIBLE_DEVICES.
    `interpreter` is that of an environment that is built, else what a build takes.
    """

    interpreter: Interpreter | None = None
    cache: Path | None = None
    default_index: str | None = None
    tools: str | None = None
    visible_gpus: str | None = None


def ask_programs(
    python: str | None, *, env: Path | None = None, mac: bool, network: bool, timeout: float = TIMEOUT
) -> Answers:
    """Ask all programs at once; `python` is the version that a build needs, None where `env` is built.

    Looking for a Python may start every one that there is, and takes the longest.
    """
    named = os.environ.get("DRYDOCK_PYTHON")
    default = uv.default_index()
    commands: dict[str, Sequence[str]] = {"tools": _TOOLS} if mac else {}
    if env is not None:
        commands["itself"] = interpreter.question(str(env / "bin" / "python"))
    with suppress(ToolError, OSError):  # there is no uv: then nobody answers
        if python is not None:
            commands |= uv.questions(named or python)
        if network and default is None:
            commands["default index"] = uv.question_of_default_index()
    env_of_programs = uv.environment({"LC_ALL": "C", "NO_COLOR": "1"})
    ended = process.run_all(list(commands.values()), timeout=timeout, env=env_of_programs)
    done = dict(zip(commands, ended, strict=True))

    def output_of(question: str) -> str | None:
        one = done.get(question)
        return one.stdout.strip() if one is not None and one.code == 0 else None

    cache, tools = output_of("cache"), done.get("tools")
    if env is not None:
        found: Interpreter | None = _answered(interpreter_of(env), output_of("itself"))
    else:
        found = _interpreter(done.get("python"), output_of("version") if "version" in done else named or python, named)
        if found is not None and found.path is not None:
            (answer,) = process.run_all([interpreter.question(str(found.path))], timeout=timeout, env=env_of_programs)
            found = _answered(found, answer.stdout if answer is not None else None)
    return Answers(
        interpreter=found,
        cache=Path(cache) if cache and Path(cache).is_absolute() else None,
        default_index=default or uv.parse_default_index(output_of("default index") or ""),
        tools=None if tools is None else tools.stdout.strip() if tools.code == 0 else "",
        visible_gpus=os.environ.get("CUDA_VISIBLE_DEVICES"),
    )


def _interpreter(done: process.Done | None, version: str | None, named: str | None) -> Interpreter | None:
    if done is None:
        return None
    chosen = "DRYDOCK_PYTHON" if named else "as uv finds it"
    path = Path(done.stdout.strip())
    if done.code or not path.is_absolute():
        downloads = os.environ.get("UV_PYTHON_DOWNLOADS") not in ("never", "manual") and not is_offline()
        return Interpreter(None, chosen, named=named, downloads=downloads)
    marks = path.resolve().parent.parent.glob("lib/python3*/EXTERNALLY-MANAGED")
    known = version if version and re.fullmatch(r"[0-9]+(\.[0-9]+)+\S*", version) else None
    return Interpreter(path, chosen, known, _head(path), any(marks), named)


def standalone(locked: Package) -> Path | None:
    """The folder of the Python that a lock names; None where it was not fetched."""
    try:
        place = layout.Store.here().pythons / locked.sha256
    except UsageError:
        return None
    return place if (place / "manifest.json").is_file() else None


def interpreter_of(env: Path) -> Interpreter:
    """The Python that an environment was built on; its version is in what uv wrote."""
    try:
        output_of = (env / "pyvenv.cfg").read_text(encoding="utf-8", errors="replace")
    except OSError:
        output_of = ""
    version = re.search(r"^version_info *= *([0-9.]+)$", output_of, re.MULTILINE)
    path = (env / "bin" / "python").resolve()
    built = version[1] if version else None
    return Interpreter(path, "which the environment was built on", built, _head(path), built=built)


def _answered(found: Interpreter, answer: str | None) -> Interpreter:
    """A Python with what it says of itself, which may be another one than once stood there."""
    here = interpreter.parse(answer or "")
    return replace(found, version=here.version, missing=here.missing) if here is not None else found


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(256)
    except OSError:
        return b""


def place(folder: Path | None) -> Place | None:
    """Return a folder that exists or will be made; None where it cannot be examined."""
    if folder is None:
        return None
    try:
        there = next(one for one in (folder, *folder.parents) if one.exists())
        room = os.statvfs(there)
        return Place(folder, there.stat().st_dev, room.f_bavail * room.f_frsize)
    except (OSError, StopIteration):
        return None


def home() -> tuple[Path | None, DrydockError | None]:
    """Return Drydock's own folder, or the reason why there is none."""
    try:
        return layout.home(), None
    except DrydockError as error:
        return None, error


def is_writable(folder: Path | None) -> bool:
    """Return whether a folder that exists, or will be made, can be written to."""
    if folder is None:
        return False
    try:
        there = next(one for one in (folder / "store", folder, *folder.parents) if one.exists())
    except (OSError, StopIteration):
        return False
    return os.access(there, os.W_OK | os.X_OK)


def lacks(folder: Path | None) -> list[Lack]:
    """Return what the place of the store cannot do, which is tried where it is, or in the nearest folder above."""
    if folder is None:
        return []
    try:
        there = _nearest(folder)
        return list(place_of.lacks(there, ".stage-")) if os.access(there, os.W_OK | os.X_OK) else []
    except (OSError, StopIteration) as error:
        return [Lack(f"nothing can be made in it: {error}", "set DRYDOCK_HOME to a folder of your own")]


def _nearest(folder: Path) -> Path:
    return next(one for one in (folder / "store", folder, *folder.parents) if one.is_dir())


def folds_case(folder: Path | None) -> bool:
    """Whether upper and lower case are the same in the place of the store."""
    try:
        if folder is None or not os.access(_nearest(folder), os.W_OK | os.X_OK):
            return False
        with tempfile.TemporaryDirectory(prefix=".stage-", dir=_nearest(folder)) as tried:
            return place_of.folds_case(Path(tried))
    except (OSError, StopIteration):
        return False


def case_clash(entry: Entry) -> StageError | None:
    """Which locked files differ in case alone, as far as they were unpacked before; None where none do."""
    from builder.embedded import wheels
    from builder.project.lock import unpacked

    try:
        found = wheels.owned(unpacked(entry.profile, entry.lock), entry.profile.packages.overlap)
    except (wheels.ChangedError, StageError):  # of which a build says more
        return None
    try:
        wheels.check_case(found)
    except (wheels.ChangedError, StageError) as error:
        return error if isinstance(error, StageError) else None
    return None


def built(name: str, store_name: str, lock: Locked) -> Built | None:
    """Return the state of the profile `name` in the store; `store_name` is that of its lock."""
    if home()[0] is None:
        return None
    env = layout.Store.here().path(store_name)
    here = generations.current(name)
    return Built(
        store_name,
        (env / ".drydock" / "manifest.json").is_file(),
        (env / "bin" / "python").exists(),
        None if here is None else here.store_name,
        dict(_patched(env, lock)),
    )


def _patched(env: Path, lock: Locked) -> Iterator[tuple[str, str | None]]:
    from builder.embedded.errors import StageError
    from builder.embedded.hashes import sha256
    from builder.embedded.installed import site_packages

    for file in (file for patch in lock.patches for file in patch):
        try:
            yield file.path, sha256((site_packages(env) / file.path).read_bytes())
        except (OSError, StageError):
            yield file.path, None


def times_made(name: str, lock_path: Path, store_name: str | None) -> dict[str, datetime]:
    """Return the times of the lock, the environment and the current generation, which must be in the past."""
    times = {"the lock was written": lock_path}
    folder, _ = home()
    if folder is not None:
        times["the store was made"] = folder / "format"
        if store_name is not None:
            manifest = layout.Store.here().path(store_name) / ".drydock" / "manifest.json"
            times["the environment was built"] = manifest
    found = {what: time for what, path in times.items() if (time := _modified(path)) is not None}
    here = generations.current(name) if folder is not None else None
    return {**found, **({"its generation was made": here.created} if here is not None else {})}


def _modified(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except (OSError, ValueError, OverflowError):
        return None


def indexes(entry: Entry, default: str | None) -> list[Index]:
    """The indexes that a build takes files from, each with one of those files."""
    from builder.profile import pytorch

    profile, lock = entry.profile, entry.lock
    by_index: dict[str | None, list[Artefact]] = {}
    for package in lock.packages:
        by_index.setdefault(package.index, []).append(package)
    folders = uv.find_links()
    found = []
    for name, packages in sorted(by_index.items(), key=lambda one: one[0] or ""):
        known = (profile.indexes.get(name) or pytorch.url(name)) if name is not None else None
        url = default if name is None else (uv.index_url(name, known) if known else None)
        # As the scripts do (templates/_uv.sh.j2): of the default index uv asks in any case.
        local = name is not None and all(any((folder / one.file).is_file() for folder in folders) for one in packages)
        # A small one: an index that cannot say what is in a wheel has to send all of it.
        one = min(packages, key=lambda one: (not one.is_wheel, one.size or sys.maxsize))
        found.append(Index(name, url, one.name, one.file, local, one.version))
    return found


def locked_version(lock_text: str, package: str) -> str | None:
    """The version of a package in the text of a lock, without reading all of it.

    >>> locked_version('[[packages]]\\nname = "accelerate"\\nversion = "1.9.0"\\n', "accelerate")
    '1.9.0'
    """
    _, found, rest = f"\n{lock_text}".partition(f'\nname = "{package}"\nversion = "')
    return rest.partition('"\n')[0] if found else None


def links(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether uv links from its cache; hard links and clones take no space."""
    return environ.get("UV_LINK_MODE", "hardlink") != "copy"


def is_offline(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether uv may not use the network."""
    return is_true(read(environ).first("UV_OFFLINE") or "")
