"""What the renderer needs from disk: the templates, and the code that scripts carry."""

from __future__ import annotations

import itertools
from functools import cache

from jinja2 import Environment, FileSystemLoader

from builder.resources import shipped, version
from builder.script import machinery
from builder.script.plan import Plan
from builder.script.quoting import environment
from builder.script.render import Carried, render, render_batch_script, render_bundle_head, render_run_script


def rendered(plan: Plan, carried: Carried | None = None, *, standalone: bool = False) -> dict[str, str]:
    """All generated files of a plan: file name to text; `carried` is what they carry, where it is known."""
    return render(plan, templates(), carried or make_carried(), standalone=standalone)


def rendered_run_script(plan: Plan, carried: Carried | None = None) -> str:
    """The run script of a plan."""
    return render_run_script(plan, templates(), carried or make_carried())


def rendered_batch_script(plan: Plan, carried: Carried | None = None) -> str:
    """The batch script of a plan, for Slurm."""
    return render_batch_script(plan, templates(), carried or make_carried(), machinery.as_one_file(["resume"]))


def rendered_bundle_head(plan: Plan, bundle: object) -> str:
    """The script that a bundle begins with; `bundle` is what templates/bundle.sh.j2 says of what follows."""
    return render_bundle_head(plan, templates(), make_carried(), bundle)


@cache
def templates() -> Environment:
    """The templates; each is compiled once, which takes longer than to render it."""
    return environment(FileSystemLoader(shipped("templates")))


@cache
def make_carried() -> Carried:
    """What every script carries, made from builder/embedded/."""
    patches = machinery.as_one_file(["errors", "hashes", "installed", "patches"])
    counts = range(len(machinery.PARTS) + 1)
    chosen = [parts for count in counts for parts in itertools.combinations(sorted(machinery.PARTS), count)]
    variants = {"+".join(parts): [machinery.encoded(parts), machinery.digest(parts)] for parts in chosen}
    return Carried(variants, version(), patches, machinery.strict())
