"""Build the environment of a profile: pull what is locked, run its script, make a generation."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
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


def build(name: str, catalogue: Catalogue, report: Reporter, *, dry_run: bool = False, to_run: bool = False) -> Path:
    """Build the environment of the profile `name` where it is not there, and give its path; `to_run` its trainer next.

    It becomes the current generation of `name`. Raises ProfileError, LockError, or BuildError with the script's own
    words.
    """
    entry = catalogue.entry(name)
    with waiting(report, f"reading {name}"):
        evaluation = evaluate(name, catalogue)
    store = Store.here()
    if dry_run:
        report.step(f"{name} {'is' if store.is_built(evaluation.store_name) else 'would be'} built")
        return store.path(evaluation.store_name)
    script = Script(evaluation.script, consent.check(name, evaluation.content))
    # Ours until the generation is made: a collection may run at any time.
    roots.hold(evaluation.store_name)
    done = f"{name} is built"
    if not store.is_built(evaluation.store_name):
        began = time.monotonic()
        packages = evaluation.locked["packages"]
        _pull_from_afar(name, catalogue, report)
        if any("origin" in package for package in packages):
            from builder.project import direct  # here, because most profiles name no place

            direct.provide(entry, script.consent, report.step)
        _say_how_much(name, packages, store, report)
        build_script(name, script, report, to_run=to_run)
        done = f"{name} is ready: {plural(len(packages), 'package')}, in {time.monotonic() - began:.1f} s"
    elif store.lacks_data(script.path):
        build_script(name, script, report)
    added = generations.add(name, evaluation.store_name, evaluation.script.read_text(encoding="utf-8"))
    report.step(done)
    if added.before is not None and added.before.number != added.generation.number:
        report.step(f"generation {added.generation.number} of {name}; to go back: drydock generation rollback {name}")
    return store.path(evaluation.store_name)


_MUCH = 1e9  # bytes


def _say_how_much(name: str, packages: Sequence[Mapping[str, Any]], store: Store, report: Reporter) -> None:
    """Report what a build has to fetch where that is much; what was unpacked here before is there."""
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
