"""Share what was locked: mirrors, bundles, the formats of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from builder.cli.common import PROFILE, catalogue, echo_json, json_option, reporter

if TYPE_CHECKING:
    from builder.share.mirror import Pushed

_dry_run = click.option("-n", "--dry-run", is_flag=True, help="Only say what would be moved.")


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=PROFILE)
@click.argument("destination", metavar="DEST")
@_dry_run
@json_option
def push(names: tuple[str, ...], destination: str, dry_run: bool, as_json: bool) -> None:
    """Put the locked files of profiles at DEST, as a package index that pip, uv and every build can read.

    DEST is a folder, ssh://HOST/PATH, s3://BUCKET/PATH, or what else fsspec reaches. Several profiles, and several
    pushes, make one index. What is there already is not moved.
    """
    from builder.share import mirror

    report = reporter()
    _tell(mirror.push(names, destination, catalogue(), report, dry_run=dry_run), "push", dry_run, as_json)


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=PROFILE)
@click.argument("source", metavar="SRC")
@_dry_run
@json_option
def pull(names: tuple[str, ...], source: str, dry_run: bool, as_json: bool) -> None:
    """Bring the locked files of profiles from the mirror SRC, so that they can be built without a network.

    SRC is what `drydock push` takes as DEST, or http:// or https:// where that is served.
    """
    from builder.share import mirror

    report = reporter()
    _tell(mirror.pull(names, source, catalogue(), report, dry_run=dry_run), "pull", dry_run, as_json)


_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("name", type=PROFILE)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Where to (default: NAME.run).")
@click.option(
    "--with-python",
    "python",
    is_flag=False,
    flag_value="",
    metavar="[FILE]",
    help="Put a Python in: an install_only archive of python-build-standalone, fetched where none is named.",
)
@click.option("--sign", "key", type=_file, metavar="KEY", help="Sign it with a secret key of minisign.")
def bundle(name: str, output: Path | None, python: str | None, key: Path | None) -> None:
    """Write one executable file that builds the environment of profile NAME without a network, and runs its trainer.

    It is for the profile's target, made on any host. Its options are those of the generated run script.
    """
    from builder.share.bundle import FETCHED, write_bundle

    report = reporter()
    written = write_bundle(
        name, output or Path(f"{name}.run"), catalogue(), report, python=FETCHED if python == "" else python, key=key
    )
    report.step(f"{written.size / 1e6:.1f} MB, sha256 {written.sha256}")
    click.echo(written.path)


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
    from builder.share.export import export as exported
    from builder.share.export import save

    report = reporter()
    done = exported(catalogue().plan(name), form, beside=output.parent if output else Path(), wheels=wheels)
    for one in done.left_out:
        report.warn(f"not carried: {one}")
    if output is None:
        click.echo(done.text, nl=False)
        return
    save(output, done.text, name)
    click.echo(output)


def _tell(done: Pushed, verb: str, dry_run: bool, as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict

        echo_json(asdict(done))
        return
    if dry_run:
        for file in done.moved:
            click.echo(file)
    word = f"would {verb}" if dry_run else f"{verb}ed"
    click.echo(
        f"{done.place}: {done.files} files, {done.size / 1e6:.1f} MB; "
        f"{word} {len(done.moved)}, {done.moved_size / 1e6:.1f} MB"
    )
