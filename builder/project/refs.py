"""What a user names to have it compared: a profile, a generation, a lock file, or a lock in a revision of git."""

from __future__ import annotations

import os
import shlex
import tomllib
from pathlib import Path

from builder import process
from builder.embedded import git
from builder.embedded.errors import StageError
from builder.errors import DrydockError, LockError, ToolError, UsageError, Where
from builder.files import display, is_there, read_regular
from builder.lock.diff import Side, side_of_lock, side_of_manifest, side_of_profile
from builder.lock.model import Lock, check_fresh, parse
from builder.names import is_reference, split
from builder.profile.toml_lines import loads
from builder.project.catalogue import Catalogue, Entry
from builder.report import Reporter
from builder.store import generations
from builder.store.layout import Store

FORMS = "name a profile (cpu), a generation (cpu@2), a lock file, or a lock in git (HEAD~1:cpu)"

# Nothing of a repository's own may run: no monitor, hook, pager, converter, or transport that fetches what is missing.
_GIT = ["git", "--no-pager", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"]
_SHOW = ["show", "--no-textconv", "--no-ext-diff", "--no-show-signature", "--no-color"]


def side(word: str, catalogue: Catalogue, report: Reporter) -> Side:
    """What `word` names: NAME, NAME@N, a path, or REV:NAME, looked at in this order.

    Raises DrydockError: ProfileError, LockError, UsageError or ToolError, by what is wrong.
    """
    if _is_profile(word, catalogue):
        return _profile(catalogue.entry(word), report)
    name, mark, number = word.rpartition("@")
    if mark and _is_profile(name, catalogue):
        return _generation(word, name, number)
    if is_there(Path(word)):
        return _file(word)
    revision, colon, name = word.rpartition(":")
    if colon:
        return _revision(word, revision, catalogue.entry(name))
    if "/" in word or "." in word:
        raise UsageError(f"{word} does not exist", hint=FORMS)
    catalogue.path(word)  # says what the name is like
    raise UsageError(f'"{word}" cannot be compared', hint=FORMS)


def _is_profile(word: str, catalogue: Catalogue) -> bool:
    """Whether it is the name of a profile: before a colon is a source, then, and not a revision of git."""
    source = split(word)[0]
    return is_reference(word) and (not source or source in catalogue.project.declared)


def _profile(entry: Entry, report: Reporter) -> Side:
    profile, lock = entry.profile, entry.lock
    try:
        check_fresh(lock, profile, entry.texts, display(entry.lock_path))
    except LockError as error:
        report.warn(f"{error.message}: {error.hint}")
    return side_of_profile(entry.name, profile, lock)


def _generation(word: str, name: str, number: str) -> Side:
    one = generations.numbered(name, number)
    env = Store.here().path(one.store_name)
    hint = f"build it again: sh {shlex.quote(display(one.script))} --build-only"
    try:
        return side_of_manifest(word, Store.here().manifest(one.store_name))
    except StageError as error:
        where = Where(str(env / ".drydock" / "manifest.json"))
        if not env.exists():
            raise DrydockError(f"the environment of {word} is not in the store", hint=hint, where=where) from None
        raise DrydockError(f"the manifest of {word} is damaged: {error}", hint=hint, where=where) from None
    except (ValueError, KeyError, TypeError, AttributeError):  # sealed by us, and of another format
        raise DrydockError(f"the manifest of {word} is of another format", hint=hint) from None


def _file(word: str) -> Side:
    try:
        text = read_regular(Path(word)).decode("utf-8")
    except UnicodeDecodeError:
        raise LockError("this is not a lock: not UTF-8", hint=FORMS, where=Where(word)) from None
    except OSError as error:
        raise LockError(f"cannot be read: {error.strerror}", hint=FORMS, where=Where(word)) from None
    return side_of_lock(word, "lock", _parsed(text, word))


def _revision(word: str, revision: str, entry: Entry) -> Side:
    """The lock of a profile as a revision of git has it."""
    if not revision or revision.startswith("-"):
        raise UsageError(f'"{revision}" is not a revision of git', hint="write it as HEAD~1:cpu")
    path = entry.lock_path.resolve()
    environ = {key: value for key, value in os.environ.items() if key not in git.PLACES}
    # An older git knows no GIT_NO_LAZY_FETCH; without a transport it fetches nothing either.
    environ |= {"GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "none", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    # ./ is the folder of the profile, wherever the root of the repository is (gitrevisions(7)).
    try:
        done = process.run([*_GIT, "-C", str(path.parent), *_SHOW, f"{revision}:./{path.name}"], env=environ)
    except ToolError as error:
        raise ToolError(error.message, hint="a lock in a revision is read with git") from None
    if done.code:
        said = done.stderr.strip().splitlines() or ["git does not say why"]
        raise ToolError(
            f"there is no {word}: {said[0].removeprefix('fatal: ')}",
            hint=f"where its lock changed: git log --oneline -- {display(path)}",
        )
    return side_of_lock(word, "revision", _parsed(done.stdout, word))


def _parsed(text: str, place: str) -> Lock:
    """A lock of whichever profile it says that it is of."""
    try:
        name = str(loads(text).get("profile", ""))
    except tomllib.TOMLDecodeError:
        name = ""  # for `parse` to explain
    try:
        return parse(text, place, name)
    except LockError as error:
        raise LockError(error.message, hint="give a lock as `drydock lock` writes it", where=error.where) from None
