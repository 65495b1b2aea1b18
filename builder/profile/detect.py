"""A value that a script finds out on the machine where it runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_serializer, model_validator

from builder.profile.fields import COUNT, Model, Text

Found = Literal["performance-cores", "usable-cores", "memory-gb", "gpu-count"]
_COUNTED = {
    "performance-cores": "performance cores",
    "usable-cores": "usable cores",
    "memory-gb": "GB of memory",
    "gpu-count": "GPUs",
}
_Line = Annotated[Text, Field(pattern=r"^[^\n]*$")]


class Detect(Model):
    """A whole number that the script finds out on the machine where it runs: so much of what is there.

    `fraction` is taken first, in hundredths and rounded down, then `minus`; the result is at least `min` (for cores 1,
    else 0) and at most `max`. Where the machine does not tell, it is `fallback`, as it stands.

    performance-cores: physical cores for performance, as far as this process may use them
    usable-cores: processors that this process may use, by its affinity and the quota of its control groups
    memory-gb: GiB of memory, or of what the control groups allow, rounded down
    gpu-count: GPUs that nvidia-smi lists
    """

    detect: Found
    """What is looked for."""
    fallback: int = Field(ge=0, le=COUNT, strict=True)
    """What it is where the machine does not tell."""
    fraction: float = Field(default=1.0, gt=0, le=1, strict=True)
    """So much of what was found, in hundredths, rounded down."""
    minus: int = Field(default=0, ge=0, le=COUNT, strict=True)
    """Taken off after `fraction`."""
    min: int | None = Field(default=None, ge=0, le=COUNT, strict=True)
    """At least so many; for cores 1, else 0."""
    max: int | None = Field(default=None, ge=0, le=COUNT, strict=True)
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


class Choice(Model):
    """One of two texts, by what the script finds out on the machine where it runs.

    `then` where there are at least so many of what `detect` names, `otherwise` where there are fewer, or where the
    machine does not tell.
    """

    detect: Found
    """What is looked for."""
    at_least: int = Field(alias="at-least", ge=0, le=COUNT, strict=True)
    """From this number on it is `then`."""
    then: _Line
    """The value where there is so much."""
    otherwise: _Line
    """The value where there is less, or where the machine does not tell."""

    @model_serializer
    def _as_written(self) -> dict[str, Any]:
        return {"detect": self.detect, "at-least": self.at_least, "then": self.then, "otherwise": self.otherwise}

    @property
    def fallback(self) -> str:
        """What it is where the machine does not tell."""
        return self.otherwise

    def of(self, found: int | None) -> str:
        """The text that comes of what was found. The generated scripts do the same (templates/_detect.sh.j2).

        >>> Choice.model_validate({"detect": "memory-gb", "at-least": 24, "then": "a", "otherwise": "b"}).of(24)
        'a'
        """
        return self.then if found is not None and found >= self.at_least else self.otherwise

    def __str__(self) -> str:
        return f"{self.then} from {self.at_least} {_COUNTED[self.detect]} on, else {self.otherwise}"


def _kind(value: Any) -> str:
    if isinstance(value, Choice) or (isinstance(value, dict) and {"at-least", "then", "otherwise"} & value.keys()):
        return "[choice]"
    return "[detect]" if isinstance(value, dict | Detect) else "[text]"


Value = Annotated[
    Annotated[Text, Tag("[text]")] | Annotated[Detect, Tag("[detect]")] | Annotated[Choice, Tag("[choice]")],
    Discriminator(_kind),
]
"""What may stand wherever a value goes: a text, or a table with `detect`."""
