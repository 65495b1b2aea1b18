"""A generated script as Drydock runs it: what it says becomes steps, errors and hints."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from builder.consent import Consent
from builder.embedded import state
from builder.errors import BuildError, DrydockError
from builder.project.evaluate import evaluate
from builder.project.sources import consent
from builder.report import Meter, waiting
from builder.store import layout

if TYPE_CHECKING:
    from builder.project.catalogue import Catalogue
    from builder.report import Reporter
    from builder.store.generations import Generation

_SH = "/bin/sh"
_PROJECT = "DRYDOCK_PROJECT"  # templates/_project.sh.j2
_PROGRESS = r"drydock: ~(\d+) (\d+) ([01]) (.+)"  # builder/embedded/progress.py


class Script(NamedTuple):
    """A generated script that may be run: it builds what others wrote, proves it, and starts their trainer."""

    path: Path
    consent: Consent
    project: Path | None = None
    """The folder that the code of a profile's own project is in; scripts by themselves look for it around them."""

    def command(self, *arguments: str) -> list[str]:
        """Return the command that runs it."""
        return [*self._project, _SH, str(self.path), *arguments]

    def around(self, code: str, *arguments: str) -> list[str]:
        """Return the command that runs `code` of ours, which gets the script as its first argument."""
        return [*self._project, _SH, "-c", code, "sh", str(self.path), *arguments]

    @property
    def _project(self) -> list[str]:
        """What says where the project is, to a script that asks."""
        asks = self.project is not None and _PROJECT in (state.read_text(self.path, state.LARGE, follow=True) or "")
        return ["/usr/bin/env", f"{_PROJECT}={self.project}"] if asks else []


def script_of(name: str, catalogue: Catalogue) -> Script:
    """Return the script that the profile `name` comes to. Raises ConsentError where nobody has agreed to run it."""
    evaluation = evaluate(name, catalogue)
    return Script(evaluation.script, consent.check(name, evaluation.content), _project_of(name, catalogue))


def script_of_generation(one: Generation, name: str, catalogue: Catalogue) -> Script:
    """Return the script that a generation of the profile `name` was built with."""
    return Script(one.script, consent.of_environment(one.store_name), _project_of(name, catalogue))


def _project_of(name: str, catalogue: Catalogue) -> Path | None:
    """The folder of the project that a profile is of; None where there is no such profile any more."""
    try:
        return catalogue.entry(name).project_folder
    except DrydockError:
        return None


class _Heard:
    """What a script says, passed on as it comes; errors and hints are kept for the end."""

    def __init__(self, report: Reporter) -> None:
        self._report = report
        self._meter: Meter | None = None
        self.errors: list[str] = []
        self.hints: list[str] = []
        self.details: list[str] = []

    def line(self, text: str) -> None:
        """Take in a line."""
        if found := re.fullmatch(_PROGRESS, text):
            self._measure(int(found[1]), int(found[2]), found[4], is_size=found[3] == "1")
        elif text.startswith("drydock: error: "):
            self.errors.append(text.removeprefix("drydock: error: "))
        elif text.startswith("drydock:   hint: "):
            self.hints.append(text.removeprefix("drydock:   hint: "))
        elif text.startswith("drydock: warning: "):
            self._report.warn(text.removeprefix("drydock: warning: "))
        elif text.startswith("drydock: "):
            self._report.step(text.removeprefix("drydock: "))
        elif text.strip():
            self.details.append(text)
            self._report.detail(text.strip())

    def _measure(self, done: int, of: int, what: str, *, is_size: bool) -> None:
        if self._meter is None or self._meter.what != what:
            self._meter = Meter(self._report, what)
        self._meter(done, of, is_size=is_size)


def build_script(
    name: str, script: Script, report: Reporter, *, home: Path | None = None, to_run: bool = False
) -> None:
    """Build the environment of `script`, in the store of `home` or our own; `to_run` its trainer, if that can run here.

    The script's steps become ours, and its error our BuildError.
    """
    from builder import process, uv  # here and below, because most environments are built
    from builder.embedded.caches import VARIABLE
    from builder.project.caches import cache_places, is_read_by_scripts

    heard = _Heard(report)
    # The uv that came with Drydock: none is fetched.
    near = [place for place in cache_places() if is_read_by_scripts(place)]
    environment = {**os.environ, "DRYDOCK_UV": uv.executable(), VARIABLE: " ".join(near)}
    if report.is_live:
        environment["DRYDOCK_PROGRESS"] = "1"
    if to_run:
        environment["DRYDOCK_FOR"] = "run"
    if home is not None:
        environment["DRYDOCK_HOME"] = str(home)
        # By itself it looks into the cache of that home only.
        ours = layout.home() / "cache" / "mirror"
        if (ours / "SHA256SUMS").is_file() and not set(" ,\t\n") & set(str(ours)):
            environment[VARIABLE] = " ".join([str(ours), *near])
        _share_built(home)
    with waiting(report, f"building {name}"):  # the script says it too
        code = process.stream(script.command("--build-only"), heard.line, env=environment)
    if code:
        report.failed()
        hint = uv.hint("\n".join(heard.details)) or "; ".join(heard.hints) or None
        raise BuildError("; ".join(heard.errors) or _ended(name, code), exit_code=code, hint=hint)


def _share_built(home: Path) -> None:
    """Have the store `home` find the wheels that were built here of what is at a place, and the data."""
    store = layout.Store.here()
    for ours, theirs in ((store.built, home / "cache" / "built"), (store.data, home / "data")):
        if ours.is_dir() and not theirs.exists():
            theirs.parent.mkdir(parents=True, exist_ok=True)
            theirs.symlink_to(ours)


def _ended(name: str, code: int) -> str:
    if code in (128 + number for number in signal.Signals):
        return f"the build of {name} was stopped by {signal.Signals(code - 128).name}"
    return f"the build of {name} ended with exit status {code}"
