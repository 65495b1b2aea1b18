"""What a profile of a source would run, for a person to look at before it does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from builder.profile.model import Packages, Profile, Trainer
from builder.project.catalogue import Catalogue
from builder.script.quoting import comment


@dataclass(frozen=True)
class Review:
    """A profile, the sources that have a part in it with their folders, and the digest that is agreed to."""

    name: str
    profile: Profile
    sources: dict[str, tuple[str, Path]]
    content: str | None

    def lines(self) -> Iterator[str]:
        """All that it would run, a line each; nothing in it can steer a terminal."""
        for source, (place, folder) in self.sources.items():
            yield f"{self.name} is made of what the source {source} has ({comment(place)}):"
            yield f"  files    {folder}"
        profile = self.profile
        for patch in profile.patches:
            yield f"  patch    {patch.file} changes {patch.package} {patch.versions}: {comment(patch.why)}"
        for patch in profile.patches:
            yield f"  proof    {patch.proof}"
        for check in profile.checks:
            yield f"  check    {check.file}: {comment(check.why)}"
        yield from _of_trainer(profile.trainer)
        if profile.bench is not None and profile.bench.file is not None:
            yield f"  bench    {profile.bench.file}"
        for name, setting in profile.env.items():
            value = setting.value if setting.value is not None else setting.default
            yield f"  env      {name}={comment(value)}" if value is not None else f"  env      {name} is unset"
        for name, one in profile.data.items():
            yield f"  data     {name}: {comment(one.hub or one.url or one.folder or '')}"
        for name, url in profile.indexes.items():
            yield f"  index    {name}: {comment(url)}"
        yield from _built(profile.packages)


def _built(packages: Packages) -> Iterator[str]:
    if packages.build:
        yield f"  builds   {', '.join(sorted(packages.build))} from source"
    yield from (f"  builds   {comment(text)}" for text in packages.requires if " @ " in text)


def _of_trainer(trainer: Trainer) -> Iterator[str]:
    """What is run as the trainer, and with what arguments."""
    words = trainer.command if trainer.command is not None else ["python", trainer.file or ""]
    yield f"  trainer  {comment(' '.join(map(str, [*words, *trainer.arguments])))}"
    if trainer.source is not None:
        yield f"  code     {comment(str(trainer.source.place))}"
    for option in trainer.options:
        yield f"  option   {comment(option.flag)} from {option.source}"
    for variable, modes in trainer.modes.items():
        for value, mode in modes.items():
            yield f"  mode     {variable}={value}: {comment(' '.join(mode.arguments))}"


def review(name: str, catalogue: Catalogue) -> Review:
    """What the profile `name` would run. Raises ProfileError."""
    entry = catalogue.entry(name)
    content = entry.content
    sources = {source: catalogue.place_of(source) for source in sorted(entry.sources)}
    return Review(name, entry.profile, sources, content)
