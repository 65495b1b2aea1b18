"""Whether a person has agreed to run what sources say: asked once per content, and remembered in the store.

    consents/SHA256     what was agreed to; named by the digest of the files of sources that a profile is made of

Nothing heavy is imported here: this is looked at before every run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

from builder.errors import ConsentError, DrydockError
from builder.files import write_atomically
from builder.store.layout import home


def digest(files: Iterable[tuple[str, bytes]]) -> str | None:
    """What is agreed to: of each file its name in its source, and its content. None where no source has a part in it.

    `files` are a name and a content each.
    """
    rows = sorted([name, hashlib.sha256(content).hexdigest()] for name, content in files)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest() if rows else None


def check(name: str, content: str | None) -> None:
    """Raises ConsentError where the profile `name` is made of what nobody has agreed to yet."""
    if content is not None and not (home() / "consents" / content).is_file():
        raise ConsentError(name)


def give(content: str, about: Mapping[str, object]) -> None:
    """Remember that somebody has agreed. Raises DrydockError where the store cannot be written to."""
    try:
        write_atomically(home() / "consents" / content, json.dumps(about, indent=1) + "\n")
    except OSError as error:
        raise DrydockError(
            f"{home()} cannot be written: {error.strerror}", hint="set DRYDOCK_HOME to a folder of your own"
        ) from None
