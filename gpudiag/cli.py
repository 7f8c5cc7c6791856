"""The ``gpudiag`` command; the subcommands lie in `gpudiag.commands`.

Exit codes: 0 nothing at or above ``--fail-on``, 1 findings at or above it, 2 usage error or
unreadable input, 3 gpudiag itself failed.
"""

from __future__ import annotations

import sys
from importlib import import_module

import click

from gpudiag.command_line import EXIT_BAD_INPUT, run
from gpudiag.errors import InputError
from gpudiag.version import __version__

MODULES = {
    "diagnose": "diagnose",
    "snapshot": "diagnose",
    "versions": "tables",
    "devices": "tables",
    "memory": "tables",
    "processes": "tables",
    "release": "release",
    "reset": "reset",
    "record": "record",
    "measure": "measure",
    "diff": "machines",
    "fleet": "machines",
    "rules": "rules",
    "explain": "rules",
    "schema": "rules",
}


class Subcommands(click.Group):
    """Subcommands that are known by name, and imported when they are asked for."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        """One of them, None if there is no such."""
        if cmd_name not in MODULES:
            return None
        module = import_module(f"gpudiag.commands.{MODULES[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command


@click.group(
    cls=Subcommands,
    commands=[click.Command(name) for name in MODULES],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
)
@click.version_option(__version__, message="gpudiag %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Say what is wrong with a GPU machine and its PyTorch, why, and what cures it.

    Start with: gpudiag diagnose
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(EXIT_BAD_INPUT)


def main() -> None:
    """Run the command line and exit."""
    sys.exit(run(cli, name="gpudiag", bad_input=InputError))
