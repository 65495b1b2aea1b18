"""Runs for people: a line each for a list, and all that matters of one."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from builder.embedded.words import printable
from builder.report import span
from builder.run.records.data import labels
from builder.run.records.folder import Head, Record

HEADINGS = ("RUN", "PROFILE", "STATE", "TOOK", "LOSS", "TAGS AND NOTE")

INDENT = 15
"""The columns before what is said of a run."""

STOPPED = "stopped"
"""Why a run ended whose user asked for it: `drydock run NAME --stop` (builder/run/supervise/stop.py)."""


def rows(found: Sequence[Head]) -> list[tuple[str, ...]]:
    """Of each run what stands below `HEADINGS`."""
    return [
        (one.id, printable(_name(one)), _state(one), _lasted(one.started, one.end), _loss(one), _marks(one))
        for one in found
    ]


def _name(head: Head) -> str:
    return head.name if head.command in ("train", "") else f"{head.name} {head.command}"


def _state(head: Head) -> str:
    if head.state != "ended" or head.end is None:
        return f"{head.state} (job {head.job})" if head.job else head.state
    code = head.end["exit"]
    if code and head.end["why"] == STOPPED:
        return STOPPED
    return "ended" if code is None else "done" if code == 0 else f"failed ({code})"


def _loss(head: Head) -> str:
    return next((f"{name} {last:g}" for name, last in (head.losses or {}).items()), "")


def _marks(head: Head) -> str:
    return " ".join(
        filter(None, [*(f"[{printable(tag)}]" for tag in head.tags), printable(head.note.partition("\n")[0])])
    )


def _lasted(started: str, end: dict[str, Any] | None) -> str:
    if end is None or not end["time"]:
        return ""
    try:
        seconds = (datetime.fromisoformat(end["time"]) - datetime.fromisoformat(started)).total_seconds()
    except (ValueError, TypeError):
        return ""
    return span(seconds) if seconds >= 0 else "the clock was set back"


def describe(record: Record, head: Head) -> Iterator[str]:
    """All that matters of a run, for people."""
    end = record["end"] or head.end
    verb = ["service", "install"] if _is_service(record) else ["run"]
    words = shlex.join(["drydock", *verb, record["name"], *_words(record)])
    yield f"{record['id']}  {printable(words)}"
    why = f": {end['why']}" if end and end["why"] not in ("", _state(head)) else ""
    yield from _field("state", _state(head) + why)
    yield from _field("started", f"{record['started']}{_after(_lasted(record['started'], end))}")
    yield from _field("repeats", record.get("of"))
    yield from _field("in", record.get("folder"))
    yield from _field("hosts", ", ".join((record.get("fleet") or {}).get("hosts", ())))
    yield from _field("environment", f"{record['store-name']}{_generation(record)}")
    yield from _field("Drydock", record.get("drydock"))
    yield from _code(record.get("code"))
    for name, label in labels(record.get("data") or ()).items():
        yield from _field("data", f"{name}: {label}")
    yield from _machine(record.get("machine"))
    yield from _settings(record.get("environment"))
    yield from _field("seeds", ", ".join(f"{name} {value}" for name, value in (record.get("seeds") or {}).items()))
    yield from _end(end)
    yield from _field("tags", " ".join(record["tags"]))
    yield from _field("note", record["note"])


def _generation(record: Record) -> str:
    return f" (generation {record['generation']})" if record.get("generation") else ""


def _is_service(record: Record) -> bool:
    """Whether a host of a fleet ran it by itself, without a desk."""
    return bool((record.get("fleet") or {}).get("service"))


def _words(record: Record) -> list[str]:
    command = [] if record["command"] == "train" else [record["command"]]
    supervised = ["--supervise"] if record.get("supervised") and not _is_service(record) else []
    supervised += ["--slurm"] if record["process"].get("job") else []
    supervised += ["--on", record["fleet"]["name"]] if record.get("fleet") else []
    return [*command, *supervised, *(["--", *record["arguments"]] if record["arguments"] else [])]


def _after(text: str) -> str:
    return f", {text}" if text else ""


def _field(name: str, value: Any) -> Iterator[str]:
    if value:
        yield f"  {name + ':':{INDENT - 2}}{printable(str(value))}"


def _code(code: Any) -> Iterator[str]:
    if not isinstance(code, dict):
        return
    if code.get("commit"):
        branch = code.get("branch") or "no branch"
        state = f", in the middle of a {code['under-way']}" if code.get("under-way") else ""
        yield from _field("code", f"{code['commit']} ({branch}{state}), {_differs(code)}")
    if code.get("why"):
        yield from _field("code", f"not known: {code['why']}")


def _differs(code: dict[str, Any]) -> str:
    if not code.get("differs"):
        return "as committed"
    untracked = [one for one in code["untracked"] if not one.get("late")]
    counts = [f"{len(code['changed'])} changed", f"{len(untracked)} untracked"]
    kept = code.get("difference") or {}
    how = "kept" if kept.get("object") and kept.get("complete") and not kept.get("redacted") else "kept in part"
    return f"{', '.join(counts)} ({how if kept.get('object') else 'not kept: ' + str(kept.get('why', 'no commit'))})"


def _machine(machine: Any) -> Iterator[str]:
    if isinstance(machine, dict):
        gpus = [one["name"] for one in [*(machine["gpus"] or ()), *machine["others"]]]
        memory = f"{machine['memory'] / 2**30:.0f} GB" if machine["memory"] else ""
        facts = (machine["host"], machine["os"], machine["chip"], memory, *gpus)
        yield from _field("machine", ", ".join(filter(None, facts)))


def _settings(found: Any) -> Iterator[str]:
    if isinstance(found, dict):
        paths = ("PATH", "VIRTUAL_ENV", "PYTHONNOUSERSITE")
        words = [f"{name}={shlex.quote(value)}" for name, value in found["set"].items() if name not in paths]
        yield from _field("settings", " ".join(words))
        exported = (found.get("exported") or {}).items()
        yield from _field("exported", " ".join(f"{name}={shlex.quote(value)}" for name, value in exported))


def _end(end: dict[str, Any] | None) -> Iterator[str]:
    for name, one in ((end or {}).get("losses") or {}).items():
        if one["last"] is not None:
            words = f"{one['first']:g} -> {one['last']:g}, lowest {one['lowest']:g}, {one['count']} printed"
            yield from _field(name, words + (f", {one['not-finite']} not finite" if one["not-finite"] else ""))
    used = (end or {}).get("used")
    if used and used.get("samples") != 1:  # that at its start says nothing
        yield from _field("used", f"{used['resident'] / 1e6:.0f} MB at most, {used['cores']:g} cores on average")
    if end and end.get("restarts"):
        yield from _field("restarts", end["restarts"])
