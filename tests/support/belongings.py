"""What a user has and no build may touch: the Python that is built on, another one, and a virtual environment."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.support.base import Base, base_python, changes, install_outsiders, snapshot


class Belongings:
    """In a folder: `base` and `other`, two Pythons, `venv`, a virtual environment of `other`, and `project`, files.

    Their modes are none that a build would give, so that a change shows.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = clone(folder / "base")
        self.other = clone(folder / "other")
        self.venv = folder / "venv"
        subprocess.run([self.other.python, "-I", "-m", "venv", "--without-pip", str(self.venv)], check=True)
        install_outsiders(self.venv / SITE)
        self.project = folder / "project"
        self.project.mkdir()
        for name in ("requirements.txt", "plan.json", "stage.py", "installed", "manifest.json"):
            (self.project / name).write_text("mine\n")
        for path in (*self.venv.rglob("*"), *self.project.rglob("*"), self.project, self.venv):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & ~0o027)
        self._before = snapshot(folder)

    def changes(self) -> list[str]:
        """What is not as it was."""
        return changes(self.folder, self._before)


SITE = "lib/python3.11/site-packages"


def clone(prefix: Path) -> Base:
    """A copy of the Python that the tests build on, for a test that may lose it."""
    shutil.copytree(base_python().prefix, prefix, symlinks=True)
    return Base(prefix, snapshot(prefix))


# --- what others do to a stage -------------------------------------------------------------------------------------


def rename(stage: Path, _user: Belongings) -> None:
    stage.rename(stage.with_name(f".mine-{stage.name.strip('.')}"))


def move_out(stage: Path, _user: Belongings) -> None:
    taken = stage.parent.parent.parent / "taken"
    stage.rename(taken)


def become_venv(stage: Path, user: Belongings) -> None:
    _replace(stage, user.venv)


def become_python(stage: Path, user: Belongings) -> None:
    _replace(stage, user.other.prefix)


def become_base(stage: Path, user: Belongings) -> None:
    _replace(stage, user.base.prefix)


def lose_bin(stage: Path, _user: Belongings) -> None:
    _writable(stage / "bin")
    shutil.rmtree(stage / "bin", ignore_errors=True)


def lose_configuration(stage: Path, _user: Belongings) -> None:
    (stage / "pyvenv.cfg").unlink(missing_ok=True)


def see_the_system(stage: Path, user: Belongings) -> None:
    _configure(stage, user.base.prefix, "true")


def live_elsewhere(stage: Path, user: Belongings) -> None:
    _configure(stage, user.other.prefix, "false")


def share_venv_packages(stage: Path, user: Belongings) -> None:
    _replace(stage / SITE, user.venv / SITE)


def share_base_packages(stage: Path, user: Belongings) -> None:
    _replace(stage / SITE, user.base.site)


def share_bin(stage: Path, user: Belongings) -> None:
    _replace(stage / "bin", user.venv / "bin")


def share_parts(stage: Path, user: Belongings) -> None:
    _replace(stage / ".drydock", user.project)


DEEDS = {
    one.__name__: one
    for one in (
        rename,
        move_out,
        become_venv,
        become_python,
        become_base,
        lose_bin,
        lose_configuration,
        see_the_system,
        live_elsewhere,
        share_venv_packages,
        share_base_packages,
        share_bin,
        share_parts,
    )
}


def _replace(place: Path, by: Path) -> None:
    """Put a link where a folder is, or would be; the folder goes aside."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        _writable(place.parent)
        _writable(place)
        place.rename(place.with_name(f".aside-{place.name.strip('.')}"))
    place.symlink_to(by)


def _configure(stage: Path, prefix: Path, system: str) -> None:
    """What `uv venv` writes, of another Python."""
    text = f"home = {prefix}/bin\nimplementation = CPython\nversion_info = 3.11\n"
    new = stage / ".pyvenv.cfg.new"
    _writable(stage)
    new.write_text(f"{text}include-system-site-packages = {system}\nrelocatable = true\n")
    new.replace(stage / "pyvenv.cfg")


def _writable(folder: Path) -> None:
    """For who is not root."""
    if os.access(folder, os.R_OK) and not folder.is_symlink():
        folder.chmod(0o755)
