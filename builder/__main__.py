"""`python -m builder` is `drydock`."""

from builder.cli import main

main()
