"""From a plan to the generated files. Pure: the templates come in as an environment of Jinja.

Every value of a profile reaches a script through one of the filters here, each of which makes it a literal of its
language: a value can never become code.
"""

from __future__ import annotations

import hashlib
import json
import pprint
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import BaseLoader, Environment, StrictUndefined

from builder.errors import ProfileError
from builder.isolation import DECISIVE_VARIABLES, LEAKS
from builder.plan import Plan
from builder.profile.model import Detect, Setting
from builder.stage import pinned

_FUTURE = "from __future__ import annotations\n\n"


@dataclass(frozen=True)
class Carried:
    """The Python files that scripts carry, each as text: builder/caches.py, patch.py, stage.py, integrity.py."""

    caches: str
    patch: str
    stage: str
    integrity: str


def render(plan: Plan, loader: BaseLoader, carried: Carried) -> dict[str, str]:
    """All generated files of a plan: file name to text.

    Raises ProfileError where a file of the profile's cannot travel in a script.
    """
    profile = plan.profile
    templates = environment(loader)
    values = _values(plan, carried)
    files = {
        profile.run_script: templates.get_template("run.sh.j2").render(values, script=profile.run_script),
        f"{profile.name}.env": templates.get_template("dotenv.j2").render(values),
        profile.fix_dependencies_script: templates.get_template("fix_dependencies.sh.j2").render(
            values, script=profile.fix_dependencies_script
        ),
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
    """The script of a bundle (builder/bundle.py), which is the run script with another place to install from."""
    template = environment(loader).get_template("bundle.sh.j2")
    return template.render(_values(plan, carried), script=f"{plan.profile.name}.run", bundle=bundle)


def environment(loader: BaseLoader) -> Environment:
    """Jinja as the templates expect it: an undefined name is an error, and the quoting filters are there."""
    # Autoescaping is for HTML; here each value is quoted for the language that it goes into.
    templates = Environment(
        loader=loader,
        autoescape=False,  # noqa: S701
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {
        "sh": sh_word,
        "comment": comment,
        "delimiter": delimiter,
        "dotenv": dotenv_quote,
        "python": python_literal,
        "fold": fold,
        "systemd": systemd_quote,
        "systemd_word": systemd_word,
        "systemd_path": systemd_path,
        "xml": xml_text,
    }
    return templates


def sh_quote(value: str) -> str:
    """A word of POSIX sh that stands for exactly `value`.

    >>> print(sh_quote("it's $HOME"))
    'it'\\''s $HOME'
    """
    return "'" + value.replace("'", "'\\''") + "'"


def sh_word(value: str | Detect) -> str:
    """A word of sh for a value: the text itself, or what the script finds out (templates/_detect.sh.j2)."""
    if isinstance(value, str):
        return sh_quote(value)
    words = [value.detect, value.fallback, value.percent, value.minus, value.least]
    return f'"$(detected {" ".join(map(str, [*words, *([] if value.max is None else [value.max])]))})"'


def comment(value: str | Detect) -> str:
    """`value` as part of a comment or of a usage text: one line of printable ASCII."""
    line = " ".join(str(value).split())
    return "".join(char if " " <= char <= "~" else char.encode("unicode_escape").decode() for char in line)


def dotenv_quote(value: str | Detect) -> str:
    """`value` for a dotenv file, as direnv, systemd and python-dotenv read it. Such a file finds nothing out."""
    if not isinstance(value, str):
        return str(value.fallback)
    if value and all(char.isalnum() or char in "_./:,=+-" for char in value) and value.isascii():
        return value
    if "'" not in value and "\\" not in value:
        return f"'{value}'"
    for char in ("\\", '"', "$", "`"):
        value = value.replace(char, "\\" + char)
    return f'"{value}"'


def systemd_quote(value: str) -> str:
    """A string for `Environment=` of systemd and the program of `ExecStart=` (systemd.syntax(7), "Quoting").

    >>> print(systemd_quote('A=50% of "it"'))
    "A=50%% of \\"it\\""
    """
    if "\0" in value:
        raise ValueError("a NUL byte")
    for char, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("%", "%%")):
        value = value.replace(char, escaped)
    return f'"{value}"'


def systemd_word(value: str) -> str:
    """An argument of `ExecStart=`, where systemd would replace `$NAME`."""
    return systemd_quote(value).replace("$", "$$")


def systemd_path(value: str) -> str:
    """A path as a whole setting of systemd, which knows no quotes there."""
    if any(char < " " for char in value) or value != value.strip() or value.endswith("\\"):
        raise ValueError(f"the path {value!r}")
    return value.replace("%", "%%")


def xml_text(value: str) -> str:
    """Text of an XML 1.0 document."""
    if any((char < " " and char not in "\t\n") or "\ud800" <= char <= "\udfff" for char in value):
        raise ValueError(f"the text {value!r}")
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def python_literal(value: Any) -> str:
    """A Python expression for plain data."""
    return pprint.pformat(value, width=110, sort_dicts=False) if isinstance(value, dict | list) else ascii(value)


def delimiter(text: str) -> str:
    """The word that ends a here-document of `text`: one that is no line of it."""
    word, lines = "DRYDOCK_END", set(text.splitlines())
    while word in lines:
        word += "_" + hashlib.sha256(text.encode()).hexdigest()[:8].upper()
    return word


def fold(words: str) -> str:
    """A long list of words over several lines of sh."""
    lines, line = [], ""
    for word in words.split():
        if len(line) + len(word) > 100:
            lines.append(line)
            line = ""
        line += f" {word}" if line else word
    return " \\\n    ".join([*lines, line])


def plan_json(plan: Plan) -> str:
    """The plan as the script carries it: JSON with one line per package, to be read in a review."""
    content = dict(plan.content)
    rows = {key: content.pop(key) for key in ("packages", "build-requires", "files")}
    lists = ",\n".join(
        f"  {json.dumps(key)}: [\n" + ",\n".join(f"   {json.dumps(row)}" for row in rows[key]) + "\n  ]" for key in rows
    )
    others = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in content.items())
    head = f' "name": {json.dumps(plan.profile.name)},\n "key": {json.dumps(plan.key)},\n'
    return "{\n" + head + f' "index": {json.dumps(dict(plan.index))},\n "plan": {{\n{others},\n{lists}\n }}\n}}\n'


def parts(plan: Plan) -> dict[str, str]:
    """What travels with a plan: its JSON, the requirement files that uv installs from, and the files that it names.

    There is a requirement file for the default index, one for each other index, and one of build requirements, each
    where it has a line.
    """
    files: dict[str, list[str]] = {"requirements.txt": [], "build-requirements.txt": []}
    for package in plan.content["packages"]:
        index = plan.index.get(package["name"])
        files.setdefault(f"requirements-{index}.txt" if index else "requirements.txt", []).append(pinned(package))
    files["build-requirements.txt"] = [pinned(package) for package in plan.content["build-requires"]]
    texts = {name: "".join(f"{line}\n" for line in lines) for name, lines in files.items() if lines}
    return {"plan.json": plan_json(plan), **texts, **plan.texts}


def _values(plan: Plan, carried: Carried) -> Mapping[str, Any]:
    profile, target, trainer = plan.profile, plan.profile.target, plan.profile.trainer
    files: dict[str, list[str]] = {index: [] for index in sorted(set(plan.index.values()))}
    for package in plan.content["packages"]:
        if package["name"] in plan.index:
            files[plan.index[package["name"]]].append(package["file"])
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
        "uv": plan.lock.uv,
        "package_count": len(plan.lock.packages),
        "patch_count": len(plan.lock.patches),
        "size": _size(plan.lock.size),
        "sources": [package.name for package in plan.lock.packages if not package.is_wheel],
        "build_requires": bool(plan.lock.build_requires),
        "indexes": [
            {
                "name": index,
                "url": profile.indexes[index],
                "variable": index.upper().replace("-", "_"),
                "files": files[index],
            }
            for index in files
        ],
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
        "helper": _portable("builder/stage.py", _FUTURE + joined(carried.caches, carried.patch, carried.stage)),
        "verifier": _portable("builder/integrity.py", joined(carried.integrity)),
        "parts": [{"path": path, "text": _portable(path, text)} for path, text in parts(plan).items()],
        "part_folders": sorted({path.rpartition("/")[0] for path in plan.texts if "/" in path}),
        "target": f"{target.system} {target.machine}",
        "patching_code": _without_docstring(carried.patch),
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


def _portable(path: str, text: str) -> str:
    """A text that a here-document can carry byte for byte, in every shell."""
    if not text.endswith("\n"):
        raise ProfileError(f"{path} does not end with a newline", hint="add one")
    for number, line in enumerate(text.split("\n"), 1):
        if "\0" in line or not line.isascii():
            raise ProfileError(f"{path}, line {number}: only ASCII text can be carried in a script")
    return text


def joined(*files: str) -> str:
    """The text of Python files as parts of one file: without what makes them modules of a package."""
    text = "\n\n".join(files).replace(_FUTURE, "")
    return re.sub(r"^from builder(?:\.\w+)+ import (\([^)]*\)|[^\n(]*)\n", "", text, flags=re.MULTILINE)


def _without_docstring(code: str) -> str:
    return code.split('"""\n', 1)[1].strip() if code.startswith('"""') else code.strip()


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
