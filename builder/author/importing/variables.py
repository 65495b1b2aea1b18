"""Environment variables of a recipe: which ones a profile can hold, and what is known of the others."""

from __future__ import annotations

import re
from typing import Any

from pydantic import TypeAdapter, ValidationError

from builder.embedded.secrets import is_secret
from builder.errors import Where
from builder.profile.fields import SayableVariable, SettableVariable
from builder.profile.model import Setting
from builder.profile.target import Target
from builder.profile.variables import advise, findings
from builder.project.requirements.model import Imported

_SETTABLE: TypeAdapter[str] = TypeAdapter(SettableVariable)
_SAYABLE: TypeAdapter[str] = TypeAdapter(SayableVariable)
_NO_EFFECT = ("nothing-reads-it", "other-target")


def settle(imported: Imported, target: Target, source: Where) -> None:
    """Remove from `imported` variables that no profile may set, that a library would read otherwise, and folklore."""
    for name in list(imported.env):
        where = imported.env_at.get(name, source)
        if (why := _refused(name, imported.env[name], target)) is not None:
            del imported.env[name]
            imported.leave(name, why, where)
    told = _texts(imported.env)
    together = findings(told, platform=target.platform, accelerator=target.accelerator)
    while refused := next((one for one in together if one.refused), None):
        del imported.env[refused.name], told[refused.name]
        imported.leave(refused.name, _finding_text(refused), imported.env_at.get(refused.name, source))
        together = findings(told, platform=target.platform, accelerator=target.accelerator)
    for option in list(imported.options):
        try:
            _SAYABLE.validate_python(option["from"])
        except ValidationError as error:
            imported.options.remove(option)
            imported.leave(f"{option['flag']} from {option['from']}", _reason(error), source)


def holds_secret(name: str, value: str) -> bool:
    """Whether a variable or an option holds a secret, by its name, or by a password in a URL.

    >>> holds_secret("--hf-token", "x"), holds_secret("PROXY", "http://me:it@host"), holds_secret("--tokenizer", "x")
    (True, True, False)
    """
    plain = name.lstrip("-").replace("-", "_")
    return (bool(value) and is_secret(plain)) or re.search(r"://[^/\s]*:[^/\s]*@", value) is not None


def _refused(name: str, value: Any, target: Target) -> str | None:
    """Return why a profile cannot have a variable, or why it has no effect; None if it can and has."""
    try:
        _SETTABLE.validate_python(name)
        text = Setting.model_validate(value).text
    except ValidationError as error:
        return _reason(error)
    if holds_secret(name, text or ""):
        return "a secret has no place in a profile: export it where the trainer runs, or put it into the secrets file"
    if text is None:
        return None
    advice = advise(name, text, platform=target.platform, accelerator=target.accelerator)
    return next((_finding_text(one) for one in advice if one.refused or one.code in _NO_EFFECT), None)


def _finding_text(finding: Any) -> str:
    return finding.message if finding.hint is None else f"{finding.message}; {finding.hint}"


def _texts(env: dict[str, Any]) -> dict[str, str | None]:
    return {name: Setting.model_validate(value).text for name, value in env.items()}


def _reason(error: ValidationError) -> str:
    return str(error.errors()[0]["msg"]).removeprefix("Value error, ")
