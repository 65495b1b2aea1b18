"""Machines that this one is not, emulated so that a script can be run on them for real."""
