"""From a filled virtual environment to a finished store path: what needs more than a shell.

This file has two ways in. Drydock imports it, and every generated script carries it, after builder/patch.py and
without the imports from there, and runs it with the environment's own Python. So it needs the standard library only,
of Python 3.9 or newer.

    stage.py plan PARTS             refuse parts that are not what their plan says
    stage.py finish STAGE FINAL BYTECODE
                                    check, patch, link bytecode, record; then rename STAGE to FINAL
    stage.py mend VENV PARTS        patch a virtual environment that is not ours

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
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Set, TypeVar

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
        if name in ("plan.json", "stage.py") or re.fullmatch(r"(build-)?requirements(-[a-z0-9-]+)?\.txt", name)
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


# --- the last step of a build --------------------------------------------------------------------------------------


def finish(stage: Path, final: Path, bytecode: Path) -> None:
    """Make a staged environment a store path: the last step is one rename.

    `bytecode` is the folder of compiled sources that all environments share; what is missing there is compiled.

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
    check_distributions(site, plan)
    apply_patches(stage, parts, plan)
    contents = link_bytecode(site, bytecode)
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


def link_bytecode(site: Path, bytecode: Path) -> Contents:
    """Give every module of `site` its bytecode, by a hard link to one shared file per source.

    The shared file is named by Python's cache tag and the sha256 of the source, which RECORD has already, so that
    nothing is hashed. It is an unchecked hash-based pyc (PEP 552): no time and no path of the store is in it.
    """
    shared = bytecode / cache_tag()
    env = site.parent.parent.parent
    infos = list(distributions(site).values())
    found = on_all_cores(
        lambda info: _link_package(env, site, info, str(shared)),
        infos,
        [(info / "RECORD").stat().st_size for info in infos],
        grain=20_000,
    )
    missing = _settled([Source(*source) for one in found for source in one["missing"]], shared)
    copied = sum(one["copied"] for one in found)
    if missing:
        copied += _compile_and_link(missing)
    if copied:
        print(f"drydock:       bytecode: {copied} copied, as this file system would not link them", file=sys.stderr)
    return Contents(
        {path: promise for one in found for path, promise in one["unhashed"]},
        {path for one in found for path in one["outside"]},
        sorted(source.path[len(str(env)) + 1 :] for source in missing if not os.path.exists(source.cached)),
        {str(site), *(folder for one in found for folder in one["folders"])},
    )


def cache_tag() -> str:
    """What the names of this Python's bytecode end with, before .pyc (PEP 3147)."""
    return sys.implementation.cache_tag or "unknown"


def _link_package(env: Path, site: Path, info: Path, shared: str) -> Dict[str, Any]:
    """Link what is there for the modules of one package; gives plain data for `link_bytecode`.

    RECORD is read once, here: it says all that a build has to know of a package.
    """
    base, inside, tag = str(site), str(site)[len(str(env)) + 1 :], cache_tag()
    record = (info / "RECORD").read_bytes()
    unhashed = {f"{inside}/{info.name}/RECORD": record_hash(record)}
    outside, missing = [], []
    folders: Set[str] = set()
    copied = 0
    for row in csv.reader(io.StringIO(record.decode("utf-8"), newline="")):
        if len(row) < 2:
            continue
        path = row[0]
        folder, _, name = path.rpartition("/")
        if path.startswith("..") or not folder:
            outside.append(os.path.normpath(f"{inside}/{path}"))
        elif folder not in folders:
            parts = folder.split("/")
            folders.update("/".join(parts[: end + 1]) for end in range(len(parts)))
        if not row[1]:
            if not path.endswith(("/RECORD", f".{tag}.pyc")):
                unhashed[f"{inside}/{path}"] = promise_of(env, f"{inside}/{path}")
        # Paths that begin with ../ are programs and data outside of site-packages, which are never imported.
        elif name.endswith(".py") and row[1].startswith("sha256=") and not path.startswith(".."):
            digest = base64.urlsafe_b64decode(row[1][len("sha256=") :] + "=").hex()
            cached = f"{folder}/__pycache__" if folder else "__pycache__"
            if cached not in folders:
                folders.add(cached)
                os.makedirs(f"{base}/{cached}", exist_ok=True)
            source = Source(
                f"{base}/{path}",
                digest,
                f"{base}/{cached}/{name[:-3]}.{tag}.pyc",
                f"{shared}/{digest[:2]}/{digest[2:]}.pyc",
            )
            try:
                copied += _link(source)
            except (FileNotFoundError, FileExistsError):
                missing.append(tuple(source))
    return {
        "unhashed": list(unhashed.items()),
        "outside": outside,
        "missing": missing,
        "folders": [f"{base}/{folder}" for folder in folders],
        "copied": copied,
    }


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
    on_all_cores(_compile, sources, [os.path.getsize(source.path) for source in sources], grain=1_000_000, told=told)
    if any(_is_shared(source) for source in sources):
        os.sync()  # a power cut must not leave half a module behind a whole name
    return sum(_link(source) for source in missing if _is_shared(source))


def _is_shared(source: Source) -> bool:
    return os.path.exists(source.shared)


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
    """The numbers of the jobs, for each worker some, all with about the same sum: the largest first."""
    import heapq

    loads = [(0, number) for number in range(count)]
    shares: List[List[int]] = [[] for _ in range(count)]
    for job in sorted(range(len(costs)), key=lambda job: -costs[job]):
        load, worker = loads[0]
        shares[worker].append(job)
        heapq.heapreplace(loads, (load + costs[job] + 1, worker))
    return shares


def _work_and_exit(work: Callable[[Job], Any], jobs: Sequence[Job], share: List[int], writer: int) -> None:
    """Do the jobs of one worker: a byte of 1 for every hundred, then a 0 and the results."""
    code = 1
    try:
        results = []
        for number, job in enumerate(share, 1):
            result = work(jobs[job])
            if result is not None:
                results.append((job, result))
            if number % 100 == 0:
                os.write(writer, b"\x01")
        with os.fdopen(writer, "wb") as file:
            file.write(b"\x00" + marshal.dumps(results))
        code = 0
    except (OSError, StageError) as error:
        print(f"drydock: error: {error}", file=sys.stderr, flush=True)
    finally:  # a child must never come back into its parent's program
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

COMMANDS: Dict[str, Callable[..., Any]] = {"plan": read_plan, "finish": finish, "mend": mend}


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
