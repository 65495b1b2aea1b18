"""pip's requirement file of a plan, with hashes: for `pip install --require-hashes --no-deps` and `uv pip sync`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from builder.embedded.plan import pinned
from builder.script.plan import Plan
from builder.share.export.header import first_lines


def requirements(plan: Plan, local: Mapping[str, Path]) -> str:
    """The requirement file, one line per locked file.

    A package from an index of its own is found through the page of that index about it, as a place for links: neither
    pip nor uv can tie a package to an index in such a file, and an extra index would be asked for all the others too.
    `local` has the files that are in a folder, by name: that is their place then.
    """
    profile = plan.profile
    lines = first_lines(plan)
    lines += ["# pip install --require-hashes --no-deps -r THIS_FILE, or: uv pip sync --require-hashes THIS_FILE"]
    places = [path.parent.as_uri() for path in local.values()]
    places += [
        f"{profile.index_url(package.index).rstrip('/')}/{package.name}/"
        for package in plan.lock.packages
        if package.index is not None and package.file not in local
    ]
    lines += [f"--find-links {place}" for place in dict.fromkeys(places)]
    lines += [pinned(package) for package in plan.content["packages"]]
    return "".join(f"{line}\n" for line in lines)
