"""What a profile says: the typed form of `profiles/NAME.toml`.

`ProfilePart` is one file as written; `Profile` is the whole, after `extends`, and can be built.
Unknown keys are errors. Values are data: nothing here is ever evaluated.
"""

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
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    model_serializer,
    model_validator,
)

from builder.isolation import LEAKS
from builder.names import FORMS, NAME_PATTERN, REFERENCE_PATTERN, is_reference
from builder.secrets import is_secret
from builder.settings import Acknowledgeable
from builder.target import Target

_FILE = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_FILE_NAME = f"^{_FILE}$"
_PLAIN_PATH = f"^{_FILE}(/{_FILE})*$"
_URL = r"^(https?|file)://[!-~]+$"
_DAY = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
_COUNT = 10**6  # more than there is of anything that is counted, and few enough for a shell of 32 bits
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


def _no_generation(value: str) -> str:
    if re.search(r"-[0-9]+-link$", value):
        raise ValueError("names such as this-1-link are those of generations")
    return value


def _reference(value: str) -> str:
    if not is_reference(value):
        raise ValueError(f"not the name of a profile: {FORMS}")
    return value


def _requirement(value: str) -> str:
    try:
        parsed = Requirement(value)
    except InvalidRequirement as error:
        raise ValueError(f"not a requirement (PEP 508): {error}") from None
    if parsed.url is not None:
        raise ValueError("a requirement by URL cannot be locked; name a version")
    return value


def _specifier(value: str) -> str:
    try:
        SpecifierSet(value)
    except InvalidSpecifier:
        raise ValueError('not a version range; write for instance ">=1.0,<1.9"') from None
    return value


def _plain_path(value: str) -> str:
    if not re.fullmatch(_PLAIN_PATH, value):
        raise ValueError("must be a plain path inside the profile's own folder, for instance patches/fix.patch")
    return value


def _index_url(value: str) -> str:
    if not re.fullmatch(_URL, value):
        raise ValueError("must be an https://, http:// or file:// URL")
    if "@" in value.split("://", 1)[1].split("/", 1)[0]:
        raise ValueError("a user name or password has no place in a shared file; use a netrc file")
    return value


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
        raise ValueError("names such as _this are the generated script's own; take another")
    if _SHELL_VARIABLES.fullmatch(value):
        raise ValueError("this variable belongs to the shell; take another")
    return value


def _sayable(value: str) -> str:
    if is_secret(value):
        raise ValueError("a secret has no place among arguments, which every user of the machine can see")
    return _readable(value)


def _in_schema(pattern: str) -> WithJsonSchema:
    """A pattern for editors, where a validator has better words for the same."""
    return WithJsonSchema({"type": "string", "pattern": pattern})


Text = Annotated[str, AfterValidator(_no_nul)]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Reference = Annotated[str, AfterValidator(_reference), Field(json_schema_extra={"pattern": REFERENCE_PATTERN})]
ProfileName = Annotated[Name, AfterValidator(_no_generation)]
FileName = Annotated[str, Field(pattern=_FILE_NAME)]
Variable = Annotated[str, Field(pattern=_VARIABLE), AfterValidator(_readable)]
SayableVariable = Annotated[str, Field(pattern=_VARIABLE), AfterValidator(_sayable)]
SettableVariable = Annotated[str, Field(pattern=_VARIABLE), AfterValidator(_settable)]
RequirementText = Annotated[str, AfterValidator(_requirement)]
Specifier = Annotated[str, AfterValidator(_specifier)]
RelativePath = Annotated[str, AfterValidator(_plain_path), _in_schema(_PLAIN_PATH)]
PackageName = Annotated[str, AfterValidator(lambda value: str(canonicalize_name(value)))]
IndexURL = Annotated[str, AfterValidator(_index_url), _in_schema(_URL)]
Day = Annotated[
    str | Literal[False],
    BeforeValidator(_day_or_not),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": _DAY}, {"const": False}]}),
]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


# What stands below a field says in an editor what the key is for (builder/schema.py).
class Python(_Model):
    """The interpreter."""

    version: str = Field(pattern=r"^3\.[0-9]{1,2}$")
    """For instance "3.11": any patch release of it."""


class Override(_Model):
    """A requirement that replaces what every package asks for, and the reason why that is right."""

    requirement: RequirementText
    """What every package is taken to ask for, as PEP 508 writes it."""
    reason: Text = Field(min_length=1)
    """Why that is right; the lock repeats it."""


class Packages(_Model):
    """What to install."""

    requires: list[RequirementText] = []
    """Requirements as PEP 508 writes them; those of the profiles in `extends` are merged by package name."""
    overrides: list[Override] = []
    """Contradictions upstream, and how they are broken."""
    build: dict[PackageName, list[RequirementText]] = {}
    """Packages that may be source distributions, with their build requirements; everything else must be a wheel."""
    exclude_newer: Day | None = Field(default=None, alias="exclude-newer")
    """The package universe as of the end of that day, UTC; `false` takes an inherited day away."""
    exclude_newer_package: dict[PackageName, Day] = Field(default={}, alias="exclude-newer-package")
    """Another day, for single packages; `false`: whatever day, as for an index that does not say when files came."""
    exclude_newer_index: dict[Name, Day] = Field(default={}, alias="exclude-newer-index")
    """Another day, or `false`, for the packages that come from one of `[indexes]`."""
    index: dict[PackageName, Name] = {}
    """Which of `[indexes]` a package comes from; the others come from the default index."""


class Detect(_Model):
    """A whole number that the script finds out on the machine where it runs: so much of what is there.

    `fraction` is taken first, in hundredths and rounded down, then `minus`; the result is at least `min` (for cores 1,
    else 0) and at most `max`. Where the machine does not tell, it is `fallback`, as it stands.

    performance-cores: physical cores for performance, as far as this process may use them
    usable-cores: processors that this process may use, by its affinity and the quota of its control groups
    memory-gb: GiB of memory, or of what the control groups allow, rounded down
    gpu-count: GPUs that nvidia-smi lists
    """

    detect: Literal["performance-cores", "usable-cores", "memory-gb", "gpu-count"]
    """What is looked for."""
    fallback: int = Field(ge=0, le=_COUNT, strict=True)
    """What it is where the machine does not tell."""
    fraction: float = Field(default=1.0, gt=0, le=1, strict=True)
    """So much of what was found, in hundredths, rounded down."""
    minus: int = Field(default=0, ge=0, le=_COUNT, strict=True)
    """Taken off after `fraction`."""
    min: int | None = Field(default=None, ge=0, le=_COUNT, strict=True)
    """At least so many; for cores 1, else 0."""
    max: int | None = Field(default=None, ge=0, le=_COUNT, strict=True)
    """At most so many."""

    @model_validator(mode="after")
    def _sensible(self) -> Detect:
        if abs(self.fraction * 100 - self.percent) > 1e-9:
            raise ValueError("fraction is taken in hundredths; give at most two decimals")
        if self.max is not None and self.max < self.least:
            raise ValueError(f"max is less than min ({self.least})")
        return self

    @model_serializer
    def _as_written(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}

    @property
    def percent(self) -> int:
        """`fraction` as a whole number: shells count with nothing else."""
        return round(self.fraction * 100)

    @property
    def least(self) -> int:
        """`min`, or what it is when it is not given: no thread at all is never meant."""
        return self.min if self.min is not None else int(self.detect.endswith("-cores"))

    def of(self, found: int | None) -> int:
        """The number that comes of what was found. The generated scripts do the same (templates/_detect.sh.j2).

        >>> Detect(detect="memory-gb", fraction=0.5, min=4, max=64, fallback=8).of(23)
        11
        """
        if found is None:
            return self.fallback
        value = found * self.percent // 100 - self.minus
        value = value if value >= self.least else self.least
        return value if self.max is None or value <= self.max else self.max

    def __str__(self) -> str:
        steps = [f"{self.fraction:g} of {self.detect}" if self.percent != 100 else self.detect]
        steps += [f"minus {self.minus}"] if self.minus else []
        steps += [f"at least {self.min}"] if self.min is not None else []
        steps += [f"at most {self.max}"] if self.max is not None else []
        return f"{', '.join(steps)}, else {self.fallback}"


def _kind(value: Any) -> str:
    return "[detect]" if isinstance(value, dict | Detect) else "[text]"


Value = Annotated[Annotated[Text, Tag("[text]")] | Annotated[Detect, Tag("[detect]")], Discriminator(_kind)]
"""What may stand wherever a value goes: a text, or a table with `detect`."""


class Setting(_Model):
    """One environment variable of the trainer.

    Exactly one of `value`, `default` and `unset`. A plain string, and a table with `detect`, is a `value`.
    """

    value: Value | None = None
    """Always set."""
    default: Value | None = None
    """Set unless the caller has set it."""
    unset: Literal[True] | None = None
    """Removed."""
    note: Text | None = None
    """Shown to the user at every start: for a value with consequences."""
    acknowledge: Annotated[list[Acknowledgeable], Field(min_length=1)] | None = None
    """What `drydock profile check` finds wrong with the value, and is meant."""

    @property
    def text(self) -> str | None:
        """What the variable is set to, for what is detected the fallback; None where it is removed."""
        value = self.value if self.value is not None else self.default
        return str(value.fallback) if isinstance(value, Detect) else value

    @model_validator(mode="before")
    @classmethod
    def _plain_value(cls, data: Any) -> Any:
        if isinstance(data, bool | int | float):
            raise ValueError("an environment variable is a string; put it in quotes")
        if isinstance(data, dict) and "detect" in data:
            beside = {key: data[key] for key in ("note", "acknowledge") if key in data}
            return {"value": {key: value for key, value in data.items() if key not in beside}, **beside}
        return {"value": data} if isinstance(data, str | Detect) else data

    @model_validator(mode="after")
    def _exactly_one(self) -> Setting:
        if sum(choice is not None for choice in (self.value, self.default, self.unset)) != 1:
            raise ValueError('give a string, or exactly one of { value = "…" }, { default = "…" }, { unset = true }')
        return self


class Patch(_Model):
    """A change to the installed source of one package."""

    package: PackageName
    """Whose source it changes."""
    versions: Specifier
    """Those that it may be applied to, for instance ">=1.0,<1.9"."""
    file: RelativePath
    """The patch, a unified diff beside the profile."""
    proof: RelativePath
    """A program that fails without it and passes with it."""
    why: Text = Field(min_length=1)
    """What it repairs, and where upstream did."""


class Check(_Model):
    """A program that `--verify` runs in the environment; it passes when it exits with 0."""

    file: RelativePath
    """A Python program beside the profile."""
    why: Text = Field(min_length=1)
    """What it shows."""


class Option(_Model):
    """A trainer argument from the caller's environment: `flag` and the value of the variable `from`."""

    flag: Text = Field(min_length=1)
    """The argument before the value, for instance "--config"."""
    source: SayableVariable = Field(alias="from")
    """The variable; an empty value leaves the argument out."""
    default: Value = ""
    """Used where the variable is unset."""
    when: Variable | None = None
    """Only where this variable is set to something."""
    unless: Variable | None = None
    """Only where this variable is not set to anything."""


class TrainerPart(_Model):
    """What is run: `command`, or `file`, a Python program that the script carries with it.

    `options` come from the caller's environment, before them `arguments`, after them what the caller adds.
    """

    model_config = ConfigDict(json_schema_extra={"not": {"required": ["command", "file"]}})

    command: Annotated[list[Text], Field(json_schema_extra={"minItems": 1})] | None = None
    """A program of the environment and its first arguments."""
    file: RelativePath | None = None
    """A Python program beside the profile."""
    arguments: list[Value] = []
    """Arguments that it always gets."""
    options: list[Option] = []
    """Arguments from the caller's environment."""
    needs: Text | None = None
    """A path that must exist in the working directory."""
    needs_hint: Text | None = Field(default=None, alias="needs-hint")
    """What to do when it does not."""

    @model_validator(mode="after")
    def _not_both(self) -> TrainerPart:
        if self.command is not None and self.file is not None:
            raise ValueError("give either command or file, not both")
        if self.command is not None and not self.command:
            raise ValueError("command is empty")
        return self


class Trainer(TrainerPart):
    """A whole trainer; a part may leave it to another to say what is run."""

    @model_validator(mode="after")
    def _something_to_run(self) -> Trainer:
        if self.command is None and self.file is None:
            raise ValueError("give either command or file")
        return self


class Generated(_Model):
    """Names of the generated files; each has a default made from the profile's name."""

    run: FileName | None = None
    """The script that builds the environment and runs the trainer."""
    fix_patches: FileName | None = Field(default=None, alias="fix-patches")
    """The program that patches an existing installation."""
    fix_dependencies: FileName | None = Field(default=None, alias="fix-dependencies")
    """The script that brings an existing virtual environment to the locked versions."""


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return value


def _with_group(value: str) -> str:
    if not re.compile(value).groups:
        raise ValueError("no group for the number of the step; write for instance step ([0-9]+)")
    return value


Pattern = Annotated[Text, Field(min_length=1), AfterValidator(_pattern)]
Seconds = Annotated[float, Field(ge=0, le=10**7, allow_inf_nan=False, strict=True)]


class RestartCase(_Model):
    """When a trainer that failed is started again: on one of these exit statuses, or a last line that matches."""

    codes: list[Annotated[int, Field(ge=1, le=255, strict=True)]] = []
    """Exit statuses as a shell gives them: 137 for SIGKILL."""
    patterns: list[Pattern] = []
    """Regular expressions of Python, looked for in each of the last lines (64 KiB of them)."""


_RESTART = {
    # SIGABRT, SIGFPE, SIGKILL, SIGSEGV, and SIGBUS of Linux and of macOS; 137 is also what the kernel does when memory
    # runs out. Not SIGTERM: somebody meant it.
    "killed": RestartCase(codes=[134, 135, 136, 137, 138, 139]),
    # PyTorch's own words, for CUDA and for MPS, and those of the C library.
    "out-of-memory": RestartCase(patterns=["OutOfMemoryError", "out of memory", "Cannot allocate memory"]),
    # huggingface/accelerate pull request 3659: an accelerate without our patch, and a stage without data.
    "empty-loader": RestartCase(patterns=["UnboundLocalError: .*current_batch"]),
}


Share = Annotated[float, Field(gt=0, le=1, strict=True)]


class MemoryGuard(_Model):
    """Stops the trainer while it can still end well, by shares of the memory that there is, or that the control groups
    allow.
    """

    resident: Share = 0.9
    """When it holds more than this."""
    swap: Share = 0.25
    """When swap has grown by this."""


class Supervise(_Model):
    """How `drydock run NAME --supervise` looks after the trainer; times in seconds.

    Nothing of this is in the key, in a lock or in a script.
    """

    restart: dict[Name, RestartCase] = {}
    """When a failed trainer is started again; one of the same name replaces one of those that are always there: killed,
    out-of-memory, empty-loader.
    """
    backoff: Seconds = 5.0
    """To the first restart; then twice that, and so on."""
    longest_backoff: Seconds = Field(default=300.0, alias="longest-backoff")
    """The longest to a restart."""
    healthy: Seconds = 600.0
    """A run that lasts so long begins the backoff anew."""
    budget: int = Field(default=10, ge=0, le=_COUNT, strict=True)
    """It is given up after so many restarts within `window`."""
    window: Seconds = 3600.0
    """In which the restarts of `budget` are counted."""
    grace: Seconds = 30.0
    """From the signal to stop to the kill."""
    sample_every: Annotated[float, Field(ge=0.5, le=3600, strict=True)] = Field(default=5.0, alias="sample-every")
    """How often what it uses is written down."""
    memory_guard: MemoryGuard | None = Field(default=None, alias="memory-guard")
    """There where it is given, and where a setting acknowledges mps-unlimited-memory."""
    log_size: Annotated[float, Field(gt=0, le=10**5, strict=True)] = Field(default=10.0, alias="log-size")
    """MB of one log file."""
    log_files: int = Field(default=5, ge=0, le=1000, alias="log-files", strict=True)
    """How many older ones are kept."""

    @property
    def cases(self) -> dict[str, RestartCase]:
        """All cases, the profile's own first."""
        return {**self.restart, **{name: case for name, case in _RESTART.items() if name not in self.restart}}


class Bench(_Model):
    """What `drydock bench` runs: the trainer with these `arguments` after its own, so that it ends soon.

    `step` is a regular expression whose first group is the number of a training step, in a line of what it says.
    Nothing of this is in the key, in a lock or in a script.
    """

    arguments: list[Text] = []
    """Trainer arguments, after all others."""
    step: Annotated[Pattern, AfterValidator(_with_group)] = r"\b[Ss]tep\W{0,3}([0-9]+)"
    """How the trainer's output tells of a step: a regular expression with a group for its number."""


class ProfilePart(_Model):
    """One profile file as written; every table is optional here."""

    json_schema: str | None = Field(default=None, alias="$schema")
    """Where the JSON Schema is: editors read it, nothing else does."""
    schema_: Literal[1] = Field(alias="schema")
    """The version of this form."""
    name: ProfileName
    """That of the file, without .toml."""
    description: Text = ""
    """One line for `drydock profile list`."""
    extends: list[Reference] = []
    """Profiles that this one adds to; later ones win, and this one over all of them."""
    target: Target | None = None
    """The machine; a part to extend has none."""
    python: Python | None = None
    """The interpreter."""
    packages: Packages = Packages()
    """What to install."""
    indexes: dict[Name, IndexURL] = {}
    """Package indexes beside the default one, by a name for `packages.index`."""
    env: dict[SettableVariable, Setting] = {}
    """Environment variables of the trainer."""
    patches: list[Patch] = []
    """Changes to the installed source of packages."""
    checks: list[Check] = []
    """Programs that `drydock verify` runs in the environment."""
    trainer: TrainerPart | None = None
    """What is run."""
    generated: Generated = Generated()
    """Names of the generated files."""
    supervise: Supervise = Supervise()
    """How `drydock run NAME --supervise` looks after the trainer."""
    bench: Bench | None = None
    """What `drydock bench` runs."""


class Profile(ProfilePart):
    """A whole profile that can be built: target, Python and trainer are known."""

    target: Target
    python: Python
    trainer: Trainer

    @property
    def run_script(self) -> str:
        """File name of the generated run script."""
        return self.generated.run or f"run_{self.name.replace('-', '_')}.sh"

    @property
    def fix_patches_script(self) -> str:
        """File name of the generated program that patches an existing installation."""
        return self.generated.fix_patches or f"fix_{self.name.replace('-', '_')}_patches.py"

    @property
    def fix_dependencies_script(self) -> str:
        """File name of the generated script that brings an existing venv to the locked versions."""
        return self.generated.fix_dependencies or f"fix_{self.name.replace('-', '_')}_dependencies.sh"

    @property
    def detects(self) -> bool:
        """Whether anything in it is found out where the script runs."""
        settings = (value for setting in self.env.values() for value in (setting.value, setting.default))
        options = (option.default for option in self.trainer.options)
        return any(isinstance(value, Detect) for value in (*settings, *self.trainer.arguments, *options))

    @property
    def memory_guard(self) -> MemoryGuard | None:
        """The guard of a supervised run."""
        return self.supervise.memory_guard or (MemoryGuard() if self.unlimited else None)

    @property
    def unlimited(self) -> str | None:
        """The variable that lifts PyTorch's own limit of memory, knowingly."""
        found = (name for name, one in self.env.items() if "mps-unlimited-memory" in (one.acknowledge or ()))
        return next(found, None)

    @property
    def carried_files(self) -> list[str]:
        """Relative paths of the programs that the environment carries: trainer, proofs, checks; sorted."""
        files = {patch.proof for patch in self.patches} | {check.file for check in self.checks}
        if self.trainer.file is not None:
            files.add(self.trainer.file)
        return sorted(files)
