"""The ``evalkit`` command; the subcommands lie in `evalkit.commands`.

Exit codes: 0 done, 2 usage error or unreadable input, 3 evalkit itself failed, 130 interrupted.
"""

from __future__ import annotations

import sys

import click

from evalkit.commands.checkpoints import convert, inspect
from evalkit.commands.compare import compare
from evalkit.commands.demo import demo
from evalkit.commands.evaluate import evaluate
from evalkit.commands.option_words import Commands
from evalkit.commands.report import report
from evalkit.commands.train import train
from evalkit.errors import InputError
from gpudiag.command_line import EXIT_BAD_INPUT, run


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
)
@click.version_option(package_name="gpudiag", message="evalkit %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Evaluate any classification checkpoint, or anyone's table of predictions, honestly."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(EXIT_BAD_INPUT)


for command in (evaluate, report, compare, inspect, convert, train, demo):
    cli.add_command(command)


def main() -> None:
    """Run the command line and exit: errors are one line on standard error, never a traceback."""
    sys.exit(run(cli, name="evalkit", bad_input=InputError))
