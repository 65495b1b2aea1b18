"""File systems that are full or read-only, where this machine lets a test mount one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def tmpfs(folder: Path, size: str, *more: str) -> Iterator[Path]:
    """A file system of its own at `folder`, of a size such as "1m"; skips the test where none can be mounted.

    `more` are options, such as "noexec".
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = _mount("-t", "tmpfs", "-o", ",".join([f"size={size}", *more]), "drydock-test", str(folder))
    with _mounted(done, "tmpfs", folder):
        yield folder


@contextmanager
def overlay(folder: Path, lower: Path) -> Iterator[Path]:
    """An overlay file system at `folder`, as containers have: what is in `lower`, and above it what is written."""
    folder.mkdir(parents=True, exist_ok=True)
    with tmpfs(folder.with_name(f"{folder.name}-upper"), "64m") as upper:
        for name in ("files", "work"):
            (upper / name).mkdir()
        options = f"lowerdir={lower},upperdir={upper}/files,workdir={upper}/work,redirect_dir=off"
        done = _mount("-t", "overlay", "-o", options, "drydock-test", str(folder))
        with _mounted(done, "overlay", folder):
            yield folder


@contextmanager
def _mounted(done: subprocess.CompletedProcess[str], what: str, folder: Path) -> Iterator[None]:
    """What is mounted at `folder`, until the end; skips the test where it could not be."""
    if done.returncode:
        pytest.skip(f"no {what} can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    """Change a mounted file system, for instance to "ro" or "size=32m"."""
    done = _mount("-o", f"remount,{options}", str(folder))
    assert done.returncode == 0, done.stderr


def _mount(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return subprocess.CompletedProcess(["mount"], 127, "", str(error))


@contextmanager
def folding(folder: Path) -> Iterator[Path]:
    """A file system at `folder` that does not tell upper and lower case apart, as most Macs have: NTFS, told to."""
    program = shutil.which("lowntfs-3g")
    if program is None or shutil.which("mkntfs") is None:
        pytest.skip("there is no lowntfs-3g: apt-get install ntfs-3g")
    image = folder.with_name(f"{folder.name}.img")
    with image.open("wb") as file:
        file.truncate(256 << 20)
    subprocess.run(["mkntfs", "-q", "-F", str(image)], check=True, capture_output=True)
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([program, image, folder, "-o", "ignore_case,permissions"], capture_output=True, text=True)
    try:
        with _mounted(done, "NTFS", folder):
            yield folder
    finally:
        image.unlink()
