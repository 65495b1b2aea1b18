"""Profiles from requirement files, projects, locks of other tools, conda, virtual environments, shell scripts.

One reader per format, each `text -> Imported`: it runs nothing, fetches nothing, and lists each item that it leaves
out; those of requirements are in builder/project/requirements. `write` makes the text of a profile from that;
`workflow` does the rest.
"""

from builder.author.importing.readers import Options
from builder.author.importing.workflow import import_profile

__all__ = ["Options", "import_profile"]
