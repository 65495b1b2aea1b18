"""Packages as an installer leaves them, and patches for them."""

from __future__ import annotations

import difflib
import re
import zipfile
from pathlib import Path
from typing import Any

from builder.embedded.hashes import record_hash, sha256
from tests.support.wheels import make_wheel

FILES = {
    "anchor/__init__.py": "version = '1.0'\n",
    "anchor/a.py": "one\ntwo\nthree\n",
    "anchor/sub/b, c.py": "red\ngreen\n",
    "anchor/data.bin": "data",
}


NO_NEWLINE = "\\ No newline at end of file\n"


def lines_of(text: str) -> list[str]:
    """Lines as diff counts them: only a newline ends one."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def diff(before: str, after: str, path: str = "anchor/a.py", *, context: int = 3) -> str:
    """A unified diff, with the mark that difflib leaves out where a file has no newline at its end."""
    told = difflib.unified_diff(lines_of(before), lines_of(after), f"a/{path}", f"b/{path}", n=context)
    return "".join(line if line.endswith("\n") else f"{line}\n{NO_NEWLINE}" for line in told)


def installed(tmp_path: Path) -> Path:
    """Make a site-packages folder with `anchor` 1.0 and `Other_Thing` 2.0 installed."""
    folder = tmp_path / "site-packages"
    wheels = [
        make_wheel(tmp_path, "anchor", "1.0", files={path: text for path, text in FILES.items() if "," not in path}),
        make_wheel(tmp_path, "Other_Thing", "2.0", files={"other/a.py": "x = 1\n"}),
    ]
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    # A name that has to be quoted in RECORD, which is CSV.
    odd = folder / "anchor/sub/b, c.py"
    odd.parent.mkdir()
    odd.write_text(FILES["anchor/sub/b, c.py"])
    record = folder / "anchor-1.0.dist-info/RECORD"
    row = f'"anchor/sub/b, c.py",{record_hash(odd.read_bytes())},{odd.stat().st_size}\n'
    record.write_text(row + record.read_text())
    return folder


def patch_of(texts: dict[str, tuple[str, str]], file: str = "a.patch") -> tuple[dict[str, Any], str]:
    """A patch as the lock has it, and its text; `texts` maps paths to texts before and after."""
    files = [
        {"path": path, "preimage": sha256(before.encode()), "postimage": sha256(after.encode())}
        for path, (before, after) in texts.items()
    ]
    text = "".join(diff(before, after, path) for path, (before, after) in texts.items())
    return {"package": "anchor", "file": file, "files": files}, text


BOTH = {
    "anchor/a.py": (FILES["anchor/a.py"], "one\n2\nthree\n"),
    "anchor/sub/b, c.py": (FILES["anchor/sub/b, c.py"], "red\ngreen\nblue\n"),
}
