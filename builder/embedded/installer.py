"""How uv is asked to bring what a plan names: by hash, into a folder that the asker has made and stands in.

uv keeps a relative `--prefix` relative, and so writes below the folder that it was started in and nowhere else,
whatever becomes of that folder's name (looked at with strace, uv 0.13). It is never asked to change an environment:
what would have to be uninstalled is not there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from builder.embedded import caches
from builder.embedded.errors import StageError
from builder.embedded.plan import pinned
from builder.embedded.secrets import cleaned

SEARCHES = ("--index-strategy", "unsafe-best-match")
"""For what is known by version and hash: no index can slip in another file, so all are asked, until one has it."""

PREFERENCES = ("UV_MANAGED_PYTHON", "UV_NO_MANAGED_PYTHON", "UV_PYTHON_PREFERENCE")
"""Which Pythons uv is to prefer: without a meaning for one that is named."""

Ask = Callable[[list[str], dict[str, str]], str]
"""Runs uv with some arguments in some environment, in the folder that is to be filled; returns what to do where it
fails, and "" where it does not.
"""


class Request(NamedTuple):
    """What is asked of uv at once: packages of a plan, all from the index at `url`; "" is uv's default one.

    They are all wheels, or all source distributions: what these run sees no secrets.
    """

    packages: list[dict[str, Any]]
    url: str
    others: tuple[str, ...] = ()
    """Where to look too: what builds a package may come from another index."""

    @property
    def builds(self) -> bool:
        """Whether something is built for it."""
        return any(map(_is_source, self.packages))


def folders_of_wheels(environ: Mapping[str, str]) -> list[Path]:
    """The folders of wheels that the settings of uv and pip name, as far as they exist."""
    from builder.embedded.network_settings import read  # here and below, because many builds ask nobody

    return read(environ).folders


def index_url(name: str, url: str, environ: Mapping[str, str]) -> str:
    """Where the logical index `name` is: DRYDOCK_INDEX_NAME, else the `url` of the profile."""
    return environ.get(f"DRYDOCK_INDEX_{name.upper().replace('-', '_')}") or url


def places(mirror: Path, environ: Mapping[str, str]) -> list[str]:
    """The caches to ask, in order: `mirror`, where something is in it, then those of DRYDOCK_CACHE."""
    ours = [str(mirror)] if (mirror / "SHA256SUMS").is_file() else []
    return [*ours, *caches.places(environ)]


def requests(
    written: Mapping[str, Any], packages: Iterable[dict[str, Any]], environ: Mapping[str, str]
) -> Iterator[Request]:
    """What has to be asked to get some `packages` of a plan; `written` is what `plan.read_plan` returns.

    Where a folder has all the wheels of an index, that index is not asked.
    """
    by_index: dict[str, list[dict[str, Any]]] = {}
    for package in packages:
        by_index.setdefault(written["index"].get(package["name"], ""), []).append(package)
    folders = folders_of_wheels(environ)
    near = by_index.pop("", [])
    far: list[Request] = []
    for name, some in sorted(by_index.items()):
        if all(any((folder / package["file"]).is_file() for folder in folders) for package in some):
            near += some
        else:
            far += _apart(some, index_url(name, written["indexes"][name], environ))
    names = {one["name"] for one in written["plan"]["build-requires"]} & written["index"].keys()
    tools = [index_url(name, written["indexes"][name], environ) for name in {written["index"][one] for one in names}]
    for request in (*_apart(near, ""), *far):
        yield request._replace(others=tuple(sorted(tools))) if request.builds else request


def _apart(packages: Sequence[dict[str, Any]], url: str) -> Iterator[Request]:
    for builds in (False, True):
        some = [package for package in packages if _is_source(package) == builds]
        if some:
            yield Request(some, url)


def _is_source(package: Mapping[str, Any]) -> bool:
    return not package["file"].endswith(".whl")


def arguments(written: Mapping[str, Any], request: Request, python: str, work: Path) -> list[str]:
    """The arguments of uv for a request; the requirement files that they name are written into the folder `work`.

    `python` is the absolute path of the interpreter that the packages are for; nothing is changed there.
    """
    plan = written["plan"]
    options = ["--prefix", ".", "--python", python, "--require-hashes"]
    options += ["--only-binary", ":all:", *SEARCHES]
    for package in request.packages if request.builds else ():
        options += ["--no-binary", package["name"]]
    if request.builds:
        options += ["--require-build-hashes", *_tools(request, work / "uv.toml")]
    if request.builds and plan["build-requires"]:
        options += ["--build-constraints", str(_requirements(work / "build-requirements.txt", plan["build-requires"]))]
    return [*options, "-r", str(_requirements(work / "requirements.txt", request.packages))]


def _tools(request: Request, path: Path) -> list[str]:
    """The option that has uv install what builds a package beside what that declares: only a file can say it."""
    rows = [f"{json.dumps(one['name'])} = {json.dumps(one['build'])}\n" for one in request.packages if one.get("build")]
    if not rows:
        return []
    path.write_text("".join(["[extra-build-dependencies]\n", *rows]), encoding="utf-8")
    return ["--config-file", str(path)]


def environment(request: Request, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of uv for a request: an index may have a password in it, which no process list shows here.

    Without secrets where something is built.
    """
    from builder.embedded import network

    found = network.environment(environ, request.url or None)
    if request.others:
        found["UV_INDEX"] = " ".join([*found.get("UV_INDEX", "").split(), *request.others])
    return cleaned(found) if request.builds else found


def install(
    written: Mapping[str, Any],
    packages: Sequence[dict[str, Any]],
    ask: Ask,
    *,
    python: str,
    work: Path,
    places: Sequence[str],
    mirror: Path,
    environ: Mapping[str, str],
) -> None:
    """Have uv bring some `packages` of a plan: first what was built here, beside the cache `mirror`, and
    what the caches at `places` have, the rest from the indexes.

    Raises StageError where it cannot bring them.
    """
    left = list(packages)
    near, links = built_here(packages, mirror)
    if near.packages:
        hint = ask([*arguments(written, near, python, work), *links], environment(near, environ))
        if hint:
            raise StageError("wheels that were built here could not be installed", hint)
        left = [package for package in left if package not in near.packages]
    for place in places:
        found = _in_cache(written["plan"], left, place, environ)
        if not found:
            continue
        print(f"drydock:       from {caches.shown(place)}", file=sys.stderr, flush=True)
        for request in _apart(found, caches.index_of(place)):
            patience = {"UV_HTTP_TIMEOUT": "15", "UV_HTTP_RETRIES": "1", **environment(request, environ)}
            if ask(arguments(written, request, python, work), patience):
                print(
                    "drydock: warning: a cache did not give what is locked, uv says above why; going on without "
                    f"{caches.shown(place)}",
                    file=sys.stderr,
                    flush=True,
                )
            else:
                left = [package for package in left if package not in request.packages]
    for request in requests(written, left, environ):
        hint = ask(arguments(written, request, python, work), environment(request, environ))
        if hint:
            of = written["index"].get(request.packages[0]["name"]) if request.url else None
            some = f"the packages of the index {of}" if of else "the packages"
            raise StageError(f"{some} could not be installed", hint)


def built_here(packages: Iterable[dict[str, Any]], mirror: Path) -> tuple[Request, list[str]]:
    """Those packages that were built of what is at a place (builder/project/direct.py), and uv's options for them.

    They are kept beside the cache `mirror`.
    """
    built = mirror.with_name("built")
    found = [package for package in packages if (built / package["sha256"] / package["file"]).is_file()]
    links = [word for package in found for word in ("--find-links", str(built / package["sha256"]))]
    return Request(found, ""), ["--no-index", *links]


def _in_cache(
    plan: Mapping[str, Any], packages: Sequence[dict[str, Any]], place: str, environ: Mapping[str, str]
) -> list[dict[str, Any]]:
    """What a cache has of some packages. A source distribution needs all build requirements from the same place."""
    if not packages:
        return []
    known = caches.known(place, environ)
    builds = all(package["sha256"] in known for package in plan["build-requires"])
    return [one for one in packages if one["sha256"] in known and (builds or one["file"].endswith(".whl"))]


def _requirements(path: Path, packages: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{pinned(package)}\n" for package in packages), encoding="utf-8")
    return path
