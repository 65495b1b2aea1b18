"""`drydock bisect`: the package, or packages, between two locks that break a test."""
