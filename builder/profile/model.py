"""What a profile says: the typed form of `profiles/NAME.toml`.

`ProfilePart` is one file as written; `Profile` is the whole, after `extends`, and can be built.
Unknown keys are errors. Values are data: nothing here is ever evaluated.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from packaging.requirements import Requirement
from pydantic import ConfigDict, Field, model_validator

from builder.embedded.secrets import is_secret
from builder.profile import pytorch
from builder.profile.detect import Choice, Detect, Value
from builder.profile.fields import (
    ONE_OR_MORE,
    AdvisoryName,
    CommandName,
    Day,
    Digest,
    ExtraName,
    FileName,
    FilePattern,
    IndexURL,
    Model,
    Name,
    PackageName,
    PlacedRequirement,
    ProfileName,
    ProjectFile,
    ProjectPath,
    Reference,
    RelativePath,
    RepoName,
    RequirementText,
    Revision,
    SayableVariable,
    SettableVariable,
    Specifier,
    StepPattern,
    Text,
    Variable,
    WebURL,
)
from builder.profile.launch import Launch
from builder.profile.places import Place, place_of
from builder.profile.supervise import MemoryGuard, Supervise
from builder.profile.target import Target
from builder.profile.variables import Acknowledgeable


# What stands below a field says in an editor what the key is for (builder/profile/schema.py).
class Python(Model):
    """The interpreter."""

    version: str = Field(pattern=r"^3\.[0-9]{1,2}(\.[0-9]{1,2})?$")
    """For instance "3.11": any patch release of it; or "3.11.13": that one and no other."""
    standalone: bool = False
    """Whether it is a build of python-build-standalone, as uv fetches them: the lock names its archive by sha256, and
    every environment is built on that one. Without: on a Python of the machine."""

    @property
    def series(self) -> str:
        """Major and minor version: what wheels are for."""
        return ".".join(self.version.split(".")[:2])

    @property
    def release(self) -> str | None:
        """The patch release that it must be; None where any will do."""
        return self.version if self.version != self.series else None


class Override(Model):
    """A requirement that replaces what every package asks for, and the reason why that is right."""

    requirement: RequirementText
    """What every package is taken to ask for, as PEP 508 writes it."""
    reason: Text = Field(min_length=1)
    """Why that is right; the lock repeats it."""


class RequiresFrom(Model):
    """A file of the project that says what it requires: pyproject.toml, a requirement file, a script (PEP 723)."""

    file: ProjectFile
    """Its path, relative to the folder that has profiles/."""
    extras: list[ExtraName] = []
    """Extras of a pyproject.toml that are wanted too."""
    groups: list[ExtraName] = []
    """Dependency groups of a pyproject.toml (PEP 735) that are wanted too."""


class RequiresRead(RequiresFrom):
    """The same with what the file `requires`, sorted, as it was read; no profile has it written down."""

    requires: list[str]


class Packages(Model):
    """What to install."""

    requires: list[PlacedRequirement] = []
    """Requirements as PEP 508 writes them; those of the profiles in `extends` are merged by package name. One may
    name a place: `name @ git+https://…@tag`, `name @ https://…/x.whl`, `name @ ./folder`, `./dist/x.whl`.
    """
    requires_from: Annotated[list[RequiresFrom], ONE_OR_MORE] = Field(default=[], alias="requires-from")
    """Files of the project that say what it requires, read anew each time; of a package that `requires` names too, what
    stands there counts. A table, or a list of tables.
    """
    overrides: list[Override] = []
    """Contradictions upstream, and how they are broken."""
    build: dict[PackageName, list[RequirementText]] = {}
    """Packages that may be source distributions, with what is installed to build each; all else must be a wheel."""
    exclude_newer: Day | None = Field(default=None, alias="exclude-newer")
    """The package universe as of the end of that day, UTC; `false` takes an inherited day away."""
    exclude_newer_package: dict[PackageName, Day] = Field(default={}, alias="exclude-newer-package")
    """Another day, for single packages; `false`: whatever day, as for an index that does not say when files came."""
    exclude_newer_index: dict[Name, Day] = Field(default={}, alias="exclude-newer-index")
    """Another day, or `false`, for the packages that come from one of `[indexes]`."""
    index: dict[PackageName, Name] = {}
    """Which of `[indexes]` a package comes from; the others come from the default index."""
    overlap: dict[FilePattern, PackageName] = {}
    """Whose file counts where several packages bring one with different content: paths in site-packages, `*` stands for
    anything, to the package. Without, a build stops there."""


class Project(Model):
    """The project's own code: it is imported from where it is, and is in no key; or it is built, and is in it."""

    path: ProjectPath
    """Its folder, relative to the one that has profiles/; "." is that itself. Where its packages are, what it is called
    and what it starts (console scripts, entry points) stands in its pyproject.toml.
    """
    mode: Literal["tree", "wheel"] = "tree"
    """"tree": the code is imported from the working tree. "wheel": it is built into a wheel, which is locked by content
    and installed as any other; a change of it makes the lock stale.
    """


class Setting(Model):
    """One environment variable of the trainer.

    Exactly one of `value`, `default` and `unset`. A plain string, and a table with `detect`, is a `value`.
    """

    value: Value | None = None
    """Always set."""
    default: Value | None = None
    """Set unless the caller has set it."""
    unset: Literal[True] | None = None
    """Removed."""
    follows: SettableVariable | None = None
    """A variable with a default. Where the caller has set it and not this one, this one is the same, so that the two
    agree; where theirs is zero or no number, this one is left alone.
    """
    note: Text | None = None
    """Shown to the user at every start: for a value with consequences."""
    acknowledge: Annotated[list[Acknowledgeable], Field(min_length=1)] | None = None
    """What `drydock profile check` finds wrong with the value, and is meant."""

    @property
    def text(self) -> str | None:
        """What the variable is set to, for what is detected the fallback; None where it is removed."""
        value = self.value if self.value is not None else self.default
        return str(value.fallback) if isinstance(value, Detect | Choice) else value

    @property
    def choice(self) -> Choice | None:
        """The two texts of which the machine decides."""
        value = self.value if self.value is not None else self.default
        return value if isinstance(value, Choice) else None

    @model_validator(mode="before")
    @classmethod
    def _plain_value(cls, data: Any) -> Any:
        if isinstance(data, bool | int | float):
            raise ValueError("an environment variable is a string; put it in quotes")
        if isinstance(data, dict) and "detect" in data:
            beside = {key: data[key] for key in ("note", "acknowledge") if key in data}
            return {"value": {key: value for key, value in data.items() if key not in beside}, **beside}
        return {"value": data} if isinstance(data, str | Detect | Choice) else data

    @model_validator(mode="after")
    def _exactly_one(self) -> Setting:
        if sum(choice is not None for choice in (self.value, self.default, self.unset)) != 1:
            raise ValueError('give a string, or exactly one of { value = "…" }, { default = "…" }, { unset = true }')
        if self.follows is not None and self.default is None:
            raise ValueError("only a default can follow another variable")
        return self


class Patch(Model):
    """A change to the installed source of one package."""

    package: PackageName
    """Whose source it changes."""
    versions: Specifier
    """Those that it may be applied to, for instance ">=1.0,<1.9"."""
    file: RelativePath
    """The patch, a unified diff beside the profile."""
    proof: RelativePath
    """A program that fails without it and passes with it."""
    releases: RelativePath | None = None
    """Other releases of the package that it fits too, for the program that patches an existing installation."""
    why: Text = Field(min_length=1)
    """What it repairs, and where upstream did."""


class Check(Model):
    """A program that `--verify` runs in the environment; it passes when it exits with 0."""

    file: RelativePath
    """A Python program beside the profile."""
    why: Text = Field(min_length=1)
    """What it shows."""


class Option(Model):
    """A trainer argument from the caller's environment: `flag` and the value of the variable `from`."""

    flag: Text = Field(min_length=1)
    """The argument before the value, for instance "--config"."""
    source: Variable = Field(alias="from")
    """The variable; an empty value leaves the argument out."""
    default: Value = ""
    """Used where the variable is unset."""
    when: Variable | None = None
    """Only where this variable is set to something."""
    unless: Variable | None = None
    """Only where this variable is not set to anything."""
    hidden: bool = False
    """For a secret: its parser gets the argument in the memory of the trainer (`python -m`, argparse), and no list of
    processes shows it. It is an error where `when` asks for it and it is not set.
    """

    @model_validator(mode="after")
    def _no_secret_is_shown(self) -> Option:
        if self.hidden and (self.default or not re.fullmatch("--[A-Za-z0-9_-]+", self.flag)):
            raise ValueError("a hidden argument has no default, and a flag such as --hf_token")
        if is_secret(self.source) and not self.hidden:
            raise ValueError("a secret has no place among arguments, which every user of the machine can see")
        return self


class Mode(Model):
    """Another way to train, that the caller asks for by a variable: `MEMORY=low sh run.sh`."""

    arguments: Annotated[list[Text], Field(min_length=1)]
    """Trainer arguments, after those that it always gets."""
    note: Text = Field(min_length=1)
    """How it trains differently; shown to the user at its start."""


class TrainerSource(Model):
    """The trainer's own code, pinned: a commit of a git repository, of which the lock has commit and content.

    Where what the trainer `needs` is in the working directory, that is a working tree, and it is used; elsewhere the
    trainer runs in a copy of the source, which is made there.
    """

    git: Text
    """The repository: https://…, ssh://… or file:///…"""
    rev: Text
    """A tag, a branch or a commit of it."""
    folder: RelativePath | None = None
    """The folder in it that the trainer runs in; else its top."""
    known_by: RelativePath | None = Field(default=None, alias="known-by")
    """A path that a working tree has of whatever release: where it is and what the trainer `needs` is not, it is one of
    another release than this."""

    @model_validator(mode="after")
    def _a_place(self) -> TrainerSource:
        _ = self.place
        return self

    @property
    def place(self) -> Place:
        """The place, as requirements name one."""
        found = place_of(Requirement(f"trainer @ git+{self.git}@{self.rev}"))
        if found is None or found.git != self.git:
            raise ValueError("must be https://…, ssh://… or file:///…, and rev a tag, a branch or a commit")
        return found

    @property
    def name(self) -> str:
        """What the repository is called, as a part of file names."""
        return (
            re.sub(r"[^A-Za-z0-9_.-]|^\W+", "", self.git.rstrip("/").rpartition("/")[2].removesuffix(".git"))
            or "trainer"
        )


class TrainerPart(Model):
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
    modes: dict[SayableVariable, dict[Name, Mode]] = {}
    """Other ways to train: a variable, a value of it, and what that means. Unset or empty, it means nothing."""
    source: TrainerSource | None = None
    """Where its own code is, for a working directory that does not have what it needs."""
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
        if any(option.hidden for option in self.options) and (self.command or [])[:2] != ["python", "-m"]:
            raise ValueError("a hidden argument needs a trainer that is run as python -m MODULE")
        return self


class Data(Model):
    """A model or a data set, pinned by the lock: of a hub, of a URL, or a folder of the project.

    Exactly one of `hub`, `url` and `folder`.
    """

    hub: RepoName | None = None
    """A repository of the Hugging Face hub, for instance "org/name"; HF_ENDPOINT names another hub."""
    type: Literal["model", "dataset"] = "model"
    """What the repository is."""
    revision: Revision = "main"
    """A branch, a tag or a commit of it; the lock has the commit."""
    files: list[Annotated[Text, Field(min_length=1)]] = []
    """Which of its files: patterns where `*` stands for anything, "/" too; without, all."""
    url: WebURL | None = None
    """One file of a web server."""
    sha256: Digest | None = None
    """What that file must have; without, the lock has what it had."""
    folder: ProjectFile | None = None
    """A folder, relative to the one that has profiles/; all its files, those that git ignores too."""

    @model_validator(mode="after")
    def _one_place(self) -> Data:
        if sum(place is not None for place in (self.hub, self.url, self.folder)) != 1:
            raise ValueError("give exactly one of hub, url and folder")
        for place, names in (("hub", ("type", "revision", "files")), ("url", ("sha256",))):
            for name in names:
                if getattr(self, place) is None and name in self.model_fields_set:
                    raise ValueError(f"{name} goes with {place}")
        return self


class Generated(Model):
    """Names of the generated files; each has a default made from the profile's name."""

    run: FileName | None = None
    """The script that builds the environment and runs the trainer."""
    fix_patches: FileName | None = Field(default=None, alias="fix-patches")
    """The program that patches an existing installation; written where it is named, and by `render --standalone`."""
    fix_dependencies: FileName | None = Field(default=None, alias="fix-dependencies")
    """The script that brings an existing virtual environment to the locked versions."""
    committed: bool = True
    """Whether `drydock render` without names writes them; those of a profile that is only run by its name need not be
    kept, as `drydock run` renders what it runs."""


class Bench(Model):
    """What `drydock bench` runs: the trainer with these `arguments` after its own, so that it ends soon, or `file`.

    Nothing of this is in the key, in a lock or in a script.
    """

    file: RelativePath | None = None
    """A Python program beside the profile that does such work as the trainer, where that cannot be run by itself."""
    arguments: list[Text] = []
    """Arguments, after all others."""
    step: StepPattern = r"\b[Ss]tep\W{0,3}([0-9]+)"
    """How the trainer's output tells of a step: a regular expression with a group for its number."""
    outcome: StepPattern = r"\b[Ll]oss\W{1,3}([0-9.]+(?:[eE][-+]?[0-9]+)?)"
    """How it tells what it has come to: a regular expression with a group for a number above zero; the last counts."""


class Audit(Model):
    """Known vulnerabilities, as `drydock audit` sees them. Nothing of this is in the key, in a lock or in a script."""

    acknowledge: dict[AdvisoryName, Annotated[Text, Field(min_length=1)]] = {}
    """Advisories that are accepted, each by one of its names (GHSA-…, CVE-…, PYSEC-…), with the reason."""


class ProfilePart(Model):
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
    packages: Packages = Packages()
    project: Project | None = None
    indexes: dict[Name, IndexURL] = {}
    """Package indexes beside the default one, by a name for `packages.index`."""
    env: dict[SettableVariable, Setting] = {}
    """Environment variables of the trainer."""
    determinism: Literal["strict"] | None = None
    """strict: the script sets what makes runs on one machine repeat themselves (hash seed, threads, cuBLAS), `drydock
    profile check` says what contradicts it, and `drydock verify` whether training repeats itself here.
    """
    patches: list[Patch] = []
    """Changes to the installed source of packages."""
    checks: list[Check] = []
    """Programs that `drydock verify` runs in the environment."""
    trainer: TrainerPart | None = None
    """What is run."""
    data: dict[Name, Data] = {}
    """Models and data sets that it needs, by names; the trainer finds each in DRYDOCK_DATA_NAME."""
    commands: dict[CommandName, Annotated[list[Text], Field(min_length=1)]] = {}
    """Other programs of the environment, by a name for `drydock run NAME COMMAND`, each with its first arguments."""
    generated: Generated = Generated()
    """Names of the generated files."""
    launch: Launch = Launch()
    """How the trainer is started on one host, and on several."""
    supervise: Supervise = Supervise()
    """How `drydock run NAME --supervise` looks after the trainer."""
    bench: Bench | None = None
    """What `drydock bench` runs."""
    audit: Audit = Audit()
    """Which known vulnerabilities are accepted."""


class Profile(ProfilePart):
    """A whole profile that can be built: target, Python and trainer are known."""

    target: Target
    python: Python
    trainer: Trainer

    @model_validator(mode="after")
    def _hub_is_ours(self) -> Profile:
        if "HF_HUB_CACHE" in self.env and any(one.hub is not None for one in self.data.values()):
            raise ValueError("env.HF_HUB_CACHE: what [data] has of a hub decides it; set HF_HOME for the rest")
        return self

    def index_url(self, name: str) -> str:
        """Where the logical index `name` is: as [indexes] says, else PyTorch's own of that name.

        Raises KeyError where it is neither.
        """
        url = self.indexes.get(name) or pytorch.url(name)
        if url is None:
            raise KeyError(name)
        return url

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
    def detects(self) -> set[str]:
        """What is found out where the script runs."""
        found: set[str] = {value.detect for value in self._values if isinstance(value, Detect | Choice)}
        found |= {"memory-gb"} if self.target.memory_gb is not None else set()
        return found | ({"gpu-count"} if self.counts_gpus else set())

    @property
    def counts_gpus(self) -> bool:
        """Whether torchrun starts a process for each GPU of a host."""
        return self.launch.by_torchrun and self.launch.per_accelerator and self.target.accelerator == "cuda"

    @property
    def chooses(self) -> bool:
        """Whether anything in it is one of two texts, by what the script finds out."""
        return any(isinstance(value, Choice) for value in self._values)

    @property
    def _values(self) -> list[str | Detect | Choice | None]:
        """All that may be found out."""
        settings = [value for setting in self.env.values() for value in (setting.value, setting.default)]
        return [*settings, *self.trainer.arguments, *(option.default for option in self.trainer.options)]

    @property
    def memory_guard(self) -> MemoryGuard | None:
        """The guard of a supervised run."""
        return self.supervise.memory_guard or (MemoryGuard() if self.unlimited or self.uses_mlx else None)

    @property
    def uses_mlx(self) -> bool:
        """Whether it trains with MLX on a Mac. By default that stops at half as much again as Metal recommends (mlx,
        set_memory_limit): more than such a Mac has, and macOS then panics (ml-explore/mlx issue 3186).
        """
        mlx = any(re.match(r"mlx(?![A-Za-z0-9])", text.strip().lower()) for text in self.packages.requires)
        return mlx and self.target.accelerator == "mps"

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
