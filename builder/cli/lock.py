"""Lock profiles, render them, compare them."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from builder.cli import complete
from builder.cli.common import PROFILE, agreed, catalogue, echo_json, json_option, names_or_all, reporter, yes_option
from builder.cli.pictures import is_terminal, painted, show_changes, show_plots, show_tree, svg_option, write_svg
from builder.embedded.words import plural
from builder.errors import DrydockError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from builder.check.pictures.plot import Plot
    from builder.check.prove.prove import Limits
    from builder.lock.diff import Difference
    from builder.lock.model import Lock
    from builder.lock.outdated import Outdated
    from builder.lock.tree import Branch
    from builder.project.lock import Relocked
    from builder.run.records.compare import Runs


class _Lock(click.Command):
    """`--allow-builds` takes a value after = only: what stands after it is the name of a profile."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [f"{one}={_EVERY}" if one == "--allow-builds" else one for one in args])


_EVERY = ":all:"


@click.command(cls=_Lock)
@click.argument("names", nargs=-1, shell_complete=complete.profiles)
@click.option(
    "-P",
    "--upgrade",
    multiple=True,
    metavar="PKG",
    help="Use the newest PKG that fits; trainer and data mean the code and the data of the profile. Repeatable.",
)
@click.option("-U", "--upgrade-all", is_flag=True, help="Use the newest version of every package that fits.")
@click.option("--check", is_flag=True, help="Write nothing; fail if a lock is missing, stale or edited.")
@click.option("-n", "--dry-run", is_flag=True, help="Write nothing; print the changes.")
@click.option(
    "--allow-builds",
    metavar="[PKG,...]",
    help="Add packages that have no wheel to [packages.build], so that they are built; with =PKG,... only these.",
)
@click.option("--prove", is_flag=True, help="Keep the new lock only if proofs, resume and training hold with it.")
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="WHAT=N%",
    help="With --prove: how much loss may differ (5%), speed fall (10%), memory grow (10%). Repeatable.",
)
@click.option(
    "--report",
    "report_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.md",
    help="With --prove: write a report for a pull request into a new file.",
)
@yes_option
def lock(
    names: tuple[str, ...],
    upgrade: tuple[str, ...],
    upgrade_all: bool,
    check: bool,
    dry_run: bool,
    allow_builds: str | None,
    prove: bool,
    limits: tuple[str, ...],
    report_file: Path | None,
    yes: bool,
) -> None:
    """Lock profiles for their targets, from any host.

    Without NAMES, all of this project. Versions stay as they are where they still fit the profile. Prints the changes.
    Packages without a wheel are refused, all at once; --allow-builds allows to build their sources. To take that back:
    drydock undo.

    With --prove, the new lock of one profile is built beside the current one; both are verified, resumed from a
    checkpoint and measured by the profile's [bench]. If the new one is worse, nothing is changed, and the exit status
    is 1.
    """
    if prove or limits or report_file is not None:
        fits = prove and not check and allow_builds is None and len(names) == 1
        _prove(names, upgrade, report_file, limits, upgrade_all=upgrade_all, dry_run=dry_run, yes=yes, fits=fits)
        return
    from builder.project.alike import lock_together
    from builder.project.lock import relock

    report = reporter()
    if check:
        for name in names_or_all(names):
            report.step(f"{name}: {plural(len(catalogue().plan(name).lock.packages), 'package')}, fresh")
        return
    again = partial(relock, report=report, upgrade=upgrade, upgrade_all=upgrade_all, dry_run=dry_run)

    def lock_one(name: str, made: Mapping[str, Lock]) -> Lock:
        return _locked(name, _allowing(name, partial(again, made=made), allow_builds, dry_run=dry_run), yes=yes)

    lock_together(names_or_all(names), lock_one, catalogue, report, oldest=upgrade_all)


def _limits(words: tuple[str, ...]) -> Limits:
    from builder.check.prove.prove import LIMITS

    found = LIMITS
    for word in words:
        parsed = re.fullmatch(rf"({'|'.join(found._fields)})=([0-9]+(?:\.[0-9]+)?)%", word)
        if parsed is None:
            raise UsageError(f'"{word}" is not a limit', hint="for instance --limit loss=5% --limit memory=20%")
        found = found._replace(**{parsed[1]: float(parsed[2]) / 100})
    return found


def _prove(
    names: tuple[str, ...],
    upgrade: tuple[str, ...],
    file: Path | None,
    limits: tuple[str, ...],
    *,
    upgrade_all: bool,
    dry_run: bool,
    yes: bool,
    fits: bool,
) -> None:
    """Lock an upgrade that holds. `fits` says whether the options go together."""
    from builder.check.prove.prove import prove
    from builder.check.prove.words import markdown
    from builder.lock.model import changes
    from builder.project.lock import words

    if not fits:
        raise UsageError(
            "--prove is for one profile, without --check and --allow-builds; --limit and --report go with it",
            hint="drydock lock NAME --upgrade-all --prove",
        )
    (name,) = names
    if file is not None and file.exists():
        raise UsageError(f"{file} already exists", hint="move it away, or name another file: --report")
    report = reporter()
    work = partial(prove, upgrade=upgrade, upgrade_all=upgrade_all, dry_run=dry_run, limits=_limits(limits))
    found = agreed(lambda: work(name, catalogue(), report), yes=yes)
    if file is not None:
        file.write_text(markdown(found), encoding="utf-8")
        report.step(f"reported: {file}")
    if found.failed:
        why = "; ".join(f"{proof.what}: {proof.words}" for proof in found.failed)
        raise DrydockError(f"the upgrade of {name} does not hold. {why}", hint="nothing was changed")
    if found.new is not None and found.is_upgrade:
        for change in changes(found.old, found.new):
            click.echo(f"{name}: {change}")
        report.step(f"{name}: {'locked' if found.kept else 'would be locked'}, {words(found.new)}")
    else:
        report.step(f"{name}: nothing is newer")


def _allowing(
    name: str, again: Callable[..., Relocked], allowed: str | None, *, dry_run: bool
) -> Callable[..., Relocked]:
    """The same as `again`, which allows the builds that --allow-builds says."""
    if allowed is None:
        return partial(again, name)
    from packaging.utils import canonicalize_name

    from builder.author.builds import lock_with_builds

    packages = None if allowed == _EVERY else {str(canonicalize_name(one)) for one in allowed.split(",") if one}
    asked = partial(again, name, dry_run=True, wants_builds=True)
    return lambda found: lock_with_builds(name, found, reporter(), asked, packages, dry_run=dry_run)


def _locked(name: str, again: Callable[..., Relocked], *, yes: bool) -> Lock:
    """Lock a profile, and say what changed."""
    from builder.project.lock import words

    report = reporter()
    done = agreed(lambda: again(catalogue()), yes=yes)
    for change in done.changes:
        click.echo(f"{name}: {change}")
    for override in done.lock.overrides if done.new else ():
        report.step(f"{name}: overridden: {override.requirement} ({override.reason})")
    state = "locked" if done.written else ("would be locked" if done.new else "is fresh")
    report.step(f"{name}: {state}, {words(done.lock)}")
    return done.lock


@click.command()
@click.argument("names", nargs=-1, shell_complete=complete.profiles)
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Where to write (default: generated/NAME).")
@click.option("--check", is_flag=True, help="Write nothing; fail if a file differs from its profile.")
@click.option("--standalone", is_flag=True, help="Make each repair tool self-contained, to be copied alone.")
@click.option("--slurm", is_flag=True, help="Write a batch script for Slurm too.")
def render(names: tuple[str, ...], out: Path | None, check: bool, standalone: bool, slurm: bool) -> None:
    """Write the generated files of profiles.

    These are the run script, the env file and the repair tools. Without NAMES, all profiles of this project but those
    with [generated] committed = false. An existing batch script for Slurm is written again too.
    """
    from builder.files import display
    from builder.names import stem
    from builder.project import generated
    from builder.report import waiting
    from builder.resources import version

    if out is not None and len(names) != 1:
        raise UsageError("--out goes with exactly one profile", hint="drydock render NAME --out DIR")
    report = reporter()
    for name in names or [name for name in names_or_all(()) if catalogue().profile(name).generated.committed]:
        folder = out or Path("generated") / stem(name)
        if check:
            generated.check(name, folder, catalogue().plan(name), standalone=standalone, slurm=slurm)
            report.step(f"{name}: {display(folder)} is up to date")
            continue
        if before := generated.rendered_by_another(name, folder, catalogue().plan(name)):
            report.warn(
                f"{display(folder)} was rendered by Drydock {before}, and this is {version()}; "
                'in a team, agree on one: required-version = "…" in drydock.toml'
            )
        with waiting(report, f"rendering {name}"):  # the first takes the longest: it makes the machinery compact
            changed = generated.generate(name, folder, catalogue().plan(name), standalone=standalone, slurm=slurm)
        for path in changed:
            click.echo(display(path))
        report.step(f"{name}: {plural(len(changed), 'file')} changed in {display(folder)}")


@click.command()
@click.argument("before", metavar="A", shell_complete=complete.profiles)
@click.argument("after", metavar="B", shell_complete=complete.profiles)
@json_option
@click.option("--markdown", is_flag=True, help="Print Markdown, for a pull request.")
@svg_option
def diff(before: str, after: str, as_json: bool, markdown: bool, svg: Path | None) -> None:
    """Compare two profiles, locks, generations or runs.

    Prints different packages, patches and overrides; of two profiles also target, variables and trainer; of two runs
    also settings, code, arguments, machine and end. Each of A and B is a profile (m4), a generation (m4@2), the path of
    a lock, a lock in git (HEAD~1:m4), or a run (as drydock runs list has it). Of two runs a terminal also shows their
    losses as curves.
    """
    from builder.lock.diff import compare
    from builder.project.refs import side

    report = reporter()
    if _are_runs(before, after):
        if markdown:
            raise UsageError("--markdown is not for runs", hint="leave it out, or use --json")
        _diff_runs(before, after, svg, as_json=as_json)
        return
    found = compare(side(before, catalogue(), report), side(after, catalogue(), report))
    if svg is not None:
        _draw_changes(svg, found)
    if as_json:
        echo_json(found.as_json())
        return
    if is_terminal() and not markdown:
        show_changes(found.head, found.blocks())
    else:
        click.echo("\n".join(found.markdown() if markdown else found.lines()))
    if found.unknown:
        report.step(f"not known for both, so not compared: {', '.join(found.unknown)}")


def _draw_changes(path: Path, found: Difference | Runs, plots: Sequence[Plot] = ()) -> None:
    from builder.check.pictures import svg
    from builder.lock.tree import Branch

    parts = [svg.tree(Branch(found.head, [block.branch() for block in found.blocks()], "head")), *map(svg.plot, plots)]
    write_svg(path, svg.document("What differs", "; ".join(found.lines()), parts))


def _are_runs(*words: str) -> bool:
    """Whether two words name runs; what is the name of a profile, or a file, is that."""
    from builder.run.records.folder import looks_like_one

    return all(looks_like_one(word) for word in words) and not any(
        word in catalogue().names() or Path(word).is_file() for word in words
    )


def _diff_runs(before: str, after: str, svg: Path | None, *, as_json: bool) -> None:
    from builder.check.pictures.plot import together
    from builder.check.status.collect import run
    from builder.run.records import folder
    from builder.run.records.compare import compare_runs

    known = folder.heads()
    heads = [folder.find(word, known) for word in (before, after)]
    one, other = (folder.completed(head.id) for head in heads)
    found = compare_runs(one, other)
    is_drawn = is_terminal() and not as_json
    plots = together(*(run(head) for head in heads)) if svg is not None or is_drawn else []
    if svg is not None:
        _draw_changes(svg, found, plots)
    if as_json:
        echo_json(found.as_json())
        return
    if is_drawn:
        show_changes(found.head, found.blocks())
        show_plots(plots)
    else:
        click.echo("\n".join(found.lines()))
    if found.unknown:
        reporter().step(f"not known for both, so not compared: {', '.join(found.unknown)}")


@click.command()
@click.argument("name", shell_complete=complete.profiles)
@click.argument("package", shell_complete=complete.packages)
@json_option
@svg_option
def why(name: str, package: str, as_json: bool, svg: Path | None) -> None:
    """Show why a package is in a lock.

    Prints every path from a requirement of the profile to PACKAGE, on a terminal as a tree. NAME can also be the path
    of a lock, or a lock in git (HEAD~1:m4).
    """
    from builder.lock.why import why as paths
    from builder.project.refs import side

    lock = side(name, catalogue(), reporter()).lock
    if lock is None:
        raise UsageError(f"{name} does not record which package requires which", hint="name a profile, or its lock")
    found = paths(name, lock, package)
    if svg is not None:
        _draw_tree(svg, f"Why {found.package} is in {name}", "; ".join(found.lines()), found.tree())
    if as_json:
        echo_json(found.as_json())
    elif is_terminal():
        head, *overridden = found.head()
        click.echo("\n".join([painted(head, "head"), *overridden]), color=True)
        show_tree(found.tree())
        for line in found.rest():
            click.echo(line)
    else:
        click.echo("\n".join(found.lines()))


def _draw_tree(path: Path, title: str, description: str, top: Branch) -> None:
    from builder.check.pictures.svg import document, tree

    write_svg(path, document(title, description, [tree(top)]))


@click.command()
@click.argument("name", type=PROFILE, default="auto", shell_complete=complete.profiles)
@click.argument("package", required=False, shell_complete=complete.packages)
@click.option("--depth", type=click.IntRange(min=1), metavar="N", help="Show N levels only.")
@json_option
@svg_option
def tree(name: str, package: str | None, depth: int | None, as_json: bool, svg: Path | None) -> None:
    """Show which package of a lock requires which, as a tree.

    With PACKAGE, only what that package requires; drydock why shows what requires it. (*) marks a package that stands
    above with all that it requires.
    """
    from builder.lock.tree import tree as of

    found = of(name, catalogue().entry(name).lock)
    if svg is not None:
        whose = f"{package} in {name}" if package else name
        number = plural(len(found.versions), "package")
        _draw_tree(
            svg,
            f"Packages of {whose}",
            f"{number}, each below what requires it",
            found.branch(below=package, depth=depth),
        )
    if as_json:
        echo_json(found.as_json())
    else:
        show_tree(found.branch(below=package, depth=depth))


def _outdated(name: str) -> list[Outdated]:
    from builder.lock.outdated import outdated as of
    from builder.project.lock import known_caches
    from builder.project.sources import consent

    entry = catalogue().entry(name)
    return of(entry.profile, entry.lock, consent.for_builds(entry), caches=known_caches(), step=reporter().detail)


@click.command()
@click.argument("names", nargs=-1, shell_complete=complete.profiles)
@json_option
@yes_option
def outdated(names: tuple[str, ...], as_json: bool, yes: bool) -> None:
    """List packages of locks that have newer versions.

    "update" is what drydock update would lock, "latest" the newest for the target, whatever the profile says of
    versions and days. Without NAMES, all profiles of this project.
    """
    from builder.cli.tables import show_table

    report = reporter()
    rows = {}
    for name in names_or_all(names):
        with report.busy(f"asking for newer packages of {name}"):
            rows[name] = agreed(partial(_outdated, name), yes=yes)
    if as_json:
        echo_json({name: [one.as_json() for one in found] for name, found in rows.items()})
        return
    for name, found in rows.items():
        report.step(f"{name}: {plural(len(found), 'package')} of {len(catalogue().entry(name).lock.packages)} outdated")
        show_table(
            ("PACKAGE", "LOCKED", "UPDATE", "LATEST"),
            [(one.name, one.locked, one.update, one.latest) for one in found],
        )
