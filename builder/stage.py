"""From a filled virtual environment to a finished store path: what needs more than a shell.

This file has two ways in. Drydock imports it, and every generated script carries it, after builder/caches.py and
builder/patch.py and without the imports from there, and runs it with the environment's own Python. So it needs the
standard library only, of Python 3.9 or newer.

    stage.py plan PARTS             refuse parts that are not what their plan says
    stage.py build STAGE FINAL BYTECODE
                                    link what bytecode there is while the installer works, and wait for it; then check,
                                    patch, link the rest, record, and rename STAGE to FINAL
    stage.py mend VENV PARTS        patch a virtual environment that is not ours
    stage.py take, give-back        see builder/caches.py

PARTS is the folder that holds the plan and what it names; in a staged environment it is STAGE/.drydock.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import marshal
import os
import re
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple, TypeVar

from builder.caches import give_back, take
from builder.patch import StageError, distributions, patch_package, record_hash, sha256

_BASE32 = "0123456789abcdfghijklmnpqrsvwxyz"


# --- the plan ------------------------------------------------------------------------------------------------------


def key_of(plan: Dict[str, Any]) -> str:
    """The key of a plan: the sha256 of its canonical JSON, folded to 160 bits, in Nix's base32 (32 characters).

    Folding and alphabet are those of Nix's store paths (nix, libutil/hash.cc, compressHash and printHash32).
    """
    digest = hashlib.sha256(canonical(plan)).digest()
    folded = bytearray(20)
    for index, byte in enumerate(digest):
        folded[index % 20] ^= byte
    number = int.from_bytes(folded, "little")
    return "".join(_BASE32[(number >> (5 * place)) & 31] for place in reversed(range(32)))


def canonical(data: Any) -> bytes:
    """Plain data as JSON in its one canonical form."""
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()


def read_plan(parts: Path) -> Dict[str, Any]:
    """The plan beside the files that it names, checked: its key, its requirements, the sha256 of every carried file."""
    try:
        written: Dict[str, Any] = json.loads((parts / "plan.json").read_text(encoding="utf-8"))
        if key_of(written["plan"]) != written["key"]:
            raise StageError("this script was edited: its plan does not have the key it says. Render it again.")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StageError(f"{parts} has no readable plan: {error}") from None
    for file in written["plan"]["files"]:
        content = (parts / file["path"]).read_bytes()
        if sha256(content) != file["sha256"]:
            raise StageError(
                f"{file['path']} is not the file that the plan names: the script was edited. Render it again."
            )
    check_requirements(parts, written["plan"])
    return written


def check_requirements(parts: Path, plan: Dict[str, Any]) -> None:
    """What uv installs from is what the plan names, hash for hash. Raises StageError."""
    wanted = sorted(pinned(package) for package in [*plan["packages"], *plan["build-requires"]])
    files = [name for name in transient(parts) if name.endswith(".txt")]
    found = [line for name in files for line in (parts / name).read_text(encoding="utf-8").split("\n")]
    if sorted(line for line in found if line) != wanted:
        raise StageError("the script was edited: its requirements are not those of its plan. Render it again.")


def pinned(package: Dict[str, Any]) -> str:
    """A package of a plan as a line of a requirement file."""
    return f"{package['name']}=={package['version']} --hash=sha256:{package['sha256']}"


def transient(parts: Path) -> List[str]:
    """The files in `parts` that only a build needs."""
    return [
        name
        for name in os.listdir(parts)
        if name in ("plan.json", "stage.py", "installed")
        or re.fullmatch(r"(build-)?requirements(-[a-z0-9-]+)?\.txt", name)
    ]


# --- a virtual environment -----------------------------------------------------------------------------------------


def site_packages(env: Path) -> Path:
    """The site-packages folder of a virtual environment."""
    found = sorted(env.glob("lib/python3*/site-packages"))
    if len(found) != 1:
        raise StageError(f"{env} is not a virtual environment: it has no lib/python3.*/site-packages")
    return found[0]


def check_distributions(site: Path, plan: Dict[str, Any], *, others: bool = False) -> None:
    """Exactly the packages of the plan are installed, in their versions; `others` allows more. Raises StageError."""
    installed = distributions(site)
    wanted = {package["name"]: package["version"] for package in plan["packages"]}
    extra, missing = sorted(set(installed) - set(wanted)), sorted(set(wanted) - set(installed))
    if extra and not others:
        raise StageError(f"installed, but not in the lock: {', '.join(extra)}")
    if missing:
        raise StageError(f"in the lock, but not installed: {', '.join(missing)}")
    for name, info in installed.items():
        if name not in wanted:
            continue
        # uv 0.13 does not notice where the last write of a RECORD fails, as it does on a full disk.
        record = (info / "RECORD").read_bytes()
        if not record.endswith(b"\n") or b".dist-info/RECORD," not in record:
            raise StageError(f"{info.name}/RECORD is not whole: was the disk full for a moment?")
        version = info.name[: -len(".dist-info")].rsplit("-", 1)[1]
        if version != wanted[name] and _metadata_version(info) != wanted[name]:
            raise StageError(f"{name} {version} is installed, and the lock wants {wanted[name]}")


def forget_origins(site: Path) -> None:
    """Take out what uv notes of a wheel that comes from a folder: the time of that file.

    The same lock gives the same files, wherever the wheels were.
    """
    for info in distributions(site).values():
        origin, record = info / "uv_cache.json", info / "RECORD"
        if origin.exists():
            row = f"{info.name}/uv_cache.json,".encode()
            rows = record.read_bytes().splitlines(keepends=True)
            new = info / "RECORD.new"  # it may be a hard link into uv's cache
            new.write_bytes(b"".join(one for one in rows if not one.startswith(row)))
            os.replace(new, record)
            origin.unlink()


def _metadata_version(info: Path) -> Optional[str]:
    for line in (info / "METADATA").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("Version:"):
            return line.partition(":")[2].strip()
    return None


def apply_patches(env: Path, parts: Path, plan: Dict[str, Any]) -> None:
    """Apply the patches of the plan, in their order. Raises StageError."""
    for patch in plan["patches"]:
        patch_package(site_packages(env), patch, (parts / patch["file"]).read_bytes().decode("utf-8"))


def mend(venv: Path, parts: Path) -> None:
    """Apply the patches of the plan in `parts` to a virtual environment that is not ours. Raises StageError."""
    apply_patches(venv, parts, read_plan(parts)["plan"])


# --- a build, beside the installer ---------------------------------------------------------------------------------


def build(stage: Path, final: Path, bytecode: Path) -> None:
    """What a build needs besides the installer, which works at the same time: see `prelink` and `finish`.

    The file `installed` in the stage says that it is done. Raises StageError, also where the script is dead.
    """
    prelinked = prelink(stage, bytecode)
    began = time.monotonic()
    while not (stage / ".drydock" / "installed").exists():
        if _is_orphan(stage):
            raise StageError("the script that began this build is gone")
        time.sleep(0.002 if time.monotonic() - began < 5 else 0.1)
    finish(stage, final, bytecode, prelinked)


def _is_orphan(stage: Path) -> bool:
    """Whether the script is dead that made `stage`, and named it by its process id; while it lives it is our parent.

    Asked for only now, our parent might be another already.
    """
    return str(os.getppid()) != stage.name.rpartition("-")[2]


def finish(stage: Path, final: Path, bytecode: Path, prelinked: Sequence[str] = ()) -> None:
    """Make a staged environment a store path: the last step is one rename.

    `bytecode` is the folder of compiled sources that all environments share; what is missing there is compiled.
    `prelinked` are the packages that `prelink` has done.

    Where another build of the same key was faster, its result stands and this one is left to the caller to remove.
    """
    parts = stage / ".drydock"
    written = read_plan(parts)
    plan = written["plan"]
    if final.name != f"{written['key']}-{written['name']}":
        raise StageError(f"this script was edited: its plan is of {written['key']}, and it builds {final.name}")
    running = "{}.{}".format(*sys.version_info[:2])
    if running != plan["python"]:
        raise StageError(f"the environment runs Python {running}, and the profile wants {plan['python']}")
    # uv 0.13 does not notice where this cannot be written either; without it the packages of the system are seen.
    if "include-system-site-packages = false" not in (stage / "pyvenv.cfg").read_text(encoding="utf-8").splitlines():
        raise StageError("pyvenv.cfg is not whole: was the disk full for a moment?")
    site = site_packages(stage)
    forget_origins(site)
    check_distributions(site, plan)
    apply_patches(stage, parts, plan)
    contents = link_bytecode(site, bytecode, identities(plan), prelinked)
    for name in transient(parts):
        os.unlink(parts / name)
    if (stage / ".lock").exists():  # uv's, where it could make one
        os.unlink(stage / ".lock")
    answer_installers(stage)
    manifest = {
        **written,
        "format": plan["format"],
        "interpreter": "{}.{}.{}".format(*sys.version_info[:3]),
        "cache-tag": cache_tag(),
        "own": {**contents.unhashed, **_own_files(stage, site, contents.outside)},
        "uncompiled": contents.uncompiled,
    }
    with open(parts / "manifest.json", "w", encoding="utf-8") as file:
        json.dump(sealed(manifest), file, indent=1, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    protect(stage, contents.folders)
    put_in_place(stage, final)


def put_in_place(stage: Path, final: Path) -> None:
    """Rename `stage` to `final`, for good; where a usable environment stands there, that one stays."""
    if not _put(stage, final):
        return
    os.chmod(final, 0o555)  # last: a folder that is renamed must be writable, on some systems
    folder = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename survives a power loss only with its folder
    finally:
        os.close(folder)


def _put(stage: Path, final: Path) -> bool:
    """Rename `stage` to `final`; False where a usable environment stands there."""
    try:
        os.rename(stage, final)
    except OSError:
        if not os.path.isdir(final):
            raise
        if is_usable(final):
            return False
        # What it was built on is gone. It goes beside the stage, which the script removes.
        os.chmod(final, 0o755)
        os.rename(final, f"{stage}.old")
        os.rename(stage, final)
    return True


def is_usable(env: Path) -> bool:
    """Whether an environment is finished, and its Python still there."""
    return (env / ".drydock" / "manifest.json").is_file() and (env / "bin" / "python").exists()


def sealed(manifest: Dict[str, Any]) -> Dict[str, Any]:
    """A manifest with the sha256 of all the rest of it."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return {**rest, "sha256": sha256(canonical(rest))}


# Programs that people would change an environment with, and what they get instead.
INSTALLERS = ("pip", "pip3")
_NO_INSTALLER = """\
#!/bin/sh
printf '%s\\n' 'This environment is a store path of Drydock: it is what its lock says, and never changes.' \\
  'To add a package, name it in the profile, then: drydock lock NAME && drydock build NAME' \\
  'To try something out: drydock shell --scratch NAME' >&2
exit 1
"""


def answer_installers(stage: Path) -> None:
    """Put a sentence where people would look for pip."""
    for name in INSTALLERS:
        program = stage / "bin" / name
        if not program.exists():
            program.write_text(_NO_INSTALLER, encoding="utf-8")
            os.chmod(program, 0o555)


def _own_files(stage: Path, site: Path, known: Set[str]) -> Dict[str, str]:
    """What the tools made, and no RECORD names: relative path to its promise (see `promise_of`).

    They make files in a few folders only, so the whole is not walked.
    """
    own = {}
    for folder in (str(stage), f"{stage}/bin", str(site)):
        own.update({path: promise_of(stage, path) for path in _files_in(stage, folder) if path not in known})
    for folder, _, _ in os.walk(stage / ".drydock"):
        own.update({path: promise_of(stage, path) for path in _files_in(stage, folder)})
    return own


def _files_in(env: Path, folder: str) -> List[str]:
    with os.scandir(folder) as entries:
        return [entry.path[len(str(env)) + 1 :] for entry in entries if entry.is_symlink() or entry.is_file()]


def promise_of(env: Path, path: str) -> str:
    """What a manifest says of a file: its hash as RECORD writes one, or where it links to, after an arrow."""
    whole = env / path
    return f"-> {os.readlink(whole)}" if whole.is_symlink() else record_hash(whole.read_bytes())


def protect(stage: Path, folders: Set[str]) -> None:
    """Make every folder read-only, and the files that are ours.

    Not the files of wheels: they are hard links into the installer's cache, whose modes are not ours to change.
    """
    for path, _, files in os.walk(stage / ".drydock"):
        folders.add(path)
        for name in files:
            os.chmod(os.path.join(path, name), 0o444)
    for folder in (*folders, f"{stage}/bin"):
        os.chmod(folder, 0o555)


# --- bytecode: compiled once per source, linked into every environment ---------------------------------------------


class Source(NamedTuple):
    """A module to compile: its path and sha256, where its bytecode goes, and where the shared bytecode is kept."""

    path: str
    digest: str
    cached: str
    shared: str


class Contents(NamedTuple):
    """What the packages of an environment consist of, as far as a build has to know.

    `unhashed` are the files that no RECORD gives a hash, with their promises; `outside` those that a RECORD names at
    the top of site-packages or outside of it; `uncompiled` the modules that this Python cannot compile. All are
    relative to the environment. `folders` are absolute: every folder that holds something of a package.
    """

    unhashed: Dict[str, str]
    outside: Set[str]
    uncompiled: List[str]
    folders: Set[str]


def link_bytecode(
    site: Path, bytecode: Path, wheels: Optional[Dict[str, str]] = None, prelinked: Sequence[str] = ()
) -> Contents:
    """Give every module of `site` its bytecode, by a hard link to one shared file per source.

    The shared file is named by Python's cache tag and the sha256 of the source, which RECORD has already, so that
    nothing is hashed. It is an unchecked hash-based pyc (PEP 552): no time and no path of the store is in it.

    `wheels` are the identities of packages, under which what is found is noted for `prelink`; `prelinked` the packages
    that it has done.
    """
    shared = bytecode / cache_tag()
    env = site.parent.parent.parent
    infos = distributions(site)
    known = {name: _read_note(shared, (wheels or {})[name])[0] for name in prelinked if name in infos}
    done = {name: note for name, note in known.items() if note.get("record") == _record_of(infos[name])}
    names = [name for name in infos if name not in done]
    looked = on_all_cores(
        lambda name: _link_package(env, site, infos[name], str(shared)),
        names,
        [(infos[name] / "RECORD").stat().st_size for name in names],
        grain=20_000,
    )
    found = dict(zip(names, looked))
    missing = _settled([Source(*source) for one in found.values() for source in one["missing"]], shared)
    copied = sum(one["copied"] for one in found.values())
    if missing:
        copied += _compile_and_link(missing)
    if copied:
        print(f"drydock:       bytecode: {copied} copied, as this file system would not link them", file=sys.stderr)
    uncompiled = {source.path for source in missing if not os.path.exists(source.cached)}
    for name, one in found.items():
        one["uncompiled"] = [path for _, path in one["sources"] if f"{site}/{path}" in uncompiled]
        if wheels is not None and name in wheels and not copied:
            _write_note(shared, wheels[name], one, {source.path[len(str(site)) + 1 :]: source for source in missing})
    inside = str(site)[len(str(env)) + 1 :]
    every = [*done.values(), *found.values()]
    return Contents(
        {
            **{path: promise for one in every for path, promise in one["unhashed"]},
            **{f"{inside}/{infos[name].name}/RECORD": _record_of(infos[name]) for name in infos},
        },
        {path for one in every for path in one["outside"]},
        sorted(f"{inside}/{path}" for one in every for path in one["uncompiled"]),
        {str(site), *(f"{site}/{folder}" for one in every for folder in one["folders"])},
    )


def _record_of(info: Path) -> str:
    return record_hash((info / "RECORD").read_bytes())


def cache_tag() -> str:
    """What the names of this Python's bytecode end with, before .pyc (PEP 3147)."""
    return sys.implementation.cache_tag or "unknown"


def _link_package(env: Path, site: Path, info: Path, shared: str) -> Dict[str, Any]:
    """Link what is there for the modules of one package; gives plain data: what a build has to know of it."""
    base, tag = str(site), cache_tag()
    facts = _facts(env, site, info)
    for folder in facts["folders"]:
        if folder.endswith("__pycache__"):
            os.makedirs(f"{base}/{folder}", exist_ok=True)
    missing = []
    copied = 0
    for digest, path in facts["sources"]:
        source = _source(base, path, digest, shared, tag)
        try:
            copied += _link(source)
        except FileNotFoundError:
            missing.append(tuple(source))
        except FileExistsError:  # `prelink` was here; or it is a wheel's own, or that of another wheel
            if not os.path.samefile(source.shared, source.cached):
                missing.append(tuple(source))
    return {**facts, "missing": missing, "copied": copied}


def _facts(env: Path, site: Path, info: Path) -> Dict[str, Any]:
    """What a RECORD says, read once: the files without a hash, those outside of packages, the modules and the folders.

    `unhashed` and `outside` are relative to the environment, `sources` and `folders` to `site`. `brings` tells whether
    the wheel brought bytecode for this Python.
    """
    inside, ours = str(site)[len(str(env)) + 1 :], f".{cache_tag()}.pyc"
    record = (info / "RECORD").read_bytes()
    unhashed, outside, sources = [], [], []
    folders: Set[str] = set()
    brings = False
    for path, digest, *_ in (row for row in csv.reader(io.StringIO(record.decode("utf-8"), newline="")) if row[1:]):
        folder = path.rpartition("/")[0]
        leaves = path.startswith(("/", "..")) or "/../" in path
        if leaves or not folder:
            outside.append(os.path.normpath(f"{inside}/{path}"))
        elif folder not in folders:
            parts = folder.split("/")
            folders.update("/".join(parts[: end + 1]) for end in range(len(parts)))
        if path.endswith(ours):
            brings = True
        elif not digest and not path.endswith("/RECORD"):
            unhashed.append([f"{inside}/{path}", promise_of(env, f"{inside}/{path}")])
        # What is outside of site-packages, programs and data, is never imported.
        elif path.endswith(".py") and digest.startswith("sha256=") and not leaves:
            sources.append((base64.urlsafe_b64decode(digest[len("sha256=") :] + "=").hex(), path))
            folders.add(f"{folder}/__pycache__" if folder else "__pycache__")
    return {
        "record": record_hash(record),
        "unhashed": unhashed,
        "outside": outside,
        "sources": sources,
        "folders": sorted(folders),
        "brings": brings,
    }


def _source(base: str, path: str, digest: str, shared: str, tag: str) -> Source:
    folder, slash, name = path.rpartition("/")
    cached = f"{base}/{folder}{slash}__pycache__/{name[:-3]}.{tag}.pyc"
    return Source(f"{base}/{path}", digest, cached, f"{shared}/{digest[:2]}/{digest[2:]}.pyc")


def _link(source: Source) -> bool:
    """Link the shared bytecode of one source into place; True where it had to be copied.

    Raises FileNotFoundError where there is none, FileExistsError where something is in place.
    """
    try:
        os.link(source.shared, source.cached)
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError:  # another file system, one without hard links, or a file that has too many of them
        import shutil

        shutil.copyfile(source.shared, source.cached)
        return True
    return False


def _settled(missing: List[Source], shared: Path) -> List[Source]:
    """The sources without bytecode, one per place: what really is there, where two wheels brought a module of one name.

    Bytecode that a wheel brought makes room for ours.
    """
    told: Dict[str, int] = {}
    for source in missing:
        told[source.cached] = told.get(source.cached, 0) + 1
    settled = {}
    for source in missing:
        there = os.path.lexists(source.cached)
        if there:
            os.unlink(source.cached)
        if there or told[source.cached] > 1:
            with open(source.path, "rb") as file:
                digest = sha256(file.read())
            source = source._replace(digest=digest, shared=f"{shared}/{digest[:2]}/{digest[2:]}.pyc")
        settled[source.cached] = source
    return list(settled.values())


def _compile_and_link(missing: List[Source]) -> int:
    """Compile what is not shared yet, each source once, and link it; gives how many had to be copied."""
    sources = list({source.shared: source for source in missing}.values())
    for folder in {os.path.dirname(source.shared) for source in sources}:
        os.makedirs(folder, exist_ok=True)

    def told(done: int) -> None:
        if done % 2000 < 100 <= done:
            print(f"drydock:       bytecode: {done} of {len(sources)}", file=sys.stderr, flush=True)

    sources = [source for source in sources if not _is_shared(source)]
    sizes = {source.path: os.path.getsize(source.path) for source in sources}
    for source in sources:
        if sizes[source.path] >= _GIANT:  # with nothing beside it
            _compile_apart(source)
    rest = [source for source in sources if sizes[source.path] < _GIANT]
    on_all_cores(_compile_apart, rest, [sizes[source.path] for source in rest], grain=1_000_000, told=told)
    if any(_is_shared(source) for source in sources):
        os.sync()  # a power cut must not leave half a module behind a whole name
    return sum(_link(source) for source in missing if _is_shared(source))


def _is_shared(source: Source) -> bool:
    return os.path.exists(source.shared)


# What the compiler took for a large module, 60 MB for one of 1.4 MB, stays with its process.
_LARGE, _GIANT = 100_000, 400_000


def _compile_apart(source: Source) -> None:
    """Compile a module, a large one in a process of its own. Raises StageError where that process fails."""
    if os.path.getsize(source.path) < _LARGE:
        _compile(source)
        return
    child = os.fork()
    if child == 0:
        _exit_after(lambda: _compile(source))
    if os.waitpid(child, 0)[1]:
        raise StageError(f"{source.path} could not be compiled: see above, or is memory short?")


def _compile(source: Source) -> None:
    with open(source.path, "rb") as file:
        text = file.read()
    # The shared name promises this very source to every environment, and RECORD is the wheel's word for it, no more.
    content = bytecode_of(text) if sha256(text) == source.digest else None
    if content is None:
        return
    new = f"{source.shared}.{os.getpid()}"
    try:
        with open(new, "wb") as file:
            file.write(content + seal(source.digest, content))
        os.chmod(new, 0o444)
        os.replace(new, source.shared)
    except OSError:
        if os.path.exists(new):
            os.unlink(new)
        raise


def seal(digest: str, content: bytes) -> bytes:
    """What stands after bytecode, so that it can be checked without compiling: a sha256 of it and its source's sha256.

    Python ignores what follows ("marshal.loads: extra characters in the input are ignored").
    """
    return hashlib.sha256(bytes.fromhex(digest) + content).digest()


def bytecode_of(source: bytes) -> Optional[bytes]:
    """The unchecked hash-based pyc (PEP 552) of a source; None where this Python cannot compile it.

    On Python 3.11 and newer the same source gives the same bytes, whatever was compiled before, but for a rare set
    among 2,500 modules (CPython issue 78274); older ones write sets in the order of random hashes (issue 81777).
    """
    import warnings
    from importlib.util import MAGIC_NUMBER, source_hash

    # A constant of one character is one object in a process, and is written otherwise once anything interned it.
    for number in range(256):
        sys.intern(chr(number))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's code
            # The import system puts the real path in when it loads the code, so none has to be in the file.
            code = compile(source, "<drydock>", "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # as compileall does
    return MAGIC_NUMBER + (0b01).to_bytes(4, "little") + source_hash(source) + marshal.dumps(code)


# --- wheels that were met before -----------------------------------------------------------------------------------


def identities(plan: Dict[str, Any]) -> Dict[str, str]:
    """What stands for each wheel of a plan as it is once installed: its sha256, with those of its patches."""
    return {
        package["name"]: sha256(
            " ".join(
                [package["sha256"], *(p["sha256"] for p in plan["patches"] if p["package"] == package["name"])]
            ).encode()
        )
        for package in plan["packages"]
        if package["file"].endswith(".whl")  # of source, any build may be another
    }


def prelink(stage: Path, bytecode: Path) -> List[str]:
    """Link the bytecode of wheels that were met before, while the installer works; gives the packages that it did.

    Whether the installer brings what was met then is for `finish` to see, by its RECORD.
    """
    site = str(site_packages(stage))
    shared, tag = bytecode / cache_tag(), cache_tag()
    plan = read_plan(stage / ".drydock")["plan"]
    linked = []
    for name, identity in identities(plan).items():
        note, sources = _read_note(shared, identity)
        try:
            for folder in note.get("folders", ()):
                if folder.endswith("__pycache__"):
                    os.makedirs(f"{site}/{folder}", exist_ok=True)
            for line in sources:
                source = _source(site, line[65:], line[:64], str(shared), tag)
                os.link(source.shared, source.cached)
        except OSError:
            continue  # not shared any more, or it cannot be linked: as if it had never been met
        if note and note.get("modules") == len(sources):
            linked.append(name)
        if _is_orphan(stage):
            break  # the stage is for the next to remove
    return linked


def _note_path(shared: Path, identity: str) -> Path:
    return shared / "wheels" / identity


def _read_note(shared: Path, identity: str) -> Tuple[Dict[str, Any], List[str]]:
    """What was noted of a wheel, and its sources, each as its sha256, a space and its path; empty where nothing was."""
    try:
        head, *sources = _note_path(shared, identity).read_text(encoding="utf-8").split("\n")
        return json.loads(head), sources
    except (OSError, ValueError):
        return {}, []


def _write_note(shared: Path, identity: str, found: Dict[str, Any], settled: Dict[str, Source]) -> None:
    """Note what was found of a wheel; not of one that brings bytecode, or shares a module with another."""
    same = all(path not in settled or settled[path].digest == digest for digest, path in found["sources"])
    if found["brings"] or not same or any("\n" in path for _, path in found["sources"]):
        return
    note = {key: found[key] for key in ("record", "unhashed", "outside", "folders", "uncompiled")}
    compiled = [f"{digest} {path}" for digest, path in found["sources"] if path not in found["uncompiled"]]
    note["modules"] = len(compiled)
    path = _note_path(shared, identity)
    new = f"{path}.{os.getpid()}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(new, "w", encoding="utf-8") as file:
            file.write("\n".join([json.dumps(note), *compiled]))
        os.replace(new, path)
    except OSError:  # it only saves time
        if os.path.exists(new):
            os.unlink(new)


# --- all cores -----------------------------------------------------------------------------------------------------

Job = TypeVar("Job")


def on_all_cores(
    work: Callable[[Job], Any],
    jobs: Sequence[Job],
    costs: Sequence[int],
    *,
    grain: int,
    told: Callable[[int], None] = lambda *_: None,
) -> List[Any]:
    """What `work` gives for each job, in their order: plain data. Raises StageError where a process fails.

    `costs` say how the jobs compare, and `grain` what is too little for a process of its own. `told` hears now and then
    how many jobs are done. Plain forks and a pipe each, not a pool: where this process is killed, its children meet
    the closed pipe and end.
    """
    workers = max(1, min(usable_cores(), sum(costs) // grain))
    if workers == 1:
        results = []
        for number, job in enumerate(jobs, 1):
            results.append(work(job))
            if number % 100 == 0:
                told(number)
        return results
    import selectors

    pipes = selectors.DefaultSelector()
    readers: List[int] = []
    children = []
    for share in _shares(costs, workers):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            for pipe in (reader, *readers):
                os.close(pipe)
            _work_and_exit(work, jobs, share, writer)
        os.close(writer)
        children.append(child)
        readers.append(reader)
        pipes.register(reader, selectors.EVENT_READ, bytearray())
    done = _listen(pipes, told)
    failed = [child for child in children if os.waitpid(child, 0)[1]]
    if failed:
        raise StageError("a process of this build ended before its time: see above, or is memory short?")
    results = [None] * len(jobs)
    for content in done:
        for number, result in marshal.loads(content):
            results[number] = result
    return results


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _shares(costs: Sequence[int], count: int) -> List[List[int]]:
    """The numbers of the jobs, for each worker some, all with about the same sum.

    Every other worker begins with its largest, and the others end with them: they are not all in memory at once.
    """
    import heapq

    loads = [(0, number) for number in range(count)]
    shares: List[List[int]] = [[] for _ in range(count)]
    for job in sorted(range(len(costs)), key=lambda job: -costs[job]):
        load, worker = loads[0]
        shares[worker].append(job)
        heapq.heapreplace(loads, (load + costs[job] + 1, worker))
    return [share[:: -1 if number % 2 else 1] for number, share in enumerate(shares)]


def _work_and_exit(work: Callable[[Job], Any], jobs: Sequence[Job], share: List[int], writer: int) -> None:
    """Do the jobs of one worker: a byte of 1 for every hundred, then a 0 and the results."""

    def do() -> None:
        results = []
        for number, job in enumerate(share, 1):
            result = work(jobs[job])
            if result is not None:
                results.append((job, result))
            if number % 100 == 0:
                os.write(writer, b"\x01")
        with os.fdopen(writer, "wb") as file:
            file.write(b"\x00" + marshal.dumps(results))

    _exit_after(do)


def _exit_after(do: Callable[[], None]) -> None:
    """Do something, then end this process, whatever happens: a child must never come back into its parent's program."""
    code = 1
    try:
        do()
        code = 0
    except (OSError, StageError) as error:
        print(f"drydock: error: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def _listen(pipes: Any, told: Callable[[int], None]) -> List[bytes]:
    """Read what the workers say until they are silent; gives their results."""
    done = 0
    heard = []
    while pipes.get_map():
        for key, _ in pipes.select():
            content = os.read(key.fd, 1 << 16)
            if not content:
                pipes.unregister(key.fd)
                os.close(key.fd)
                heard.append(bytes(key.data).partition(b"\x00")[2] or marshal.dumps([]))
            else:
                before = key.data.find(0) < 0
                key.data.extend(content)
                if before and (ticks := content.partition(b"\x00")[0]):
                    done += 100 * len(ticks)
                    told(done)
    return heard


# --- the way in for scripts ----------------------------------------------------------------------------------------

COMMANDS: Dict[str, Callable[..., Any]] = {
    "plan": read_plan,
    "build": build,
    "mend": mend,
    "take": take,
    "give-back": give_back,
}


def main(arguments: List[str], commands: Dict[str, Callable[..., Any]]) -> int:
    """The command line of this file, as the generated scripts use it; a command that gives False has failed."""
    command, paths = "".join(arguments[:1]), [Path(argument) for argument in arguments[1:]]
    try:
        if command not in commands:
            raise StageError(f"the commands are {', '.join(commands)}, not {command!r}")
        return 1 if commands[command](*paths) is False else 0
    except (StageError, OSError) as error:
        print(f"drydock: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
