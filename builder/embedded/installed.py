"""What is installed in a site-packages folder (PEP 376, and "Recording installed projects" of the PyPA)."""

from __future__ import annotations

import csv
import io
import os
import re
from pathlib import Path
from typing import Any

from builder.embedded.errors import StageError
from builder.embedded.hashes import record_hash


def canonical_name(name: str) -> str:
    """A package name in its normal form (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def distributions(site: Path) -> dict[str, Path]:
    """The installed packages of a site-packages folder: normal name to dist-info folder."""
    return {
        canonical_name(info.name[: -len(".dist-info")].rsplit("-", 1)[0]): info for info in site.glob("*.dist-info")
    }


def read_record(info: Path) -> list[list[str]]:
    """The rows of a RECORD: path, hash, size."""
    return list(csv.reader(io.StringIO((info / "RECORD").read_text(encoding="utf-8"), newline="")))


def check_record(info: Path) -> None:
    """Raise StageError where a RECORD was cut off: uv 0.13 does not notice where its last write fails (a full disk)."""
    record = (info / "RECORD").read_bytes()
    if not record.endswith(b"\n") or b".dist-info/RECORD," not in record:
        raise StageError(f"{info.name}/RECORD is not whole: was the disk full for a moment?")


def rewrite_record(info: Path, changed: dict[str, bytes]) -> None:
    """Give RECORD the new hash and size of the `changed` files, where it does not have them."""
    before = read_record(info)
    rows = [
        [row[0], record_hash(changed[row[0]]), str(len(changed[row[0]]))] if row and row[0] in changed else row
        for row in before
    ]
    missing = set(changed) - {row[0] for row in rows if row}
    if missing:
        raise StageError(f"{info.name}/RECORD does not list {', '.join(sorted(missing))}")
    if rows == before:
        return
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    replace_file(info / "RECORD", text.getvalue().encode())


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` at `path` through a new file and a rename.

    Never in place: installers hard-link from their cache, and a write through the link would change that too.
    """
    new = path.with_name(path.name + ".drydock-new")
    try:
        mode = path.stat().st_mode & 0o7777
        with open(new, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(new, mode)
        os.replace(new, path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def site_packages(env: Path) -> Path:
    """The site-packages folder of a virtual environment."""
    found = sorted(env.glob("lib/python3*/site-packages"))
    if len(found) != 1:
        raise StageError(f"{env} is not a virtual environment: it has no lib/python3.*/site-packages")
    return found[0]


def check_distributions(site: Path, plan: dict[str, Any], *, others: bool = False) -> None:
    """Exactly the packages of the plan are installed, in their versions; `others` allows more. Raises StageError."""
    installed = distributions(site)
    wanted = {package["name"]: package["version"] for package in plan["packages"]}
    extra, missing = sorted(set(installed) - set(wanted)), sorted(set(wanted) - set(installed))
    if extra and not others:
        raise StageError(f"installed, but not in the lock: {', '.join(extra)}")
    if missing:
        raise StageError(f"in the lock, but not installed: {', '.join(missing)}")
    for name, info in installed.items():
        if name not in wanted:
            continue
        check_record(info)
        version = info.name[: -len(".dist-info")].rsplit("-", 1)[1]
        if version != wanted[name] and version_of(info) != wanted[name]:
            raise StageError(f"{name} {version} is installed, and the lock wants {wanted[name]}")


def version_of(info: Path) -> str | None:
    """The version that METADATA in a dist-info folder says."""
    for line in (info / "METADATA").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("Version:"):
            return line.partition(":")[2].strip()
    return None


def forget_origins(site: Path) -> None:
    """Take out what uv notes of a wheel that comes from a folder: the time of that file.

    The same lock gives the same files, wherever the wheels were.
    """
    for info in distributions(site).values():
        origin, record = info / "uv_cache.json", info / "RECORD"
        if origin.exists():
            row = f"{info.name}/uv_cache.json,".encode()
            rows = record.read_bytes().splitlines(keepends=True)
            new = info / "RECORD.new"  # it may be a hard link into uv's cache
            new.write_bytes(b"".join(one for one in rows if not one.startswith(row)))
            os.replace(new, record)
            origin.unlink()
