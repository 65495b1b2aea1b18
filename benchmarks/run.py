"""`just bench`: Drydock beside uv, in one run, as ratios. Absolute limits are told beside `python -c pass`.

python benchmarks/run.py [--rounds N] [--json] [NAME ...]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
# Bytecode is part of how Drydock's own program starts, on any machine but these.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

from benchmarks import mirror, program, records, sources, store, supervise, wrapper

BENCHMARKS = {
    "script": program.script_overhead,
    "start": program.start_up,
    "probes": program.probes,
    "detect": program.detection,
    "doctor": program.doctor,
    "build": store.new_environment,
    "import": store.first_import,
    "first-step": store.first_step,
    "verify": store.verify,
    "disk": store.ten_profiles,
    "many": store.many_environments,
    "memory": store.memory,
    "supervise": supervise.supervision,
    "records": records.records,
    "sources": sources.many_profiles,
    "mirror": mirror.mirrors,
    "bundle": mirror.bundles,
    "tools": wrapper.tools,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    rows = [row for name in chosen.names or BENCHMARKS for row in BENCHMARKS[name](chosen.rounds)]
    if chosen.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return
    print("| measured | value | beside | limit | reached |\n| --- | --- | --- | --- | --- |")
    for row in rows:
        print(f"| {row.what} | {row.value} | {row.beside} | {row.limit} | {'yes' if row.reached else 'NO'} |")


if __name__ == "__main__":
    main()
