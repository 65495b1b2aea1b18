"""The hook of Drydock in a `.pre-commit-config.yaml`: added to what is there, or not at all.

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
    """The entry under `repos`: all profiles, their files and locks, checked by the drydock on the PATH."""
    lines = f"""\
        - repo: local
          hooks:
            - id: {ID}
              name: profiles and their locks are good
              entry: drydock profile check
              language: system
              files: ^profiles/
              pass_filenames: false
        """
    return textwrap.indent(textwrap.dedent(lines), " " * indent)


def has_hook(text: str) -> bool:
    """Whether a file has the hook already."""
    data = _loaded(text)
    repos = data.get("repos") if isinstance(data, dict) else None
    hooks = [one.get("hooks") for one in repos or () if isinstance(one, dict)] if isinstance(repos, list) else []
    return any(isinstance(hook, dict) and hook.get("id") == ID for some in hooks for hook in some or ())


def with_hook(text: str) -> str | None:
    """`text` with the entry after its last one, all else as it is, to the byte; None where that cannot be done.

    >>> print(with_hook("repos:\\n- repo: local\\n  hooks: []  # none yet\\n"), end="")
    repos:
    - repo: local
      hooks: []  # none yet
    - repo: local
      hooks:
        - id: drydock-check
          name: profiles and their locks are good
          entry: drydock profile check
          language: system
          files: ^profiles/
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
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError):
        return None
    if not isinstance(root, yaml.MappingNode) or root.flow_style or not root.value:
        return None
    key, value = root.value[-1]
    if not isinstance(key, yaml.ScalarNode) or key.value != "repos" or not isinstance(value, yaml.SequenceNode):
        return None
    return None if value.flow_style or not value.value else int(value.start_mark.column)


def _loaded(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        return None
