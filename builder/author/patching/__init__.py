"""Make patches: open a package, edit it, commit the change to a profile."""

from builder.author.patching.commit import Committed, Options, commit
from builder.author.patching.start import abort, start

__all__ = ["Committed", "Options", "abort", "commit", "start"]
