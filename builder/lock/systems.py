"""Which newer system has a wheel, where the one of the target has none: a glibc (PEP 600), or a macOS. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from builder.profile.target import Target

_AVAILABLE = re.compile(r"Wheels are available for `([^`]+)` \(v([^)]+)\) on the following platforms: (.*)")


def newest(target: Target) -> Target:
    """The same target with the newest system that uv chooses wheels for."""
    return target.model_copy(update={"min_os": "99.0"} if target.min_os else {"glibc": "2.40"})


def line(target: Target, python: str, files: Iterable[str]) -> str | None:
    """The line of [target] with the oldest system that one of some wheels is for; None where there is none.

    >>> linux = Target(platform="linux-x86_64", accelerator="cpu", glibc="2.28")
    >>> line(linux, "3.11", ["a-1-cp311-cp311-manylinux_2_39_x86_64.whl", "a-1-cp311-cp311-manylinux_2_34_x86_64.whl"])
    '[target] glibc = "2.34"'
    >>> line(linux, "3.11", ["a-1-cp312-cp312-manylinux_2_34_x86_64.whl", "a-1-cp311-cp311-macosx_15_0_arm64.whl"])
    """
    known = {str(tag) for tag in newest(target).wheel_tags(python)}
    platforms = []
    for file in files:
        try:
            tags = parse_wheel_filename(file)[3]
        except InvalidWheelFilename:
            continue
        platforms += [tag.platform for tag in tags if str(tag) in known]
    return _line(target, platforms)


def of_uv(target: Target, said: str) -> str | None:
    """The same from what uv says of the wheels that there are, with the package; None where it does not help.

    >>> mac = Target.model_validate({"platform": "macos-arm64", "accelerator": "mps", "min-os": "14.0"})
    >>> of_uv(mac, "hint: Wheels are available for `mlx` (v0.29.0) on the following platforms: `macosx_15_0_arm64`")
    'mlx 0.29.0 has a wheel for a newer system: [target] min-os = "15.0"'
    """
    for package, version, listed in _AVAILABLE.findall(said):
        if found := _line(target, re.findall(r"`([^`]+)`", listed)):
            return f"{package} {version} has a wheel for a newer system: {found}"
    return None


def _line(target: Target, platforms: Sequence[str]) -> str | None:
    mac = target.min_os is not None
    pattern = (
        r"macosx_([0-9]+)_([0-9]+)_(?:arm64|universal2)" if mac else rf"manylinux_([0-9]+)_([0-9]+)_{target.machine}"
    )
    found = [(int(one[1]), int(one[2])) for text in platforms if (one := re.fullmatch(pattern, text))]
    own = tuple(int(part) for part in (target.min_os or target.glibc or "0").split("."))
    if not found or min(found) <= own:
        return None
    return f'[target] {"min-os" if mac else "glibc"} = "{min(found)[0]}.{min(found)[1]}"'
