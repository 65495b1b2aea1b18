"""Secrets of a trainer (HF_TOKEN, WANDB_API_KEY): from the environment, or a file that only its owner can read.

They reach the trainer in its environment, and nothing else: no profile, script, log, state or command line.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from builder.embedded.secrets import is_secret
from builder.errors import DrydockError, UsageError, Where

VARIABLE = "DRYDOCK_SECRETS"
SHORTEST = 8
"""Characters of the shortest value that is treated as one: `none` and `1` are none, and are in every other line."""


def forms(value: str) -> set[str]:
    """A value as programs write it: as it is, in JSON, in a URL, in base64.

    >>> sorted(forms("a+b/c"))
    ['YStiL2M', 'a%2Bb%2Fc', 'a%2Bb/c', 'a+b/c']
    """
    import base64
    import json
    from urllib.parse import quote

    content = value.encode(errors="surrogateescape")
    encoded = {base64.b64encode(content), base64.urlsafe_b64encode(content)}
    return {
        value,
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        quote(content),
        quote(content, safe=""),
        *(one.decode().rstrip("=") for one in encoded),
    }


def redacted(text: str, environ: Mapping[str, str] = os.environ, names: Collection[str] = ()) -> str:
    """A text without the values of secrets in `environ`, and without what a URL has before its host.

    A secret is a variable of such a name, or one of `names`.

    >>> redacted("GET https://me:hunter2@host/x of hf_abcdefgh", {"HF_TOKEN": "hf_abcdefgh"})
    'GET https://***@host/x of [HF_TOKEN]'
    """
    for name, value in environ.items():
        if len(value) >= SHORTEST and (name in names or is_secret(name)):
            for form in sorted(forms(value), key=len, reverse=True):
                text = text.replace(form, f"[{name}]")
    if "://" not in text:
        return text
    # A user of ssh alone is no secret, as in ssh://git@host.
    text = re.sub(r"(https?://)[^\s/?#@\"']+@", r"\1***@", text)
    return re.sub(r"(://[^\s/?#@:\"']*):[^\s/?#@\"']*@", r"\1:***@", text)


def redacted_arguments(arguments: Sequence[str], environ: Mapping[str, str], names: Collection[str]) -> list[str]:
    """Arguments as `redacted` makes them, also without the value of an option that is called as a secret is.

    >>> redacted_arguments(["--hf-token", "x", "--api_key=y", "--lr=1"], {}, ())
    ['--hf-token', '***', '--api_key=***', '--lr=1']
    """
    found, follows = [], False
    for one in arguments:
        option, equals, _ = one.partition("=")
        is_option = option.startswith("-")
        of_secret = is_option and is_secret(option.lstrip("-").replace("-", "_"))
        if follows and not is_option:
            found.append("***")
        else:
            found.append(f"{option}=***" if of_secret and equals else redacted(one, environ, names))
        follows = of_secret and not equals
    return found


def path(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The file: DRYDOCK_SECRETS, else drydock/secrets in XDG_CONFIG_HOME or ~/.config."""
    if named := environ.get(VARIABLE):
        return Path(named).absolute()
    if config := environ.get("XDG_CONFIG_HOME"):
        return Path(config) / "drydock/secrets"
    return Path(user) / ".config/drydock/secrets" if (user := environ.get("HOME")) else None


def read(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What the file says, a line `NAME=value` each; empty where there is none.

    Raises DrydockError where it is not the user's own, where others can read it, and for a line that is none.
    """
    file = path(environ)
    if file is None:
        return {}
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # it may be a FIFO
        with os.fdopen(descriptor, encoding="utf-8") as opened:
            state = os.fstat(opened.fileno())
            _check(file, state)
            lines = opened.read().splitlines()
    except FileNotFoundError:
        if environ.get(VARIABLE):
            raise DrydockError(f"{file} does not exist", hint=f"{VARIABLE} names it") from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise DrydockError(f"{file} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        parsed = re.fullmatch(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(\"[^\"]*\"|'[^']*'|[^\"'\0]*)\s*", line)
        if parsed is None:  # without the line: it may be a secret
            raise DrydockError("not a line NAME=value", where=Where(str(file), number))
        found[parsed[1]] = parsed[2].strip().strip("\"'")
    return found


def _check(file: Path, state: os.stat_result) -> None:
    if not stat.S_ISREG(state.st_mode):
        raise DrydockError(f"{file} is not a file")
    if state.st_uid != os.geteuid():
        raise DrydockError(f"{file} belongs to another user", hint="secrets come from a file of your own, of mode 0600")
    if state.st_mode & 0o077:
        mode = stat.S_IMODE(state.st_mode)
        raise DrydockError(f"{file} can be read by others (mode {mode:04o})", hint=f"chmod 600 {file}")


def environment(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> tuple[dict[str, str], list[str]]:
    """The environment of a trainer with its secrets, and the names of those; what is exported wins over the file.

    Raises DrydockError as `read` does, and UsageError where one of `arguments` has a secret in it.
    """
    from_file = read(environ)
    whole = {**from_file, **environ}
    names = sorted(name for name, value in whole.items() if value and (name in from_file or is_secret(name)))
    for name in names:
        if len(whole[name]) >= SHORTEST and any(whole[name] in argument for argument in arguments):
            raise UsageError(
                f"an argument has the value of {name} in it, and every user of this machine could see it",
                hint=f"leave it out: the trainer has {name} in its environment",
            )
    return whole, names
