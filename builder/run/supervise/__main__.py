"""`python -m builder.run.supervise FOLDER LOCK`, which `drydock run NAME --supervise` becomes."""

import sys

from builder.run.supervise.watch import main

sys.exit(main(sys.argv[1:]))
