"""Drydock: reproducible Python training environments for named hardware."""
