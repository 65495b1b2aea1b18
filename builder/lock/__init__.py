"""What a profile is resolved to: every file by its hash, how it is found, what changed, and why a package is in it."""
