"""Runs a trainer twice, one after the other, from the same start: same path, arguments and environment.

FOLDER/run        where it runs; new for each run, and called FOLDER/1 and FOLDER/2 afterwards
FOLDER/1.out      what the first run printed; 1.err, 2.out, 2.err

A path that a trainer prints or hashes is the same in both runs, because both had the same folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder import process, secrets
from builder.build.script import Script, build_script
from builder.errors import DrydockError, UsageError
from builder.profile.detect import Detect
from builder.profile.variables import Finding
from builder.profile.variables.determinism import causes
from builder.project.sources import consent
from builder.run.records import folder, rerun
from builder.run.records.gather import seeds, settings
from builder.run.replay.compare import STEP, Comparison, compare, lines
from builder.run.start import current_script
from builder.run.supervise.redact import Redactor
from builder.store import roots
from builder.store.layout import Store

if TYPE_CHECKING:
    from builder.profile.model import Profile
    from builder.project.catalogue import Catalogue
    from builder.report import Reporter

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
_NO_WEIGHTS = "training_args.bin"  # of transformers: it has the time, in the name of a folder of logs
_TIMES = ("first", "second")


@dataclass(frozen=True)
class Subject:
    """What is run twice: `script` with `arguments`, in `here`, or else where `bring` makes a new folder.

    `inside` is where in that it runs. `hint` is added where it fails. `steps` is how a line says which step it is of.
    `record` is that of the run that it is, if any.
    """

    name: str
    script: Script
    arguments: Sequence[str]
    here: Path | None = None
    bring: Callable[[Path], None] = Path.mkdir
    inside: Path = Path()
    hint: str = ""
    profile: Profile | None = None
    packages: frozenset[str] = frozenset()
    steps: str = STEP
    record: folder.Record | None = None


@dataclass(frozen=True)
class Replay:
    """What came of two runs: `weights` are the files that either has saved, `differing` those that are not the same.

    `folder` is where their output is, None where nothing was kept.
    """

    printed: Comparison
    weights: list[str]
    differing: list[str]
    causes: list[Finding] = field(default_factory=list)
    folder: Path | None = None

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return self.printed.difference is None and not self.differing

    def as_json(self) -> dict[str, Any]:
        """It in plain JSON types."""
        return {
            "same": self.same,
            "printed": asdict(self.printed),
            "weights": self.weights,
            "differing": self.differing,
            "causes": [
                {"name": one.name, "on": one.code, "message": one.message, "hint": one.hint, "source": one.source}
                for one in self.causes
            ],
            "folder": None if self.folder is None else str(self.folder),
        }


def of_profile(
    name: str, arguments: Sequence[str], catalogue: Catalogue, report: Reporter, *, here: bool = False
) -> Subject:
    """The trainer of a profile, whose environment is built first if needed; `here`: in the working directory."""
    script = current_script(name, catalogue, report)
    entry = catalogue.entry(name)
    profile, packages = entry.profile, frozenset[str]()
    with suppress(DrydockError):
        packages = frozenset(package.name for package in entry.lock.packages)
    here = here or needs_its_folder(profile)
    return Subject(
        name,
        script,
        arguments,
        Path.cwd() if here else None,
        hint="" if here else "; where it needs what is in the working directory: --here",
        profile=profile,
        packages=packages,
        steps=profile.bench.step if profile.bench is not None else STEP,
    )


def needs_its_folder(profile: Profile) -> bool:
    """Whether a trainer works on what is in the working directory: code, or a file that its profile names.

    The caller's arguments do not count: what they name may be what a run has written, and must not be overwritten.
    """
    trainer = profile.trainer
    command = trainer.command or ()
    modules = [word.replace(".", "/") for word in command]  # of python -m
    words = [word for word in trainer.arguments if isinstance(word, str)]
    return (
        profile.project is not None
        or (trainer.needs is not None and os.path.lexists(trainer.needs))
        or any(os.path.lexists(name) for name in (*command, *modules, *(f"{name}.py" for name in modules)))
        or any(Path(word.rpartition("=")[2]).is_file() for word in words)
    )


def of_run(word: str, place: Path, catalogue: Catalogue, report: Reporter) -> Subject:
    """What a recorded run was, with its code, for two new folders in `place`; its environment is built if needed.

    Raises DrydockError where something of it cannot be had.
    """
    again = rerun.prepare(word)
    record = again.record
    if again.lacks:
        raise DrydockError(
            f"run {record['id']} cannot be repeated as it was: {'; '.join(again.lacks)}",
            hint=f"to replay its profile, as it is now: drydock replay {record['name']}",
        )
    if record["command"] != "train":
        raise UsageError(f"run {record['id']} was of the command {record['command']}, and only a trainer is replayed")
    script = Script(again.script, consent.of_run(record["store-name"]), place / "run" / again.inside)
    if not Store.here().is_built(record["store-name"]):
        build_script(record["name"], script, report)
    roots.hold(record["store-name"])
    lock = folder.read_object((record.get("lock") or {}).get("object", "")) or b""
    packages = frozenset({"torch"}) if b'name = "torch"' in lock else frozenset[str]()
    profile = None
    with suppress(DrydockError):  # it may be gone, and is needed for the causes only
        profile = catalogue.entry(record["name"]).profile
    return Subject(
        record["name"],
        script,
        record["arguments"],
        bring=lambda target: rerun.bring(again, target),
        inside=again.inside,
        profile=profile,
        packages=packages,
        record=record,
    )


def new_folder(into: Path | None) -> Path:
    """A new folder for both runs: `into`, or else a temporary one. Raises UsageError where `into` exists."""
    if into is None:
        return Path(tempfile.mkdtemp(prefix="drydock-replay-")).resolve()
    try:
        into.mkdir(parents=True, mode=0o700)
    except FileExistsError:
        raise UsageError(f"{into} already exists", hint="move it away, or name another folder: --into") from None
    return into.resolve()


def replay(make: Callable[[Path], Subject], into: Path | None, report: Reporter) -> Replay:
    """Run what `make` returns for a new folder twice, and compare. A temporary folder is kept where they differ.

    Raises DrydockError where a run fails, with its exit status; then its output is kept.
    """
    place = new_folder(into)
    keep = False
    try:
        subject = make(place)
        if subject.here is not None:
            report.step(f"both run in {subject.here}, on what is there; so weights are not compared")
        record = subject.record
        of_record = None if record is None else rerun.environment_of(record, report)
        environment, names = of_record or secrets.environment(subject.arguments)

        def redacted(text: str) -> str:
            return secrets.redacted(text, environment, names)

        saved = []
        for number in (1, 2):
            with report.busy(f"run {number} of 2 of {subject.name}"):
                code, new = _run(subject, place, number, environment)
            if code:
                keep = True
                raise _failed(subject, place, number, code, redacted)
            saved.append(new)
        found = Replay(
            _compared(subject, place, redacted),
            sorted({*saved[0], *saved[1]}),
            sorted(name for name in {*saved[0], *saved[1]} if saved[0].get(name) != saved[1].get(name)),
            _causes(subject, environment),
        )
        if not found.printed.compared and not found.weights:
            raise DrydockError(
                f"there is nothing to compare: the trainer of {subject.name} has printed nothing and saved no weights"
            )
        keep = into is not None or not found.same
        return replace(found, folder=place if keep else None)
    finally:
        if keep:
            _hide(place, {name: environment[name] for name in names} | secrets.argument_secrets(subject.arguments))
        else:
            shutil.rmtree(place, ignore_errors=True)


def _hide(place: Path, hidden: Mapping[str, str]) -> None:
    """Replace secrets in the outputs that are kept, as a log has them."""
    for path in (place / f"{number}.{end}" for number in (1, 2) for end in ("out", "err")):
        with suppress(FileNotFoundError):
            redactor = Redactor(hidden)
            before = path.read_bytes()
            after = redactor.feed(before) + redactor.rest()
            if after != before:
                path.write_bytes(after)


def _compared(subject: Subject, place: Path, redacted: Callable[[str], str]) -> Comparison:
    """What both runs have printed, compared; what is shown of it has no secrets."""
    first, second = ([(place / f"{number}.{end}").read_bytes() for end in ("out", "err")] for number in (1, 2))
    losses = subject.profile.supervise.losses if subject.profile is not None else {}
    found = compare(first, second, subject.steps, losses)
    if (one := found.difference) is None:
        return found
    shown: dict[str, Any] = {
        name: text and redacted(text) for name, text in (("first", one.first), ("second", one.second))
    }
    return replace(found, difference=replace(one, **shown))


def _run(subject: Subject, place: Path, number: int, environment: dict[str, str]) -> tuple[int, dict[str, str]]:
    """Run it once: its exit status, and the weights that it has saved in its new folder."""
    new = place / "run"
    before = {}
    if subject.here is None:
        subject.bring(new)
        before = weights(new)  # of the code
    where = subject.here or new / subject.inside
    code = process.run_into(
        subject.script.command("--", *subject.arguments),
        env={**environment, "PWD": str(where)},
        cwd=where,
        stdout=place / f"{number}.out",
        stderr=place / f"{number}.err",
    )
    if subject.here is not None:
        return code, {}
    new.rename(place / str(number))
    saved = weights(place / str(number))
    return code, {name: digest for name, digest in saved.items() if before.get(name) != digest}


def _failed(subject: Subject, place: Path, number: int, code: int, redacted: Callable[[str], str]) -> DrydockError:
    last = ""
    for end in ("out", "err"):  # the last words of stderr, else of stdout
        last = (lines((place / f"{number}.{end}").read_bytes()) or [last])[-1]
    words = f": {redacted(last)}" if last else ""
    error = DrydockError(
        f"the {_TIMES[number - 1]} run ended with exit status {code}{words}",
        hint=f"its output is {place / str(number)}.out and .err{subject.hint}",
    )
    error.exit_code = code
    return error


def weights(place: Path) -> dict[str, str]:
    """The files of weights below a folder, by their path in it, with their sha256."""
    found = {}
    for top, folders, files in os.walk(place):
        folders[:] = [name for name in folders if name != ".git"]
        for name in files:
            path = Path(top, name)
            if name.endswith(_WEIGHTS) and name != _NO_WEIGHTS and path.is_file():
                with path.open("rb") as file:
                    found[str(path.relative_to(place))] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _causes(subject: Subject, environment: dict[str, str]) -> list[Finding]:
    asked = process.run(subject.script.command("--print-env"), env=environment)
    made = (settings(asked.stdout, {}) if asked.code == 0 else None) or {"set": {}, "unset": []}
    env = {name: value for name, value in environment.items() if name not in made["unset"]} | made["set"]
    profile = subject.profile
    detected = () if profile is None else [name for name, one in profile.env.items() if _is_detected(one)]
    return causes(
        env,
        packages=subject.packages,
        detected=detected,
        seeded=bool(seeds(subject.arguments, {})),
        accelerator=None if profile is None else profile.target.accelerator,
    )


def _is_detected(setting: Any) -> bool:
    return any(isinstance(value, Detect) for value in (setting.value, setting.default))
