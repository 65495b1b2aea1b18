"""Which of the known environment variables the files of real packages name."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from builder.profile.variables import FOLKLORE, KNOWN


def names_in(site: Path) -> set[str]:
    """Those of the known variables, and of folklore, that are in the files of some packages, as whole words."""
    packages = ["torch", "transformers", "accelerate", "huggingface_hub", "datasets", "tokenizers", "wandb", "numpy"]
    done = subprocess.run(
        [
            "grep",
            "-rhaowF",
            "--exclude-dir=__pycache__",
            "-f-",
            *(name for name in packages if (site / name).is_dir()),
            *(path.name for path in site.glob("numpy.*")),
        ],
        input="\n".join((*KNOWN, *FOLKLORE)),
        cwd=site,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())
