"""Profiles made of what is there: requirement files, projects, locks of others, conda, a venv, a shell script.

One reader per format, each `text -> Imported`: it runs nothing, fetches nothing, and says what it leaves out, item by
item. `write` makes the text of a profile from that; `workflow` does the rest.
"""

from builder.author.importing.workflow import Options, import_profile

__all__ = ["Options", "import_profile"]
