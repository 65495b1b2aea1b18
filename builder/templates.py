"""What the renderer needs from disk: the templates, and the code that scripts carry."""

from __future__ import annotations

import inspect

from jinja2 import FileSystemLoader

from builder import integrity, patch, stage
from builder.folders import shipped
from builder.plan import Plan
from builder.render import Carried, render, render_run_script


def rendered(plan: Plan) -> dict[str, str]:
    """All generated files of a plan: file name to text."""
    return render(plan, FileSystemLoader(shipped("templates")), _carried())


def rendered_run_script(plan: Plan) -> str:
    """The run script of a plan."""
    return render_run_script(plan, FileSystemLoader(shipped("templates")), _carried())


def _carried() -> Carried:
    return Carried(*(inspect.getsource(module) for module in (patch, stage, integrity)))
