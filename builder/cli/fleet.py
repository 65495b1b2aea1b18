"""The same on many hosts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from builder.cli import complete
from builder.cli.common import agreed, catalogue, echo_json, json_option, reporter, yes_option
from builder.errors import EXIT_FAILED, UsageError

if TYPE_CHECKING:
    from builder.fleet.outcome import Deployment
    from builder.project.fleets import Fleet


@click.command()
@click.argument("fleet")
@click.argument("profile", required=False, shell_complete=complete.profiles)
@click.option("-n", "--dry-run", is_flag=True, help="Ask the hosts, print what would be done, and do nothing.")
@click.option("--only-failed", is_flag=True, help="Only the hosts on which the last deployment failed.")
@click.option("--verify", is_flag=True, help="Verify every environment before any host is switched.")
@click.option("--fewest", type=int, metavar="N", help="Switch where so many hosts are built (default: all).")
@click.option("--rollback", "back", is_flag=True, help="Go back to the generation before, on all hosts.")
@click.option("--gc", "collect", is_flag=True, help="Delete old generations on all hosts, and what only they needed.")
@click.option(
    "--restart", is_flag=True, help="Then restart its services that run another generation; also after --rollback."
)
@json_option
@yes_option
def deploy(
    fleet: str,
    profile: str | None,
    dry_run: bool,
    only_failed: bool,
    verify: bool,
    fewest: int | None,
    back: bool,
    collect: bool,
    restart: bool,
    as_json: bool,
    yes: bool,
) -> None:
    """Build a profile on the hosts of a fleet, then switch them all.

    FLEET is a table of drydock.toml: [fleets.FLEET] hosts = ["mac[01-10]"]. Hosts are reached by ssh, as ~/.ssh/config
    says, and need a shell only. PROFILE defaults to the fleet's, and that to auto: for each host the one that is for
    it. What a host lacks is sent over the same connection. Where a host fails, none is switched. Exit status: 0 for all
    hosts, 1 where some failed.
    """
    from builder.fleet import deploy as workflow

    if (back or collect) and (dry_run or only_failed or verify or fewest is not None or (back and collect)):
        raise UsageError("--rollback and --gc are of all hosts, and by themselves", hint="leave the other options out")
    if restart and (collect or dry_run):
        raise UsageError("--restart is of services whose hosts are switched", hint="leave --gc and --dry-run out")
    if collect and profile is not None:
        raise UsageError("--gc is of all profiles", hint=f"leave {profile} out")
    named = catalogue().config.fleet(fleet)
    if profile is not None and profile != "auto":
        _ = catalogue().path(profile)
    options = workflow.Options(dry_run=dry_run, only_failed=only_failed, verify=verify, fewest=fewest)
    if collect:
        from builder.fleet.gc import collect as collect_all

        done = collect_all(named)
    elif back:
        from builder.fleet.rollback import rollback

        done = rollback(named, profile, catalogue(), reporter())
    else:
        done = agreed(lambda: workflow.deploy(named, profile, catalogue(), reporter(), options), yes=yes)
    _print(done, as_json=as_json, is_built=not (dry_run or back or collect))
    wrong = not (dry_run or collect) and _restart(named, done, is_asked=restart)
    if done.failed or wrong:
        sys.exit(EXIT_FAILED)


def _restart(fleet: Fleet, done: Deployment, *, is_asked: bool) -> bool:
    """Restart the services of a fleet that is switched, or say how to; returns whether one of them is not well."""
    from builder.fleet import services

    profiles = services.installed(fleet, done)
    if not profiles:
        return False
    if not is_asked:
        reporter().step(f"services run on as they were: drydock deploy {fleet.name} --restart")
        return False
    rows = services.restart(fleet, profiles, catalogue())
    for line in services.described(rows):
        reporter().step(line)
    return not all(row.is_good for row in rows.values())


def _print(done: Deployment, *, as_json: bool, is_built: bool) -> None:
    from builder.fleet import outcome

    report = reporter()
    for line in outcome.differences(done):
        report.warn(line)
    if as_json:
        echo_json(done.as_json())
    else:
        from builder.report import sanitized

        for line in outcome.described(done):
            click.echo(sanitized(line))
    report.step(outcome.summary(done))
    if done.failed and not done.switched and is_built:
        report.step(f"nothing was switched; for those that failed: drydock deploy {done.fleet} --only-failed")
