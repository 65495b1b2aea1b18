"""`python -m builder.supervise FOLDER LOCK`, which `drydock run NAME --supervise` becomes."""

import sys

from builder.supervise.watch import main

sys.exit(main(sys.argv[1:]))
