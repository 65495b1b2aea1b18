"""The variables that the caller of a run had exported, and that its trainer may have read.

Those of the session, of other tools and of the machine's network are left out: they differ from one terminal to the
next, and decide no training. A value that may be a secret is replaced by the name of its variable.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from builder import secrets
from builder.embedded.secrets import is_secret
from builder.isolation import LEAKS

_MOST = 300
_LONGEST = 2000  # characters of a value
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OTHERS = re.compile(
    "|".join(
        (
            # The session and its terminal.
            r"_|HOME|USER|LOGNAME|USERNAME|SHELL|PWD|OLDPWD|SHLVL|MAIL|HOSTNAME|HOSTTYPE|MACHTYPE|OSTYPE|NAME|TZ",
            r"TERM(INAL)?(_.*)?|COLORTERM|COLUMNS|LINES|LS_?COLORS|CLICOLOR.*|NO_COLOR|FORCE_COLOR|LESS.*|PAGER|EDITOR|VISUAL",
            r"PS[0-9]|PROMPT.*|BASH.*|ZSH.*|ZDOTDIR|FISH.*|HIST.*|INPUTRC|TMUX.*|STY|WINDOW.*|BROWSER|HUSHLOGIN",
            r"(XDG|DBUS|SSH|GPG|VTE|ITERM|VSCODE|GNOME|GTK|QT|KDE|KONSOLE|WSL|WAYLAND|SYSTEMD|LC)_.*|DISPLAY|XAUTHORITY",
            r"DESKTOP_SESSION|SESSION_MANAGER|INVOCATION_ID|JOURNAL_STREAM|MANAGERPID|NOTIFY_SOCKET|LISTEN_.*|LANG(UAGE)?",
            # Tools, and where they are.
            r"PATH|.*PATH_INFO|MANPATH|INFOPATH|PKG_CONFIG_PATH|TMPDIR|TEMP|TMP|VIRTUAL_ENV.*|(CONDA|PYENV|NVM|CARGO|RUST(UP)?)_.*",
            r"(DRYDOCK|UV|PIP|PIPX|TOX|GIT|NIX|DEBIAN|CLOUD_?SDK|TF_CLI|NODE|NPM)_.*",
            # The network.
            r".*_?proxy|.*CA_?(CERTS?|BUNDLE|INFO)(_.*)?|SSL_CERT_.*|.*ROOTS_FILE_PATH",
            # What starts jobs.
            r"CI|(GITHUB|RUNNER|GITLAB|CI|BUILDKITE|JENKINS|SLURM|SBATCH|SRUN|PBS|LSB|KUBERNETES)_.*",
        )
    ),
    re.IGNORECASE,
)
_HERE = re.compile(r"LD_.*|DYLD_.*|(CUDA|HIP|ROCR|NVIDIA|ZE)_.*(VISIBLE|AFFINITY).*")
"""What is of the machine: recorded, and left as it is where a run is repeated."""
_MAY_HIDE = re.compile(
    r"(.*_)?(PAT|PASS(W(OR)?D|PHRASE)?|PWD|KEYS?|TOKENS?|SECRETS?|AUTH|CREDS?|CREDENTIALS?|COOKIE|(WEB)?HOOK|DSN|SAS|CONN(ECTION)?"
    r"|LICENSE)(_.*)?",
    re.IGNORECASE,
)
_RANDOM = re.compile(
    r"(?<![A-Za-z0-9+])(?=[A-Za-z+]*[0-9])(?=[a-z0-9+]*[A-Z])(?=[A-Z0-9+]*[a-z])[A-Za-z0-9+]{20,}(?![A-Za-z0-9+])"
    r"|\bhooks\.|/webhooks?/"
)
"""What looks drawn: no name of a model, and no hash of a commit, which a trainer may be called with."""


def exported(environ: Mapping[str, str], made: Mapping[str, Any], hidden: Collection[str] = ()) -> dict[str, str]:
    """What of `environ` a trainer may read, by names; `made` is what its script sets and removes, `hidden` are secrets.

    >>> exported({"EPOCHS": "5", "HOME": "/home/you", "DB_PASS": "hush"}, {"set": {}, "unset": []})
    {'DB_PASS': '[DB_PASS]', 'EPOCHS': '5'}
    >>> exported({"MODEL": "Qwen2.5-0.5B-Instruct-GPTQ-Int4", "TO": "k=aB1cD2eF3gH4iJ5kL6mN"}, {"set": {}, "unset": []})
    {'MODEL': 'Qwen2.5-0.5B-Instruct-GPTQ-Int4', 'TO': '[TO]'}
    """
    others = {*LEAKS, *made["set"], *made["unset"]}
    names = sorted(one for one in environ if one not in others and _NAME.fullmatch(one) and not _OTHERS.fullmatch(one))
    return {name: _shown(name, environ, hidden) for name in names[:_MOST]}


def _shown(name: str, environ: Mapping[str, str], hidden: Collection[str]) -> str:
    value = environ[name]
    may_be_secret = name in hidden or is_secret(name) or _MAY_HIDE.fullmatch(name) or _RANDOM.search(value)
    return f"[{name}]" if may_be_secret or len(value) > _LONGEST else secrets.redacted(value, environ, hidden)


def as_it_was(
    recorded: Mapping[str, Any] | None, environ: Mapping[str, str], hidden: Collection[str] = ()
) -> tuple[dict[str, str], list[str], list[str]]:
    """An environment in which a trainer reads what it has read in a run.

    `recorded` is what the record of that has. Returns it; what was changed for that, in words; and the variables whose
    values are not known, as they were or may have been secrets, and that are not set.
    """
    made = dict(environ)
    before = (recorded or {}).get("exported")
    if recorded is None or not isinstance(before, dict):
        return made, [], []
    now = exported(environ, {"set": recorded["set"], "unset": recorded.get("unset", ())}, hidden)
    changed, unknown = [], []
    for name in sorted(before.keys() | now.keys()):
        value = before.get(name)
        if value == now.get(name) or _HERE.fullmatch(name) or name in hidden:
            continue
        if value is None:
            del made[name]
            changed.append(f"{name} is not set")
        elif value == f"[{name}]" or "***" in value:
            unknown += [] if name in environ else [name]
        else:
            made[name] = value
            changed.append(f"{name}={value}")
    return made, changed, unknown
