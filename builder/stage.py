"""From a filled virtual environment to a finished store path: what needs more than a shell.

This one file has two ways in. Drydock imports it, and every generated script carries it verbatim and runs it with
the environment's own Python. So it needs the standard library only, of Python 3.9 or newer.

    stage.py plan PARTS             refuse parts that are not what their plan says
    stage.py finish STAGE FINAL BYTECODE
                                    check, patch, link bytecode, record; then rename STAGE to FINAL
    stage.py verify ENV             every promise about a finished environment, checked
    stage.py mend VENV PARTS        patch a virtual environment that is not ours
    stage.py check VENV PARTS       whether such a one is as locked

PARTS is the folder that holds the plan and what it names; in a staged environment it is STAGE/.drydock.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import re
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

if TYPE_CHECKING:
    import subprocess


class StageError(Exception):
    """What is wrong, in words for the person who runs the script."""


# --- Patches: unified diffs, applied exactly or not at all ---------------------------------------------------------


class Hunk(NamedTuple):
    """Lines that stand at `start` (0-based) before, and what stands there after; line ends included."""

    start: int
    before: Tuple[bytes, ...]
    after: Tuple[bytes, ...]


class FilePatch(NamedTuple):
    """The change to one file; `path` is relative to site-packages."""

    path: str
    hunks: Tuple[Hunk, ...]


# Which side of a change a line belongs to, by its first character.
_SIDES = {b" ": (b"-", b"+"), b"-": (b"-",), b"+": (b"+",)}
_HUNK = re.compile(rb"^@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@")
# What git says of a file beside its lines.
_UNSUPPORTED = (b"rename from ", b"copy from ", b"new file mode ", b"deleted file mode ", b"old mode ", b"GIT binary ")


def parse_patch(text: str) -> List[FilePatch]:
    """The files that a unified diff changes, with paths `a/PACKAGE/...` and `b/PACKAGE/...` (as git writes them).

    Raises StageError for anything else: new or deleted files, renames, paths that leave site-packages.
    """
    lines = _lines(text.encode())
    files: List[FilePatch] = []
    at = 0
    of_git = False
    while at < len(lines):
        of_git = of_git or lines[at].startswith(b"diff --git ")
        if of_git and lines[at].startswith(_UNSUPPORTED):
            raise StageError(f"a patch may change lines of files, and nothing else: {_shown(lines[at])}")
        if not (lines[at].startswith(b"--- ") and at + 1 < len(lines) and lines[at + 1].startswith(b"+++ ")):
            at += 1
            continue
        old, new = (_patch_path(line) for line in lines[at : at + 2])
        if old != new:
            raise StageError(f"a patch may change files, not create, delete or rename them: {old} -> {new}")
        at += 2
        hunks: List[Hunk] = []
        while at < len(lines) and lines[at].startswith(b"@@"):
            hunk, at = _parse_hunk(lines, at)
            hunks.append(hunk)
        if not hunks:
            raise StageError(f"the patch names {new} and then changes nothing in it")
        if any(file.path == new for file in files):
            raise StageError(f"the patch names {new} twice")
        files.append(FilePatch(new, tuple(hunks)))
    if not files:
        raise StageError("this is not a unified diff: no '--- a/...' line")
    return files


def _lines(content: bytes) -> List[bytes]:
    """Lines with their ends. Only a newline ends one, as for diff and git: a carriage return is part of its line."""
    return io.BytesIO(content).readlines()


def _shown(line: bytes) -> str:
    return repr(line.decode(errors="replace").strip())


def _patch_path(line: bytes) -> str:
    name = line[4:].split(b"\t")[0].strip().decode()
    parts = PurePosixPath(name).parts
    if len(parts) < 3 or parts[0] not in ("a", "b"):
        raise StageError(f"a patch's paths begin with a/PACKAGE/ and b/PACKAGE/, not {name!r}")
    if ".." in parts or "\\" in name or "\0" in name:
        raise StageError(f"the path {name!r} leaves its package")
    return "/".join(parts[1:])


def _parse_hunk(lines: List[bytes], at: int) -> Tuple[Hunk, int]:
    header = _HUNK.match(lines[at])
    if header is None:
        raise StageError(f"line {at + 1} of the patch is not a hunk header: {_shown(lines[at])}")
    old_left = int(header[2]) if header[2] is not None else 1
    new_left = int(header[4]) if header[4] is not None else 1
    # Where there are no lines before, the number is that of the line above (POSIX diff, "Diff Unified Output Format").
    start = int(header[1]) - 1 if old_left else int(header[1])
    sides: Dict[bytes, List[bytes]] = {b"-": [], b"+": []}
    last = b""
    at += 1
    while at < len(lines) and (old_left or new_left or lines[at].startswith(b"\\")):
        mark, rest = lines[at][:1], lines[at][1:]
        if lines[at] in (b"\n", b"\r\n"):  # editors strip the space of an empty context line
            mark, rest = b" ", lines[at]
        if mark == b"\\" and last in _SIDES:  # "\ No newline at end of file" speaks of the line before it
            for side in _SIDES[last]:
                sides[side][-1] = sides[side][-1][:-1]
            last = mark
        elif mark not in _SIDES or not rest.endswith(b"\n"):
            break
        else:
            for side in _SIDES[mark]:
                sides[side].append(rest)
            old_left -= b"-" in _SIDES[mark]
            new_left -= b"+" in _SIDES[mark]
            last = mark
        at += 1
    # A line of a change that the header does not count: somebody edited the patch, and it says less than it shows.
    more = at < len(lines) and lines[at].startswith((b" ", b"+", b"-", b"\\")) and not _begins_something_else(lines, at)
    if old_left or new_left or more or start < 0 or not last:
        raise StageError(f"line {at} of the patch: the hunk is shorter or longer than its header says")
    return Hunk(start, tuple(sides[b"-"]), tuple(sides[b"+"])), at


def _begins_something_else(lines: List[bytes], at: int) -> bool:
    """Whether this is the next file, or the signature below a mail of git's."""
    return lines[at].rstrip() == b"--" or b"".join(line[:4] for line in lines[at : at + 2]) == b"--- +++ "


def apply_hunks(patch: FilePatch, content: bytes) -> Optional[bytes]:
    """`content` with the patch applied, or None where it does not fit exactly: no offset, no fuzz."""
    lines = _lines(content)
    result: List[bytes] = []
    done = 0
    for hunk in patch.hunks:
        end = hunk.start + len(hunk.before)
        if not done <= hunk.start <= len(lines) or tuple(lines[hunk.start : end]) != hunk.before:
            return None
        result += lines[done : hunk.start]
        result += hunk.after
        done = end
    result += lines[done:]
    if not all(line.endswith(b"\n") for line in result[:-1]):
        return None  # what the patch takes for the end of the file is none
    return b"".join(result)


def reverse(patch: FilePatch) -> FilePatch:
    """The patch that takes this one back."""
    hunks: List[Hunk] = []
    shift = 0
    for hunk in patch.hunks:
        hunks.append(Hunk(hunk.start + shift, hunk.after, hunk.before))
        shift += len(hunk.after) - len(hunk.before)
    return FilePatch(patch.path, tuple(hunks))


def sha256(content: bytes) -> str:
    """The sha256 of `content` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` at `path` through a new file and a rename.

    Never in place: installers hard-link from their cache, and a write through the link would change that too.
    """
    new = path.with_name(path.name + ".drydock-new")
    try:
        mode = path.stat().st_mode & 0o7777
        with open(new, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(new, mode)
        os.replace(new, path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def record_hash(content: bytes) -> str:
    """A hash as RECORD writes it (PEP 376, PEP 427): urlsafe base64 without padding."""
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def canonical_name(name: str) -> str:
    """A package name in its normal form (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def distributions(site: Path) -> Dict[str, Path]:
    """The installed packages of a site-packages folder: normal name to dist-info folder."""
    return {
        canonical_name(info.name[: -len(".dist-info")].rsplit("-", 1)[0]): info for info in site.glob("*.dist-info")
    }


def read_record(info: Path) -> List[List[str]]:
    """The rows of a RECORD: path, hash, size."""
    return list(csv.reader(io.StringIO((info / "RECORD").read_text(encoding="utf-8"), newline="")))


def rewrite_record(info: Path, changed: Dict[str, bytes]) -> None:
    """Give RECORD the new hash and size of the `changed` files, where it does not have them."""
    before = read_record(info)
    rows = [
        [row[0], record_hash(changed[row[0]]), str(len(changed[row[0]]))] if row and row[0] in changed else row
        for row in before
    ]
    missing = set(changed) - {row[0] for row in rows if row}
    if missing:
        raise StageError(f"{info.name}/RECORD does not list {', '.join(sorted(missing))}")
    if rows == before:
        return
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    replace_file(info / "RECORD", text.getvalue().encode())


def patch_package(site: Path, patch: Dict[str, Any], text: str, *, revert: bool = False) -> bool:
    """Apply one patch (or take it back) to the installed source; False where that was done before.

    `patch` names the package, the patch file and, for each file it changes, the sha256 before and after; those are
    checked before anything is written. Raises StageError.
    """
    info = distributions(site).get(patch["package"])
    if info is None:
        raise StageError(f"{patch['file']} is for {patch['package']}, which is not installed in {site}")
    parsed = {file.path: file for file in parse_patch(text)}
    pinned = {file["path"]: file for file in patch["files"]}
    if set(parsed) != set(pinned):
        raise StageError(f"{patch['file']} changes other files than the lock says")
    goal = "preimage" if revert else "postimage"
    start = "postimage" if revert else "preimage"
    wanted: Dict[str, bytes] = {}
    changed: List[str] = []
    for path, file in parsed.items():
        content = (site / path).read_bytes()
        if sha256(content) == pinned[path][goal]:
            wanted[path] = content
            continue
        if sha256(content) != pinned[path][start]:
            raise StageError(
                f"{patch['file']} does not apply: {site / path} has sha256 {sha256(content)}, and the patch is for "
                f"{pinned[path][start]}. Somebody changed the file, or it is of another version of {patch['package']}."
            )
        after = apply_hunks(reverse(file) if revert else file, content)
        if after is None or sha256(after) != pinned[path][goal]:
            raise StageError(f"{patch['file']} does not give the file that the lock promises for {path}")
        wanted[path] = after
        changed.append(path)
    for path in changed:
        replace_file(site / path, wanted[path])
    # Those that were done before too: a run that was killed here may have left RECORD behind.
    rewrite_record(info, wanted)
    return bool(changed)


# --- end of what fix_*_patches.py carries; from here on: the store -------------------------------------------------

_BASE32 = "0123456789abcdfghijklmnpqrsvwxyz"


def key_of(plan: Dict[str, Any]) -> str:
    """The key of a plan: the sha256 of its canonical JSON, folded to 160 bits, in Nix's base32 (32 characters).

    Folding and alphabet are those of Nix's store paths (nix, libutil/hash.cc, compressHash and printHash32).
    """
    digest = hashlib.sha256(json.dumps(plan, sort_keys=True, separators=(",", ":")).encode()).digest()
    folded = bytearray(20)
    for index, byte in enumerate(digest):
        folded[index % 20] ^= byte
    number = int.from_bytes(folded, "little")
    return "".join(_BASE32[(number >> (5 * place)) & 31] for place in reversed(range(32)))


def site_packages(env: Path) -> Path:
    """The site-packages folder of a virtual environment."""
    found = sorted(env.glob("lib/python3*/site-packages"))
    if len(found) != 1:
        raise StageError(f"{env} is not a virtual environment: it has no lib/python3.*/site-packages")
    return found[0]


def read_plan(parts: Path) -> Dict[str, Any]:
    """The plan beside the files that it names, checked: its key and the sha256 of every carried file."""
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
    """What uv installed from is what the plan names, hash for hash. Raises StageError."""
    wanted = sorted(pinned(package) for package in [*plan["packages"], *plan["build-requires"]])
    files = [name for name in transient(parts) if name.endswith(".txt")]
    found = [line for name in files for line in (parts / name).read_text(encoding="utf-8").split("\n")]
    if sorted(line for line in found if line) != wanted:
        raise StageError("the script was edited: its requirements are not those of its plan. Render it again.")


def pinned(package: Dict[str, Any]) -> str:
    """A package of a plan as a line of a requirement file."""
    return f"{package['name']}=={package['version']} --hash=sha256:{package['sha256']}"


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
    check_distributions(site_packages(stage), plan)
    apply_patches(stage, parts, plan)
    link_bytecode(site_packages(stage), bytecode)
    interpreter = "{}.{}.{}".format(*sys.version_info[:3])
    manifest = {**written, "format": plan["format"], "interpreter": interpreter}
    for name in transient(parts):
        os.unlink(parts / name)
    with open(parts / "manifest.json", "w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    answer_installers(stage)
    protect(stage, parts)
    try:
        os.rename(stage, final)
    except OSError:
        if not (final / ".drydock" / "manifest.json").is_file():
            raise
        return
    os.chmod(final, 0o555)  # last: a folder that is renamed must be writable, on some systems
    folder = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename survives a power loss only with its folder
    finally:
        os.close(folder)


def transient(parts: Path) -> List[str]:
    """The files in `parts` that only a build needs."""
    return [
        name
        for name in os.listdir(parts)
        if name in ("plan.json", "stage.py") or re.fullmatch(r"(build-)?requirements(-[a-z0-9-]+)?\.txt", name)
    ]


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


def protect(stage: Path, parts: Path) -> None:
    """Make every folder read-only, and the files that are ours.

    Not the files of the wheels: they are hard links into the installer's cache, whose modes are not ours to change.
    """
    site = str(site_packages(stage))
    folders = {f"{stage}/bin", site}
    for path, _, files in os.walk(parts):
        folders.add(path)
        for name in files:
            os.chmod(os.path.join(path, name), 0o444)
    # From RECORD, not by a walk: an environment has some ten times more files than folders.
    for info in distributions(site_packages(stage)).values():
        for row in read_record(info):
            folder = row[0].rpartition("/")[0] if row and not row[0].startswith("..") else ""
            while folder and f"{site}/{folder}" not in folders:
                folders.add(f"{site}/{folder}")
                folder = folder.rpartition("/")[0]
    for folder in folders | {f"{folder}/__pycache__" for folder in folders}:
        if os.path.isdir(folder):
            os.chmod(folder, 0o555)


# --- bytecode: compiled once per source, linked into every environment ---------------------------------------------


class Source(NamedTuple):
    """A module to compile: its path and sha256, where its bytecode goes, and where the shared bytecode is kept."""

    path: str
    digest: str
    cached: str
    shared: str


def link_bytecode(site: Path, bytecode: Path) -> None:
    """Give every module of `site` its bytecode, by a hard link to one shared file per source.

    The shared file is named by Python's cache tag and the sha256 of the source, which RECORD has already, so that
    nothing is hashed. It is an unchecked hash-based pyc (PEP 552): no time and no path of the store is in it.
    """
    made: Set[str] = set()
    missing = [source for source in _sources(site, bytecode / _cache_tag()) if not _link(source, made)]
    if missing:
        _compile_all(list({source.shared: source for source in missing}.values()))
        for source in missing:
            _link(source, made)


def _cache_tag() -> str:
    return sys.implementation.cache_tag or "unknown"


def _sources(site: Path, shared: Path) -> Iterator[Source]:
    tag, base, store = _cache_tag(), str(site), str(shared)
    for info in distributions(site).values():
        for row in read_record(info):
            # Paths that begin with ../ are programs and data outside of site-packages, which are never imported.
            if (
                len(row) < 2
                or not row[0].endswith(".py")
                or row[0].startswith("..")
                or not row[1].startswith("sha256=")
            ):
                continue
            folder, _, name = row[0].rpartition("/")
            digest = base64.urlsafe_b64decode(row[1][len("sha256=") :] + "=").hex()
            cached = (
                f"{base}/{folder}/__pycache__/{name[:-3]}.{tag}.pyc"
                if folder
                else f"{base}/__pycache__/{name[:-3]}.{tag}.pyc"
            )
            yield Source(f"{base}/{row[0]}", digest, cached, f"{store}/{digest[:2]}/{digest[2:]}.pyc")


def _link(source: Source, made: Set[str]) -> bool:
    """Link the shared bytecode of one source into place; False where there is none. `made` has the folders so far."""
    folder = source.cached.rpartition("/")[0]
    if folder not in made:
        made.add(folder)
        os.makedirs(folder, exist_ok=True)
    try:
        os.link(source.shared, source.cached)
    except FileNotFoundError:
        return False
    except FileExistsError:
        pass  # a wheel that brought its own, or the second of two rows
    except OSError:  # another file system, one without hard links, or a file that has too many of them
        import shutil

        if not os.path.exists(source.shared):
            return False
        shutil.copyfile(source.shared, source.cached)
    return True


def _compile_all(sources: List[Source]) -> None:
    """Compile on all cores, with a word to the user now and then. Raises StageError.

    Plain forks and a pipe, not a pool: where this process is killed, its children meet the closed pipe and end.
    """
    for folder in {os.path.dirname(source.shared) for source in sources}:
        os.makedirs(folder, exist_ok=True)
    workers = max(1, min(_usable_cores(), len(sources) // 100))
    reader, writer = os.pipe()
    children = []
    for number in range(workers):
        child = os.fork()
        if child == 0:
            os.close(reader)
            _compile_and_exit(sources[number::workers], writer)
        children.append(child)
    os.close(writer)
    done = 0
    for told in iter(lambda: os.read(reader, 1), b""):
        done += told[0]
        if done % 2000 < told[0]:
            print(f"drydock:       bytecode: {done} of {len(sources)}", file=sys.stderr, flush=True)
    os.close(reader)
    failed = [child for child in children if os.waitpid(child, 0)[1]]
    if failed:
        raise StageError("the bytecode could not be made: see above, or is memory short?")


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _compile_and_exit(sources: List[Source], writer: int) -> None:
    import warnings

    code = 1
    try:
        warnings.simplefilter("ignore")  # invalid escapes in other people's code
        for start in range(0, len(sources), 100):
            chunk = sources[start : start + 100]
            for source in chunk:
                _compile(source)
            os.write(writer, bytes([len(chunk)]))
        code = 0
    except OSError as error:
        print(f"drydock: error: {error}", file=sys.stderr, flush=True)
    finally:  # a child must never come back into its parent's program
        os._exit(code)


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
            file.write(content)
        os.chmod(new, 0o444)
        os.replace(new, source.shared)
    except OSError:
        if os.path.exists(new):
            os.unlink(new)
        raise


def bytecode_of(source: bytes) -> Optional[bytes]:
    """The unchecked hash-based pyc (PEP 552) of a source; None where this Python cannot compile it."""
    import marshal
    from importlib.util import MAGIC_NUMBER, source_hash

    try:
        # The import system puts the real path in when it loads the code, so none has to be in the file.
        code = compile(source, "<drydock>", "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # as compileall does
    return MAGIC_NUMBER + (0b01).to_bytes(4, "little") + source_hash(source) + marshal.dumps(code)


# --- verify --------------------------------------------------------------------------------------------------------


class Finding(NamedTuple):
    """One line of a verification: what was looked at, whether it is right, and what was found."""

    what: str
    good: bool
    found: str


def verify(env: Path, *, programs: bool = True) -> List[Finding]:
    """Check a finished environment: manifest, packages, every file against RECORD, machine, accelerator, proofs.

    `programs=False` leaves out what has to run in the environment: the accelerator, the proofs and the checks.
    """
    try:
        manifest = json.loads((env / ".drydock" / "manifest.json").read_text(encoding="utf-8"))
        plan = manifest["plan"]
        intact = key_of(plan) == manifest["key"] and env.name == f"{manifest['key']}-{manifest['name']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [Finding("manifest", False, f"unreadable: {error}")]
    site = site_packages(env)
    findings = [Finding("manifest", intact, manifest["key"] if intact else "was edited, or the folder was renamed")]
    findings.append(_packages_finding(site, plan))
    findings.append(_files_finding(site))
    findings += [_patch_finding(site, patch) for patch in plan["patches"]]
    if programs:
        python = env / "bin" / "python"
        findings.append(_machine_finding(python, plan))
        if any(package["name"] == "torch" for package in plan["packages"]):
            findings.append(_accelerator_finding(python, plan))
        findings += [_program_finding(python, env / ".drydock" / file) for file in plan["verify"]]
    return findings


def _packages_finding(site: Path, plan: Dict[str, Any], *, others: bool = False) -> Finding:
    try:
        check_distributions(site, plan, others=others)
    except StageError as error:
        return Finding("packages", False, str(error))
    told = ", ".join(
        f"{package['name']} {package['version']}"
        for package in plan["packages"]
        if package["name"] in ("torch", "transformers", "accelerate")
    )
    return Finding("packages", True, f"{len(plan['packages'])} as locked{': ' if told else ''}{told}")


def check_records(site: Path) -> Tuple[int, List[str]]:
    """Hash every installed file against its RECORD: how many, and what is wrong with which."""
    rows = [row for info in sorted(distributions(site).values()) for row in read_record(info) if row and row[1]]

    def look(row: List[str]) -> Optional[str]:
        algorithm, _, wanted = row[1].partition("=")
        try:
            digest = hashlib.new(algorithm)
            with open(site / row[0], "rb") as file:
                for block in iter(lambda: file.read(1 << 20), b""):
                    digest.update(block)
        except FileNotFoundError:
            return f"{row[0]} is missing"
        except (OSError, ValueError) as error:
            return f"{row[0]} cannot be checked: {error}"
        found = base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
        return None if found == wanted else f"{row[0]} was changed"

    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return len(rows), sorted(problem for problem in pool.map(look, rows) if problem)


def _files_finding(site: Path) -> Finding:
    count, problems = check_records(site)
    if not problems:
        return Finding("files", True, f"{count} files match RECORD")
    more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
    return Finding("files", False, "; ".join(problems[:5]) + more)


def _patch_finding(site: Path, patch: Dict[str, Any]) -> Finding:
    for file in patch["files"]:
        try:
            if sha256((site / file["path"]).read_bytes()) != file["postimage"]:
                return Finding(patch["file"], False, f"{file['path']} is not the patched file")
        except OSError as error:
            return Finding(patch["file"], False, str(error))
    return Finding(patch["file"], True, "applied to " + ", ".join(file["path"] for file in patch["files"]))


def check(venv: Path, parts: Path) -> List[Finding]:
    """Whether a virtual environment that is not ours has what the plan in `parts` says; it may have more."""
    plan = read_plan(parts)["plan"]
    site = site_packages(venv)
    findings = [_packages_finding(site, plan, others=True), _files_finding(site)]
    findings += [_patch_finding(site, patch) for patch in plan["patches"]]
    return findings + [_program_finding(venv / "bin" / "python", parts / file) for file in plan["verify"]]


def _machine_finding(python: Path, plan: Dict[str, Any]) -> Finding:
    done = _run([str(python), "-c", "import platform as p; print(p.python_version(), p.system(), p.machine())"])
    words = done.stdout.split()
    found = f"Python {words[0]} on {words[1]} {words[2]}" if len(words) == 3 else _last_line(done)
    wanted = (plan["python"], plan["target"]["system"], plan["target"]["machine"])
    good = len(words) == 3 and (words[0].rpartition(".")[0], words[1], words[2]) == wanted
    return Finding("machine", good, found if good else f"{found}; wanted Python {wanted[0]} on {wanted[1]} {wanted[2]}")


_ACCELERATOR = """\
import torch
print(torch.__version__, int(torch.backends.mps.is_available()), int(torch.cuda.is_available()))
"""


def _accelerator_finding(python: Path, plan: Dict[str, Any]) -> Finding:
    wanted = plan["target"]["accelerator"]
    done = _run([str(python), "-c", _ACCELERATOR])
    words = done.stdout.split()
    if done.returncode or len(words) != 3:
        return Finding("accelerator", False, f"torch does not import: {_last_line(done)}")
    has = {"cpu": True, "mps": words[1] == "1", "cuda": words[2] == "1"}
    available = ", ".join(name for name, there in has.items() if there)
    found = f"torch {words[0]} can use {available}"
    return Finding("accelerator", has[wanted], found if has[wanted] else f"{found}; the profile wants {wanted}")


def _program_finding(python: Path, program: Path) -> Finding:
    done = _run([str(python), str(program)], DRYDOCK_PATCHED="1")
    return Finding(program.name, done.returncode == 0, _last_line(done))


def _run(command: List[str], **extra: str) -> subprocess.CompletedProcess[str]:
    import subprocess

    # Nothing of the caller's Python settings, and nothing written into the store path.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    clean.update(PYTHONNOUSERSITE="1", PYTHONDONTWRITEBYTECODE="1", **extra)
    return subprocess.run(command, capture_output=True, text=True, errors="replace", env=clean, cwd="/", check=False)


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stdout if done.returncode == 0 else done.stderr or done.stdout).strip().splitlines()
    return lines[-1] if lines else f"exit status {done.returncode}, and no output"


def main(arguments: List[str]) -> int:
    """The command line of this file, as the generated scripts use it."""
    command, paths = "".join(arguments[:1]), [Path(argument) for argument in arguments[1:]]
    try:
        if command == "plan":
            read_plan(*paths)
        elif command == "finish":
            finish(*paths)
        elif command == "mend":
            venv, parts = paths
            apply_patches(venv, parts, read_plan(parts)["plan"])
        elif command in ("verify", "check"):
            findings = verify(*paths) if command == "verify" else check(*paths)
            for what, good, found in findings:
                print(f"{'ok  ' if good else 'FAIL'} {what}: {found}", flush=True)
            return 0 if all(finding.good for finding in findings) else 1
        else:
            raise StageError(__doc__ or "")
    except (StageError, OSError) as error:
        print(f"drydock: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
