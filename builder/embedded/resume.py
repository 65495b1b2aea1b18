"""The newest whole checkpoint of a trainer, to go on from: one that a kill left half-written is passed over."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

PLACE = "{checkpoint}"


class Found(NamedTuple):
    """What a search found: `arguments` to add, and the checkpoint, relative to the folder of the trainer; or none.

    `passed_over` are the newer ones that are not whole.
    """

    arguments: list[str]
    path: Path | None
    passed_over: list[Path]


@dataclass(frozen=True)
class Resume:
    """The arguments `words` where one of the paths that match `newest` is whole, with the newest of those, relative to
    the folder of the trainer, in place of "{checkpoint}".

    A whole one is a file, or a folder that has all of `has`. That folder is the working directory, or `copy` in
    it, where that does not have what the trainer `needs` (templates/_source.sh.j2, enter_source). `built` is when the
    environment was built, in seconds since 1970.
    """

    words: tuple[str, ...]
    newest: str
    has: tuple[str, ...] = ()
    copy: str = ""
    needs: str = ""
    built: float = 0.0

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Resume:
        """The one that `dataclasses.asdict` made plain data of."""
        return cls(**{**data, "words": tuple(data["words"]), "has": tuple(data["has"])})

    def is_foreign(self, path: Path) -> bool:
        """Whether a checkpoint was there before the environment: one of another key wrote it, or it was copied."""
        files = [path, *path.rglob("*")]
        try:
            return max(file.stat().st_mtime for file in files) < self.built
        except OSError:
            return False

    def place(self, folder: Path) -> Path:
        """The folder of the trainer, for a working directory."""
        return folder / self.copy if self.copy and not (self.needs and (folder / self.needs).exists()) else folder

    def arguments(self, path: str) -> list[str]:
        """The arguments with which the trainer goes on from a checkpoint."""
        return [word.replace(PLACE, path) for word in self.words]

    def find(self, given: Sequence[str], folder: Path) -> Found:
        """What to add to the arguments that are `given`: nothing, where they say themselves what to go on from."""
        names = {word.partition("=")[0] for word in self.words if not word.startswith(PLACE)}
        if any(word.partition("=")[0] in names for word in given):
            return Found([], None, [])
        folder = self.place(folder)
        passed_over: list[Path] = []
        for path in sorted(folder.glob(self.newest), key=_age, reverse=True):
            if is_whole(path, self.has):
                relative = path.relative_to(folder)
                return Found(self.arguments(str(relative)), relative, passed_over)
            passed_over.append(path.relative_to(folder))
        return Found([], None, passed_over)


def _age(path: Path) -> tuple[int, float]:
    """The last number of the name, as steps are counted; the time where there is none."""
    numbers = re.findall(r"[0-9]+", path.name)
    try:
        changed = path.stat().st_mtime
    except OSError:
        changed = 0.0
    return int(numbers[-1]) if numbers else -1, changed


def is_whole(path: Path, has: Sequence[str] = ()) -> bool:
    """Whether a checkpoint is all there, as far as its files say themselves: they are not empty, those of safetensors
    are as long as their heads say, those of torch.save have their end, and those of JSON can be read.
    """
    try:
        if path.is_dir():
            files = [file for file in path.rglob("*") if file.is_file()]
            return bool(files) and all((path / name).exists() for name in has) and all(map(_is_whole_file, files))
        return _is_whole_file(path)
    except OSError:
        return False


def _is_whole_file(path: Path) -> bool:
    size = path.stat().st_size
    if path.suffix == ".safetensors":
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= size - 8:
                return False
            try:
                head = json.loads(file.read(length))
                ends = [one["data_offsets"][1] for name, one in head.items() if name != "__metadata__"]
            except (ValueError, TypeError, KeyError, IndexError, AttributeError):
                return False
        return size == 8 + length + max(ends, default=0)
    if path.suffix in (".pt", ".pth", ".bin", ".ckpt"):
        with path.open("rb") as file:
            # Before 1.6, and by Python's pickle, it is no archive, and has no end that could be looked for.
            return size > 0 and (file.read(2) != b"PK" or zipfile.is_zipfile(file))
    if path.suffix == ".json":
        try:
            json.loads(path.read_bytes())
        except ValueError:
            return False
    return size > 0 or path.suffix not in (".json", ".npz", ".npy")
