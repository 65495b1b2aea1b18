"""Whether an environment is what its lock says and runs here: a line per finding."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from builder.embedded import accelerator, interpreter
from builder.embedded.errors import StageError
from builder.embedded.examine import Examined, examine
from builder.embedded.hashes import sha256
from builder.embedded.installed import check_distributions, site_packages
from builder.embedded.manifest import read_manifest

if TYPE_CHECKING:
    import subprocess


class Finding(NamedTuple):
    """One line of a verification: what was looked at, whether it is right, and what was found."""

    what: str
    good: bool
    found: str


def verify(env: Path) -> list[Finding]:
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
    if "python-build" in plan:
        findings.append(_python_finding(env, plan))
    findings.append(_machine_finding(python, plan, manifest.get("interpreter")))
    findings += _accelerator_findings(python, plan)
    return findings + [program_finding(python, env / ".drydock" / file) for file in plan["verify"]]


def _packages_finding(site: Path, plan: dict[str, Any]) -> Finding:
    try:
        check_distributions(site, plan)
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


def _patch_finding(site: Path, patch: dict[str, Any]) -> Finding:
    for file in patch["files"]:
        try:
            if sha256((site / file["path"]).read_bytes()) != file["postimage"]:
                return Finding(patch["file"], False, f"{file['path']} is not the patched file")
        except OSError as error:
            return Finding(patch["file"], False, str(error))
    return Finding(patch["file"], True, "applied to " + ", ".join(file["path"] for file in patch["files"]))


def _python_finding(env: Path, plan: dict[str, Any]) -> Finding:
    """Whether the Python that the lock names is as it was unpacked."""
    from builder.embedded import pythons  # which other scripts do not carry

    home, build = env.parent.parent, plan["python-build"]
    wrong = list(pythons.problems(home, plan, env / "bin" / "python"))
    if not wrong:
        return Finding("python", True, f"{build['file']}, sha256 {build['sha256'][:12]}...")
    more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    fix = f"chmod -R u+w {pythons.place_of(home, plan)} && rm -r {pythons.place_of(home, plan)}, and it comes again"
    return Finding("python", False, f"not as unpacked of {build['file']}: {'; '.join(wrong[:5])}{more}; {fix}")


def _machine_finding(python: Path, plan: dict[str, Any], built: str | None) -> Finding:
    """`built` is the version of the Python that it was built on, which may have been replaced in its place."""
    done = run(interpreter.question(str(python)))
    here = interpreter.parse(done.stdout)
    release, wanted = plan.get("interpreter"), (plan["python"], plan["target"]["system"], plan["target"]["machine"])
    words = "Python {} on {} {}".format(release or wanted[0], *wanted[1:])
    if here is None:
        return Finding("machine", False, f"{_last_line(done)}; wanted {words}")
    found = f"Python {here.version} on {here.system} {here.machine}"
    if (here.version.rpartition(".")[0], here.system, here.machine) != wanted or release not in (None, here.version):
        return Finding("machine", False, f"{found}; wanted {words}")
    if built not in (None, here.version):
        found += f"; it was {built} when this was built"
    if here.missing:
        found += f"; it lacks {', '.join(here.missing)}"
    return Finding("machine", True, found)


def _accelerator_findings(python: Path, plan: dict[str, Any]) -> list[Finding]:
    """A finding for each framework that is locked, or that there is none."""
    wanted, locked = plan["target"]["accelerator"], {package["name"] for package in plan["packages"]}
    found = [framework for framework in accelerator.FRAMEWORKS if framework in locked]
    if not found:
        words = f"no {', '.join(accelerator.FRAMEWORKS)} is locked, so nothing was computed on {wanted}"
        return [Finding("accelerator", True, words)]
    return [Finding("accelerator", *accelerator.compute(one, wanted, str(python), run)) for one in found]


def program_finding(python: Path, program: Path) -> Finding:
    """What a proof says: the last line of its output, on a Python."""
    # Isolated: in its folder, a proof that is named as a package would be imported instead of that.
    done = run([str(python), "-I", "-B", str(program)], DRYDOCK_PATCHED="1")
    return Finding(program.name, done.returncode == 0, _last_line(done))


def run(command: list[str], **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a program with nothing of the caller's Python settings, and `extra` variables; returns what it said."""
    import subprocess

    # Nothing of the caller's Python settings, and nothing written into the store path.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    clean.update(PYTHONNOUSERSITE="1", PYTHONDONTWRITEBYTECODE="1", **extra)
    return subprocess.run(command, capture_output=True, text=True, errors="replace", env=clean, cwd="/", check=False)


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stdout if done.returncode == 0 else done.stderr or done.stdout).strip().splitlines()
    return lines[-1] if lines else f"exit status {done.returncode}, and no output"


def say(findings: list[Finding]) -> bool:
    """Print the findings; returns whether all are good."""
    for what, good, found in findings:
        print(f"{'ok  ' if good else 'FAIL'} {what}: {found}", flush=True)
    return all(finding.good for finding in findings)
