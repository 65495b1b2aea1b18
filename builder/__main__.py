"""`python -m builder` is `drydock`."""

from builder.cli import run_program

run_program()
