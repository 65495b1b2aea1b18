"""To and from the formats of others: export a lock, make a profile of what is there."""

from __future__ import annotations

from pathlib import Path

import click

from builder.cli.common import reporter


@click.command()
@click.argument("name")
@click.option(
    "--format",
    "form",
    required=True,
    type=click.Choice(["requirements", "pylock", "sbom"]),
    help="pip's requirements with hashes, PEP 751, or a bill of materials (CycloneDX 1.6).",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Where to; default stdout.")
@click.option("--wheels", type=click.Path(path_type=Path), metavar="DIR", help="A folder that has the files.")
def export(name: str, form: str, output: Path | None, wheels: Path | None) -> None:
    """Write the lock of profile NAME in a format that other tools read, and say what it cannot carry.

    A pylock.toml names where each file is: in --wheels, else where the indexes that are configured here have it now.
    """
    from builder.export import export as exported
    from builder.export import save

    report = reporter()
    done = exported(name, form, beside=output.parent if output else Path(), wheels=wheels)
    for one in done.left_out:
        report.warn(f"not carried: {one}")
    if output is None:
        click.echo(done.text, nl=False)
        return
    save(output, done.text, name)
    click.echo(output)
