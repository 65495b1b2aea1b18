"""Known vulnerabilities, by `uv audit`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w

from builder import process
from builder.errors import ToolError
from builder.uv.command import default_index, environment, executable, hint, message
from builder.uv.questions import parse_default_index, question_of_default_index


def audit(packages: Sequence[tuple[str, str]], python: str, folder: Path, service: str | None) -> list[dict[str, Any]]:
    """What `uv audit` finds for packages, each by name and version; rows of its "vulnerabilities".

    `service` is where OSV's API is, instead of its own place. `folder` is an empty one. Raises ToolError where it could
    not be asked.
    """
    registry = {
        "registry": default_index() or parse_default_index(process.run(question_of_default_index()).stdout) or ""
    }
    rows = [{"name": name, "version": version, "source": registry} for name, version in packages]
    project = {"name": "profile", "version": "0", "requires-python": f"=={python}.*"}
    (folder / "pyproject.toml").write_text(tomli_w.dumps({"project": project}))
    own = {"name": "profile", "version": "0", "source": {"virtual": "."}, "dependencies": rows}
    lock = {"version": 1, "requires-python": project["requires-python"], "package": [*rows, own]}
    (folder / "uv.lock").write_text(tomli_w.dumps(lock))
    command = [executable(), "audit", "--no-config", "--preview-features", "audit-command,json-output", "--frozen"]
    command += ["--output-format", "json", "--directory", str(folder)]
    command += ["--service-url", service] if service else []
    done = process.run(command, env=environment({"NO_COLOR": "1"}))
    try:
        found = json.loads(done.stdout)["vulnerabilities"]
    except (ValueError, KeyError, TypeError):
        raise ToolError(f"uv says: {message(done.stderr)}", hint=hint(done.stderr)) from None
    return [row for row in found if isinstance(row, dict)]
