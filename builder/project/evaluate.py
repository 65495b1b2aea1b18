"""From a profile's name to its run script and key, remembered (Nix calls this an evaluation cache).

Reading, checking and rendering a profile takes a few tenths of a second, mostly imports; asking whether any of the
files that it was made from has changed takes a few milliseconds. Nothing of pydantic or Jinja is imported for that.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from builder.embedded import state
from builder.errors import DrydockError
from builder.files import states, write_atomically
from builder.resources import shipped
from builder.store.layout import home

try:  # what hashlib has too, which loads all of OpenSSL for others: 2 ms
    from _blake2 import blake2b
except ImportError:
    from hashlib import blake2b

if TYPE_CHECKING:
    from builder.project.catalogue import Catalogue, Entry
    from builder.script.plan import Plan


class Evaluation(NamedTuple):
    """What a profile comes to: the name of its store path, the run script that builds and runs it, and its lock.

    `content` is the digest of what sources have a part in it with, for builder.project.sources.consent; None where none
    has. `inputs` are the digests of the files that it is made from, and `outline` is what builder.lock.outline reads.
    """

    store_name: str
    script: Path
    lock: Path
    content: str | None
    inputs: Mapping[str, str | None]
    outline: object

    @property
    def locked(self) -> dict[str, Any]:
        """What that lock says, unchecked."""
        import tomllib  # here, because most runs find all as it is

        return tomllib.loads(self.lock.read_text(encoding="utf-8"))


def evaluate(name: str, catalogue: Catalogue) -> Evaluation:
    """Evaluate the profile `name`, or remember it.

    Raises ProfileError, LockError or SourceError.
    """
    found = remembered(name, catalogue)
    if found is None:
        entry = catalogue.entry(name)
        entry.evaluation = found = _evaluate(entry, _memory(name))
    return found


def remembered(name: str, catalogue: Catalogue) -> Evaluation | None:
    """The evaluation of the profile `name` as it is now, where there was one; None where it has to be evaluated.

    Raises UsageError where there is no home, and ProfileError where there is no such profile.
    """
    entry = catalogue.entry(name)
    if entry.evaluation is None:
        entry.evaluation = _recall(_memory(name), catalogue)
    return entry.evaluation


def _memory(name: str) -> Path:
    return home() / "cache" / "evaluations" / f"{_digest(_context(name))}.json"


def identity(entry: Entry) -> str:
    """The digest of all that decides what is rendered from a profile. Raises ProfileError or LockError."""
    if entry.evaluation is not None:
        inputs = entry.evaluation.inputs
    else:
        _ = entry.plan  # reads what it is made from
        inputs = _inputs(entry)
    return _digest(json.dumps([_context(entry.name), inputs], sort_keys=True))


def write_script(plan: Plan) -> tuple[Path, str]:
    """Render the run script of a plan, and keep it; returns its file and its text. Raises DrydockError."""
    from builder.project.carried import carried
    from builder.script.templates import rendered_run_script

    text = rendered_run_script(plan, carried(remember=True))
    script = home() / "cache" / "scripts" / _digest(text)[:16] / plan.profile.run_script
    try:
        write_atomically(script, text, executable=True)
    except OSError as error:
        raise _unwritable(error) from None
    return script, text


def _unwritable(error: OSError) -> DrydockError:
    return DrydockError(
        f"{home()} cannot be written: {error.strerror}", hint="set DRYDOCK_HOME to a folder of your own"
    )


def _evaluate(entry: Entry, memory: Path) -> Evaluation:
    plan, content, outline = entry.plan, entry.content, _outline(entry)
    inputs = _inputs(entry)
    lock = entry.lock_path.absolute()
    script, text = write_script(plan)
    record = {
        "store_name": plan.store_name,
        "script": str(script),
        "lock": str(lock),
        "digest": _digest(text),
        "content": content,
        "inputs": inputs,
        "outline": outline,
        "folders": entry.folders,
    }
    try:
        if all(was for _, was, *_ in entry.folders):
            write_atomically(memory, json.dumps(record, indent=1))
    except OSError as error:
        raise _unwritable(error) from None
    return Evaluation(plan.store_name, script, lock, content, inputs, outline)


def _outline(entry: Entry) -> object:
    """The outline of a profile; nothing where it depends on more than an evaluation does: on the trainer's code."""
    from builder.lock.outline import dump

    return dump(entry.outline) if entry.profile.determinism is None else None


def _recall(memory: Path, catalogue: Catalogue) -> Evaluation | None:
    record: Mapping[str, Any] | None = state.read_json(memory, _RECORD)
    if record is None:
        return None
    try:
        if any(_digest_bytes(catalogue.content(Path(path))) != digest for path, digest in record["inputs"].items()):
            return None
    except DrydockError:
        return None
    if _digest_bytes(state.read_bytes(record["script"], state.LARGE, follow=True)) != record["digest"]:
        return None
    if record["folders"] and not _are_same(record["folders"]):
        return None
    found = (record["content"], record["inputs"], record["outline"])
    return Evaluation(record["store_name"], Path(record["script"]), Path(record["lock"]), *found)


def _are_same(folders: Sequence[Sequence[str]]) -> bool:
    from builder.project.folders import are_same  # most profiles need none

    return are_same(folders)


_RECORD = {
    "store_name": str,
    "script": str,
    "digest": str,
    "lock": str,
    "content": (str, None),
    "inputs": {str: (str, None)},
    "outline": object,  # looked at by those who ask for it
    "folders": [[str]],
}


def _inputs(entry: Entry) -> dict[str, str | None]:
    return {str(path): _digest_bytes(found) for path, found in entry.seen.items()}


def _context(name: str) -> str:
    """What decides an evaluation besides the files it reads: where they are looked for, and Drydock's own code."""
    package = Path(__file__).parents[1]
    code = {state for folder in (package, shipped("templates")) for state in states(folder)}
    return json.dumps([name, os.getcwd(), os.environ.get("DRYDOCK_PROFILES"), sorted(code)])


def _digest(text: str) -> str:
    """Of 32 bytes, in hexadecimal; BLAKE2b, as it takes a fourth of the time of SHA-256 without OpenSSL."""
    return blake2b(text.encode(), digest_size=32).hexdigest()


def _digest_bytes(content: bytes | None) -> str | None:
    return None if content is None else blake2b(content, digest_size=32).hexdigest()
