"""A build: from a plan and the files beside it to a finished environment in the store, whole or not at all.

    build PARTS ENV UV FRAME WORK MIRROR SCRIPT NOTE ASKED

It is made in a folder beside ENV whose name nobody can guess. This process stands in that folder: all that it writes,
it writes relative to where it stands, so that nothing of somebody else's is touched, whatever becomes of the folder's
name. The last step is one rename.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from builder.embedded import (
    architectures,
    bytecode,
    claim,
    folders,
    interpreter,
    lifeline,
    place,
    progress,
    venv,
    wheels,
)
from builder.embedded.errors import StageError
from builder.embedded.hashes import record_hash, sha256
from builder.embedded.installed import check_distributions, distributions, site_packages
from builder.embedded.manifest import is_usable, promise_of, sealed
from builder.embedded.patches import patch_package
from builder.embedded.plan import read_plan
from builder.embedded.words import plural

HERE = Path()
PREFIX = ".stage-"
# What is said where a folder of ours is a link, a file, or gone.
_REPLACED = (errno.ELOOP, errno.ENOTDIR, errno.ENOENT)


class Tools(NamedTuple):
    """What a build works with: the installer `uv`, an empty virtual environment of the Python that it builds for, or
    the note of one (`frame`), a folder `work` for requirement files, and the cache `mirror` that is asked first.

    What uv made when it was `asked` for that Python is remembered in `note`; nothing where that is "".
    """

    uv: str
    frame: Path
    work: Path
    mirror: Path
    note: Path = HERE
    asked: str = ""


def build(parts: Path, env: Path, tools: Tools, script: int) -> None:
    """Build the environment `env` from the plan in `parts`, where nobody has built it before us.

    `script` is the process id of the script that waits for us. Raises StageError; nothing is left in the store then.
    Ends this process with ASK_UV where the frame is remembered of another Python.
    """
    if os.getppid() != script:
        raise StageError("the script that began this build is gone")
    lifeline.leave_on_signals()
    written = read_plan(parts)
    if env.name != f"{written['key']}-{written['name']}":
        raise StageError(f"this script was edited: its plan is of {written['key']}, and it builds {env.name}")
    frame = venv.known(tools.frame) if tools.frame.is_file() else venv.read(tools.frame)
    if frame is None:
        raise SystemExit(venv.ASK_UV)
    guard = lifeline.Guard(script)
    mine = claim.Claim(env.parent, env.name)
    try:
        if not is_usable(env):
            claim.sweep(env.parent, PREFIX, script)
            found = faultless(env.parent, written, frame.faultless)
            size = f"{written['size']} to download at most"
            _say(f"building {written['name']}: {plural(len(written['plan']['packages']), 'package')}, {size}")
            _build(written, parts, env, tools, frame)
            if not tools.frame.is_file() or found != frame.faultless:
                venv.remember(tools.note, tools.asked, frame._replace(faultless=found))
    finally:
        mine.release()
        guard.end()


def faultless(store: Path, written: Mapping[str, Any], known: Sequence[str]) -> list[str]:
    """What lacks nothing: the disk of the store, this Python. What is `known` to be so is not looked at again.

    Warns of what the Python lacks. Raises StageError where the disk lacks something.
    """
    disk, python = place.disk(store), sys.version
    for lack in place.lacks(store, f"{PREFIX}{written['key']}-", faultless=disk in known):
        raise StageError(f"{store} cannot have environments in it: {lack.what}", lack.hint)
    missing = [] if python in known else interpreter.missing()
    if missing:
        remedy = interpreter.remedy(written["plan"]["python"])
        _say(f"warning: this Python lacks {', '.join(missing)}: {remedy}")
    return [name for name in (disk, "" if missing else python) if name]


def _build(written: Mapping[str, Any], parts: Path, env: Path, tools: Tools, frame: venv.Frame) -> None:
    began = time.monotonic()
    _say(f"[1/4] Python {written['plan']['python']}")
    stage, top = claim.begin(env.parent, f"{PREFIX}{written['key']}-")
    try:
        os.fchdir(top)
        promises = _fill(written, parts, env.parent.parent, tools, frame, top)
        _put(stage, env, top, promises)
    except OSError as error:
        ours = error.errno in _REPLACED and not str(error.filename or "").startswith("/")
        if folders.is_at(env, top) or (folders.is_at(stage, top) and not ours):
            raise
        raise _taken(stage) from error
    finally:
        os.chdir("/")
        if not folders.is_at(env, top):
            _discard(stage, top)
        os.close(top)
    _say(f"[4/4] {env}, in {time.monotonic() - began:.0f} s")


def _say(words: str) -> None:
    progress.end()
    print(f"drydock: {words}", file=sys.stderr, flush=True)


def _taken(stage: Path) -> StageError:
    return StageError(
        f"{stage} was taken away or changed while it was built", "did somebody clean up the store? Build it again"
    )


# --- what goes into it ---------------------------------------------------------------------------------------------


def _fill(
    written: Mapping[str, Any], parts: Path, home: Path, tools: Tools, frame: venv.Frame, top: int
) -> Mapping[str, str]:
    """Make the folder that we stand in an environment, but for its name; returns what its manifest promises of files
    that no wheel brings.
    """
    plan = written["plan"]
    running = "{}.{}".format(*sys.version_info[:2])
    if running != plan["python"]:
        raise StageError(f"the environment runs Python {running}, and the profile wants {plan['python']}")
    check_release(plan)
    if "python-build" in plan:
        from builder.embedded import pythons  # which other scripts do not carry

        pythons.check_base(home, plan, venv.python_of(frame))
    own = venv.put(frame, top)
    own.update(_carry(plan, parts, top))
    _say("[2/4] packages")
    found, closed = linked(written, home, tools, venv.python_of(frame), top)
    _say(f"[3/4] {plural(len(plan['patches']), 'patch')}, bytecode, manifest")
    for wheel in found:
        own.update(wheel.own)
    inside = site_packages(HERE).as_posix()
    site = folders.open_below(top, inside)
    os.fchdir(site)
    check_distributions(HERE, plan)
    uncompiled = _patch(plan, parts, home / "bytecode")
    own.update({f"{inside}/{path}": promise for path, promise in _records(plan).items()})
    built_for = architectures.of_torch(HERE) if plan["target"]["accelerator"] == "cuda" else ""
    os.fchdir(top)
    os.close(site)
    own.update(_answer_installers(top))
    if built_for:
        own.update(_write(architectures.RECORD, f"{built_for}\n", top))
    _check(own)
    changed = {f"{inside}/{file['path']}" for patch in plan["patches"] for file in patch["files"]}
    manifest = {
        **{name: written[name] for name in ("name", "key", "index", "plan")},
        "format": plan["format"],
        "interpreter": "{}.{}.{}".format(*sys.version_info[:3]),
        "interpreter-build": " ".join(sys.version.split()),
        "cache-tag": bytecode.cache_tag(),
        "own": own,
        "uncompiled": sorted(
            {path for wheel in found for path in wheel.uncompiled if path not in changed}
            | {f"{inside}/{path}" for path in uncompiled}
        ),
    }
    text = json.dumps(sealed(manifest), indent=1, sort_keys=True) + "\n"
    with open(folders.create(top, ".drydock/manifest.json"), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.unlink(claim.NOTE)
    _protect([path for wheel in found for path in wheel.files], closed, top)
    return {**own, ".drydock/manifest.json": record_hash(text.encode())}


def check_release(plan: Mapping[str, Any]) -> None:
    """Raise StageError where the plan names a patch release of Python, and this is another one."""
    running = "{}.{}.{}".format(*sys.version_info)
    wanted = plan.get("interpreter", running)
    if running != wanted:
        raise StageError(
            f"this is Python {running}, and the profile wants {wanted}",
            f"uv python install {wanted}; or name one: DRYDOCK_PYTHON=/path/to/python{plan['python']}",
        )


def _patch(plan: Mapping[str, Any], parts: Path, shared: Path) -> list[str]:
    """Apply the patches of the plan to the packages in the folder that we stand in, and compile what they change.

    Returns the modules that this Python cannot compile.
    """
    for patch in plan["patches"]:
        patch_package(HERE, patch, (parts / patch["file"]).read_bytes().decode("utf-8"))
    return _compile_again([file["path"] for patch in plan["patches"] for file in patch["files"]], shared)


def _records(plan: Mapping[str, Any]) -> dict[str, str]:
    """What the RECORD of each package that was patched promises now."""
    infos = distributions(HERE)
    paths = [(infos[patch["package"]] / "RECORD").as_posix() for patch in plan["patches"]]
    return {path: promise_of(HERE, path) for path in paths}


def _check(promises: Mapping[str, str]) -> None:
    """Raise StageError where somebody else has changed what we wrote, below the folder that we stand in."""
    here = f"{os.path.realpath('.')}/"
    for path, promise in promises.items():
        try:
            found = promise_of(HERE, path) if os.path.realpath(path).startswith(here) or promise[:3] == "-> " else ""
        except OSError:
            found = ""
        if found != promise:
            raise StageError(
                f"{path} was changed while it was built", "did somebody clean up the store? Build it again"
            )


def _carry(plan: Mapping[str, Any], parts: Path, top: int) -> dict[str, str]:
    """Take over the files that the plan names; returns what each of them promises."""
    paths = [f".drydock/{file['path']}" for file in plan["files"]]
    parents = folders.with_parents([".drydock", *(path.rpartition("/")[0] for path in paths)])
    for _ in folders.opened(top, parents, make=True):
        pass
    promises = {}
    for path in paths:
        content = (parts / path[len(".drydock/") :]).read_bytes()
        with open(folders.create(top, path), "wb") as file:
            file.write(content)
        promises[path] = record_hash(content)
    return promises


def linked(
    written: Mapping[str, Any], home: Path, tools: Tools, python: str, top: int, *, compiled: bool = True
) -> tuple[list[wheels.Wheel], set[str]]:
    """Link the files of every package below the open folder `top`; `python` is the one that they are for.

    Returns the packages, and the folders of theirs that are read-only already. Without `compiled`, for those who edit
    what is installed, there are none, and there comes no bytecode with them: ours is never compared with its source.
    """
    environ = dict(os.environ)
    command = [tools.uv, "--no-config"]

    def install(packages: Sequence[dict[str, Any]], folder: int) -> None:
        from builder.embedded import installer  # here, because most builds ask nobody

        def ask(arguments: list[str], environment: dict[str, str]) -> str:
            asked = [*command, "pip", "install", "--no-deps", *arguments]
            heard = progress.Listener("packages")
            if lifeline.run(asked, folder=folder, env={**environment, "UV_NO_WRAP": "1"}, heard=heard) == 0:
                return ""
            return place.NO_SPACE if heard.is_full else "uv says above why"

        places = installer.places(tools.mirror, environ)
        installer.install(
            written, packages, ask, python=python, work=tools.work, places=places, mirror=tools.mirror, environ=environ
        )

    def forget(names: Sequence[str]) -> None:
        from builder.embedded import network

        known = network.environment(environ)  # where uv's cache is
        lifeline.run([*command, "cache", "clean", "--quiet", *names], folder=top, env=known)

    for _ in range(3):
        found = wheels.wheels_of(home, written["plan"], install, forget)
        try:
            if not compiled:
                found = [wheels.without_bytecode(wheel) for wheel in found]
            found = wheels.owned(found, written["plan"].get("overlap", {}))
            if place.folds_case(home / "wheels"):
                wheels.check_case(found)
            patched = {patch["package"] for patch in written["plan"]["patches"]}
            closed = wheels.full_at_once(found, patched) if compiled else set()
            copied = wheels.link(found, top, closed)
        except wheels.ChangedError as changed:
            _say(f"warning: {changed}: unpacked files were changed; unpacking again")
            wheels.unlink(found, top)
            wheels.drop([wheel.path for wheel in changed.wheels])
            continue
        if copied:
            _say(f"      {copied} files copied, as this file system would not link them")
        return found, closed
    raise StageError("unpacked files change while they are linked", "is something else at work in the store?")


def _compile_again(paths: Sequence[str], shared: Path) -> list[str]:
    """Give patched modules the bytecode of what they are now; returns those that this Python cannot compile."""
    modules = []
    for path in dict.fromkeys(paths):
        if not path.endswith(".py"):
            continue
        folder, _, name = path.rpartition("/")
        cached = HERE / folder / "__pycache__" / f"{name[:-3]}.{bytecode.cache_tag()}.pyc"
        if cached.exists():
            cached.unlink()
        modules.append((sha256((HERE / path).read_bytes()), path))
    return bytecode.give({HERE: modules}, shared)[HERE]


# Programs that people would change an environment with, and what they get instead.
INSTALLERS = ("pip", "pip3")
_NO_INSTALLER = """\
#!/bin/sh
printf '%s\\n' 'This environment is a store path of Drydock: it is what its lock says, and never changes.' \\
  'To add a package, name it in the profile, then: drydock lock NAME && drydock build NAME' \\
  'To try something out: drydock shell --scratch NAME' >&2
exit 1
"""


def _answer_installers(top: int) -> dict[str, str]:
    """Put a sentence where people would look for pip; returns what it promises."""
    promises = {}
    for path in (f"bin/{name}" for name in INSTALLERS):
        if not os.path.lexists(path):
            promises.update(_write(path, _NO_INSTALLER, top, mode=0o555))
    return promises


def _write(path: str, text: str, top: int, mode: int = 0o444) -> dict[str, str]:
    """Write a file below the open folder `top` that no wheel brings; returns what it promises."""
    with open(folders.create(top, path), "w", encoding="utf-8") as file:
        file.write(text)
        os.fchmod(file.fileno(), mode)
    return {path: record_hash(text.encode())}


def _protect(paths: Sequence[str], closed: Collection[str], top: int) -> None:
    """Make every folder read-only, but those that are `closed` already, and the files that are ours.

    Not the files of wheels: they are hard links into the installer's cache, whose modes are not ours to change.
    """
    every = {*paths, "bin"} - {""}  # the top gets its name first
    for folder, _, files in os.walk(".drydock"):
        every.add(folder)
        for name in files:
            os.chmod(os.path.join(folder, name), 0o444)
    ours = folders.with_parents(list(every.difference(closed)))
    within = {path for path in ours if path.startswith("lib/") and path.count("/") >= 2}
    for path, descriptor in folders.opened(top, ours):
        if path in every or path in within:
            os.fchmod(descriptor, 0o555)


# --- its name ------------------------------------------------------------------------------------------------------


def put_in_place(stage: Path, final: Path) -> None:
    """Rename a finished folder to `final`, for good; where a usable environment stands there, that one stays.

    Raises StageError where something else stands at `stage` by then, OSError.
    """
    top = os.open(stage, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _put(stage, final, top)
    finally:
        os.close(top)


def _put(stage: Path, final: Path, top: int, promises: Mapping[str, str] | None = None) -> None:
    """As `put_in_place`, for a folder that is open as `top`; where `promises` are given, we stand in it."""
    if not folders.is_at(stage, top):
        raise _taken(stage)
    if not _renamed(stage, final):
        return
    try:  # it may have been replaced in the last moment
        if not folders.is_at(final, top):
            raise _taken(stage)
        _check(promises or {})
    except StageError:
        os.rename(final, stage)
        raise
    os.fchmod(top, 0o555)  # last: a folder that is renamed must be writable, on some systems
    folder = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename survives a power loss only with its folder
    finally:
        os.close(folder)


def _renamed(stage: Path, final: Path) -> bool:
    """Rename `stage` to `final`; False where a usable environment stands there."""
    try:
        os.rename(stage, final)
    except OSError:
        if not os.path.lexists(final):
            raise
        if is_usable(final):
            return False
        # What it was built on is gone, or it is none. Nobody finds it under its new name.
        old = final.with_name(f".trash-{time.time_ns()}")
        folders.take_away(final, old)
        os.rename(stage, final)
        folders.remove_path(old)
    return True


def _discard(stage: Path, top: int) -> None:
    """Delete what was not finished, wherever it is by now."""
    if folders.is_at(stage, top):
        folders.remove_path(stage)
        return
    for name in os.listdir(top):  # it has another name, or none
        folders.remove(top, name)


def sweep(store: Path, name: str) -> None:
    """Delete what dead builds left in `store`, and the lock of `name` where nobody holds it."""
    claim.sweep(store, PREFIX)
    claim.forget(store, name)
