"""Back to the generations before: on all hosts of a fleet, or on none."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from builder.fleet.deploy import PROBE_SECONDS, Options, Work, WorkVisit, go_back
from builder.fleet.facts import Host, host_of
from builder.fleet.hosts import hosts_of
from builder.fleet.outcome import FAILED, SWITCHED, UNREACHABLE, Deployment, Outcome, locked, remember, remembered
from builder.fleet.ssh import Visit, visit
from builder.names import stem
from builder.project.catalogue import Catalogue
from builder.project.fleets import Fleet
from builder.report import Reporter


def rollback(fleet: Fleet, profile: str | None, catalogue: Catalogue, report: Reporter) -> Deployment:
    """Go back to the generation before the current one, on all hosts or on none. Raises DrydockError."""
    hosts = hosts_of(fleet)
    with locked(fleet.name):
        before = remembered(fleet.name)
        outcomes = {host: Outcome() for host in hosts}
        found: dict[str, Host] = {}
        work = Work(fleet, profile or fleet.profile, catalogue, report, Options())
        work.outcomes = outcomes

        def probed(host: str, done: Visit) -> Sequence[Visit]:
            answer = host_of(done.marked) if done.code == 0 else None
            if answer is None:
                work.fails(host, done, UNREACHABLE if done.code == 255 else FAILED)
            else:
                found[host] = answer
            return ()

        visit(WorkVisit(None, h, "probe", {}, seconds=PROBE_SECONDS, then=partial(probed, h)) for h in hosts)
        targets: dict[str, int] = {}
        for host, answer in found.items():
            last = before[host].profile if host in before else ""
            name = next(word for word in (profile, last, fleet.profile) if word)
            here = answer.current.get(stem(name))
            known = answer.generations.get(stem(name), {})
            earlier = [number for number in known if here is not None and number < here.number]
            if here is None or not earlier:
                work.ends(host, FAILED, f"it has no generation of {name} before the current one")
                continue
            outcomes[host].profile, outcomes[host].was = name, max(earlier)
            outcomes[host].store_name = known[max(earlier)]
            targets[host] = here.number
        if len(targets) < len(hosts):
            return Deployment(fleet.name, outcomes, False)
        wrong = go_back(outcomes, {host: outcome.was for host, outcome in outcomes.items()}, targets)
        for host in hosts:
            if host in wrong:
                work.ends(host, FAILED, wrong[host])
            else:
                work.ends(host, SWITCHED)
        done = Deployment(fleet.name, outcomes, not wrong)
        remember(done)
        return done
