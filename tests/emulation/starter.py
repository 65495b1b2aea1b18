"""`just emulate-arm64`: a starter on the emulated bare aarch64 machine, from nothing to a resumed training.

Its generated script builds the environment, trains, and verifies, whose proofs kill a training by SIGKILL and go on
from its checkpoint. The output is the machine's; the exit status is 1 where anything of it fails.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from builder.project.catalogue import Catalogue
from builder.script.templates import rendered_run_script
from tests.conftest import ROOT
from tests.emulation.aarch64 import available, machine
from tests.emulation.filled import fill

STEPS = (("build", ["--build-only"]), ("train", ["--", "--rounds", "1"]), ("verify", ["--verify"]))
ENV = {"DRYDOCK_HOME": "/work/drydock", "UV_CACHE_DIR": "/work/cache"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="cpu-arm64", help="a profile for linux-arm64 (default: %(default)s)")
    name = parser.parse_args().name
    if reason := available():
        sys.exit(reason)
    bare = machine(Path.home() / ".cache/drydock-tests/aarch64")
    with tempfile.TemporaryDirectory(prefix="drydock-arm64-", dir=Path.home(), ignore_cleanup_errors=True) as folder:
        work = Path(folder) / "work"
        try:
            fill(work, name, rendered_run_script(Catalogue([ROOT / "profiles"]).plan(name)))
            for what, options in STEPS:
                begin = time.monotonic()
                command = bare.command(["sh", "/work/script.sh", *options], env=ENV, binds={work: "/work"})
                status = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
                print(f"{what}: status {status}, {time.monotonic() - begin:.0f} s", flush=True)
                if status:
                    return 1
        finally:
            subprocess.run(["chmod", "-R", "u+w", str(work)], check=False)  # environments are read-only
    return 0


if __name__ == "__main__":
    sys.exit(main())
