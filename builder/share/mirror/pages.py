"""The pages of a static package index, from the list of its files. Pure."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import quote

from builder.names import DATA_END, SOURCE_END

SUMS = "SHA256SUMS"
ROOT = "simple/index.html"
METADATA = ".metadata"
OURS = '<meta name="generator" content="drydock">'
"""The mark of an index of Drydock's."""

_PATH = re.compile(r"files/([0-9a-f]{2})/(\1[0-9a-f]{62})/([A-Za-z0-9_][A-Za-z0-9_.+!-]*\.(?:whl|tar\.gz|zip|data))")


class Stored(NamedTuple):
    """A file of a mirror; `size` in bytes, None where it is not known."""

    sha256: str
    file: str
    size: int | None = None
    metadata: bool = False

    @property
    def path(self) -> str:
        """Where it is in a mirror."""
        return path_of(self.sha256, self.file)

    @property
    def project(self) -> str:
        """The normalised name of its project (PEP 503)."""
        return project_of(self.file)


def path_of(sha256: str, file: str) -> str:
    """Where a file is in a mirror, relative to its root.

    >>> path_of("ab" + 62 * "0", "six-1.17.0.tar.gz")[:12]
    'files/ab/ab0'
    """
    return f"files/{sha256[:2]}/{sha256}/{file}"


def project_of(file: str) -> str:
    """The normalised name of the project of a wheel or source distribution.

    >>> project_of("Jinja2-3.1.6-py3-none-any.whl"), project_of("prefetch_generator-1.0.3.tar.gz")
    ('jinja2', 'prefetch-generator')
    """
    name = file.split("-", 1)[0] if file.endswith(".whl") else file.rsplit("-", 1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def is_python(file: str) -> bool:
    """Whether a file is an archive of python-build-standalone: no project of an index has it.

    >>> is_python("cpython-3.11.13+20251007-x86_64-unknown-linux-gnu-install_only_stripped.tar.gz")
    True
    """
    return re.fullmatch(r"cpython-[0-9.]+\+[0-9]+-.*-install_only(_stripped)?\.tar\.gz", file) is not None


def is_apart(file: str) -> bool:
    """Whether a file is one that no project of an index has: a Python, a trainer's own code, or one of its data.

    >>> is_apart("rl-swarm-2f779450a49b.source.zip"), is_apart("six-1.17.0.tar.gz")
    (True, False)
    """
    return is_python(file) or file.endswith((SOURCE_END, DATA_END))


def stored(sizes: Mapping[str, int | None]) -> list[Stored]:
    """The files of a mirror from a listing below files/, path to size; other files are left out."""
    found = ((_PATH.fullmatch(path), path) for path in sizes)
    return sorted(
        Stored(match[2], match[3], sizes[path], path + METADATA in sizes) for match, path in found if match is not None
    )


def sums(files: Iterable[Stored]) -> str:
    """The text of SHA256SUMS."""
    return "".join(f"{file.sha256}  {file.path}\n" for file in sorted(files))


def parse_sums(text: str) -> list[Stored]:
    """The files that a SHA256SUMS names; other lines are left out: they may come from anywhere.

    >>> parse_sums("0  ../../etc/passwd")
    []
    """
    found = (_PATH.fullmatch(line[66:]) for line in text.splitlines() if line[64:66] == "  ")
    return [Stored(match[2], match[3]) for match in found if match is not None]


def project_pages(project: str, files: Iterable[Stored]) -> dict[str, str]:
    """The pages of one project, by path: HTML for pip and uv, and JSON, which no static server can be asked for."""
    rows = sorted(files, key=lambda file: (file.file, file.sha256))
    has_metadata = ' data-dist-info-metadata="true" data-core-metadata="true"'
    links = [
        f'<a href="../../{quote(row.path)}#sha256={row.sha256}"{has_metadata if row.metadata else ""}>'
        f"{html.escape(row.file)}</a><br>"
        for row in rows
    ]
    data = {
        "meta": {"api-version": "1.1"},
        "name": project,
        "versions": sorted({_version_of(row.file) for row in rows}),
        "files": [
            {
                "filename": row.file,
                "url": f"../../{quote(row.path)}",
                "hashes": {"sha256": row.sha256},
                **({"size": row.size} if row.size is not None else {}),
                **({"core-metadata": True, "dist-info-metadata": True} if row.metadata else {}),
            }
            for row in rows
        ],
    }
    return {
        f"simple/{project}/index.html": _page(f"Links for {project}", links),
        f"simple/{project}/index.json": _json(data),
    }


def root_pages(projects: Iterable[str]) -> dict[str, str]:
    """The pages that list the projects."""
    names = sorted(projects)
    data = {"meta": {"api-version": "1.1"}, "projects": [{"name": name} for name in names]}
    return {
        ROOT: _page("Simple index", [f'<a href="{name}/">{name}</a><br>' for name in names]),
        "simple/index.json": _json(data),
    }


def _page(title: str, lines: Iterable[str]) -> str:
    head = f'<meta charset="utf-8">{OURS}<meta name="pypi:repository-version" content="1.1">'
    body = "".join(f"{line}\n" for line in lines)
    return f"<!DOCTYPE html>\n<html><head>{head}<title>{title}</title></head><body>\n{body}</body></html>\n"


def _json(data: object) -> str:
    return json.dumps(data, indent=1, sort_keys=True) + "\n"


def _version_of(file: str) -> str:
    if file.endswith(".whl"):
        return file.split("-")[1]
    return re.sub(r"\.(tar\.gz|zip)$", "", file).rsplit("-", 1)[1]
