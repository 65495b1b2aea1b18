"""From a plan to the generated files. Pure: the templates come in as an environment of Jinja."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import BaseLoader

from builder.isolation import DECISIVE_VARIABLES, LEAKS
from builder.profile.detect import Detect
from builder.profile.model import Setting
from builder.script.parts import parts, portable
from builder.script.plan import Plan
from builder.script.quoting import environment, sh_quote


@dataclass(frozen=True)
class Carried:
    """The Python that scripts carry (builder/script/machinery.py): `machinery` as lines, its `sha256`, the `version` of
    Drydock that it is of, and what `patches` a file, as a part of one file.
    """

    machinery: str
    sha256: str
    version: str
    patches: str


def render(plan: Plan, loader: BaseLoader, carried: Carried, *, standalone: bool = False) -> dict[str, str]:
    """All generated files of a plan: file name to text.

    With `standalone`, the tool for virtual environments works without the run script beside it. Raises ProfileError
    where a file of the profile's cannot travel in a script.
    """
    profile = plan.profile
    templates = environment(loader)
    values = _values(plan, carried)
    files = {
        profile.run_script: templates.get_template("run.sh.j2").render(values, script=profile.run_script),
        f"{profile.name}.env": templates.get_template("dotenv.j2").render(values),
        profile.fix_dependencies_script: templates.get_template(
            f"fix_dependencies{'_whole' if standalone else ''}.sh.j2"
        ).render(values, script=profile.fix_dependencies_script),
    }
    if plan.lock.patches:
        files[profile.fix_patches_script] = templates.get_template("fix_patches.py.j2").render(
            values, script=profile.fix_patches_script
        )
    return files


def render_run_script(plan: Plan, loader: BaseLoader, carried: Carried) -> str:
    """Only the run script."""
    return environment(loader).get_template("run.sh.j2").render(_values(plan, carried), script=plan.profile.run_script)


def render_bundle_head(plan: Plan, loader: BaseLoader, carried: Carried, bundle: object) -> str:
    """The script of a bundle (builder/share/bundle.py), which is the run script with another place to install from."""
    template = environment(loader).get_template("bundle.sh.j2")
    return template.render(_values(plan, carried), script=f"{plan.profile.name}.run", bundle=bundle)


def _values(plan: Plan, carried: Carried) -> Mapping[str, Any]:
    profile, target, trainer = plan.profile, plan.profile.target, plan.profile.trainer
    return {
        "name": profile.name,
        "description": profile.description,
        "key": plan.key,
        "platform": target.platform,
        "system": target.system,
        "machine": target.machine,
        "min_os": target.min_os,
        "glibc": target.glibc,
        "python": profile.python.version,
        "run_script": profile.run_script,
        "packages": [f"{package.name} {package.version}" for package in plan.lock.packages],
        "uv": plan.lock.uv,
        "decisive": DECISIVE_VARIABLES,
        "leaks": LEAKS,
        "settings": [{"name": name, **dict(setting), **_said(name, setting)} for name, setting in profile.env.items()],
        "options": trainer.options,
        "detects": profile.detects,
        "command": trainer.command,
        "arguments": trainer.arguments,
        "trainer_file": trainer.file,
        "trainer_needs": trainer.needs,
        "trainer_needs_hint": trainer.needs_hint or "",
        "machinery": carried.machinery,
        "machinery_sha256": carried.sha256,
        "version": carried.version,
        "parts": [{"path": path, "text": portable(path, text)} for path, text in parts(plan).items()],
        "part_folders": sorted({path.rpartition("/")[0] for path in plan.texts if "/" in path}),
        "target": f"{target.system} {target.machine}",
        "patching_code": carried.patches,
        "patches": [patch.model_dump() for patch in plan.lock.patches],
        "patch_texts": [{"path": patch.file, "text": plan.texts[patch.file]} for patch in plan.lock.patches],
    }


def _said(name: str, setting: Setting) -> dict[str, Any]:
    """Whether a setting is found out, and the word of sh that is its note."""
    value = setting.value if setting.value is not None else setting.default
    start, end = f"note: {name}=", f": {setting.note}"
    if isinstance(value, Detect):
        return {"detects": True, "said": f'{sh_quote(start)}"${name}"{sh_quote(end)}'}
    return {"detects": False, "said": sh_quote(f"{start}{value or ''}{end}")}
