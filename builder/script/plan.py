"""The plan: everything that decides an environment, and the key that names it.

Environment variables and trainer arguments are not in it: changing them rebuilds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from builder.embedded.hashes import sha256
from builder.embedded.plan import key_of
from builder.errors import ProfileError
from builder.lock.model import Artefact, Lock
from builder.profile.model import Profile
from builder.profile.releases import Releases, parse
from builder.script.code import Code

FORMAT = 1
"""Of the store path's layout; a new one gives every environment a new key."""


@dataclass(frozen=True)
class Plan:
    """A profile and its lock, ready to be rendered.

    `content` is the plan itself, in plain JSON types. `index` says which packages come from an index other than the
    default one, and `texts` holds the files that the script carries, by relative path. `releases` has, by the file of a
    patch, the releases that it fits beside the one that is locked; nothing of it is built. `code` is the project's own,
    which is imported from where it is, and decides nothing that is built.
    """

    profile: Profile
    lock: Lock
    content: Mapping[str, Any]
    index: Mapping[str, str]
    texts: Mapping[str, str]
    releases: Mapping[str, Releases] = field(default_factory=dict)
    code: Code | None = None

    @property
    def key(self) -> str:
        """32 characters of Nix's base32."""
        return key_of(dict(self.content))

    @property
    def store_name(self) -> str:
        """The name of the environment's folder in the store."""
        return f"{self.key}-{self.profile.name}"


def make_plan(profile: Profile, lock: Lock, texts: Mapping[str, str], code: Code | None = None) -> Plan:
    """The plan of a profile with its lock and the project's own `code`; `texts` has every file that the profile names.

    Raises ProfileError.
    """
    target = profile.target
    carried = sorted({*profile.carried_files, *(patch.file for patch in profile.patches)})
    content: dict[str, Any] = {
        "format": FORMAT,
        "target": {
            "system": target.system,
            "machine": target.machine,
            "accelerator": target.accelerator,
            **{key: value for key, value in (("min-os", target.min_os), ("glibc", target.glibc)) if value},
        },
        "python": profile.python.series,
        "packages": [_artefact(package) for package in lock.packages],
        "build-requires": [_artefact(package) for package in lock.build_requires],
        "patches": [patch.model_dump() for patch in lock.patches],
        "files": [{"path": path, "sha256": sha256(texts[path].encode())} for path in carried],
        "verify": list(
            dict.fromkeys([*(patch.proof for patch in profile.patches), *(check.file for check in profile.checks)])
        ),
        # Only where there is one, so that other environments keep their keys.
        **({"interpreter": release} if (release := _release(profile, lock)) else {}),
        **({"python-build": _artefact(lock.python)} if lock.python else {}),
        **({"overlap": dict(sorted(overlap.items()))} if (overlap := profile.packages.overlap) else {}),
    }
    _check_overlap(profile, lock)
    _check_launch(profile, lock)
    index = {package.name: package.index for package in lock.packages if package.index is not None}
    releases = {
        patch.file: parse(texts[patch.releases], patch.releases)
        for patch in profile.patches
        if patch.releases is not None
    }
    return Plan(profile, lock, content, index, {path: texts[path] for path in carried}, releases, code)


def _release(profile: Profile, lock: Lock) -> str | None:
    """The one patch release that it is built on; None where any will do."""
    return lock.python.version.partition("+")[0] if lock.python else profile.python.release


def _check_overlap(profile: Profile, lock: Lock) -> None:
    locked = lock.versions()
    for pattern, name in profile.packages.overlap.items():
        if name not in locked:
            raise ProfileError(
                f'packages.overlap: "{name}" has the files "{pattern}", and is not in the lock',
                hint="name a package that the profile installs",
            )


def _check_launch(profile: Profile, lock: Lock) -> None:
    if profile.launch.by_torchrun and "torch" not in lock.versions():
        raise ProfileError(
            'launch.with: "torchrun" comes with torch, which is not in the lock',
            hint=f"add torch to [packages] of {profile.name}, or leave [launch] out",
        )


def _artefact(package: Artefact) -> dict[str, Any]:
    named = package.model_dump(include={"name", "version", "file", "sha256"})
    return {**named, "build": package.build} if package.build else named
