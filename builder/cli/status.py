"""`drydock status`."""

from __future__ import annotations

from typing import Any

import click

from builder.cli.common import catalogue, command, echo_json, json_option, reporter
from builder.errors import DrydockError, UsageError


@click.command()
@click.option("--web", is_flag=True, help="Serve it as a page, on this machine only, until Ctrl-C.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="With --web: this port (default: a free one).")
@json_option
def status(web: bool, port: int, as_json: bool) -> None:
    """Show profiles, runs, this machine and the store.

    Profiles are the project's own and those that are built; runs are the last ten. The page of --web is read only, and
    has a token in its address; it shows the losses and the use of a supervised run as they come.
    """
    from builder.check.status.collect import collect

    if web and as_json:
        raise UsageError("--web and --json do not go together", hint="use one of them")
    if port and not web:
        raise UsageError("--port goes with --web")
    if web:
        _serve(port)
        return
    found = collect(catalogue(), command().machine)
    if as_json:
        echo_json(found)
    else:
        _show(found)


def _serve(port: int) -> None:
    from builder.check.status.collect import collect
    from builder.check.status.page import page
    from builder.check.status.serve import EVERY, server
    from builder.project.catalogue import Catalogue

    machine = command().machine

    def made(nonce: str) -> str:
        return page(collect(Catalogue(), machine), nonce=nonce, every=EVERY)

    try:
        found, address = server(port, made)
    except OSError as error:
        raise DrydockError(f"port {port} cannot be used: {error.strerror}", hint="leave --port out") from None
    click.echo(address)
    reporter().step("open it in a browser of this machine; Ctrl-C ends it")
    with found:
        found.serve_forever()


def _show(found: dict[str, Any]) -> None:
    from builder.cli.tables import flowing, show_table
    from builder.report import sanitized
    from builder.run.records import folder, words

    rows = []
    for one in found["profiles"]:
        generation = f"{one['generation']} of {one['generations']}" if one["generation"] else ""
        state = one["built"][:19].replace("T", " ") if one["there"] else "not built"
        rows.append((one["name"], one["target"], generation, state, one["key"][:12]))
    _heading("profiles")
    show_table(("PROFILE", "FOR", "GENERATION", "BUILT", "KEY"), rows)
    click.echo()
    _heading("runs")
    last = {one["id"] for one in found["runs"]}
    show_table(words.HEADINGS, words.rows([one for one in folder.heads() if one.id in last]), right=("TOOK",))
    for run in found["runs"]:
        if run["state"] == "running" and run["use"]:
            losses = ", ".join(
                f"{name} {one['last']:g}" for name, one in run["losses"].items() if one["last"] is not None
            )
            used = f"{run['use'][-1][2] / 1e6:.0f} MB, {run['use'][-1][1]:.1f} cores"
            click.echo(sanitized(f"  {run['name']} now: {', '.join(filter(None, (losses, used)))}"))
    click.echo()
    _heading("machine")
    for line in found["machine"]:
        click.echo(flowing(f"  {line}", 4))
    store = found["store"]
    free = f", {store['free'] / 1e9:.1f} GB free" if store["free"] is not None else ""
    click.echo(flowing(f"  store: {sanitized(store['home'])}: {store['environments']} built{free}", 4))


def _heading(text: str) -> None:
    import sys

    from builder.cli.tables import bold
    from builder.report import is_coloured

    click.echo(bold(text) if is_coloured(sys.stdout) else text, color=True)
