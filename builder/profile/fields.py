"""The kinds of values that profiles hold, each with its check and its words for what is wrong."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Annotated, Any, Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema

from builder.embedded.secrets import is_secret
from builder.isolation import LEAKS
from builder.names import FORMS, NAME_PATTERN, REFERENCE_PATTERN, is_reference
from builder.profile.places import named, place_of

_FILE = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_FILE_NAME = f"^{_FILE}$"
_PLAIN_PATH = f"^{_FILE}(/{_FILE})*$"
PROJECT_PATH = rf"^\.$|{_PLAIN_PATH}"
_URL = r"^(https?|file)://[!-~]+$"
_WEB = r"^https?://[!-~]+$"
_DAY = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
COUNT = 10**6  # more than there is of anything that is counted, and few enough for a shell of 32 bits
# Set by the script itself to isolate the environment; a profile that set them would undo that.
RESERVED_VARIABLES = frozenset({"PATH", "PYTHONNOUSERSITE", "VIRTUAL_ENV", *LEAKS})
# What the shells keep for themselves: a value for one of these is refused by some shell, or changed on its way, or
# evaluated as arithmetic, which runs the commands in it.
_SHELL_VARIABLES = re.compile(
    r"BASH.*|KSH.*|ZSH_.*|IFS|OPTIND|OPTARG|LINENO|RANDOM|SRANDOM|SECONDS|EPOCH(REALTIME|SECONDS)|PPID|PGRP|SHLVL|TMOUT"
    r"|E?[UG]ID|USER_ID|USERNAME|GROUPS|SHELLOPTS|PIPESTATUS|FUNCNAME|FUNCNEST|DIRSTACK|ERRNO|TTYIDLE|TRY_BLOCK_.*"
    r"|HISTCMD|HISTSIZE|SAVEHIST|histchars|KEYBOARD_HACK|COLUMNS|LINES|signals"
)
# The templates' own variables (a caller's of the same name would be overwritten before it is read), and what bash
# leaves in `_`.
_SCRIPT_VARIABLES = re.compile(r"_[a-z0-9_]*")


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("a NUL byte cannot be passed to a program")
    return value


def _no_trainer(value: str) -> str:
    if value == "train":
        raise ValueError("train is the name of the trainer itself, which stands in [trainer]")
    return value


def _no_generation(value: str) -> str:
    if re.search(r"-[0-9]+-link$", value):
        raise ValueError("names such as this-1-link are reserved for generations")
    return value


def _reference(value: str) -> str:
    if not is_reference(value):
        raise ValueError(f"not the name of a profile: {FORMS}")
    return value


def _requirement(value: str) -> str:
    parsed = _parsed(value)
    if parsed.url is not None:
        raise ValueError("a requirement by URL cannot be locked here; name a version")
    return value


def _requirement_or_place(value: str) -> str:
    value = named(value)
    place_of(_parsed(value))
    return value


def _parsed(value: str) -> Requirement:
    try:
        return Requirement(value)
    except InvalidRequirement as error:
        raise ValueError(f"not a requirement (PEP 508): {error}") from None


def _specifier(value: str) -> str:
    try:
        SpecifierSet(value)
    except InvalidSpecifier:
        raise ValueError('not a version range; write for instance ">=1.0,<1.9"') from None
    return value


# What stands beside the files of a profile, in a script's folder and in an environment's .drydock. The rest of an
# environment is not in their way. Folded, as on a Mac.
_OURS = ("plan.json", "manifest.json")


def _plain_path(value: str) -> str:
    if not re.fullmatch(_PLAIN_PATH, value):
        raise ValueError("must be a plain path inside the profile's own folder, for instance patches/fix.patch")
    if value.casefold().split("/")[0] in _OURS:
        raise ValueError("Drydock has a file of that name beside yours; use another name")
    return value


def _project_path(value: str) -> str:
    if not re.fullmatch(PROJECT_PATH, value):
        raise ValueError('must be "." or a plain path inside the project, for instance trainer')
    return value


def _project_file(value: str) -> str:
    if not re.fullmatch(_PLAIN_PATH, value):
        raise ValueError("must be a plain path inside the project, for instance pyproject.toml")
    return value


def _list_of_tables(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


class _OneOrMore:
    """A list whose only entry may stand alone."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(_list_of_tables, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        found = handler(schema)
        return {"anyOf": [found["items"], found]}


def _index_url(value: str) -> str:
    if not re.fullmatch(_URL, value):
        raise ValueError("must be an https://, http:// or file:// URL")
    if "@" in value.split("://", 1)[1].split("/", 1)[0]:
        raise ValueError("a user name or password has no place in a shared file; use a netrc file")
    return value


def _web_url(value: str) -> str:
    if not re.fullmatch(_WEB, value) or "#" in value:
        raise ValueError("must be an https:// or http:// URL")
    return _index_url(value)


def _day(value: Any) -> Any:
    # TOML has dates of its own: 2025-07-01 and "2025-07-01" mean the same here.
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    try:
        if re.fullmatch(_DAY, value):
            return date.fromisoformat(value).isoformat()
    except (TypeError, ValueError):
        pass
    raise ValueError('not a day; write for instance "2025-07-01"')


def _day_or_not(value: Any) -> Any:
    if value is False:
        return value
    try:
        return _day(value)
    except ValueError:
        raise ValueError('not a day, nor false; write for instance "2025-07-01"') from None


def _settable(value: str) -> str:
    if value in RESERVED_VARIABLES:
        raise ValueError("set by the script itself, to isolate the environment")
    return _readable(value)


def _readable(value: str) -> str:
    if _SCRIPT_VARIABLES.fullmatch(value):
        raise ValueError("names such as _this are reserved for the generated script; use another name")
    if _SHELL_VARIABLES.fullmatch(value):
        raise ValueError("this variable belongs to the shell; use another name")
    return value


def _sayable(value: str) -> str:
    if is_secret(value):
        raise ValueError("a secret has no place among arguments, which every user of the machine can see")
    return _readable(value)


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return value


def _within(value: str) -> str:
    if ".." in value.split("/"):
        raise ValueError('".." leads out of the working directory')
    return value


def _with_group(value: str) -> str:
    if not re.compile(value).groups:
        raise ValueError("no group for the number of the step; write for instance step ([0-9]+)")
    return value


def _with_number(value: str) -> str:
    if not re.compile(value).groups:
        raise ValueError("no group for the loss; write for instance perplexity ([0-9.]+)")
    return value


def _in_schema(pattern: str) -> WithJsonSchema:
    """A pattern for editors, where a validator has better words for the same."""
    return WithJsonSchema({"type": "string", "pattern": pattern})


Text = Annotated[str, AfterValidator(_no_nul)]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Reference = Annotated[str, AfterValidator(_reference), Field(json_schema_extra={"pattern": REFERENCE_PATTERN})]
ProfileName = Annotated[Name, AfterValidator(_no_generation)]
AdvisoryName = Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]*(-[A-Za-z0-9]+)+$")]
CommandName = Annotated[Name, AfterValidator(_no_trainer)]
FileName = Annotated[str, Field(pattern=_FILE_NAME)]
Variable = Annotated[str, Field(pattern=_VARIABLE), AfterValidator(_readable)]
SayableVariable = Annotated[str, Field(pattern=_VARIABLE), AfterValidator(_sayable)]
SettableVariable = Annotated[str, Field(pattern=_VARIABLE), AfterValidator(_settable)]
RequirementText = Annotated[str, AfterValidator(_requirement)]
PlacedRequirement = Annotated[str, AfterValidator(_requirement_or_place)]
Specifier = Annotated[str, AfterValidator(_specifier)]
RelativePath = Annotated[str, AfterValidator(_plain_path), _in_schema(_PLAIN_PATH)]
ProjectFile = Annotated[str, AfterValidator(_project_file), _in_schema(_PLAIN_PATH)]
ONE_OR_MORE = _OneOrMore()
ExtraName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")]
ProjectPath = Annotated[str, AfterValidator(_project_path), _in_schema(PROJECT_PATH)]
FilePattern = Annotated[str, Field(pattern=r"^[A-Za-z0-9_*][A-Za-z0-9_.*/ +-]*$")]
CheckpointPattern = Annotated[FilePattern, AfterValidator(_within)]
PackageName = Annotated[str, AfterValidator(lambda value: str(canonicalize_name(value)))]
RepoName = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,95}/)?[A-Za-z0-9][A-Za-z0-9_.-]{0,95}$")]
Revision = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*(/[A-Za-z0-9][A-Za-z0-9_.+-]*)*$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
WebURL = Annotated[str, AfterValidator(_web_url), _in_schema(_WEB)]
IndexURL = Annotated[str, AfterValidator(_index_url), _in_schema(_URL)]
Day = Annotated[
    str | Literal[False],
    BeforeValidator(_day_or_not),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": _DAY}, {"const": False}]}),
]
Pattern = Annotated[Text, Field(min_length=1), AfterValidator(_pattern)]
StepPattern = Annotated[Pattern, AfterValidator(_with_group)]
LossName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
LossPattern = Annotated[Pattern, AfterValidator(_with_number)]
Seconds = Annotated[float, Field(ge=0, le=10**7, allow_inf_nan=False, strict=True)]
Share = Annotated[float, Field(gt=0, le=1, strict=True)]


class Model(BaseModel):
    """A table of a profile: unknown keys are errors, and nothing of it changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
