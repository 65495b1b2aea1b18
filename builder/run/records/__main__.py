"""`python -m builder.run.records PATH`: completes the record at PATH, beside its run (builder/run/records/begin.py)."""

import sys
from pathlib import Path

from builder.run.records.gather import gather

gather(Path(sys.argv[1]))
