"""Profiles: declarative descriptions of a hardware target and what to train on it."""

from builder.profile.load import Read, Source, files_of, load, load_part, settings_warnings, where_is
from builder.profile.model import Patch, Profile, ProfilePart

__all__ = [
    "Patch",
    "Profile",
    "ProfilePart",
    "Read",
    "Source",
    "files_of",
    "load",
    "load_part",
    "settings_warnings",
    "where_is",
]
