"""A trainer as a job of Slurm: submit it, read its state and its log, cancel it. All by Slurm's own programs.

runs/NAME/slurm.sh      the batch script of the job that was submitted last
runs/NAME/slurm.json    that job, and where its log is
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder import log as log_
from builder import process, secrets
from builder.embedded import state
from builder.embedded.words import plural
from builder.errors import DrydockError, ToolError, UsageError
from builder.files import display, write_atomically
from builder.project.evaluate import evaluate
from builder.project.sources import consent
from builder.run.records import folder as records
from builder.run.records.begin import begin
from builder.run.supervise import runs

if TYPE_CHECKING:
    from builder.project.catalogue import Catalogue
    from builder.report import Reporter
    from builder.run.records.folder import Head

_PATIENCE = 60.0
"""Seconds in which a program of Slurm answers: it asks a busy controller again and again."""
_GLANCE = 10.0
"""The same where a list of runs is printed, which needs no answer."""
_STOPPING = 120.0
"""Seconds in which a job that is cancelled ends; KillWait of a cluster is 30 by default."""
_OVER = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "TIMEOUT",
)
# What squeue prints of a job, each in so many characters.
_COLUMNS = {
    "JobID": 20,
    "State": 20,
    "RestartCnt": 10,
    "NumNodes": 10,
    "TimeUsed": 20,
    "exit_code": 12,
    "Reason": 40,
    "NodeList": 400,
}


def submit(name: str, arguments: Sequence[str], catalogue: Catalogue, report: Reporter) -> str:
    """Submit the trainer of `name` with these arguments; returns the number of the job.

    Its secrets are in the environment of the job. Raises ConsentError where nobody has agreed to run the profile, and
    ToolError where sbatch refuses.
    """
    from builder.script.templates import rendered_batch_script

    if shutil.which("sbatch") is None:
        raise ToolError(
            "there is no sbatch here",
            hint=f"on a login node of a cluster; its batch script: drydock render {name} --slurm",
        )
    environment, names = secrets.environment(arguments)
    evaluation = evaluate(name, catalogue)
    consent.check(name, evaluation.content)
    entry = catalogue.entry(name)
    if entry.code is not None:
        environment = {**environment, "DRYDOCK_PROJECT": str(entry.project_folder)}
    folder = runs.folder(name)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    script = folder / "slurm.sh"
    write_atomically(script, rendered_batch_script(entry.plan), executable=True)
    hint = f"its options are [launch] slurm of {name}, and the lines of #SBATCH in {display(script)}"
    said = _ask(["sbatch", "--parsable", str(script), "--", *arguments], hint, env=environment)
    job = said.strip().splitlines()[-1].partition(";")[0] if said.strip() else ""
    if not job.isdecimal():
        raise ToolError(f"sbatch does not say which job it is: {said.strip()[:200]!a}")
    log = _log_of(job)
    write_atomically(folder / "slurm.json", json.dumps({"job": job, "log": log}) + "\n")
    begin(
        name,
        "train",
        arguments,
        store_name=evaluation.store_name,
        generation=0,
        script=[],
        script_path=evaluation.script,
        lock=evaluation.lock,
        project=entry.project_folder if entry.is_of_project else None,
        environment=environment,
        names=names,
        job=job,
        warn=report.warn,
    )
    report.step(f"{name} is job {job}; its log will be {display(Path(log))}" if log else f"{name} is job {job}")
    return job


def _log_of(job: str) -> str:
    """Where the output of a job goes, as an absolute path; empty where Slurm does not say."""
    found = re.search(r"^\s*StdOut=(/.*)$", _ask(["scontrol", "show", "job", job]), re.MULTILINE)
    return found[1] if found else ""


def status(name: str) -> dict[str, Any]:
    """Return the state of the job of `name` that was submitted last. Raises UsageError where there is none."""
    job, log = _last(name)
    found = _jobs_known([job]).get(job)
    if found is None:
        raise DrydockError(
            f"Slurm does not know job {job} of {name} any more",
            hint=f"its log: {log}" if log else "has the cluster no accounting? sacct",
        )
    return {"name": name, "job": job, "log": log, **found}


def describe(found: dict[str, Any]) -> Iterator[str]:
    """A status in words."""
    where = f" on {found['nodes']}" if found["nodes"] else ""
    why = f": {found['reason']}" if found["reason"] else ""
    yield f"{found['name']} is job {found['job']}, {found['state']}{why}, for {found['elapsed']}{where}"
    again = found["restarts"]
    ended = f"exit status {found['exit']}; " if found["over"] else ""
    yield f"  {ended}started again {plural(again, 'time')}; log: {found['log']}"


def log(name: str, *, follow: bool) -> Iterator[bytes]:
    """The log of the job of `name`; with `follow` its last lines, and new ones until the job is over.

    Raises UsageError where there is none, and DrydockError where it cannot be read here.
    """
    job, where = _last(name)
    path = Path(where)
    if not where or not path.is_file():
        raise DrydockError(
            f"the log of job {job} of {name} does not exist yet, or is not on this machine: {where}",
            hint=f"drydock run {name} --slurm --status",
        )
    with path.open("rb") as file:
        if follow:
            yield b"".join(line + b"\n" for line in runs.last_lines(path, 10))
            file.seek(0, os.SEEK_END)
        while True:
            over = not follow or _is_over(job)  # asked first: what is written before the end is still read
            while piece := file.read(64 * 1024):
                yield piece
            if over:
                return
            time.sleep(2)  # a controller is everybody's


def stop(name: str, say: Callable[[str], None]) -> None:
    """Cancel the job of `name`, and wait for its end. Raises DrydockError where it does not end."""
    job, _ = _last(name)
    if _is_over(job):
        say(f"{name} is not running: job {job} is over")
        return
    _ask(["scancel", job])
    until = time.monotonic() + _STOPPING
    while not _is_over(job):
        if time.monotonic() > until:
            raise DrydockError(f"job {job} has not ended after {_STOPPING:g} s", hint=f"squeue --jobs={job}")
        time.sleep(0.5)
    say(f"{name} is stopped: job {job} is cancelled")


def with_job_states(found: Sequence[Head]) -> list[Head]:
    """Runs with what Slurm knows of those that are its jobs: their states, and of those that are over their ends.

    It is asked once for all of them. Where it does not answer, they are as they were.
    """
    jobs = [head.job for head in found if head.job]
    if not jobs or shutil.which("squeue") is None:
        return list(found)
    try:
        known = _jobs_known(jobs, _GLANCE)
    except ToolError as error:
        log_.add(f"jobs are not asked for: {error}")
        return list(found)
    return [_with_job_state(head, known.get(head.job)) if head.job else head for head in found]


def _with_job_state(head: Head, known: dict[str, Any] | None) -> Head:
    if known is not None and not known["over"]:
        return head._replace(process={**(head.process or {}), "state": known["state"]})
    end: dict[str, Any] = {"time": None, "exit": None, "why": f"Slurm does not know job {head.job} any more"}
    if known is not None:
        # One that lost its node has 0 there too; one that was cancelled did not fail.
        is_own = known["state"] == "completed" or (known["exit"] and known["state"] != "cancelled")
        code = known["exit"] if is_own else None
        where = f" on {known['nodes']}" if known["nodes"] else ""
        end |= {"exit": code, "why": f"job {head.job} {known['state']} after {known['elapsed']}{where}"}
        end |= {"restarts": known["restarts"]}

    def close(record: records.Record) -> None:
        record["end"] = record["end"] or end

    with suppress(OSError, DrydockError):
        records.change(records.path_of(head.id), close)
    return head._replace(end={name: end[name] for name in ("time", "exit", "why")}, process=None)


def _last(name: str) -> tuple[str, str]:
    """The job of `name` that was submitted last, and its log."""
    found = state.read_json(runs.folder(name) / "slurm.json", {"job": str, "log": str})
    if not found or not found["job"].isdecimal():
        raise UsageError(f"no job of {name} was submitted from here", hint=f"drydock run {name} --slurm")
    return found["job"], found["log"]


def _is_over(job: str) -> bool:
    found = _jobs_known([job]).get(job)
    return found is None or bool(found["over"])


def _jobs_known(jobs: Sequence[str], patience: float = _PATIENCE) -> dict[str, dict[str, Any]]:
    """What Slurm knows of jobs, by their numbers: squeue, and of those that it has forgotten sacct."""
    found = _in_queue(jobs, patience)
    forgotten = [job for job in jobs if job not in found]
    return {**found, **_in_accounts(forgotten, patience)} if forgotten else found


def _in_queue(jobs: Sequence[str], patience: float) -> dict[str, dict[str, Any]]:
    """Jobs as squeue has them; those that are in the queue no more are left out."""
    columns = ",".join(f"{name}:{width}" for name, width in _COLUMNS.items())
    query = ["squeue", "--noheader", "--states=all", f"--jobs={','.join(jobs)}", f"--Format={columns}"]
    done = process.run(query, timeout=patience)
    if done.code and "Invalid job id" not in done.stderr:
        raise _failed("squeue", done.stderr)
    found = {}
    for line in done.stdout.splitlines() if not done.code else ():
        row, at = {}, 0
        for column, width in _COLUMNS.items():
            row[column], at = line[at : at + width].strip(), at + width
        found[row["JobID"]] = _as_found(
            row["State"],
            exit_code=_exit_status(row["exit_code"]),
            restarts=int(row["RestartCnt"]) if row["RestartCnt"].isdecimal() else 0,
            elapsed=row["TimeUsed"],
            nodes=row["NodeList"],
            reason=row["Reason"],
        )
    return found


def _exit_status(word: str) -> str:
    """The exit status, as of a shell, in what squeue has for a job: that of wait(2)."""
    if not word.isdecimal():
        return word
    waited = int(word)
    return str(128 + (waited & 0x7F) if waited & 0x7F else waited >> 8)


def _in_accounts(jobs: Sequence[str], patience: float) -> dict[str, dict[str, Any]]:
    """Jobs as sacct has them, each the last time it ran; without accounting none."""
    query = ["sacct", "--noheader", "--parsable2", "--allocations", "--duplicates", f"--jobs={','.join(jobs)}"]
    try:
        done = process.run([*query, "--format=JobID,State,ExitCode,Elapsed,NodeList"], timeout=patience)
    except ToolError:
        return {}
    found: dict[str, dict[str, Any]] = {}
    for line in done.stdout.splitlines() if not done.code else ():
        if line.count("|") == 4:
            job, name, exit_code, elapsed, nodes = line.split("|")
            again = found[job]["restarts"] + 1 if job in found else 0
            code = exit_code.partition(":")[0]
            found[job] = _as_found(name, exit_code=code, restarts=again, elapsed=elapsed, nodes=nodes, reason="")
    return found


def _as_found(name: str, *, exit_code: str, restarts: int, elapsed: str, nodes: str, reason: str) -> dict[str, Any]:
    """A state of a job in the same form, wherever it is from; sacct adds who has cancelled it."""
    word = name.partition(" ")[0]
    return {
        "state": word.lower(),
        "over": word in _OVER,
        "exit": int(exit_code) if exit_code.isdecimal() else None,
        "restarts": restarts,
        "elapsed": elapsed,
        "nodes": "" if nodes == "None assigned" else nodes,
        "reason": "" if reason == "None" else reason,
    }


def _ask(command: list[str], hint: str | None = None, **options: Any) -> str:
    """What a program of Slurm says. Raises ToolError where it fails, or is not there."""
    done = process.run(command, timeout=_PATIENCE, **options)
    if done.code:
        raise _failed(command[0], done.stderr, hint)
    return done.stdout


def _failed(program: str, words: str, hint: str | None = None) -> ToolError:
    last = words.strip().splitlines()[-1:] or ["it says nothing"]
    text = last[0].removeprefix(f"{program}: ").removeprefix("error: ")
    return ToolError(f"{program} failed: {text}", hint=hint or "does the cluster answer? sinfo")
