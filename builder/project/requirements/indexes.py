"""Package indexes that a file names: cleaned, named, and tied to packages where that is known."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit, urlunsplit

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from builder.errors import Where
from builder.names import NAME_PATTERN
from builder.profile import pytorch
from builder.profile.target import Target
from builder.project.requirements.model import Imported

# PyTorch has an index for each of its builds, which end in such a word, and there these packages come from it.
_BUILD = re.compile(r"/whl/(?:nightly/|test/)?(cpu|cu[0-9]+|rocm[0-9.]+|xpu)/?$")
_OF_PYTORCH = ("torch", "torchvision", "torchaudio")
_ONLY_INDEX = (
    "an index for all packages is configured where the lock is made, not in a profile: export UV_DEFAULT_INDEX there"
)


def clean(url: str, imported: Imported, where: Where) -> str | None:
    """Return an index URL without user name and password; None where it cannot be used. Both are noted."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https", "file") or (parts.scheme != "file" and not host) or "$" in url:
        imported.leave(url, "not the URL of an index (https://, http:// or file://)", where)
        return None
    if parts.query or parts.fragment or not re.fullmatch(r"[!-~]+", url):
        imported.leave(
            url, "an index URL with a query or odd characters is not carried over: it may be a secret", where
        )
        return None
    if "@" in parts.netloc:
        why = "the user name and password were taken out: put them into a netrc file where packages are fetched"
        imported.leave(url, why, where)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")).rstrip("/")


def add(url: str, imported: Imported, *, name: str | None = None) -> str:
    """Return the logical name of an index, which is added if new; `name` is kept if a profile can have it."""
    for known, place in imported.indexes.items():
        if place == url:
            return known
    base = canonicalize_name(re.sub(r"[^A-Za-z0-9]+", "-", name or _name_of(url)).strip("-"))[:40].strip("-")
    base = base if re.match(NAME_PATTERN, base) else "index"
    chosen, number = base, 1
    while chosen in imported.indexes:
        number += 1
        chosen = f"{base}-{number}"
    imported.indexes[chosen] = url
    return chosen


def use(urls: Iterable[tuple[str, bool, Where]], imported: Imported) -> None:
    """Add the usable indexes of a requirement file: (URL, whether it is the only one, where).

    Such a file does not say which package comes from which index, but for PyTorch's it is known.
    """
    for text, only, where in urls:
        url = clean(text, imported, where)
        if url is None:
            continue
        if _BUILD.search(url):
            name = add(url, imported)
            for requirement in imported.requires:
                package = canonicalize_name(Requirement(requirement).name)
                if package in _OF_PYTORCH:
                    imported.index[package] = name
        elif only:
            imported.leave(url, _ONLY_INDEX, where)
        else:
            name = add(url, imported)
            why = f'it is among [indexes]; say which packages come from it: [packages] index = {{ PACKAGE = "{name}" }}'
            imported.leave(url, why, where)


def by_registry(found: Iterable[tuple[str, str, Where]], imported: Imported) -> None:
    """Tie packages to the index that a lock says they come from: (package, URL, where).

    The index that most of them come from is taken for the default one of the lock's makers.
    """
    sources = list(found)
    urls = [url for _, url, _ in sources]
    usual = max(dict.fromkeys(urls), key=urls.count, default=None)
    cleaned: dict[str, str | None] = {}
    for package, url, where in sources:
        if url == usual:
            continue
        if url not in cleaned:
            cleaned[url] = clean(url, imported, where)
        if (place := cleaned[url]) is not None:
            imported.index[str(canonicalize_name(package))] = add(place, imported)


def for_target(imported: Imported, target: Target, where: Where) -> None:
    """Leave to the target which build of PyTorch it is: PyTorch's own indexes, and builds in versions.

    What is for another build is noted, with its place, or `where`. A mirror of the right index is kept.
    """
    build = pytorch.build(target)
    here = (target.cuda and f"CUDA {target.cuda}") or f'"{target.accelerator}"'
    why = f"the target decides which build of PyTorch it is, and this one is for {here}"
    for package, name in list(imported.index.items()):
        found = pytorch.build_at(imported.indexes[name])
        if package not in pytorch.PACKAGES or found is None:
            continue
        if found != build or imported.indexes[name] == pytorch.url(pytorch.index(found)):
            del imported.index[package]
        if found != build:
            # On a Mac the two are one.
            nothing = build is None and found == "cpu"
            at = _place(package, imported) or where
            imported.leave(f"{package} from {imported.indexes[name]}", why, at, expected=nothing)
        if name not in imported.index.values():
            del imported.indexes[name]
    for text in list(imported.requires):
        wanted = Requirement(text)
        builds = {pytorch.build_of(one.version) for one in wanted.specifier if one.operator == "=="} - {None, build}
        if canonicalize_name(wanted.name) in pytorch.PACKAGES and builds:
            plain = re.sub(rf"\+({'|'.join(map(re.escape, filter(None, builds)))})", "", text)
            place = imported.places.pop(text, where)
            imported.requires[imported.requires.index(text)] = plain
            imported.places[plain] = place
            imported.leave(text, f"{why}; {plain} is required", place)


def _place(package: str, imported: Imported) -> Where | None:
    found = (place for text, place in imported.places.items() if canonicalize_name(Requirement(text).name) == package)
    return next(found, None)


def _name_of(url: str) -> str:
    """A name from a URL: https://download.pytorch.org/whl/cpu is pytorch-cpu."""
    parts = urlsplit(url)
    labels = (parts.hostname or "").split(".")
    host = labels[-2] if len(labels) > 1 and not labels[-1].isdigit() else labels[0]
    last = parts.path.rstrip("/").rpartition("/")[2]
    return f"{host}-{last}" if last and last != "simple" else host
