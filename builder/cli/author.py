"""`drydock init` and `drydock import`."""

from __future__ import annotations

from pathlib import Path

import click

from builder.cli.common import reporter


@click.command("import")
@click.argument("source", metavar="FILE|VENV", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the profile (default: that of the project or the folder).")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to write (default: profiles/NAME.toml).",
)
@click.option(
    "--platform",
    type=click.Choice(["macos-arm64", "linux-arm64", "linux-x86_64"]),
    help="The target (default: this machine's).",
)
@click.option(
    "--accelerator",
    type=click.Choice(["mps", "cuda", "rocm", "xpu", "cpu"]),
    help="Its accelerator (default: this machine's).",
)
@click.option("--extra", "extras", multiple=True, metavar="NAME", help="Include an extra of the project. Repeatable.")
@click.option(
    "--group", "groups", multiple=True, metavar="NAME", help="Include a dependency group of the project. Repeatable."
)
def import_(
    source: Path,
    name: str | None,
    output: Path | None,
    platform: str | None,
    accelerator: str | None,
    extras: tuple[str, ...],
    groups: tuple[str, ...],
) -> None:
    """Make a profile from requirements, a lock or an environment.

    Reads requirements.txt, pyproject.toml (Poetry's too), setup.cfg, setup.py, uv.lock, poetry.lock, pylock.toml,
    environment.yml of conda, pixi.toml, a Dockerfile, a virtual environment, a Python script with a block of
    requirements, or a shell script that starts a trainer. Lists what a profile cannot hold, with its line. Runs
    nothing, overwrites nothing. The indexes are asked only if no file says for which CUDA the packages are.
    """
    from builder.author.importing import Options, import_profile
    from builder.author.importing.losses import short
    from builder.files import display
    from builder.machine import detect

    report = reporter()
    options = Options(name, output, platform, accelerator, extras, groups)
    made = import_profile(source, options, detect(), report)
    for line in short(made.left_out):
        report.warn(f"not carried over: {line}")
    for note in made.notes:
        report.warn(note)
    report.step(f"next: drydock lock {made.name}")
    click.echo(display(made.path))


@click.command()
@click.option("--name", help="Name of the profile (default: that of the project or the folder).")
@click.option(
    "--for",
    "kinds",
    metavar="KINDS",
    help="Machines: mac, cuda, cpu, with commas (default: this one's, and those that the requirements hint at).",
)
@click.option("--no-lock", is_flag=True, help="Write only the profile and the hook; needs no network.")
def init(name: str | None, kinds: str | None, no_lock: bool) -> None:
    """Start a project here: a profile, its lock, its script.

    Requirements stay in requirements.txt or pyproject.toml, which the profile reads; without a list of requirements it
    extends base. For several kinds of machines, one profile holds what the project needs, and each target has a small
    profile that extends it. A hook for pre-commit is added to .pre-commit-config.yaml, or printed; .gitattributes marks
    generated files. Nothing is overwritten.
    """
    from builder.author.importing.losses import short
    from builder.author.init import HOOKS_FILE, start_project
    from builder.author.kinds import kinds_in
    from builder.files import display
    from builder.machine import detect

    report = reporter()
    made = start_project(name, detect(), report, lock=not no_lock, kinds=kinds_in(kinds) if kinds is not None else ())
    for line in short(made.left_out):
        report.warn(f"not carried over: {line}")
    for note in made.notes:
        report.warn(note)
    if made.hook is not None:
        report.warn(f"{HOOKS_FILE} was not changed; to check profiles before each commit, add this under its repos:")
        click.echo(made.hook, err=True, nl=False)
    for path in made.files:
        click.echo(display(path))
    last = f"drydock lock {made.name} && drydock render {made.name}" if no_lock else f"drydock run {made.name}"
    report.step(f"next: look at {display(made.files[0])}, then: {last}")
