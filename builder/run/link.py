"""`.venv` in a project, which editors and uv use as its virtual environment.

A link to the current generation of a profile; it goes through $DRYDOCK_HOME/profiles/NAME, so it follows every build
and rollback, and its target is never collected. Where a profile has [project], a folder whose parts are such links: a
store path is shared by projects, and knows the code of none.

    pyvenv.cfg, bin/python                        links into the generation
    lib/python3.X/site-packages/drydock.pth       what to import: the project's code, the generation's packages
    lib/python3.X/site-packages/NAME.dist-info    the project's metadata
    bin/activate                                  a copy: it goes by where it is
    bin/PROGRAM                                   console scripts of the project and of the packages, with this Python
    .drydock-link                                 all of these: what else is here is not ours
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from builder.embedded import state
from builder.embedded.installed import site_packages
from builder.errors import UsageError
from builder.files import beside, link_atomically, not_ours, remove_tree, write_files
from builder.script.code import Code
from builder.script.quoting import sh_quote
from builder.store import generations

_LIST = ".drydock-link"


def link(name: str, path: Path, project: Path, code: Code | None) -> None:
    """Make `path` a virtual environment that is the current generation of `name`, with the `code` of a `project`.

    It replaces another one that was made here. Raises UsageError where another file is there, or its folder does not
    exist.
    """
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is not a folder", hint="use another place: --out")
    target = generations.link(name)
    is_link = path.is_symlink() and path.readlink().parent == target.parent
    if os.path.lexists(path) and not is_link and not _is_ours(path):
        raise not_ours(path, "--out", "drydock link")
    new = beside(path)
    try:
        if code is not None:
            _make(new, path.absolute(), target, project, code)
        if path.is_dir() and not is_link:
            remove_tree(path)
        if code is None:
            link_atomically(str(target), path)
            return
        path.unlink(missing_ok=True)
        new.rename(path)
    finally:
        if new.is_dir():
            remove_tree(new)


def _is_ours(path: Path) -> bool:
    """Whether a folder was made here, and nothing was put into it since."""
    listed = state.read_text(path / _LIST) if path.is_dir() and not path.is_symlink() else None
    return listed is not None and set(_files(path)) <= {*listed.splitlines(), _LIST}


def _files(path: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(path):
        links = [one for one in folders if (Path(folder) / one).is_symlink()]
        yield from (str((Path(folder) / one).relative_to(path)) for one in (*files, *links))


def _make(new: Path, path: Path, target: Path, project: Path, code: Code) -> None:
    """Make the folder `new`, which is to be at `path`; read-only, as an installer would only break it."""
    packages = site_packages(target)
    site = Path("lib") / packages.parent.name / "site-packages"
    roots = "".join(f"{project.resolve() / root}\n" for root in code.roots)
    # Theirs are processed too, which is not so for a plain line.
    theirs = f"import site; site.addsitedir({str(packages)!a})\n"
    texts = {str(site / "drydock.pth"): roots + theirs}
    texts |= {str(site / name): text for name, text in code.metadata.items()}
    programs = {f"bin/{name}": _own_program(path, text) for name, text in code.programs.items()}
    links = {"pyvenv.cfg": "pyvenv.cfg"}
    for one in sorted((target / "bin").iterdir()):
        if one.name.startswith("activate"):
            texts[f"bin/{one.name}"] = one.read_text(encoding="utf-8")
        elif _is_python_program(one):
            programs.setdefault(f"bin/{one.name}", _program(path, target / "bin" / one.name))
        elif f"bin/{one.name}" not in programs:
            links[f"bin/{one.name}"] = f"bin/{one.name}"
    write_files(new, {**texts, **programs})
    for name, inner in links.items():
        (new / name).symlink_to(target / inner)
    for name in programs:
        (new / name).chmod(0o755)
    write_files(new, {_LIST: "".join(f"{name}\n" for name in (*texts, *programs, *links))})
    for folder, _, _ in os.walk(new, topdown=False):
        if Path(folder) != new:  # which is still to be renamed
            Path(folder).chmod(0o555)


def _is_python_program(path: Path) -> bool:
    head = (state.read_head(path, 400) or b"").split(b"\n")
    return not path.is_symlink() and head[0].startswith(b"#!") and any(b"python" in line for line in head[:2])


def _program(path: Path, program: Path) -> str:
    """A program of a package, which would start the Python beside it, and not the one that knows the project."""
    return f'#!/bin/sh\nexec {sh_quote(str(path / "bin/python"))} {sh_quote(str(program))} "$@"\n'


def _own_program(path: Path, text: str) -> str:
    # A first line has no room for any path, and knows no quotes: sh reads this, then Python, to which it is a string.
    _, _, rest = text.partition("\n")
    return f"#!/bin/sh\n'''exec' {sh_quote(str(path / 'bin/python'))} \"$0\" \"$@\"\n' '''\n{rest}"
