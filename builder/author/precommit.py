"""The hook of Drydock in a `.pre-commit-config.yaml`: added to an existing file, or not at all.

Pure: texts in, texts out.
"""

from __future__ import annotations

import textwrap
from typing import Any

import yaml

ID = "drydock-check"


def new_config() -> str:
    """A whole file with the hook."""
    return f"repos:\n{entry(2)}"


def entry(indent: int) -> str:
    """The entry under `repos`: what .pre-commit-hooks.yaml of Drydock says, with the drydock on the PATH."""
    lines = f"""\
        - repo: local
          hooks:
            - id: {ID}
              name: drydock check
              entry: sh -c 'drydock --quiet lock --check && drydock --quiet render --check'
              language: system
              files: ^(profiles|generated)/|(^|/)(pyproject\\.toml|requirements[^/]*\\.(txt|in))$
              pass_filenames: false
        """
    return textwrap.indent(textwrap.dedent(lines), " " * indent)


def has_hook(text: str) -> bool:
    """Whether a file has the hook already."""
    data = _loaded(text)
    repos = data.get("repos") if isinstance(data, dict) else None
    lists = [one.get("hooks") for one in _list(repos) if isinstance(one, dict)]
    return any(isinstance(hook, dict) and hook.get("id") == ID for some in lists for hook in _list(some))


def with_hook(text: str) -> str | None:
    """`text` with the entry after its last one, all else as it is, to the byte; None where that cannot be done.

    >>> print(with_hook("repos:\\n- repo: local\\n  hooks: []  # none yet\\n"), end="")
    repos:
    - repo: local
      hooks: []  # none yet
    - repo: local
      hooks:
        - id: drydock-check
          name: drydock check
          entry: sh -c 'drydock --quiet lock --check && drydock --quiet render --check'
          language: system
          files: ^(profiles|generated)/|(^|/)(pyproject\\.toml|requirements[^/]*\\.(txt|in))$
          pass_filenames: false
    """
    before = _loaded(text)
    indent = _indent(text)
    if indent is None or not isinstance(before, dict):
        return None
    after = f"{text if text.endswith(chr(10)) else text + chr(10)}{entry(indent)}"
    expected = {**before, "repos": [*before["repos"], *_loaded(entry(0))]}
    return after if _loaded(after) == expected else None


def _indent(text: str) -> int | None:
    """How far the items of `repos` are indented, where that is the last key, and a list in lines of its own."""
    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError):
        return None
    if not isinstance(root, yaml.MappingNode) or root.flow_style or not root.value:
        return None
    key, value = root.value[-1]
    if not isinstance(key, yaml.ScalarNode) or key.value != "repos" or not isinstance(value, yaml.SequenceNode):
        return None
    return None if value.flow_style or not value.value else int(value.start_mark.column)


def _loaded(text: str) -> Any:
    """The data of a text; None where it is not YAML, or has aliases: with those a few lines can be data without end."""
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.BaseLoader)):
            return None
        return yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506  # texts, lists, and tables: no tag does anything
    except (yaml.YAMLError, RecursionError):
        return None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
