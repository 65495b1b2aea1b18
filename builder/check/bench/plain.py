"""The other side of a measurement: the same wheels in a virtual environment of uv's, and nothing else.

No bytecode comes with it, and none of the profile's variables is set. Its patches are there: unpatched, the seed's
versions train nothing at all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from builder import uv
from builder.consent import Consent
from builder.embedded.errors import StageError
from builder.embedded.patches import apply_patches
from builder.errors import DrydockError
from builder.files import write_files
from builder.project.install import install
from builder.report import Reporter
from builder.script.plan import Plan
from builder.store.layout import home
from builder.store.scratch import scratch


@contextmanager
def plain(plan: Plan, consent: Consent, report: Reporter) -> Iterator[Path]:
    """A folder with the environment in `env` for as long as the context lasts. Raises ToolError."""
    python = plan.profile.python.version
    with scratch(home() / "cache", "bench-") as folder:
        environment, parts = folder / "env", folder / "parts"
        try:
            with report.busy(f"a plain environment of uv's, with the packages of {plan.profile.name}"):
                write_files(parts, plan.texts)
                base = uv.create_venv(environment, os.environ.get("DRYDOCK_PYTHON") or python)
                install(plan, environment, base, consent)
                apply_patches(environment, parts, dict(plan.content))
        except StageError as error:
            raise DrydockError(str(error)) from None
        yield folder
