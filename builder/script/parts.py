"""What travels with a plan in a script: the plan as JSON, and the files that it names."""

from __future__ import annotations

import json

from builder.errors import ProfileError
from builder.script.plan import Plan


def plan_json(plan: Plan) -> str:
    """The plan as the script carries it: JSON with one line per package, to be read in a review.

    Beside the plan stands what does not decide the environment: its name, where its packages come from, their size.
    """
    content = dict(plan.content)
    rows = {key: content.pop(key) for key in ("packages", "build-requires", "files")}
    lists = ",\n".join(
        f"  {json.dumps(key)}: [\n" + ",\n".join(f"   {json.dumps(row)}" for row in rows[key]) + "\n  ]" for key in rows
    )
    others = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in content.items())
    beside = {
        "name": plan.profile.name,
        "key": plan.key,
        "size": size_in_words(plan.lock.size),
        "index": dict(plan.index),
        "indexes": {name: plan.profile.index_url(name) for name in sorted(set(plan.index.values()))},
    }
    head = "".join(f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in beside.items())
    return "{\n" + head + f' "plan": {{\n{others},\n{lists}\n }}\n}}\n'


def parts(plan: Plan) -> dict[str, str]:
    """What travels with a plan: its JSON, and the files that it names."""
    return {"plan.json": plan_json(plan), **plan.texts}


def portable(path: str, text: str) -> str:
    """A text that a here-document can carry byte for byte, in every shell."""
    if not text.endswith("\n"):
        raise ProfileError(f"{path} does not end with a newline", hint="add one")
    for number, line in enumerate(text.split("\n"), 1):
        if "\0" in line or not line.isascii():
            raise ProfileError(f"{path}, line {number}: only ASCII text can be carried in a script")
    return text


def size_in_words(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
