"""Generations: which environment a profile stands for on this machine, and those it stood for before.

As Nix has them (nix-env --rollback, libstore/profiles.cc): numbered links in $DRYDOCK_HOME/profiles, of which NAME
names the current one. Each keeps the run script that it was built with, so that going back brings back the settings.

    profiles/cpu -> cpu-2-link
    profiles/cpu-2-link -> ../store/KEY-cpu
    profiles/cpu-2-run.sh
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from builder.embedded import claim, state
from builder.embedded.folders import share
from builder.errors import DrydockError, UsageError
from builder.files import is_being_written, is_beside, link_atomically, make_folder, write_atomically
from builder.names import is_reference, of_stem, stem
from builder.store.layout import Store


class Generation(NamedTuple):
    """One generation of the profile `name`; `store_name` is KEY-NAME, `created` the time it was made."""

    name: str
    number: int
    store_name: str
    created: datetime
    current: bool

    @property
    def script(self) -> Path:
        """The run script that it was built with."""
        return _script(self.name, self.number)

    @property
    def text(self) -> str | None:
        """What that script says; None where it is not there."""
        return state.read_text(self.script, state.LARGE)

    @property
    def key(self) -> str:
        """The key of its environment."""
        return self.store_name.partition("-")[0]


class Added(NamedTuple):
    """The generation that a profile had before, None where it had none, and the one that it has now."""

    before: Generation | None
    generation: Generation


def generations(name: str) -> list[Generation]:
    """All generations of a profile, oldest first. Raises UsageError for what is no name."""
    stem(name)
    return sorted(_all(name), key=lambda one: one.number)


def of_store_name(store_name: str) -> list[Generation]:
    """The generations, of any profile, that need an environment."""
    return [one for one in _all() if one.store_name == store_name]


def every() -> list[Generation]:
    """The generations of all profiles."""
    return list(_all())


def current(name: str) -> Generation | None:
    """The generation that `drydock run NAME` uses; None where the profile was never built."""
    number = _current_number(name)
    return None if number is None else _read(name, number, number)


def link(name: str) -> Path:
    """The path that always leads to the current generation of `name`, where there is one."""
    return _folder() / stem(name)


def _numbered_link(name: str, number: int) -> Path:
    return _folder() / f"{stem(name)}-{number}-link"


def _script(name: str, number: int) -> Path:
    return _folder() / f"{stem(name)}-{number}-run.sh"


def roots() -> set[str]:
    """The store names that any generation of any profile needs."""
    return {one.store_name for one in _all()}


def unfinished() -> Iterator[Path]:
    """The scripts of numbers whose generation was never made: its maker was killed."""
    for path in _folder().glob("*-run.sh"):
        if not os.path.lexists(path.with_name(f"{path.name.removesuffix('-run.sh')}-link")):
            yield path


def unknown() -> Iterator[Path]:
    """What lies among the generations and is not Drydock's."""
    stem = r"[a-z0-9-]+(\.[a-z0-9-]+)?"
    there = _folder().iterdir() if _folder().is_dir() else ()
    for path in sorted(there):
        ours = rf"\..+\.[0-9]+|{stem}" if path.is_symlink() else rf"\.lock|\..+\.[0-9]+|{stem}-[0-9]+-run\.sh"
        if not re.fullmatch(ours, path.name) or not (path.is_symlink() or path.is_file()):
            yield path


def add(name: str, store_name: str, script: str) -> Added:
    """Make `store_name` the current generation of `name`.

    A new one is made only where the key differs from the current one's; else that one gets the new `script`, for
    settings are not part of a key.
    """
    here = current(name)
    if here is not None and here.store_name == store_name and here.text == script:
        return Added(here, here)  # the common case, also in a store that cannot be written to
    with _locked():
        here = current(name)
        if here is None or here.store_name != store_name:
            return Added(here, _make(name, store_name, script))
        write_atomically(here.script, script, executable=True)
        return Added(here, here)


def _make(name: str, store_name: str, script: str) -> Generation:
    """A new generation, which becomes the current one."""
    top = link(name)
    if top.is_dir() and not top.is_symlink():
        raise DrydockError(f"{top} is a folder, and no link of Drydock's", hint="move it away, then build again")
    number = _new_number(name, script)
    numbered = _numbered_link(name, number)
    link_atomically(f"../store/{store_name}", numbered)
    link_atomically(numbered.name, top)
    return Generation(name, number, store_name, datetime.now(UTC), current=True)


def _new_number(name: str, script: str) -> int:
    """A number that no generation ever had, with the script that is to be its own.

    Whoever makes the file has the number (POSIX, O_EXCL): also where a file system has no locks, or keeps them from
    other machines (nfs(5), `local_lock`).
    """
    number = max(_numbers(name), default=0) + 1
    while True:
        path = _script(name, number)
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
        except FileExistsError:
            number += 1
            continue
        try:
            write_atomically(path, script, executable=True)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return number


def numbered(name: str, number: str) -> Generation:
    """Generation `number` of `name`, as a user writes it. Raises UsageError where there is none."""
    known = generations(name)
    found = next((one for one in known if str(one.number) == number), None)
    if found is None:
        numbers = ", ".join(str(one.number) for one in known)
        hint = f"it has: {numbers}" if known else f"a build makes one: drydock build {name}"
        raise UsageError(f'{name} has no generation "{number}"', hint=hint)
    return found


def switch(name: str, number: int) -> Generation:
    """Make generation `number` the current one. Raises UsageError where there is none."""
    with _locked():
        chosen = _read(name, number, _current_number(name))
        if chosen is None:
            known = ", ".join(str(one.number) for one in generations(name)) or "none"
            raise UsageError(f"{name} has no generation {number}", hint=f"it has: {known}")
        link_atomically(_numbered_link(name, number).name, link(name))
        return chosen


def rollback(name: str) -> Generation:
    """Go back to the generation before the current one. Raises UsageError where there is nothing before it."""
    here = _current_number(name) or 0
    before = [number for number in _numbers(name) if number < here]
    if not before:
        raise UsageError(f"{name} has no generation before the current one", hint=f"drydock generation list {name}")
    return switch(name, max(before))


def delete(name: str, which: Sequence[str], *, now: float | None = None) -> list[Generation]:
    """Delete generations: numbers, `old` (all but the current one), or an age such as `30d`; gives those deleted.

    The environments stay until `drydock store gc`. Raises UsageError for the current one, and for what is not there;
    nothing is deleted then.
    """
    with _locked():
        chosen = _chosen(name, which, time.time() if now is None else now)
        for one in chosen:
            _numbered_link(name, one.number).unlink()
            one.script.unlink(missing_ok=True)
        return chosen


def _chosen(name: str, which: Sequence[str], now: float) -> list[Generation]:
    there = {one.number: one for one in generations(name)}
    chosen: dict[int, Generation] = {}
    for word in which:
        if word == "old":
            chosen |= {number: one for number, one in there.items() if not one.current}
        elif age := re.fullmatch(r"([0-9]+)d", word):
            before = datetime.fromtimestamp(now, UTC) - timedelta(days=int(age[1]))
            chosen |= {number: one for number, one in there.items() if not one.current and one.created < before}
        elif word.isdecimal() and int(word) in there:
            chosen[int(word)] = there[int(word)]
        else:
            raise UsageError(f"{name} has no generation {word}", hint="give numbers, old, or an age such as 30d")
    for one in chosen.values():
        if one.current:
            hint = f"switch to another first: drydock generation switch {name} N"
            raise UsageError(f"generation {one.number} of {name} is the current one", hint=hint)
    return [chosen[number] for number in sorted(chosen)]


def _folder() -> Path:
    return Store.here().profiles


def _numbers(name: str) -> list[int]:
    """The numbers of the generations of a profile, in no order."""
    start = f"{stem(name)}-"
    entries = [path.name for path in _folder().glob(f"{start}*-link")]
    return [int(entry[len(start) : -5]) for entry in entries if entry[len(start) : -5].isdecimal()]


def _all(only: str | None = None) -> Iterator[Generation]:
    """Every generation, or those of one profile."""
    try:
        entries = [path.name for path in _folder().iterdir()]
    except FileNotFoundError:
        return
    numbers: dict[str, int | None] = {}
    for entry in entries:
        if link := re.fullmatch(r"(.+)-([0-9]+)-link", entry):
            name = of_stem(link[1])
            if not is_reference(name) or (only is not None and name != only):
                continue
            if name not in numbers:
                numbers[name] = _current_number(name)
            one = _read(name, int(link[2]), numbers[name])
            if one is not None:
                yield one


def _current_number(name: str) -> int | None:
    try:
        found = re.fullmatch(r".+-([0-9]+)-link", str(link(name).readlink()))
    except OSError:
        return None
    return int(found[1]) if found else None


def _read(name: str, number: int, now_current: int | None) -> Generation | None:
    link = _numbered_link(name, number)
    try:
        store_name = link.readlink().name
        created = datetime.fromtimestamp(link.lstat().st_mtime, UTC)
    except OSError:
        return None  # deleted since it was listed
    return Generation(name, number, store_name, created, number == now_current)


@contextmanager
def _locked() -> Iterator[None]:
    """One change at a time. The kernel drops the lock with its holder, however that ends.

    On a file system without locks everybody goes on: each step is whole by itself.
    """
    make_folder(_folder())
    lock = _opened(_folder() / ".lock")
    try:
        claim.lock(lock, wait=True)
        for left in _folder().glob(".*"):
            # Of a dead process; one of another machine that writes now does not take a minute.
            if is_beside(left) and not is_being_written(left):
                with suppress(OSError):
                    left.unlink()
        yield
    finally:
        os.close(lock)


def _opened(path: Path) -> int:
    flags = os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, os.O_RDWR | flags, 0o644)
    except PermissionError:  # another member's, of a store that was not shared from the start
        return os.open(path, os.O_RDONLY | flags, 0o644)
    with suppress(OSError):
        share(path)
    return descriptor
