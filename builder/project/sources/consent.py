"""Whether a person has agreed to run what sources say: asked once per content, and remembered in the store.

    consents/SHA256     what was agreed to; named by the digest of the files of sources that a profile is made of

Whoever starts code of others takes a Consent as an argument, and only this makes one. Nothing heavy is imported here:
it is looked at before every run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from builder.consent import Builds, Consent
from builder.errors import ConsentError, DrydockError
from builder.files import write_atomically
from builder.store.layout import home

if TYPE_CHECKING:
    from builder.project.catalogue import Entry


def digest(files: Iterable[tuple[str, bytes]]) -> str | None:
    """What is agreed to: of each file its name in its source, and its content. None where no source has a part in it.

    `files` are a name and a content each.
    """
    import hashlib  # here, because most profiles have no source

    rows = sorted([name, hashlib.sha256(content).hexdigest()] for name, content in files)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest() if rows else None


class _Given(Consent):
    def __init__(self, profile: str) -> None:
        self._profile = profile

    @property
    def profile(self) -> str:
        return self._profile


def check(name: str, content: str | None) -> Consent:
    """The consent to run what the profile `name` is made of; `content` is the digest of what sources have in it.

    Raises ConsentError where nobody has agreed to that yet.
    """
    if content is not None and not (home() / "consents" / content).is_file():
        raise ConsentError(name)
    return _Given(name)


def for_builds(entry: Entry) -> Builds:
    """The same, for what the profile lets build from source; None, where that is nothing, asks nobody.

    Raises ConsentError.
    """
    packages = entry.profile.packages
    # A place has a source, as a rule.
    runs = packages.build or any(" @ " in text for text in packages.requires)
    return check(entry.name, entry.content) if runs else None


def of_environment(store_name: str) -> Consent:
    """The consent to run again what was built here: whoever did that had agreed, or ran its script themselves.

    Raises ConsentError where the store has no such environment, and no generation stood for one.
    """
    from builder.store import generations
    from builder.store.layout import Store

    if not Store.here().path(store_name).is_dir() and not generations.of_store_name(store_name):
        raise ConsentError(store_name.partition("-")[2])
    return _Given(store_name)


def of_run(store_name: str) -> Consent:
    """The consent to run again what has run here, by its record, which is the user's own: whoever ran it had agreed."""
    return _Given(store_name)


def give(content: str, about: Mapping[str, object]) -> None:
    """Remember that somebody has agreed. Raises DrydockError where the store cannot be written to."""
    try:
        write_atomically(home() / "consents" / content, json.dumps(about, indent=1) + "\n")
    except OSError as error:
        raise DrydockError(
            f"{home()} cannot be written: {error.strerror}", hint="set DRYDOCK_HOME to a folder of your own"
        ) from None
