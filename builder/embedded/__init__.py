"""What generated scripts carry and run elsewhere: the standard library only, Python 3.9 or newer."""
