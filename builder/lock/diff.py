"""What differs between two environments: `drydock diff`. Pure; `builder.project.refs` finds the two.

`--json` prints one object; its keys stay as they are:

    before, after     each {"name", "kind", "packages", "size"}: what was compared, as the user named it; a profile,
                      generation, lock or revision; how many packages, and the bytes to download
    packages          the lists of what differs; each entry is {"name", "change", "before", "after"}, where change is
    build-requires    added, removed or changed, and before or after is null where there is none. Of a package, and of
    python            the Python that is locked: {"version", "file", "sha256", "size"}; of a patch {"package",
    patches           "sha256"}; of an override its requirement and reason; of an environment variable what the profile
    overrides         says of it; of the others
    overlap           the plain value: of `interpreter` what the Python says of itself that a generation was built on
    target, env
    interpreter
    trainer
    data

A list is null where one of the two does not know such things: a lock knows no environment variables, a generation no
overrides, and only a generation an interpreter. A `size` is null where it is not known: a generation keeps none.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from builder.lock.model import Artefact, Lock, LockedOverride
from builder.lock.sizes import size
from builder.lock.tree import Branch
from builder.profile.detect import Choice, Detect
from builder.profile.model import Profile

PARTS = (
    "packages",
    "build-requires",
    "python",
    "patches",
    "overlap",
    "overrides",
    "target",
    "interpreter",
    "env",
    "trainer",
    "data",
)
"""The parts that are compared, in the order of the output."""

_RARE = ("python", "overlap", "interpreter", "data")

Part = Mapping[str, Any]
"""The things of one part by name, each in plain JSON types."""


@dataclass(frozen=True)
class Side:
    """One of the two: `name` as the user wrote it, `kind` what that is, `parts` what is known of it.

    `lock` is the lock behind it, if there is one.
    """

    name: str
    kind: str
    parts: Mapping[str, Part]
    lock: Lock | None = None

    @property
    def size(self) -> int | None:
        """Bytes to download for all packages; None where that is not known."""
        sizes = [one["size"] for part in ("packages", "python") for one in self.parts.get(part, {}).values()]
        return None if None in sizes else sum(sizes)

    def as_json(self) -> dict[str, Any]:
        """What it is, in plain JSON types."""
        return {"name": self.name, "kind": self.kind, "packages": len(self.parts["packages"]), "size": self.size}


def side_of_lock(name: str, kind: str, lock: Lock) -> Side:
    """A lock by itself."""
    parts: dict[str, Part] = {
        "packages": {package.name: _artefact(package) for package in lock.packages},
        "build-requires": {package.name: _artefact(package) for package in lock.build_requires},
        "python": {lock.python.name: _artefact(lock.python)} if lock.python else {},
        "patches": {patch.file: {"package": patch.package, "sha256": patch.sha256} for patch in lock.patches},
        "overrides": {one.package: one.model_dump() for one in lock.overrides},
        "data": {one.name: {"commit": one.commit, "sha256": one.sha256, "size": one.size} for one in lock.data},
    }
    return Side(name, kind, parts, lock)


def side_of_profile(name: str, profile: Profile, lock: Lock) -> Side:
    """A profile with its lock."""
    target = profile.target.model_dump(by_alias=True, exclude_none=True, exclude={"match"})
    trainer = profile.trainer.model_dump(by_alias=True, exclude_none=True, exclude={"options", "modes"})
    options: dict[str, list[dict[str, Any]]] = {}
    for option in profile.trainer.options:  # one flag may have several, each with its own `when`
        plain = {"flag"} if option.hidden else {"flag", "hidden"}
        said = option.model_dump(by_alias=True, exclude_none=True, exclude=plain)
        options.setdefault(option.flag, []).append(said)
    parts = {
        "target": {**target, "python": profile.python.version},
        # What is acknowledged reaches no trainer.
        "env": {key: one.model_dump(exclude_none=True, exclude={"acknowledge"}) for key, one in profile.env.items()},
        "trainer": {**{key: value for key, value in trainer.items() if value}, **options, **_modes(profile)},
        "overlap": profile.packages.overlap,
    }
    return Side(name, "profile", {**side_of_lock(name, "profile", lock).parts, **parts}, lock)


def side_of_manifest(name: str, manifest: Mapping[str, Any]) -> Side:
    """A generation, from the manifest of its environment. Raises KeyError or TypeError where it is none."""
    plan = manifest["plan"]
    parts = {
        "packages": {package["name"]: _file_fields(package) for package in plan["packages"]},
        "build-requires": {package["name"]: _file_fields(package) for package in plan["build-requires"]},
        "python": {python["name"]: _file_fields(python)} if (python := plan.get("python-build")) else {},
        "patches": {
            patch["file"]: {"package": patch["package"], "sha256": patch["sha256"]} for patch in plan["patches"]
        },
        "overlap": plan.get("overlap", {}),
    }
    # The same key may have been built on another patch release, or on a Python that somebody else has compiled.
    if built := manifest.get("interpreter-build") or manifest.get("interpreter"):
        parts["interpreter"] = {"Python": built}
    return Side(name, "generation", parts)


def _artefact(package: Artefact) -> dict[str, Any]:
    return _file_fields(package.model_dump(include={"version", "file", "sha256", "size"}))


def _file_fields(package: Mapping[str, Any]) -> dict[str, Any]:
    return {**{key: package[key] for key in ("version", "file", "sha256")}, "size": package.get("size")}


@dataclass(frozen=True)
class Change:
    """One thing that differs; `before` or `after` is None where there is none."""

    name: str
    before: Any
    after: Any

    @property
    def kind(self) -> str:
        """How it differs: added, removed or changed."""
        return "added" if self.before is None else "removed" if self.after is None else "changed"

    def as_json(self) -> dict[str, Any]:
        """The change in plain JSON types."""
        return {"name": self.name, "change": self.kind, "before": self.before, "after": self.after}


MARK = {"added": "+", "removed": "-", "changed": "~"}


class Row(NamedTuple):
    """A change in words: `kind` is that of `Change`; `short` and how much it has `grown` are for a terminal."""

    kind: str
    name: str
    words: str
    short: str
    grown: str = ""

    def line(self) -> str:
        """All of it, led by its sign."""
        return " ".join(filter(None, (MARK[self.kind], self.name, self.words)))


def row(kind: str, name: str, words: str) -> Row:
    """A change whose words are short."""
    return Row(kind, name, words, words)


class Block(NamedTuple):
    """The changes of one part, below what it is called."""

    title: str
    rows: Sequence[Row]

    def lines(self) -> Iterator[str]:
        """The block as text."""
        yield self.title
        yield from (f"  {row.line()}" for row in self.rows)

    def branch(self) -> Branch:
        """The block as a part of a tree."""
        return Branch(self.title, [Branch(row.line(), kind=row.kind) for row in self.rows], "head")


@dataclass(frozen=True)
class Difference:
    """All that differs: `changes` by part, sorted by name; None for a part that one of the two does not know."""

    before: Side
    after: Side
    changes: Mapping[str, Sequence[Change] | None]

    @property
    def unknown(self) -> list[str]:
        """The parts that could not be compared, but for those that few have."""
        return [part for part, changes in self.changes.items() if changes is None and part not in _RARE]

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        parts = {
            part: None if changes is None else [change.as_json() for change in changes]
            for part, changes in self.changes.items()
        }
        return {"before": self.before.as_json(), "after": self.after.as_json(), **parts}

    def lines(self) -> Iterator[str]:
        """The difference as text: a head, and a block for each part in which something differs."""
        yield self.head
        for block in self.blocks():
            yield from block.lines()

    @property
    def head(self) -> str:
        """What was compared, and whether anything differs."""
        before, after = self.before.name, self.after.name
        return f"{before} -> {after}" if any(self.changes.values()) else f"{before} and {after}: no difference"

    def blocks(self) -> Iterator[Block]:
        """A block for each part in which something differs."""
        for part, changes in self.changes.items():
            if changes:
                yield Block(f"{part}: {self._head(part, changes)}", [_row(part, change) for change in changes])

    def markdown(self) -> Iterator[str]:
        """The difference for a pull request: packages as a table, the other parts as blocks of a diff."""
        if not any(self.changes.values()):
            yield f"`{self.before.name}` and `{self.after.name}`: no difference"
            return
        yield f"**`{self.before.name}` → `{self.after.name}`**"
        for part, changes in self.changes.items():
            if not changes:
                continue
            yield from ("", f"{part}: {self._head(part, changes)}", "")
            if part in ("packages", "build-requires"):
                yield from ("| package | before | after |", "| --- | --- | --- |")
                yield from (f"| {one.name} | {_version(one.before)} | {_version(one.after)} |" for one in changes)
            else:  # a value has no line of its own that could end the block
                yield "````diff"
                yield from (re.sub("^~", "!", _row(part, change).line()) for change in changes)
                yield "````"

    def _head(self, part: str, changes: Sequence[Change]) -> str:
        kinds = [change.kind for change in changes]
        counts = [f"{kinds.count(kind)} {kind}" for kind in ("added", "removed", "changed") if kind in kinds]
        if part == "packages":
            counts.append(f"{len(self.before.parts[part])} -> {len(self.after.parts[part])}")
            if self.before.size is not None and self.after.size is not None:
                counts.append(f"{size(self.before.size)} -> {size(self.after.size)}")
        return ", ".join(counts)


def compare(before: Side, after: Side) -> Difference:
    """What differs from `before` to `after`. A package is the same where its file is, by sha256.

    >>> one = Side("old", "lock", {"packages": {}, "env": {"A": {"value": "1"}}})
    >>> other = Side("new", "lock", {"packages": {}, "env": {"A": {"default": "1"}, "B": {"value": "x y"}}})
    >>> print("\\n".join(compare(one, other).lines()))
    old -> new
    env: 1 added, 1 changed
      ~ A 1 -> 1 unless set
      + B 'x y'
    """
    changes: dict[str, Sequence[Change] | None] = {}
    for part in PARTS:
        old, new = before.parts.get(part), after.parts.get(part)
        changes[part] = None if old is None or new is None else _changes(old, new)
    return Difference(before, after, changes)


def _changes(old: Part, new: Part) -> list[Change]:
    return [
        Change(name, old.get(name), new.get(name))
        for name in sorted(old.keys() | new.keys())
        if _identity(old.get(name)) != _identity(new.get(name))
    ]


def _identity(thing: Any) -> Any:
    """What makes two of them the same; a size is only known of some."""
    return {key: thing[key] for key in thing if key != "size"} if isinstance(thing, dict) else thing


def _row(part: str, change: Change) -> Row:
    before, after = change.before, change.after
    if part in ("packages", "build-requires", "python"):
        return _package_row(change)
    if part == "patches":
        return row(change.kind, _word(change.name), f"({_word((after or before)['package'])})")
    if part == "overrides":  # each names its package itself
        return row(change.kind, "", " -> ".join(_override(one) for one in (before, after) if one is not None))
    form = _setting if part == "env" else _content if part == "data" else _value
    return row(change.kind, change.name, " -> ".join(form(value) for value in (before, after) if value is not None))


def _content(data: Mapping[str, Any]) -> str:
    commit = f"{data['commit'][:12]}, " if data["commit"] else ""
    return f"{commit}sha256 {data['sha256'][:12]} ({size(data['size'])})"


def _package_row(change: Change) -> Row:
    sizes = [one["size"] if one else 0 for one in (change.before, change.after)]
    more = 0 if None in sizes else sizes[1] - sizes[0]
    grown = f"{'+' if more > 0 else '-'}{size(abs(more))}" if more else ""
    if change.kind == "changed":
        words = " -> ".join(map(size, sizes)) if grown else ""
    else:
        words = size((change.after or change.before)["size"])
    return Row(
        change.kind,
        change.name,
        _versions(change, _tags) + _bracketed(words),
        _versions(change, _differing_tags),
        grown,
    )


def _versions(change: Change, tags: Callable[[str, str], tuple[str, str]]) -> str:
    before, after = change.before, change.after
    if before is None or after is None:
        return str((after or before)["version"])
    if before["version"] != after["version"]:
        return f"{before['version']} -> {after['version']}"
    if before["file"] != after["file"]:
        return f"{before['version']}: {' -> '.join(tags(before['file'], after['file']))}"
    return f"{before['version']}: {before['file']}, sha256 {before['sha256'][:8]}... -> {after['sha256'][:8]}..."


def _version(package: Mapping[str, Any] | None) -> str:
    if package is None:
        return ""
    much = size(package["size"])
    return f"{package['version']} ({much})" if much else str(package["version"])


def _tags(*files: str) -> tuple[str, str]:
    """The tags in the file names of two wheels, without name and version; the whole name of another file."""
    before, after = (file.split("-", 2)[-1].removesuffix(".whl") if file.endswith(".whl") else file for file in files)
    return before, after


def _differing_tags(before: str, after: str) -> tuple[str, str]:
    """The tags that differ between two wheels, the first where one tag stands for several.

    >>> _differing_tags("a-1-cp311-cp311-macosx_11_0_arm64.whl", "a-1-cp311-cp311-linux_x86_64.any.whl")
    ('macosx_11_0_arm64', 'linux_x86_64')
    """
    old, new = (whole.split("-") for whole in _tags(before, after))
    pairs = [pair for pair in zip(old, new, strict=False) if pair[0] != pair[1]]
    if not before.endswith(".whl") or not after.endswith(".whl") or len(old) != len(new):
        return _tags(before, after)
    firsts = ["-".join(tag.partition(".")[0] for tag in tags) for tags in zip(*pairs, strict=True)]
    return _tags(before, after) if firsts[0] == firsts[1] else (firsts[0], firsts[1])


def _bracketed(words: str) -> str:
    return f"  ({words})" if words else ""


def _modes(profile: Profile) -> dict[str, list[str]]:
    """What each mode adds, by how it is asked for."""
    return {
        f"{variable}={value}": mode.arguments
        for variable, modes in profile.trainer.modes.items()
        for value, mode in modes.items()
    }


def _override(override: Mapping[str, str]) -> str:
    return str(LockedOverride.model_validate(override))


def _setting(setting: Mapping[str, Any]) -> str:
    note = " (with a note)" if "note" in setting else ""
    if "unset" in setting:
        return f"unset{note}"
    if "default" in setting:
        return f"{_word(setting['default'])} unless set{note}"
    return _word(setting["value"]) + note


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _word(value)
    if isinstance(value, int):
        return str(value)
    if all(isinstance(item, str) or "detect" in item for item in value):
        return " ".join(map(_word, value))
    return "; ".join(", ".join(f"{key} {_word(text)}" for key, text in option.items()) for option in value)


def _word(text: str | Mapping[str, Any]) -> str:
    """A value as a shell would take it; on one line, whatever is in it."""
    if not isinstance(text, str):
        return f"({Choice.model_validate(text) if 'then' in text else Detect.model_validate(text)})"
    return shlex.quote(text) if text.isprintable() else json.dumps(text)
