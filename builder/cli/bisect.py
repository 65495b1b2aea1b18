"""`drydock bisect`."""

from __future__ import annotations

import click

from builder.cli import complete
from builder.cli.common import PROFILE, agreed, catalogue, echo_json, json_option, reporter, yes_option
from builder.cli.run import Dashed
from builder.embedded.words import plural


class _Bisect(Dashed):
    after = "a test goes"


@click.command(cls=_Bisect)
@click.argument("name", type=PROFILE, shell_complete=complete.profiles)
@click.argument("words", nargs=-1, metavar="[-- TEST]...", shell_complete=complete.files)
@click.option("--good", required=True, metavar="LOCK", help="The lock with which the test passes.")
@click.option("--bad", metavar="LOCK", help="The lock with which it fails (default: that of NAME).")
@click.option("--timeout", default=1800.0, show_default=True, metavar="SECONDS", help="A test that takes longer fails.")
@click.option("--reset", is_flag=True, help="Forget the answers of a search that was stopped.")
@json_option
@yes_option
def bisect(
    name: str,
    words: tuple[str, ...],
    good: str,
    bad: str | None,
    timeout: float,
    reset: bool,
    as_json: bool,
    yes: bool,
) -> None:
    """Find the package between two locks that breaks a test.

    TEST is a command that is run in each environment: status 0 is a pass, 125 means that the test cannot decide, and
    any other status is a failure. Without TEST, it is drydock verify with the proofs of NAME. LOCK is a file, or a
    revision of git: HEAD~5, or HEAD~5:NAME. To continue a search that was stopped, run the same command again.
    """
    from builder.check.bisect.bisect import bisect as search

    report = reporter()
    found = agreed(
        lambda: search(name, good, bad or name, words, catalogue(), report, timeout=timeout, reset=reset), yes=yes
    )
    if as_json:
        echo_json(found.as_json())
        return
    for line in found.lines():
        click.echo(line)
    report.step(
        f"{plural(found.changed, 'difference')}: {plural(found.builds, 'environment')} built beside those of the two "
        f"locks, {plural(found.runs, 'run')} of the test"
    )
