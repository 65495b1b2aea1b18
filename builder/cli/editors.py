"""Where people work: shells, direnv, editors, notebooks."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from builder.cli import complete
from builder.cli.common import PROFILE, catalogue, reporter


@click.command()
@click.argument("name", default="auto", type=PROFILE, shell_complete=complete.profiles)
@click.option("--direnv", is_flag=True, help="For an .envrc: load again when the profile or its generation changes.")
def env(name: str, direnv: bool) -> None:
    """Print an environment as shell commands.

    NAME defaults to auto; it is built first if needed. In an .envrc, or any POSIX shell: eval "$(drydock env NAME)"
    """
    from builder.project.discovery import own_profile_folders
    from builder.run import start
    from builder.store import generations

    start.current_script(name, catalogue(), reporter())
    if direnv:
        files = [path.absolute() for folder in own_profile_folders() for path in sorted(folder.glob("*.toml"))]
        click.echo(f"watch_file {shlex.join(map(str, [generations.link(name), *files]))}")
    start.print_environment(name, catalogue(), reporter())


@click.command()
@click.argument("name", default="auto", type=PROFILE, shell_complete=complete.profiles)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="PATH",
    default=".venv",
    help="Where to put the link (default: .venv).",
)
def link(name: str, out: Path) -> None:
    """Link .venv to an environment, for editors and uv.

    NAME defaults to auto. The link follows every build and rollback. The environment is read-only; to experiment:
    drydock shell NAME --scratch. For a profile with [project] it is a folder that has the project's code too.
    """
    from builder.run import start
    from builder.run.link import link as make

    start.current_script(name, catalogue(), reporter())
    entry = catalogue().entry(name)
    make(name, out, entry.project_folder, entry.code)
    click.echo(out)


@click.group()
def kernel() -> None:
    """Start kernels of Jupyter in environments."""


_called = click.option(
    "--name", "called", metavar="KERNEL", help="Name of the kernel in Jupyter (default: drydock-NAME)."
)


@kernel.command("install")
@click.argument("name", default="auto", type=PROFILE, shell_complete=complete.profiles)
@_called
def kernel_install(name: str, called: str | None) -> None:
    """Write a kernelspec for the environment of a profile.

    The kernel has the variables of the profile. NAME defaults to auto.
    """
    from builder.run import jupyter

    click.echo(jupyter.install(name, called, catalogue(), reporter()))


@kernel.command("uninstall")
@click.argument("name", default="auto", type=PROFILE, shell_complete=complete.profiles)
@_called
def kernel_uninstall(name: str, called: str | None) -> None:
    """Remove the kernelspec; the environment stays."""
    from builder.run import jupyter

    click.echo(jupyter.uninstall(name, called))


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completions(context: click.Context, shell: str) -> None:
    """Print completions for a shell: commands, options, profiles.

    \b
    bash  eval "$(drydock completions bash)"
    zsh   eval "$(drydock completions zsh)"
    fish  drydock completions fish | source

    The line goes into ~/.bashrc (bash 4.4 or newer), ~/.zshrc (after compinit) or ~/.config/fish/config.fish.
    """
    from click.shell_completion import BashComplete, FishComplete, ZshComplete

    make = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}[shell]
    click.echo(make(context.find_root().command, {}, "drydock", "_DRYDOCK_COMPLETE").source())
