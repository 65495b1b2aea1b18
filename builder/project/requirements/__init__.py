"""What others' files require: pyproject.toml and pip's requirement files, each `text -> Imported`.

Nothing is run, nothing is fetched, and each item that a profile cannot hold is listed. `drydock import` copies what is
read; `[packages] requires-from` reads it anew.
"""
