"""From a plan to the generated files. Pure: the templates come in as an environment of Jinja."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from jinja2 import Environment

from builder.isolation import DECISIVE_VARIABLES, LEAKS
from builder.lock.cuda import kernels_of
from builder.lock.model import LockedPatch
from builder.lock.sizes import BYTECODE, UNPACKED
from builder.lock.standalone import key_of, system_of
from builder.profile.detect import Choice, Detect
from builder.profile.model import Setting
from builder.script.data import data_of
from builder.script.parts import parts, portable
from builder.script.plan import Plan
from builder.script.quoting import sh_quote
from builder.script.slurm import batch_script, job_of, resume_of


class Carried(NamedTuple):
    """The Python that scripts carry (builder/script/machinery.py): by the parts that not all of them have ("",
    "data+python+source") its lines and their sha256; the `version` of Drydock that it is of, what `patches` a file, as
    a part of one file, and what trains for `strict` determinism.
    """

    machinery: Mapping[str, Sequence[str]]
    version: str
    patches: str
    strict: str


def render(plan: Plan, templates: Environment, carried: Carried, *, standalone: bool = False) -> dict[str, str]:
    """All generated files of a plan: file name to text.

    The program that patches an installation is one of them where the profile names it, as the run script's `--into`
    patches too. With `standalone`, it always is, and the tool for virtual environments needs no run script beside it.
    Raises ProfileError where a file of the profile's cannot travel in a script.
    """
    profile = plan.profile
    values = _values(plan, carried)
    files = {
        profile.run_script: templates.get_template("run.sh.j2").render(values, script=profile.run_script),
        f"{profile.name}.env": templates.get_template("dotenv.j2").render(values),
        profile.fix_dependencies_script: templates.get_template(
            f"fix_dependencies{'_whole' if standalone else ''}.sh.j2"
        ).render(values, script=profile.fix_dependencies_script),
    }
    if plan.lock.patches and (standalone or profile.generated.fix_patches is not None):
        files[profile.fix_patches_script] = templates.get_template("fix_patches.py.j2").render(
            values, script=profile.fix_patches_script
        )
    return files


def render_run_script(plan: Plan, templates: Environment, carried: Carried) -> str:
    """Only the run script."""
    return templates.get_template("run.sh.j2").render(_values(plan, carried), script=plan.profile.run_script)


def render_batch_script(plan: Plan, templates: Environment, carried: Carried, resume: str) -> str:
    """The batch script for Slurm, which is the run script with a job around it; `resume` is the code that looks for
    checkpoints, as a part of one file.
    """
    values = {**_values(plan, carried), "job": job_of(plan.profile), "resume": resume_of(plan.profile, plan.lock)}
    template = templates.get_template("slurm.sh.j2")
    return template.render(values, script=batch_script(plan.profile), resume_code=resume)


def render_bundle_head(plan: Plan, templates: Environment, carried: Carried, bundle: object) -> str:
    """The script of a bundle (builder/share/bundle.py), which is the run script with another place to install from."""
    template = templates.get_template("bundle.sh.j2")
    return template.render(_values(plan, carried), script=f"{plan.profile.name}.run", bundle=bundle)


def _values(plan: Plan, carried: Carried) -> Mapping[str, Any]:
    """All that templates take."""
    return {**_names(plan), **_trainer(plan), **_contents(plan, carried), **_needs(plan)}


def _names(plan: Plan) -> Mapping[str, Any]:
    profile = plan.profile
    return {
        "name": profile.name,
        "description": profile.description,
        "key": plan.key,
        "run_script": profile.run_script,
        "packages": [f"{package.name} {package.version}" for package in plan.lock.packages],
    }


def _trainer(plan: Plan) -> Mapping[str, Any]:
    """What is run, with which arguments, variables, code and data."""
    profile, trainer = plan.profile, plan.profile.trainer
    return {
        "code": plan.code,
        "decisive": DECISIVE_VARIABLES,
        "leaks": LEAKS,
        "settings": _settings(profile.env),
        "options": trainer.options,
        "modes": trainer.modes,
        "detects": profile.detects,
        "chooses": profile.chooses,
        "command": trainer.command,
        "commands": profile.commands,
        "arguments": trainer.arguments,
        "trainer_file": trainer.file,
        "trainer_needs": trainer.needs,
        "trainer_needs_hint": trainer.needs_hint or "",
        "source": _source(plan),
        "torchrun": profile.launch if profile.launch.by_torchrun else None,
        "counts_gpus": profile.counts_gpus,
        "data": data_of(plan),
    }


def _contents(plan: Plan, carried: Carried) -> Mapping[str, Any]:
    """The files that a script carries: the machinery, the plan with its parts, the patches."""
    wanted = {"data": plan.lock.data, "python": plan.lock.python, "source": plan.lock.trainer}
    machinery, machinery_sha256 = carried.machinery["+".join(part for part, has in wanted.items() if has)]
    return {
        "version": carried.version,
        "machinery": machinery,
        "machinery_sha256": machinery_sha256,
        "strict": carried.strict if plan.profile.determinism else "",
        "parts": [{"path": path, "text": portable(path, text)} for path, text in parts(plan).items()],
        "part_folders": sorted({path.rpartition("/")[0] for path in plan.texts if "/" in path}),
        "patching_code": carried.patches,
        "patches": [_released(plan, patch) for patch in plan.lock.patches],
        "patch_texts": [{"path": patch.file, "text": plan.texts[patch.file]} for patch in plan.lock.patches],
    }


def _needs(plan: Plan) -> Mapping[str, Any]:
    """What a machine must be and have, for the environment to be built and run on it."""
    target, python = plan.profile.target, plan.profile.python
    return {
        "platform": target.platform,
        "target": f"{target.system} {target.machine}",
        "system": target.system,
        "machine": target.machine,
        "min_os": target.min_os,
        "glibc": target.glibc,
        "memory_gb": target.memory_gb,
        "room_mb": round(plan.lock.size * (UNPACKED + BYTECODE)) >> 20,
        "uv": plan.lock.uv,
        "python": python.series,
        "release": python.release,
        "archive": _archive(plan),
        "accelerator": target.accelerator,
        "cuda": target.cuda,
        "kernels": kernels_of(target.machine, plan.lock.packages),
    }


def _source(plan: Plan) -> dict[str, Any] | None:
    """The trainer's own code, as the lock has it; None where the profile names no source."""
    named, locked = plan.profile.trainer.source, plan.lock.trainer
    if named is None or locked is None:
        return None
    return {
        **locked.model_dump(include={"file", "sha256", "commit"}),
        "name": f"{named.name} {named.rev}" if named.rev != locked.commit else named.name,
        "place": named.git,
        "copied_to": locked.folder,
        "folder": f"/{named.folder}" if named.folder else "",
        "known_by": named.known_by,
    }


def _archive(plan: Plan) -> dict[str, Any] | None:
    """The Python that the lock names, as uv knows it; None where it names none."""
    python = plan.lock.python
    if python is None:
        return None
    release, _, day = python.version.partition("+")
    system, machine, libc = system_of(plan.profile.target)
    return {
        "file": python.file,
        "sha256": python.sha256,
        "megabytes": round(python.size / 1e6),
        "key": key_of(python, plan.profile.target),
        "path": f"{python.sha256[:2]}/{python.sha256}/{python.file}",
        "url_file": quote(python.file),
        "day": day,
        "numbers": release.split("."),
        "family": machine,
        "os": "darwin" if system == "macos" else system,
        "libc": libc,
    }


def _released(plan: Plan, patch: LockedPatch) -> dict[str, Any]:
    """A patch with all releases that it fits: those beside it, and the one that is locked."""
    version = plan.lock.versions()[patch.package]
    locked = {"versions": [version], "files": [{"shift": 0, **file.model_dump()} for file in patch.files]}
    known = plan.releases.get(patch.file)
    others = [release.model_dump() for release in known.releases] if known is not None else []
    if not any(version in release["versions"] for release in others):
        others.append(locked)
    return {
        "package": patch.package,
        "file": patch.file,
        "fixed": known.fixed if known is not None else None,
        "releases": others,
    }


def _settings(env: Mapping[str, Setting]) -> list[dict[str, Any]]:
    """The variables as templates take them; those that follow another come after it."""
    ordered = sorted(env.items(), key=lambda one: one[1].follows is not None)
    return [{"name": name, **dict(setting), **_setting_data(name, setting)} for name, setting in ordered]


def _setting_data(name: str, setting: Setting) -> dict[str, Any]:
    """Whether a setting is found out, the word of sh that is its note, and the setting as data of Python."""
    value = setting.value if setting.value is not None else setting.default
    start, end = f"note: {name}=", f": {setting.note}"
    detects = isinstance(value, Detect | Choice)
    data = {"name": name, **setting.model_dump(exclude_none=True, exclude={"note", "acknowledge"})}
    said = f'{sh_quote(start)}"${{{name}-}}"{sh_quote(end)}' if detects else sh_quote(f"{start}{value or ''}{end}")
    return {"detects": detects, "choice": isinstance(value, Choice), "said": said, "data": data}
