"""A shell script that starts a trainer: its variables, what it installs, what it starts. Read, never run.

Of what it starts one command becomes the trainer: the one that a launcher starts or whose name says that it trains,
else the first one. The others become commands beside it.
"""

from __future__ import annotations

import re
import shlex

from packaging.utils import canonicalize_name

from builder.author.importing.shell_start import ONLY_RUNNING, Start, Variables
from builder.author.importing.shell_words import NAME, Command, Word, commands
from builder.author.importing.variables import holds_secret
from builder.errors import ProfileError, Where
from builder.names import NAME_PATTERN
from builder.project.requirements.model import Imported, safe_excerpt
from builder.project.requirements.pip import Read, read_lines

_PYTHON = re.compile(r"(?:.*/)?python(?:3(?:\.\d+)?)?")
_STARTERS = ("torchrun", "accelerate", "deepspeed")
_MOST_LINES = 20_000
_MOST_DOCUMENTS = 1000  # here-documents, whose reading takes the square of their number
_LONGEST_LINE = 1 << 14  # characters; nobody starts a trainer with more
_MOST_COMMANDS = 20
# What only starts the program that follows, by how many of the words after its options are its own.
_BEFORE = {"exec": 0, "nohup": 0, "time": 0, "command": 0, "setsid": 0, "env": 0, "nice": 0, "stdbuf": 0, "timeout": 1}
_RUNNERS = ("uv", "poetry", "pdm", "pixi", "conda", "mamba", "micromamba")
_SCHEDULERS = ("srun", "mpirun", "mpiexec")
_RUN_WITH_VALUE = ("--extra", "--group", "--python", "-p", "--project", "--directory", "-n", "--name", "-e")
_IGNORED = frozenset(
    """
    set cd echo printf source . true false : shift trap wait sleep exit return read local tee cat grep sed awk head tail
    cut tr sort date mkdir ls test [ [[ break continue pwd pushd popd which hash type exec ulimit clear kill
    """.split()  # noqa: SIM905
)
# Whose first argument is a file, whatever its name.
_OF_FILES = (
    *("cp", "mv", "rm", "ln", "wget", "curl", "tar", "unzip", "zip", "chmod", "chown", "git", "scp", "rsync", "aws"),
    *("gsutil", "docker", "make", "touch"),
)
_TRAINS = re.compile(r"train|finetun|fine[-_]tun|(^|[-_./])(sft|grpo|dpo|ppo|rlhf|lora)([-_.]|$)", re.IGNORECASE)
_OTHERWISE = re.compile(
    r"tok|eval|data|prepar|download|infer|generat|sampl|test|preproc|convert|merge|export|serve|plot|bench",
    re.IGNORECASE,
)
_PIP_WITH_VALUE = (
    *("-r", "-c", "-e", "-i", "-f"),
    *("--requirement", "--constraint", "--editable", "--index-url", "--extra-index-url", "--find-links"),
)


def read_script(path: str, text: str, read: Read) -> Imported:
    """Return what a run script sets, installs and starts. Raises ProfileError for an invalid requirement, and for a
    script that is too long.
    """
    return _Reader(path, read).read(text)


def may_train(name: str) -> bool:
    """Whether the name of a script or module says that it trains, and no more.

    >>> may_train("scripts.base_train"), may_train("finetune.py"), may_train("scripts.tok_train"), may_train("a.py")
    (True, True, False, False)
    """
    return _TRAINS.search(name) is not None and _OTHERWISE.search(name) is None


class _Reader:
    def __init__(self, path: str, read: Read) -> None:
        self._path, self._read = path, read
        self._imported = Imported()
        self._variables = Variables()
        self._exported: set[str] = set()
        self._functions: set[str] = set()
        self._starts: list[Start] = []
        self._others: dict[str, list[int]] = {}

    def read(self, text: str) -> Imported:
        if text.count("\n") >= _MOST_LINES:
            raise ProfileError(f"more than {_MOST_LINES} lines", where=Where(self._path, _MOST_LINES + 1))
        if text.count("<<") > _MOST_DOCUMENTS:
            raise ProfileError(f"more than {_MOST_DOCUMENTS} here-documents", where=Where(self._path))
        # A line for a line, so that numbers stay right.
        short = "\n".join(line if len(line) <= _LONGEST_LINE else "" for line in text.split("\n"))
        for command in commands(short):
            self._take(command)
        self._choose()
        self._say_others()
        self._imported.settle_constraints()
        return self._imported

    def _where(self, line: int) -> Where:
        return Where(self._path, line)

    def _take(self, command: Command) -> None:
        if command.kind == "unset" and not command.depends:
            names = [word.text for word in command.words if re.fullmatch(NAME, word.text)]
            self._imported.env |= {name: {"unset": True} for name in names}
            self._imported.env_at |= dict.fromkeys(names, self._where(command.line))
        elif command.kind in ("export", "assign"):
            for name, value in command.assigned:
                self._assign(name, value, command, exported=command.kind == "export")
            if command.kind == "export" and not command.depends:
                self._export([word.text for word in command.words], self._where(command.line))
        elif command.kind == "function":
            self._functions.add(command.words[0].text)
        elif command.kind == "command":
            self._program(command)

    def _export(self, names: list[str], where: Where) -> None:
        """Export variables that are assigned before, or after."""
        for name in names:
            self._exported.add(name)
            if name in self._variables.known:
                self._set(name, self._variables.known[name], where)
            elif name in self._variables.defaults:
                self._set(name, {"default": self._variables.defaults[name]}, where)

    def _assign(self, name: str, word: Word | list[Word], command: Command, *, exported: bool) -> None:
        variables = self._variables
        if isinstance(word, list):
            if not command.depends:
                before = variables.lists.get(name, [])
                own = [one.variable is not None and one.variable.name == name for one in word]
                parts = [before if is_own else [one] for one, is_own in zip(word, own, strict=True)]
                variables.lists[name] = [one for part in parts for one in part]
            return
        expansion, value = word.variable, word.value(variables.known)
        default = value if command.depends and command.unset == name else None
        if not command.depends and expansion is not None and expansion.name == name:
            default = expansion.default
        found: str | dict[str, str] | None = value
        if default is not None:
            variables.defaults[name], found = default, {"default": default}
        elif command.depends or value is None:
            variables.forget(name)
            found = None
        elif not holds_secret(name, value):  # what is known may become an argument
            variables.known[name] = value
        if not exported and name not in self._exported:
            return
        where = self._where(command.line)
        if found is None:
            self._imported.leave(name, _unknown(word, command), where)
        else:
            self._set(name, found, where)

    def _set(self, name: str, value: str | dict[str, str], where: Where) -> None:
        self._imported.env[name] = value
        self._imported.env_at[name] = where

    def _program(self, command: Command) -> None:
        start = Start(command.line, env={name: word for name, word in command.assigned if isinstance(word, Word)})
        words = self._without_prefixes(command.words, start)
        if not words:
            return
        name, rest = self._name(words[0]), words[1:]
        texts = [word.value(self._variables.known) for word in rest]
        short = name.rpartition("/")[2]
        if (packages := _of_pip(name, texts)) is not None and not command.depends:
            self._install(packages, self._where(command.line))
        elif name == "uv" and texts[:1] == ["sync"]:
            self._sync(texts, self._where(command.line))
        elif _is_setup(name, texts):
            return
        elif _PYTHON.fullmatch(name) or name in _STARTERS or _trains(short, texts):
            program = "python" if _PYTHON.fullmatch(name) else name
            if texts[:1] == ["-c"] or not self._started(program, rest, start, command):
                self._other(program, command.line)
        elif (script := _script(name, texts)) is not None:
            self._imported.leave(safe_excerpt(script), "another script: import that one too", self._where(command.line))
        elif name not in _IGNORED and name not in self._functions:
            self._other(short or words[0].text, command.line)

    def _sync(self, texts: list[str | None], where: Where) -> None:
        options = "".join(f" {text}" for text in texts[1:] if text is not None)
        chosen = "".join(f" {one}" for one in re.findall(r"--(?:extra|group)[ =][\w.-]+", options))
        why = f"its packages are those of the project: drydock import pyproject.toml{chosen}"
        self._imported.leave(f"uv sync{options}", why, where)

    def _name(self, word: Word) -> str:
        """The program that a word names; of one such as "$VENV/bin/python" what is known."""
        found = word.value({**self._variables.defaults, **self._variables.known})
        return found if found is not None else word.end

    def _without_prefixes(self, words: list[Word], start: Start) -> list[Word]:
        """The words without what only starts the program that follows."""
        while words:
            name = self._name(words[0])
            texts = [word.value(self._variables.known) for word in words]
            if name == "command" and texts[1:2] in (["-v"], ["-V"]):
                return []
            if name in _BEFORE:
                words = words[self._after(name, words, texts, start) :]
            elif name in _SCHEDULERS:
                known = (at for at, text in enumerate(texts) if at and text and _is_program(text))
                place = next(known, len(words))
                options = " ".join(word.text for word in words[1:place])
                why = "the scheduler starts the generated script: keep this in your batch script"
                self._imported.leave(f"{name} {options}".strip(), why, self._where(start.line))
                words = words[place:]
            elif name in _RUNNERS and texts[1:2] == ["run"]:
                place = _after_options(texts, 2)
                if place >= len(words):
                    return words
                if (texts[place] or "").endswith(".py"):
                    return [Word("python", words[place].line, ["python"]), *words[place:]]
                words = words[place:]
            else:
                return words
        return words

    def _after(self, name: str, words: list[Word], texts: list[str | None], start: Start) -> int:
        """The place of the program that the one of that name starts; what it sets goes into `start`."""
        place = 1
        while place < len(words) and words[place].start.startswith("-"):
            place += 1
        place += _BEFORE[name] + (name == "nice" and texts[1:2] == ["-n"])
        while name == "env" and place < len(words) and (found := _assigned(words[place])) is not None:
            start.env[found[0]] = found[1]
            place += 1
        return place

    def _other(self, program: str, line: int) -> None:
        self._others.setdefault(program, []).append(line)

    def _install(self, texts: list[str | None], where: Where) -> None:
        found, waiting = [], ""
        for text in texts:
            if text is None:
                self._imported.leave("an argument of pip install", ONLY_RUNNING, where)
                waiting = ""
            elif waiting:
                found.append(f"{waiting} {shlex.quote(text)}")
                waiting = ""
            elif text in _PIP_WITH_VALUE:
                waiting = text
            elif text.startswith("-"):
                option, equals, value = text.partition("=")
                if equals:
                    found.append(f"{option}={shlex.quote(value)}")
            elif re.match(r"\.{1,2}(/|\[|$)", text):  # a project, installed or in place
                found.append(f"-e {shlex.quote(text)}")
            elif canonicalize_name(text) not in ("pip", "setuptools", "wheel"):
                found.append(text)
        lines = ((where.line or 0, line) for line in found)
        read_lines(lines, self._path, self._read, self._imported, started_anywhere=True)

    def _started(self, program: str, words: list[Word], start: Start, command: Command) -> bool:
        """Add a command that starts something; returns whether it is known what that is."""
        start.command = [program]
        if program not in (*_STARTERS, "python"):
            first = words[0].value(self._variables.known) if words else None
            start.script = program if first is None else f"{program} {first}"
        if not start.add(words, self._variables):
            return False
        otherwise = _OTHERWISE.search(start.script) is not None
        start.score = 2 * (program in _STARTERS) + 2 * may_train(start.script) - otherwise - command.depends
        self._starts.append(start)
        return True

    def _choose(self) -> None:
        """Take the likeliest command for the trainer, and the others for commands beside it."""
        if not self._starts:
            return
        imported = self._imported
        trainer = max(self._starts, key=lambda one: one.score)
        imported.command, imported.options = trainer.command, trainer.options
        for name, word in trainer.env.items():
            value = word.value({**self._variables.defaults, **self._variables.known})
            if value is None:
                imported.leave(name, ONLY_RUNNING, self._where(trainer.line))
            else:
                self._set(name, value, self._where(trainer.line))
        for what, why, line in trainer.lost:
            imported.leave(what, why, self._where(line))
        whole = [trainer.with_defaults()]
        for start in (one for one in self._starts if one is not trainer):
            command = start.with_defaults()
            if command in whole:
                continue
            whole.append(command)
            if len(imported.commands) >= _MOST_COMMANDS or len(command) < 2:
                self._other(start.command[0], start.line)
                continue
            imported.commands[_command_name(start.script, imported.commands)] = command
            for what, why, line in start.lost:
                imported.leave(what, why.replace("[trainer]", "[commands]"), self._where(line))

    def _say_others(self) -> None:
        if not self._others:
            return
        programs = []
        for program, lines in self._others.items():
            numbers = list(dict.fromkeys(lines))
            text = ", ".join(map(str, numbers[:5])) + (" and more" if numbers[5:] else "")
            programs.append(f"{safe_excerpt(program)[:40]} ({'line' if len(numbers) == 1 else 'lines'} {text})")
        why = "only variables, pip install and what is started are carried over"
        more = f" and {len(programs) - 8} more" if programs[8:] else ""
        first = min(line for lines in self._others.values() for line in lines)
        self._imported.leave(", ".join(programs[:8]) + more, why, self._where(first))


def _unknown(word: Word, command: Command) -> str:
    """Why a variable that is exported has no value here."""
    if command.depends:
        return "it is set under a condition only"
    cores = re.search(r"nproc|ncpu|cpu_count|perflevel", word.text) is not None
    return ONLY_RUNNING + ('; a profile can say { detect = "usable-cores" }' if cores else "")


def _of_pip(program: str, texts: list[str | None]) -> list[str | None] | None:
    """The arguments of `pip install`, however pip is started; None for any other command."""
    if program == "uv" and texts[:1] == ["pip"]:
        texts = texts[1:]
    elif _PYTHON.fullmatch(program) and texts[:2] == ["-m", "pip"]:
        texts = texts[2:]
    elif program.rpartition("/")[2] not in ("pip", "pip3"):
        return None
    return texts[1:] if texts[:1] == ["install"] else None


def _is_setup(program: str, texts: list[str | None]) -> bool:
    """Whether a command only makes an environment, or says what there is."""
    if program == "uv":
        return texts[:1] in (["venv"], ["lock"], ["self"])
    if not _PYTHON.fullmatch(program):
        return False
    return texts[:1] in (["-V"], ["--version"]) or texts[:2] in (["-m", "venv"], ["-m", "virtualenv"])


def _trains(program: str, texts: list[str | None]) -> bool:
    """Whether a program of the environment is a trainer, by its name or its first argument."""
    if program in (*_IGNORED, *_OF_FILES) or not re.fullmatch(r"[A-Za-z][\w.-]*", program) or program.endswith(".sh"):
        return False
    if re.search(r"(^|[-_])(pre)?train(er|ing)?($|[-_])", program):
        return True
    return re.fullmatch(r"(pre)?train|sft|finetune|fit|rl|grpo|dpo", (texts or [None])[0] or "") is not None


def _is_program(text: str) -> bool:
    last = text.rpartition("/")[2]
    return bool(_PYTHON.fullmatch(text)) or last in (*_STARTERS, *_RUNNERS, *_BEFORE, "bash") or "train" in last


def _script(program: str, texts: list[str | None]) -> str | None:
    """The shell script that a command starts."""
    if program.endswith(".sh"):
        return program
    first = texts[0] if texts and program.rpartition("/")[2] in ("bash", "sh", "zsh") else None
    return first if first and not first.startswith("-") else None


def _assigned(word: Word) -> tuple[str, Word] | None:
    """The variable and value of an argument of env(1); None for any other word."""
    found = re.match(rf"({NAME})=", word.start)
    if found is None:
        return None
    pieces = [piece for piece in (word.start[found.end() :], *word.pieces[1:]) if piece != ""]
    return found[1], Word(word.text, word.line, pieces, word.opaque)


def _after_options(texts: list[str | None], place: int) -> int:
    """The place of the program after the options of `uv run` and the like; the end where they change its packages."""
    while place < len(texts) and (text := texts[place] or "").startswith("-"):
        if text.startswith("--with"):
            return len(texts)
        place += 1 + (text in _RUN_WITH_VALUE)
        if text == "--":
            break
    return place


def _command_name(script: str, taken: dict[str, list[str]]) -> str:
    """A name for a command, from its script, module or program.

    >>> _command_name("scripts.base_eval", {}), _command_name("src/Eval.py", {}), _command_name("train.py", {})
    ('base-eval', 'eval', 'train-2')
    """
    last = script.split()[-1].removesuffix(".py").rpartition("/")[2].rpartition(".")[2]
    plain = re.sub(r"[^a-z0-9]+", "-", last.lower()).strip("-")[:40].strip("-")
    base = plain if re.match(NAME_PATTERN, plain) else "command"
    name, number = base, 1
    while name in taken or name == "train":
        number += 1
        name = f"{base}-{number}"
    return name
