"""Share what was locked or built: mirrors, bundles, images, the formats of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from builder.cli.common import PROFILE, agreed, catalogue, echo_json, json_option, reporter, yes_option
from builder.embedded.words import plural
from builder.errors import UsageError

if TYPE_CHECKING:
    from builder.share.mirror import Pushed

_dry_run = click.option(
    "-n", "--dry-run", is_flag=True, help="Print the files that would be transferred, and do nothing."
)

_without_data = click.option(
    "--without-data", is_flag=True, help="Leave out the models and data sets that [data] names."
)


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=PROFILE)
@click.argument("destination", metavar="DEST")
@_dry_run
@_without_data
@json_option
@yes_option
def push(names: tuple[str, ...], destination: str, dry_run: bool, without_data: bool, as_json: bool, yes: bool) -> None:
    """Write the locked files of profiles to a mirror.

    The mirror is a package index that pip, uv and every build can read. DEST is a folder, ssh://HOST/PATH,
    s3://BUCKET/PATH, or another place that fsspec can reach. Several profiles, and several pushes, make one index.
    Existing files are not transferred again.
    """
    from builder.share import mirror

    report = reporter()
    options = {"dry_run": dry_run, "data": not without_data}
    done = agreed(lambda: mirror.push(names, destination, catalogue(), report, **options), yes=yes)
    _print_outcome(done, "push", dry_run, as_json)


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=PROFILE)
@click.argument("source", metavar="SRC")
@_dry_run
@_without_data
@json_option
def pull(names: tuple[str, ...], source: str, dry_run: bool, without_data: bool, as_json: bool) -> None:
    """Fetch the locked files of profiles from a mirror.

    The profiles can then be built without a network. SRC is the DEST of `drydock push`, or the http:// or https:// URL
    where it is served.
    """
    from builder.share import mirror

    report = reporter()
    done = mirror.pull(names, source, catalogue(), report, dry_run=dry_run, data=not without_data)
    _print_outcome(done, "pull", dry_run, as_json)


_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("name", type=PROFILE)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Where to write (default: NAME.run)."
)
@click.option(
    "--with-python",
    "python",
    is_flag=False,
    flag_value="",
    metavar="[FILE]",
    help="Include a Python: an install_only archive of python-build-standalone (default: fetched).",
)
@click.option("--sign", "key", type=_file, metavar="KEY", help="Sign it with a secret key of minisign.")
@click.option("--verify", "there", type=_file, metavar="FILE", help="Make it again, and compare FILE with it.")
@_without_data
@yes_option
def bundle(
    name: str,
    output: Path | None,
    python: str | None,
    key: Path | None,
    there: Path | None,
    without_data: bool,
    yes: bool,
) -> None:
    """Write one executable file that needs no network.

    It builds the environment of profile NAME, for the profile's target, and runs its trainer. Its options are those of
    the generated run script. The same lock makes the same file, so that any host can tell whether one was changed.
    """
    from builder.share.bundle import FETCHED, write_bundle
    from builder.share.compare import verify_bundle

    report = reporter()
    options: dict[str, Any] = {"python": FETCHED if python == "" else python, "data": not without_data}
    if there is not None:
        if output or key:
            raise UsageError("--verify writes nothing: -o and --sign do not go with it")
        from builder.files import display

        agreed(lambda: verify_bundle(name, there, catalogue(), report, **options), yes=yes)
        report.step(f"{display(there)} is the bundle of {name}, script and content")
        return
    file = output or Path(f"{name}.run")
    written = agreed(lambda: write_bundle(name, file, catalogue(), report, key=key, **options), yes=yes)
    report.step(f"{written.size / 1e6:.1f} MB, sha256 {written.sha256}")
    click.echo(written.path)


@click.command()
@click.argument("name", type=PROFILE)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to write (default: KEY-NAME.squashfs).",
)
@yes_option
def image(name: str, output: Path | None, yes: bool) -> None:
    """Write the built environment as one file for a shared file system.

    It is a squashfs of the environment of profile NAME, after a look at every file. The generated run script uses it
    where DRYDOCK_IMAGE names it: mounted by the kernel for root, else by squashfuse. It needs mksquashfs.
    """
    from builder.share.image import write_image

    report = reporter()
    written = agreed(lambda: write_image(name, output, catalogue(), report), yes=yes)
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
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Where to write (default: stdout)."
)
@click.option("--wheels", type=click.Path(path_type=Path), metavar="DIR", help="A folder with the files.")
@yes_option
def export(name: str, form: str, output: Path | None, wheels: Path | None, yes: bool) -> None:
    """Write a lock in a format of other tools.

    Warns of what the format cannot hold. A pylock.toml names where each file is: in --wheels, else in the configured
    indexes.
    """
    from builder.share.export import export as exported
    from builder.share.export import save

    report = reporter()
    beside = output.parent if output else Path()
    done = agreed(lambda: exported(catalogue().entry(name), form, beside=beside, wheels=wheels), yes=yes)
    for one in done.left_out:
        report.warn(f"not carried: {one}")
    if output is None:
        click.echo(done.text, nl=False)
        return
    save(output, done.text, name)
    click.echo(output)


def _print_outcome(done: Pushed, verb: str, dry_run: bool, as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict

        echo_json(asdict(done))
        return
    if dry_run:
        for file in done.moved:
            click.echo(file)
    word = f"would {verb}" if dry_run else f"{verb}ed"
    click.echo(
        f"{done.place}: {plural(done.files, 'file')}, {done.size / 1e6:.1f} MB; "
        f"{word} {len(done.moved)}, {done.moved_size / 1e6:.1f} MB"
    )
