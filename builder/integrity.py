"""Whether an environment is still what was built: every promise, checked.

Like builder/stage.py, which it builds on, this file is carried by the generated scripts: standard library only, of
Python 3.9 or newer.

    stage.py verify ENV             every promise about a finished environment, checked
    stage.py check VENV PARTS       whether a virtual environment that is not ours is as locked
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, NamedTuple, Sequence, Tuple

from builder.patch import StageError, distributions, read_record, sha256
from builder.stage import (
    COMMANDS,
    check_distributions,
    key_of,
    on_all_cores,
    read_plan,
    seal,
    sealed,
    site_packages,
)

if TYPE_CHECKING:
    import subprocess


def read_manifest(env: Path) -> Dict[str, Any]:
    """The manifest of an environment, checked against its own seal, its key and its folder. Raises StageError."""
    path = env / ".drydock" / "manifest.json"
    try:
        manifest: Dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if sealed(manifest) != manifest or key_of(manifest["plan"]) != manifest["key"]:
            raise StageError("it was edited")
        if env.name != f"{manifest['key']}-{manifest['name']}":
            raise StageError(f"the folder was renamed: it is {manifest['key']}-{manifest['name']}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StageError(f"unreadable: {error}") from None
    return manifest


# --- every file ----------------------------------------------------------------------------------------------------


class Problem(NamedTuple):
    """A file that is not as it was built: its path in the environment, and what is wrong with it.

    `package` is the name of the package that it is of, where it is of one.
    """

    path: str
    what: str
    package: str = ""

    def __str__(self) -> str:
        return f"{self.path} {self.what}"


class Examined(NamedTuple):
    """What looking at every file of an environment found; `bytes` is the sum of their sizes."""

    env: Path
    files: int
    bytes: int
    problems: List[Problem]


class _Promise(NamedTuple):
    """What should stand at a path: a hash as RECORD writes it (or several: one is enough), `-> ` and where a
    link leads, or `pyc ` and the sha256 of the
    source.
    """

    said: str
    size: int
    package: str


def examine(envs: Sequence[Path], told: Callable[[int, int], None] = lambda *_: None) -> List[Examined]:
    """Look at every file of some environments: changed, missing, or not part of it.

    A file that several of them share by hard link is read once. `told` hears how many files of how many are done.
    """
    promised = [_promises(env) for env in envs]
    found = [dict(_walk(str(env), len(str(env)) + 1)) for env in envs]
    jobs: Dict[Tuple[Any, str], Tuple[str, str]] = {}
    costs: List[int] = []
    for env, promises, files in zip(envs, promised, found):
        for path, promise in promises.items():
            file = files.get(path)
            key = (file, promise.said)
            if file is not None and key not in jobs:
                jobs[key] = (f"{env}/{path}", promise.said)
                costs.append(promise.size + _EACH)
    said = on_all_cores(_look, list(jobs.values()), costs, grain=8_000_000, told=lambda done: told(done, len(jobs)))
    wrong = {key: (what, size) for key, (what, size) in zip(jobs, said)}
    return [_examined(*one, wrong) for one in zip(envs, promised, found)]


# What opening a file costs, in the time of bytes hashed.
_EACH = 10_000


def _examined(
    env: Path,
    promises: Dict[str, _Promise],
    files: Dict[str, int],
    wrong: Dict[Tuple[Any, str], Tuple[str, int]],
) -> Examined:
    problems, total = [], 0
    for path, promise in promises.items():
        if path not in files:
            problems.append(Problem(path, "is missing", promise.package))
            continue
        what, size = wrong[files[path], promise.said]
        total += size
        if what:
            problems.append(Problem(path, what, promise.package))
    problems += [Problem(path, "is not part of it") for path in files if path not in promises and path != _MANIFEST]
    return Examined(env, len(files), total, sorted(problems))


_MANIFEST = ".drydock/manifest.json"


def _promises(env: Path) -> Dict[str, _Promise]:
    """What a finished environment should consist of, by path, without its manifest. Raises StageError."""
    manifest = read_manifest(env)
    site = site_packages(env)
    inside = f"{site.relative_to(env).as_posix()}/"
    without = set(manifest["uncompiled"])
    promises = _records(site, inside)
    for path, promise in list(promises.items()):
        if path.endswith(".py") and path.startswith(inside) and path not in without:
            folder, _, name = path.rpartition("/")
            digests = " ".join(
                base64.urlsafe_b64decode(said[len("sha256=") :] + "=").hex() for said in promise.said.split(" ")
            )
            cached = f"{folder}/__pycache__/{name[:-3]}.{manifest['cache-tag']}.pyc"
            promises[cached] = _Promise(f"pyc {digests}", promise.size, promise.package)
    promises.update((path, _Promise(said, 0, "")) for path, said in manifest["own"].items())
    return promises


def _records(site: Path, inside: str) -> Dict[str, _Promise]:
    """What every RECORD says of its files, by path; `inside` is that of site-packages, with its slash."""
    promises: Dict[str, _Promise] = {}
    for name, info in sorted(distributions(site).items()):
        try:
            rows = read_record(info)
        except (OSError, ValueError):
            continue  # its own hash says so too
        for row in rows:
            if len(row) < 3 or not row[1]:
                continue
            path = os.path.normpath(inside + row[0]) if row[0].startswith("..") else inside + row[0]
            said = row[1]
            if path in promises and promises[path].said != said:
                said = f"{promises[path].said} {said}"  # two packages bring this file: one of them was the last
            promises[path] = _Promise(said, int(row[2] or 0), name)
    return promises


def check_records(site: Path) -> Examined:
    """Look at what the packages in a site-packages folder brought, against RECORD: changed or missing."""
    promises = _records(site, "")
    jobs = [(f"{site}/{path}", promise.said) for path, promise in promises.items()]
    costs = [promise.size + _EACH for promise in promises.values()]
    found = list(zip(promises.items(), on_all_cores(_look, jobs, costs, grain=8_000_000)))
    problems = [Problem(path, what, promise.package) for (path, promise), (what, _) in found if what]
    return Examined(site, len(found), sum(size for _, (_, size) in found), sorted(problems))


def damaged_bytecode(bytecode: Path) -> List[Path]:
    """The files of the shared bytecode that do not end with the seal of what is in them and of their names."""
    files = [
        (f"{folder}/{name}", f"{os.path.basename(folder)}{name[:-4]}")
        for folder, _, names in os.walk(bytecode)
        for name in names
        if name.endswith(".pyc")
    ]
    jobs = [(path, f"pyc {digest}") for path, digest in files]
    found = on_all_cores(_look, jobs, [20_000] * len(jobs), grain=8_000_000)
    return [Path(path) for (path, _), (what, _) in zip(jobs, found) if what]


def _walk(folder: str, skip: int) -> Iterator[Tuple[str, int]]:
    """Every file and link below `folder`: its path without the first `skip` characters, and its inode."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path, skip)
            else:
                yield entry.path[skip:], entry.inode()


def _look(job: Tuple[str, str]) -> Tuple[str, int]:
    """What is wrong with a file, nothing where it keeps its promise; and its size."""
    path, said = job
    try:
        if said.startswith("-> "):
            return _look_at_link(path, said[len("-> ") :]), 0
        if said.startswith("pyc "):
            with open(path, "rb", buffering=0) as file:
                content = file.read()
            good = any(content[-32:] == seal(digest, content[:-32]) for digest in said.split(" ")[1:])
            return "" if good else "is not the bytecode of its source", len(content)
        found, size = _hash(path, said.partition("=")[0])
        return "" if found in said.split(" ") else "was changed", size
    except FileNotFoundError:
        return "is missing", 0
    except (OSError, ValueError) as error:
        return f"cannot be checked: {error}", 0


def _look_at_link(path: str, target: str) -> str:
    found = os.readlink(path)
    if found != target:
        return f"leads to {found}, not to {target}"
    return "" if os.path.exists(path) else f"leads to {target}, which is gone"


def _hash(path: str, algorithm: str) -> Tuple[str, int]:
    digest, size = hashlib.new(algorithm), 0
    with open(path, "rb", buffering=0) as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
            size += len(block)
    return f"{algorithm}=" + base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode(), size


# --- what a person reads -------------------------------------------------------------------------------------------


class Finding(NamedTuple):
    """One line of a verification: what was looked at, whether it is right, and what was found."""

    what: str
    good: bool
    found: str


def verify(env: Path) -> List[Finding]:
    """Check a finished environment: manifest, packages, every file, machine, accelerator, proofs."""
    try:
        manifest = read_manifest(env)
    except StageError as error:
        return [Finding("manifest", False, str(error))]
    site, plan = site_packages(env), manifest["plan"]
    findings = [Finding("manifest", True, manifest["key"]), _packages_finding(site, plan)]
    findings.append(_files_finding(examine([env])[0]))
    findings += [_patch_finding(site, patch) for patch in plan["patches"]]
    python = env / "bin" / "python"
    findings.append(_machine_finding(python, plan))
    if any(package["name"] == "torch" for package in plan["packages"]):
        findings.append(_accelerator_finding(python, plan))
    return findings + [_program_finding(python, env / ".drydock" / file) for file in plan["verify"]]


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


def _files_finding(found: Examined) -> Finding:
    if not found.problems:
        return Finding("files", True, f"{found.files} files are as they should be")
    problems = [str(problem) for problem in found.problems]
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
    findings = [_packages_finding(site, plan, others=True), _files_finding(check_records(site))]
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


def _tell(findings: List[Finding]) -> bool:
    for what, good, found in findings:
        print(f"{'ok  ' if good else 'FAIL'} {what}: {found}", flush=True)
    return all(finding.good for finding in findings)


COMMANDS = {
    **COMMANDS,
    "verify": lambda env: _tell(verify(env)),
    "check": lambda venv, parts: _tell(check(venv, parts)),
}
