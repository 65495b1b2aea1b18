"""A supervised run that the machine starts: a user unit of systemd, or an agent of launchd.

Sources: systemd.service(5), systemd.exec(5); launchd.plist(5).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from builder import secrets
from builder.embedded.secrets import is_secret
from builder.errors import DrydockError, UsageError
from builder.files import check_ours, write_atomically
from builder.names import stem
from builder.profile.model import Profile
from builder.project.catalogue import Catalogue
from builder.project.evaluate import evaluate
from builder.project.sources import consent
from builder.run.supervise import runs
from builder.script.templates import templates

Manager = Literal["systemd", "launchd"]

_MARK = "drydock service install"  # in the text of every file that is ours
_KEPT = ("PATH", "DRYDOCK_HOME", "DRYDOCK_PROFILES", secrets.VARIABLE, "XDG_DATA_HOME", "XDG_CONFIG_HOME")
_BESIDE = 10  # seconds for the supervisor itself, beside the trainer's time of grace


def manager() -> Manager:
    """Return the service manager of this machine."""
    return "launchd" if sys.platform == "darwin" else "systemd"


def path(name: str, kind: Manager) -> Path:
    """Return the file of the service of the profile `name`. Raises UsageError where there is no home."""
    user = os.environ.get("HOME")
    if not user:
        raise UsageError("there is no place for a service", hint="set HOME")
    if kind == "launchd":
        return Path(user) / "Library/LaunchAgents" / f"{_label(name, kind)}.plist"
    config = os.environ.get("XDG_CONFIG_HOME") or Path(user) / ".config"
    return Path(config) / "systemd/user" / f"{_label(name, kind)}.service"


def text(name: str, kind: Manager, profile: Profile) -> str:
    """Return the service of the `profile` `name`, started from this folder, with the settings of this environment.

    Raises DrydockError for a value that such a file cannot express.
    """
    return rendered(
        name,
        kind,
        folder=str(Path.cwd()),
        environment=_service_environment(profile, os.environ),
        command=[sys.executable, "-P", "-m", "builder", "--quiet", "run", name, "--supervise"],
        grace=profile.supervise.grace,
        log=str(runs.folder(name) / "service.log"),
    )


def rendered(
    name: str,
    kind: Manager,
    *,
    folder: str,
    environment: Mapping[str, str],
    command: Sequence[str],
    grace: float,
    log: str,
    fleet: str = "",
) -> str:
    """Return the file of a service that runs `command`, which ends within `grace` seconds; `fleet` is whose it is.

    Raises DrydockError for a value that such a file cannot express.
    """
    patience = round(grace) + _BESIDE
    try:
        if kind == "launchd":
            return _agent(_label(name, kind), folder, environment, command, patience, log, is_stamped=bool(fleet))
        return (
            templates()
            .get_template("service.systemd.j2")
            .render(
                name=name,
                on=f"{name} --on {fleet}" if fleet else name,
                fleet=fleet,
                label=_label(name, kind),
                folder=folder,
                environment=environment,
                command=command,
                patience=patience,
            )
        )
    except ValueError as error:
        raise DrydockError(f"a service of {kind} cannot express it: {error}") from None


def _agent(
    label: str,
    folder: str,
    environment: Mapping[str, str],
    command: Sequence[str],
    patience: int,
    log: str,
    *,
    is_stamped: bool,
) -> str:
    """Return the property list of an agent of launchd. Raises ValueError for characters that it cannot hold."""
    import plistlib

    agent = {
        "Label": label,
        "ProgramArguments": list(command),
        "WorkingDirectory": folder,
        "EnvironmentVariables": dict(environment),
        "RunAtLoad": True,
        # The supervisor starts the trainer again; this is for a supervisor that was killed itself.
        "KeepAlive": {"Crashed": True},
        "ExitTimeOut": patience,
        "ProcessType": "Interactive",
        # Only Drydock's own words: the trainer's are in its log, which rotates.
        "StandardOutPath": log,
        "StandardErrorPath": log,
    }
    try:
        made = plistlib.dumps(agent, sort_keys=False).decode()
    except ValueError:
        raise ValueError("a control character, or bytes that are not UTF-8") from None
    notes = f"<!-- Written by `{_MARK}`; `drydock service uninstall` removes it. -->\n"
    if is_stamped:
        notes += f"<!-- What you change here is kept, and no longer updated. drydock-unit {'0' * 64} -->\n"
    return made.replace("<plist", f"{notes}<plist", 1)


def install(name: str, kind: Manager, catalogue: Catalogue) -> Path:
    """Write the service; returns its file. Raises DrydockError where another file is there.

    Raises ConsentError where nobody has agreed yet to run the profile of a source.
    """
    file, made = path(name, kind), text(name, kind, catalogue.profile(name))
    check_ours(file, _is_ours)
    if catalogue.entry(name).sources:  # nobody could be asked when it starts
        consent.check(name, evaluate(name, catalogue).content)
    runs.folder(name).mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(file, made)
    return file


def uninstall(name: str, kind: Manager) -> Path:
    """Remove the service; returns its file. Raises UsageError where it does not exist."""
    file = path(name, kind)
    if not file.is_file():
        raise UsageError(f"{name} is not a service: {file} does not exist", hint=f"drydock service install {name}")
    check_ours(file, _is_ours)
    file.unlink()
    return file


def steps(file: Path, kind: Manager) -> list[str]:
    """Return the next steps of the user, and notes."""
    unseen = [one for one in os.environ if is_secret(one) and one not in secrets.read()]
    warnings = [
        f"{one} is exported here, and a service does not see that: put it in {secrets.path()}" for one in unseen
    ]
    if kind == "launchd":
        return [*warnings, f"start it now and at every login: launchctl bootstrap gui/{os.getuid()} {file}"]
    start = f"systemctl --user daemon-reload && systemctl --user enable --now {file.name}"
    return [
        *warnings,
        f"start it now and at every login: {start}",
        "from the start of the machine: loginctl enable-linger",
    ]


def _label(name: str, kind: Manager) -> str:
    return f"drydock.{stem(name)}" if kind == "launchd" else f"drydock-{stem(name)}"


def _service_environment(profile: Profile, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for a run, without secrets: a service starts with an empty environment."""
    options = profile.trainer.options
    read = [name for option in options for name in (option.source, option.when, option.unless) if name]
    names = [
        *_KEPT,
        *read,
        *profile.trainer.modes,
        *(name for name, setting in profile.env.items() if setting.default is not None),
    ]
    return {name: environ[name] for name in dict.fromkeys(names) if name in environ and not is_secret(name)}


def _is_ours(text: str) -> bool:
    return _MARK in text
