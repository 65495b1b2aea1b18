"""Runs on a GPU of NVIDIA, where there is one."""
