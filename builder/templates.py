"""What the renderer needs from disk: the templates, and the code that scripts carry."""

from __future__ import annotations

import inspect

from jinja2 import FileSystemLoader

from builder import caches, integrity, patch, stage
from builder.embedded import certificates, config_files, credentials, network, network_settings, web
from builder.folders import shipped
from builder.plan import Plan
from builder.render import Carried, joined, render, render_bundle_head, render_run_script


def rendered(plan: Plan) -> dict[str, str]:
    """All generated files of a plan: file name to text."""
    return render(plan, FileSystemLoader(shipped("templates")), _carried())


def rendered_run_script(plan: Plan) -> str:
    """The run script of a plan."""
    return render_run_script(plan, FileSystemLoader(shipped("templates")), _carried())


def rendered_bundle_head(plan: Plan, bundle: object) -> str:
    """The script that a bundle begins with; `bundle` is what templates/bundle.sh.j2 says of what follows."""
    return render_bundle_head(plan, FileSystemLoader(shipped("templates")), _carried(), bundle)


def _carried() -> Carried:
    asking = (config_files, network_settings, network, credentials, certificates, web, caches)
    texts = [joined(*map(inspect.getsource, asking)), *map(inspect.getsource, (patch, stage, integrity))]
    return Carried(*texts)
