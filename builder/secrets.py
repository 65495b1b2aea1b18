"""Secrets of a trainer (HF_TOKEN, WANDB_API_KEY): from the environment, or a file that only its owner can read.

They reach the trainer in its environment, and nothing else: no profile, script, log, state or command line.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
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
    """A text without the values of secrets in `environ`, without what a URL has before its host, and without tokens.

    A secret is a variable of such a name, or one of `names`.

    >>> redacted("GET https://me:hunter2@host/x of hf_abcdefgh", {"HF_TOKEN": "hf_abcdefgh"})
    'GET https://***@host/x of [HF_TOKEN]'
    """
    for name, value in environ.items():
        if len(value) >= SHORTEST and (name in names or is_secret(name)):
            for form in sorted(forms(value), key=len, reverse=True):
                text = text.replace(form, f"[{name}]")
    text = without_tokens(text)
    if "://" not in text:
        return text
    # A user of ssh alone is no secret, as in ssh://git@host.
    text = re.sub(r"(https?://)[^\s/?#@\"']+@", r"\1***@", text)
    return re.sub(r"(://[^\s/?#@:\"']*):[^\s/?#@\"']*@", r"\1:***@", text)


# Searched for one by one: a pattern of them takes half a millisecond to compile, in each command that prints.
_MARKS = (
    *("hf_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "_pat_", "glpat-", "sk-", "AKIA", "ASIA", "xox", "AIza", "npm_"),
    *("pypi-", "nvapi-", "BEGIN", "eyJ"),
)
_MARKS_IN_ANY_CASE = ("token", "key", "passw", "secret")
_PLAIN = (
    r"(?:_|\A)(?:PAD|EOS|BOS|UNK|SEP|CLS|MASK|STOP|START|END|IMAGE|AUDIO|VIDEO|PLACEHOLDER|SPECIAL|TRIGGER)_TOKEN\Z"
)
"""Tokens of a tokenizer, by what they are called: no secrets."""
_NO_SECRET = frozenset(("", "0", "1", "true", "false", "yes", "no", "none", "null"))


@cache
def _tokens() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Tokens of the forms that their makers have given them; what is assigned to a name of a secret; private keys."""
    of_form = (
        r"hf_[A-Za-z0-9]{20,}",
        r"gh[pousr]_[A-Za-z0-9]{20,}",
        r"(?:github|dckr)_pat_[A-Za-z0-9_-]{20,}",
        r"glpat-[A-Za-z0-9_-]{16,}",
        r"sk-(?=[A-Za-z_-]*[0-9])(?=[a-z0-9_-]*[A-Z])[A-Za-z0-9_-]{32,}",
        r"(?:AKIA|ASIA)[0-9A-Z]{16}",
        r"xox[abeoprs]-[A-Za-z0-9-]{16,}",
        r"AIza[A-Za-z0-9_-]{35}",
        r"npm_[A-Za-z0-9]{36}",
        r"pypi-Ag[A-Za-z0-9_-]{50,}",
        r"nvapi-[A-Za-z0-9_-]{30,}",
        r"eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    )
    name = r"\b([A-Za-z0-9_.-]{0,40}(?i:token|key|secret|passw(?:or)?d|passphrase))[\"']?\s{0,4}(?::=|[:=])\s{0,4}"
    # Quoted, or a word of letters and numbers that is no name of something: token = next_token(3) is none.
    value = r"(?:[\"'](?P<quoted>[^\s\"'<>{}$\[\]()]{8,})[\"']|(?P<bare>[A-Za-z0-9+/-]{20,}={0,2})(?![\w.(\[{]))"
    return (
        re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(of_form)})(?![A-Za-z0-9])"),
        re.compile(name + value),
        re.compile(r"(?<=-----BEGIN )([A-Z ]{0,20}PRIVATE KEY-----)(.{1,20000}?)(?=-----END |\Z)", re.DOTALL),
    )


def without_tokens(text: str) -> str:
    """A text without what looks like a secret, whatever variable has it, or none.

    >>> without_tokens('login(token="hf_AbCdEfGhIjKlMnOpQrStUvWxYz")'), without_tokens('password = "hunter22"')
    ('login(token="***")', 'password = "***"')
    >>> without_tokens('pad_token="<|endoftext|>"; key="layers.0.weight"; token = next_token_of_42(x)')
    'pad_token="<|endoftext|>"; key="layers.0.weight"; token = next_token_of_42(x)'
    """
    lowered = text.lower()
    if not any(mark in text for mark in _MARKS) and not any(mark in lowered for mark in _MARKS_IN_ANY_CASE):
        return text
    of_form, assigned, keys = _tokens()
    text = of_form.sub("***", assigned.sub(_hidden, text))
    # Line by line, each with its first character: it may be a patch.
    return keys.sub(lambda found: found[1] + re.sub(r"\n([^\n])[^\n]+", r"\n\1***", found[2]), text)


def _hidden(found: re.Match[str]) -> str:
    """What a name of a secret was assigned, hidden where it is one."""
    name, whole, value = found[1], found[0], found["quoted"] or found["bare"]
    is_random = re.search("[0-9]", value) is not None and re.search("[A-Za-z]", value) is not None and len(value) >= 16
    is_word = name.lower().endswith(("token", "key"))
    # `key` and `token` are words of code, too: a value that has no form of a secret is none.
    looks = is_random and re.fullmatch(r"[A-Za-z0-9_+/=-]+", value) is not None if is_word else is_secret(_plain(name))
    if not looks or (is_word and not is_secret(_plain(name)) and re.fullmatch("[0-9a-f]{40}", value) is None):
        return whole
    return whole if re.search(_PLAIN, _plain(name)) else whole.replace(value, "***")


def _plain(name: str) -> str:
    """The name of an option or of a setting, as a variable of the environment has it.

    >>> _plain("--hub-token"), _plain("+wandb.api_key"), _plain("hubToken")
    ('HUB_TOKEN', 'WANDB_API_KEY', 'HUB_TOKEN')
    """
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"[^A-Za-z0-9]+", "_", words).strip("_").upper()


def redacted_arguments(arguments: Sequence[str], environ: Mapping[str, str], names: Collection[str]) -> list[str]:
    """Arguments as `redacted` makes them, also without the value of an option or a setting that is called as a secret.

    >>> redacted_arguments(["--hf-token", "x", "--api_key=y", "--lr=1", "+hub.token=z", "--env=A_SECRET=z"], {}, ())
    ['--hf-token', '***', '--api_key=***', '--lr=1', '+hub.token=***', '--env=A_SECRET=***']
    >>> redacted_arguments(["--pad_token=<pad>", "--use_auth_token", "True"], {}, ())
    ['--pad_token=<pad>', '--use_auth_token', 'True']
    """
    found = []
    for one, (before, value) in zip(arguments, _values(arguments), strict=True):
        found.append(redacted(one, environ, names) if value is None else f"{redacted(before, environ, names)}***")
    return found


def argument_secrets(arguments: Sequence[str]) -> dict[str, str]:
    """The secrets that are among the arguments of a trainer, by names of their own: those of their options.

    >>> argument_secrets(["--hf-token", "abc", "--lr", "1", "api_key=xyz", "--at=https://me:hush@host"])
    {'HF_TOKEN': 'abc', 'API_KEY': 'xyz', 'AT': 'me:hush'}
    """
    found, option = {}, ""
    for number, (one, (before, value)) in enumerate(zip(arguments, _values(arguments), strict=True)):
        named = before.rstrip("=").rpartition("=")[2] if value else one.partition("=")[0]
        name = _plain(named or option)
        others = [*_tokens()[0].findall(one), *re.findall(r"://([^\s/?#@\"']+)@", one)]
        for secret in [value] if value else others:
            found[name if name not in found else f"{name} {number}"] = secret
        option = one
    return found


def _values(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Of each argument the secret that ends it, with what is before that; None where there is none."""
    follows = False
    for one in arguments:
        before, equals, value = one.rpartition("=")
        is_option = one.startswith("-")
        if follows and not is_option:
            yield ("", one) if one.lower() not in _NO_SECRET else (one, None)
            follows = False
            continue
        # --env=NAME=value is one of NAME; a value may have an = in it, too.
        while equals and not _is_called_so(before.rpartition("=")[2]) and "=" in before:
            before, _, rest = before.rpartition("=")
            value = f"{rest}={value}"
        is_one = bool(equals) and _is_called_so(before.rpartition("=")[2]) and value.lower() not in _NO_SECRET
        yield (f"{before}=", value) if is_one else (one, None)
        follows = is_option and not equals and _is_called_so(one)


def _is_called_so(name: str) -> bool:
    """Whether an option or a setting is called as a secret is."""
    plain = _plain(name)
    return is_secret(plain) and re.search(_PLAIN, plain) is None


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
