"""A virtual environment of the user's, brought to the packages of a plan, and all the way back.

    into MODE VENV PARTS HOME UV WORK MIRROR SCRIPT SELF ASK

No installer is pointed at it. Packages are unpacked and checked in folders of ours (wheels.py); from there their files
are put below the folder that was looked at and is open here, whatever becomes of its name. What stood there before is
moved aside into VENV/.drydock-before-TIME, whose journal is written before anything is changed: so all of it can be
taken back, at any time, also where we were killed in the middle.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from builder.embedded import claim, folders, patches, stage, swap, verify
from builder.embedded.errors import StageError
from builder.embedded.examine import check_records
from builder.embedded.hashes import sha256
from builder.embedded.installed import canonical_name, read_record, version_of
from builder.embedded.plan import read_plan

BEFORE = ".drydock-before-"


class Tools(NamedTuple):
    """What a change works with: `uv`, a folder `work` for requirement files, the `home` of the store and of unpacked
    wheels, the cache `mirror`; `again` is the command that was given, for hints.
    """

    uv: str
    work: Path
    home: Path
    mirror: Path
    again: str


class Installed(NamedTuple):
    """A package as it is installed: the folder of its metadata and all its files, relative to the environment.

    `source` is the folder of an editable installation. Without a RECORD, `paths` is None.
    """

    info: str
    version: str
    paths: list[str] | None
    source: str


class Change(NamedTuple):
    """A package of the plan that is not there as locked: what is there instead, and `why` that is not enough."""

    package: Mapping[str, Any]
    old: list[Installed]
    why: str

    def line(self) -> str:
        """What becomes of it."""
        name, new = self.package["name"], self.package["version"]
        if not self.old:
            return f"install {name} {new}"
        had = ", ".join(f"{one.version} (editable, {one.source})" if one.source else one.version for one in self.old)
        return f"replace {name} {had} -> {new}" if had != new else f"replace {name} {new}: {self.why}"


def into(mode: str, venv: Path, parts: Path, tools: Tools, *, ask: bool) -> bool:
    """Bring the virtual environment `venv` to what the plan in `parts` says (`fix`), say whether it is so (`check`), or
    take back all that was ever done to it (`revert`).

    With `ask` the person at the terminal is asked before anything is changed. Returns whether all is well in the end.
    Raises StageError; nothing is changed then.
    """
    written = read_plan(parts)
    stage.check_release(written["plan"])
    path, site, top = _open(venv, tools.home)
    os.fchdir(top)
    if mode == "check":
        return verify.say(_findings(written["plan"], parts, path, site))
    if claim.lock(top) is False:
        raise StageError(f"another run is at work in {venv}", "wait for it")
    befores = sorted(name for name in os.listdir(top) if name.startswith(BEFORE))
    for name in reversed(befores):
        if mode == "revert" or not swap.is_done(name):
            _take_back(path, site, top, name)
    if mode == "revert":
        _say(f"{path} is as it was" if befores else f"nothing to take back in {path}")
        return True
    return _fix(written, parts, tools, path, site, top, ask=ask)


def _fix(written: Mapping[str, Any], parts: Path, tools: Tools, path: Path, site: str, top: int, *, ask: bool) -> bool:
    changes = _changes(written["plan"], site)
    if not changes:
        return verify.say(_findings(written["plan"], parts, path, site))
    broken = _broken(tools.uv, path)
    _refuse_unknown(changes)
    _announce(path, written, changes, broken.values())
    if ask and not _agreed():
        raise StageError("nothing was changed")
    _change(written, parts, tools, site, top, changes)
    if not folders.is_at(path, top):
        raise StageError(f"{path} was taken away meanwhile", "what was changed is in the folder that stood there")
    good = verify.say(_findings(written["plan"], parts, path, site))
    new = [line for what, line in _broken(tools.uv, path).items() if what not in broken]
    good = _say_broken(new, {package["name"] for package in written["plan"]["packages"]}) and good
    _say(f"to take all of it back: {tools.again} --revert")
    return good


def _say(words: str) -> None:
    print(f"drydock: {words}", file=sys.stderr, flush=True)


# --- what it is ----------------------------------------------------------------------------------------------------

_ASK = """\
import json, sys, sysconfig
print(json.dumps([sys.prefix, sys.base_prefix, sysconfig.get_path("purelib")]))
"""


def _open(venv: Path, home: Path) -> tuple[Path, str, int]:
    """Open a virtual environment: its real path, its site-packages relative to that, and its descriptor.

    Raises StageError for everything else, whatever its name.
    """
    path = Path(os.path.realpath(venv))
    top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    inside = "lib/python{}.{}/site-packages".format(*sys.version_info)
    why = _why_not(path, inside, Path(os.path.realpath(home), "store"))
    if why or not folders.is_at(path, top):
        raise StageError(f"{venv} is not a virtual environment of yours: {why}", "name one that you made")
    return path, inside, top


def _why_not(path: Path, inside: str, store: Path) -> str:
    if os.path.lexists(path / "conda-meta"):
        return "it is an environment of conda"
    if os.path.lexists(path / ".drydock") or store in path.parents:
        return "it is a store path of Drydock, which never changes"
    if not _has_home(path / "pyvenv.cfg"):
        return "its pyvenv.cfg is not a file that names a home"
    done = verify.run([str(path / "bin" / "python"), "-I", "-c", _ASK])
    try:
        prefix, base, site = map(os.path.realpath, json.loads(done.stdout.splitlines()[-1]))
    except (ValueError, IndexError, TypeError):
        return "its Python does not work"
    if prefix != str(path) or base == prefix:
        return f"its Python works for {prefix}"
    return "" if site == str(path / inside) else f"its packages are in {site}"


def _has_home(config: Path) -> bool:
    if config.is_symlink() or not config.is_file():
        return False
    lines = config.read_text(encoding="utf-8", errors="replace").splitlines()
    return any(line.partition("=")[0].strip().lower() == "home" for line in lines)


def _installed(site: str) -> dict[str, list[Installed]]:
    """Every package that is installed below the folder that we stand in, also twice, and without a RECORD."""
    found: dict[str, list[Installed]] = {}
    for info in sorted(os.listdir(site)):
        stem, dot, kind = info.rpartition(".")
        if kind not in ("dist-info", "egg-info", "egg-link") or not dot:
            continue
        folder = Path(site, info)
        name, _, version = stem.partition("-")
        if kind != "dist-info":
            version = version.partition("-")[0] or "of setup.py"
            found.setdefault(canonical_name(name), []).append(Installed(f"{site}/{info}", version, None, ""))
            continue
        name, _, version = stem.rpartition("-")
        paths: list[str] | None = None
        source = ""
        try:
            paths = [os.path.normpath(f"{site}/{row[0]}") for row in read_record(folder) if row and row[0]]
            if any(path.startswith(("../", "/")) for path in paths):
                paths = None
            version = version_of(folder) or version
            origin = json.loads((folder / "direct_url.json").read_text(encoding="utf-8"))
            source = origin["url"] if origin.get("dir_info", {}).get("editable") else ""
        except (OSError, ValueError, KeyError, AttributeError):
            pass
        found.setdefault(canonical_name(name), []).append(Installed(f"{site}/{info}", version, paths, source))
    return found


def _changes(plan: Mapping[str, Any], site: str) -> list[Change]:
    """The packages of a plan that are not there as locked."""
    there = _installed(site)
    wrong = _wrong_files(plan, site)
    found = []
    for package in plan["packages"]:
        old = there.get(package["name"], [])
        why = _why(package["version"], old) or wrong.get(package["name"], "")
        if why:
            found.append(Change(package, old, why))
    return found


def _why(version: str, old: Sequence[Installed]) -> str:
    """Why what is installed is not the version that is wanted."""
    if not old:
        return "is not installed"
    if len(old) > 1:
        return "is installed more than once"
    if version not in (old[0].version, Path(old[0].info).stem.rpartition("-")[2]):
        return f"{old[0].version} is installed"
    if old[0].source:
        return f"is installed from {old[0].source}, to be edited"
    return "has no RECORD" if old[0].paths is None else ""


def _wrong_files(plan: Mapping[str, Any], site: str) -> dict[str, str]:
    """What is wrong with the files of packages of a plan, by package: not as RECORD says, or not patched."""
    found: dict[str, str] = {}
    for problem in check_records(Path(site), plan, named=True).problems:
        if not problem.path.endswith(".pyc"):  # Python makes its own
            found.setdefault(problem.package, str(problem))
    for patch in plan["patches"]:
        for file in patch["files"]:
            path = Path(site, file["path"])
            if not path.is_file() or sha256(path.read_bytes()) != file["postimage"]:
                found.setdefault(patch["package"], f"is without {patch['file']}")
    return found


def _findings(plan: Mapping[str, Any], parts: Path, path: Path, site: str) -> list[verify.Finding]:
    packages = [
        verify.Finding(
            "packages", False, f"{one.package['name']} {one.why}, and the lock wants {one.package['version']}"
        )
        for one in _changes(plan, site)
    ] or [verify.Finding("packages", True, f"{len(plan['packages'])} as locked")]
    return packages + [verify.program_finding(path / "bin" / "python", parts / file) for file in plan["verify"]]


def _broken(uv: str, venv: Path) -> dict[str, str]:
    """What `uv pip check` finds: the requirement that is not met, and the whole line."""
    done = verify.run([uv, "--no-config", "pip", "check", "--python", str(venv / "bin" / "python")], NO_COLOR="1")
    lines = [line for line in done.stderr.splitlines() if line.startswith("The package `")]
    return {line.partition(", but ")[0]: line for line in lines}


def _say_broken(lines: Sequence[str], locked: set[str]) -> bool:
    """Name what was not broken before; returns whether that is only what the lock itself wants so."""
    good = True
    for line in lines:
        by_lock = canonical_name(line.split("`")[1]) in locked
        good = good and by_lock
        _say(f"note: the lock has it so: {line}" if by_lock else f"error: newly broken: {line}")
    return good


def _announce(path: Path, written: Mapping[str, Any], changes: Sequence[Change], broken: Iterable[str]) -> None:
    for line in broken:
        _say(f"note: before any change: {line}")
    count = len(written["plan"]["packages"])
    _say(f"{path}: {len(changes)} of the {count} packages of {written['name']}; nothing else is changed or removed")
    for change in changes:
        _say(f"  {change.line()}")


def _agreed() -> bool:
    with open("/dev/tty", encoding="utf-8", errors="replace") as terminal:
        print("drydock: go on? [y/N] ", end="", file=sys.stderr, flush=True)
        return terminal.readline().strip().lower() in ("y", "yes")


# --- the change ----------------------------------------------------------------------------------------------------


def _refuse_unknown(changes: Sequence[Change]) -> None:
    for change in changes:
        for one in change.old:
            if one.paths is None:
                raise StageError(
                    f"nobody knows which files are {change.package['name']} {one.version}'s: {one.info} has no RECORD "
                    "that stays in there",
                    "take it out by hand, or name a new virtual environment",
                )


def _change(
    written: Mapping[str, Any], parts: Path, tools: Tools, site: str, top: int, changes: Sequence[Change]
) -> None:
    """Make the changes, all of them or none. Raises StageError."""
    names = {change.package["name"] for change in changes}
    # Those whose files count where others bring them too come again, so that theirs are there in the end.
    names.update(written["plan"].get("overlap", {}).values())
    plan = {
        **written["plan"],
        "packages": [package for package in written["plan"]["packages"] if package["name"] in names],
        "patches": [patch for patch in written["plan"]["patches"] if patch["package"] in names],
    }
    before = f"{BEFORE}{time.strftime('%Y%m%d-%H%M%S')}"
    while os.path.lexists(before):
        before += "+"
    os.mkdir(before, 0o755, dir_fd=top)
    try:
        new = folders.open_below(top, f"{before}/{swap.NEW}", make=True)
        of = stage.Tools(tools.uv, tools.work, tools.work, tools.mirror)
        python = getattr(sys, "_base_executable", sys.executable)
        stage.linked({**written, "plan": plan}, tools.home, of, python, new, compiled=False)
        os.fchdir(new)
        patches.apply_patches(Path(), parts, plan)
        os.fchdir(top)
        about = {change.package["name"]: change.line() for change in changes}
        swap.prepare(top, before, _files(site, changes), about)
        swap.exchange(top, before)
    except BaseException as error:
        os.fchdir(top)
        swap.take_back(top, before, [])
        if isinstance(error, (OSError, StageError)):
            raise StageError(f"{error}; nothing was changed", getattr(error, "hint", "")) from None
        raise


def _files(site: str, changes: Iterable[Change]) -> set[str]:
    """The files of what is replaced, but for those that another package names too."""
    names = {change.package["name"] for change in changes}
    others = {
        path for name, some in _installed(site).items() if name not in names for one in some for path in one.paths or ()
    }
    found = set()
    for one in (one for change in changes for one in change.old):
        found |= {*(one.paths or ())} - others
        found |= {f"{folder}/{name}" for folder, _, files in os.walk(one.info) for name in files}
    return found


def _take_back(path: Path, site: str, top: int, before: str) -> None:
    """Undo one change, also where its packages were replaced again since."""
    about = swap.packages(before)
    there = _installed(site)
    since = [Change({"name": name}, there.get(name, []), "") for name in about if swap.is_done(before)]
    changed = swap.take_back(top, before, _files(site, since))
    for line in about.values():
        _say(f"taken back: {line}")
    if changed:
        _say(f"note: files that somebody changed since are in {path / changed}")
