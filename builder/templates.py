"""What the renderer needs from disk: the templates, and the helper that scripts carry."""

from __future__ import annotations

from pathlib import Path

from jinja2 import FileSystemLoader

from builder import stage
from builder.catalogue import shipped
from builder.plan import Plan
from builder.render import render, render_run_script


def rendered(plan: Plan) -> dict[str, str]:
    """All generated files of a plan: file name to text."""
    return render(plan, FileSystemLoader(shipped("templates")), _helper())


def rendered_run_script(plan: Plan) -> str:
    """The run script of a plan."""
    return render_run_script(plan, FileSystemLoader(shipped("templates")), _helper())


def _helper() -> str:
    return Path(stage.__file__).read_text(encoding="utf-8")
