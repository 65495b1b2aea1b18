"""Where people work: direnv, editors, notebooks."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from builder.cli.common import reporter


@click.command()
@click.argument("name", default="auto")
@click.option("--direnv", is_flag=True, help="For an .envrc: loaded again when the profile or its generation changes.")
def env(name: str, direnv: bool) -> None:
    """Print the environment of profile NAME (default: auto) as shell commands, building it first if needed.

    In an .envrc, or any POSIX shell: eval "$(drydock env NAME)"
    """
    from builder import generations, realise
    from builder.folders import own_profile_folders

    name = realise.ensure(name, reporter())
    if direnv:
        files = [path.absolute() for folder in own_profile_folders() for path in sorted(folder.glob("*.toml"))]
        click.echo(f"watch_file {shlex.join(map(str, [generations.link(name), *files]))}")
    realise.print_environment(name, reporter())


@click.command()
@click.argument("name", default="auto")
@click.option("--out", type=click.Path(path_type=Path), metavar="PATH", default=".venv", help="Where; default .venv.")
def link(name: str, out: Path) -> None:
    """Make .venv here a link to the environment of profile NAME (default: auto), which editors and uv find.

    It follows every build and rollback. It is read-only; to experiment: drydock shell NAME --scratch
    """
    from builder import realise
    from builder.link import link as make

    make(realise.ensure(name, reporter()), out)
    click.echo(out)


@click.group()
def kernel() -> None:
    """Have Jupyter start kernels in environments."""


_called = click.option("--name", "called", metavar="KERNEL", help="What Jupyter calls it; default drydock-NAME.")


@kernel.command("install")
@click.argument("name", default="auto")
@_called
def kernel_install(name: str, called: str | None) -> None:
    """Write a kernelspec whose kernel runs in the environment of profile NAME, with its variables."""
    from builder import kernel

    click.echo(kernel.install(name, called, reporter()))


@kernel.command("uninstall")
@click.argument("name", default="auto")
@_called
def kernel_uninstall(name: str, called: str | None) -> None:
    """Remove what `install` wrote; the environment stays."""
    from builder import kernel

    click.echo(kernel.uninstall(name, called, reporter()))
