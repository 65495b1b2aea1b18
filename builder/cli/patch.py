"""`drydock patch`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from builder.cli.common import agreed, catalogue, echo_json, json_option, names_or_all, reporter, yes_option
from builder.embedded.words import plural
from builder.errors import PatchError

if TYPE_CHECKING:
    from builder.author.patching.check import Outlook

_FOLDER = click.Path(path_type=Path)


@click.group()
def patch() -> None:
    """Make patches of packages, and check which are still needed."""


@patch.command("start")
@click.argument("name")
@click.argument("package")
@click.option("--dir", "folder", type=_FOLDER, metavar="DIR", help="Where to write (default: ./patch-NAME-PACKAGE).")
@yes_option
def patch_start(name: str, package: str, folder: Path | None, yes: bool) -> None:
    """Open a package of a profile for editing.

    Prints the folder: a copy of the files of PACKAGE, patched as they are now.
    """
    from builder.author.patching import start
    from builder.files import display

    report = reporter()
    shown = display(agreed(lambda: start(name, package, folder, catalogue(), report), yes=yes))
    click.echo(shown)
    report.step(f"edit the files there, then: drydock patch commit {shown}; to discard it: drydock patch abort {shown}")


@patch.command("commit")
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option(
    "--file", metavar="NAME", help="The patch file, in patches/ (default: PACKAGE-VERSION, or the existing one)."
)
@click.option("--why", metavar="TEXT", help="What goes wrong without it; required for a new patch.")
@click.option("--versions", metavar="SPEC", help="The versions that it is for (default: ==VERSION, or unchanged).")
@click.option("--proof", type=_FOLDER, metavar="FILE", help="A program that fails without it and passes with it.")
@yes_option
def patch_commit(
    folder: Path, file: str | None, why: str | None, versions: str | None, proof: Path | None, yes: bool
) -> None:
    """Make a patch of the changes in DIR.

    Writes the patch, adds it to the profile, locks the profile, and prints the files that were written. Changes of a
    file that a patch of the profile has already change that patch; others make a new one.
    """
    from builder.author.patching import Options, commit
    from builder.files import display

    report = reporter()
    options = Options(file=file, why=why, versions=versions, proof=proof)
    done = agreed(lambda: commit(folder, options, catalogue(), report), yes=yes)
    for written in done.written:
        click.echo(display(written))
    for path, (more, less) in done.changed.items():
        report.step(f"  {path}: +{more} -{less}")
    for change in done.packages:
        report.step(f"  {change}")
    for left in done.left:
        report.warn(f"{display(folder)}/{left} was not made by Drydock and stays")
    for other in done.stale:
        report.warn(f"{other} has this patch too, and its lock is stale: drydock lock {other}")
    render = f", drydock render {done.profile}" if (Path("generated") / done.profile).is_dir() else ""
    report.step(f"{done.profile} is locked again; next: drydock build {done.profile}{render}")
    report.step(f"to check that its proof fails without it and passes with it: drydock patch check {done.profile}")


@patch.command("check")
@click.argument("names", nargs=-1)
@click.option("--prove", is_flag=True, help="Try the release in the whole environment too: proofs, resume, training.")
@json_option
@yes_option
def patch_check(names: tuple[str, ...], prove: bool, as_json: bool, yes: bool) -> None:
    """Find out which patches newer releases still need.

    Without NAMES, of all profiles that can be built. Proofs run in a scratch environment, if this machine can run them.
    With --prove, the newest release that can do without the patch, or the last one that it fits, is tried as drydock
    lock --prove does; nothing is changed. Fails only if a patch does not work with the locked release.
    """
    from builder.author.patching.check import check

    report = reporter()
    found = []
    for name in names_or_all(names, built_in=True):
        for one in agreed(partial(check, name, catalogue(), report), yes=yes):
            if prove:
                _prove(one)
            found.append(one)
            for line in () if as_json else one.lines():
                click.echo(line)
    if as_json:
        echo_json([one.as_json() for one in found])
    broken = [one for one in found if one.verdict == "broken"]
    if broken:
        raise PatchError(
            f"{len(broken)} of {plural(len(found), 'patch')} {'does' if len(broken) == 1 else 'do'} not work"
        )


def _prove(one: Outlook) -> None:
    """Try the release that an outlook names."""
    from builder.check.prove.prove import prove_release

    if one.to_try is None:
        return
    version, patched = one.to_try
    theirs = next(each for each in catalogue().profile(one.profile).patches if each.file == one.patch)
    proofs = prove_release(one.profile, theirs, version, catalogue(), reporter(), patched=patched)
    one.tried = {
        "version": version,
        "patched": patched,
        "holds": all(proof.good is not False for proof in proofs),
        "proofs": [{"what": proof.what, "holds": proof.good, "found": proof.words} for proof in proofs],
    }


@patch.command("abort")
@click.argument("folder", metavar="DIR", type=_FOLDER)
def patch_abort(folder: Path) -> None:
    """Discard the changes in DIR, and delete it.

    Files that Drydock did not write stay.
    """
    from builder.author.patching import abort
    from builder.files import display

    report = reporter()
    for path in abort(folder):
        report.warn(f"{display(folder)}/{path} was not made by Drydock and stays")
    report.step(f"{display(folder)} is discarded")
