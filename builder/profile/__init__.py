"""Profiles: declarative descriptions of a hardware target and what to train on it."""
