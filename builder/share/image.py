"""Images: one file with all of a built environment, for a file system that many machines share.

It is a squashfs. A generated script mounts it where DRYDOCK_IMAGE names it (templates/_image.sh.j2). One environment
makes the same bytes: no time, user or attribute of the host is in it.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from builder import process
from builder.embedded.errors import StageError
from builder.embedded.examine import examine
from builder.embedded.manifest import is_usable, read_manifest
from builder.errors import DrydockError, ToolError, UsageError
from builder.files import beside, display, hash_of
from builder.project.evaluate import evaluate
from builder.store import roots
from builder.store.layout import Store

if TYPE_CHECKING:
    from builder.project.catalogue import Catalogue
    from builder.report import Reporter

_MAGIC = b"hsqs"
_TIME = "315619200"  # 1980-01-02, which zip files can also hold, wherever it is read
_OPTIONS = ["-noappend", "-no-xattrs", "-all-root", "-no-hardlinks", "-quiet", "-no-progress"]
# Level 3: of cpu it makes 305 MB in 4 s of processor time, and level 15, which is the default, 257 MB in 120 s.
_FORM = ["-comp", "zstd", "-Xcompression-level", "3", "-mkfs-time", _TIME, "-all-time", _TIME]


@dataclass(frozen=True)
class Image:
    """An image that was written; `size` in bytes, `sha256` of the whole file."""

    path: Path
    store_name: str
    size: int
    sha256: str


def write_image(name: str, output: Path | None, catalogue: Catalogue, report: Reporter) -> Image:
    """Write an image of the environment of the profile `name`, which is looked at whole before; by default to
    KEY-NAME.squashfs here.

    Raises UsageError where it is not built, or another file is in the way, DrydockError where it is damaged, and
    ToolError without mksquashfs.
    """
    store = Store.here()
    target = catalogue.plan(name).profile.target
    if target.system != "Linux":
        raise UsageError(f"{name} is for {target.platform}, and images are for Linux", hint="drydock bundle sends it")
    env = store.path(evaluate(name, catalogue).store_name)
    file = output if output is not None else Path(f"{env.name}.squashfs")
    _check_output(file)
    if shutil.which("mksquashfs") is None:
        raise ToolError("images need mksquashfs, which is not installed", hint="apt-get install squashfs-tools")
    roots.hold(env.name)
    try:
        if not is_usable(env):
            raise UsageError(f"{name} is not built", hint=f"drydock build {name}")
        with report.busy(f"looking at each file of {name}"):
            _check(env)
        with report.busy(f"writing {display(file)}"):
            return _write(env, file)
    finally:
        roots.release(env.name)


def _check_output(file: Path) -> None:
    if not os.path.lexists(file):
        return
    if file.is_symlink() or not file.is_file() or _first_bytes(file) != _MAGIC:
        raise UsageError(f"{display(file)} is not an image", hint="move it away, or use another file: -o")


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(_MAGIC))


def _check(env: Path) -> None:
    """Raise DrydockError where a file of an environment is not as it was built."""
    hint = f"drydock store verify {env.name[:8]} --repair"
    try:
        read_manifest(env)
        problems = examine([env])[0].problems
    except StageError as error:
        raise DrydockError(f"{env.name} is damaged: {error}", hint=hint) from None
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise DrydockError(f"{env.name} is damaged: {'; '.join(map(str, problems[:3]))}{more}", hint=hint)


def _write(env: Path, file: Path) -> Image:
    """Make the image beside `file`, and rename it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = beside(file)
    # It refuses its own -mkfs-time beside the variable.
    environ = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    try:
        done = process.run(["mksquashfs", str(env), str(new.absolute()), *_OPTIONS, *_FORM], env=environ)
        if done.code != 0:
            words = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise ToolError(f"mksquashfs cannot write {display(file)}: {words[-1] if words else done.code}")
        image = Image(file, env.name, new.stat().st_size, hash_of(new))
        new.chmod(0o644)
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)
    return image
