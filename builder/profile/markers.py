"""What environment markers are on a target that is not this machine (PEP 508)."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from builder.profile.target import Target


def environment(target: Target, python: str) -> dict[str, str | AbstractSet[str]]:
    """The values of all markers for CPython of version `python`, such as "3.11", on `target`.

    The patch release is the first one: a profile has none. `platform_release` and `platform_version` are empty.
    """
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "os_name": "posix",
        "platform_machine": target.machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": target.system,
        "platform_version": "",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": target.system.lower(),
    }
