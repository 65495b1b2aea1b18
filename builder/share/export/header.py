"""The head of an exported file, which says where it is from."""

from __future__ import annotations

from builder.script.plan import Plan


def first_lines(plan: Plan) -> list[str]:
    """The comments at the head of an exported file: where it comes from, and where it can be installed."""
    target = plan.profile.target
    system = f"macOS {target.min_os}" if target.min_os else f"glibc {target.glibc}"
    return [
        f"# {mark(plan.profile.name)}",
        f"# For {target.platform} ({system} or newer) and CPython {plan.profile.python.version}; key {plan.key}.",
    ]


def mark(name: str) -> str:
    """Return the words near the top of a file that was exported from the profile `name`, and of no other."""
    return f"Exported by Drydock from the profile {name}; do not edit."
