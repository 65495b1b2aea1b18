"""What of the caller's environment must reach neither a build nor a trainer."""

from __future__ import annotations

LEAKS = (
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONUSERBASE",
    "PYTHONSTARTUP",
    "PYTHONPLATLIBDIR",
    "PYTHONEXECUTABLE",
    "PYTHONPYCACHEPREFIX",
    "PYTHONSAFEPATH",
    "PYTHONCASEOK",
    "PYTHONINSPECT",
    "__PYVENV_LAUNCHER__",
)
"""What would let another Python, or another Python's packages, into the environment, or find other modules there
(CPython, "Environment variables"; the last is read by framework builds on macOS)."""

DECISIVE_VARIABLES = (
    "UV_BUILD_CONSTRAINT",
    "UV_COMPILE_BYTECODE",
    "UV_CONSTRAINT",
    "UV_EXCLUDE",
    "UV_EXCLUDE_NEWER",
    "UV_FORK_STRATEGY",
    "UV_INDEX_STRATEGY",
    "UV_NO_BINARY",
    "UV_NO_BINARY_PACKAGE",
    "UV_NO_BUILD",
    "UV_NO_BUILD_ISOLATION",
    "UV_NO_BUILD_PACKAGE",
    "UV_OVERRIDE",
    "UV_PRERELEASE",
    "UV_PROJECT",
    "UV_PYTHON",
    "UV_REQUIRE_HASHES",
    "UV_RESOLUTION",
    "UV_SYSTEM_PYTHON",
    "UV_TORCH_BACKEND",
    "UV_VENV_SEED",
    "UV_WORKING_DIR",
)
"""Settings of uv that would change which packages are chosen (uv, "Environment variables"). Mirrors, caches, proxies,
credentials and link modes are not among them: they change where bytes come from, and every byte is checked by hash."""
