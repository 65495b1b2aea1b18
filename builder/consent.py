"""That somebody has agreed to run what others wrote: a value, which whatever runs it asks for.

A build of a source distribution, a proof, a check and a trainer are code of others. Where one is started, a Consent is
an argument, so that the type checker finds the caller that forgot to ask. builder/project/sources/consent.py makes
them, and nothing else does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod


class Consent(ABC):
    """Somebody has agreed to run the code of a profile, or it is the user's own."""

    @property
    @abstractmethod
    def profile(self) -> str:
        """Return the name of the profile, or of the environment, that was agreed to."""


Builds = Consent | None
"""With a consent, source distributions may be built; with None nothing of theirs is run, and wheels alone are taken."""
