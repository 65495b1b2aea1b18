"""`drydock runs`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from builder.cli import complete
from builder.cli.common import echo_json, json_option, reporter
from builder.cli.pictures import is_terminal, show_plots, svg_option, write_svg
from builder.embedded.words import plural, printable
from builder.errors import UsageError

if TYPE_CHECKING:
    from builder.check.pictures.plot import Plot
    from builder.run.records.folder import Head, Record


@click.group()
def runs() -> None:
    """List, show and keep what is recorded of runs.

    RUN is the id of a run, its last part or the beginning of that, or `last`.
    """


@runs.command("list")
@click.argument("name", required=False, shell_complete=complete.profiles)
@click.option("--tag", metavar="TAG", help="Only those with this tag.")
@click.option("--last", "count", type=click.IntRange(min=1), metavar="N", help="Only the last N.")
@json_option
def runs_list(name: str | None, tag: str | None, count: int | None, as_json: bool) -> None:
    """List runs, the newest last.

    Prints id, profile, state, time taken, last loss, tags and note.
    """
    from builder.cli.tables import show_table
    from builder.run.records import folder, words

    found = [one for one in folder.heads() if name in (None, one.name) and (tag is None or tag in one.tags)]
    found = _with_job_states(found[-count:] if count else found)
    if as_json:
        echo_json([{**one._asdict(), "state": one.state} for one in found])
    elif not found:
        of = f" of {name}" if name else ""
        tagged = f" with the tag {tag}" if tag else ""
        reporter().step(f"there is no run{of}{tagged}; what records one: drydock run {name or 'NAME'}")
    else:
        show_table(words.HEADINGS, words.rows(found), right=("TOOK",))


@runs.command("show")
@click.argument("run", shell_complete=complete.runs)
@click.option("--code", is_flag=True, help="Print the difference of the code, as a patch, instead.")
@svg_option
@json_option
def runs_show(run: str, code: bool, svg: Path | None, as_json: bool) -> None:
    """Show one run: command, code, machine, settings, losses, end.

    Of a supervised run a terminal also shows curves of its losses and of what it used; --svg draws these.
    """
    from builder.cli.tables import flowing
    from builder.run.records import folder, words

    if code and as_json:
        raise UsageError("--code and --json do not go together", hint="use one of them")
    (head,) = _with_job_states([folder.find(run)])
    record = folder.completed(head.id)
    if svg is not None:
        _draw(svg, head)
    if as_json:
        echo_json(record)
        return
    if code:
        sys.stdout.buffer.write(_difference(record))
        return
    click.echo("\n".join(flowing(line, words.INDENT) for line in words.describe(record, head)))
    if is_terminal():
        show_plots(_plots(head))


def _plots(head: Head) -> list[Plot]:
    from builder.check.pictures.plot import plots
    from builder.check.status.collect import duration, run

    found = run(head)
    return plots(found, duration(found))


def _draw(path: Path, head: Head) -> None:
    from builder.check.pictures.svg import document, plot

    found = _plots(head)
    if not found:
        raise UsageError(
            f"run {head.id} has no curves", hint=f"a supervised one has: drydock run {head.name} --supervise"
        )
    write_svg(
        path,
        document(
            f"{head.name}, run {head.id}",
            "Curves: " + ", ".join(one.title for one in found),
            [plot(one) for one in found],
        ),
    )


def _with_job_states(found: list[Head]) -> list[Head]:
    """Runs as they are now, those that are jobs of Slurm too."""
    if not any(one.job for one in found):
        return found
    from builder.run.slurm import with_job_states

    return with_job_states(found)


def _difference(record: Record) -> bytes:
    from builder.run.records.folder import read_object

    code = record.get("code") or {}
    difference = code.get("difference") or {}
    content = read_object(difference.get("object", ""))
    if content is None:
        unknown = code.get("why") or ("not known" if "commit" not in code else "it was as committed")
        raise UsageError(f"run {record['id']} has no difference of its code: {difference.get('why') or unknown}")
    return content


@runs.command("tag")
@click.argument("run", shell_complete=complete.runs)
@click.argument("tags", nargs=-1, required=True, metavar="TAG...")
@click.option("--remove", is_flag=True, help="Remove these tags.")
def runs_tag(run: str, tags: tuple[str, ...], remove: bool) -> None:
    """Add tags to a run."""
    for tag in tags:
        if not tag.isprintable() or len(tag) > 64 or not tag.strip() or set(tag) & set(" []"):
            raise UsageError(f"{tag!r} cannot be a tag", hint="a tag is one word of at most 64 characters")

    def edit(record: Record) -> None:
        own = [tag for tag in record["tags"] if tag not in tags]
        record["tags"] = own if remove else sorted({*own, *tags})

    _change(run, edit)


@runs.command("note")
@click.argument("run", shell_complete=complete.runs)
@click.argument("text")
def runs_note(run: str, text: str) -> None:
    """Give a run a note, in place of the one it has.

    An empty one removes it.
    """

    def edit(record: Record) -> None:
        record["note"] = text

    _change(run, edit)


@runs.command("delete")
@click.argument("which", nargs=-1, required=True, metavar="RUN...", shell_complete=complete.runs)
def runs_delete(which: tuple[str, ...]) -> None:
    """Delete records of runs, and what no other record needs.

    Logs, checkpoints and environments stay. One that is running is not deleted.
    """
    from builder.run.records import folder

    known = folder.heads()
    chosen = [folder.find(word, known) for word in which]
    for one in chosen:
        if one.state == "running":
            raise UsageError(f"{one.id} is running", hint="a run can be deleted once it has ended")
    count = folder.delete(chosen)
    reporter().step(f"{plural(count, 'run')} deleted")


@runs.command("export")
@click.argument("run", shell_complete=complete.runs)
@click.argument("target", metavar="DIR|FILE", type=click.Path(path_type=Path))
@click.option("--html", is_flag=True, help="Write one HTML file with pictures of losses and use, to send to others.")
def runs_export(run: str, target: Path, html: bool) -> None:
    """Write what is kept of a run into a new folder.

    DIR gets record, lock, script and the difference of the code. FILE gets what a colleague asks for, in a page that
    needs no network: result, losses, memory, command, code, machine, settings.
    """
    if html:
        from builder.check.status.collect import run as collected
        from builder.check.status.page import run_page
        from builder.files import write_new
        from builder.run.records import folder

        write_new(target, run_page(collected(folder.find(run))))
        click.echo(target)
        return
    from builder.run.records.export import export

    for path in export(run, target):
        click.echo(path)


def _change(run: str, edit: Callable[[Record], None]) -> None:
    from builder.run.records import folder

    folder.change(folder.path_of(folder.find(run).id), edit)


@click.command()
@click.argument("run", shell_complete=complete.runs)
@click.option("--into", type=click.Path(path_type=Path), metavar="DIR", help="The new folder (default: ./rerun-RUN).")
@click.option(
    "--code",
    "repository",
    type=click.Path(path_type=Path),
    metavar="REPO",
    help="Where its commit is (default: the recorded repository, or a remote of it on this disk).",
)
@click.option("-n", "--dry-run", is_flag=True, help="Print what cannot be had, and do nothing.")
@click.option("--anyway", is_flag=True, help="Run it without what cannot be had.")
@json_option
def rerun(run: str, into: Path | None, repository: Path | None, dry_run: bool, anyway: bool, as_json: bool) -> None:
    """Run again what was run.

    Its environment is built from the recorded lock, its code comes into a new folder, and its arguments are the same.
    What cannot be had is said before anything starts. With --dry-run, --json prints it as JSON.
    """
    from builder.cli.tables import flowing
    from builder.errors import DrydockError
    from builder.run.records import rerun as again

    if as_json and not dry_run:
        raise UsageError("--json goes with --dry-run", hint="without it, the output is the trainer's")
    found = again.prepare(run, repository)
    if as_json:
        echo_json(found.as_json())
        return
    for one in found.lacks:
        click.echo(flowing(f"not there: {printable(one)}", 2), err=not dry_run)
    if found.ignored:
        more = f", and {len(found.ignored) - 5} more" if len(found.ignored) > 5 else ""
        words = f"{', '.join(map(printable, found.ignored[:5]))}{more}"
        reporter().step(f"not brought, as git ignores it: {words}; data of a trainer is for [data]")
    if dry_run:
        good = "can be run again as it was" + (", where it reads nothing of that" if found.ignored else "")
        reporter().step(f"{found.record['id']} {'lacks this' if found.lacks else good}")
        return
    if found.lacks and not anyway:
        raise DrydockError(
            f"run {found.record['id']} cannot be repeated as it was",
            hint=("to take its code from another repository: --code REPO; " if found.lacks_commit else "")
            + "to run it all the same: --anyway",
        )
    again.rerun(found, into or Path(f"rerun-{found.record['id']}"), reporter())
