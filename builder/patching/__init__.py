"""Make patches: open a package, edit it, commit the change to a profile."""

from builder.patching.commit import Committed, Options, commit
from builder.patching.start import abort, start

__all__ = ["Committed", "Options", "abort", "commit", "start"]
