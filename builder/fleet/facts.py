"""What a host answers to a probe, as facts: text in, facts out. A host may say anything, but only of itself."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from builder.machine import Machine, linux, macos, nvidia, others

_STORE_NAME = re.compile(r"[0-9a-z]{32}-[a-z0-9.-]+")


@dataclass(frozen=True)
class Current:
    """The current generation of a profile on a host, by its stem; `script` is the sha256 of its run script.

    `python` and `files` describe its environment, "" where it is not there.
    """

    number: int
    store_name: str
    script: str
    python: str = ""
    files: str = ""


@dataclass(frozen=True)
class Host:
    """What a probe found. `clock` is how many seconds its clock is ahead of ours; sizes in bytes.

    `fleet` is the folder for what its user is sent.
    """

    machine: Machine
    user: str = ""
    home: str = ""
    store: str = ""
    fleet: str = ""
    clock: float = 0.0
    current: Mapping[str, Current] = field(default_factory=dict)
    generations: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    wheels: Mapping[str, frozenset[str]] = field(default_factory=dict)
    uv: frozenset[str] = frozenset()
    scripts: frozenset[str] = frozenset()
    archives: frozenset[str] = frozenset()
    """The sha256 of Pythons and trainers' code."""
    pythons: frozenset[str] = frozenset()
    """The series of Python that seem to be there, such as "3.11"."""


def host_of(marked: Sequence[str], now: float | None = None) -> Host | None:
    """From the lines of a probe; None where it is not complete."""
    words = _words(marked)
    if "end" not in words or "store" not in words:
        return None
    who = words.get("who", [""])[0].split()
    clock = int(who[1]) - (time.time() if now is None else now) if len(who) == 2 and who[1].isdecimal() else 0.0
    return Host(
        _machine(words),
        user=who[0][:64] if who else "",
        home=_path(words.get("home")),
        store=_path(words.get("store")),
        fleet=_path(words.get("fleet")),
        clock=clock,
        current=_current(words),
        generations=_generations(words.get("had", ())),
        pythons=frozenset(word for word in words.get("pythons", ()) if re.fullmatch(r"3\.\d{1,2}", word)),
        **_known(words),
    )


def known_again(host: Host, marked: Sequence[str]) -> Host:
    """A host after a build that failed, by its lines: what it has now."""
    return replace(host, **_known(_words(marked)))


def _words(marked: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in marked:
        word, _, rest = text.partition(" ")
        found.setdefault(word, []).append(rest)
    return found


def _known(words: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """What need not be sent."""
    return {
        "wheels": _wheels(words.get("wheels", ())),
        "uv": frozenset(words.get("uv", ())),
        "scripts": frozenset(words.get("script", ())),
        "archives": frozenset(words.get("archive", ())),
    }


def _path(found: Sequence[str] | None) -> str:
    path = found[0] if found else ""
    return path if path.startswith("/") and path.isprintable() and len(path) < 4096 else ""


def _machine(words: Mapping[str, Sequence[str]]) -> Machine:
    printed: dict[str, str] = {}
    for row in words.get("out", ()):
        name, _, line = row.partition(" ")
        printed[name] = printed.get(name, "") + f"{line}\n"
    system, machine, release = (*words.get("uname", [""])[0].split(" "), "", "", "")[:3]
    summary = printed.get("summary", "")
    gpus = nvidia.with_capabilities(nvidia.parse_gpus(printed.get("gpus", "")), printed.get("capabilities", ""))
    failed = "nvidia" in words and not nvidia.is_listing(printed.get("gpus", ""))
    found = Machine(
        system=system,
        machine=machine,
        disk_free=_free(printed.get("df", "")),
        gpus=None if failed else nvidia.with_memory_in_use(gpus, summary),
        driver=nvidia.parse_driver(summary),
        cuda=nvidia.parse_cuda(summary),
        others=others.parse_rocminfo(printed.get("rocminfo", "")),
    )
    if system == "Darwin":
        told = dict.fromkeys(macos.COMMANDS, "")
        told[macos.SYSCTL], told[macos.SW_VERS] = printed.get("sysctl", ""), printed.get("sw_vers", "")
        return replace(found, **macos.facts(machine, told))
    memory = linux.parse_meminfo(printed.get("meminfo", ""))
    return replace(
        found,
        os=linux.parse_os_release(printed.get("os", "")),
        glibc=linux.parse_glibc(printed.get("glibc", "").strip()),
        wsl=linux.is_wsl(release),
        chip=linux.parse_cpuinfo(printed.get("cpuinfo", "")),
        memory=memory.get("MemTotal"),
        memory_free=memory.get("MemAvailable"),
    )


def _free(text: str) -> int | None:
    """Bytes that are free, from what `df -Pk` prints.

    >>> _free("Filesystem 1024-blocks Used Available Capacity Mounted on\\n/dev/a 100 60 40 60% /\\n")
    40960
    """
    found = re.search(r" (\d{1,15}) +\d+% ", text)
    return int(found[1]) * 1024 if found else None


def _generations(rows: Sequence[str]) -> dict[str, dict[int, str]]:
    """The store name of each generation, by the stem of its profile."""
    found: dict[str, dict[int, str]] = {}
    for row in rows:
        match = re.fullmatch(r"([a-z0-9.-]{1,200})-(\d{1,9}) (\S+)", row)
        if match and _STORE_NAME.fullmatch(match[3]):
            found.setdefault(match[1], {})[int(match[2])] = match[3]
    return found


def _current(words: Mapping[str, Sequence[str]]) -> dict[str, Current]:
    pythons, files = (dict(row.partition(" ")[::2] for row in words.get(word, ())) for word in ("python", "files"))
    found = {}
    for row in words.get("now", ()):
        match = re.fullmatch(r"([a-z0-9.-]{1,200}) \1-(\d{1,9}) (\S+) ([0-9a-f]{64}|none)?", row)
        if match and _STORE_NAME.fullmatch(match[3]):
            name = match[3]
            python, digest = pythons.get(name, "")[:200], files.get(name, "")[:64]
            found[match[1]] = Current(int(match[2]), name, match[4] or "", python, digest)
    return found


def _wheels(rows: Sequence[str]) -> dict[str, frozenset[str]]:
    pairs = (row.split(" ") for row in rows)
    return {words[0]: frozenset(word for word in words[1:] if re.fullmatch("[0-9a-f]{16}", word)) for words in pairs}
