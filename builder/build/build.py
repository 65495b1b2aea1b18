"""Build the environment of a profile: pull what is locked, run its script, make a generation."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.build.script import Script, build_script
from builder.embedded.words import plural
from builder.errors import DrydockError
from builder.project.evaluate import evaluate
from builder.project.sources import consent
from builder.report import waiting
from builder.store import generations, roots
from builder.store.layout import Store

if TYPE_CHECKING:
    from builder.project.catalogue import Catalogue
    from builder.report import Reporter
    from builder.store.generations import Generation


def build(name: str, catalogue: Catalogue, report: Reporter, *, dry_run: bool = False, to_run: bool = False) -> Path:
    """Build the environment of the profile `name` where it is not there, and give its path; `to_run` its trainer next.

    It becomes the current generation of `name`. Raises ProfileError, LockError, or BuildError with the script's own
    words.
    """
    with waiting(report, f"reading {name}"):
        evaluation = evaluate(name, catalogue)
    store = Store.here()
    path = store.path(evaluation.store_name)
    if dry_run:
        report.step(f"{name} {'is' if store.is_built(evaluation.store_name) else 'would be'} built")
        return path
    script = Script(evaluation.script, consent.check(name, evaluation.content))
    # Ours until the generation is made: a collection may run at any time.
    roots.hold(evaluation.store_name)
    began = 0.0 if store.is_built(evaluation.store_name) else time.monotonic()
    if not began:
        data = store.data_of(script.path)
        if data is not None and not data.is_dir():
            build_script(name, script, report)
        report.step(f"{name} is built")
    else:
        _say_how_much(name, evaluation.lock, store, report)
        _pull_from_afar(name, catalogue, report)
        provide(name, catalogue, report)
        build_script(name, script, report, to_run=to_run)
    before = generations.current(name)
    made = generations.add(name, evaluation.store_name, evaluation.script.read_text(encoding="utf-8"))
    for line in _came_of_it(name, evaluation.lock, before, made, began):
        report.step(line)
    return path


def _came_of_it(name: str, lock: Path, before: Generation | None, made: Generation, began: float) -> Iterator[str]:
    """What there is now, how long that took, and how to undo it, where something was there before."""
    if began:
        count = len(_packages(lock))
        yield f"{name} is ready: {plural(count, 'package')}, in {time.monotonic() - began:.1f} s"
    if before is not None and before.number != made.number:
        yield f"generation {made.number} of {name}; to go back: drydock generation rollback {name}"


def provide(name: str, catalogue: Catalogue, report: Reporter) -> None:
    """Make the wheels that no index has, of what is at their places, where no cache has them. Raises LockError."""
    if any("origin" in package for package in _packages(evaluate(name, catalogue).lock)):
        from builder.project import direct
        from builder.project.caches import cache_places, is_read_by_scripts

        entry = catalogue.entry(name)
        near = [str(Store.here().home / "cache" / "mirror"), *filter(is_read_by_scripts, cache_places())]
        direct.provide(entry, consent.check(name, evaluate(name, catalogue).content), near, report.step)


def _packages(lock: Path) -> list[dict[str, Any]]:
    """The packages in the file of a lock, unchecked."""
    import tomllib  # here, because most builds find all as it is

    packages: list[dict[str, Any]] = tomllib.loads(lock.read_text(encoding="utf-8"))["packages"]
    return packages


_MUCH = 1e9  # bytes


def _say_how_much(name: str, lock: Path, store: Store, report: Reporter) -> None:
    """Report what a build has to fetch where that is much; what was unpacked here before is there."""
    packages = _packages(lock)
    unpacked = {path.name for path in store.home.glob("wheels/cpython-*/*")}
    missing = [package for package in packages if package["sha256"] not in unpacked]
    size = sum(package.get("size", 0) for package in missing)
    if size > _MUCH:
        report.step(
            f"{name}: {plural(len(missing), 'package')}, {size / 1e6:,.0f} MB to fetch, where no cache has them"
        )


def _pull_from_afar(name: str, catalogue: Catalogue, report: Reporter) -> None:
    """Bring what is locked from those caches that a script cannot read (ssh, S3), as far as they have all of it."""
    from builder.project.caches import cache_places, is_read_by_scripts

    for place in cache_places():
        if not is_read_by_scripts(place):
            from builder.share.mirror import pull

            try:
                pull([name], place, catalogue, report)
                return
            except DrydockError as error:
                report.warn(f"{error.message}; going on without this cache")
