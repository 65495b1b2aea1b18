"""Run on a host, by an environment's Python: HOME STEM WAS NUMBER STORE_NAME SCRIPT.

It makes STORE_NAME the current generation of the profile STEM, as `builder.store.generations` does, where the current
one is still WAS: 0 for none, -1 for any. NUMBER is the generation to go to, -1 for none, 0 for a new one, which gets
SCRIPT for its own, a file in a folder that is called as its sha256. Hosts may share a store: where another one has made
the change, it is done.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import sys


def link(target: str, path: str) -> None:
    """Make a link, or replace it, in one step."""
    new = f"{os.path.dirname(path)}/.{os.path.basename(path)}.{os.getpid()}"
    os.symlink(target, new)
    os.replace(new, path)


def write(path: str, content: bytes) -> None:
    """Write an executable file, whole or not at all."""
    new = f"{os.path.dirname(path)}/.{os.path.basename(path)}.{os.getpid()}"
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o777), "wb") as file:  # less what the umask takes
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def current(profiles: str, stem: str) -> int:
    """The number of the current generation; 0 for none."""
    try:
        found = re.fullmatch(r".+-([0-9]+)-link", os.readlink(f"{profiles}/{stem}"))
    except OSError:
        return 0
    return int(found[1]) if found else 0


def new_number(profiles: str, stem: str) -> int:
    """A number that no generation ever had; whoever makes the file of its script has it."""
    numbers = re.findall(rf"^{re.escape(stem)}-([0-9]+)-link$", "\n".join(os.listdir(profiles)), re.MULTILINE)
    number = max(map(int, numbers), default=0) + 1
    while True:
        try:
            os.close(os.open(f"{profiles}/{stem}-{number}-run.sh", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o777))
        except FileExistsError:
            number += 1
        else:
            return number


def is_done(profiles: str, stem: str, here: int, store_name: str, script: str) -> bool:
    """Whether the current generation is this environment with this script, whose folder may be gone by that."""
    try:
        with open(f"{profiles}/{stem}-{here}-run.sh", "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        there = os.path.basename(os.readlink(f"{profiles}/{stem}-{here}-link"))
    except OSError:
        return False
    return there == store_name and digest == os.path.basename(os.path.dirname(script))


def switch(home: str, stem: str, was: int, number: int, store_name: str, script: str) -> str:
    """Make the change; returns what is wrong, "" for nothing."""
    profiles = f"{home}/profiles"
    os.makedirs(profiles, exist_ok=True)
    with open(f"{profiles}/.lock", "a", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        here = current(profiles, stem)
        if here == max(number, 0) if number else is_done(profiles, stem, here, store_name, script):
            return ""
        if was not in (here, -1):
            return f"generation {here} of {stem} is the current one, and was {was} a moment ago: who else deploys?"
        if number == -1:
            if here:
                os.unlink(f"{profiles}/{stem}")
            return ""
        if number == 0:
            with open(script, "rb") as file:
                content = file.read()
            there = os.path.basename(os.readlink(f"{profiles}/{stem}-{here}-link")) if here else ""
            if there == store_name:  # settings are not part of a key
                write(f"{profiles}/{stem}-{here}-run.sh", content)
                return ""
            number = new_number(profiles, stem)
            write(f"{profiles}/{stem}-{number}-run.sh", content)
            link(f"../store/{store_name}", f"{profiles}/{stem}-{number}-link")
        if not os.path.lexists(f"{profiles}/{stem}-{number}-link"):
            return f"{stem} has no generation {number}"
        link(f"{stem}-{number}-link", f"{profiles}/{stem}")
    return ""


if __name__ == "__main__":
    home, stem, was, number, store_name, script = sys.argv[1:]
    wrong = switch(home, stem, int(was), int(number), store_name, script)
    if wrong:
        sys.exit(f"drydock: error: {wrong}")
